//! The garbage collector of images, on small disks of its own.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::command::{eventually, run};
use testkit::fake_registry::{FakeRegistry, Image};
use testkit::images::Tar;
use testkit::{Daemon, Options, places};

/// Longest wait for something that the collector does by itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of the one file of an image; on the disk it lies twice, packed and unpacked.
const FILE: usize = 3 << 20;
const DISK: u64 = 96 << 20;

fn config(rules: &Value) -> String {
    json!({ "image-gc": rules }).to_string()
}

fn daemon(rules: &Value) -> Daemon {
    Options::new().disk("96m").config(&config(rules)).start()
}

fn reload(d: &Daemon, rules: &Value) {
    std::fs::write(d.path("daemon.json"), config(rules)).unwrap();
    d.signal(Signal::HUP);
}

/// Imports an image of its own content.
#[track_caller]
fn import(d: &Daemon, name: &str, changes: &[&str]) {
    let content: Vec<u8> = name.bytes().cycle().take(FILE).collect();
    let tar = Tar::new().file("data", 0o644, &content).bytes();
    let changes = changes.iter().flat_map(|change| ["-c", change]);
    let words: Vec<&str> = ["import", "-c", "CMD [\"/x\"]"].into_iter().chain(changes).chain(["-", name]).collect();
    let _ = d.docker_input(&words, &tar).ok();
}

fn names(d: &Daemon) -> Vec<String> {
    let text = d.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).text();
    let mut names: Vec<String> = text.lines().map(String::from).collect();
    names.sort();
    names
}

/// Bytes that are used on the data root's disk.
fn used(d: &Daemon) -> u64 {
    let root = d.data_root().display().to_string();
    let text = d.namespaces().run(&["df", "-B1", "--output=used", &root]).text();
    text.lines().last().unwrap().trim().parse().unwrap()
}

fn why(d: &Daemon, image: &str) -> String {
    let exec_root = d.exec_root().display().to_string();
    let words = ["images", "why", image, "--config-file=", "--exec-root", &exec_root];
    run(std::process::Command::new(places::gantryd()).args(words), b"").text()
}

/// Names of what was untagged, in order.
fn untagged(d: &Daemon) -> Vec<String> {
    let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1;
    let args = ["events", "--since", "0", "--until", &until.to_string(), "--filter", "event=untag"];
    let text = d.docker(&[&args[..], &["--format", "{{.Actor.Attributes.name}}"]].concat()).text();
    text.lines().map(String::from).collect()
}

#[test]
fn the_least_recently_used_go_until_there_is_room() {
    let rules = json!({"high": "60%", "low": "40%", "min-age": "0s", "interval": "1s", "keep": ["pinned:*"]});
    let mut d = Options::new().args(&["--debug"]).disk("96m").config(&config(&rules)).start();
    import(&d, "pinned:1", &[]);
    import(&d, "labelled:1", &["LABEL gantry.keep=yes"]);
    import(&d, "inuse:1", &[]);
    let _ = d.docker(&["create", "--name", "c1", "inuse:1"]).ok();
    import(&d, "touched:1", &[]);
    import(&d, "old:1", &[]);
    import(&d, "old:2", &[]);
    let _ = d.docker(&["create", "--name", "c2", "touched:1"]).ok();
    let _ = d.docker(&["rm", "c2"]).ok();
    // What was last used survives the daemon.
    d.crash();
    import(&d, "new:1", &[]);
    import(&d, "new:2", &[]);
    assert_eq!(untagged(&d), [""; 0]);
    assert!(why(&d, "old:2").contains("takes it as number 2 of 5 when more than 60% of the disk are used"));
    import(&d, "new:3", &[]);
    assert!(eventually(PATIENCE, || used(&d) <= DISK * 40 / 100), "{} used; {:?}", used(&d), names(&d));
    assert_eq!(untagged(&d), ["old:1", "old:2", "touched:1", "new:1"]);
    assert_eq!(names(&d), ["inuse:1", "labelled:1", "new:2", "new:3", "pinned:1"]);
    for (image, reason) in [
        ("pinned:1", "the pattern \"pinned:*\" in the configuration pins it"),
        ("labelled:1", "its label gantry.keep pins it"),
        ("inuse:1", "container c1 ("),
    ] {
        let text = why(&d, image);
        assert!(text.contains(reason) && text.contains("collector: leaves it"), "{reason} in {text}");
        let in_log =
            d.log().lines().any(|line| line.contains("DEBUG") && line.contains("kept") && line.contains(image));
        assert!(in_log, "{image} in {}", d.log());
    }
    // What is left works.
    let _ = d.docker(&["create", "new:2"]).ok();
    d.finish();
}

#[test]
fn what_came_recently_stays_until_the_rules_change() {
    let rules = json!({"high": "30%", "low": "20%", "min-age": "1h", "interval": "1s"});
    let d = daemon(&rules);
    for name in ["a:1", "b:1", "c:1", "d:1", "e:1"] {
        import(&d, name, &[]);
    }
    // Told once, not at every look; a look in the middle of an import may have found less room than there is now.
    let told = || d.log().matches("every image has a reason to stay").count();
    let once = eventually(PATIENCE, || {
        let before = told();
        std::thread::sleep(Duration::from_secs(3));
        before > 0 && told() == before
    });
    assert!(once, "{}", d.log());
    assert_eq!(names(&d).len(), 5);
    assert!(why(&d, "a:1").contains("collector: leaves it until "), "{}", why(&d, "a:1"));
    // Refused rules change nothing.
    reload(&d, &json!({"high": "30%", "low": "40%", "min-age": "0s"}));
    let refusal = "invalid image-gc: \\\"low\\\" (40%) must be below \\\"high\\\" (30%)";
    let plain = refusal.replace('\\', "");
    assert!(eventually(PATIENCE, || d.log().contains(refusal) || d.log().contains(&plain)), "{}", d.log());
    assert_eq!(names(&d).len(), 5);
    reload(&d, &json!({"high": "30%", "low": "20%", "min-age": "0s"}));
    assert!(eventually(PATIENCE, || used(&d) <= DISK / 5), "{} used; {:?}", used(&d), names(&d));
    assert!(names(&d).contains(&"e:1".to_owned()) && !names(&d).contains(&"a:1".to_owned()), "{:?}", names(&d));
    // And off again.
    reload(&d, &Value::Null);
    assert!(eventually(PATIENCE, || why(&d, "e:1").contains("collector: off")), "{}", why(&d, "e:1"));
    for name in ["f:1", "g:1", "h:1", "i:1"] {
        import(&d, name, &[]);
    }
    std::thread::sleep(Duration::from_secs(2));
    assert!(names(&d).len() >= 5, "{:?}", names(&d));
    d.finish();
}

/// What a pull still awaits counts as used: there is room before it comes.
#[test]
fn room_is_made_for_a_pull_before_it_arrives() {
    let d = daemon(&json!({"high": "70m", "low": "60m", "min-age": "0s", "interval": "1h"}));
    (0..8).for_each(|n| import(&d, &format!("old:{n}"), &[]));
    let registry = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5000");
    // It would take minutes.
    registry.slow(128 << 10);
    let size = 30 << 20;
    let _ = registry.image("big", "1", &Image::of_noise(&[size]));
    let mut pull = d.spawn(&["pull", "-q", "127.0.0.1:5000/big:1"]);
    assert!(eventually(PATIENCE, || names(&d).len() < 8), "nothing went; {} bytes are used", used(&d));
    assert!(registry.sent() < size as u64 / 2, "{} bytes had come", registry.sent());
    assert!(eventually(PATIENCE, || used(&d) + size as u64 <= (61 << 20) + registry.sent()), "{}", used(&d));
    pull.kill();
    drop(registry);
    d.finish();
}

#[test]
fn what_is_being_saved_stays() {
    let d = daemon(&json!({"high": "30%", "low": "20%", "min-age": "0s", "interval": "1s"}));
    import(&d, "saved:1", &[]);
    // The archive is asked for and not read, so the operation goes on.
    let mut saving = UnixStream::connect(d.socket()).unwrap();
    saving.write_all(b"GET /images/saved:1/get HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut first = [0; 64];
    saving.read_exact(&mut first).unwrap();
    assert!(why(&d, "saved:1").contains("it is being pulled, pushed, loaded or saved"), "{}", why(&d, "saved:1"));
    for name in ["a:1", "b:1", "c:1", "d:1"] {
        import(&d, name, &[]);
    }
    // A look in the middle of an import takes as many as are needed at that time.
    let room = eventually(PATIENCE, || names(&d).len() < 5 && used(&d) <= DISK * 30 / 100);
    assert!(room, "{} used; {:?}", used(&d), names(&d));
    assert!(names(&d).contains(&"saved:1".to_owned()), "{:?}", names(&d));
    let mut archive = Vec::new();
    saving.read_to_end(&mut archive).unwrap();
    assert!(archive.len() > FILE);
    drop(saving);
    // When that is done it goes like any other.
    reload(&d, &json!({"high": "2m", "low": "1m", "min-age": "0s", "interval": "1s"}));
    assert!(eventually(PATIENCE, || names(&d).is_empty()), "{:?}", names(&d));
    d.finish();
}

#[test]
fn wrong_rules_are_refused_at_start() {
    for (rules, why) in [
        (json!({"high": "85%"}), "invalid image-gc: \"low\" is missing"),
        (json!({"high": "85%", "low": "70%", "hgih": 1}), "invalid image-gc: unknown key \"hgih\""),
        (json!("85%"), "invalid image-gc: an object is expected, not \"85%\""),
    ] {
        let output = Options::new().config(&config(&rules)).refused();
        assert!(output.code == 1 && output.stderr.contains(why), "{why} in {output:?}");
    }
}
