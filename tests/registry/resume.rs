//! A pull that broke off goes on where it was: after a ctrl-c, after `kill -9` of the daemon, after cuts.

use std::time::Duration;

use testkit::Daemon;
use testkit::fake_registry::{Answer, FakeRegistry, Image, Reply};

use crate::{assert_nothing, eventually, kept};

/// The last is a tenth of all.
const LAYERS: [usize; 4] = [12 << 20, 12 << 20, 12 << 20, 4 << 20];

/// A pull that has come to nine tenths and will take minutes for the rest.
struct Pull {
    fake: FakeRegistry,
    /// Where the last layer comes from.
    slow: FakeRegistry,
    client: testkit::Running,
    /// Bytes of all layers.
    total: u64,
}

impl Pull {
    fn begin(d: &Daemon) -> Pull {
        let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
        let slow = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5002");
        let image = Image::of_noise(&LAYERS);
        let total = image.layers.iter().map(|layer| layer.len() as u64).sum();
        fake.image("app", "1", &image);
        let last = slow.blob(&image.layers[3]);
        slow.slow(32 << 10);
        fake.rule(move |seen| {
            let away = Answer::new(307, "").with("Location", &format!("http://127.0.0.1:5002{}", seen.path));
            seen.path.ends_with(&last).then_some(Reply::Send(away))
        });
        let client = d.spawn(&["pull", "127.0.0.1:5001/app:1"]);
        let pull = Pull { fake, slow, client, total };
        assert!(eventually(|| fetched(d) >= total / 10 * 9 && pull.slow.sent() > 0), "{} of {total}", fetched(d));
        pull
    }

    fn sent(&self) -> u64 {
        self.fake.sent() + self.slow.sent()
    }

    fn interrupt(&mut self) {
        assert!(testkit::process::signal(self.client.pid(), rustix::process::Signal::INT));
        // Whether an interrupt is a failure depends on where it meets the client: its code says nothing.
        let _ = self.client.end();
    }

    #[track_caller]
    fn goes_on(&self, d: &Daemon) {
        let before = self.sent();
        self.ends(d);
        let again = self.sent() - before;
        assert!(again <= self.total / 100 * 12, "{again} bytes of {} were transferred again", self.total);
    }

    /// Pulls the image as fast as it goes.
    #[track_caller]
    fn ends(&self, d: &Daemon) {
        self.slow.slow(0);
        let _ = d.docker(&["pull", "-q", "127.0.0.1:5001/app:1"]).ok();
        assert_eq!(kept(d), (6, 0, 4));
    }
}

/// Bytes of layers that are on the disk.
fn fetched(d: &Daemon) -> u64 {
    let parts = std::fs::read_dir(d.data_root().join("content/parts")).into_iter().flatten().flatten();
    parts.map(|part| part.metadata().map_or(0, |meta| meta.len())).sum()
}

#[test]
fn after_a_ctrl_c() {
    let d = Daemon::start();
    let mut pull = Pull::begin(&d);
    pull.interrupt();
    assert!(eventually(|| (kept(&d).0, kept(&d).2) == (0, 0)), "{:?}", kept(&d));
    assert_nothing(&d);
    // A piece is sent every half second.
    let stopped = eventually(|| {
        let sent = pull.sent();
        std::thread::sleep(Duration::from_secs(2));
        pull.sent() == sent
    });
    assert!(stopped, "the download goes on without a client");
    pull.goes_on(&d);
    drop(pull);
    d.finish();
}

#[test]
fn after_kill_9() {
    let mut d = Daemon::start();
    let mut pull = Pull::begin(&d);
    d.kill9();
    let _ = pull.client.end();
    d.again();
    assert_nothing(&d);
    pull.goes_on(&d);
    drop(pull);
    d.finish();
}

/// As the reference does: an image prune drops what is left of pulls, but nothing of one that goes on.
#[test]
fn a_prune_takes_what_is_left_of_a_pull() {
    let d = Daemon::start();
    let reclaimed = || d.http("POST", "/images/prune", "").expect(200).json()["SpaceReclaimed"].as_u64().unwrap();
    let layers = || d.http("GET", "/v1.51/system/df", "").expect(200).json()["LayersSize"].as_u64().unwrap_or(0);
    let mut pull = Pull::begin(&d);
    assert_eq!(reclaimed(), 0);
    pull.interrupt();
    let left = layers();
    assert!(left >= pull.total / 10 * 8, "{left} of {}", pull.total);
    let mut freed = 0;
    // The client's end is not yet the end of what it asked for.
    let all = eventually(|| {
        freed += reclaimed();
        kept(&d) == (0, 0, 0)
    });
    assert!(all && freed >= pull.total / 10 * 8, "{freed} bytes; {:?}", kept(&d));
    assert_eq!(layers(), 0);
    pull.ends(&d);
    drop(pull);
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

/// Where a registry, or what stands before it, makes nonsense of ranges, the blob comes from its beginning, within the
/// same pull; where it gives less than it was asked for, the rest is asked for.
#[test]
fn from_registries_that_know_no_ranges() {
    let d = Daemon::start();
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    let image = Image::of_noise(&[3 << 20]);
    let layer = image.layers[0].clone();
    fake.image("app", "1", &image);
    let size = layer.len();
    let partial = |from: usize, to: usize| {
        Answer::new(206, &layer[from..to]).with("Content-Range", &format!("bytes {from}-{}/{size}", to - 1))
    };
    let whole = size as u64;
    // What a request for the rest is answered, and the bytes that all of the layer may cost.
    let cases = [
        (Answer::new(200, layer.clone()), 2 * whole),
        (Answer::new(206, &layer[1 << 20..]), 3 * whole),
        (partial(500, size), 3 * whole),
        (partial(0, size), 3 * whole),
        (Answer::new(206, "--x\r\n\r\n--x--").with("Content-Type", "multipart/byteranges; boundary=x"), 2 * whole),
        (
            Answer::new(206, vec![0; 2 << 20]).with("Content-Range", &format!("bytes 1048576-{}/{size}", size - 1)),
            3 * whole,
        ),
        (Answer::new(416, ""), 2 * whole),
        (partial(1 << 20, 2 << 20), whole),
    ];
    for (answer, most) in cases {
        let (mut cut, mut told) = (false, false);
        let (shown, before) = (format!("{} {:?}", answer.status, answer.headers), fake.sent());
        fake.rule(move |seen| {
            let fetches = seen.method == "GET" && seen.path.contains("/blobs/");
            match (fetches, seen.header("range")) {
                // The configuration comes first.
                (true, "") if !cut => {
                    cut = true;
                    None
                }
                (true, "") if !told => Some(Reply::Cut(None, 1 << 20)),
                (true, "bytes=1048576-") if !told => {
                    told = true;
                    Some(Reply::Send(answer.clone()))
                }
                _ => None,
            }
        });
        let asked = fake.seen().len();
        let _ = d.docker(&["pull", "-q", "127.0.0.1:5001/app:1"]).ok();
        assert!(fake.seen()[asked..].iter().any(|seen| seen.header("range") == "bytes=1048576-"), "{shown}");
        let sent = fake.sent() - before;
        assert!(sent <= most + (1 << 16), "{shown}: {sent} bytes of {whole}");
        fake.behave();
        let _ = d.docker(&["rmi", "127.0.0.1:5001/app:1"]).ok();
        assert_nothing(&d);
    }
    drop(fake);
    d.finish();
}

/// A part that is not what it should be is noticed, and fetched anew.
#[test]
fn a_spoiled_part_is_fetched_anew() {
    let mut d = Daemon::start();
    let mut pull = Pull::begin(&d);
    d.kill9();
    let _ = pull.client.end();
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
    pull.ends(&d);
    drop(pull);
    d.finish();
}
