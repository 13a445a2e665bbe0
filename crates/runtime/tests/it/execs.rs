//! Further processes in a running container.

use std::fs::File;
use std::io::{Read, Write};

use runtime::oci::NamespaceKind as K;
use runtime::{Process, Runtime, Scope, Stage, Stdio, What, oci};

use crate::Case;
use crate::fixture::{Container, Pipes, kill, wait};

pub const CASES: &[Case] = &[
    ("execs::joins_everything", joins_everything),
    ("execs::exit_codes_and_input", exit_codes_and_input),
    ("execs::errors", errors),
    ("execs::users_and_capabilities", users_and_capabilities),
    ("execs::terminal", terminal),
    ("execs::after_the_end", after_the_end),
    ("execs::host_pid_namespace", host_pid_namespace),
    ("execs::pause_and_resume", pause_and_resume),
    ("execs::signal_to_all", signal_to_all),
    ("execs::cleanup_kills", cleanup_kills),
];

/// A container that has said that it is up.
pub fn running(container: &Container) -> (Process, Pipes) {
    let (init, pipes) = container.start().expect("start");
    assert_eq!(pipes.line(), "up\n");
    (init, pipes)
}

pub const IDLE: &str = "echo up; exec sleep 1000";

fn joins_everything() {
    let container = Container::sh(IDLE);
    let (init, _pipes) = running(&container);
    let names = ["mnt", "net", "uts", "pid", "ipc", "cgroup", "time"];
    let script = format!("for n in {}; do readlink /proc/self/ns/$n; done", names.join(" "));
    let out = container.exec_args(&init, &["sh", "-c", &script]).unwrap().stdout;
    let theirs = names.map(|n| std::fs::read_link(format!("/proc/{}/ns/{n}", init.pid)).unwrap().display().to_string());
    assert_eq!(out.lines().collect::<Vec<_>>(), theirs);
    let own = container.exec_args(&init, &["cat", "/proc/self/cgroup"]).unwrap().stdout;
    let init_groups = container.exec_args(&init, &["cat", "/proc/1/cgroup"]).unwrap().stdout;
    assert_eq!(own, init_groups);
    let list = container.exec_args(&init, &["sh", "-c", "ls /proc/self/fd"]).unwrap().stdout;
    assert_eq!(list, "0\n1\n2\n3\n", "3 is ls reading the directory");
    kill(&init);
}

fn exit_codes_and_input() {
    let container = Container::sh(IDLE);
    let (init, _pipes) = running(&container);
    assert_eq!(container.exec_args(&init, &["sh", "-c", "exit 7"]).unwrap().code, 7);
    assert_eq!(container.exec_args(&init, &["sh", "-c", "kill -TERM $$"]).unwrap().code, 128 + 15);
    let (io, mut pipes) = Pipes::new();
    let process = oci::Process { args: vec!["cat".into()], ..container.bundle.spec.process.clone() };
    let p = container.enter(&init, &process, io).unwrap();
    pipes.write("z\n");
    assert_eq!(pipes.finish(&p).stdout, "z\n");
    let p = container.enter(&init, &process, Stdio::default()).unwrap();
    assert_eq!(wait(&p), 0, "missing streams are the null device");
    kill(&init);
}

fn errors() {
    let container = Container::sh(IDLE);
    let (init, _pipes) = running(&container);
    let (error, code) = container.exec_args(&init, &["/nope"]).unwrap_err().to_error(What::Exec);
    assert_eq!(
        error.message(),
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"/nope\": stat /nope: no such file or directory: unknown"
    );
    assert_eq!(code, 127);
    let mut process = oci::Process { args: vec!["true".into()], ..container.bundle.spec.process.clone() };
    process.cwd = "/missing".into();
    let error = container.exec(&init, &process).unwrap_err();
    assert!(matches!(error.stage, Stage::Cwd { .. }), "{error:?}");
    process.cwd = "/".into();
    process.user.username = Some("nouser".into());
    let (error, _) = container.exec(&init, &process).unwrap_err().to_error(What::Exec);
    assert_eq!(error.message(), "unable to find user nouser: no matching entries in passwd file");
    kill(&init);
}

fn users_and_capabilities() {
    let container = Container::sh(IDLE);
    let (init, _pipes) = running(&container);
    let script = "id -u; id -G; grep CapEff /proc/self/status; echo $HOME";
    let mut process = oci::Process {
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        ..container.bundle.spec.process.clone()
    };
    assert_eq!(container.exec(&init, &process).unwrap().stdout, "0\n0 10\nCapEff:\t00000000a80425fb\n/root\n");
    process.user.username = Some("web".into());
    assert_eq!(container.exec(&init, &process).unwrap().stdout, "1000\n1001 1002\nCapEff:\t0000000000000000\n/srv\n");
    kill(&init);
}

fn terminal() {
    let container = Container::sh(IDLE);
    let (init, _pipes) = running(&container);
    let script = "tty; stty size; read x; echo got $x";
    let process = oci::Process {
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        terminal: true,
        console_size: Some(oci::ConsoleSize { height: 10, width: 20 }),
        ..container.bundle.spec.process.clone()
    };
    let p = container.enter(&init, &process, Stdio::default()).unwrap();
    let mut master = File::from(p.console.as_ref().expect("console").try_clone().unwrap());
    master.write_all(b"x\n").unwrap();
    let mut out = Vec::new();
    let _ = master.read_to_end(&mut out);
    let out = String::from_utf8_lossy(&out).replace('\r', "");
    // Where the echo of the input lands depends on who is quicker.
    for expected in ["x\n", "/dev/pts/0\n", "10 20\n", "got x\n"] {
        assert!(out.contains(expected), "{out:?}");
    }
    assert_eq!(wait(&p), 0);
    kill(&init);
}

fn after_the_end() {
    let container = Container::sh("echo up");
    let (init, _pipes) = running(&container);
    wait(&init);
    let error = container.exec_args(&init, &["true"]).unwrap_err();
    assert_eq!(error.stage, Stage::NotRunning, "{error:?}");
    let (error, _) = error.to_error(What::Exec);
    assert_eq!(error.kind(), model::Kind::Conflict);
}

fn host_pid_namespace() {
    let mut container = Container::sh(IDLE);
    container.drop_namespace(K::Pid);
    let (init, _pipes) = running(&container);
    let out = container.exec_args(&init, &["readlink", "/proc/self/ns/pid"]).unwrap().stdout;
    assert_eq!(out.trim(), std::fs::read_link("/proc/self/ns/pid").unwrap().to_str().unwrap());
    kill(&init);
}

fn pause_and_resume() {
    let container = Container::sh("echo up; while :; do echo tick; sleep 0.01; done");
    let (init, pipes) = container.start().unwrap();
    pipes.line();
    container.runtime.pause(&container.bundle).unwrap();
    let cgroup = runtime::builtin::cgroup(&container.bundle).unwrap();
    assert!(cgroup.is_frozen());
    container.runtime.resume(&container.bundle).unwrap();
    assert!(!cgroup.is_frozen());
    // A frozen container can be cleaned away.
    container.runtime.pause(&container.bundle).unwrap();
    container.runtime.cleanup(&container.bundle).unwrap();
    assert_eq!(wait(&init), 128 + 9);
    assert!(!cgroup.exists());
}

fn signal_to_all() {
    let mut container = Container::sh("trap '' TERM; sleep 1000 & echo up; wait; echo end; sleep 1000");
    container.drop_namespace(K::Pid);
    let (init, pipes) = running(&container);
    container.runtime.kill(&container.bundle, &init, 15, Scope::All).unwrap();
    container.runtime.kill(&container.bundle, &init, 9, Scope::All).unwrap();
    assert_eq!(wait(&init), 128 + 9);
    drop(pipes);
}

fn cleanup_kills() {
    let mut container = Container::sh("for i in 1 2 3; do sleep 1000 & done; echo up; exec sleep 1000");
    // Without a PID namespace the children outlive the first process.
    container.drop_namespace(K::Pid);
    let (init, _pipes) = running(&container);
    kill(&init);
    let cgroup = runtime::builtin::cgroup(&container.bundle).unwrap();
    assert_eq!(cgroup.processes().unwrap().len(), 3);
    container.runtime.cleanup(&container.bundle).unwrap();
    assert!(!cgroup.exists());
    container.runtime.cleanup(&container.bundle).unwrap();
}
