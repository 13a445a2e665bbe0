//! What an export asks of the client that wanted the build.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::oci::Descriptor;
use model::{Error, Result};
use registry::Credentials;
use tokio::sync::mpsc;

use super::tree::Files;
use crate::job::Answer;

/// Bytes on their way to the client, piece by piece; an error breaks them off.
pub type Bytes = mpsc::Receiver<Result<Vec<u8>>>;

/// How far an export is; the texts are those that people read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Something begins.
    Started(String),
    /// It is done.
    Completed(String),
}

/// What is streamed to the client, and what is asked of it. Implemented over the client's session, and by tests.
pub trait Client: Send + Sync {
    /// Sends one file, with the exporter's answer before it.
    fn file<'a>(&'a self, response: &'a BTreeMap<String, String>, bytes: Bytes) -> Answer<'a, Result<()>>;

    /// Sends a tree of files, which the client writes to a directory.
    fn files(&self, files: Arc<Files>) -> Answer<'_, Result<()>>;

    /// Writes a blob to the client's store of content, if it is not there yet.
    fn blob<'a>(&'a self, descriptor: &'a Descriptor, bytes: Bytes) -> Answer<'a, Result<()>>;

    /// The same for a store of another name (`local:<directory>`). A client has none by default.
    fn store_blob<'a>(&'a self, store: &'a str, _: &'a Descriptor, _: Bytes) -> Answer<'a, Result<()>> {
        Box::pin(async move { Err(Error::not_found(format!("the client has no store {store}"))) })
    }

    /// What the client shows to a registry (`registry.example:5000`).
    fn credentials<'a>(&'a self, registry: &'a str) -> Answer<'a, Result<Credentials>>;

    /// Tells how far the export is. Does not block.
    fn status(&self, status: Status);
}
