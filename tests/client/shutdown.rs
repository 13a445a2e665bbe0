//! The daemon's graceful end: nothing begins any more, what is under way ends one way or the other, and the next daemon
//! starts what the policies say.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use testkit::{Connection, Daemon, Options, process};

use crate::{eventually, with_busybox};

/// Tells of its start, and ends with status 0 when it is asked to.
const OBEDIENT: &str = "echo run >> /told/$0; trap 'exit 0' TERM; while :; do sleep 0.05; done";
/// The same with status 3.
const FAILING: &str = "echo run >> /told/$0; trap 'exit 3' TERM; while :; do sleep 0.05; done";
/// Tells of its start and dies at once.
const BRIEF: &str = "echo run >> /told/$0; exit 1";
/// Tells that it was asked to end, and does so when the test allows it.
const SLOW: &str =
    "echo run >> /told/$0; trap 'touch /told/asked; until [ -e /told/go ]; do sleep 0.05; done; exit 0' TERM
    while :; do sleep 0.05; done";

/// A daemon, and a directory in which containers tell of their runs.
struct Scene {
    d: Daemon,
    told: tempfile::TempDir,
}

impl Scene {
    fn new(options: Options) -> Scene {
        let d = options.start();
        d.busybox();
        Scene { d, told: tempfile::tempdir().unwrap() }
    }

    fn run(&self, name: &str, options: &[&str], script: &str) {
        self.make("run", &[&["-d"], options].concat(), name, script);
    }

    fn create(&self, name: &str, script: &str) {
        self.make("create", &[], name, script);
    }

    #[track_caller]
    fn make(&self, verb: &str, options: &[&str], name: &str, script: &str) {
        let bind = format!("{}:/told", self.told.path().display());
        let fixed = ["--name", name, "-v", &bind, "busybox", "sh", "-c", script, name];
        let _ = self.d.docker(&[&[verb][..], options, &fixed].concat()).ok();
    }

    /// A neighbour that takes as long to end as the test likes.
    fn slow(&self) {
        self.run("slow", &["--stop-timeout", "100"], SLOW);
        assert!(eventually(|| self.runs("slow") == 1));
    }

    /// Asks the daemon to end, and waits until it is about that.
    fn begin_end(&self) {
        self.d.signal(Signal::TERM);
        assert!(eventually(|| self.told.path().join("asked").exists()), "{}", self.d.log());
    }

    /// Lets the neighbour end, and waits for the daemon's end.
    fn end(&mut self) {
        std::fs::write(self.told.path().join("go"), "").unwrap();
        assert_eq!(self.d.wait_end(), 0, "{}", self.d.log());
    }

    fn runs(&self, name: &str) -> usize {
        lines(&self.told.path().join(name))
    }

    fn again(&mut self) {
        for file in ["asked", "go"] {
            let _ = std::fs::remove_file(self.told.path().join(file));
        }
        self.d.again();
    }

    fn status(&self, name: &str) -> String {
        self.d.inspect(name, "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}")
    }
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[test]
fn no_policy_acts_while_a_neighbour_ends_and_each_does_at_the_next_start() {
    let mut scene = Scene::new(Options::new());
    scene.slow();
    let policies = ["always", "unless-stopped", "on-failure", "on-failure:2", "no"];
    for policy in policies {
        for (kind, script) in [("good", OBEDIENT), ("bad", FAILING)] {
            let name = format!("{kind}-{}", policy.replace(':', "-"));
            scene.run(&name, &["--restart", policy], script);
            assert!(eventually(|| scene.runs(&name) == 1));
        }
    }
    for policy in ["always", "unless-stopped"] {
        let name = format!("stopped-{policy}");
        scene.run(&name, &["--restart", policy], OBEDIENT);
        assert!(eventually(|| scene.runs(&name) == 1));
        let _ = scene.d.docker(&["stop", &name]).ok();
    }
    let names = |kind: &str| policies.map(|policy| format!("{kind}-{}", policy.replace(':', "-")));
    let pids = [names("good"), names("bad")].concat();
    let pids: Vec<u32> = pids.iter().map(|name| scene.d.inspect(name, "{{.State.Pid}}").parse().unwrap()).collect();
    scene.begin_end();
    assert!(eventually(|| !pids.iter().any(|pid| process::alive(*pid))));
    // Longer than the first back-off: a policy that acts has done so by then.
    std::thread::sleep(Duration::from_millis(500));
    for name in [names("good"), names("bad")].concat() {
        assert_eq!(scene.runs(&name), 1, "{name}");
    }
    scene.end();
    scene.again();
    for (name, runs) in [
        ("good-always", 2),
        ("good-unless-stopped", 2),
        ("bad-always", 2),
        ("bad-unless-stopped", 2),
        ("bad-on-failure", 2),
        ("bad-on-failure-2", 2),
        ("stopped-always", 2),
    ] {
        assert!(eventually(|| scene.runs(name) == runs), "{name}: {}", scene.runs(name));
        scene.d.until(name, "{{.State.Status}} {{.RestartCount}}", "running 0");
    }
    for (name, code) in [("good-on-failure", 0), ("good-on-failure-2", 0), ("good-no", 0), ("bad-no", 3)] {
        assert_eq!((scene.status(name), scene.runs(name)), (format!("exited {code} 0"), 1), "{name}");
    }
    assert_eq!(
        (scene.status("stopped-unless-stopped"), scene.runs("stopped-unless-stopped")),
        ("exited 0 0".into(), 1)
    );
    scene.d.finish();
}

#[test]
fn back_offs_are_cancelled() {
    let mut scene = Scene::new(Options::new());
    scene.slow();
    let brief =
        [("always", "brief-1"), ("unless-stopped", "brief-2"), ("on-failure", "brief-3"), ("on-failure:9", "brief-4")];
    for (policy, name) in brief {
        scene.run(name, &["--restart", policy], BRIEF);
    }
    assert!(eventually(|| brief.iter().all(|(_, name)| scene.runs(name) >= 3)));
    scene.begin_end();
    let mut counts = brief.map(|(_, name)| scene.runs(name));
    // One that was being started when the end began may have told of it late.
    std::thread::sleep(Duration::from_millis(300));
    for (count, (_, name)) in counts.iter_mut().zip(brief) {
        assert!(scene.runs(name) <= *count + 1, "{name}");
        *count = scene.runs(name);
    }
    // The pause before the next is 0.8 seconds at most.
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(brief.map(|(_, name)| scene.runs(name)), counts);
    scene.end();
    scene.again();
    for (count, (_, name)) in counts.iter().zip(brief) {
        assert!(eventually(|| scene.runs(name) > *count), "{name} stays at {count}");
    }
    scene.d.finish();
}

#[test]
fn requests_meet_a_daemon_that_ends() {
    let mut scene = Scene::new(Options::new());
    scene.slow();
    scene.create("made", OBEDIENT);
    scene.run("again", &[], OBEDIENT);
    let mut fresh = scene.d.connection();
    let mut used = scene.d.connection();
    let _ = used.request("GET", "/_ping", "").expect(200);
    let mut waiting = scene.d.spawn(&["wait", "slow"]);
    let mut restarting = scene.d.spawn(&["restart", "-t", "100", "slow"]);
    assert!(eventually(|| scene.told.path().join("asked").exists()));
    let mut foreground = scene.d.spawn(&[
        "run",
        "--name",
        "fore",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done",
    ]);
    assert!(eventually(|| foreground.stdout().contains("up")));
    let mut events = scene.d.connection();
    events.send(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    assert_eq!(events.head().unwrap().status, 200);
    // A create whose body is still on its way.
    let mut late = scene.d.connection();
    let body = r#"{"Image":"busybox","Cmd":["true"]}"#;
    let head = format!(
        "POST /containers/create?name=late HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    late.send(head.as_bytes()).and_then(|()| late.send(&body.as_bytes()[..10])).unwrap();
    scene.d.signal(Signal::TERM);
    assert!(eventually(|| Connection::open(&scene.d.socket()).is_err()), "the socket still takes clients");
    for connection in [&mut fresh, &mut used] {
        if let Ok(answer) = connection.try_request("POST", "/containers/made/start", "") {
            assert_eq!((answer.status, answer.message()), (503, "the daemon is shutting down".into()));
        }
    }
    // What was asked for before is answered for.
    assert_eq!(foreground.end().code, 7);
    let _ = late.send(&body.as_bytes()[10..]);
    let answered = late.head().and_then(|head| late.body(&head).map(|_| head.status));
    std::fs::write(scene.told.path().join("go"), "").unwrap();
    assert_eq!(waiting.end().text(), "0");
    let restarted = restarting.end();
    assert!(restarted.code != 0 && restarted.stderr.contains("the daemon is shutting down"), "{restarted:?}");
    let told = String::from_utf8(events.rest().unwrap()).unwrap();
    for name in ["fore", "slow"] {
        let died = told
            .lines()
            .any(|line| line.contains("\"Action\":\"die\"") && line.contains(&format!("\"name\":\"{name}\"")));
        assert!(died, "{name}: {told}");
    }
    assert_eq!(scene.d.wait_end(), 0);
    assert_eq!((scene.runs("made"), scene.runs("slow"), scene.runs("again")), (0, 1, 1));
    scene.again();
    assert_eq!((scene.status("made"), scene.status("slow")), ("created 0 0".into(), "exited 0 0".into()));
    let there = scene.d.http("GET", "/containers/late/json", "").status;
    assert_eq!(
        there == 200,
        answered.is_ok_and(|status| status == 201),
        "what was answered is there, and nothing else"
    );
    scene.d.finish();
}

/// Starts race with the end: each happens and is ended, or does not happen.
#[test]
fn nothing_runs_after_the_end() {
    let mut d = with_busybox();
    for round in 0..4 {
        let names: Vec<String> = (0..6).map(|n| format!("r{round}-{n}")).collect();
        for name in &names {
            let _ = d.docker(&["create", "--name", name, "busybox", "sleep", "1000"]).ok();
        }
        let socket = d.socket();
        std::thread::scope(|scope| {
            for name in &names {
                let socket = &socket;
                scope.spawn(move || {
                    let Ok(mut connection) = Connection::open(socket) else { return };
                    let _ = connection.try_request("POST", &format!("/containers/{name}/start"), "");
                });
            }
            std::thread::sleep(Duration::from_millis(round * 4));
            d.signal(Signal::TERM);
        });
        assert_eq!(d.wait_end(), 0);
        let left: Vec<_> = d.namespaces().processes().into_iter().filter(|p| p.command.contains("monitor")).collect();
        assert!(left.is_empty(), "{left:?}\n{}", d.log());
        d.again();
        for name in &names {
            let state = d.inspect(name, "{{.State.Status}}");
            assert!(["created", "exited"].contains(&state.as_str()), "{name} is {state}");
        }
    }
    d.finish();
}

/// An upload is cut at the end, and leaves nothing.
#[test]
fn an_unfinished_upload_leaves_nothing() {
    let mut scene = Scene::new(Options::new());
    scene.slow();
    let mut upload = scene.d.connection();
    upload
        .send(b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nContent-Length: 100000000\r\n\r\n")
        .unwrap();
    upload.send(&vec![0; 100_000]).unwrap();
    scene.begin_end();
    scene.end();
    drop(upload);
    scene.again();
    assert_eq!(scene.d.docker(&["images", "-q"]).text().lines().count(), 1);
    scene.d.finish();
}

#[test]
fn a_second_signal_changes_nothing_and_many_end_the_daemon_at_once() {
    let mut scene = Scene::new(Options::new());
    scene.slow();
    scene.begin_end();
    for _ in 0..2 {
        scene.d.signal(Signal::TERM);
        let seen = scene.d.log().matches("ending already").count();
        assert!(eventually(|| scene.d.log().matches("ending already").count() >= seen.max(1)));
    }
    assert!(eventually(|| scene.d.log().matches("ending already").count() == 2));
    assert!(process::alive(scene.d.pid()));
    scene.end();
    scene.again();
    assert_eq!(scene.status("slow"), "exited 0 0");

    let _ = scene.d.docker(&["start", "slow"]).ok();
    assert!(eventually(|| scene.runs("slow") == 2));
    scene.begin_end();
    for count in 1..=2 {
        scene.d.signal(Signal::INT);
        assert!(eventually(|| scene.d.log().matches("ending already").count() == 2 + count));
    }
    scene.d.signal(Signal::TERM);
    assert_eq!(scene.d.wait_end(), 128 + 15);
    // Nobody has lost anything by that: the container runs on and is found again.
    scene.d.again();
    assert_eq!(scene.status("slow"), "running 0 0");
    std::fs::write(scene.told.path().join("go"), "").unwrap();
    scene.d.until("slow", "{{.State.Status}}", "exited");
    scene.d.finish();
}

#[test]
fn with_live_restore_runs_go_on_and_no_policy_acts() {
    let mut scene = Scene::new(Options::new().args(&["--live-restore"]));
    scene.run("steady", &["--restart", "always"], OBEDIENT);
    scene.run("brief", &["--restart", "always"], BRIEF);
    scene.run(
        "ending",
        &["--restart", "on-failure:3"],
        "echo run >> /told/$0; until [ -e /told/end ]; do sleep 0.05; done; exit 4",
    );
    assert!(eventually(|| scene.runs("brief") >= 3 && scene.runs("steady") == 1 && scene.runs("ending") == 1));
    let pid = scene.d.inspect("steady", "{{.State.Pid}}");
    assert_eq!(scene.d.stop(), 0);
    let brief = scene.runs("brief");
    std::fs::File::create(scene.told.path().join("end")).unwrap().write_all(b"x").unwrap();
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!((scene.runs("brief"), scene.runs("ending")), (brief, 1));
    scene.d.again();
    assert_eq!(scene.d.inspect("steady", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    assert!(eventually(|| scene.runs("brief") > brief));
    assert!(eventually(|| scene.runs("ending") > 1));
    scene.d.finish();
}
