//! The streams of a container: attach, logs, wait.

use std::sync::Arc;

use api::ApiVersion;
use bytes::Bytes;
use engine::container::attach::{self, AttachArgs};
use engine::container::logs::{self, LogsArgs};
use engine::container::wait::{self, Condition};
use model::{Error, Result};
use tokio::sync::mpsc;

use super::{State, ok};
use crate::hijack::{Head, Hijack, MULTIPLEXED_STREAM, RAW_STREAM};
use crate::limits;
use crate::query::{Query, go_quote};
use crate::request::Request;
use crate::response;
use crate::routes::Outcome;
use crate::websocket::Accept;

/// Bytes in front of each framed chunk.
const FRAME_HEAD: usize = 8;

/// The query of attach.
fn attach_args(query: &Query, multiplex: bool) -> AttachArgs {
    AttachArgs {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        detach_keys: query.first("detachKeys").filter(|keys| !keys.is_empty()).map(str::to_owned),
        multiplex,
    }
}

/// `POST /containers/{name}/attach`
pub async fn attach(state: Arc<State>, request: Request) -> Result<Outcome> {
    let attachment =
        attach::attach(&state.engine.containers, request.name(), attach_args(&request.query, true)).await?;
    let upgraded = request.wants_upgrade();
    let framed = upgraded && !attachment.tty && !request.version.before(42);
    let content_type = if framed { MULTIPLEXED_STREAM } else { RAW_STREAM };
    let head = Head::Raw { upgraded, content_type, fields: None };
    Ok(Outcome::Hijack(Hijack::new(head, |socket, ahead| connect(state, attachment, socket, ahead))))
}

/// Gives the client's socket to its attachment.
async fn connect(state: Arc<State>, attachment: attach::Attachment, socket: std::os::fd::OwnedFd, ahead: Vec<u8>) {
    attachment.connect(&state.engine.events, &state.engine.settings(), socket, ahead).await;
}

/// The query of attach over a websocket: below 1.42 every stream is meant.
fn websocket_args(query: &Query, version: ApiVersion) -> AttachArgs {
    let args = attach_args(query, false);
    if version.before(42) { AttachArgs { stdin: true, stdout: true, stderr: true, ..args } } else { args }
}

/// `GET /containers/{name}/attach/ws`
pub async fn attach_websocket(state: Arc<State>, request: Request) -> Result<Outcome> {
    let args = websocket_args(&request.query, request.version);
    let attachment = attach::attach(&state.engine.containers, request.name(), args).await?;
    let accept = Accept::new(&request.headers, !request.version.before(28))?;
    Ok(Outcome::Hijack(Hijack::new(Head::WebSocket(accept), |socket, ahead| connect(state, attachment, socket, ahead))))
}

/// The query of logs. A tail that is no number is the whole log.
fn logs_args(query: &Query) -> Result<LogsArgs> {
    let time =
        |key: &str| query.unix_time(key).map_err(|error| error.prefix(format!("invalid value for {}", go_quote(key))));
    Ok(LogsArgs {
        follow: query.flag("follow"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
        since: time("since")?,
        until: if query.text("until") == "0" { None } else { time("until")? },
        tail: query.text("tail").parse().ok(),
    })
}

/// From 1.54 on clients may ask for another shape of the log.
fn check_log_format(query: &Query, version: ApiVersion) -> Result<()> {
    match query.text("format") {
        "json" if !version.before(54) => Err(Error::not_implemented("Gantry does not implement logs as JSON yet")),
        "" => Ok(()),
        _ if version.before(54) => Ok(()),
        _ => Err(Error::invalid("unsupported log format")),
    }
}

/// `GET /containers/{name}/logs`: the head leaves before the first line.
pub async fn logs(state: Arc<State>, request: Request) -> Result<Outcome> {
    check_log_format(&request.query, request.version)?;
    let log =
        logs::logs(&state.engine.containers, &state.engine.settings(), request.name(), logs_args(&request.query)?)?;
    let framed = !log.tty && !request.version.before(42);
    let content_type = if framed { MULTIPLEXED_STREAM } else { RAW_STREAM };
    let (sender, chunks) = mpsc::channel(limits::STREAM_QUEUE);
    let multiplex = !log.tty;
    tokio::spawn(async move {
        let mut lines = log.chunks;
        loop {
            let line = tokio::select! {
                line = lines.recv() => line,
                () = sender.closed() => return,
                () = Request::client_gone(request.gone.clone()) => return,
            };
            let (chunk, last) = match line {
                None => return,
                Some(Ok(chunk)) => (chunk, false),
                Some(Err(error)) => (in_band_error(error.message(), multiplex), true),
            };
            if sender.send(chunk).await.is_err() || last {
                return;
            }
        }
    });
    Ok(response::stream(content_type, chunks).into())
}

/// How a log that has begun tells of its failure: on the stream of system errors.
fn in_band_error(message: &str, multiplex: bool) -> Bytes {
    /// The fourth stream of the frame format.
    const SYSTEM_ERROR: u8 = 3;
    let text = format!("error from daemon in stream: Error grabbing logs: {message}\n");
    let mut bytes = Vec::with_capacity(text.len() + FRAME_HEAD);
    if multiplex {
        bytes.extend_from_slice(&[SYSTEM_ERROR, 0, 0, 0]);
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes.into()
}

/// `POST /containers/{name}/wait`: registered, then the head at once, then the answer. Below 1.30 there are no conditions,
/// and head and body come together.
pub async fn wait(state: Arc<State>, request: Request) -> Result<Outcome> {
    let old = request.version.before(30);
    let condition = Condition::parse(if old { "" } else { request.query.text("condition") })?;
    let waiter = wait::wait(&state.engine.containers, request.name(), condition)?;
    if old {
        return ok(&waiter.finish().await);
    }
    let (sender, chunks) = mpsc::channel(1);
    let gone = request.gone.clone();
    tokio::spawn(async move {
        tokio::select! {
            answer = waiter.finish() => drop(sender.send(api::encode::to_vec(&answer).into()).await),
            () = sender.closed() => {}
            () = Request::client_gone(gone) => {}
        }
    });
    Ok(response::stream(response::JSON, chunks).into())
}

#[cfg(test)]
mod tests {
    use model::Kind;

    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).expect("valid query")
    }

    #[test]
    fn the_tail_is_a_number_or_everything() {
        assert_eq!(logs_args(&query("tail=5")).expect("valid").tail, Some(5));
        for all in ["tail=all", "tail=-1", "tail=", "", "tail=x"] {
            assert_eq!(logs_args(&query(all)).expect("valid").tail, None, "{all}");
        }
    }

    #[test]
    fn times_of_logs() {
        let args = logs_args(&query("since=1700000000.5&until=0&stdout=1")).expect("valid");
        assert_eq!(args.since.map(model::time::Timestamp::unix_nanos), Some(1_700_000_000_500_000_000));
        assert_eq!((args.until, args.stdout, args.stderr), (None, true, false));
        let bad = logs_args(&query("since=x")).expect_err("bad");
        assert!(bad.message().starts_with("invalid value for \"since\": "), "{bad}");
    }

    #[test]
    fn other_formats_of_logs_are_refused_where_they_are_known() {
        let check = |text, minor| check_log_format(&query(text), ApiVersion::v1(minor)).map_err(|error| error.kind());
        assert_eq!(check("format=json", 54), Err(Kind::NotImplemented));
        assert_eq!(check("format=xml", 56), Err(Kind::InvalidParameter));
        assert_eq!((check("format=xml", 53), check("format=", 56)), (Ok(()), Ok(())));
    }

    #[test]
    fn a_websocket_has_all_streams_below_1_42() {
        let select = |minor| websocket_args(&query("stdout=1&stream=1"), ApiVersion::v1(minor));
        assert!(select(41).stdin && select(41).stderr);
        assert!(!select(42).stdin && select(42).stdout && !select(42).multiplex);
    }

    #[test]
    fn errors_of_a_log_are_a_frame() {
        let text = "error from daemon in stream: Error grabbing logs: x\n";
        assert_eq!(in_band_error("x", false), text.as_bytes());
        assert_eq!(in_band_error("x", true)[..8], [3, 0, 0, 0, 0, 0, 0, text.len() as u8]);
    }
}
