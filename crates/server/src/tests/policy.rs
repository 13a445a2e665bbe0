//! Who asks, and policies around handlers.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use model::lock::Mutex;
use model::{Error, Result};

use super::{Server, parts};
use crate::peer::Peer;
use crate::policy::{Asked, Policy, Verdict};
use crate::routes::Outcome;

/// Notes what it is asked, and refuses paths that begin with its words.
#[derive(Default)]
struct Strict {
    before: &'static str,
    after: &'static str,
    asked: Mutex<Vec<String>>,
}

impl Strict {
    fn verdict(&self, when: &str, refused: &str, asked: &Asked) -> Verdict<'static> {
        let line = format!("{when} {} {} {} {}", asked.method, asked.path, asked.route, asked.version);
        self.asked.lock().push(line);
        let refuses = !refused.is_empty() && asked.path.starts_with(refused);
        let error = || Err(Error::forbidden(format!("not {when} {}", asked.path)));
        Box::pin(std::future::ready(if refuses { error() } else { Ok(()) }))
    }
}

impl Policy for Strict {
    fn before<'a>(&'a self, asked: &'a Asked) -> Verdict<'a> {
        self.verdict("before", self.before, asked)
    }

    fn after<'a>(&'a self, asked: &'a Asked, _: &'a Result<Outcome>) -> Verdict<'a> {
        self.verdict("after", self.after, asked)
    }
}

fn answer(server: &Server, request: &str) -> (String, String) {
    let (status, _, body) = parts(&server.ask(&format!("{request} HTTP/1.1\nContent-Length: 0")));
    (status["HTTP/1.1 ".len()..].to_owned(), body)
}

#[test]
fn a_request_knows_the_process_that_sends_it() {
    let server = Server::start();
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw(), std::process::id());
    let (_, body) = answer(&server, "GET /peer");
    assert_eq!(body, format!("uid={} gid={} pid={}", own.0, own.1, own.2));
}

#[test]
fn a_policy_is_asked_before_and_after_every_handler() {
    let policy = Arc::new(Strict::default());
    let server = Server::under(Arc::new([policy.clone() as Arc<dyn Policy>]));
    assert_eq!(answer(&server, "POST /v1.41/containers/web/start").0, "204 No Content");
    assert_eq!(answer(&server, "GET /info").0, "200 OK");
    // What is refused by the table is asked about, too.
    assert_eq!(answer(&server, "GET /nodes").0, "503 Service Unavailable");
    assert_eq!(answer(&server, "POST /build").0, "501 Not Implemented");
    // What has no route, and what the version gate refuses, reaches no policy.
    assert_eq!(answer(&server, "GET /nothing").0, "404 Not Found");
    assert_eq!(answer(&server, "GET /v9.99/info").0, "400 Bad Request");
    let lines = [
        "POST /containers/web/start /containers/{name}/start 1.41",
        "GET /info /info 1.45",
        "GET /nodes /nodes 1.45",
        "POST /build /build 1.45",
    ];
    let expected: Vec<String> =
        lines.iter().flat_map(|line| [format!("before {line}"), format!("after {line}")]).collect();
    assert_eq!(*policy.asked.lock(), expected);
}

#[test]
fn what_is_refused_before_the_handler_has_no_effect() {
    let policy = Arc::new(Strict { before: "/slow", ..Strict::default() });
    let server = Server::under(Arc::new([policy as Arc<dyn Policy>]));
    let refusal = "{\"message\":\"not before /slow\"}\n".to_owned();
    assert_eq!(answer(&server, "PUT /slow"), ("403 Forbidden".to_owned(), refusal));
    assert_eq!(server.seen.begun.load(SeqCst), 0);
}

#[test]
fn what_is_refused_after_the_handler_has_happened() {
    let policy = Arc::new(Strict { after: "/slow", ..Strict::default() });
    let server = Server::under(Arc::new([policy as Arc<dyn Policy>]));
    server.seen.go.add_permits(1);
    let refusal = "{\"message\":\"not after /slow\"}\n".to_owned();
    assert_eq!(answer(&server, "PUT /slow"), ("403 Forbidden".to_owned(), refusal));
    assert_eq!(server.seen.mutations.load(SeqCst), 1);
}

/// A connection that a policy keeps from leaving HTTP stays HTTP.
#[test]
fn a_hijack_that_is_refused_is_an_answer() {
    let policy = Arc::new(Strict { after: "/containers", ..Strict::default() });
    let server = Server::under(Arc::new([policy as Arc<dyn Policy>]));
    assert_eq!(answer(&server, "POST /containers/a/attach").0, "403 Forbidden");
}

#[test]
fn peers_are_written_for_the_log() {
    let process = |pid| Peer::Process { uid: 1, gid: 2, pid };
    assert_eq!([process(Some(3)), process(None)].map(|p| p.to_string()), ["uid=1 gid=2 pid=3", "uid=1 gid=2"]);
}
