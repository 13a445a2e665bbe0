//! The service `containerd.services.content.v1.Content`, to be read only: blobs of the daemon's images and results of builds, by
//! their digests. What would change it is refused.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use build::Builder;
use model::digest::Digest;
use model::{Context, Error, Result};
use tokio::sync::mpsc;
use tonic::codegen::{BoxFuture, http};
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::messages::{Info, InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse};
use crate::answers::{Messages, answers};
use crate::error::status;

/// The service.
pub(crate) const SERVICE: &str = "containerd.services.content.v1.Content";
/// Bytes of a message.
const PIECE: usize = 1 << 20;
/// Bytes of a request.
const REQUEST: usize = 64 << 10;

/// See the module.
#[derive(Clone)]
pub(crate) struct Content(pub(crate) Arc<Builder>);

impl Content {
    /// Answers a call of one of its methods.
    pub(crate) async fn call(
        self,
        method: &str,
        request: http::Request<hyper::body::Incoming>,
    ) -> http::Response<tonic::body::Body> {
        match method {
            "Info" => {
                let codec = ProstCodec::<InfoResponse, InfoRequest>::default();
                Grpc::new(codec).max_decoding_message_size(REQUEST).unary(self, request).await
            }
            "Read" => {
                let codec = ProstCodec::<ReadContentResponse, ReadContentRequest>::default();
                Grpc::new(codec).max_decoding_message_size(REQUEST).server_streaming(self, request).await
            }
            "Write" | "Update" | "Delete" | "Abort" => {
                Status::failed_precondition("read-only content store").into_http()
            }
            other => Status::unimplemented(format!("unknown method {other} for service {SERVICE}")).into_http(),
        }
    }

    async fn info(self, request: InfoRequest) -> Result<InfoResponse> {
        let (digest, size) = self.find(&request.digest).await?;
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        Ok(InfoResponse { info: Some(Info { digest: digest.to_string(), size, ..Info::default() }) })
    }

    async fn find(&self, digest: &str) -> Result<(Digest, u64)> {
        let digest = Digest::parse(digest).map_err(|error| error.prefix(format!("{digest:?}")))?;
        let builder = self.0.clone();
        let work = move |_: &_| {
            let size = builder.images.blobs.size(&digest);
            let size = size.map_err(|_| Error::not_found(format!("content {digest}: not found")))?;
            Ok((digest, size))
        };
        self.0.threads.run(work).await
    }

    async fn read(self, request: ReadContentRequest) -> Result<Messages<ReadContentResponse>> {
        let (digest, size) = self.find(&request.digest).await?;
        let offset = u64::try_from(request.offset).map_err(|_| Error::invalid("the offset is negative"))?;
        let wanted = u64::try_from(request.size).map_err(|_| Error::invalid("the size is negative"))?;
        if offset > size {
            return Err(Error::invalid(format!("read past object length {size} bytes")));
        }
        let end = if wanted == 0 { size } else { offset.saturating_add(wanted).min(size) };
        let (sender, stream) = answers();
        tokio::spawn(async move {
            if let Err(error) = self.pass(&digest, offset..end, &sender).await {
                drop(sender.send(Err(status(&error))).await);
            }
        });
        Ok(stream)
    }

    /// Sends a part of a blob, at the client's pace.
    async fn pass(
        &self,
        digest: &Digest,
        part: std::ops::Range<u64>,
        sender: &mpsc::Sender<Result<ReadContentResponse, Status>>,
    ) -> Result<()> {
        let mut at = part.start;
        while at < part.end {
            let (builder, digest) = (self.0.clone(), digest.clone());
            let length = (part.end - at).min(PIECE as u64);
            let read = move |_: &_| {
                let mut file = builder.images.blobs.open_blob(&digest)?;
                let mut data = Vec::new();
                let mut copy = || {
                    file.seek(SeekFrom::Start(at))?;
                    file.by_ref().take(length).read_to_end(&mut data)
                };
                copy().context("reading a blob")?;
                Ok(data)
            };
            let data = self.0.threads.run(read).await?;
            if data.is_empty() {
                return Err(Error::system("a blob is shorter than it was"));
            }
            let offset = i64::try_from(at).unwrap_or(i64::MAX);
            at += data.len() as u64;
            if sender.send(Ok(ReadContentResponse { offset, data })).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl UnaryService<InfoRequest> for Content {
    type Response = InfoResponse;
    type Future = BoxFuture<Response<InfoResponse>, Status>;

    fn call(&mut self, request: Request<InfoRequest>) -> Self::Future {
        let own = self.clone();
        Box::pin(async move { own.info(request.into_inner()).await.map(Response::new).map_err(|error| status(&error)) })
    }
}

impl ServerStreamingService<ReadContentRequest> for Content {
    type Response = ReadContentResponse;
    type ResponseStream = Messages<ReadContentResponse>;
    type Future = BoxFuture<Response<Messages<ReadContentResponse>>, Status>;

    fn call(&mut self, request: Request<ReadContentRequest>) -> Self::Future {
        let own = self.clone();
        Box::pin(async move { own.read(request.into_inner()).await.map(Response::new).map_err(|error| status(&error)) })
    }
}
