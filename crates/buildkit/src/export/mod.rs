//! What exports send to a client: files, over its session.

mod tree;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::oci::Descriptor;
use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use build::Builder;
use build::export::{Bytes, Client, Files, Status as ExportStatus};
use build::job::{Answer, Inputs};
use model::lock::Mutex;
use model::{Error, Result};
use registry::Credentials;
use tokio::sync::mpsc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use crate::content::{self, Store};
use crate::error::answered;
use crate::inputs::ClientInputs;
use crate::inputs::bytes::Queue;
use crate::metadata;
use crate::progress::Span;
use crate::session::Channel;
use crate::time::now;

/// The method that takes both files and trees of files.
const SEND: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// Messages that wait to be sent.
const QUEUE: usize = 4;
/// Bytes of a message.
const PIECE: usize = 3 << 20;

/// The client of one exporter of a build.
pub(crate) struct Receiver {
    pub(crate) inputs: Arc<ClientInputs>,
    pub(crate) builder: Arc<Builder>,
    /// Which of the exporters of the request.
    pub(crate) index: usize,
    /// What it is told of as.
    pub(crate) span: Span,
    /// When what goes on began.
    pub(crate) begun: Mutex<HashMap<String, Timestamp>>,
}

impl Receiver {
    async fn channel(&self) -> Result<Channel> {
        self.inputs.session().await?.calling(SEND)
    }

    fn request<T>(&self, message: T, response: &BTreeMap<String, String>) -> Request<T> {
        let mut request = Request::new(message);
        let fields = request.metadata_mut();
        metadata::append(fields, "buildkit-attachable-exporter-id", &[self.index.to_string()]);
        for (key, value) in response {
            metadata::append(fields, &format!("exporter-md-{}", key.to_lowercase()), std::slice::from_ref(value));
        }
        request
    }

    async fn send_file(&self, response: &BTreeMap<String, String>, mut bytes: Bytes) -> Result<()> {
        let channel = self.channel().await?;
        let mut client = tonic::client::Grpc::with_origin(channel, Channel::origin());
        let (sender, receiver) = mpsc::channel(QUEUE);
        let pump = async move {
            while let Some(piece) = bytes.recv().await {
                for part in piece?.chunks(PIECE) {
                    let sent = sender.send(BytesMessage { data: part.to_vec() }).await;
                    // Why it takes no more the client's answer says.
                    if sent.is_err() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        };
        let call = async {
            client.ready().await.map_err(|error| Error::unavailable("the client has left").with_source(error))?;
            let request = self.request(Queue(receiver), response);
            let codec = ProstCodec::<BytesMessage, BytesMessage>::default();
            let answer = client.streaming(request, PathAndQuery::from_static(SEND), codec).await;
            let mut messages = match answer {
                Ok(answer) => answer.into_inner(),
                Err(status) => return ended(&status),
            };
            loop {
                match messages.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Ok(()),
                    Err(status) => return ended(&status),
                }
            }
        };
        let (pumped, called): (Result<()>, Result<()>) = tokio::join!(pump, call);
        pumped.and(called)
    }
}

/// A client that has the file already is content.
fn ended(status: &tonic::Status) -> Result<()> {
    if status.code() == Code::AlreadyExists { Ok(()) } else { Err(answered(status)) }
}

impl Client for Receiver {
    fn file<'a>(&'a self, response: &'a BTreeMap<String, String>, bytes: Bytes) -> Answer<'a, Result<()>> {
        Box::pin(self.send_file(response, bytes))
    }

    fn files(&self, files: Arc<Files>) -> Answer<'_, Result<()>> {
        Box::pin(async move {
            let channel = self.channel().await?;
            let request = |queue| self.request(queue, &BTreeMap::new());
            tree::send(channel, request, files, &self.builder.threads).await
        })
    }

    fn blob<'a>(&'a self, descriptor: &'a Descriptor, bytes: Bytes) -> Answer<'a, Result<()>> {
        self.store_blob(content::EXPORT, descriptor, bytes)
    }

    fn store_blob<'a>(&'a self, store: &'a str, descriptor: &'a Descriptor, bytes: Bytes) -> Answer<'a, Result<()>> {
        Box::pin(async move {
            let session = self.inputs.session().await?;
            Store { session: &session, name: store }.write(descriptor, bytes).await
        })
    }

    fn credentials<'a>(&'a self, registry: &'a str) -> Answer<'a, Result<Credentials>> {
        self.inputs.credentials(registry)
    }

    fn status(&self, status: ExportStatus) {
        let mut begun = self.begun.lock();
        match status {
            ExportStatus::Started(id) => {
                let started = now();
                self.span.status(&id, [Some(started), None]);
                begun.insert(id, started);
            }
            ExportStatus::Completed(id) => {
                let started = begun.remove(&id).unwrap_or_else(now);
                self.span.status(&id, [Some(started), Some(now())]);
            }
        }
    }
}
