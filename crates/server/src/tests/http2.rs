//! HTTP/2 by prior knowledge: calls of gRPC on the sockets of the API.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::Error;
use model::lock::Mutex;

use super::{LIMIT, Server};
use crate::calls::{Answering, Calls};
use crate::peer::Peer;
use crate::policy::{Asked, Policy, Verdict};
use crate::response::{self, Response};
use crate::routes::Outcome;

/// Answers calls by their paths.
pub struct Echo;

impl Calls for Echo {
    fn answer(&self, request: Request<Incoming>) -> Answering {
        let path = request.uri().path().to_owned();
        Box::pin(async move { response::text(hyper::StatusCode::OK, path) })
    }

    fn refused(&self, error: &Error) -> Response {
        response::text(hyper::StatusCode::OK, format!("refused: {}", error.message()))
    }
}

/// Notes who asks for what, and refuses one service.
#[derive(Default)]
struct Strict(Mutex<Vec<String>>);

impl Policy for Strict {
    fn before<'a>(&'a self, asked: &'a Asked) -> Verdict<'a> {
        let Peer::Process { uid, .. } = &*asked.peer else { panic!("not a process") };
        let line = format!("{uid} {} {} {} {}", asked.method, asked.path, asked.route, asked.version);
        self.0.lock().push(line);
        let refuses = asked.path.starts_with("/secret");
        Box::pin(std::future::ready(if refuses { Err(Error::forbidden("not this")) } else { Ok(()) }))
    }

    fn after<'a>(&'a self, _: &'a Asked, _: &'a model::Result<Outcome>) -> Verdict<'a> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Statuses and bodies of requests on one connection.
fn ask(server: &Server, requests: &[(&str, &str, &str)]) -> Vec<(u16, String)> {
    use http_body_util::{BodyExt, Empty};
    let stream = server.connect();
    stream.set_nonblocking(true).expect("a socket");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let io = TokioIo::new(tokio::net::UnixStream::from_std(stream).expect("a socket"));
        let (mut sender, connection) = Builder::new(TokioExecutor::new()).handshake(io).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut answers = Vec::new();
        for (method, path, kind) in requests {
            let request = Request::builder()
                .method(*method)
                .uri(format!("http://localhost{path}"))
                .header("content-type", *kind)
                .body(Empty::<bytes::Bytes>::new())
                .expect("a request");
            let answer = sender.send_request(request).await.expect("an answer");
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.expect("a body").to_bytes();
            answers.push((status, String::from_utf8_lossy(&body).into_owned()));
        }
        answers
    })
}

#[test]
fn calls_are_asked_about_as_requests_are() {
    let policy = Arc::new(Strict::default());
    let server = Server::under(Arc::new([policy.clone() as Arc<dyn Policy>]));
    let answers =
        ask(&server, &[("POST", "/a.Service/Do", "application/grpc"), ("POST", "/secret/x", "application/grpc+proto")]);
    assert_eq!(answers, [(200, "/a.Service/Do".to_owned()), (200, "refused: not this".to_owned())]);
    let uid = rustix::process::geteuid().as_raw();
    let expected = [format!("{uid} POST /a.Service/Do /grpc 1.45"), format!("{uid} POST /secret/x /grpc 1.45")];
    assert_eq!(*policy.0.lock(), expected);
}

#[test]
fn requests_of_the_api_are_answered_over_http1_only() {
    let server = Server::start();
    for (method, kind) in [("GET", "application/json"), ("POST", "application/json"), ("GET", "application/grpc")] {
        let answers = ask(&server, &[(method, "/info", kind)]);
        assert_eq!(answers[0].0, 505, "{method} {kind}");
        assert!(answers[0].1.contains("over HTTP/1.1"), "{}", answers[0].1);
    }
}

/// What begins as the preface does and goes on in another way is HTTP/1, wherever its pieces are cut.
#[test]
fn a_preface_in_pieces_and_what_only_looks_like_one() {
    let server = Server::start();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for cut in [1, 3, 14, preface.len() - 1] {
        let mut stream = server.connect();
        stream.write_all(&preface[..cut]).expect("written");
        stream.write_all(&[&preface[cut..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat()).expect("written");
        // The server's settings.
        assert_eq!(head(&mut stream)[3], 4);
    }
    let mut stream = server.connect();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an end");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{answer}");
    let mut stream = server.connect();
    stream.write_all(b"P").expect("written");
    stream
        .write_all(b"OST /v1.41/containers/web/start HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
        .expect("written");
    assert!(String::from_utf8_lossy(&super::segment(&mut stream)).starts_with("HTTP/1.1 204"));
}

fn head(stream: &mut UnixStream) -> [u8; 9] {
    stream.set_read_timeout(Some(LIMIT)).expect("timeout");
    let mut head = [0; 9];
    stream.read_exact(&mut head).expect("a frame");
    head
}
