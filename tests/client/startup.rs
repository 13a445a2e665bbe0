//! Starting and stopping the daemon itself: flags, files, listeners, locks, signals, the scenario's other name.

use rustix::process::Signal;
use std::process::Command;
use testkit::command::run;
use testkit::{Daemon, Options, Output, places};

use crate::events::{listened, now};
use crate::{eventually, with_busybox};

/// Files that are put in place while reloads are asked for.
const RELOADS: usize = 50;

fn gantryd(args: &[&str]) -> Output {
    run(Command::new(places::gantryd()).args(args), b"")
}

#[test]
fn texts_of_the_command_line() {
    assert!(gantryd(&["--version"]).text().starts_with("Gantry version "));
    let help = gantryd(&["--help"]).text();
    for wanted in ["Usage:", "--data-root string", "-H, --host list", "-D, --debug", "--userland-proxy"] {
        assert!(help.contains(wanted), "{wanted}");
    }
    gantryd(&["--nosuch"]).fails(1, "unknown flag: --nosuch");
    gantryd(&["word"]).fails(1, "accepts no argument(s)");
    gantryd(&["--log-level", "loud"]).fails(1, "invalid logging level: loud");
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("dockerd");
    std::os::unix::fs::symlink(places::gantryd(), &link).unwrap();
    assert!(run(Command::new(link).arg("--version"), b"").text().starts_with("Docker version "));
}

#[test]
fn validating_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("daemon.json");
    let path = file.display().to_string();
    let validate = |json: &str, args: &[&str]| {
        std::fs::write(&file, json).unwrap();
        gantryd(&[&["--validate", "--config-file", &path], args].concat())
    };
    let good = validate(r#"{"debug": true, "labels": ["a=b"], "log-opts": {"max-size": "1m"}}"#, &[]);
    assert_eq!((good.code, good.stderr.trim()), (0, "configuration OK"));
    validate(r#"{"nosuch": 1}"#, &[]).fails(1, &format!("unable to configure the Docker daemon with file {path}: the following directives don't match any configuration option: nosuch"));
    validate(r#"{"debug": true}"#, &["--debug"]).fails(1, "the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, from file: true)");
    validate("{", &[]).fails(1, "unexpected end of JSON input");
    assert_eq!(validate("", &[]).code, 0);
    gantryd(&["--validate", "--config-file", "/nonexistent"]).fails(1, "open /nonexistent: no such file or directory");
}

/// What protects and is not there yet ends the start, and makes a reload fail.
#[test]
fn protection_is_never_ignored() {
    for (flag, json) in [
        ("--userns-remap=default", r#"{"userns-remap": "default"}"#),
        ("--authorization-plugin=opa", r#"{"authorization-plugins": ["opa"]}"#),
        ("--selinux-enabled", r#"{"selinux-enabled": true}"#),
        ("--rootless", r#"{"rootless": true}"#),
        ("--nri-opts=enable=true", r#"{"nri-opts": {"enable": true}}"#),
        ("--storage-opt=overlay2.size=1g", r#"{"storage-opts": ["overlay2.size=1g"]}"#),
        ("--cpu-rt-runtime=1000", r#"{"cpu-rt-runtime": 1000}"#),
    ] {
        let name = flag.split('=').next().unwrap();
        let text = |shown: &str| format!("failed to start daemon: the option {shown} is not supported: if it were");
        gantryd(&["--config-file=", flag]).fails(1, &text(name));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json).unwrap();
        let path = file.path().display().to_string();
        let key = json.split('"').nth(1).unwrap();
        gantryd(&["--config-file", &path]).fails(1, &text(&format!("\"{key}\"")));
        gantryd(&["--validate", "--config-file", &path]).fails(1, &text(&format!("\"{key}\"")));
    }
}

/// The files by which the kernel tells that it has AppArmor, made up: no machine of the tests has it for certain.
const WITH_APPARMOR: &str = "mount -t tmpfs none /sys/module && mkdir -p /sys/module/apparmor/parameters && \
    echo Y > /sys/module/apparmor/parameters/enabled && mount -t tmpfs none /sys/kernel && \
    mkdir -p /sys/kernel/security/apparmor && : > /sys/kernel/security/apparmor/profiles";

/// A kernel with AppArmor that does not take the default profile.
#[test]
fn without_its_profile_of_apparmor_it_does_not_start() {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    assert!(!enabled.starts_with('Y'), "this test makes AppArmor up and needs a kernel without it");
    let mut d = Daemon::start();
    d.busybox();
    let run = ["run", "--rm", "--security-opt", "apparmor=no-such", "busybox", "echo", "free"];
    assert_eq!(d.docker(&run).text(), "free", "no profile means anything to a kernel without AppArmor");
    assert_eq!(d.stop(), 0);
    let _ = d.namespaces().run(&["sh", "-c", WITH_APPARMOR]).ok();
    let refused = d.boot().expect_err("the profile cannot be loaded");
    refused.fails(1, "AppArmor enabled on system but the docker-default profile could not be loaded: ");
    let listed = "echo 'docker-default (enforce)' > /sys/kernel/security/apparmor/profiles";
    let _ = d.namespaces().run(&["sh", "-c", listed]).ok();
    d.again();
    assert!(d.docker(&["info", "-f", "{{.SecurityOptions}}"]).text().contains("name=apparmor"));
    // The kernel knows nothing of it: what cannot be confined does not run.
    d.docker(&run).fails(125, "unable to apply apparmor profile \"no-such\"");
    d.docker(&["run", "--rm", "busybox", "true"]).fails(125, "unable to apply apparmor profile \"docker-default\"");
    let _ = d.namespaces().run(&["sh", "-c", "> /sys/kernel/security/apparmor/profiles"]).ok();
    let unloaded = "the docker-default profile could not be loaded";
    d.docker(&["run", "--rm", "busybox", "true"]).fails(127, unloaded);
    let _ = d.namespaces().run(&["umount", "/sys/module", "/sys/kernel"]).ok();
    d.finish();
}

#[test]
fn one_daemon_per_root() {
    let d = Daemon::start();
    let data = d.data_root().display().to_string();
    let place = |name: &str| d.path(name).display().to_string();
    let second = d
        .namespaces()
        .command(places::gantryd())
        .args([
            "--data-root",
            &data,
            "--exec-root",
            &place("second"),
            "--pidfile",
            &place("second.pid"),
            "--config-file",
            "/dev/null",
            "--host",
            &format!("unix://{}", place("second.sock")),
        ])
        .output()
        .unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(text.contains(&data) && text.contains("another"), "{text}");
    let pid = d.path("pid").display().to_string();
    let third = d
        .namespaces()
        .command(places::gantryd())
        .args([
            "--data-root",
            &place("third"),
            "--exec-root",
            &place("third/x"),
            "--pidfile",
            &pid,
            "--config-file",
            "/dev/null",
            "--host",
            &format!("unix://{}", place("third.sock")),
        ])
        .output()
        .unwrap();
    assert!(!third.status.success());
    let text = String::from_utf8_lossy(&third.stderr);
    assert!(text.contains("is still running"), "{text}");
    assert_eq!(d.http("GET", "/_ping", "").status, 200);
    d.finish();
}

#[test]
fn what_it_leaves_and_takes_away() {
    let mut d = Daemon::start();
    assert_eq!(std::fs::read_to_string(d.path("pid")).unwrap().trim(), d.pid().to_string());
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(d.data_root()), mode(d.exec_root()), mode(&d.socket())), (0o710, 0o711, 0o660));
    assert_eq!(d.stop(), 0);
    assert!(!d.path("pid").exists() && !d.socket().exists());
    d.again();
    d.signal(Signal::INT);
    assert_eq!(d.wait_end(), 0);
    d.again();
    d.kill9();
    assert!(d.socket().exists(), "a crash leaves the socket behind");
    d.again();
    d.finish();
}

#[test]
fn a_harness_starts_it() {
    let d = Options::new()
        .args(&[
            "--containerd-namespace",
            "n",
            "--containerd-plugins-namespace",
            "m",
            "--containerd",
            "/run/nosuch.sock",
            "--userland-proxy=true",
            "--debug",
            "--storage-driver",
            "overlayfs",
        ])
        .start();
    assert!(d.log().contains("ignored"), "{}", d.log());
    d.busybox();
    assert_eq!(d.docker(&["run", "--rm", "busybox", "echo", "hello"]).text(), "hello");
    d.finish();
}

#[test]
fn time_namespaces_can_be_switched_off() {
    for (feature, own) in [("time-namespaces=true", true), ("time-namespaces=false", false)] {
        let d = Options::new().args(&["--feature", feature]).start();
        d.busybox();
        let inside = d.docker(&["run", "--rm", "busybox", "readlink", "/proc/self/ns/time"]).text();
        let outside = std::fs::read_link("/proc/self/ns/time").unwrap();
        assert_eq!(std::path::Path::new(&inside) != outside, own, "{feature}: {inside}");
        d.finish();
    }
}

#[test]
fn temporary_files_lie_where_the_environment_says() {
    let place = tempfile::tempdir().unwrap();
    let kept = place.path().join("kept");
    std::fs::write(&kept, "").unwrap();
    let missing = place.path().join("new");
    for path in [place.path(), &missing] {
        let d = Options::new().env("DOCKER_TMPDIR", path.to_str().unwrap()).start();
        d.busybox();
        let _ = d.docker(&["run", "--rm", "busybox", "true"]).ok();
        d.finish();
    }
    assert!(kept.exists(), "somebody else's file was removed");
    assert!(missing.is_dir());
}

#[test]
fn reloading() {
    let d = Options::new().config(r#"{"labels": ["a=1"]}"#).start();
    let labels = || d.docker(&["info", "-f", "{{.Labels}}"]).text();
    assert_eq!(labels(), "[a=1]");
    let mut events = d.spawn(&["events", "--filter", "type=daemon", "--format", "{{json .}}"]);
    listened(&d);
    std::fs::write(d.path("daemon.json"), r#"{"labels": ["a=2"], "debug": true, "shutdown-timeout": 3}"#).unwrap();
    d.signal(Signal::HUP);
    assert!(eventually(|| labels() == "[a=2]"));
    events.expect("\"reload\"");
    events.expect("\"shutdown-timeout\":\"3\"");
    // Nobody set it: what the host makes of it is told.
    assert!(!events.stdout().contains("\"default-cgroupns-mode\":\"\""), "{}", events.stdout());
    // All or nothing.
    std::fs::write(d.path("daemon.json"), r#"{"labels": ["a=3"], "nosuch": 1}"#).unwrap();
    d.signal(Signal::HUP);
    assert!(eventually(|| d.log().contains("don't match any configuration option: nosuch")));
    std::fs::write(d.path("daemon.json"), r#"{"labels": ["a=4"], "authorization-plugins": ["opa"]}"#).unwrap();
    d.signal(Signal::HUP);
    let refused = "configuration not reloaded: the option \"authorization-plugins\" is not supported";
    assert!(eventually(|| d.log().contains(refused)));
    assert_eq!(labels(), "[a=2]");
    drop(events);
    d.finish();
}

/// Reloads that are asked for at the same time are made one after the other: none takes a part of one file and a part of another, and
/// the last file counts.
#[test]
fn reloads_at_the_same_time() {
    let file = |n: usize| format!(r#"{{"labels": ["a={n}"], "shutdown-timeout": {n}}}"#);
    let d = Options::new().config(&file(1)).start();
    let put = |n: usize| {
        std::fs::write(d.path("next.json"), file(n)).unwrap();
        std::fs::rename(d.path("next.json"), d.path("daemon.json")).unwrap();
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..RELOADS).for_each(|_| d.signal(Signal::HUP)));
        }
        (2..RELOADS).for_each(put);
    });
    put(RELOADS);
    d.signal(Signal::HUP);
    let last = format!("[a={RELOADS}]");
    assert!(eventually(|| d.docker(&["info", "-f", "{{.Labels}}"]).text() == last));
    let path = format!("/events?since=0&until={}&filters={{%22type%22:[%22daemon%22]}}", now());
    let events = d.http("GET", &path, "").expect(200).text();
    assert!(!events.is_empty());
    for line in events.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let [labels, timeout] = ["labels", "shutdown-timeout"].map(|name| event["Actor"]["Attributes"][name].clone());
        assert_eq!(labels, format!(r#"["a={}"]"#, timeout.as_str().unwrap()), "{event}");
    }
    d.finish();
}

#[test]
fn several_listeners() {
    let d = Options::new().args(&["-H", "tcp://127.0.0.1:4711", "--tls=false"]).start();
    let answer = d.exec_inside(&["curl", "-s", "http://127.0.0.1:4711/_ping"]);
    assert_eq!(answer.text(), "OK");
    assert_eq!(d.http("GET", "/_ping", "").text(), "OK");
    d.finish();
}

#[test]
fn mutual_tls() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let args = [
        "-H",
        "tcp://127.0.0.1:4712",
        "--tlsverify",
        "--tlscacert",
        &file("ca.pem"),
        "--tlscert",
        &file("server.pem"),
        "--tlskey",
        &file("server-key.pem"),
    ];
    let d = Options::new().args(&args).start();
    let url = "https://127.0.0.1:4712/_ping";
    let good = d.exec_inside(&[
        "curl",
        "-s",
        "--cacert",
        &file("ca.pem"),
        "--cert",
        &file("client.pem"),
        "--key",
        &file("client-key.pem"),
        url,
    ]);
    assert_eq!(good.text(), "OK");
    let without = d.exec_inside(&["curl", "-s", "-m", "5", "--cacert", &file("ca.pem"), url]);
    assert!(without.code != 0 && without.stdout.is_empty(), "{without:?}");
    let plain = d.exec_inside(&["curl", "-s", "-m", "5", "http://127.0.0.1:4712/_ping"]);
    assert_ne!(plain.stdout, "OK");
    // The CLI itself, with streams.
    d.busybox();
    let cli = d
        .namespaces()
        .command(places::docker())
        .env("DOCKER_CONFIG", d.path("cli"))
        .env_remove("DOCKER_HOST")
        .args([
            "-H",
            "tcp://127.0.0.1:4712",
            "--tlsverify",
            "--tlscacert",
            &file("ca.pem"),
            "--tlscert",
            &file("client.pem"),
            "--tlskey",
            &file("client-key.pem"),
            "run",
            "-i",
            "--rm",
            "busybox",
            "cat",
        ])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut cli = cli.unwrap();
    std::io::Write::write_all(&mut cli.stdin.take().unwrap(), b"over tls").unwrap();
    assert_eq!(String::from_utf8_lossy(&cli.wait_with_output().unwrap().stdout), "over tls");
    d.finish();
}

/// A CA, a server certificate for 127.0.0.1 and a client certificate.
fn certificates(dir: &std::path::Path) {
    let script = "set -e
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca-key.pem -out ca.pem
for who in server client; do
  openssl req -newkey rsa:2048 -nodes -subj /CN=$who -keyout $who-key.pem -out $who.csr
done
printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth\\n' > server.ext
printf 'extendedKeyUsage=clientAuth\\n' > client.ext
for who in server client; do
  openssl x509 -req -days 2 -in $who.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -extfile $who.ext -out $who.pem
done";
    let _ = run(Command::new("sh").args(["-c", script]).current_dir(dir), b"").ok();
}

#[test]
fn a_socket_from_the_service_manager() {
    let d = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("activated.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let place = |name: &str| dir.path().join(name).display().to_string();
    // Descriptor 3 is the listener, as the service manager passes it.
    let script = format!(
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec {} -H fd:// --data-root {} --exec-root {} --pidfile {} --config-file /dev/null --bridge none",
        places::gantryd().display(),
        place("d"),
        place("x"),
        place("pid")
    );
    let mut child =
        d.namespaces().command("sh").args(["-c", &script]).stdin(std::os::fd::OwnedFd::from(listener)).spawn().unwrap();
    let up = eventually(|| {
        testkit::Connection::open(&socket)
            .and_then(|mut c| {
                c.patience(std::time::Duration::from_secs(10));
                c.try_request("GET", "/_ping", "")
            })
            .is_ok_and(|r| r.status == 200)
    });
    testkit::process::signal(child.id(), Signal::TERM);
    let status = child.wait().unwrap();
    assert!(up, "no answer on the inherited socket");
    assert!(status.success(), "{status}");
    d.finish();
}

#[test]
fn the_floor_of_the_api() {
    let d = Options::new().env("DOCKER_MIN_API_VERSION", "1.24").start();
    assert_eq!(d.http("GET", "/v1.24/version", "").status, 200);
    assert_eq!(d.http("GET", "/v1.23/version", "").status, 400);
    d.finish();
    let refused = Options::new().env("DOCKER_MIN_API_VERSION", "1.20").refused();
    assert!(refused.stderr.contains("minimum supported API version is 1.24: 1.20"), "{refused:?}");
}

#[test]
fn a_second_boot_finds_everything() {
    let mut d = Daemon::start();
    d.busybox();
    let _ = d.docker(&["volume", "create", "--label", "a=b", "v1"]).ok();
    let run = ["run", "--name", "c1", "--label", "a=b", "-v", "v1:/v", "busybox", "sh", "-c", "echo said; exit 6"];
    let _ = d.docker(&run);
    let shown = |d: &Daemon| {
        let paths = ["/containers/c1/json", "/volumes/v1", "/networks/bridge", "/networks"];
        paths.map(|path| d.http("GET", &format!("/v1.45{path}"), "").text())
    };
    let id = |d: &Daemon| d.docker(&["info", "-f", "{{.ID}}"]).text();
    let before = (id(&d), shown(&d));
    d.restart();
    assert_eq!((id(&d), shown(&d)), before);
    assert_eq!(d.docker(&["logs", "c1"]).text(), "said");
    assert_eq!(d.docker(&["images", "-q"]).text().lines().count(), 1);
    d.finish();
}

/// Routes that tell of the daemon itself are there in debug mode only.
#[test]
fn debug_routes_are_there_in_debug_mode_only() {
    let d = Daemon::start();
    for path in ["/debug/vars", "/debug/pprof/", "/debug/pprof/goroutine", "/debug/pprof/profile"] {
        assert_eq!(d.http("GET", path, "").expect(404).message(), "page not found", "{path}");
    }
    d.finish();
    let d = Options::new().args(&["--debug"]).start();
    assert!(d.http("GET", "/debug/vars", "").expect(200).json()["cmdline"][0].as_str().unwrap().ends_with("gantryd"));
    assert!(d.http("GET", "/v1.50/debug/pprof/", "").expect(200).text().contains("goroutine"));
    assert!(d.http("GET", "/debug/pprof/cmdline", "").expect(200).text().contains("\0--debug"));
    assert!(d.http("GET", "/debug/pprof/goroutine?debug=2", "").expect(200).text().contains("thread "));
    assert_eq!(d.http("GET", "/debug/pprof/nosuch", "").expect(404).message(), "Unknown profile");
    assert!(d.http("GET", "/debug/pprof/profile", "").expect(501).message().contains("perf(1)"));
    d.finish();
}

/// SIGUSR1: what the daemon does, in a file of the exec root.
#[test]
fn a_signal_has_it_say_what_it_does() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "shown", "busybox", "sleep", "1000"]).ok();
    d.signal(Signal::USR1);
    let find = || {
        let entries = std::fs::read_dir(d.exec_root()).unwrap().map(|entry| entry.unwrap().path());
        entries.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("goroutine-stacks-"))
    };
    assert!(eventually(|| d.log().contains("goroutine stacks written to ")));
    let path = find().unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.ends_with("Z.log") && !name.contains(':'), "{name}");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.contains(" shown [Running {") && text.contains("thread ") && text.contains("table containers: 1"),
        "{text}"
    );
    std::fs::remove_file(path).unwrap();
    d.finish();
}
