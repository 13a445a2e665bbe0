//! `save`, `load` and `images`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use serde_json::json;
use testkit::Daemon;
use testkit::images::{Tar, sha256};

use super::make::Made;
use super::registry::ADDRESS;
use super::side::{Side, in_turn};
use crate::engine::micros;
use crate::figures::{Figures, Samples};

/// Bytes sent at once.
const PIECE: usize = 1 << 20;
/// Images of one archive.
const ARCHIVE: usize = 1000;

/// Saves an image that was pulled to a file and loads it; every engine loads the archive that Gantry wrote. Answers Gantry's peak.
pub fn save_and_load(rounds: usize, sides: &[&Side], image: &Made, figures: &mut Figures) -> f64 {
    let dir = tempfile::Builder::new().prefix("gt-save").tempdir_in("/tmp").expect("a directory in /tmp");
    let name = image.shape.name;
    let archive = dir.path().join("archive");
    save(sides[0], name, &archive);
    let saving = in_turn(rounds, sides, |side, _| side.cost(|| save(side, name, &dir.path().join("out"))));
    super::report("save", sides, &saving, (2.0, None), figures);
    for side in sides {
        side.remove(name, 1);
    }
    let loading = in_turn(rounds, sides, |side, _| {
        let cost = side.cost(|| load(side, &archive));
        side.remove(name, 1);
        cost
    });
    super::report("load", sides, &loading, (2.0, None), figures);
    saving[0].peak.max(loading[0].peak)
}

fn save(side: &Side, name: &str, to: &Path) {
    let mut out = File::create(to).expect("a fresh directory can be filled");
    let mut connection = side.connect();
    let request = format!("GET /v1.41/images/{ADDRESS}/{name}:1/get HTTP/1.1\r\nHost: d\r\n\r\n");
    connection.send(request.as_bytes()).expect("the engine listens");
    let head = connection.head().expect("the engine answers");
    assert_eq!(head.status, 200, "saving {name}");
    while let Some(chunk) = connection.chunk().expect("the archive comes in chunks") {
        out.write_all(&chunk).expect("there is room for the archive");
    }
}

fn load(side: &Side, archive: &Path) {
    let mut file = File::open(archive).expect("the archive was saved");
    let length = file.metadata().expect("the archive was saved").len();
    let mut connection = side.connect();
    let head = format!(
        "POST /v1.41/images/load?quiet=1 HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nContent-Length: {length}\r\n\r\n"
    );
    connection.send(head.as_bytes()).expect("the engine listens");
    let mut buffer = vec![0; PIECE];
    loop {
        let n = file.read(&mut buffer).expect("the archive can be read");
        if n == 0 {
            break;
        }
        connection.send(&buffer[..n]).expect("the engine takes the archive");
    }
    let head = connection.head().expect("the engine answers");
    let text = String::from_utf8_lossy(&connection.body(&head).expect("the answer is whole")).into_owned();
    assert!(head.status == 200 && text.contains("Loaded image"), "{} {text}", head.status);
}

/// `GET /images/json` over many images, each with a name and a configuration of its own.
pub fn list(count: usize, daemon: &Daemon, figures: &mut Figures) {
    let begun = Instant::now();
    for first in (0..count).step_by(ARCHIVE) {
        daemon.load(&many(first..count.min(first + ARCHIVE)));
    }
    figures.at_most(&format!("{count} images loaded"), begun.elapsed().as_secs_f64(), "s", None);
    let mut client = daemon.connection();
    let mut times = Vec::new();
    for _ in 0..40 {
        let begin = Instant::now();
        let answer = client.request("GET", "/v1.45/images/json", "").expect(200);
        times.push(micros(begin));
        assert!(answer.body.windows(5).filter(|w| *w == b"\"Id\":").count() >= count, "all are listed");
    }
    figures.time_within(&format!("images, {count} of them"), &Samples::new(times), 50.0, 20.0);
}

/// An archive of many small images.
fn many(numbers: std::ops::Range<usize>) -> Vec<u8> {
    let layer = Tar::new().file("a", 0o644, b"a").bytes();
    let layer_name = format!("{}/layer.tar", sha256(&layer));
    let mut archive = Tar::new().file(&layer_name, 0o644, &layer);
    let mut entries = Vec::new();
    for n in numbers {
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
            "created": format!("2020-01-01T00:{:02}:{:02}Z", n / 60 % 60, n % 60),
            "config": {"Cmd": ["sh"], "Labels": {"number": n.to_string(), "org.opencontainers.image.title": "many"}},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
        })
        .to_string();
        let name = format!("{}.json", sha256(config.as_bytes()));
        archive = archive.file(&name, 0o644, config.as_bytes());
        entries.push(json!({"Config": name, "RepoTags": [format!("bench/many{n}:1")], "Layers": [layer_name]}));
    }
    archive.file("manifest.json", 0o644, json!(entries).to_string().as_bytes()).bytes()
}
