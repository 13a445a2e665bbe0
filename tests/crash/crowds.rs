//! Many containers at once: stops, crash loops, and what waits for the next start while the daemon is replaced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;
use serde_json::json;
use testkit::command::{PATIENCE, eventually};
use testkit::{Daemon, places, process, soak};

use crate::calls;
use crate::with_busybox;

/// Ends on SIGTERM, and says when it would.
const OBEDIENT: &str = "trap 'exit 5' TERM; echo ready; while :; do sleep 1000 & wait; done";
/// Processor time of the daemon that one restart by the policy may take, in that of a start by hand.
const STARTS: f64 = 3.0;
/// Restarts of each crash loop that are counted: at pauses of 100 to 1600 ms.
const RESTARTS: u64 = 5;
/// Lists that are looked at while containers come and go.
const LISTS: usize = 50;
/// Ticks of a second in `/proc/<pid>/stat`: `USER_HZ`, which never is another.
const TICKS: f64 = 100.0;

fn is_ready(d: &Daemon, name: &str) -> bool {
    eventually(PATIENCE, || calls::log(d, name).contains("ready"))
}

/// All that obey are stopped while one that does not has yet to be killed.
#[test]
fn a_stop_of_many_waits_for_none_that_ignores_it() {
    let d = with_busybox();
    let names: Vec<String> = (0..soak::rounds(20, 100)).map(|n| format!("c{n}")).collect();
    calls::run(&d, "deaf", &calls::script("trap '' TERM; echo ready; while :; do sleep 1000; done"));
    names.iter().for_each(|name| drop(calls::run(&d, name, &calls::script(OBEDIENT))));
    assert!(names.iter().all(|name| is_ready(&d, name)) && is_ready(&d, "deaf"));
    let stop = |name: &str| calls::aside(&d, "POST", &format!("/containers/{name}/stop?t=100000"));
    let deaf = stop("deaf");
    let stops: Vec<_> = names.iter().map(|name| stop(name)).collect();
    for stop in stops {
        assert_eq!(stop.join().unwrap().map(|(status, _)| status), Ok(204));
    }
    assert!(!deaf.is_finished());
    names.iter().for_each(|name| assert_eq!(calls::state(&d, name), ("exited".into(), 5, String::new())));
    let _ = d.http("POST", "/containers/deaf/kill", "").expect(204);
    assert_eq!(deaf.join().unwrap().map(|(status, _)| status), Ok(204));
    d.finish();
}

/// A list has every container that stays, once, in the order of their making, whatever comes and goes meanwhile.
#[test]
fn lists_of_many_are_whole() {
    let d = with_busybox();
    let body = calls::script("true");
    let names: Vec<String> = (0..soak::rounds(200, 1000)).map(|n| format!("c{n}")).collect();
    names.iter().for_each(|name| drop(calls::create(&d, name, &body)));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for worker in 0..2 {
            let (d, body, done) = (&d, &body, &done);
            scope.spawn(move || {
                for n in (0..).take_while(|_| !done.load(Ordering::Relaxed)) {
                    let name = format!("other{worker}-{n}");
                    calls::create(d, &name, body);
                    calls::remove(d, &name);
                }
            });
        }
        for _ in 0..LISTS {
            let list = d.http("GET", "/containers/json?all=1", "").expect(200).json();
            let shown =
                list.as_array().unwrap().iter().map(|one| one["Names"][0].as_str().unwrap().trim_start_matches('/'));
            let shown: Vec<&str> = shown.filter(|name| !name.starts_with("other")).collect();
            // The newest first.
            if !shown.iter().rev().eq(&names) {
                done.store(true, Ordering::Relaxed);
                panic!("{} of {}: {shown:?}", shown.len(), names.len());
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    d.finish();
}

/// Processor time of the daemon so far, in seconds (proc_pid_stat(5)).
fn used(d: &Daemon) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", d.pid())).unwrap();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    // utime, stime.
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

fn restarts(d: &Daemon, name: &str) -> u64 {
    calls::inspect(d, name)["RestartCount"].as_u64().unwrap()
}

/// Processor time that the daemon takes to start a container that ends at once and is not started again, in seconds.
fn start_by_hand(d: &Daemon, names: &[String]) -> f64 {
    let names: Vec<String> = names.iter().map(|name| format!("once-{name}")).collect();
    names.iter().for_each(|name| drop(calls::create(d, name, &calls::script("exit 3"))));
    let before = used(d);
    names.iter().for_each(|name| calls::start(d, name));
    names.iter().for_each(|name| calls::until(d, name, "exited", 3));
    (used(d) - before) / names.len() as f64
}

/// Crash loops cost little, disturb nobody, and each ends when it is told to.
#[test]
fn crash_loops_cost_little() {
    let d = with_busybox();
    calls::run(&d, "calm", &calls::script(calls::COUNTER));
    let names: Vec<String> = (0..soak::rounds(20, 100)).map(|n| format!("c{n}")).collect();
    let start = start_by_hand(&d, &names);
    let body = calls::with_host(calls::script("exit 3"), json!({"RestartPolicy": {"Name": "always"}}));
    names.iter().for_each(|name| drop(calls::create(&d, name, &body)));
    let before = used(&d);
    names.iter().for_each(|name| calls::start(&d, name));
    assert!(eventually(PATIENCE, || {
        // Looking costs, too.
        thread::sleep(std::time::Duration::from_millis(500));
        names.iter().all(|name| restarts(&d, name) >= RESTARTS)
    }));
    let all: u64 = names.iter().map(|name| restarts(&d, name) + 1).sum();
    let each = (used(&d) - before) / all as f64;
    assert!(
        each <= STARTS * start,
        "{each:.3} s of the processor for each of {all} restarts, {start:.3} s for a start by hand"
    );
    calls::exec(&d, "calm", &["true"]);
    for (n, name) in names.iter().enumerate() {
        let verb = if n % 2 == 0 { "stop" } else { "kill" };
        let answer = d.http("POST", &format!("/containers/{name}/{verb}"), "");
        // One that waits for its restart has no process to be killed; then it is stopped.
        if answer.status != 204 {
            let _ = d.http("POST", &format!("/containers/{name}/stop"), "").expect(204);
        }
        assert!(eventually(PATIENCE, || calls::state(&d, name).0 == "exited"), "{:?}", calls::state(&d, name));
        assert_eq!(calls::inspect(&d, name)["State"]["Restarting"], false);
    }
    assert!(calls::unbroken(&calls::log(&d, "calm")) > 0);
    d.finish();
}

/// Monitors that have no container yet: children of the daemon that are no parents.
fn spares(d: &Daemon) -> Vec<u32> {
    let all = process::all();
    let parents: Vec<u32> = all.iter().filter_map(|pid| process::parent(*pid)).collect();
    let is_spare = |pid: &u32| process::parent(*pid) == Some(d.pid()) && !parents.contains(pid);
    all.iter().copied().filter(is_spare).collect()
}

/// Monitors that wait for a container end with the program that has made them, and the next one makes its own.
#[test]
fn monitors_that_wait_end_with_their_daemon() {
    let mut d = with_busybox();
    let body = calls::script("sleep 1000");
    let had_spares = |d: &Daemon| {
        assert!(eventually(PATIENCE, || !spares(d).is_empty()), "none was made ahead");
        spares(d)
    };
    calls::run(&d, "first", &body);
    let first = calls::run_of(&d, "first");
    let old = had_spares(&d);
    let mut upgrade = d.namespaces().command(places::gantryd());
    upgrade.arg("upgrade").arg(places::gantryd()).arg("--exec-root").arg(d.exec_root()).args(["--config-file", ""]);
    assert_eq!(testkit::command::run(&mut upgrade, b"").code, 0);
    // They are reaped as well: the process that has made them lives on.
    assert!(eventually(PATIENCE, || old.iter().all(|pid| process::state(*pid).is_none())), "{old:?} are left");
    calls::run(&d, "second", &body);
    let old = had_spares(&d);
    d.kill9();
    assert!(eventually(PATIENCE, || old.iter().all(|pid| !process::alive(*pid))), "{old:?} are left");
    d.again();
    calls::run(&d, "third", &body);
    // A spare that somebody kills is no monitor for anybody.
    for pid in had_spares(&d) {
        assert!(process::signal(pid, Signal::KILL));
        assert!(eventually(PATIENCE, || !process::alive(pid)));
    }
    calls::run(&d, "fourth", &body);
    assert_eq!(calls::run_of(&d, "first"), first);
    d.finish();
}
