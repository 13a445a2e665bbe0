//! The bytes on the wire: recorded exchanges of a real engine replayed against the built daemon, streams segment by
//! segment, and real client libraries.
//!
//! - `golden/*.txt` holds requests and the answers that a real engine gave to them, normalised (see [`golden`]).
//! - What cannot be one request and one answer (hijacked connections, order in time) is a test of its own.
//! - `clients/` holds one driver script for each client library.
//!
//! Every test has a daemon of its own and ends with the leak census.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

mod clients;
mod compare;
mod events;
mod exchanges;
mod filters;
mod golden;
mod hijack;
mod logs;
mod normal;
mod raw;
mod refused;
mod versions;

use testkit::Daemon;

/// The newest version of the API, which the daemon names in every answer.
const NEWEST: &str = "1.56";

/// A daemon with the image `busybox`.
#[track_caller]
fn with_busybox() -> Daemon {
    let daemon = Daemon::start();
    daemon.busybox();
    daemon
}

/// Makes a container of a JSON body; its id.
#[track_caller]
fn create(d: &Daemon, name: &str, body: &str) -> String {
    let made = d.http("POST", &format!("/containers/create?name={name}"), body).expect(201).json();
    made["Id"].as_str().unwrap().to_string()
}

/// Makes and starts a container of a JSON body; its id.
#[track_caller]
fn run(d: &Daemon, name: &str, body: &str) -> String {
    let id = create(d, name, body);
    start(d, name);
    id
}

#[track_caller]
fn start(d: &Daemon, name: &str) {
    let _ = d.http("POST", &format!("/containers/{name}/start"), "").expect(204);
}

/// Waits for the end of a container; its exit code.
#[track_caller]
fn wait(d: &Daemon, name: &str) -> i64 {
    let answer = d.http("POST", &format!("/containers/{name}/wait"), "").expect(200).json();
    answer["StatusCode"].as_i64().unwrap()
}
