//! The daemon goes and comes back: crash, graceful stop, monitors that die, load under which it is killed.

use std::time::{Duration, Instant};

use testkit::command::eventually;
use testkit::{Options, process};

use crate::with_busybox;

const COUNTER: &str = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.01; done";

#[test]
fn containers_run_on_and_no_line_is_lost() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c1", "busybox", "sh", "-c", COUNTER]).ok();
    let pid = d.inspect("c1", "{{.State.Pid}}");
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(200));
        d.kill9();
        std::thread::sleep(Duration::from_millis(300));
        d.again();
        assert_eq!(d.inspect("c1", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    }
    let _ = d.docker(&["stop", "-t", "1", "c1"]).ok();
    let log = d.docker(&["logs", "c1"]).ok().stdout;
    let numbers: Vec<usize> = log.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
    assert!(numbers.len() > 60, "{} lines", numbers.len());
    d.finish();
}

#[test]
fn an_end_while_the_daemon_is_away_is_recorded() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c1", "busybox", "sh", "-c", "sleep 0.5; echo last; exit 17"]).ok();
    let _ = d.docker(&["run", "-d", "--rm", "--name", "r1", "busybox", "sh", "-c", "sleep 0.5"]).ok();
    d.kill9();
    std::thread::sleep(Duration::from_millis(1500));
    d.again();
    d.until("c1", "{{.State.Status}} {{.State.ExitCode}}", "exited 17");
    assert_eq!(d.docker(&["logs", "c1"]).text(), "last");
    assert!(eventually(Duration::from_secs(5), || !d.docker(&["ps", "-a"]).stdout.contains(" r1\n")));
    d.finish();
}

#[test]
fn everything_works_on_an_adopted_container() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "-di", "--name", "c1", "busybox", "cat"]).ok();
    let _ = d.docker(&["run", "-dit", "--name", "t1", "busybox", "sh"]).ok();
    d.crash();
    assert_eq!(d.docker(&["exec", "c1", "echo", "in"]).text(), "in");
    assert!(d.docker(&["top", "c1"]).text().contains("cat"));
    let mut attached = d.spawn(&["attach", "--sig-proxy=false", "c1"]);
    assert!(eventually(Duration::from_secs(10), || {
        attached.write(b"typed\n");
        std::thread::sleep(Duration::from_millis(100));
        attached.stdout().contains("typed")
    }));
    attached.kill();
    let mut terminal = d.pty(&["attach", "t1"]);
    terminal.type_keys("echo $((6*7))\r");
    terminal.expect("42");
    drop(terminal);
    let _ = d.docker(&["pause", "c1"]).ok();
    let _ = d.docker(&["unpause", "c1"]).ok();
    let mut waiter = d.spawn(&["wait", "c1"]);
    let _ = d.docker(&["kill", "c1"]).ok();
    assert_eq!(waiter.end().text(), "137");
    let _ = d.docker(&["start", "c1"]).ok();
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "running");
    d.finish();
}

#[test]
fn a_graceful_stop_stops_containers_unless_live_restore() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c1", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["run", "-d", "--name", "always", "--restart", "always", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["update", "--restart", "no", "c1"]);
    let begin = Instant::now();
    d.restart();
    assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "exited");
    d.until("always", "{{.State.Status}}", "running");
    d.finish();

    let mut d = Options::new().args(&["--live-restore"]).start();
    d.busybox();
    let _ = d.docker(&["run", "-d", "--name", "c1", "busybox", "sleep", "1000"]).ok();
    let pid = d.inspect("c1", "{{.State.Pid}}");
    d.restart();
    assert_eq!(d.inspect("c1", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    d.finish();
}

#[test]
fn a_killed_monitor_ends_the_container_and_hangs_nothing() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c1", "busybox", "sleep", "1000"]).ok();
    let pid: u32 = d.inspect("c1", "{{.State.Pid}}").parse().unwrap();
    let monitor = process::parent(pid).expect("the container has a parent");
    assert_ne!(monitor, d.pid());
    let mut waiter = d.spawn(&["wait", "c1"]);
    let mut follower = d.spawn(&["logs", "-f", "c1"]);
    std::thread::sleep(Duration::from_millis(300));
    assert!(process::signal(monitor, rustix::process::Signal::KILL));
    d.until("c1", "{{.State.Status}} {{.State.ExitCode}}", "exited 137");
    assert_eq!(waiter.end().text(), "137");
    assert_eq!(follower.end().code, 0);
    assert!(eventually(Duration::from_secs(5), || !process::alive(pid)), "the program outlived its monitor");
    let _ = d.docker(&["start", "c1"]).ok();
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "running");
    d.finish();
}

#[test]
fn a_monitor_killed_while_the_daemon_is_away() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c1", "busybox", "sleep", "1000"]).ok();
    let pid: u32 = d.inspect("c1", "{{.State.Pid}}").parse().unwrap();
    let monitor = process::parent(pid).expect("the container has a parent");
    d.kill9();
    assert!(process::signal(monitor, rustix::process::Signal::KILL));
    std::thread::sleep(Duration::from_millis(200));
    d.again();
    assert_eq!(d.inspect("c1", "{{.State.Running}}"), "false");
    assert!(!process::alive(pid));
    d.finish();
}

#[test]
fn fifty_crashes_under_load() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "steady", "busybox", "sh", "-c", COUNTER]).ok();
    let pid = d.inspect("steady", "{{.State.Pid}}");
    let socket = d.socket();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            let (socket, stop) = (socket.clone(), stop.clone());
            std::thread::spawn(move || load(worker, &socket, &stop))
        })
        .collect();
    for round in 0..50_u64 {
        std::thread::sleep(Duration::from_millis(20 + (round * 37) % 150));
        d.crash();
        assert_eq!(d.inspect("steady", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"), "round {round}");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let acknowledged: Vec<Created> = workers.into_iter().flat_map(|w| w.join().unwrap()).collect();
    assert!(!acknowledged.is_empty(), "no request got through");
    for created in &acknowledged {
        let status = d.http("GET", &format!("/containers/{}/json", created.id), "").status;
        match created.removal {
            Removal::Acknowledged => assert_eq!(status, 404, "{} was removed", created.id),
            Removal::Never => assert_eq!(status, 200, "{} was created", created.id),
            Removal::Unknown => {}
        }
    }
    let log = d.docker(&["logs", "steady"]).ok().stdout;
    let numbers: Vec<usize> = log.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
    d.finish();
}

/// A container whose creation was acknowledged.
struct Created {
    id: String,
    removal: Removal,
}

#[derive(Clone, Copy)]
enum Removal {
    Never,
    Unknown,
    Acknowledged,
}

/// Creates, starts, stops and removes until told to stop; errors are expected while the daemon is away.
fn load(worker: u32, socket: &std::path::Path, stop: &std::sync::atomic::AtomicBool) -> Vec<Created> {
    let mut found = Vec::new();
    let body = r#"{"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"none"}}"#;
    for round in 0.. {
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
        let Ok(mut connection) = testkit::Connection::open(socket) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let name = format!("load-{worker}-{round}");
        let answer = connection.try_request("POST", &format!("/containers/create?name={name}"), body);
        let Some(id) = answer.ok().filter(|a| a.status == 201).and_then(|a| a.json()["Id"].as_str().map(String::from))
        else {
            continue;
        };
        let _ = connection.try_request("POST", &format!("/containers/{id}/start"), "");
        let mut removal = Removal::Never;
        if round % 2 == 0 {
            let _ = connection.try_request("POST", &format!("/containers/{id}/stop?t=0"), "");
            removal = match connection.try_request("DELETE", &format!("/containers/{id}?force=1"), "") {
                Ok(answer) if answer.status == 204 => Removal::Acknowledged,
                _ => Removal::Unknown,
            };
        }
        found.push(Created { id, removal });
    }
    found
}
