//! Execs that cannot be made, and what is left of clients that come and go.

use serde_json::json;
use testkit::command::{PATIENCE, eventually};
use testkit::{Connection, Daemon, process};

use crate::calls;
use crate::with_busybox;

/// Clients that come and go.
const CLIENTS: usize = 20;

/// Makes an exec of a user; the status and the message.
fn create(d: &Daemon, name: &str, user: &str) -> (u16, String) {
    let body = json!({"Cmd": ["true"], "User": user}).to_string();
    let answer = d.http("POST", &format!("/containers/{name}/exec"), &body);
    (answer.status, if answer.status == 201 { String::new() } else { answer.message() })
}

#[track_caller]
fn checks(d: &Daemon, name: &str, cases: &[(&str, &str)]) {
    for (user, message) in cases {
        let expected = (if message.is_empty() { 201 } else { 400 }, (*message).to_owned());
        assert_eq!(create(d, name, user), expected, "{name} {user:?}");
    }
}

/// A user that the container does not know is refused when the exec is made, not when it is started; by the files as the container
/// sees them.
#[test]
fn users_are_looked_up_when_an_exec_is_made() {
    let d = with_busybox();
    let ready = |name: &str| assert!(eventually(PATIENCE, || calls::log(&d, name).contains("ready")), "{name}");
    let user = |name: &str| format!("unable to find user {name}: no matching entries in passwd file");
    let group = |name: &str| format!("unable to find group {name}: no matching entries in group file");
    let range = "uids and gids must be in range 0-2147483647";
    calls::run(&d, "whole", &calls::script("echo ready; exec sleep 1000"));
    ready("whole");
    let (nobody, somebody, no_group) = (user("nosuch"), user("root;0"), group("nosuch"));
    let cases = [
        ("", ""),
        ("0", ""),
        ("12345", ""),
        ("0:0", ""),
        ("root", ""),
        ("root:root", ""),
        ("daemon:7", ""),
        ("nosuch", &nobody),
        ("nosuch:1", &nobody),
        ("root;0", &somebody),
        ("1:nosuch", &no_group),
        ("root:nosuch", &no_group),
        ("2147483648", range),
        ("-1", range),
        ("0:2147483648", range),
    ];
    checks(&d, "whole", &cases);
    calls::run(&d, "groupless", &calls::script("rm /etc/group; echo ready; exec sleep 1000"));
    ready("groupless");
    let no_root = group("root");
    checks(&d, "groupless", &[("", ""), ("0:0", ""), ("root", ""), ("root:0", ""), ("0:root", &no_root)]);
    calls::run(&d, "userless", &calls::script("rm /etc/passwd; echo ready; exec sleep 1000"));
    ready("userless");
    checks(&d, "userless", &[("", ""), ("0:0", ""), ("0:root", ""), ("root", &user("root"))]);
    // Mounted over it, by the container's options and by the container itself, which sees another root by now.
    let over = "mkdir /x /x/etc; cp /bin/busybox /x; echo own:x:7:7::/: >/x/etc/passwd; echo ready; exec chroot /x /busybox sleep 1000";
    let mounts = json!({"Tmpfs": {"/etc": ""}, "CapAdd": ["SYS_CHROOT"]});
    calls::run(&d, "mounted", &calls::with_host(calls::script(over), mounts));
    ready("mounted");
    checks(&d, "mounted", &[("7", ""), ("root", &user("root")), ("own", &user("own"))]);
    // What the files cannot tell, nobody waits for.
    calls::run(&d, "odd", &calls::script("rm /etc/passwd; mkfifo /etc/passwd; echo ready; exec sleep 1000"));
    ready("odd");
    checks(&d, "odd", &[("0", ""), ("root", &user("root"))]);
    let _ = d.http("POST", "/containers/whole/pause", "").expect(204);
    assert_eq!(create(&d, "whole", "nosuch").0, 409);
    let _ = d.http("POST", "/containers/whole/unpause", "").expect(204);
    assert!(!process::threads(d.pid()).iter().any(|thread| thread == "users"));
    d.finish();
}

/// `/info` counts what runs for clients, and no longer when they have left.
#[test]
fn what_runs_for_clients_is_counted() {
    let d = with_busybox();
    calls::run(&d, "c", &calls::script("sleep 1000"));
    let tasks = || d.http("GET", "/info", "").expect(200).json()["NGoroutines"].as_u64().unwrap();
    let before = tasks();
    for path in ["/containers/c/logs?stdout=1&follow=1", "/events", "/containers/c/stats"] {
        let clients: Vec<Connection> = (0..CLIENTS)
            .map(|_| {
                let mut client = Connection::open(&d.socket()).unwrap();
                client.send(format!("GET {path} HTTP/1.1\r\nHost: d\r\n\r\n").as_bytes()).unwrap();
                client
            })
            .collect();
        assert!(eventually(PATIENCE, || tasks() >= before + CLIENTS as u64), "{path}: {}, {before}", tasks());
        drop(clients);
        assert!(eventually(PATIENCE, || tasks() <= before), "{path}: {}, {before} before", tasks());
    }
    d.finish();
}
