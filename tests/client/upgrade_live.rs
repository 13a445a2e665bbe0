//! `gantryd upgrade`: another executable goes on in the same process; who runs, logs or is attached does not notice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use testkit::command::run;
use testkit::{Connection, Daemon, Output, places, soak};

use crate::{eventually, with_busybox};

/// Writes numbered lines.
const COUNTER: &str = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.05; done";

/// `gantryd upgrade` for this daemon.
fn upgrade(d: &Daemon, executable: &Path) -> Output {
    let mut command = d.namespaces().command(places::gantryd());
    command.arg("upgrade").arg(executable).arg("--exec-root").arg(d.exec_root()).args(["--config-file", ""]);
    run(&mut command, b"")
}

/// The executable that the daemon is.
fn executable(d: &Daemon) -> PathBuf {
    fs::read_link(format!("/proc/{}/exe", d.pid())).unwrap()
}

/// Another file with the same program.
fn copy(d: &Daemon, name: &str) -> PathBuf {
    let path = d.path(name);
    fs::copy(places::gantryd(), &path).unwrap();
    path
}

fn write_script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[track_caller]
fn processes(d: &Daemon) -> Vec<(String, i64)> {
    let list = d.http("GET", "/containers/json", "").expect(200).json();
    let pid =
        |id: &str| d.http("GET", &format!("/containers/{id}/json"), "").expect(200).json()["State"]["Pid"].clone();
    let ids = list.as_array().unwrap().iter().map(|container| container["Id"].as_str().unwrap().to_owned());
    let mut all: Vec<_> = ids.map(|id| (id.clone(), pid(&id).as_i64().unwrap())).collect();
    all.sort();
    all
}

/// The numbers of a log are whole.
#[track_caller]
fn is_whole(log: &str) -> usize {
    for (n, line) in log.lines().enumerate() {
        assert_eq!(line, format!("line {}", n + 1));
    }
    log.lines().count()
}

#[test]
fn nobody_notices_an_upgrade() {
    let containers = soak::rounds(6, 100);
    let d = with_busybox();
    for n in 0..containers {
        let _ = d.docker(&["run", "-d", "--name", &format!("c{n}"), "busybox", "sh", "-c", COUNTER]).ok();
    }
    let mut attached = d.connection();
    assert_eq!(attached.upgrade("/containers/c0/attach?stream=1&stdout=1", "").status, 101);
    let body = json!({"Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true, "Tty": true}).to_string();
    let exec = d.http("POST", "/containers/c1/exec", &body).expect(201).json()["Id"].as_str().unwrap().to_owned();
    let mut session = d.connection();
    assert_eq!(session.upgrade(&format!("/exec/{exec}/start"), r#"{"Tty":true}"#).status, 101);
    let mut follower = d.spawn(&["logs", "-f", "c2"]);
    follower.expect("line 2");
    let (before, pid) = (processes(&d), d.pid());
    let (is_over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let socket = d.socket();
    std::thread::scope(|scope| {
        // Whoever connects is answered, at once or when the next program serves.
        let pinging = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let mut client = Connection::open(&socket).expect("nobody is refused");
                let answer = client.try_request("GET", "/_ping", "");
                // One who was let in at the last moment may be sent away; that is no refusal, and he may come again.
                if answer.is_ok_and(|answer| answer.status == 200) {
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        for round in 0..2 {
            let next = copy(&d, &format!("next{round}"));
            let done = upgrade(&d, &next);
            assert_eq!(done.code, 0, "{done:?}\n{}", d.log());
            assert_eq!(executable(&d), next);
        }
        let so_far = asked.load(Ordering::Relaxed);
        let goes_on = eventually(|| asked.load(Ordering::Relaxed) > so_far + 2);
        is_over.store(true, Ordering::Relaxed);
        pinging.join().unwrap();
        assert!(goes_on);
    });
    assert_eq!((processes(&d), d.pid()), (before, pid));
    assert_eq!(fs::read_to_string(d.path("pid")).unwrap().trim(), pid.to_string());
    // The streams that monitors carry go on.
    session.send(b"still here\n").unwrap();
    let mut echo = String::new();
    while !echo.contains("still here") {
        echo.push_str(&String::from_utf8_lossy(&session.exactly(1).unwrap()));
    }
    // Their sessions are known to each daemon.
    let known = d.http("GET", &format!("/exec/{exec}/json"), "").expect(200).json();
    assert_eq!((&known["Running"], &known["ProcessConfig"]["entrypoint"]), (&json!(true), &json!("cat")));
    let _ = d.http("POST", &format!("/exec/{exec}/resize?h=10&w=20"), "").expect(200);
    let seen = d.docker(&["logs", "c0"]).ok().stdout.lines().count();
    let wanted = format!("line {}", seen + 2);
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains(&wanted) {
        shown.extend(attached.exactly(1).unwrap());
    }
    // What the daemon carried itself has ended, and can be begun anew.
    assert!(follower.wait(testkit::command::PATIENCE).is_some(), "a follower ends");
    for n in 0..containers {
        let log = d.docker(&["logs", &format!("c{n}")]).ok().stdout;
        assert!(is_whole(&log) > 0);
    }
    drop((session, attached, follower));
    d.finish();
}

/// What cannot take over is refused before anything is touched.
#[test]
fn what_cannot_take_over_is_refused() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "busybox", "sleep", "1000"]).ok();
    let (before, own) = (processes(&d), executable(&d));
    upgrade(&d, Path::new("/nonexistent")).fails(1, "/nonexistent");
    upgrade(&d, Path::new("/bin/true")).fails(1, "is no gantryd, or one that is too old to take over");
    let gantryd = places::gantryd();
    let gantryd = gantryd.display();
    let formats = run(std::process::Command::new(places::gantryd()).arg("formats"), b"").text();
    let formats: Value = serde_json::from_str(&formats).unwrap();
    for name in formats.as_object().unwrap().keys() {
        let mut older = formats.clone();
        older[name] = json!(older[name].as_u64().unwrap() - 1);
        let script = d.path("older");
        write_script(&script, &format!("#!/bin/sh\n[ \"$1\" = formats ] && echo '{older}'\n"));
        upgrade(&d, &script).fails(1, &format!("is too old: the running daemon has {name} in version"));
    }
    let script = d.path("picky");
    let text =
        format!("#!/bin/sh\n[ \"$1\" = formats ] && exec {gantryd} formats\necho 'unknown flag: --x' >&2\nexit 1\n");
    write_script(&script, &text);
    upgrade(&d, &script).fails(1, "does not accept the daemon's configuration: unknown flag: --x");
    assert_eq!((processes(&d), executable(&d)), (before, own));
    d.finish();
}

/// A program that cannot be executed after all: the one that runs goes on.
#[test]
fn a_program_that_cannot_be_executed_changes_nothing() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "busybox", "sleep", "1000"]).ok();
    let (before, pid) = (processes(&d), d.pid());
    let (shell, script) = (d.path("shell"), d.path("broken"));
    std::os::unix::fs::symlink("/bin/sh", &shell).unwrap();
    let text = format!(
        "#!{shell}\n[ \"$1\" = formats ] && exec {gantryd} formats\nrm {shell}\n",
        shell = shell.display(),
        gantryd = places::gantryd().display()
    );
    write_script(&script, &text);
    upgrade(&d, &script).fails(1, "could not start, as the daemon's log tells");
    assert_eq!((processes(&d), d.pid()), (before, pid));
    let next = copy(&d, "next");
    assert_eq!(upgrade(&d, &next).code, 0);
    assert_eq!(executable(&d), next);
    d.finish();
}
