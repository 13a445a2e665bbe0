//! Pulls that broke off at nine tenths: what the second try transfers again.

use std::time::Duration;

use testkit::command::eventually;
use testkit::fake_registry::{FakeRegistry, Image};
use testkit::{Connection, Daemon};

use crate::figures::Figures;

/// Where the throttled registry listens: the kit's own, because Debian's cannot be slowed down and does not count.
const ADDRESS: &str = "127.0.0.1:5001";
const LAYERS: [usize; 10] = [8 << 20; 10];
/// Bytes per second of one download at first.
const RATE: u64 = 12 << 20;
/// Percent that may be transferred again.
const AGAIN: f64 = 12.0;

/// By a client that leaves, and by a daemon that is killed.
pub fn off(figures: &mut Figures) {
    for (name, kill) in [("client gone", false), ("kill -9", true)] {
        let mut daemon = Daemon::start();
        let registry = FakeRegistry::inside(daemon.namespaces(), ADDRESS);
        let image = Image::of_noise(&LAYERS);
        let total: u64 = image.layers.iter().map(|layer| layer.len() as u64).sum();
        registry.image("app", "1", &image);
        registry.slow(RATE);
        let mut client = daemon.connection();
        let path = format!("/images/create?fromImage={ADDRESS}/app&tag=1");
        let request = format!("POST {path} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n");
        client.send(request.as_bytes()).expect("the daemon listens");
        assert!(eventually(Duration::from_secs(120), || registry.sent() >= total / 10 * 9), "{}", registry.sent());
        if kill {
            daemon.kill9();
            drop(client);
            daemon.again();
        } else {
            drop(client);
            // The daemon notices that nobody listens.
            std::thread::sleep(Duration::from_secs(1));
        }
        registry.slow(0);
        let before = registry.sent();
        pull(&mut daemon.connection(), &path);
        let again = (registry.sent() - before) as f64 * 100.0 / total as f64;
        figures.at_most(&format!("broken off at 90 %, {name}: sent again"), again, "%", Some(AGAIN));
        drop(registry);
        daemon.finish();
    }
}

fn pull(client: &mut Connection, path: &str) {
    let text = client.request("POST", path, "").expect(200).text();
    assert!(text.contains("Downloaded newer image"), "{text}");
}
