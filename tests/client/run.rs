//! `docker run`: output, exit codes, stdin, environment.

use crate::{eventually, with_busybox, with_images};

#[test]
fn hello() {
    let d = with_busybox();
    let output = d.docker(&["run", "--rm", "busybox", "echo", "hello"]);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, "hello\n", ""));
    d.finish();
}

#[test]
fn exit_codes() {
    let d = with_busybox();
    assert_eq!(d.docker(&["run", "--rm", "busybox", "sh", "-c", "exit 42"]).code, 42);
    assert_eq!(d.docker(&["run", "--rm", "busybox", "true"]).code, 0);
    d.docker(&["run", "--rm", "busybox", "nosuchprogram"])
        .fails(127, r#"exec: "nosuchprogram": executable file not found in $PATH"#);
    d.docker(&["run", "--rm", "busybox", "/nosuch"])
        .fails(127, r#"exec: "/nosuch": stat /nosuch: no such file or directory"#);
    d.docker(&["run", "--rm", "busybox", "/etc/not-executable"]).fails(126, "permission denied");
    d.docker(&["run", "--rm", "busybox", "/etc"]).fails(126, r#"exec: "/etc": is a directory"#);
    d.docker(&["run", "--nosuchflag", "busybox"]).fails(125, "unknown flag: --nosuchflag");
    d.docker(&["run", "--rm", "--name", "a b", "busybox", "true"]).fails(125, "Invalid container name (a b)");
    // PID 1 is immune to its own signals; with an init the program is not PID 1.
    assert_eq!(d.docker(&["run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$"]).code, 137);
    assert_eq!(d.docker(&["run", "--rm", "busybox", "sh", "-c", "trap 'exit 9' TERM; kill -15 $$; sleep 1"]).code, 9);
    d.finish();
}

#[test]
fn a_failed_start_leaves_a_created_container_with_the_code() {
    let d = with_busybox();
    assert_eq!(d.docker(&["run", "--name", "x1", "busybox", "/nope"]).code, 127);
    assert_eq!(
        d.inspect("x1", "{{.State.Status}} {{.State.ExitCode}} {{.State.Running}} {{.State.Pid}}"),
        "created 127 false 0"
    );
    assert_eq!(
        d.inspect("x1", "{{.State.Error}}"),
        r#"failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "/nope": stat /nope: no such file or directory: unknown"#
    );
    d.finish();
}

#[test]
fn standard_input_reaches_the_program_and_its_end_too() {
    let d = with_busybox();
    assert_eq!(d.docker_input(&["run", "-i", "--rm", "busybox", "cat"], b"data\n").ok().stdout, "data\n");
    assert_eq!(
        d.docker_input(&["run", "-i", "--rm", "busybox", "sh", "-c", "cat; echo after"], b"x").ok().stdout,
        "xafter\n"
    );
    // Without -i standard input is empty.
    assert_eq!(
        d.docker_input(&["run", "--rm", "busybox", "sh", "-c", "cat; echo none"], b"data").ok().stdout,
        "none\n"
    );
    d.finish();
}

#[test]
fn much_data_both_ways() {
    let d = with_images();
    let megabytes = 8;
    let input: Vec<u8> = (0..megabytes << 20).map(|n: u32| (n % 251) as u8).collect();
    let output = d.docker_input(&["run", "-i", "--rm", "--log-driver", "none", "probe", "cat"], &input).ok();
    assert!(output.stderr.contains(&format!("{} bytes", input.len())), "{}", output.stderr);
    let output = d.docker(&["run", "--rm", "probe", "flood", "20000000", "100"]).ok();
    assert_eq!(output.stdout.len(), 20_000_000);
    d.finish();
}

#[test]
fn streams_stay_apart() {
    let d = with_busybox();
    let output = d.docker(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]).ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    d.finish();
}

#[test]
fn environment_directory_and_user() {
    let d = with_busybox();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "content").unwrap();
    let bind = format!("{}:/srv:ro", dir.path().display());
    let script = "echo $A; pwd; id -u; id -g; cat f; echo; touch /srv/x 2>&1";
    let args =
        ["run", "--rm", "-e", "A=b", "-w", "/srv", "-u", "1000:1001", "-v", &bind, "busybox", "sh", "-c", script];
    let output = d.docker(&args);
    assert_eq!(output.stdout, "b\n/srv\n1000\n1001\ncontent\ntouch: /srv/x: Read-only file system\n");
    d.finish();
}

#[test]
fn the_default_environment() {
    let d = with_busybox();
    let id = d.docker(&["create", "busybox", "env"]).text();
    let output = d.docker(&["start", "-a", &id]).ok().stdout;
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    let host = format!("HOSTNAME={}", &id[..12]);
    assert_eq!(lines, ["HOME=/root", &host, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    assert_eq!(d.docker(&["run", "--rm", "busybox", "hostname"]).ok().stdout.trim().len(), 12);
    assert_eq!(
        d.docker(&["run", "--rm", "--hostname", "h1", "busybox", "sh", "-c", "hostname; cat /etc/hostname"]).text(),
        "h1\nh1"
    );
    d.finish();
}

#[test]
fn users_by_name_and_supplementary_groups() {
    let d = with_busybox();
    let id = |user: &str| d.docker(&["run", "--rm", "-u", user, "busybox", "id"]).text();
    assert_eq!(id("daemon"), "uid=1(daemon) gid=1(daemon) groups=1(daemon),10(wheel)");
    assert_eq!(id("daemon:33"), "uid=1(daemon) gid=33(www-data) groups=33(www-data)");
    assert_eq!(id("4242"), "uid=4242 gid=0(root) groups=0(root)");
    d.docker(&["run", "--rm", "-u", "nosuch", "busybox", "id"])
        .fails(125, "unable to find user nosuch: no matching entries in passwd file");
    assert_eq!(d.docker(&["run", "--rm", "-u", "1:1", "--group-add", "77", "busybox", "id", "-G"]).text(), "1 77");
    d.finish();
}

#[test]
fn detached() {
    let d = with_busybox();
    let id = d.docker(&["run", "-d", "--name", "web", "busybox", "sleep", "100"]).text();
    assert_eq!(id.len(), 64);
    assert_eq!(d.inspect("web", "{{.Id}} {{.State.Status}}"), format!("{id} running"));
    d.finish();
}

#[test]
fn entrypoints_and_commands() {
    let d = with_busybox();
    let run = |args: &[&str]| d.docker(&[&["run", "--rm"], args].concat()).text();
    assert_eq!(run(&["--entrypoint", "echo", "busybox", "a", "b"]), "a b");
    assert_eq!(run(&["busybox"]), "");
    assert_eq!(run(&["--entrypoint", "/bin/sh", "busybox", "-c", "echo $0 $1", "x", "y"]), "x y");
    d.finish();
}

#[test]
fn removed_containers_are_gone_at_once() {
    let d = with_busybox();
    for _ in 0..10 {
        let _ = d.docker(&["run", "--rm", "--name", "same", "busybox", "true"]).ok();
    }
    assert_eq!(d.docker(&["ps", "-aq"]).text(), "");
    d.finish();
}

#[test]
fn many_at_once() {
    let d = with_busybox();
    let mut running: Vec<_> =
        (0..20).map(|n| d.spawn(&["run", "--rm", "busybox", "sh", "-c", &format!("echo {n}; exit {n}")])).collect();
    for (n, one) in running.iter_mut().enumerate() {
        let output = one.end();
        assert_eq!((output.code, output.stdout), (i32::try_from(n).unwrap(), format!("{n}\n")));
    }
    d.finish();
}

#[test]
fn init_reaps_and_forwards() {
    let d = with_busybox();
    let output = d
        .docker(&["run", "--rm", "--init", "busybox", "sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '; echo; echo $$"])
        .ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(lines[0].contains("init"), "{lines:?}");
    assert_ne!(lines[1], "1");
    assert_eq!(d.docker(&["run", "--rm", "--init", "busybox", "sh", "-c", "exit 11"]).code, 11);
    // Orphans of orphans are reaped: nothing in state Z after a while.
    let script = "for i in 1 2 3; do (sleep 0 & ) ; done; sleep 1; dead() { grep -hs '^State:.Z' /proc/[0-9]*/status; }; n=0; \
                  while [ $n -lt 600 ] && dead >/dev/null; do sleep 0.1; n=$((n+1)); done; dead | wc -l";
    assert_eq!(d.docker(&["run", "--rm", "--init", "busybox", "sh", "-c", script]).stdout.trim(), "0");
    let _ = d.docker(&["run", "-d", "--init", "--name", "s1", "busybox", "sh", "-c", "echo up; exec sleep 1000"]).ok();
    assert!(eventually(|| d.docker(&["logs", "s1"]).stdout == "up\n"));
    // Forwarded: a program that is killed for want of an end has another code.
    let _ = d.docker(&["stop", "-t", "100", "s1"]).ok();
    assert_eq!(d.inspect("s1", "{{.State.ExitCode}}"), "143");
    d.finish();
}
