//! Who answers calls of gRPC.

use std::future::Future;
use std::pin::Pin;

use hyper::Request;
use hyper::body::Incoming;

use crate::response::{Body, Response};

/// A call that is being answered.
pub type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Who answers calls of gRPC.
pub trait Calls: Send + Sync {
    /// Answers one.
    fn answer(&self, request: Request<Incoming>) -> Answering;

    /// The answer to one that a policy refuses.
    fn refused(&self, error: &model::Error) -> Response;
}

/// Calls of BuildKit's API.
pub struct Builds(pub buildkit::Buildkit);

impl Calls for Builds {
    fn answer(&self, request: Request<Incoming>) -> Answering {
        let api = self.0.clone();
        Box::pin(async move { api.answer(request).await.map(Body::Call) })
    }

    fn refused(&self, error: &model::Error) -> Response {
        buildkit::refused(error).map(Body::Call)
    }
}
