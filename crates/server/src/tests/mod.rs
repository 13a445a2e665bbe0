//! The frame over a real unix socket: raw bytes in, raw bytes out, compared with what a real engine answered.

mod h2c;
mod http2;
mod policy;
mod tls;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::ApiVersion;
use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use model::{Error, Result};
use tokio::sync::{mpsc, watch};

use crate::frame::{Config, Frame};
use crate::hijack::{Head, Hijack, MULTIPLEXED_STREAM, RAW_STREAM};
use crate::listener::{Listener, serve};
use crate::phase::Phase;
use crate::policy::Policies;
use crate::request::Request;
use crate::response;
use crate::routes::{Handler, Outcome, Route, Running};
use crate::websocket::Accept;

/// Longest wait for what has to come.
const LIMIT: Duration = Duration::from_secs(60);

/// What the test handlers saw, and what they wait for.
struct Seen {
    begun: std::sync::atomic::AtomicUsize,
    mutations: std::sync::atomic::AtomicUsize,
    streams_ended: std::sync::atomic::AtomicUsize,
    /// A permit for each handler that may go on.
    go: Arc<tokio::sync::Semaphore>,
}

impl Default for Seen {
    fn default() -> Seen {
        let go = Arc::new(tokio::sync::Semaphore::new(0));
        Seen { begun: 0.into(), mutations: 0.into(), streams_ended: 0.into(), go }
    }
}

macro_rules! run {
    ($handler:path) => {
        Handler::Run(|state, request| -> Running { Box::pin($handler(state, request)) })
    };
}

const ROUTES: &[Route<Seen>] = &[
    Route { method: "GET", path: "/info", since: 24, handler: run!(info) },
    Route { method: "HEAD", path: "/_ping", since: 24, handler: run!(head) },
    Route { method: "POST", path: "/containers/create", since: 24, handler: run!(create) },
    Route { method: "POST", path: "/containers/{name}/start", since: 24, handler: run!(start) },
    Route { method: "POST", path: "/containers/{name}/wait", since: 24, handler: run!(wait) },
    Route { method: "POST", path: "/containers/{name}/attach", since: 24, handler: run!(attach) },
    Route { method: "POST", path: "/exec/{id}/start", since: 24, handler: run!(exec) },
    Route { method: "GET", path: "/containers/{name}/attach/ws", since: 24, handler: run!(socket) },
    Route { method: "GET", path: "/events", since: 24, handler: run!(events) },
    Route { method: "GET", path: "/peer", since: 24, handler: run!(peer) },
    Route { method: "POST", path: "/session", since: 31, handler: run!(h2c::session) },
    Route { method: "PUT", path: "/slow", since: 24, handler: run!(slow) },
    Route { method: "POST", path: "/panic", since: 24, handler: run!(panics) },
    Route { method: "GET", path: "/nodes", since: 24, handler: Handler::NeedsSwarm },
    Route { method: "POST", path: "/build", since: 24, handler: Handler::NotYet },
    Route { method: "OPTIONS", path: "/{anyroute:.*}", since: 24, handler: run!(options) },
];

async fn info(_: Arc<Seen>, _: Request) -> Result<Outcome> {
    Ok(response::json(StatusCode::OK, &serde_json::json!({"ID": "x<y"})).into())
}

/// Tells the client who it is.
async fn peer(_: Arc<Seen>, request: Request) -> Result<Outcome> {
    Ok(response::text(StatusCode::OK, request.peer.to_string()).into())
}

async fn options(_: Arc<Seen>, _: Request) -> Result<Outcome> {
    Ok(response::empty(StatusCode::OK).into())
}

async fn head(_: Arc<Seen>, _: Request) -> Result<Outcome> {
    Ok(response::with_header(response::empty(StatusCode::OK), "content-length", "0").into())
}

async fn create(_: Arc<Seen>, mut request: Request) -> Result<Outcome> {
    request.check_json()?;
    let bytes = request.bytes().await?;
    let create = api::decode::create_request(&bytes).map_err(|error| Error::invalid(error.create_message()))?;
    let config =
        create.config.ok_or_else(|| Error::invalid("config cannot be empty in order to create a container"))?;
    Err(Error::not_found(format!("No such image: {}", config.image)))
}

async fn start(_: Arc<Seen>, request: Request) -> Result<Outcome> {
    match request.name() {
        "running" => Err(Error::not_modified()),
        "zzz" => Err(Error::not_found("No such container: zzz")),
        _ => Ok(response::empty(StatusCode::NO_CONTENT).into()),
    }
}

async fn wait(seen: Arc<Seen>, _: Request) -> Result<Outcome> {
    let (sender, chunks) = mpsc::channel(1);
    tokio::spawn(async move {
        seen.go.acquire().await.expect("open").forget();
        let _ = sender.send(Bytes::from_static(b"{\"StatusCode\":5}\n")).await;
    });
    Ok(response::stream(response::JSON, chunks).into())
}

/// Sends what came ahead and everything up to the client's half-close back.
async fn echo(socket: std::os::fd::OwnedFd, ahead: Vec<u8>) {
    let echo = move || -> std::io::Result<()> {
        let mut stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        stream.write_all(&ahead)?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        stream.write_all(&rest)?;
        stream.write_all(b"bye")
    };
    tokio::task::spawn_blocking(echo).await.expect("no panic").expect("echoed");
}

async fn attach(_: Arc<Seen>, request: Request) -> Result<Outcome> {
    let upgraded = request.wants_upgrade();
    let content_type = if upgraded { MULTIPLEXED_STREAM } else { RAW_STREAM };
    Ok(Outcome::Hijack(Hijack::new(Head::Raw { upgraded, content_type, fields: None }, echo)))
}

async fn exec(_: Arc<Seen>, mut request: Request) -> Result<Outcome> {
    let _: api::ExecStart = request.json().await?;
    let fields = Some(HeaderMap::new());
    Ok(Outcome::Hijack(Hijack::new(Head::Raw { upgraded: false, content_type: RAW_STREAM, fields }, echo)))
}

async fn socket(_: Arc<Seen>, request: Request) -> Result<Outcome> {
    let accept = Accept::new(&request.headers, true)?;
    Ok(Outcome::Hijack(Hijack::new(Head::WebSocket(accept), echo)))
}

async fn events(seen: Arc<Seen>, _: Request) -> Result<Outcome> {
    let (sender, chunks) = mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        sender.closed().await;
        seen.streams_ended.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    });
    Ok(response::stream(response::JSON, chunks).into())
}

async fn slow(seen: Arc<Seen>, _: Request) -> Result<Outcome> {
    seen.begun.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    seen.go.acquire().await.expect("open").forget();
    seen.mutations.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    Ok(response::empty(StatusCode::OK).into())
}

async fn panics(_: Arc<Seen>, _: Request) -> Result<Outcome> {
    panic!("on purpose");
}

/// A server on a socket of its own, in a runtime of its own.
struct Server {
    path: std::path::PathBuf,
    seen: Arc<Seen>,
    phase: watch::Sender<Phase>,
    thread: Option<std::thread::JoinHandle<()>>,
    dir: Option<tempfile::TempDir>,
}

impl Server {
    fn start() -> Server {
        Server::under(Arc::new([]))
    }

    /// A server whose requests are asked for by policies.
    fn under(policies: Policies) -> Server {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("s");
        let listener = Listener::Unix(UnixListener::bind(&path).expect("bound"));
        let mut server = Server::with(listener, policies);
        (server.path, server.dir) = (path, Some(dir));
        server
    }

    fn on(listener: Listener) -> Server {
        Server::with(listener, Arc::new([]))
    }

    fn with(listener: Listener, policies: Policies) -> Server {
        let (phase, seen_phase) = watch::channel(Phase::Serving);
        let seen = Arc::new(Seen::default());
        let config = Config { version: "26.1.5".into(), max_api: ApiVersion::v1(45), ..Config::default() };
        let frame = Frame::new(config, ROUTES, seen.clone(), policies).with_calls(Arc::new(http2::Echo));
        let frame = Arc::new(frame);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("runtime").block_on(serve(listener, frame, seen_phase)).expect("served");
        });
        Server { path: std::path::PathBuf::new(), seen, phase, thread: Some(thread), dir: None }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).expect("connected");
        stream.set_read_timeout(Some(LIMIT)).expect("timeout");
        stream
    }

    /// Sends a request that ends the connection, and reads everything.
    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
        let head = head.replace('\n', "\r\n");
        write!(stream, "{head}\r\nHost: d\r\nConnection: close\r\n\r\n{body}").expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("read");
        String::from_utf8(answer).expect("text")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Draining);
        let ended = self.thread.take().expect("once").join();
        drop(self.dir.take());
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

/// Status line, sorted fields without the date, body.
fn parts(answer: &str) -> (String, Vec<String>, String) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.split("\r\n").map(str::to_owned);
    let status = lines.next().expect("status");
    let ignored = |line: &String| line.starts_with("Date: ") || line.starts_with("Server: ");
    let mut fields: Vec<String> = lines.filter(|line| !ignored(line)).collect();
    fields.sort_by_key(|line| line.to_ascii_lowercase());
    // hyper writes its own fields in lower case.
    (status, fields.iter().map(|line| line.to_ascii_lowercase()).collect(), body.to_owned())
}

#[track_caller]
fn assert_same(answer: &str, recorded: &str) {
    assert_eq!(parts(answer), parts(recorded));
}

#[test]
fn recorded_answers_of_the_frame() {
    let server = Server::start();
    let common =
        "Api-Version: 1.45\r\nContent-Type: application/json\r\nDocker-Experimental: false\r\nOstype: linux\r\n";
    let close = "Connection: close\r\n\r\n";
    // too new version
    assert_same(
        &server.ask("GET /v9.99/info HTTP/1.1"),
        "HTTP/1.1 400 Bad Request\r\nApi-Version: 1.45\r\nContent-Type: application/json\r\nOstype: linux\r\nContent-Length: 84\r\nConnection: close\r\n\r\n{\"message\":\"client version 9.99 is too new. Maximum supported API version is 1.45\"}\n",
    );
    // unknown path, bad method
    let not_found = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 29\r\nConnection: close\r\n\r\n{\"message\":\"page not found\"}\n";
    assert_same(&server.ask("GET /v1.45/nope HTTP/1.1"), not_found);
    assert_same(&server.ask("PATCH /info HTTP/1.1"), not_found);
    // no such container
    assert_same(
        &server.ask("POST /v1.45/containers/zzz/start HTTP/1.1\nContent-Length: 0"),
        &format!(
            "HTTP/1.1 404 Not Found\r\n{common}Content-Length: 37\r\n{close}{{\"message\":\"No such container: zzz\"}}\n"
        ),
    );
    // start, start again
    let plain = "Api-Version: 1.45\r\nDocker-Experimental: false\r\nOstype: linux\r\n";
    assert_same(
        &server.ask("POST /containers/web/start HTTP/1.1\nContent-Length: 0"),
        &format!("HTTP/1.1 204 No Content\r\n{plain}{close}"),
    );
    assert_same(
        &server.ask("POST /containers/running/start HTTP/1.1\nContent-Length: 0"),
        &format!("HTTP/1.1 304 Not Modified\r\n{plain}{close}"),
    );
    // no HTML escaping, newline at the end
    assert!(server.ask("GET /info HTTP/1.1").ends_with("{\"ID\":\"x<y\"}\n"));
    // HEAD
    assert_same(
        &server.ask("HEAD /_ping HTTP/1.1"),
        &format!("HTTP/1.1 200 OK\r\n{plain}Content-Length: 0\r\n{close}"),
    );
    // swarm inactive GET /nodes
    let answer = server.ask("GET /nodes HTTP/1.1");
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    assert!(answer.contains("Content-Length: 144\r\n") || answer.contains("content-length: 144\r\n"));
}

#[test]
fn recorded_answers_to_bad_bodies() {
    let server = Server::start();
    let create = |fields: &str, body: &str| {
        let length = body.len();
        let answer =
            server.ask(&format!("POST /v1.45/containers/create HTTP/1.1\n{fields}Content-Length: {length}\n\n{body}"));
        let (status, _, body) = parts(&answer);
        (status[9..12].to_owned(), body)
    };
    let message = |text: &str| format!("{{\"message\":\"{text}\"}}\n");
    let json = "Content-Type: application/json\n";
    let cases = [
        (json, "{bad", "400", "invalid JSON: invalid character 'b' looking for beginning of object key string"),
        (
            "Content-Type: text/plain\n",
            "{}",
            "400",
            "unsupported Content-Type header (text/plain): must be 'application/json'",
        ),
        (json, "", "400", "invalid JSON: EOF"),
        (json, "{}", "400", "config cannot be empty in order to create a container"),
        (json, "{\"Image\":\"nosuch:1\"} x", "400", "unexpected content after JSON"),
        (
            "Content-Type: application/json; charset=utf-8\n",
            "{\"image\":\"nosuch:1\",\"Zz\":1}",
            "404",
            "No such image: nosuch:1",
        ),
    ];
    for (fields, body, status, text) in cases {
        assert_eq!(create(fields, body), (status.to_owned(), message(text)), "{body}");
    }
    let huge = format!("{{\"Image\":\"{}\"}}", "x".repeat(crate::limits::JSON_BODY));
    assert_eq!(create(json, &huge), ("400".to_owned(), message("http: request body too large")));
}

#[test]
fn old_clients_get_plain_text_and_unfinished_routes_say_so() {
    let server = Server::start();
    let answer = server.ask("GET /v1.12/info HTTP/1.1");
    let (status, fields, body) = parts(&answer);
    assert_eq!(status, "HTTP/1.1 400 Bad Request");
    assert!(fields.contains(&"content-type: text/plain; charset=utf-8".to_owned()));
    assert_eq!(
        body,
        "client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version\n"
    );
    let answer = server.ask("POST /build HTTP/1.1\nContent-Length: 0");
    assert!(answer.starts_with("HTTP/1.1 501 Not Implemented\r\n"));
    assert!(answer.ends_with("{\"message\":\"Gantry does not implement POST /build yet\"}\n"));
    let answer = server.ask("OPTIONS /any/path HTTP/1.1");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
    let answer = server.ask("POST /panic HTTP/1.1\nContent-Length: 0");
    assert!(answer.starts_with("HTTP/1.1 500 Internal Server Error\r\n"));
    let answer = server.ask("GET /info?a=%zz HTTP/1.1");
    assert!(answer.ends_with("{\"message\":\"invalid URL escape \\\"%zz\\\"\"}\n"), "{answer}");
}

/// `wait next-exit`: the head comes at once, the body later.
#[test]
fn a_stream_sends_its_head_before_its_first_chunk() {
    let server = Server::start();
    let mut stream = server.connect();
    stream
        .write_all(b"POST /v1.45/containers/a/wait HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
        .expect("written");
    let mut seen = vec![0; 4096];
    let count = stream.read(&mut seen).expect("head");
    let head = String::from_utf8_lossy(&seen[..count]).to_ascii_lowercase();
    assert!(head.contains("transfer-encoding: chunked") && head.ends_with("\r\n\r\n"), "{head}");
    server.seen.go.add_permits(1);
    let count = stream.read(&mut seen).expect("body");
    assert!(seen[..count].starts_with(b"11\r\n{\"StatusCode\":5}\n\r\n"));
    // The connection goes on.
    let mut rest = vec![0; 64];
    if !seen[..count].ends_with(b"0\r\n\r\n") {
        let _ = stream.read(&mut rest).expect("end of body");
    }
    stream.write_all(b"GET /info HTTP/1.1\r\nHost: d\r\n\r\n").expect("written");
    let count = stream.read(&mut seen).expect("second answer");
    assert!(seen[..count].starts_with(b"HTTP/1.1 200 OK\r\n"));
}

/// Reads exactly one segment: what one `recv` of the client gives.
fn segment(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let count = stream.read(&mut bytes).expect("segment");
    bytes.truncate(count);
    bytes
}

#[test]
fn a_hijacked_stream_has_a_head_of_its_own_segment_and_half_closes() {
    let server = Server::start();
    let mut stream = server.connect();
    let request = "POST /v1.45/containers/a/attach?stream=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nahead ";
    stream.write_all(request.as_bytes()).expect("written");
    // attach non-tty upgrade header
    assert_eq!(
        segment(&mut stream),
        b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    );
    stream.write_all(b"of time").expect("written");
    stream.shutdown(std::net::Shutdown::Write).expect("half-closed");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("read");
    assert_eq!(rest, "ahead of timebye");
}

#[test]
fn exec_without_upgrade_repeats_the_common_fields() {
    let server = Server::start();
    let mut stream = server.connect();
    let body = "{\"Detach\":false}";
    let length = body.len();
    write!(stream, "POST /v1.45/exec/x/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").expect("written");
    assert_eq!(
        String::from_utf8_lossy(&segment(&mut stream)),
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\nApi-Version: 1.45\r\nDocker-Experimental: false\r\nOstype: linux\r\nServer: Docker/26.1.5 (linux)\r\n\r\n"
    );
    stream.shutdown(std::net::Shutdown::Write).expect("half-closed");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("read");
    assert_eq!(rest, "bye");
}

#[test]
fn a_websocket_is_bridged() {
    let server = Server::start();
    let mut stream = server.connect();
    let request = "GET /v1.45/containers/a/attach/ws HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("written");
    let head = String::from_utf8(segment(&mut stream)).expect("text");
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    // "hi" masked with zeros, then a close.
    stream.write_all(&[0x82, 0x82, 0, 0, 0, 0, b'h', b'i', 0x88, 0x80, 0, 0, 0, 0]).expect("written");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("read");
    let payload: Vec<u8> = rest.iter().copied().filter(u8::is_ascii_alphabetic).collect();
    assert_eq!(payload, b"hibye", "{rest:?}");
    assert!(rest.ends_with(&[0x88, 2, 3, 0xe8]));
}

#[test]
fn a_client_that_leaves_ends_streams_but_not_mutations() {
    use std::sync::atomic::Ordering::SeqCst;
    let server = Server::start();
    let mut watcher = server.connect();
    watcher.write_all(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n").expect("written");
    segment(&mut watcher);
    drop(watcher);
    let mut mutator = server.connect();
    mutator.write_all(b"PUT /slow HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n").expect("written");
    let deadline = Instant::now() + LIMIT;
    let until = |what: &str, done: &dyn Fn() -> bool| {
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    until("the mutation does not begin", &|| server.seen.begun.load(SeqCst) == 1);
    drop(mutator);
    until("the stream still runs", &|| server.seen.streams_ended.load(SeqCst) == 1);
    server.seen.go.add_permits(1);
    until("the mutation was cut", &|| server.seen.mutations.load(SeqCst) == 1);
}

/// A client that sends its request and closes its sending side still gets the answer.
#[test]
fn a_half_closed_client_is_answered() {
    let server = Server::start();
    let mut stream = server.connect();
    stream.write_all(b"PUT /slow HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n").expect("written");
    stream.shutdown(std::net::Shutdown::Write).expect("half-closed");
    server.seen.go.add_permits(1);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn heads_that_are_too_long_are_refused() {
    let server = Server::start();
    let mut stream = server.connect();
    let request = format!("GET /info?x={} HTTP/1.1\r\nHost: d\r\n\r\n", "y".repeat(crate::limits::HEAD + 10));
    let _ = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}
