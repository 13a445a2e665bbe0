//! `docker exec`: output, stdin, terminals, users, exit codes.

use std::time::Duration;

use testkit::http::stream_text;

use crate::{eventually, with_busybox};

fn with_web() -> testkit::Daemon {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "web", "busybox", "sleep", "1000"]).ok();
    d
}

#[test]
fn output_input_and_codes() {
    let d = with_web();
    assert!(d.docker(&["exec", "web", "ls", "/"]).text().contains("etc"));
    assert_eq!(d.docker_input(&["exec", "-i", "web", "cat"], b"z\n").ok().stdout, "z\n");
    assert_eq!(d.docker(&["exec", "web", "sh", "-c", "exit 7"]).code, 7);
    assert_eq!(d.docker(&["exec", "web", "sh", "-c", "echo o; echo e >&2"]).ok().stderr, "e\n");
    assert_eq!(d.docker(&["exec", "web", "sh", "-c", "kill -9 $$"]).code, 137);
    d.finish();
}

#[test]
fn a_missing_program() {
    let d = with_web();
    let output = d.docker(&["exec", "web", "nosuch"]);
    assert!(matches!(output.code, 126 | 127), "{output:?}");
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains(r#"OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuch": executable file not found in $PATH"#), "{said}");
    d.finish();
}

#[test]
fn users_directories_and_variables() {
    let d = with_web();
    assert_eq!(d.docker(&["exec", "-u", "daemon", "web", "id", "-un"]).text(), "daemon");
    assert_eq!(d.docker(&["exec", "-w", "/etc", "web", "pwd"]).text(), "/etc");
    assert_eq!(d.docker(&["exec", "-e", "X=1", "web", "sh", "-c", "echo $X$HOME"]).text(), "1/root");
    let output = d.docker(&["exec", "-u", "nosuch", "web", "true"]);
    assert_ne!(output.code, 0);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains("unable to find user nosuch: no matching entries in passwd file"), "{said}");
    let output = d.docker(&["exec", "-w", "/nosuch", "web", "true"]);
    assert_ne!(output.code, 0, "{output:?}");
    d.finish();
}

#[test]
fn the_container_must_run() {
    let d = with_web();
    let _ = d.docker(&["stop", "-t", "0", "web"]).ok();
    d.docker(&["exec", "web", "true"]).fails(1, "is not running");
    d.docker(&["exec", "nosuch", "true"]).fails(1, "No such container: nosuch");
    d.finish();
}

#[test]
fn in_a_terminal() {
    let d = with_web();
    let mut terminal = d.pty(&["exec", "-it", "web", "sh"]);
    terminal.expect("#");
    terminal.type_keys("tty; stty size\r");
    terminal.expect("/dev/pts/");
    terminal.expect("24 80");
    terminal.resize(40, 120);
    let resized = eventually(|| {
        terminal.type_keys("stty size\r");
        std::thread::sleep(Duration::from_millis(200));
        terminal.screen().contains("40 120")
    });
    assert!(resized, "{}", terminal.screen());
    terminal.type_keys("exit 5\r");
    assert_eq!(terminal.end(), 5);
    d.finish();
}

#[test]
fn detached_exec_goes_on_and_ends_with_the_container() {
    let d = with_web();
    let _ = d.docker(&["exec", "-d", "web", "sh", "-c", "echo made > /tmp/f; sleep 500"]).ok();
    assert!(eventually(|| d.docker(&["exec", "web", "cat", "/tmp/f"]).stdout == "made\n"));
    assert!(d.docker(&["exec", "web", "ps"]).text().contains("sleep 500"));
    d.finish();
}

#[test]
fn over_the_api() {
    let d = with_web();
    let mut connection = d.connection();
    let create = connection.request(
        "POST",
        "/containers/web/exec",
        r#"{"Cmd":["sh","-c","echo o; exit 3"],"AttachStdout":true}"#,
    );
    let id = create.expect(201).json()["Id"].as_str().unwrap().to_string();
    let before = connection.request("GET", &format!("/exec/{id}/json"), "").expect(200).json();
    assert_eq!((before["Running"].as_bool(), before["ExitCode"].is_null()), (Some(false), true));
    let mut stream = d.connection();
    let head = stream.upgrade(&format!("/exec/{id}/start"), r#"{"Detach":false,"Tty":false}"#);
    assert_eq!((head.status, head.reason.as_str()), (101, "UPGRADED"));
    assert_eq!(head.header("Content-Type"), Some("application/vnd.docker.multiplexed-stream"));
    assert_eq!(stream_text(&stream.rest().unwrap(), 1), "o\n");
    let mut after = serde_json::Value::Null;
    eventually(|| {
        after = connection.request("GET", &format!("/exec/{id}/json"), "").expect(200).json();
        after["Running"] == false
    });
    assert_eq!((after["Running"].as_bool(), after["ExitCode"].as_i64()), (Some(false), Some(3)));
    assert_eq!(
        connection.request("POST", "/containers/web/exec", "{}").expect(400).message(),
        "No exec command specified"
    );
    assert_eq!(connection.request("GET", "/exec/zz/json", "").expect(404).message(), "No such exec instance: zz");
    d.finish();
}

#[test]
fn many_at_once() {
    let d = with_web();
    let mut running: Vec<_> = (0..20).map(|n| d.spawn(&["exec", "web", "sh", "-c", &format!("echo {n}")])).collect();
    for (n, one) in running.iter_mut().enumerate() {
        assert_eq!(one.end().ok().stdout, format!("{n}\n"));
    }
    d.finish();
}

#[test]
fn exec_shares_the_containers_namespaces_and_limits() {
    let d = with_web();
    let script = "for n in mnt uts ipc net pid cgroup; do [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo $n differs; done; grep -E 'CapEff|Seccomp:' /proc/self/status";
    let output = d.docker(&["exec", "web", "sh", "-c", script]).text();
    assert!(!output.contains("differs"), "{output}");
    assert!(output.contains("00000000a80425fb") && output.contains("Seccomp:\t2"), "{output}");
    let output = d.docker(&["exec", "--privileged", "web", "grep", "CapEff", "/proc/self/status"]).text();
    assert!(!output.contains("00000000a80425fb"), "{output}");
    d.finish();
}

#[test]
fn a_terminal_has_the_size_it_was_created_with() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c1", "busybox", "sleep", "1000"]).ok();
    for (file, start, expected) in [
        ("created", r#"{"Detach":true,"Tty":true}"#, "7 8"),
        ("started", r#"{"Detach":true,"Tty":true,"ConsoleSize":[9,10]}"#, "9 10"),
    ] {
        let session = format!(r#"{{"Cmd":["sh","-c","stty size > /{file}"],"Tty":true,"ConsoleSize":[7,8]}}"#);
        let id = d.http("POST", "/containers/c1/exec", &session).expect(201).json()["Id"].as_str().unwrap().to_owned();
        let _ = d.http("POST", &format!("/exec/{id}/start"), start).expect(200);
        assert!(
            eventually(|| d.docker(&["exec", "c1", "cat", &format!("/{file}")]).stdout.trim() == expected),
            "{file}"
        );
    }
    d.finish();
}

/// Makes a session that runs `sleep` in the container; its id.
fn sleeping(d: &testkit::Daemon, container: &str, seconds: &str) -> String {
    let body = format!(r#"{{"Cmd":["sleep","{seconds}"],"Tty":true}}"#);
    let made = d.http("POST", &format!("/containers/{container}/exec"), &body).expect(201).json();
    made["Id"].as_str().unwrap().to_owned()
}

fn started(d: &testkit::Daemon, id: &str) -> testkit::http::Response {
    d.http("POST", &format!("/exec/{id}/start"), r#"{"Detach":true}"#)
}

fn resized(d: &testkit::Daemon, id: &str) -> testkit::http::Response {
    d.http("POST", &format!("/exec/{id}/resize?h=10&w=20"), "")
}

#[track_caller]
fn is_gone(d: &testkit::Daemon, id: &str) {
    let text = format!("No such exec instance: {id}");
    assert_eq!(d.http("GET", &format!("/exec/{id}/json"), "").expect(404).message(), text);
    assert_eq!(started(d, id).expect(404).message(), text);
    assert_eq!(resized(d, id).expect(404).message(), text);
}

#[test]
fn a_session_is_gone_with_the_run_it_was_made_in() {
    let d = with_web();
    for end in [&["stop", "-t", "0", "web"][..], &["kill", "web"], &["restart", "-t", "0", "web"]] {
        let id = sleeping(&d, "web", "1000");
        let _ = d.docker(end).ok();
        is_gone(&d, &id);
        let _ = d.docker(&["start", "web"]).ok();
        is_gone(&d, &id);
    }
    let id = sleeping(&d, "web", "1000");
    let _ = d.docker(&["rm", "-f", "web"]).ok();
    is_gone(&d, &id);
    d.finish();
}

#[test]
fn a_session_that_ended_with_its_run_tells_of_its_end() {
    let d = with_web();
    let container = d.inspect("web", "{{.Id}}");
    let (running, ended) = (sleeping(&d, "web", "1000"), sleeping(&d, "web", "0"));
    let _ = started(&d, &running).expect(200);
    let _ = started(&d, &ended).expect(200);
    let seen = |id: &str| d.http("GET", &format!("/exec/{id}/json"), "").expect(200).json();
    assert!(eventually(|| seen(&ended)["Running"] == false));
    let _ = resized(&d, &running).expect(200);
    let gone = format!("process does not exist {ended}: not found");
    assert_eq!(resized(&d, &ended).expect(404).message(), gone);
    let _ = d.docker(&["stop", "-t", "0", "web"]).ok();
    for (id, code) in [(&running, 137), (&ended, 0)] {
        assert_eq!(seen(id)["ExitCode"], code);
        let text = format!("container {container} is not running");
        assert_eq!(started(&d, id).expect(409).message(), text);
        assert_eq!(resized(&d, id).expect(409).message(), text);
    }
    let _ = d.docker(&["start", "web"]).ok();
    for (id, code) in [(&running, 137), (&ended, 0)] {
        assert_eq!(seen(id)["ExitCode"], code);
        assert_eq!(started(&d, id).expect(409).message(), format!("Error: Exec command {id} has already run"));
        let _ = resized(&d, id).expect(404);
    }
    d.finish();
}

#[test]
fn a_session_waits_for_the_end_of_a_pause() {
    let d = with_web();
    let id = sleeping(&d, "web", "1000");
    let _ = d.docker(&["pause", "web"]).ok();
    let text = format!("Container {} is paused, unpause the container before exec", d.inspect("web", "{{.Id}}"));
    assert_eq!(started(&d, &id).expect(409).message(), text);
    assert_eq!(resized(&d, &id).expect(409).message(), text);
    assert_eq!(d.http("GET", &format!("/exec/{id}/json"), "").expect(200).json()["Running"], false);
    let _ = d.docker(&["unpause", "web"]).ok();
    let _ = started(&d, &id).expect(200);
    let _ = resized(&d, &id).expect(200);
    d.finish();
}

#[test]
fn sessions_of_a_container_that_restarts() {
    let d = with_busybox();
    let script = "while [ ! -e /end ]; do sleep 0.1; done; exit 1";
    let _ = d.docker(&["run", "-d", "--name", "c1", "--restart", "always", "busybox", "sh", "-c", script]).ok();
    let (created, ended) = (sleeping(&d, "c1", "1000"), sleeping(&d, "c1", "0"));
    let _ = started(&d, &ended).expect(200);
    let _ = d.docker(&["exec", "c1", "touch", "/end"]).ok();
    assert!(eventually(|| d.inspect("c1", "{{.RestartCount}}") != "0"));
    is_gone(&d, &created);
    // It runs for a moment after every pause, and the pauses grow.
    assert!(eventually(|| started(&d, &ended).expect(409).message().contains("is restarting, wait until")));
    assert!(eventually(|| resized(&d, &ended).message().contains("is restarting, wait until")));
    assert_eq!(d.http("GET", &format!("/exec/{ended}/json"), "").expect(200).json()["ExitCode"], 0);
    d.finish();
}

#[test]
fn an_empty_home_is_filled_in() {
    let d = with_web();
    let _ = d.docker(&["run", "-d", "--name", "empty", "-e", "HOME=", "busybox", "sleep", "1000"]).ok();
    let home = |words: &[&str]| {
        let output = d.docker(words).text();
        let homes: Vec<_> = output.lines().filter_map(|line| line.strip_prefix("HOME=")).collect();
        homes.join(" ")
    };
    let exec = ["exec", "-e", "HOME="];
    assert_eq!(home(&[&exec[..], &["web", "env"]].concat()), "/root");
    assert_eq!(home(&[&exec[..], &["-u", "daemon", "web", "env"]].concat()), "/usr/sbin");
    assert_eq!(home(&[&exec[..], &["-u", "12345", "web", "env"]].concat()), "/");
    assert_eq!(home(&[&exec[..], &["-e", "HOME=/b", "web", "env"]].concat()), "/b");
    assert_eq!(home(&["exec", "-e", "HOME=/b", "-e", "HOME=", "web", "env"]), "/root");
    assert_eq!(home(&["exec", "empty", "env"]), "/root");
    assert_eq!(home(&["run", "--rm", "-e", "HOME=", "busybox", "env"]), "/root");
    assert_eq!(home(&["run", "--rm", "-e", "HOME=", "-u", "daemon", "busybox", "env"]), "/usr/sbin");
    assert_eq!(home(&["run", "--rm", "-e", "HOME=", "-u", "12345", "busybox", "env"]), "/");
    assert_eq!(home(&["run", "--rm", "-e", "HOME=/b", "busybox", "env"]), "/b");
    d.finish();
}

/// As many as a monitor tells a next daemon of, and no more; who is refused may try again.
#[test]
fn sessions_that_run_at_once_are_limited() {
    const LIMIT: usize = 511;
    let mut d = with_web();
    let mut connection = d.connection();
    let mut make = || {
        let made = connection.request("POST", "/containers/web/exec", r#"{"Cmd":["sleep","1000"]}"#).expect(201).json();
        made["Id"].as_str().unwrap().to_owned()
    };
    let all: Vec<String> = (0..LIMIT).map(|_| make()).collect();
    all.iter().for_each(|id| drop(started(&d, id).expect(200)));
    let more = make();
    let refused = started(&d, &more).expect(409).message();
    assert!(refused.contains("runs 511 exec instances, which is the limit"), "{refused}");
    let pid = d.http("GET", &format!("/exec/{}/json", all[7]), "").expect(200).json()["Pid"].to_string();
    let _ = d.exec_inside(&["kill", "-9", &pid]).ok();
    assert!(eventually(|| started(&d, &more).status == 200));
    // The next daemon counts those of the last.
    d.crash();
    let other = sleeping(&d, "web", "1000");
    let refused = started(&d, &other).expect(409).message();
    assert!(refused.contains("which is the limit"), "{refused}");
    d.finish();
}

/// Who waits for a session over a daemon's death learns of its end from the next one, and events tell of it once, whether it
/// ended meanwhile or later.
#[test]
fn sessions_go_on_over_a_daemons_death() {
    let mut d = with_web();
    let script = |file: &str| format!("until [ -e /dev/shm/{file} ]; do sleep 0.05; done; exit 7");
    let make = |d: &testkit::Daemon, file: &str| {
        let body = serde_json::json!({"Cmd": ["sh", "-c", script(file)], "AttachStdout": true}).to_string();
        let made = d.http("POST", "/containers/web/exec", &body).expect(201).json();
        let id = made["Id"].as_str().unwrap().to_owned();
        let _ = started(d, &id).expect(200);
        id
    };
    let (early, late, unstarted) = (make(&d, "early"), make(&d, "late"), sleeping(&d, "web", "1"));
    let mut waiting = d.spawn(&["exec", "web", "sh", "-c", &script("late")]);
    let seen = |d: &testkit::Daemon, id: &str| d.http("GET", &format!("/exec/{id}/json"), "").expect(200).json();
    let sessions = |d: &testkit::Daemon| {
        let shown = d.http("GET", "/containers/web/json", "").expect(200).json();
        shown["ExecIDs"].as_array().map_or(0, Vec::len)
    };
    assert!(eventually(|| sessions(&d) == 4));
    let pid = d.inspect("web", "{{.State.Pid}}");
    let gone = format!("/proc/{}", seen_pid(&pid));
    d.kill9();
    std::fs::write(format!("/proc/{pid}/root/dev/shm/early"), "").unwrap();
    assert!(eventually(|| !std::path::Path::new(&gone).exists()));
    d.again();
    assert!(eventually(|| seen(&d, &early)["ExitCode"] == 7));
    assert_eq!(seen(&d, &late)["Running"], true);
    assert_eq!(seen(&d, &late)["ProcessConfig"]["arguments"][1], script("late"));
    is_gone(&d, &unstarted);
    std::fs::write(format!("/proc/{pid}/root/dev/shm/late"), "").unwrap();
    assert_eq!(waiting.end().code, 7);
    assert!(eventually(|| seen(&d, &late)["ExitCode"] == 7));
    let until = d.exec_inside(&["date", "+%s.%N"]).text();
    for id in [&early, &late] {
        let words = ["events", "--since", "0", "--until", &until, "--filter", "event=exec_die"];
        let told = d.docker(&[&words[..], &["--format", "{{.Actor.Attributes.execID}}"]].concat()).text();
        assert_eq!(told.lines().filter(|told| told == id).count(), 1, "{told}");
    }
    // Nothing is kept of sessions that have ended.
    let container = d.inspect("web", "{{.Id}}");
    let notes = std::fs::read_dir(d.exec_root().join(container)).unwrap().flatten();
    let notes = notes.filter(|note| note.file_name().to_string_lossy().starts_with("exec-")).count();
    assert_eq!(notes, 0);
    d.finish();
}

/// A process of the container that waits for the file `early`.
fn seen_pid(init: &str) -> u32 {
    let namespace = testkit::process::namespace(init.parse().unwrap(), "pid");
    let waits = |pid: &u32| testkit::process::command_line(*pid).is_some_and(|line| line.contains("/dev/shm/early"));
    let inside = |pid: &u32| testkit::process::namespace(*pid, "pid") == namespace;
    testkit::process::all().into_iter().filter(inside).find(waits).expect("it waits")
}
