//! The service `grpc.health.v1.Health`.

use std::pin::Pin;

use bollard_buildkit_proto::health::health_server::Health;
use bollard_buildkit_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse, health_check_response,
};
use tonic::Status;

use crate::answers::answers;

/// A daemon that answers is well.
pub(crate) struct Alive;

fn serving() -> HealthCheckResponse {
    HealthCheckResponse { status: health_check_response::ServingStatus::Serving.into() }
}

#[tonic::async_trait]
impl Health for Alive {
    async fn check(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        Ok(tonic::Response::new(serving()))
    }

    async fn list(&self, _: tonic::Request<HealthListRequest>) -> Result<tonic::Response<HealthListResponse>, Status> {
        let statuses = [(String::new(), serving())].into();
        Ok(tonic::Response::new(HealthListResponse { statuses }))
    }

    type WatchStream =
        Pin<Box<dyn tonic::codegen::tokio_stream::Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, _: tonic::Request<HealthCheckRequest>) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let (sender, stream) = answers();
        tokio::spawn(async move {
            // It stays so until the daemon is gone.
            if sender.send(Ok(serving())).await.is_ok() {
                sender.closed().await;
            }
        });
        Ok(tonic::Response::new(stream))
    }
}
