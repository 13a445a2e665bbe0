//! What has to do with registries: pull, push, login, search, distribution inspect.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use engine::metrics::Transfer;
use image::{PullArgs, PushArgs};
use model::digest::Digest;
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Error, Result};
use registry::Credentials;
use tokio::sync::mpsc;

use super::{State, ok, progress};
use crate::limits;
use crate::request::Request;
use crate::routes::Outcome;

/// The header with a client's credentials.
const AUTH: &str = "X-Registry-Auth";

/// The credentials of a request; what cannot be read is as good as none, as with the reference.
fn credentials(request: &Request) -> Credentials {
    let given = Credentials::from_header(request.header(AUTH).unwrap_or_default()).unwrap_or_else(|error| {
        tracing::debug!(%error, "credentials are ignored");
        Credentials::default()
    });
    Credentials { client_agent: request.header("user-agent").unwrap_or_default().to_owned(), ..given }
}

/// Runs an operation that tells of its progress, until it ends or the client leaves.
async fn with_progress<F>(
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
        // The digest of the name says more than a tag.
        (tag, Err(_)) => reference.with_tag(tag).map(|tagged| match reference.digest {
            Some(_) => reference,
            None => tagged,
        }),
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
    with_progress(request, |lines| async move {
        let begun = Instant::now();
        let pulled =
            image::pull(&engine.images, &engine.events, engine.settings().services.transfers, args, &lines).await;
        pulled.inspect(|()| state.metrics.timers.note_transfer(Transfer::Pull, begun.elapsed()))
    })
    .await
}

/// `POST /images/{name}/push`
pub async fn push(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let credentials = match request.header(AUTH) {
        Some(_) => credentials(&request),
        // Very old clients have them in the body.
        None => match request.json_bytes().await?.filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => from_config(api::decode::from_slice(&bytes).map_err(crate::request::invalid_body)?),
            None => {
                let why = "bad parameters and missing X-Registry-Auth: invalid X-Registry-Auth header: EOF";
                return Err(Error::invalid(why));
            }
        },
    };
    let reference = match request.query.text("tag") {
        "" => ImageRef::parse_normalized(request.name())?,
        tag => image::repository_tag(request.name(), tag)?.ok_or_else(|| Error::invalid("invalid reference format"))?,
    };
    let wanted = request.query.text("platform");
    let platform = match wanted.is_empty() || request.version.before(46) {
        true => None,
        false => Some(super::images::platform(wanted)?),
    };
    let args = PushArgs { reference, platform, credentials };
    let engine = state.engine.clone();
    with_progress(&request, |lines| async move {
        let begun = Instant::now();
        let pushed =
            image::push(&engine.images, &engine.events, engine.settings().services.transfers, args, &lines).await;
        pushed.inspect(|()| state.metrics.timers.note_transfer(Transfer::Push, begun.elapsed()))
    })
    .await
}

fn from_config(given: api::AuthConfig) -> Credentials {
    Credentials {
        username: given.username,
        password: given.password,
        auth: given.auth,
        serveraddress: given.serveraddress,
        identitytoken: given.identitytoken,
        registrytoken: given.registrytoken,
        ..Credentials::default()
    }
    .completed()
}

/// `POST /auth`
pub async fn login(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let bytes = request.json_bytes().await?.unwrap_or_default();
    let given: api::AuthConfig = api::decode::from_slice(&bytes).map_err(|error| {
        let why = match error {
            api::decode::DecodeError::Trailing => error.stream_message(),
            _ => format!("invalid JSON: {}", error.stream_message()),
        };
        Error::invalid(format!("invalid X-Registry-Auth header: {why}"))
    })?;
    let identity_token = registry::login(&state.engine.images.registries, from_config(given)).await?;
    ok(&api::AuthResponse { identity_token, status: "Login Succeeded".to_owned() })
}

/// `GET /distribution/{name}/json`
pub async fn inspect(state: Arc<State>, request: Request) -> Result<Outcome> {
    let name = request.name();
    if model::reference::is_bare_id(name) || Digest::parse(name).is_ok() {
        return Err(Error::system("no manifest found for full image ID"));
    }
    let reference = ImageRef::parse_normalized(name)?.with_default_tag();
    ok(&image::distribution(&state.engine.images.registries, &reference, credentials(&request)).await?)
}

/// Most results of a search, and how many without a wish.
const SEARCH_LIMIT: i64 = 100;
const SEARCH_DEFAULT: i64 = 25;

/// `GET /images/search`
pub async fn search(state: Arc<State>, request: Request) -> Result<Outcome> {
    let (query, filters) = (&request.query, request.query.filters()?);
    filters.validate(&["is-automated", "is-official", "stars"])?;
    let limit = match query.text("limit") {
        "" => 0,
        text => number(text).map_err(|error| error.prefix("invalid limit specified"))?,
    };
    let limit = if limit == 0 { SEARCH_DEFAULT } else { limit };
    if !(1..=SEARCH_LIMIT).contains(&limit) {
        return Err(Error::invalid(format!("limit {limit} is outside the range of [1, {SEARCH_LIMIT}]")));
    }
    if filters.flag("is-automated", false)? {
        return ok(&Vec::<api::SearchResult>::new());
    }
    let official = match filters.contains("is-official") {
        true => Some(filters.flag("is-official", false)?),
        false => None,
    };
    let mut stars = 0;
    for text in filters.get("stars") {
        let least = number(text).map_err(|error| error.prefix(format!("invalid filter 'stars={text}'")))?;
        stars = stars.max(least);
    }
    let found =
        registry::search(&state.engine.images.registries, query.text("term"), limit as u32, credentials(&request));
    let shown = found
        .await?
        .into_iter()
        .filter(|hit| official.is_none_or(|official| hit.is_official == official) && hit.star_count >= stars);
    let shown = shown.map(|hit| api::SearchResult {
        star_count: hit.star_count,
        is_official: hit.is_official,
        name: hit.name,
        is_automated: false,
        description: hit.description,
    });
    ok(&shown.collect::<Vec<_>>())
}

fn number(text: &str) -> Result<i64> {
    text.parse().map_err(|_| Error::invalid(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_may_be_a_digest_or_missing() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let read = |name: &str, tag: &str| pulled(name, tag).map(|r| r.familiar());
        assert_eq!(read("busybox", "1.36").unwrap(), "busybox:1.36");
        assert_eq!(read("busybox:", "").unwrap(), "busybox");
        assert_eq!(read("busybox:1.36", "").unwrap(), "busybox:1.36");
        assert_eq!(read("busybox", &digest).unwrap(), format!("busybox@{digest}"));
        assert_eq!(read(&format!("busybox@{digest}"), "1.36").unwrap(), format!("busybox@{digest}"));
        assert_eq!(read("busybox", "a b").unwrap_err().message(), "invalid tag format");
    }
}
