//! What has to do with registries: pull, push, login, search, distribution inspect.

use std::future::Future;
use std::sync::Arc;

use engine::image::{self, PullArgs};
use model::digest::Digest;
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Error, Result};
use registry::Credentials;
use tokio::sync::mpsc;

use super::{State, progress};
use crate::limits;
use crate::request::Request;
use crate::routes::Outcome;

/// The header with a client's credentials.
const AUTH: &str = "X-Registry-Auth";

/// The credentials of a request; what cannot be read is as good as none, as with the reference.
fn credentials(request: &Request) -> Credentials {
    Credentials::from_header(request.header(AUTH).unwrap_or_default()).unwrap_or_else(|error| {
        tracing::debug!(%error, "credentials are ignored");
        Credentials::default()
    })
}

/// Runs an operation that tells of its progress, until it ends or the client leaves.
async fn told<F>(
    request: &Request,
    operation: impl FnOnce(mpsc::Sender<Result<api::ProgressMessage>>) -> F,
) -> Result<Outcome>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (lines, messages) = mpsc::channel(limits::STREAM_QUEUE);
    let running = operation(lines.clone());
    tokio::spawn(async move {
        if let Err(error) = running.await {
            // A client that left hears of nothing.
            drop(lines.send(Err(error)).await);
        }
    });
    let gone = request.gone.clone();
    tokio::select! {
        answer = progress::answer(messages) => Ok(answer?.into()),
        () = Request::client_gone(gone) => Err(Error::cancelled("context canceled")),
    }
}

/// What a pull's `fromImage` and `tag` mean: the tag may be a digest; without one, all tags.
fn pulled(name: &str, tag: &str) -> Result<ImageRef> {
    let reference = ImageRef::parse_normalized(name.strip_suffix(':').unwrap_or(name))?;
    match (tag, Digest::parse(tag)) {
        ("", _) => Ok(reference),
        (_, Ok(digest)) => Ok(reference.with_digest(digest)),
        (tag, Err(_)) => reference.with_tag(tag),
    }
}

/// `POST /images/create?fromImage=`
pub async fn pull(state: Arc<State>, request: &Request) -> Result<Outcome> {
    let query = &request.query;
    let host = Platform::new("linux", &state.engine.host.architecture, "");
    let wanted = query.text("platform");
    let platform = match wanted.is_empty() || request.version.before(32) {
        true => None,
        false => Some(Platform::parse(wanted, &host)?),
    };
    let reference = pulled(query.text("fromImage"), query.text("tag"))?;
    let args = PullArgs { reference, platform, credentials: credentials(request) };
    let engine = state.engine.clone();
    told(request, |lines| async move { image::pull(&engine, args, &lines).await }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_may_be_a_digest_or_missing() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let read = |name, tag| pulled(name, tag).map(|r| r.familiar());
        assert_eq!(read("busybox", "1.36").unwrap(), "busybox:1.36");
        assert_eq!(read("busybox:", "").unwrap(), "busybox");
        assert_eq!(read("busybox:1.36", "").unwrap(), "busybox:1.36");
        assert_eq!(read("busybox", &digest).unwrap(), format!("busybox@{digest}"));
        assert_eq!(read("busybox", "a b").unwrap_err().message(), "invalid tag format");
    }
}
