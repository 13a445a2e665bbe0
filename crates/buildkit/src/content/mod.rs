//! Stores of content that a client has and serves over its session: containerd's service `Content`, called at the client.
//!
//! A client has several: one for each OCI layout that is a context (`oci:<name>`), one for each directory of a cache
//! (`local:<directory>`), and one for an export that is not an archive (`export`). Which one is meant is in the metadata of calls.

mod messages;
pub(crate) mod service;

use std::io;

use api::oci::Descriptor;
use build::export::Bytes;
use build::job::Incoming;
use model::digest::Digest;
use model::{Error, Result};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Streaming};
use tonic_prost::ProstCodec;

use crate::error::answered;
use crate::inputs::bytes::{self, Queue};
use crate::metadata;
use crate::session::{Channel, Session};
use messages::{
    InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse, WriteAction, WriteContentRequest,
    WriteContentResponse,
};

const INFO: &str = "/containerd.services.content.v1.Content/Info";
const READ: &str = "/containerd.services.content.v1.Content/Read";
const WRITE: &str = "/containerd.services.content.v1.Content/Write";
/// The store of an export.
pub(crate) const EXPORT: &str = "export";
/// Bytes of a message to or from a client.
const MESSAGE: usize = 16 << 20;
/// Messages that wait to be sent.
const QUEUE: usize = 2;

/// One of a client's stores.
pub(crate) struct Store<'s> {
    /// Whose.
    pub(crate) session: &'s Session,
    /// Which.
    pub(crate) name: &'s str,
}

impl Store<'_> {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        metadata::append(request.metadata_mut(), "buildkit-attachable-store-id", &[self.name.to_owned()]);
        request
    }

    async fn client(&self, method: &'static str) -> Result<tonic::client::Grpc<Channel>> {
        let channel = self.session.calling(method)?;
        let client = tonic::client::Grpc::with_origin(channel, Channel::origin());
        let mut client = client.max_decoding_message_size(MESSAGE);
        client.ready().await.map_err(|error| Error::unavailable("the client has left").with_source(error))?;
        Ok(client)
    }

    /// Reads a blob. What comes is not verified.
    ///
    /// Errors: `NotFound`, and what the client says.
    pub(crate) async fn read(&self, digest: &Digest) -> Result<Incoming> {
        let mut client = self.client(READ).await?;
        let request = self.request(ReadContentRequest { digest: digest.to_string(), ..ReadContentRequest::default() });
        let codec = ProstCodec::<ReadContentRequest, ReadContentResponse>::default();
        let answer = client.server_streaming(request, PathAndQuery::from_static(READ), codec).await;
        let mut messages = answer.map_err(|status| answered(&status))?.into_inner();
        // Whether the blob is there the first message says.
        let first = messages.message().await.map_err(|status| answered(&status))?;
        let first = io::Cursor::new(first.map(|message| message.data).unwrap_or_default());
        Ok(Box::new(first.chain(bytes::incoming(messages, |message| message.data))))
    }

    /// Whether the store has a blob.
    pub(crate) async fn has(&self, digest: &str) -> Result<bool> {
        let mut client = self.client(INFO).await?;
        let request = self.request(InfoRequest { digest: digest.to_owned() });
        let codec = ProstCodec::<InfoRequest, InfoResponse>::default();
        match client.unary(request, PathAndQuery::from_static(INFO), codec).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(answered(&status)),
        }
    }

    /// Writes a blob that the store does not have yet.
    ///
    /// Errors: what the client says; what breaks `bytes` off.
    pub(crate) async fn write(&self, descriptor: &Descriptor, bytes: Bytes) -> Result<()> {
        if self.has(&descriptor.digest).await? {
            return Ok(());
        }
        let mut client = self.client(WRITE).await?;
        let (sender, queue) = mpsc::channel(QUEUE);
        let write = Write { descriptor, sender, offset: 0 };
        // It is answered when the first message has come.
        write.send(WriteAction::Stat, Vec::new()).await?;
        let codec = ProstCodec::<WriteContentRequest, WriteContentResponse>::default();
        let request = self.request(Queue(queue));
        match client.streaming(request, PathAndQuery::from_static(WRITE), codec).await {
            Ok(answer) => write.run(answer.into_inner(), bytes).await,
            Err(status) => unless_there(&status),
        }
    }
}

/// A blob that has come there meanwhile is no failure.
fn unless_there(status: &tonic::Status) -> Result<()> {
    if status.code() == Code::AlreadyExists { Ok(()) } else { Err(answered(status)) }
}

/// A blob that is being written: one message is answered before the next one is sent.
struct Write<'w> {
    descriptor: &'w Descriptor,
    sender: mpsc::Sender<WriteContentRequest>,
    /// Bytes that the client has.
    offset: i64,
}

impl Write<'_> {
    async fn run(mut self, mut answers: Streaming<WriteContentResponse>, mut bytes: Bytes) -> Result<()> {
        // Bytes of an earlier write, which are not sent again.
        let Some(mut skipped) = self.answer(&mut answers).await? else { return Ok(()) };
        if !(0..=self.descriptor.size).contains(&skipped) {
            return Err(Error::invalid(format!("the client has {skipped} bytes of {}", self.descriptor.digest)));
        }
        self.offset = skipped;
        while let Some(piece) = bytes.recv().await {
            let mut piece = piece?;
            let known = usize::try_from(skipped).unwrap_or(usize::MAX).min(piece.len());
            piece.drain(..known);
            skipped -= i64::try_from(known).unwrap_or(i64::MAX);
            if piece.is_empty() {
                continue;
            }
            let added = i64::try_from(piece.len()).unwrap_or(i64::MAX);
            self.send(WriteAction::Write, piece).await?;
            if self.answer(&mut answers).await?.is_none() {
                return Ok(());
            }
            self.offset += added;
        }
        self.send(WriteAction::Commit, Vec::new()).await?;
        self.answer(&mut answers).await.map(drop)
    }

    async fn send(&self, action: WriteAction, data: Vec<u8>) -> Result<()> {
        let Descriptor { digest, size, .. } = self.descriptor;
        let request = WriteContentRequest {
            action: action.into(),
            r#ref: format!("upload-{digest}"),
            total: *size,
            expected: digest.clone(),
            offset: self.offset,
            data,
            labels: std::collections::HashMap::new(),
        };
        self.sender.send(request).await.map_err(|_| Error::unavailable("the client has left"))
    }

    /// How far the client is; `None`: it has the blob already.
    async fn answer(&self, answers: &mut Streaming<WriteContentResponse>) -> Result<Option<i64>> {
        match answers.message().await {
            Ok(Some(answer)) => Ok(Some(answer.offset)),
            Ok(None) => Err(Error::unavailable("the client has ended a write early")),
            Err(status) => unless_there(&status).map(|()| None),
        }
    }
}
