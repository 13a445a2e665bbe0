//! One request to a plugin and its answer, over a connection of its own.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::discovery::Address;
use crate::failure::{Failure, Result};
use crate::tls;

/// The version of the protocol, as a media type.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";
/// The name of the host where a socket has none.
const LOCAL_HOST: &str = "plugin.moby.localhost";
/// Bytes of an answer.
const MAX_ANSWER: usize = 8 << 20;
/// Bytes of an answer that an error text quotes.
const MAX_QUOTED: usize = 1024;
/// Bytes of the head of an answer.
const MAX_HEAD: usize = 64 << 10;
/// Fields of the head of an answer.
const MAX_FIELDS: usize = 64;

/// Sends one request; the body of a good answer.
pub(crate) async fn exchange(address: &Address, method: &str, body: Vec<u8>) -> Result<Bytes> {
    match address {
        Address::Unix(path) => {
            let failed = |e: &io::Error| format!("dial unix {}: connect: {}", path.display(), model::io_text(e));
            let stream = UnixStream::connect(path).await.map_err(|e| unreachable(LOCAL_HOST, method, &failed(&e)))?;
            over(stream, LOCAL_HOST, method, body).await
        }
        Address::Tcp(server) => {
            let stream = dial(server, server, method).await?;
            over(stream, server, method, body).await
        }
        Address::Tls(host, port, files) => {
            let server = format!("{host}:{port}");
            let config = tls::client_config(files).map_err(Failure::Refused)?;
            let stream = dial(&server, &server, method).await?;
            let secured = tls::connect(config, host, stream).await;
            let stream = secured.map_err(|e| unreachable(&server, method, &model::io_text(&e)))?;
            over(stream, &server, method, body).await
        }
    }
}

async fn dial(server: &str, host: &str, method: &str) -> Result<TcpStream> {
    let failed = |e: io::Error| unreachable(host, method, &format!("dial tcp {server}: {}", model::io_text(&e)));
    TcpStream::connect(server).await.map_err(failed)
}

/// The text of the reference's client.
fn unreachable(host: &str, method: &str, why: &str) -> Failure {
    Failure::Unreachable(format!("Post \"http://{host}/{method}\": {why}"))
}

/// What is said of an answer that does not come in time: the plugin is not asked again.
pub(crate) fn too_late(method: &str) -> Failure {
    let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    Failure::TimedOut(format!("Post \"http://{LOCAL_HOST}/{method}\": {why}"))
}

async fn over<S>(stream: S, host: &str, method: &str, body: Vec<u8>) -> Result<Bytes>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |e: hyper::Error| {
        unreachable(host, method, &(if e.is_incomplete_message() { "EOF".to_owned() } else { e.to_string() }))
    };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD).max_headers(MAX_FIELDS);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = Request::post(format!("/{method}"))
        .header(HOST, host)
        .header(ACCEPT, MEDIA_TYPE)
        .header(CONTENT_TYPE, MEDIA_TYPE)
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| Failure::Refused(e.to_string()))?;
    let talk = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        read(method, answer).await
    };
    // Both on this task: a call that is given up leaves no connection.
    tokio::pin!(talk);
    tokio::pin!(connection);
    tokio::select! {
        answer = &mut talk => answer,
        _ = &mut connection => talk.await,
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Refusal {
    err: String,
}

async fn read(method: &str, answer: Response<Incoming>) -> Result<Bytes> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|e| Failure::Refused(format!("{method}: reading the answer: {e}")))?.to_bytes();
    if status == StatusCode::OK {
        return Ok(body);
    }
    let refusal: Refusal = gojson::from_slice(&body).unwrap_or_default();
    let quoted = &body[..body.len().min(MAX_QUOTED)];
    let text = if refusal.err.is_empty() { String::from_utf8_lossy(quoted).into_owned() } else { refusal.err };
    let text = format!("{method}: {text}");
    Err(if status == StatusCode::NOT_FOUND { Failure::Unknown(text) } else { Failure::Refused(text) })
}

/// Reads an answer.
pub(crate) fn decode<T: DeserializeOwned>(method: &str, body: &[u8]) -> Result<T> {
    let parsed = gojson::Document::parse_first(body).and_then(|document| document.fit());
    parsed.map_err(|error| Failure::Refused(format!("{method}: {}", error.body_message())))
}
