//! A daemon that may have few descriptors only: new clients wait, what would begin is refused with an error, what is under way ends or
//! is taken back, what runs is not disturbed; when there are some again, everything works.

use serde_json::json;
use testkit::command::{PATIENCE, eventually};
use testkit::{Connection, Daemon};

use crate::calls;
use crate::with_busybox;

/// Descriptors that the daemon may have.
const LIMIT: usize = 256;
/// Left when idle clients have taken the others: further clients wait.
const LEFT_BY_CLIENTS: usize = 32;
/// Left when the limit is lowered. With the last, starts may begin.
const LEFT: [usize; 5] = [0, 3, 8, 20, 70];
/// Rounds of calls for each.
const ROUNDS: usize = 4;
/// More containers than the daemon can have descriptors for.
const MANY: usize = LIMIT;

fn descriptors(d: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", d.pid())).map_or(0, Iterator::count)
}

/// The soft limit: containers may have more, which they could not be given below a hard one without CAP_SYS_RESOURCE.
fn limit(d: &Daemon, to: usize) {
    let _ = d.exec_inside(&["prlimit", "--pid", &d.pid().to_string(), &format!("--nofile={to}:")]).ok();
}

/// Clients that are connected and ask nothing more, until no further one is served.
fn take_all(d: &Daemon) -> Vec<Connection> {
    let mut taken = Vec::new();
    while descriptors(d) + LEFT_BY_CLIENTS < LIMIT {
        let mut client = Connection::open(&d.socket()).unwrap();
        let _ = client.request("GET", "/_ping", "").expect(200);
        taken.push(client);
    }
    taken
}

/// A call on a connection that stands; it is answered, well or with an error that says what is wrong. True: with an error.
#[track_caller]
fn is_refused(client: &mut Connection, (method, path, body): (&str, &str, &str)) -> bool {
    let Ok(answer) = client.try_request(method, path, body) else { panic!("{method} {path} is not answered") };
    if answer.status == 500 {
        let text = answer.message();
        assert!(!text.is_empty() && !text.contains("panicked"), "{method} {path}: {text}");
    }
    answer.status == 500
}

fn sleeper() -> String {
    json!({"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}).to_string()
}

/// A daemon with the limit, a container that counts, and a client that is connected.
fn limited() -> (Daemon, Connection) {
    let d = with_busybox();
    calls::run(&d, "before", &calls::script("i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"));
    limit(&d, LIMIT);
    let mut client = d.connection();
    let _ = client.request("GET", "/_ping", "").expect(200);
    (d, client)
}

/// Removes all but the first one, which was not disturbed; new ones and execs work.
fn recovers(d: Daemon) {
    let list = d.http("GET", "/containers/json?all=1", "").expect(200).json();
    for container in list.as_array().unwrap().iter().filter(|one| one["Names"][0] != "/before") {
        calls::remove(&d, container["Id"].as_str().unwrap());
    }
    assert!(eventually(PATIENCE, || descriptors(&d) < LIMIT / 2), "{}", descriptors(&d));
    calls::run(&d, "after", &calls::script("sleep 1000"));
    calls::exec(&d, "after", &["true"]);
    calls::exec(&d, "before", &["true"]);
    assert!(calls::unbroken(&calls::log(&d, "before")) > 0);
    d.finish();
}

/// What begins is refused before further clients have to wait; what is there can be looked at and removed.
#[test]
fn clients_wait_and_leave_enough_for_removing() {
    let (d, mut client) = limited();
    calls::run(&d, "removed", &calls::script("sleep 1000"));
    let taken = take_all(&d);
    let waiting = calls::aside(&d, "GET", "/_ping");
    assert!(is_refused(&mut client, ("POST", "/containers/create?name=c", &sleeper())));
    assert!(is_refused(&mut client, ("POST", "/containers/removed/restart?t=0", "")));
    for path in ["/containers/json?all=1", "/containers/before/json", "/containers/before/top", "/images/json"] {
        let _ = client.request("GET", path, "").expect(200);
    }
    let state = client.request("GET", "/containers/removed/json", "").expect(200).json();
    assert_eq!(state["State"]["Status"], "running", "a refused restart has stopped it");
    let _ = client.request("DELETE", "/containers/removed?force=1", "").expect(204);
    drop(taken);
    assert_eq!(waiting.join().unwrap().map(|(status, _)| status), Ok(200));
    recovers(d);
}

/// Containers leave enough for clients, and for removing.
#[test]
fn containers_that_would_take_the_last_are_refused() {
    let (d, mut client) = limited();
    let refused = (0..MANY).any(|number| {
        let create = format!("/containers/create?name=c{number}");
        is_refused(&mut client, ("POST", &create, &sleeper()))
            || is_refused(&mut client, ("POST", &format!("/containers/c{number}/start"), ""))
    });
    assert!(refused, "the limit was not reached");
    recovers(d);
}

#[test]
fn nothing_is_left_half_way_when_there_are_none() {
    let (d, mut client) = limited();
    let mut refused = 0;
    for left in LEFT {
        limit(&d, descriptors(&d) + left);
        for round in 0..ROUNDS {
            let name = format!("c{left}-{round}");
            let (create, exec) = (format!("/containers/create?name={name}"), r#"{"Cmd":["true"]}"#);
            let (start, remove) = (format!("/containers/{name}/start"), format!("/containers/{name}?force=1"));
            let calls = [
                ("POST", create.as_str(), sleeper()),
                ("POST", &start, String::new()),
                ("GET", "/containers/json?all=1", String::new()),
                ("GET", "/containers/before/top", String::new()),
                ("POST", "/containers/before/exec", exec.to_owned()),
                ("GET", "/images/json", String::new()),
                ("DELETE", &remove, String::new()),
            ];
            for (method, path, body) in calls {
                refused += usize::from(is_refused(&mut client, (method, path, &body)));
            }
        }
        limit(&d, LIMIT);
    }
    assert!(refused > 0, "nothing was refused");
    recovers(d);
}
