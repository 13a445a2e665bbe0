//! What becomes of a result: an image, an archive of one, or its files.
//!
//! A client names an exporter and its attributes ([`Exporter::read`]). What was solved ([`Source`]) is turned into layers, packed and
//! hashed beside each other and once each ([`pack()`]), and into documents; what is streamed goes to a [`Client`].

mod annotations;
mod archive;
mod client;
mod config;
mod context;
mod documents;
mod files;
mod image;
mod layer;
mod options;
mod pack;
mod source;
mod stat;
mod stream;
mod tree;

use std::sync::Arc;

use model::Result;

pub use annotations::{Annotations, Scope};
pub use archive::send_blob;
pub use client::{Bytes, Client, Status};
pub use context::{Context, Response};
pub use layer::media_type;
pub use options::{Archive, Compression, Exporter, FileTree, Form, Image, Names, Packing, Variant};
pub use pack::{Archived, Request, pack};
pub use source::{Attestation, Content, Metadata, Refs, Source, Subject, Target};
pub use stat::mode;
pub use tree::Files;

/// Exports a result; the names and values that the client is answered with.
///
/// Errors: `InvalidParameter` for options that do not go together; what the disk, a registry or the client says.
pub async fn run(context: &Context, exporter: &Exporter, source: Arc<Source>) -> Result<Response> {
    match exporter {
        Exporter::Image(wanted) => image::run(context, wanted, source).await,
        Exporter::Archive(wanted) => archive::run(context, wanted, source).await,
        Exporter::Files(wanted) => files::run(context, wanted, source).await,
        Exporter::Nothing => Ok(Response::new()),
    }
}
