//! The control socket and the commands of `gantryd` that use it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use testkit::command::run;
use testkit::{Daemon, Output, places};

use crate::with_busybox;

/// A command of `gantryd` about this daemon.
fn gantryd(d: &Daemon, words: &[&str]) -> Output {
    let exec_root = d.exec_root().display().to_string();
    let options = ["--exec-root", &exec_root, "--config-file", ""];
    run(Command::new(places::gantryd()).args(words).args(options), b"")
}

#[test]
fn images_why_names_what_keeps_an_image() {
    let d = with_busybox();
    let id = d.docker(&["image", "inspect", "-f", "{{.Id}}", "busybox"]).text();
    let _ = d.docker(&["tag", "busybox", "localhost:5000/other:2"]).ok();
    let _ = d.docker(&["create", "--name", "web", "busybox", "true"]).ok();
    let whole = gantryd(&d, &["images", "why", "busybox"]).text();
    for wanted in [
        &id,
        "it has the name busybox:latest",
        "it has the name localhost:5000/other:2",
        "container web (",
        "created) is made of it",
    ] {
        assert!(whole.contains(wanted), "{wanted} in {whole}");
    }
    let layer = d.docker(&["image", "inspect", "-f", "{{index .RootFS.Layers 0}}", "busybox"]).text();
    let part = gantryd(&d, &["images", "why", &layer]).text();
    assert!(part.contains(&id) && part.contains(&format!("layer {layer} (linux/")), "{part}");
    let json = gantryd(&d, &["images", "why", "--json", "busybox"]).text();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["images"][0]["id"], id);
    gantryd(&d, &["images", "why", "nosuch"]).fails(1, "No such image: nosuch:latest");
}

#[test]
fn commands_say_what_is_wrong_with_them() {
    let d = Daemon::start();
    gantryd(&d, &["images"]).fails(1, "no such command");
    gantryd(&d, &["images", "why"]).fails(1, "0 operands were given, 1 are needed");
    gantryd(&d, &["images", "why", "x", "--nosuch"]).fails(1, "unknown flag: --nosuch");
    assert!(gantryd(&d, &["images", "why", "--help"]).text().contains("images why [--json] IMAGE"));
    let nobody = d.path("nobody").display().to_string();
    let elsewhere = ["images", "why", "x", "--config-file=", "--exec-root", &nobody];
    run(Command::new(places::gantryd()).args(elsewhere), b"").fails(1, "control.sock: none is running there");
}

#[test]
fn the_control_socket_serves_root_alone() {
    let mut d = Daemon::start();
    let socket = d.exec_root().join("control.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o7777, 0o600);
    std::fs::set_permissions(d.path(""), Permissions::from_mode(0o755)).unwrap();
    let as_nobody = |words: &[&str]| {
        let exec_root = d.exec_root().display().to_string();
        let identity = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let mut command = Command::new("setpriv");
        let copy = d.path("gantryd");
        // By another program: a process that is started meanwhile would inherit the open copy, which is busy then.
        let _ = run(Command::new("cp").arg(places::gantryd()).arg(&copy), b"").ok();
        command.args(identity).arg(copy).args(words).args(["--config-file=", "--exec-root", &exec_root]);
        run(&mut command, b"")
    };
    as_nobody(&["images", "why", "x"]).fails(1, "only root may");
    // A mode that somebody widened lets nobody in either.
    std::fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    as_nobody(&["images", "why", "x"]).fails(1, "ended the connection");
    assert!(d.log().contains("refused on the control socket"), "{}", d.log());
    std::fs::remove_file(d.path("gantryd")).unwrap();
    d.stop();
    assert!(!socket.exists());
    d.boot().unwrap();
    d.kill9();
    assert!(socket.exists());
    d.boot().unwrap();
    gantryd(&d, &["images", "why", "nosuch"]).fails(1, "No such image");
}
