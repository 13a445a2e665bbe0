//! OCI command line runtimes beside the built-in one: `--add-runtime`, `--runtime`.

use testkit::{Daemon, Options, places};

use crate::eventually;

fn with_runtime(name: &str) -> Daemon {
    let path = places::find(name);
    let d = Options::new().args(&["--add-runtime", &format!("other={}", path.display())]).start();
    d.busybox();
    d
}

fn the_usual(d: &Daemon) {
    let run = |args: &[&str]| d.docker(&[&["run", "--rm", "--runtime", "other"], args].concat());
    assert_eq!(run(&["busybox", "echo", "hello"]).text(), "hello");
    assert_eq!(run(&["busybox", "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(d.docker_input(&["run", "-i", "--rm", "--runtime", "other", "busybox", "cat"], b"in").ok().stdout, "in");
    assert_eq!(run(&["busybox", "nosuchprogram"]).code, 127);
    let _ = d.docker(&["run", "-d", "--runtime", "other", "--name", "c1", "busybox", "sleep", "1000"]).ok();
    assert_eq!(d.inspect("c1", "{{.HostConfig.Runtime}}"), "other");
    assert_eq!(d.docker(&["exec", "c1", "sh", "-c", "echo x; exit 0"]).text(), "x");
    let _ = d.docker(&["pause", "c1"]).ok();
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "paused");
    let _ = d.docker(&["unpause", "c1"]).ok();
    assert_eq!(d.docker(&["exec", "c1", "echo", "alive"]).text(), "alive");
    limits(d);
    let donor = ["run", "-d", "--runtime", "other", "--name", "c2", "--ipc", "shareable", "busybox"];
    let _ = d.docker(&[&donor[..], &["sh", "-c", "echo x > /dev/shm/f; sleep 1000"]].concat()).ok();
    assert!(eventually(|| d.docker(&["exec", "c2", "cat", "/dev/shm/f"]).stdout == "x\n"));
    assert_eq!(run(&["--ipc", "container:c2", "busybox", "cat", "/dev/shm/f"]).text(), "x");
    let net = testkit::process::namespace(d.inspect("c1", "{{.State.Pid}}").parse().unwrap(), "net").unwrap();
    assert_eq!(run(&["--network", "container:c1", "busybox", "readlink", "/proc/self/ns/net"]).text(), net);
    assert!(run(&["--pid", "container:c1", "busybox", "ps"]).text().contains("sleep 1000"));
    let _ = d.docker(&["stop", "-t", "1", "c1"]).ok();
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "exited");
}

/// Read inside, from a directory or a file; what runs out of memory is known, and its cgroup goes with it.
fn limits(d: &Daemon) {
    let run = |args: &[&str], script: &str| {
        let options = ["run", "--runtime", "other", "-m", "16m", "--memory-swap", "16m", "--pids-limit", "77"];
        d.docker(&[&options[..], args, &["busybox", "sh", "-c", script]].concat())
    };
    let at = "cd /sys/fs/cgroup; cat memory.max pids.max 2>/dev/null || cat memory/memory.limit_in_bytes pids/pids.max";
    assert_eq!(run(&["--rm"], at).text(), "16777216\n77");
    let options = ["-d", "--name", "eater"];
    let _ = run(&options, "dd if=/dev/zero of=/dev/shm/x bs=1M count=60; rm -f /dev/shm/x; exec sleep 1000").ok();
    d.until("eater", "{{.State.Status}} {{.State.OOMKilled}}", "running true");
    let id = d.inspect("eater", "{{.Id}}");
    let groups = || testkit::census::cgroups(d.cgroup()).iter().filter(|dir| dir.ends_with(&id)).count();
    assert!(groups() > 0);
    let _ = d.docker(&["rm", "-f", "eater"]).ok();
    assert_eq!(groups(), 0);
}

#[test]
fn runc() {
    let d = with_runtime("runc");
    the_usual(&d);
    d.finish();
}

/// Such a runtime takes paths, in which a container could put a link: it gets none of the volume's.
#[test]
fn parts_of_volumes() {
    let d = with_runtime("runc");
    let fill = "mkdir /v/part; echo x > /v/part/f; ln -s /etc /v/out";
    let _ = d.docker(&["run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", fill]).ok();
    let cat = |part: &str| {
        let mount = format!("type=volume,src=vol,dst=/part,volume-subpath={part}");
        d.docker(&["run", "--rm", "--runtime", "other", "--mount", &mount, "busybox", "cat", "/part/f"])
    };
    assert_eq!(cat("part").text(), "x");
    cat("out").fails(125, "path concatenation escapes the base directory");
    let file = "type=volume,src=vol,dst=/etc/passwd,volume-subpath=part/f";
    let shown = d.docker(&["run", "--rm", "--runtime", "other", "--mount", file, "busybox", "cat", "/etc/passwd"]);
    assert_eq!(shown.text(), "x");
    d.finish();
}

#[test]
fn crun_is_known_to_info() {
    // Debian's crun does not start containers on every layout of cgroups; that it is registered and that its refusals
    // come back as errors is what holds everywhere.
    let d = with_runtime("crun");
    assert!(d.docker(&["info", "-f", "{{json .Runtimes}}"]).text().contains("\"other\""));
    let output = d.docker(&["run", "--rm", "--runtime", "other", "busybox", "echo", "hello"]);
    assert!(output.stdout == "hello\n" || (output.code == 125 && !output.stderr.is_empty()), "{output:?}");
    d.finish();
}

/// What runtimes say that they can do is shown from 1.44 on; one that says nothing has no status.
#[test]
fn features_of_runtimes_are_shown() {
    let d = Options::new().args(&["--add-runtime", "other=runc", "--add-runtime", "mute=/bin/false"]).start();
    let runtimes = |version: &str| d.http("GET", &format!("{version}/info"), "").expect(200).json()["Runtimes"].clone();
    let shown = runtimes("/v1.45");
    let features = |name: &str| -> Option<serde_json::Value> {
        let text = shown[name]["status"]["org.opencontainers.runtime-spec.features"].as_str()?;
        Some(serde_json::from_str(text).unwrap())
    };
    for name in ["runc", "io.containerd.runc.v2", "gantry", "other"] {
        let features = features(name).expect(name);
        assert!(features["ociVersionMin"].is_string() && features["mountOptions"].is_array(), "{name}: {features}");
        assert_eq!(features["linux"]["seccomp"]["enabled"], true, "{name}");
    }
    assert_eq!(features("mute"), None);
    assert!(shown["mute"].get("status").is_none(), "{shown}");
    assert!(runtimes("/v1.43")["runc"].get("status").is_none());
    d.finish();
}

/// In the reference's words, by which its own tests know it.
#[test]
fn a_runtime_that_cannot_be_executed() {
    let runtimes = [
        (
            "gone",
            "/usr/local/bin/vm-manager",
            "fork/exec /usr/local/bin/vm-manager: no such file or directory: unknown",
        ),
        ("bare", "no-such-program", "exec: \"no-such-program\": executable file not found in $PATH: unknown"),
        ("text", "/etc/passwd", "fork/exec /etc/passwd: permission denied: unknown"),
    ];
    let mut args = Vec::new();
    let options: Vec<String> = runtimes.iter().map(|(name, path, _)| format!("{name}={path}")).collect();
    options.iter().for_each(|option| args.extend(["--add-runtime", option]));
    let d = Options::new().args(&args).start();
    d.busybox();
    for (name, _, text) in runtimes {
        let output = d.docker(&["run", "--rm", "--runtime", name, "busybox", "ls"]);
        assert_eq!(output.code, 127, "{output:?}");
        assert!(output.stderr.contains("OCI runtime create failed: unable to retrieve OCI runtime error (open /"));
        assert!(output.stderr.contains(text), "{output:?}");
    }
    // A directory over a file, and below one.
    for place in ["/etc/passwd", "/etc/passwd/below"] {
        let text = format!(
            "error during container init: error mounting \"/usr\" to rootfs at {place:?}: create mount destination for {place} mount: \
             cannot mkdir in /etc/passwd: not a directory: unknown: Are you trying to mount a directory onto a file (or \
             vice-versa)? Check if the specified host path exists and is the expected type",
        );
        d.docker(&["run", "--rm", "-v", &format!("/usr:{place}"), "busybox", "true"]).fails(125, &text);
    }
    // A file system of memory over a file.
    d.docker(&["run", "--rm", "--tmpfs", "/etc/passwd", "busybox", "true"]).fails(
        125,
        "error mounting \"tmpfs\" to rootfs at \"/etc/passwd\": mount tmpfs:/etc/passwd (via /proc/self/fd/6), flags: 0xe, \
         data: mode=0644: not a directory: unknown: \
         Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the \
         expected type",
    );
    d.finish();
}

#[test]
fn an_unknown_runtime() {
    let d = with_runtime("runc");
    d.docker(&["run", "--rm", "--runtime", "nosuch", "busybox", "true"])
        .fails(125, "unknown or invalid runtime name: nosuch");
    d.finish();
}

#[test]
fn a_default_runtime_from_the_file() {
    let path = places::find("runc");
    let config = format!(r#"{{"runtimes": {{"r": {{"path": "{}"}}}}, "default-runtime": "r"}}"#, path.display());
    let d = Options::new().config(&config).start();
    d.busybox();
    assert_eq!(d.docker(&["run", "--name", "c1", "busybox", "echo", "x"]).text(), "x");
    assert_eq!(d.inspect("c1", "{{.HostConfig.Runtime}}"), "r");
    d.finish();
}

/// A daemon whose runtime `slow` is runc, which waits at each command for which there is a file of that name in the
/// directory.
fn with_slow_runtime() -> (Daemon, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (path, runc) = (dir.path().display(), places::find("runc"));
    let script = format!(
        "#!/bin/sh\nfor word; do\n  case $word in create|start|kill|pause|resume|delete)\n    \
         if [ -e {path}/$word ]; then : > {path}/$word.waits; fi\n    \
         while [ -e {path}/$word ]; do sleep 0.05; done;; esac\ndone\nexec {} \"$@\"\n",
        runc.display()
    );
    let program = dir.path().join("slow");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let d = Options::new().args(&["--add-runtime", &format!("slow={}", program.display())]).start();
    d.busybox();
    (d, dir)
}

/// Makes a command of the slow runtime wait; whether it does so is seen by [`waits`].
fn hold(dir: &tempfile::TempDir, word: &str) {
    let _ = std::fs::remove_file(dir.path().join(format!("{word}.waits")));
    std::fs::write(dir.path().join(word), "").unwrap();
}

fn waits(dir: &tempfile::TempDir, word: &str) -> bool {
    eventually(|| dir.path().join(format!("{word}.waits")).exists())
}

fn let_go(dir: &tempfile::TempDir, word: &str) {
    std::fs::remove_file(dir.path().join(word)).unwrap();
}

#[test]
fn a_runtime_that_hangs_holds_nobody_up() {
    let (d, dir) = with_slow_runtime();
    let count = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done";
    let run = |name: &str| {
        let _ = d.docker(&["run", "-d", "--runtime", "slow", "--name", name, "busybox", "sh", "-c", count]).ok();
    };
    let lives = |name: &str| {
        assert_eq!(d.docker(&["exec", name, "echo", "alive"]).text(), "alive");
        let last = || d.docker(&["logs", "--tail", "1", name]).text().to_owned();
        let before = last();
        assert!(eventually(|| last() != before), "its log stands still");
    };
    for name in ["killed", "stopped", "paused", "deleted"] {
        run(name);
    }
    hold(&dir, "kill");
    let mut kill = d.spawn(&["kill", "killed"]);
    let mut stop = d.spawn(&["stop", "-t", "1", "stopped"]);
    assert!(waits(&dir, "kill"));
    lives("killed");
    lives("paused");
    // What the program does not do is done without it.
    assert_eq!(kill.end().code, 0);
    assert_eq!(stop.end().code, 0);
    assert_eq!(d.inspect("killed", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    assert_eq!(d.inspect("stopped", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    let_go(&dir, "kill");
    hold(&dir, "pause");
    let _ = d.docker(&["pause", "paused"]).ok();
    assert!(waits(&dir, "pause"));
    let _ = d.docker(&["kill", "paused"]).ok();
    assert_eq!(d.inspect("paused", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    let_go(&dir, "pause");
    hold(&dir, "delete");
    let mut kill = d.spawn(&["kill", "deleted"]);
    assert!(waits(&dir, "delete"));
    assert!(!d.docker(&["logs", "deleted"]).ok().stdout.is_empty());
    let_go(&dir, "delete");
    assert_eq!(kill.end().code, 0);
    d.remove_containers();
    d.finish();
}

/// Whoever wants the end of a container need not wait for its start.
#[test]
fn a_start_that_hangs_is_broken_off() {
    let (d, dir) = with_slow_runtime();
    let ends: [&[&str]; 4] = [&["kill", "c1"], &["stop", "c1"], &["stop", "-t", "-1", "c1"], &["rm", "-f", "c1"]];
    for word in ["create", "start"] {
        for end in ends {
            hold(&dir, word);
            let mut run = d.spawn(&["run", "--name", "c1", "--runtime", "slow", "busybox", "sleep", "1000"]);
            assert!(waits(&dir, word));
            let ended = d.docker(end);
            assert_eq!(ended.code, 0, "{word} {end:?}: {ended:?}");
            let run = run.end();
            assert_eq!(run.code, 125, "{run:?}");
            assert!(run.stderr.contains("killed before its program ran"), "{run:?}");
            let_go(&dir, word);
            if end[0] != "rm" {
                assert_eq!(d.inspect("c1", "{{.State.Running}}"), "false");
                let _ = d.docker(&["start", "c1"]).ok();
                let _ = d.docker(&["rm", "-f", "c1"]).ok();
            }
        }
    }
    d.finish();
}
