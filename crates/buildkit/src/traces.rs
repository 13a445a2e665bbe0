//! The service `opentelemetry.proto.collector.trace.v1.TraceService`: what clients have measured of their builds is taken, within
//! bounds, and kept by nobody.

use tonic::codegen::{BoxFuture, http};
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// The service.
pub(crate) const SERVICE: &str = "opentelemetry.proto.collector.trace.v1.TraceService";
/// Bytes of what is sent at one time.
const MESSAGE: usize = 4 << 20;

/// `ExportTraceServiceRequest`, of which nothing is read, and the answer, which says that all of it was taken.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Nothing {}

struct Export;

impl UnaryService<Nothing> for Export {
    type Response = Nothing;
    type Future = BoxFuture<Response<Nothing>, Status>;

    fn call(&mut self, _: Request<Nothing>) -> Self::Future {
        Box::pin(async { Ok(Response::new(Nothing {})) })
    }
}

/// Answers a call of one of its methods.
pub(crate) async fn call(
    method: &str,
    request: http::Request<hyper::body::Incoming>,
) -> http::Response<tonic::body::Body> {
    if method != "Export" {
        return Status::unimplemented(format!("unknown method {method} for service {SERVICE}")).into_http();
    }
    let codec = ProstCodec::<Nothing, Nothing>::default();
    Grpc::new(codec).max_decoding_message_size(MESSAGE).unary(Export, request).await
}
