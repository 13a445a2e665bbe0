//! Whether a client is still there: it is asked again and again, and two answers in a row that do not come end its session.

use std::time::Duration;

use bollard_buildkit_proto::health::HealthCheckRequest;
use model::Error;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::channel::Channel;

/// The method.
pub(super) const CHECK: &str = "/grpc.health.v1.Health/Check";
/// From one question to the next.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long an answer may take at least; more when the last took longer.
const ANSWER: Duration = Duration::from_secs(15);
/// Questions without an answer, one after the other, that end a session.
const FAILURES: u32 = 2;

/// Returns why the session is at its end: never, for a client that has not named the method.
pub(super) async fn watch(channel: Option<Channel>) -> Error {
    let Some(channel) = channel else { return std::future::pending().await };
    let mut client = channel.health();
    let (mut failures, mut last) = (0, Duration::ZERO);
    loop {
        sleep(INTERVAL).await;
        let begun = Instant::now();
        let answer = timeout(ANSWER.max(last + last / 2), client.check(HealthCheckRequest::default())).await;
        last = begun.elapsed();
        failures = match answer {
            // A client that does not know the question is there.
            Ok(Ok(_)) => 0,
            Ok(Err(status)) if status.code() == Code::Unimplemented => 0,
            Ok(Err(_)) | Err(_) => failures + 1,
        };
        if failures >= FAILURES {
            return Error::unavailable("session healthcheck failed fatally");
        }
    }
}
