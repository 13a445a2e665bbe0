//! A daemon that may have few descriptors only: whatever needs one more is refused with an error or waits for one, nothing hangs
//! and nothing that runs is disturbed; when there are some again, everything works.

use std::time::Duration;

use serde_json::json;
use testkit::command::{PATIENCE, eventually};
use testkit::{Connection, Daemon};

use crate::calls;
use crate::with_busybox;

/// Descriptors that the daemon may have.
const LIMIT: usize = 256;
/// Left to it when idle clients have taken the others.
const LEFT: [usize; 4] = [0, 3, 8, 20];
/// Rounds of calls for each.
const ROUNDS: usize = 6;

fn descriptors(d: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", d.pid())).map_or(0, Iterator::count)
}

/// Clients that are connected and ask nothing more, until so many descriptors are left.
fn take_all_but(d: &Daemon, left: usize) -> Vec<Connection> {
    let mut taken = Vec::new();
    while descriptors(d) + left < LIMIT {
        let mut client = Connection::open(&d.socket()).unwrap();
        if client.try_request("GET", "/_ping", "").is_err() {
            break;
        }
        taken.push(client);
    }
    taken
}

/// A call on a connection that stands; it is answered, well or with an error that says what is wrong.
#[track_caller]
fn ask(client: &mut Connection, (method, path, body): (&str, &str, &str), refused: &mut usize) {
    let Ok(answer) = client.try_request(method, path, body) else { panic!("{method} {path} is not answered") };
    if answer.status == 500 {
        *refused += 1;
        let text = answer.message();
        assert!(!text.is_empty() && !text.contains("panicked"), "{method} {path}: {text}");
    }
}

#[test]
fn a_daemon_with_few_descriptors_refuses_and_recovers() {
    let d = with_busybox();
    calls::run(&d, "before", &calls::script("i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"));
    // The soft one: containers may have more, which they could not be given below a hard one without CAP_SYS_RESOURCE.
    let limit = format!("--nofile={LIMIT}:");
    let _ = d.exec_inside(&["prlimit", "--pid", &d.pid().to_string(), &limit]).ok();
    let mut client = d.connection();
    let _ = client.request("GET", "/_ping", "").expect(200);
    let mut refused = 0;
    for left in LEFT {
        let taken = take_all_but(&d, left);
        for round in 0..ROUNDS {
            let name = format!("c{left}-{round}");
            let body = json!({"Image": "busybox", "Cmd": ["sleep", "1000"]}).to_string();
            let create = format!("/containers/create?name={name}");
            let start = format!("/containers/{name}/start");
            let remove = format!("/containers/{name}?force=1");
            ask(&mut client, ("POST", &create, &body), &mut refused);
            ask(&mut client, ("POST", &start, ""), &mut refused);
            ask(&mut client, ("GET", "/containers/json?all=1", ""), &mut refused);
            ask(&mut client, ("GET", "/containers/before/top", ""), &mut refused);
            ask(&mut client, ("POST", "/containers/before/exec", r#"{"Cmd":["true"]}"#), &mut refused);
            ask(&mut client, ("GET", "/images/json", ""), &mut refused);
            if round % 2 == 0 {
                ask(&mut client, ("DELETE", &remove, ""), &mut refused);
            }
        }
        // One more client waits, and is served when others have left.
        let waiting = calls::aside(&d, "GET", "/_ping");
        std::thread::sleep(Duration::from_millis(50));
        drop(taken);
        assert_eq!(waiting.join().unwrap().map(|(status, _)| status), Ok(200));
    }
    assert!(refused > 0, "nothing was refused: the limit was not reached");
    // Everything works again.
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
