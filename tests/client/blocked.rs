//! What users can make slow (a path, a reader, a container, a registry) stops nobody else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testkit::dead_mount::DeadMount;
use testkit::http::{Connection, Response};
use testkit::{Daemon, process, soak};

use crate::{eventually, with_busybox};

/// Clients that create, start, stop and remove.
const CLIENTS: usize = 8;
/// Binds on the file system that does not answer, each on a path of its own.
const BINDS: usize = 5;
/// Streams whose client takes nothing.
const STALLED: usize = 20;

const UNANSWERED: &str = "has not answered for 10s";

/// A directory of the test's, seen by the daemon.
fn dir(d: &Daemon, name: &str) -> std::path::PathBuf {
    let path = d.path(name);
    std::fs::create_dir(&path).unwrap();
    path
}

fn bind(source: &str) -> String {
    format!(
        r#"{{"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{{"NetworkMode":"none","Binds":["{source}:/m"]}}}}"#
    )
}

fn mount(source: &str) -> String {
    format!(
        r#"{{"Image":"busybox","Cmd":["true"],"HostConfig":{{"Mounts":[{{"Type":"bind","Source":"{source}","Target":"/m"}}]}}}}"#
    )
}

/// Creates with binds on a dead path are refused after a time, and hold up nobody meanwhile.
#[test]
fn binds_on_a_path_that_does_not_answer() {
    let d = with_busybox();
    let place = dir(&d, "dead");
    let dead = DeadMount::make(d.namespaces(), &place);
    let source = place.display().to_string();
    let bodies = [bind(&source), mount(&source), bind(&format!("{source}/a")), mount(&format!("{source}/b"))];
    std::thread::scope(|scope| {
        // More than the daemon has workers.
        let creates: Vec<_> = bodies
            .iter()
            .cycle()
            .take(3 * bodies.len())
            .map(|body| scope.spawn(|| d.http("POST", "/containers/create", body)))
            .collect();
        let others = scope.spawn(|| {
            let _ = d.docker(&["run", "--rm", "-v", "/proc:/p:ro", "busybox", "true"]).ok();
            let _ = d.docker(&["ps"]).ok();
        });
        others.join().unwrap();
        for create in creates {
            let refused = create.join().unwrap();
            assert_eq!(refused.status, 500);
            let text = refused.message();
            assert!(text.starts_with("bind source path /") && text.ends_with(UNANSWERED), "{text}");
        }
    });
    dead.end(d.namespaces());
    d.finish();
}

/// A start whose bind does not answer fails after a time; kill, stop and removal cancel it.
#[test]
fn a_start_that_waits_for_a_path_ends() {
    let d = with_busybox();
    let place = dir(&d, "source");
    let source = place.display().to_string();
    let names = ["k", "s", "r", "u"];
    for name in names {
        let _ = d.http("POST", &format!("/containers/create?name={name}"), &bind(&source)).expect(201);
    }
    let dead = DeadMount::make(d.namespaces(), &place);
    std::thread::scope(|scope| {
        let d = &d;
        let starts = names.map(|name| scope.spawn(move || d.http("POST", &format!("/containers/{name}/start"), "")));
        // Before the start as well as after it.
        let calls = [
            ("POST", "/containers/k/kill", [204, 409]),
            ("POST", "/containers/s/stop", [204, 304]),
            ("DELETE", "/containers/r?force=1", [204, 204]),
        ];
        for (method, path, allowed) in calls {
            let answer = d.http(method, path, "");
            assert!(allowed.contains(&answer.status), "{path}: {}", answer.text());
        }
        for (name, start) in names.into_iter().zip(starts) {
            let refused = start.join().unwrap();
            let cancelled = name != "u" && refused.text().contains("the start was cancelled");
            // That of the removed one may have come after the removal.
            let is_late = name == "r" && matches!(refused.status, 404 | 409);
            assert!(is_late || cancelled || refused.message().ends_with(UNANSWERED), "{name}: {}", refused.text());
        }
    });
    assert!(d.inspect("u", "{{.State.Error}}").ends_with(UNANSWERED));
    dead.end(d.namespaces());
    let _ = d.docker(&["start", "u"]).ok();
    d.remove_containers();
    d.finish();
}

/// A path that a copy is to or from, on a file system that does not answer: the copy is refused after a time, whether the bind itself
/// or what is mounted below it is dead, and nobody else waits.
#[test]
fn copies_with_a_bind_that_does_not_answer() {
    let d = with_busybox();
    let (own, above) = (dir(&d, "own"), dir(&d, "above"));
    let below = above.join("sub");
    std::fs::create_dir(&below).unwrap();
    let inner = DeadMount::make(d.namespaces(), &below);
    for (name, source) in [("bound", &own), ("holds", &above)] {
        let _ = d
            .http("POST", &format!("/containers/create?name={name}"), &bind(&source.display().to_string()))
            .expect(201);
        let _ = d.docker(&["start", name]).ok();
    }
    let _ = d.docker(&["run", "-d", "--network=none", "--name", "quiet", "busybox", "sleep", "1000"]).ok();
    let outer = DeadMount::make(d.namespaces(), &own);
    let content = d.path("content");
    std::fs::write(&content, "content").unwrap();
    let content = content.display().to_string();
    std::thread::scope(|scope| {
        let d = &d;
        let copies = [
            (["bound:/m/x", "-"], "bind source path "),
            ([content.as_str(), "bound:/m/x"], "bind source path "),
            (["holds:/m/sub/x", "-"], " in container holds "),
            ([content.as_str(), "holds:/m/sub/x"], " in container holds "),
        ];
        let copies: Vec<_> = copies
            .into_iter()
            .cycle()
            .take(8)
            .map(|([from, to], what)| (what, scope.spawn(move || d.docker(&["cp", "-q", from, to]))))
            .collect();
        let _ = d.docker(&["cp", "-q", &content, "quiet:/tmp"]).ok();
        assert_eq!(d.docker(&["exec", "quiet", "cat", "/tmp/content"]).text(), "content");
        for (what, copy) in copies {
            let refused = copy.join().unwrap();
            assert!(refused.code == 1 && refused.stderr.contains(what), "{refused:?}");
            assert!(refused.stderr.trim_end().ends_with(UNANSWERED), "{refused:?}");
        }
    });
    outer.end(d.namespaces());
    inner.end(d.namespaces());
    let _ = d.docker(&["cp", "-q", &content, "bound:/m"]).ok();
    assert_eq!(std::fs::read_to_string(own.join("content")).unwrap(), "content");
    d.remove_containers();
    d.finish();
}

/// More removals at once than they have threads, each with a volume, whose driver has threads of its own.
#[test]
fn removals_with_volumes_do_not_wait_for_each_other() {
    let d = with_busybox();
    let create = |api: &mut Connection| {
        let body = r#"{"Image":"busybox","Volumes":{"/a":{},"/b":{}},"HostConfig":{"NetworkMode":"none"}}"#;
        api.request("POST", "/containers/create", body).expect(201).json()["Id"].as_str().unwrap().to_owned()
    };
    let mut api = d.connection();
    let ids: Vec<_> = (0..96).map(|_| create(&mut api)).collect();
    std::thread::scope(|scope| {
        let d = &d;
        let removals: Vec<_> = ids
            .iter()
            .map(|id| scope.spawn(move || d.http("DELETE", &format!("/containers/{id}?v=1"), "").expect(204)))
            .collect();
        removals.into_iter().for_each(|removal| drop(removal.join().unwrap()));
    });
    assert_eq!(d.docker(&["volume", "ls", "-q"]).text(), "");
    d.finish();
}

/// How long calls took, in milliseconds.
#[derive(Default)]
struct Figures(Vec<f64>);

impl Figures {
    fn time(&mut self, call: impl FnOnce() -> Response, status: u16) -> Response {
        let begin = Instant::now();
        let answer = call().expect(status);
        self.0.push(begin.elapsed().as_secs_f64() * 1e3);
        answer
    }

    fn p99(&mut self) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0[(self.0.len() - 1) * 99 / 100]
    }
}

/// The p99 of `ps`, of `inspect` and of a whole cycle while `CLIENTS` go through `rounds` cycles each.
fn measure(d: &Daemon, rounds: usize) -> [f64; 3] {
    let ended = AtomicBool::new(false);
    let (mut lists, mut inspects, mut cycles) = (Figures::default(), Figures::default(), Figures::default());
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| cycle(d, rounds))).collect();
        let reader = scope.spawn(|| {
            let mut api = d.connection();
            while !ended.load(Ordering::Relaxed) {
                lists.time(|| api.request("GET", "/containers/json", ""), 200);
                inspects.time(|| api.request("GET", "/containers/quiet/json", ""), 200);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        clients.into_iter().for_each(|client| cycles.0.extend(client.join().unwrap().0));
        ended.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    [lists.p99(), inspects.p99(), cycles.p99()]
}

fn cycle(d: &Daemon, rounds: usize) -> Figures {
    let mut figures = Figures::default();
    let mut api = d.connection();
    let body = r#"{"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"none"}}"#;
    for _ in 0..rounds {
        let begin = Instant::now();
        let id = api.request("POST", "/containers/create", body).expect(201).json()["Id"].as_str().unwrap().to_owned();
        let _ = api.request("POST", &format!("/containers/{id}/start"), "").expect(204);
        let _ = api.request("POST", &format!("/containers/{id}/stop?t=0"), "").expect(204);
        let _ = api.request("DELETE", &format!("/containers/{id}"), "").expect(204);
        figures.0.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    figures
}

/// A connection whose answer nobody takes.
fn stalled(d: &Daemon, method: &str, path: &str) -> Connection {
    let mut api = d.connection();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n");
    api.send(head.as_bytes()).unwrap();
    api
}

/// Followers, stalled readers, dead binds, a frozen container, a stopped monitor and a registry that hangs, all at once.
#[test]
fn what_users_make_slow_stops_nobody() {
    let d = with_busybox();
    let started = |name: &str, script: &str| {
        let _ = d.docker(&["run", "-d", "--network=none", "--name", name, "busybox", "sh", "-c", script]).ok();
    };
    started("quiet", "sleep 1000");
    let rounds = soak::rounds(4, 40);
    let quiet = measure(&d, rounds);

    started("noisy", "yes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx | head -c 8000000; sleep 1000");
    started("frozen", "sleep 1000");
    started("stopped", "sleep 1000");
    let place = dir(&d, "dead");
    let dead = DeadMount::make(d.namespaces(), &place);
    let _ = d.docker(&["pause", "frozen"]).ok();
    let id = d.inspect("stopped", "{{.Id}}");
    let monitor = d.namespaces().processes().into_iter().find(|p| p.command.contains(&id)).expect("a monitor").pid;
    assert!(process::signal(monitor, Signal::STOP));
    let registry = testkit::Running::start(&mut hung_registry(&d));
    let sockets = ["tcp", "tcp6"].map(|file| format!("/proc/{}/net/{file}", d.namespaces().holder()));
    let is_there = |file: &String| std::fs::read_to_string(file).is_ok_and(|text| text.contains(":176F "));
    assert!(eventually(|| sockets.iter().any(is_there)));
    let mut held: Vec<Connection> = Vec::new();
    held.extend((0..soak::rounds(100, 1000)).map(|_| stalled(&d, "GET", "/containers/quiet/logs?follow=1&stdout=1")));
    for n in 0..STALLED {
        let (method, path) = [
            ("GET", "/containers/noisy/export"),
            ("GET", "/images/busybox/get"),
            ("POST", "/containers/noisy/attach?stream=1&stdout=1&logs=1"),
        ][n % 3];
        held.push(stalled(&d, method, path));
    }
    held.push(stalled(&d, "POST", "/images/create?fromImage=127.0.0.1:5999/x&tag=1"));
    let done = AtomicBool::new(false);
    let slow = std::thread::scope(|scope| {
        let (d, done) = (&d, &done);
        let binds: Vec<_> = (0..BINDS)
            .map(|n| {
                let body = bind(&format!("{}/{n}", place.display()));
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let refused = d.http("POST", "/containers/create", &body).expect(500);
                        assert!(refused.message().ends_with(UNANSWERED), "{}", refused.text());
                    }
                })
            })
            .collect();
        let slow = measure(d, rounds);
        done.store(true, Ordering::Relaxed);
        binds.into_iter().for_each(|bind| bind.join().unwrap());
        slow
    });
    for (what, quiet, slow) in [("ps", 0), ("inspect", 1), ("cycle", 2)].map(|(what, n)| (what, quiet[n], slow[n])) {
        println!("blocked: p99 of {what}: {quiet:.2} ms quiet, {slow:.2} ms beside what is slow");
        assert!(!soak::is_on() || slow <= 5.0 * quiet, "{what}: {slow:.2} ms, {quiet:.2} ms quiet");
    }
    drop(held);
    drop(registry);
    assert!(process::signal(monitor, Signal::CONT));
    dead.end(d.namespaces());
    let _ = d.docker(&["unpause", "frozen"]).ok();
    assert!(eventually(|| d.docker(&["rm", "-f", "quiet", "noisy", "frozen", "stopped"]).code == 0));
    d.finish();
}

/// A server that accepts a connection and never answers.
fn hung_registry(d: &Daemon) -> std::process::Command {
    let mut command = d.namespaces().command("busybox");
    command.args(["nc", "-l", "-p", "5999"]);
    command
}

/// A monitor in a loop without end is noticed by itself, and whoever asks for the container's end gets it within a bound.
#[test]
fn a_monitor_in_an_endless_loop_is_noticed() {
    let d = with_busybox();
    for name in ["c1", "c2"] {
        let _ = d.docker(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]).ok();
    }
    let monitor = |name: &str| {
        let id = d.inspect(name, "{{.Id}}");
        d.namespaces().processes().into_iter().find(|p| p.command.contains(&id)).expect("a monitor").pid
    };
    let spinning = monitor("c1");
    assert!(eventually(|| process::spin_after_wait(spinning)), "it waits");
    // A signal that nobody handles wakes it.
    let _ = d.docker(&["kill", "-s", "WINCH", "c1"]).ok();
    let told = "the container's monitor runs all the time and answers nothing";
    assert!(eventually(|| d.log().contains(told)), "{}", d.log());
    assert_eq!(d.log().matches(told).count(), 1);
    assert_eq!(d.docker(&["ps", "-q"]).text().lines().count(), 2);
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "running");
    let _ = d.docker(&["stop", "-t", "1", "c1"]).ok();
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "exited");
    assert_eq!(d.docker(&["exec", "c2", "echo", "well"]).text(), "well");
    d.finish();
}

/// Thaws a control group when the test is over, however it ends.
struct Frozen(std::path::PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        std::fs::write(&self.0, "THAWED").unwrap();
    }
}

/// Who is frozen by somebody else, above the container's own control group, does not die of SIGKILL; whoever wants it gone is told
/// what it waits for, within a bound, and nobody else is held up.
#[test]
fn a_removal_says_what_it_waits_for() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "stuck", "busybox", "sleep", "100000"]).ok();
    let id = d.inspect("stuck", "{{.Id}}");
    let groups = testkit::census::cgroups(d.cgroup());
    let own = groups.iter().find(|dir| dir.ends_with(&id) && dir.join("freezer.state").exists());
    // Version 2 kills who is frozen.
    let Some(above) = own.and_then(|own| own.parent()) else { return d.finish() };
    let frozen = Frozen(above.join("freezer.state"));
    std::fs::write(&frozen.0, "FROZEN").unwrap();
    let refused = d.docker(&["rm", "-f", "stuck"]);
    let parts = ["could not kill container: container ", " did not end: process ", "(sleep)"];
    assert!(refused.code == 1 && parts.iter().all(|part| refused.stderr.contains(part)), "{refused:?}");
    d.docker(&["kill", "stuck"]).fails(1, "did not end: process ");
    assert_eq!(d.inspect("stuck", "{{.State.Running}}"), "true");
    drop(frozen);
    d.until("stuck", "{{.State.Status}} {{.State.ExitCode}}", "exited 137");
    let _ = d.docker(&["rm", "-f", "stuck"]).ok();
    d.finish();
}
