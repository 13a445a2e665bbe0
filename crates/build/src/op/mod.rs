//! What operations do.

mod agent;
pub(crate) mod exec;
pub(crate) mod file;
mod input;
pub(crate) mod layers;
mod mounts;
pub(crate) mod process;

use std::sync::Arc;

use bollard_buildkit_proto::pb::op::Op;
use model::digest::Digest;
use model::{Error, Result};

use crate::graph::Vertex;
use crate::job::Job;
use crate::key;
use crate::result::{Made, Solved, Unmade};

/// A step's key with the digests of the files that it uses in the place of inputs of which it uses a part.
pub(crate) async fn content_key(job: &Arc<Job>, vertex: &Arc<Vertex>, inputs: &[Arc<Solved>]) -> Result<Digest> {
    let (roots, vertex, inputs) = (job.builder.roots.clone(), vertex.clone(), inputs.to_vec());
    let cancel = job.cancel.clone();
    let work = move |_: &_| {
        cancel.check()?;
        let whole: Vec<Digest> = inputs.iter().map(|input| input.key.clone()).collect();
        let parts = match &vertex.op {
            Op::File(file) => file::contents(&roots, &vertex, file, &inputs)?,
            Op::Exec(exec) => exec::contents(&roots, &vertex, exec, &inputs)?,
            _ => Default::default(),
        };
        let keys: Vec<Digest> =
            whole.into_iter().enumerate().map(|(at, whole)| parts.get(&at).cloned().unwrap_or(whole)).collect();
        Ok(key::of(&vertex, &keys))
    };
    job.builder.threads.run(work).await
}

/// Does what a step is for.
pub(crate) async fn run(job: &Arc<Job>, vertex: &Arc<Vertex>, inputs: &[Arc<Solved>]) -> Result<Made, Unmade> {
    match &vertex.op {
        Op::Exec(exec) => exec::run(job, vertex, exec, inputs).await,
        Op::File(_) => {
            let (roots, lease) = (job.builder.roots.clone(), job.lease.clone());
            let (vertex, inputs, cancel) = (vertex.clone(), inputs.to_vec(), job.cancel.clone());
            let work = move |_: &_| {
                let Op::File(file) = &vertex.op else { return Err(Error::system("not an operation on files")) };
                file::run(&file::Context { roots: &roots, lease: &lease, cancel: &cancel }, &vertex, file, &inputs)
            };
            Ok(job.builder.threads.run(work).await?)
        }
        _ => Err(Error::not_implemented("the operation is not supported").into()),
    }
}

/// Serves a socket that leads to an SSH agent of the client, until the value is dropped.
pub(crate) fn serve_agent(
    job: &Arc<Job>,
    listener: std::os::unix::net::UnixListener,
    agent: &str,
) -> Result<tokio::task::JoinSet<()>> {
    agent::serve(job, vec![mounts::Socket { listener, agent: agent.to_owned() }])
}
