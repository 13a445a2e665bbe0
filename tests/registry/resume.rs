//! A pull that broke off goes on where it was: after a ctrl-c, after `kill -9` of the daemon, after cuts.

use std::time::Duration;

use testkit::Daemon;
use testkit::command::eventually;
use testkit::fake_registry::{FakeRegistry, Image, Reply};

use crate::{assert_nothing, kept};

const LAYERS: [usize; 4] = [8 << 20, 8 << 20, 8 << 20, 8 << 20];

/// A pull that has come to nine tenths, and the bytes of all its layers.
fn nearly_done(d: &Daemon) -> (FakeRegistry, testkit::Running, u64) {
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    let image = Image::of_noise(&LAYERS);
    let total = image.layers.iter().map(|layer| layer.len() as u64).sum();
    fake.image("app", "1", &image);
    fake.slow(6 << 20);
    let pulling = d.spawn(&["pull", "127.0.0.1:5001/app:1"]);
    assert!(eventually(Duration::from_secs(60), || fake.sent() >= total / 10 * 9), "{}", fake.sent());
    (fake, pulling, total)
}

#[track_caller]
fn goes_on(d: &Daemon, fake: &FakeRegistry, total: u64) {
    fake.slow(0);
    let before = fake.sent();
    let _ = d.docker(&["pull", "-q", "127.0.0.1:5001/app:1"]).ok();
    let again = fake.sent() - before;
    assert!(again <= total / 100 * 12, "{again} bytes of {total} were transferred again");
    assert_eq!(kept(d), (6, 0, 4));
}

#[test]
fn after_a_ctrl_c() {
    let d = Daemon::start();
    let (fake, mut pulling, total) = nearly_done(&d);
    assert!(testkit::process::signal(pulling.pid(), rustix::process::Signal::INT));
    assert_ne!(pulling.end().code, 0);
    std::thread::sleep(Duration::from_secs(1));
    assert_nothing(&d);
    let sent = fake.sent();
    std::thread::sleep(Duration::from_millis(300));
    assert!(fake.sent() - sent < 1 << 20, "the download goes on without a client");
    goes_on(&d, &fake, total);
    drop(fake);
    d.finish();
}

#[test]
fn after_kill_9() {
    let mut d = Daemon::start();
    let (fake, mut pulling, total) = nearly_done(&d);
    d.kill9();
    let _ = pulling.end();
    d.again();
    assert_nothing(&d);
    goes_on(&d, &fake, total);
    drop(fake);
    d.finish();
}

/// As the reference does: an image prune drops what is left of pulls, but nothing of one that goes on.
#[test]
fn a_prune_takes_what_is_left_of_a_pull() {
    let d = Daemon::start();
    let reclaimed = || d.http("POST", "/images/prune", "").expect(200).json()["SpaceReclaimed"].as_u64().unwrap();
    let layers = || d.http("GET", "/v1.51/system/df", "").expect(200).json()["LayersSize"].as_u64().unwrap_or(0);
    let (fake, mut pulling, total) = nearly_done(&d);
    assert_eq!(reclaimed(), 0);
    assert!(testkit::process::signal(pulling.pid(), rustix::process::Signal::INT));
    assert_ne!(pulling.end().code, 0);
    let left = layers();
    assert!(left >= total / 10 * 8, "{left} of {total}");
    let mut freed = 0;
    assert!(eventually(Duration::from_secs(10), || {
        freed += reclaimed();
        freed >= total / 10 * 8
    }));
    assert_eq!(kept(&d), (0, 0, 0));
    assert_eq!(layers(), 0);
    fake.slow(0);
    let _ = d.docker(&["pull", "-q", "127.0.0.1:5001/app:1"]).ok();
    assert_eq!(kept(&d), (6, 0, 4));
    drop(fake);
    d.finish();
}

#[test]
fn after_cuts_within_one_pull() {
    let d = Daemon::start();
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    fake.image("app", "1", &Image::of_noise(&[4 << 20]));
    let mut cuts = 0;
    fake.rule(move |seen| {
        let is_layer = seen.path.contains("/blobs/");
        cuts += usize::from(is_layer);
        (is_layer && (2..6).contains(&cuts)).then_some(Reply::Cut(None, 1 << 20))
    });
    let output = d.docker(&["pull", "127.0.0.1:5001/app:1"]).text();
    assert!(output.contains("Downloaded newer image"), "{output}");
    let ranges: Vec<_> = fake.seen().iter().map(|s| s.header("range").to_string()).filter(|r| !r.is_empty()).collect();
    assert!(ranges.len() >= 3, "{ranges:?}");
    assert!(fake.sent() < 5 << 20, "{}", fake.sent());
    drop(fake);
    d.finish();
}

/// A part that is not what it should be is noticed, and fetched anew.
#[test]
fn a_spoiled_part_is_fetched_anew() {
    let mut d = Daemon::start();
    let (fake, mut pulling, _) = nearly_done(&d);
    d.kill9();
    let _ = pulling.end();
    let parts: Vec<_> = std::fs::read_dir(d.data_root().join("content/parts")).unwrap().flatten().collect();
    assert!(!parts.is_empty());
    for part in parts {
        let mut bytes = std::fs::read(part.path()).unwrap();
        if let Some(first) = bytes.get_mut(100) {
            *first ^= 1;
        }
        std::fs::write(part.path(), bytes).unwrap();
    }
    d.again();
    fake.slow(0);
    let _ = d.docker(&["pull", "-q", "127.0.0.1:5001/app:1"]).ok();
    assert_eq!(kept(&d), (6, 0, 4));
    drop(fake);
    d.finish();
}
