//! The streams of a container: attach, logs, stats, wait.

use std::sync::Arc;

use model::lock::Mutex;

use ::logs::Shape;
use api::ApiVersion;
use bytes::Bytes;
use engine::container::read::logs::{self, LogStream, LogsArgs};
use engine::container::read::stats::{self, Shape as Samples};
use engine::container::read::wait::{self, Condition};
use engine::container::session::attach::{self, AttachArgs};
use hyper::HeaderMap;
use model::{Error, Result};
use tokio::sync::mpsc;

use super::{State, ok};
use crate::accept::JsonStream;
use crate::hijack::{Head, Hijack, MULTIPLEXED_STREAM, RAW_STREAM};
use crate::limits;
use crate::query::{Query, go_quote};
use crate::request::Request;
use crate::response;
use crate::routes::Outcome;
use crate::waiting::{For, Place};
use crate::websocket::Accept;
use crate::window::Window;

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
    let attachment = match attachment(&state, request.name(), attach_args(&request.query, true)).await {
        Ok(attachment) => attachment,
        // The reference has taken the connection by then: its refusals are raw texts.
        Err(error) => {
            let text = response::text(crate::error::status(error.kind()), format!("{}\r\n", error.message()));
            return Ok(response::with_header(text, "content-type", RAW_STREAM).into());
        }
    };
    let upgraded = request.wants_upgrade();
    let framed = upgraded && !attachment.tty && !request.version.before(42);
    let content_type = if framed { MULTIPLEXED_STREAM } else { RAW_STREAM };
    let head = Head::Raw { upgraded, content_type, fields: None };
    Ok(Outcome::Hijack(Hijack::new(head, |socket, ahead| connect(state, attachment, socket, ahead))))
}

/// A checked call to attach, with a place to wait for the start.
async fn attachment(state: &State, name: &str, args: AttachArgs) -> Result<attach::Attachment> {
    let containers = &state.engine.containers;
    let place: Place = state.waiting.enter_after(For::Start, attach::let_go(containers)).await?;
    attach::attach(containers, name, args, place).await
}

/// Gives the client's socket to its attachment.
async fn connect(state: Arc<State>, attachment: attach::Attachment, socket: std::os::fd::OwnedFd, ahead: Vec<u8>) {
    attachment.connect(&state.engine, socket, ahead).await;
}

/// The query of attach over a websocket: below 1.42 every stream is meant.
fn websocket_args(query: &Query, version: ApiVersion) -> AttachArgs {
    let args = attach_args(query, false);
    if version.before(42) { AttachArgs { stdin: true, stdout: true, stderr: true, ..args } } else { args }
}

/// `GET /containers/{name}/attach/ws`
pub async fn attach_websocket(state: Arc<State>, request: Request) -> Result<Outcome> {
    let args = websocket_args(&request.query, request.version);
    let attachment = attachment(&state, request.name(), args).await?;
    let accept = Accept::new(&request.headers, !request.version.before(28))?;
    Ok(Outcome::Hijack(Hijack::new(Head::WebSocket(accept), |socket, ahead| connect(state, attachment, socket, ahead))))
}

/// What the query of the log of a service or task must be.
pub(super) fn check_log_query(query: &Query) -> Result<()> {
    if !query.flag("stdout") && !query.flag("stderr") {
        return Err(Error::invalid("must specify at least one of 'stdout' or 'stderr'"));
    }
    logs_args(query).map(drop)
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
        shape: None,
    })
}

/// The JSON that the client asked for: from 1.54 on, by the query or by naming it as the type that it accepts.
fn log_json(query: &Query, headers: &HeaderMap, version: ApiVersion) -> Result<Option<JsonStream>> {
    match query.text("format") {
        _ if version.before(54) => Ok(None),
        "" => Ok(JsonStream::named(headers)),
        "json" => Ok(Some(JsonStream::liked(headers).unwrap_or(JsonStream::NewlineDelimited))),
        _ => Err(Error::invalid("unsupported log format")),
    }
}

/// `GET /containers/{name}/logs`: the head leaves before the first line.
pub async fn logs(state: Arc<State>, request: Request) -> Result<Outcome> {
    let mut args = logs_args(&request.query)?;
    let json = log_json(&request.query, &request.headers, request.version)?;
    args.shape = json.map(|stream| if stream == JsonStream::Sequence { Shape::JsonSequence } else { Shape::Json });
    let place = if args.follow { Some(state.waiting.enter(For::Log)?) } else { None };
    let log = logs::logs(&state.engine.containers, &state.engine.settings().roots, request.name(), args)?;
    let framed = !log.tty && !request.version.before(42);
    let content_type = json.map_or(if framed { MULTIPLEXED_STREAM } else { RAW_STREAM }, JsonStream::content_type);
    let (sender, chunks) = mpsc::channel(limits::STREAM_QUEUE);
    // A follower has ended when its client has been sent the end.
    let end = Arc::new(Mutex::new(None));
    let (window, kept) = (state.windows.open(), end.clone());
    tokio::spawn(async move {
        let _place = place;
        tokio::select! {
            log = send_log(log, &window, &sender) => *end.lock() = log.into_follower(),
            () = sender.closed() => {}
            () = Request::client_gone(request.gone) => {}
        }
    });
    Ok(response::stream_keeping(content_type, chunks, kept).into())
}

/// Sends a log to its end, or to the end of its client.
async fn send_log(mut log: LogStream, window: &Window, sender: &mpsc::Sender<Bytes>) -> LogStream {
    while let Some(entries) = log.next().await {
        let last = entries.is_err();
        let chunk = entries.unwrap_or_else(|error| in_band_error(error.message(), log.shape));
        if sender.send(window.admit(chunk).await).await.is_err() || last {
            break;
        }
    }
    log
}

/// How a log that has begun tells of its failure: on the stream of system errors, or as a value without a line.
fn in_band_error(message: &str, shape: Shape) -> Bytes {
    /// The fourth stream of the frame format.
    const SYSTEM_ERROR: u8 = 3;
    let text = format!("Error grabbing logs: {message}\n");
    let mut bytes = Vec::with_capacity(text.len() + FRAME_HEAD);
    match shape {
        Shape::Raw => bytes.extend_from_slice(text.as_bytes()),
        Shape::Frames => {
            bytes.extend_from_slice(&[SYSTEM_ERROR, 0, 0, 0]);
            bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        Shape::Json => ::logs::write_json_error(message, &mut bytes),
        Shape::JsonSequence => {
            bytes.push(::logs::RECORD_SEPARATOR);
            ::logs::write_json_error(message, &mut bytes);
        }
    }
    bytes.into()
}

/// The query of stats.
fn stats_shape(query: &Query, version: ApiVersion) -> Result<Samples> {
    let single = query.flag("one-shot") && !version.before(41);
    match (query.flag_or("stream", true), single) {
        (true, true) => Err(Error::invalid("cannot have stream=true and one-shot=true")),
        (true, false) => Ok(Samples::Stream),
        (false, true) => Ok(Samples::Single),
        (false, false) => Ok(Samples::Pair),
    }
}

/// `GET /containers/{name}/stats`: the head leaves before the first sample. A single answer at once came with 1.41.
pub async fn stats(state: Arc<State>, request: Request) -> Result<Outcome> {
    let version = request.version;
    let shape = stats_shape(&request.query, version)?;
    let place = state.waiting.enter(For::Stats)?;
    let mut samples = stats::stats(&state.engine.containers, &state.engine.stats, request.name(), shape).await?;
    let (sender, chunks) = mpsc::channel(1);
    let window = state.windows.open();
    tokio::spawn(async move {
        let _place = place;
        let send = async {
            while let Some(sample) = samples.next().await {
                let mut shown = serde_json::to_value(sample).expect("wire types are plain data");
                api::version::stats(version, &mut shown);
                let line = window.admit(api::encode::to_vec(&shown).into()).await;
                if sender.send(line).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = send => {}
            () = sender.closed() => {}
            () = Request::client_gone(request.gone) => {}
        }
    });
    Ok(response::stream(response::JSON, chunks).into())
}

/// `POST /containers/{name}/wait`: registered, then the head at once, then the answer. Below 1.30 there are no conditions,
/// and head and body come together.
pub async fn wait(state: Arc<State>, request: Request) -> Result<Outcome> {
    let old = request.version.before(30);
    let condition = Condition::parse(if old { "" } else { request.query.text("condition") })?;
    let place = state.waiting.enter(For::Exit)?;
    let waiter = wait::wait(&state.engine.containers, request.name(), condition)?;
    if old {
        return ok(&waiter.finish().await);
    }
    let (sender, chunks) = mpsc::channel(1);
    let gone = request.gone.clone();
    tokio::spawn(async move {
        let _place = place;
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
    use hyper::header::{ACCEPT, HeaderValue};
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
    fn json_is_asked_for_by_the_query_or_by_name() {
        let asked = |text, accept: Option<&'static str>, minor| {
            let headers = accept.map(|accept| (ACCEPT, HeaderValue::from_static(accept))).into_iter().collect();
            log_json(&query(text), &headers, ApiVersion::v1(minor)).map_err(|error| error.kind())
        };
        assert_eq!(asked("format=xml", None, 56), Err(Kind::InvalidParameter));
        assert_eq!((asked("format=xml", None, 53), asked("format=json", None, 53)), (Ok(None), Ok(None)));
        assert_eq!(asked("", Some("application/jsonl"), 53), Ok(None));
        assert_eq!(asked("format=json", None, 54), Ok(Some(JsonStream::NewlineDelimited)));
        assert_eq!(asked("format=json", Some("*/*"), 54), Ok(Some(JsonStream::Lines)));
        assert_eq!(asked("format=", Some("application/json-seq"), 54), Ok(Some(JsonStream::Sequence)));
        assert_eq!(asked("", Some("*/*, application/*"), 56), Ok(None));
    }

    #[test]
    fn stats_are_a_stream_unless_the_query_says_otherwise() {
        let shape = |text, minor| stats_shape(&query(text), ApiVersion::v1(minor)).map_err(|e| e.message().to_owned());
        assert_eq!((shape("", 52), shape("stream=1&one-shot=1", 40)), (Ok(Samples::Stream), Ok(Samples::Stream)));
        assert_eq!(shape("stream=0&one-shot=1", 41), Ok(Samples::Single));
        assert_eq!(
            (shape("stream=0&one-shot=1", 40), shape("stream=false", 52)),
            (Ok(Samples::Pair), Ok(Samples::Pair))
        );
        let both = Err("cannot have stream=true and one-shot=true".to_owned());
        assert_eq!((shape("stream=1&one-shot=1", 41), shape("one-shot=true", 52)), (both.clone(), both));
    }

    #[test]
    fn a_websocket_has_all_streams_below_1_42() {
        let select = |minor| websocket_args(&query("stdout=1&stream=1"), ApiVersion::v1(minor));
        assert!(select(41).stdin && select(41).stderr);
        assert!(!select(42).stdin && select(42).stdout && !select(42).multiplex);
    }

    #[test]
    fn errors_of_a_log_have_its_shape() {
        let text = "Error grabbing logs: x\n";
        assert_eq!(in_band_error("x", Shape::Raw), text.as_bytes());
        assert_eq!(in_band_error("x", Shape::Frames)[..8], [3, 0, 0, 0, 0, 0, 0, text.len() as u8]);
        let json = "{\"Timestamp\":\"0001-01-01T00:00:00Z\",\"Error\":\"x\"}\n";
        assert_eq!(in_band_error("x", Shape::Json), json);
        assert_eq!(in_band_error("x", Shape::JsonSequence), format!("\u{1e}{json}"));
    }
}
