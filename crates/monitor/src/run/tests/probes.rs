//! Probes of health checks: bounded in time and output, told once, kept for a daemon that was not there.

use super::*;
use crate::proto::{Probed, ReachSpec};

/// A container that runs until it is killed.
fn running(dir: &Path) -> (Daemon, thread::JoinHandle<()>) {
    let (mut daemon, run) = monitor(dir);
    daemon.started(&StartSpec { open_stdin: true, ..spec(dir, "read end") }, &[]);
    (daemon, run)
}

fn end(mut daemon: Daemon, run: thread::JoinHandle<()>) {
    daemon.request(&Request::Signal { exec: None, signal: 9, scope: Scope::Process }, &[]).unwrap();
    assert_eq!(daemon.exited(None).code, 137);
    daemon.release();
    run.join().unwrap();
}

fn probe(id: &str, timeout: u32) -> Exec {
    Exec { id: id.into(), probe: timeout, ..Exec::default() }
}

fn probed(daemon: &mut Daemon) -> Probed {
    match daemon.event() {
        Event::Probed(result) => result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn results_are_told_with_the_beginning_of_the_output() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = running(dir.path());
    let started = daemon.exec(probe("p1", 60_000), &process("echo out; echo err >&2; exit 3"), None);
    assert!(matches!(started, Event::Started { exec: Some(_), .. }), "{started:?}");
    let result = probed(&mut daemon);
    assert_eq!((result.id.as_str(), result.code, result.is_late), ("p1", 3, false));
    let output = String::from_utf8(result.output).unwrap();
    assert!(output == "out\nerr\n" || output == "err\nout\n", "{output}");
    assert!(result.started_at > 0 && result.ended_at >= result.started_at);
    // A flood is taken to its end, and its beginning is kept.
    daemon.exec(probe("p2", 60_000), &process("head -c 3000000 /dev/zero | tr '\\0' x"), None);
    let flood = probed(&mut daemon);
    assert_eq!((flood.code, flood.output.len()), (0, model::health::OUTPUT_BYTES + 3));
    assert!(flood.output.ends_with(b"x..."));
    end(daemon, run);
}

#[test]
fn a_probe_that_takes_too_long_is_killed_and_says_what_it_has_said() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = running(dir.path());
    daemon.exec(probe("p1", 300), &process("echo hangs; exec sleep 1000"), None);
    let result = probed(&mut daemon);
    assert_eq!((result.code, result.is_late, result.output.as_slice()), (-1, true, &b"hangs\n"[..]));
    // The next one may begin.
    daemon.exec(probe("p2", 60_000), &process("exit 0"), None);
    assert_eq!(probed(&mut daemon).code, 0);
    let missing = oci::Process { args: vec!["/nonexistent".into()], ..Default::default() };
    assert!(matches!(daemon.exec(probe("p3", 60_000), &missing, None), Event::Failed { exec: Some(_), .. }));
    end(daemon, run);
}

#[test]
fn a_daemon_that_comes_later_is_told_what_is_under_way_and_what_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = running(dir.path());
    for code in 0..7 {
        daemon.exec(probe(&format!("p{code}"), 60_000), &process(&format!("exit {code}")), None);
        assert_eq!(probed(&mut daemon).code, code);
    }
    daemon.exec(probe("last", 60_000), &process(&format!("{}; exit 9", held(dir.path()))), None);
    let refused = daemon.exec(probe("beside", 60_000), &process("exit 0"), None);
    assert!(matches!(refused, Event::Failed { exec: Some(_), .. }), "{refused:?}");
    drop(daemon);
    let (mut daemon, state) = Daemon::reconnect(dir.path());
    assert_eq!(state.probe.map(|probe| probe.id).as_deref(), Some("last"));
    let kept = [(); 5].map(|()| probed(&mut daemon).code);
    assert_eq!(kept, [2, 3, 4, 5, 6]);
    let_go(dir.path());
    assert_eq!(probed(&mut daemon).code, 9);
    drop(daemon);
    let (daemon, state) = Daemon::reconnect(dir.path());
    assert_eq!(state.probe, None);
    end(daemon, run);
}

#[test]
fn connections_are_probed_beside_everything_else() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = running(dir.path());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = ReachSpec {
        id: "r1".into(),
        address: None,
        port: listener.local_addr().unwrap().port(),
        path: Some("/".into()),
        timeout: 300,
    };
    let tells = |daemon: &mut Daemon| match daemon.event() {
        Event::Started { exec: Some(id), pid: 0, .. } => id,
        other => panic!("{other:?}"),
    };
    daemon.begin(&Request::Reach(spec.clone()));
    assert_eq!(tells(&mut daemon), "r1");
    // It accepts and says nothing, which holds nobody up.
    assert_eq!(daemon.request(&Request::Ping, &[]), Ok(()));
    let result = probed(&mut daemon);
    assert_eq!((result.code, result.is_late), (-1, true));
    daemon.begin(&Request::Reach(ReachSpec { id: "r2".into(), path: None, timeout: 60_000, ..spec.clone() }));
    assert_eq!(tells(&mut daemon), "r2");
    assert_eq!(probed(&mut daemon).code, 0);
    drop(listener);
    daemon.begin(&Request::Reach(ReachSpec { id: "r3".into(), path: None, timeout: 60_000, ..spec }));
    assert_eq!(tells(&mut daemon), "r3");
    assert_eq!(probed(&mut daemon).code, 1);
    end(daemon, run);
}
