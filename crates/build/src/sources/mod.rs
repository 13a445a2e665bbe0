//! Sources: where a build begins.

mod configuration;
mod git;
mod http;
pub mod image;
mod layout;
pub mod rules;
pub mod sandbox;

use std::sync::Arc;

use bollard_buildkit_proto::pb;
use model::{Error, Result};

pub use self::configuration::configuration;
use self::image::IMAGE;
use crate::graph::Vertex;
use crate::job::Job;
use crate::result::Solved;

const GIT: &str = "git://";
const LAYOUT: &str = "oci-layout://";
const LOCAL: &str = "local://";

/// The files of a source.
pub(crate) async fn solve(job: &Arc<Job>, vertex: &Vertex, source: &pb::SourceOp) -> Result<Solved> {
    let judged = job.judged(source).map_err(|error| error.prefix("error evaluating the source policy"))?;
    let source = judged.as_ref().unwrap_or(source);
    let name = source.identifier.as_str();
    if let Some(reference) = name.strip_prefix(IMAGE) {
        return image::solve(job, vertex, reference, &source.attrs).await;
    }
    if let Some(reference) = name.strip_prefix(LAYOUT) {
        return layout::solve(job, vertex, reference, &source.attrs).await;
    }
    if let Some(local) = name.strip_prefix(LOCAL) {
        let found = job.inputs.local(local, &source.attrs).await?;
        return Ok(Solved { key: found.key, outputs: [(0, found.chain)].into(), cached: false });
    }
    if let Some(place) = name.strip_prefix(GIT) {
        return git::solve(job, place, &source.attrs).await;
    }
    if name.starts_with("http://") || name.starts_with("https://") {
        return http::solve(job, name, &source.attrs).await;
    }
    let scheme = name.split_once("://").map_or(name, |(scheme, _)| scheme);
    Err(Error::not_implemented(format!("sources of the kind {scheme} are not supported: {name}")))
}
