//! The init of containers as PID 1 of real PID namespaces. Needs root.
//!
//! The program runs itself as the init, so it has a main of its own.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitCode, Stdio};

const CASES: &[cases::Case] = &[
    ("exit_codes", exit_codes),
    ("signals_reach_the_program", signals_reach_the_program),
    ("orphans_are_reaped", orphans_are_reaped),
    ("programs_that_cannot_be_executed", programs_that_cannot_be_executed),
];

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|a| a == "init") {
        std::process::exit(runtime::init::main(&args[1..]));
    }
    cases::run(CASES, || ())
}

/// A program under the init, in a PID namespace of its own; no signal is ignored, whoever runs the tests.
fn start(args: &[&str]) -> Child {
    let own = std::env::current_exe().expect("the test's own program");
    let mut command = Command::new("env");
    command
        .args(["--default-signal", "unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child", "--"])
        .arg(own)
        .arg("init");
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("needs root and unshare")
}

fn finish(mut child: Child) -> (String, String, i32) {
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("output");
    child.stderr.take().expect("piped").read_to_string(&mut err).expect("errors");
    (out, err, child.wait().expect("our child").code().expect("an exit code"))
}

fn exit_codes() {
    assert_eq!(finish(start(&["--", "sh", "-c", "echo $$; exit 7"])), ("2\n".into(), String::new(), 7));
    assert_eq!(finish(start(&["sh", "-c", "kill -TERM $$"])).2, 143);
    assert_eq!(finish(start(&["true"])).2, 0);
    // The program finds its signals as it would without an init.
    let show = ["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"];
    let plain = Command::new("env").arg("--default-signal").args(show).output().expect("grep");
    assert_eq!(finish(start(&show)).0.as_bytes(), plain.stdout);
}

fn signals_reach_the_program() {
    let script = "trap 'echo usr1' USR1; trap 'echo term; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let mut child = start(&["--", "bash", "-c", script]);
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = || {
        let mut text = String::new();
        out.read_line(&mut text).expect("output");
        text
    };
    assert_eq!(line(), "up\n");
    // `unshare` waits for the init, its only child.
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let init: i32 = std::fs::read_to_string(children).expect("children").trim().parse().expect("one child");
    sys::signal::send(init, 10).expect("kill");
    assert_eq!(line(), "usr1\n");
    sys::signal::send(init, 15).expect("kill");
    assert_eq!(line(), "term\n");
    assert_eq!(child.wait().expect("our child").code(), Some(3));
}

fn orphans_are_reaped() {
    // An orphan that nobody reaps is there for ever, dead.
    let script = "for i in 1 2 3; do (sleep 0.1 & ) ; done; left() { cat /proc/[0-9]*/stat | grep '(sleep)'; }; n=0; \
                  while [ $n -lt 600 ] && left >/dev/null; do sleep 0.1; n=$((n+1)); done; left | wc -l";
    let (out, ..) = finish(start(&["--", "sh", "-c", script]));
    assert_eq!(out, "0\n");
}

fn programs_that_cannot_be_executed() {
    let (_, err, code) = finish(start(&["--", "no-such"]));
    assert_eq!(code, 127);
    assert!(err.starts_with("docker-init: exec no-such failed: No such file or directory"), "{err}");
    assert_eq!(finish(start(&["--", "/etc/passwd"])).2, 126);
    assert_eq!(finish(start(&["--"])).2, 1);
}
