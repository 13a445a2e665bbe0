//! Calls over a connection that was taken over.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bollard_buildkit_proto::health::health_client::HealthClient;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
use bollard_buildkit_proto::moby::filesync::v1::file_sync_client::FileSyncClient;
use bollard_buildkit_proto::moby::sshforward::v1::ssh_client::SshClient;
use bollard_buildkit_proto::moby::upload::v1::upload_client::UploadClient;
use hyper::Uri;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use tonic::body::Body;
use tonic::codegen::{Service, http};

/// Bytes of a message from a client.
const MESSAGE: usize = 16 << 20;

/// A connection over which a client is called. Clones are the same.
#[derive(Clone)]
pub(crate) struct Channel(SendRequest<Body>);

impl Channel {
    pub(super) fn new(sender: SendRequest<Body>) -> Channel {
        Channel(sender)
    }

    /// Nobody looks at it, but HTTP/2 wants one.
    pub(crate) fn origin() -> Uri {
        Uri::from_static("http://localhost")
    }

    pub(crate) fn file_sync(self) -> FileSyncClient<Channel> {
        FileSyncClient::with_origin(self, Channel::origin()).max_decoding_message_size(MESSAGE)
    }

    pub(crate) fn health(self) -> HealthClient<Channel> {
        HealthClient::with_origin(self, Channel::origin())
    }

    pub(crate) fn secrets(self) -> SecretsClient<Channel> {
        SecretsClient::with_origin(self, Channel::origin()).max_decoding_message_size(MESSAGE)
    }

    pub(crate) fn auth(self) -> AuthClient<Channel> {
        AuthClient::with_origin(self, Channel::origin())
    }

    pub(crate) fn ssh(self) -> SshClient<Channel> {
        SshClient::with_origin(self, Channel::origin()).max_decoding_message_size(MESSAGE)
    }

    pub(crate) fn upload(self) -> UploadClient<Channel> {
        UploadClient::with_origin(self, Channel::origin()).max_decoding_message_size(MESSAGE)
    }
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
