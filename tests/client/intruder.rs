//! Containers whose root lies in wait for whatever comes into their PID namespace: nothing of the host is to be had from an
//! exec or from a start that shares the namespace, and whoever is stopped or killed there holds nobody else up.

use std::path::{Path, PathBuf};

use serde_json::json;
use testkit::images::{Tar, busybox_tar, docker_archive};
use testkit::{Daemon, places, soak};

use crate::eventually;

/// A daemon with the image `intruder`: busybox and the program that lies in wait.
fn with_intruder() -> Daemon {
    let d = Daemon::start();
    let program = std::fs::read(places::program("gantry-intruder")).unwrap();
    let layer = Tar::new().file("intruder", 0o755, &program).bytes();
    d.load(&docker_archive(
        "intruder:latest",
        &[busybox_tar(), layer],
        &json!({"Cmd": ["sh"], "Env": ["PATH=/bin:/usr/bin"]}),
    ));
    d
}

/// A directory of the host's disk that no container has: what can be reached there is the host.
fn sign() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("sign-of-the-host-").tempdir_in("/tmp").unwrap()
}

fn watch(d: &Daemon, name: &str, sign: &Path, more: &[&str]) {
    let (sign, secret) = (sign.display().to_string(), d.data_root().display().to_string());
    let words = ["run", "-d", "--name", name, "--cap-add", "SYS_PTRACE"];
    let words = [&words[..], more, &["intruder", "/intruder", "watch", &sign, &secret]].concat();
    let _ = d.docker(&words).ok();
    assert!(eventually(|| seen(d, name, "ready") == 1));
}

fn lie_in_wait(d: &Daemon, name: &str, how: &str) {
    let _ = d.docker(&["run", "-d", "--name", name, "intruder", "/intruder", how]).ok();
    assert!(eventually(|| seen(d, name, "ready") == 1));
}

/// Lines of a container's output that begin like this.
fn seen(d: &Daemon, name: &str, word: &str) -> usize {
    d.docker(&["logs", name]).stdout.lines().filter(|line| line.starts_with(word)).count()
}

/// How many newcomers were looked at, none of which showed anything.
#[track_caller]
fn nothing_found(d: &Daemon, name: &str, sign: &Path) -> usize {
    let log = d.docker(&["logs", name]).stdout;
    let leaks: Vec<&str> = log.lines().filter(|line| line.starts_with("LEAK")).collect();
    assert!(
        leaks.is_empty(),
        "{} in {} looks: {:?}",
        leaks.len(),
        seen(d, name, "seen"),
        &leaks[..leaks.len().min(20)]
    );
    let made: Vec<PathBuf> = std::fs::read_dir(sign).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(made.is_empty(), "made on the host: {made:?}");
    seen(d, name, "seen")
}

#[test]
fn an_exec_shows_nothing_of_the_host() {
    let d = with_intruder();
    let sign = sign();
    watch(&d, "c1", sign.path(), &[]);
    let rounds = soak::rounds(60, 1000);
    for n in 0..rounds {
        match n % 6 {
            0 => drop(d.pty(&["exec", "-it", "c1", "true"]).end()),
            1 => drop(d.docker(&["exec", "-u", "1000:1000", "-w", "/tmp", "c1", "true"]).ok()),
            2 => drop(d.docker(&["exec", "-d", "c1", "true"]).ok()),
            3 => drop(d.docker(&["exec", "--privileged", "c1", "true"]).ok()),
            4 => drop(d.docker(&["exec", "c1", "no-such-program"])),
            _ => drop(d.docker_input(&["exec", "-i", "c1", "true"], b"x").ok()),
        }
    }
    let looks = nothing_found(&d, "c1", sign.path());
    assert!(looks > 0, "the watcher saw none of {rounds}");
    let _ = d.docker(&["rm", "-f", "c1"]).ok();
    d.finish();
}

/// The same in a container that shares more with the host, or has all privileges.
#[test]
fn an_exec_shows_nothing_to_a_privileged_watcher_either() {
    let d = with_intruder();
    for more in [&["--privileged"][..], &["--network", "host", "--ipc", "host", "--uts", "host"], &["--init"]] {
        let sign = sign();
        watch(&d, "c1", sign.path(), more);
        let rounds = soak::rounds(15, 200);
        (0..rounds).for_each(|_| drop(d.docker(&["exec", "c1", "true"]).ok()));
        nothing_found(&d, "c1", sign.path());
        let _ = d.docker(&["rm", "-f", "c1"]).ok();
    }
    d.finish();
}

#[test]
fn a_start_in_a_shared_pid_namespace_shows_nothing_of_the_host() {
    let d = with_intruder();
    let sign = sign();
    watch(&d, "c1", sign.path(), &[]);
    let rounds = soak::rounds(15, 200);
    for n in 0..rounds {
        let run = ["run", "--rm", "--pid", "container:c1"];
        let what: &[&str] = if n % 2 == 0 { &["intruder", "true"] } else { &["-e", "A=b", "intruder", "false"] };
        let code = d.docker(&[&run[..], what].concat()).code;
        assert_eq!(code, i32::from(n % 2 != 0));
    }
    // An exec in the second container enters the same namespace.
    let sleep = ["run", "-d", "--name", "c2", "--pid", "container:c1", "intruder", "sleep", "1000"];
    let _ = d.docker(&sleep).ok();
    (0..rounds).for_each(|_| drop(d.docker(&["exec", "c2", "true"]).ok()));
    let looks = nothing_found(&d, "c1", sign.path());
    assert!(looks > 0, "the watcher saw nothing");
    // Last, since it reads what the watcher looks for from the watcher's arguments.
    let processes = d.docker(&["exec", "c2", "ps"]).text();
    assert!(processes.contains("/intruder watch") && processes.contains("sleep 1000"), "{processes}");
    let _ = d.docker(&["rm", "-f", "c2", "c1"]).ok();
    d.finish();
}

/// What is stopped or killed while it enters delays its own exec only: everything else about the container works, and the
/// exec is answered.
#[test]
fn who_is_stopped_or_killed_while_it_enters_holds_nobody_up() {
    for how in ["stop", "kill"] {
        let d = with_intruder();
        lie_in_wait(&d, "c1", how);
        let mut execs: Vec<_> = (0..3).map(|_| d.spawn(&["exec", "c1", "sleep", "1000"])).collect();
        assert!(eventually(|| seen(&d, "c1", "seen") > 0));
        assert_eq!(d.inspect("c1", "{{.State.Status}}"), "running");
        let _ = d.docker(&["pause", "c1"]).ok();
        let _ = d.docker(&["unpause", "c1"]).ok();
        // Neighbours know nothing of it.
        let _ = d.docker(&["run", "--rm", "intruder", "true"]).ok();
        let _ = d.docker(&["kill", "c1"]).ok();
        d.until("c1", "{{.State.Status}}", "exited");
        for exec in &mut execs {
            let _ = exec.end();
        }
        let _ = d.docker(&["rm", "c1"]).ok();
        d.finish();
    }
}

/// A shared PID namespace whose owner stops or kills what comes: the start fails or succeeds, and is answered.
#[test]
fn a_start_that_is_stopped_or_killed_is_answered() {
    for how in ["stop", "kill"] {
        let d = with_intruder();
        lie_in_wait(&d, "c1", how);
        let mut start = d.spawn(&["run", "--name", "c2", "--pid", "container:c1", "intruder", "sleep", "1000"]);
        assert!(eventually(|| seen(&d, "c1", "seen") > 0));
        assert_eq!(d.inspect("c1", "{{.State.Status}}"), "running");
        let _ = d.docker(&["kill", "c1"]).ok();
        let _ = start.end();
        let _ = d.docker(&["rm", "-f", "c2", "c1"]).ok();
        d.finish();
    }
}
