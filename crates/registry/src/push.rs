//! Writing: a blob that is already there, or can be mounted from a neighbour, is not sent; a manifest comes last.
//!
//! A blob goes in one piece; a registry that refuses that gets chunks. Which of the two is the caller's choice.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, LOCATION};
use hyper::{Method, StatusCode};
use model::digest::Digest;
use tokio::sync::mpsc;

use crate::endpoint::Endpoint;
use crate::exchange::{Answer, Body, Chunks};
use crate::failure::{Fault, Result};
use crate::session::{Ask, Need, Repository};
use crate::url::Url;

/// Bytes of a chunk, where chunks are sent.
pub const CHUNK: u64 = 8 << 20;
/// The least that a registry takes in one chunk.
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It was mounted from the repository that was named.
    Mounted,
    /// It has to be sent.
    Upload,
}

/// An upload that the registry has agreed to.
pub struct Upload<'r> {
    repository: &'r Repository,
    endpoint: &'r Endpoint,
    location: Url,
    /// Bytes of a chunk.
    chunk: u64,
}

/// Gives so many bytes (the second) of a blob from an offset (the first) on; each call begins anew.
pub type Source<'s> = &'s (dyn Fn(u64, u64) -> mpsc::Receiver<io::Result<Bytes>> + Send + Sync);

fn body(source: Source<'_>, from: u64, size: u64) -> Body {
    Body::Stream(Chunks { chunks: source(from, size), size, taken: Arc::default() })
}

impl Repository {
    /// Begins to write a blob, or mounts it from another repository of the same registry.
    pub async fn begin_upload(&self, digest: &Digest, mount_from: Option<&str>) -> Result<(Begun, Option<Upload<'_>>)> {
        self.anywhere(Need::Push, |endpoint| self.begin_at(endpoint, digest, mount_from)).await
    }

    async fn begin_at<'r>(
        &'r self,
        endpoint: &'r Endpoint,
        digest: &Digest,
        mount_from: Option<&str>,
    ) -> Result<(Begun, Option<Upload<'r>>)> {
        let mut url = self.url(endpoint, "blobs/uploads/");
        let mut scopes = Vec::new();
        if let Some(from) = mount_from {
            url = url.with_query("mount", digest.as_str()).with_query("from", from);
            scopes.push(format!("repository:{from}:pull"));
        }
        let ask = Ask { scopes, ..Ask::new(Method::POST, url) }.header(CONTENT_LENGTH, "0");
        let answer = self.ask(endpoint, ask).await?;
        match answer.status {
            StatusCode::CREATED => {
                answer.discard().await;
                Ok((Begun::Mounted, None))
            }
            StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT => {
                let location = location(&answer)?;
                let least: u64 = answer.header(CHUNK_MIN_LENGTH).and_then(|text| text.parse().ok()).unwrap_or(0);
                let chunk = CHUNK.max(least);
                answer.discard().await;
                Ok((Begun::Upload, Some(Upload { repository: self, endpoint, location, chunk })))
            }
            status => Err(unexpected(&answer, status)),
        }
    }

    /// Writes a manifest or index under a tag or digest; answers the digest that the registry gave it, if told.
    pub async fn put_manifest(&self, tag: &str, media_type: &str, bytes: &Bytes) -> Result<Option<Digest>> {
        self.anywhere(Need::Push, |endpoint| async move {
            let url = self.url(endpoint, &format!("manifests/{tag}"));
            let ask = Ask { body: Body::Whole(bytes.clone()), ..Ask::new(Method::PUT, url) };
            let answer = self.ask(endpoint, ask.header(CONTENT_TYPE, media_type)).await?;
            let digest = answer.header(DOCKER_CONTENT_DIGEST).and_then(|text| Digest::parse(text).ok());
            answer.discard().await;
            Ok(digest)
        })
        .await
    }
}

fn unexpected(answer: &Answer, status: StatusCode) -> Fault {
    Fault::nonsense(format!("{}: unexpected status {}", answer.what(), crate::failure::shown(status)))
}

fn location(answer: &Answer) -> Result<Url> {
    let text = answer
        .header(LOCATION)
        .ok_or_else(|| Fault::nonsense(format!("{}: the registry does not say where to upload to", answer.what())))?;
    Ok(answer.url.join(text)?)
}

impl Upload<'_> {
    /// Sends the whole blob in one request.
    pub async fn whole(self, digest: &Digest, size: u64, source: Source<'_>) -> Result<()> {
        let url = self.location.with_query("digest", digest.as_str());
        let ask = Ask { body: body(source, 0, size), ..Ask::new(Method::PUT, url) };
        let ask = ask.header(CONTENT_TYPE, "application/octet-stream").header(CONTENT_LENGTH, &size.to_string());
        self.finished(ask).await
    }

    /// Sends it in chunks.
    pub async fn chunked(mut self, digest: &Digest, size: u64, source: Source<'_>) -> Result<()> {
        let mut at = 0;
        while at < size {
            let length = self.chunk.min(size - at);
            let ask = Ask { body: body(source, at, length), ..Ask::new(Method::PATCH, self.location.clone()) }
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, &length.to_string())
                .header(CONTENT_RANGE, &format!("{at}-{}", at + length - 1));
            let answer = self.repository.ask(self.endpoint, ask).await?;
            if !answer.status.is_success() {
                return Err(unexpected(&answer, answer.status));
            }
            // Without a word on it, the next chunk goes where this one went.
            if answer.headers.contains_key(LOCATION) {
                self.location = location(&answer)?;
            }
            answer.discard().await;
            at += length;
        }
        let url = self.location.with_query("digest", digest.as_str());
        self.finished(Ask::new(Method::PUT, url).header(CONTENT_LENGTH, "0")).await
    }

    async fn finished(&self, ask: Ask) -> Result<()> {
        let answer = self.repository.ask(self.endpoint, ask).await?;
        // What containerd's pusher takes; some registries go on with the blob after the answer.
        let done = [StatusCode::CREATED, StatusCode::NO_CONTENT, StatusCode::OK, StatusCode::ACCEPTED];
        if !done.contains(&answer.status) {
            return Err(unexpected(&answer, answer.status));
        }
        answer.discard().await;
        Ok(())
    }
}
