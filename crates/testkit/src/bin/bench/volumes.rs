//! `gantry-bench volumes`: starts with many mounts against starts with none, lists of many volumes, what a new volume takes over from its image,
//! trees copied in and out of a container; beside another engine when its socket is given.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use testkit::http::Connection;
use testkit::{Daemon, images as kit};

use crate::engine::{Client, Engine, Network, micros};
use crate::figures::{Figures, Samples};
use crate::memory::mib;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Starts of each kind.
    starts: usize,
    /// Volumes of the list.
    volumes: usize,
    /// Files that a volume takes over.
    files: usize,
    /// Files of 1 MiB of the tree that is copied.
    tree: usize,
}

/// Full size.
pub const FULL: Scale = Scale { starts: 120, volumes: 1000, files: 10_000, tree: 1024 };
/// A part of it.
pub const QUICK: Scale = Scale { starts: 30, volumes: 1000, files: 2000, tree: 128 };

/// Mounts of one container.
const MOUNTS: usize = 20;
/// Rounds of what takes seconds.
const ROUNDS: usize = 3;

/// Everything.
pub fn run(scale: Scale, other: Option<&str>, figures: &mut Figures) {
    let daemon = Daemon::start();
    daemon.probe();
    let own = Engine::open(&daemon.socket());
    let other = other.map(|address| {
        let engine = Engine::open(address.trim_start_matches("unix://").as_ref());
        engine.load(kit::probe_archive());
        engine
    });
    starts(scale, &own, figures);
    list(scale, &own, figures);
    let all = [Some(&own), other.as_ref()];
    let engines: Vec<&Engine> = all.into_iter().flatten().collect();
    copy_up(scale, &engines, figures);
    trees(scale, &daemon, &engines, figures);
    daemon.finish();
}

/// What is mounted, for HostConfig.
fn binds(kind: &str) -> String {
    let source = |n: usize| match kind {
        "volumes" => format!("bench-{n}"),
        _ => "/tmp".to_owned(),
    };
    let all: Vec<_> = (0..MOUNTS).map(|n| format!("\"{}:/m{n}\"", source(n))).collect();
    format!(r#","Binds":[{}]"#, all.join(","))
}

fn starts(scale: Scale, own: &Engine, figures: &mut Figures) {
    let mut client = own.connect();
    let kinds = [("none", String::new()), ("volumes", binds("volumes")), ("binds", binds("binds"))];
    let mut found = vec![Vec::new(); kinds.len()];
    // The first use of a volume is made durable: it is no start like the others.
    for round in 0..=scale.starts {
        for (times, (_, more)) in found.iter_mut().zip(&kinds) {
            let id = client.create(&["true"], Network::None, more);
            let begin = Instant::now();
            client.start(&id);
            let time = micros(begin);
            client.wait(&id);
            client.remove(&id);
            if round > 0 {
                times.push(time);
            }
        }
    }
    let p50: Vec<f64> = found.iter().map(|times| Samples::new(times.clone()).percentile(50.0)).collect();
    for (times, (kind, _)) in found.into_iter().zip(&kinds) {
        figures.time(&format!("start, {MOUNTS} mounts: {kind}"), &Samples::new(times));
    }
    for at in [1, 2] {
        let name = format!("start, {MOUNTS} {}: more than none", kinds[at].0);
        figures.at_most(&name, (p50[at] - p50[0]) / 1000.0, "ms", Some(2.0));
    }
    (0..MOUNTS).for_each(|n| client.delete(&format!("/v1.41/volumes/bench-{n}")));
}

fn list(scale: Scale, own: &Engine, figures: &mut Figures) {
    let mut client = own.connect();
    for n in 0..scale.volumes {
        client.post("/v1.41/volumes/create", &format!(r#"{{"Name":"many-{n}"}}"#), 201);
    }
    let times = (0..50).map(|_| {
        let begin = Instant::now();
        client.get("/v1.41/volumes");
        micros(begin)
    });
    figures.time_within(&format!("list of {} volumes", scale.volumes), &Samples::new(times.collect()), 50.0, 10.0);
    (0..scale.volumes).for_each(|n| client.delete(&format!("/v1.41/volumes/many-{n}")));
}

/// An image with many files in one directory.
fn with_files(engine: &Engine, count: usize) {
    let mut tar = kit::Tar::new().dir("many", 0o755);
    for n in 0..count {
        tar = tar.file(&format!("many/{n}"), 0o644, format!("file number {n}\n").repeat(20).as_bytes());
    }
    let bytes = tar.bytes();
    let head = format!(
        "POST /v1.41/images/create?fromSrc=-&repo=many&tag=latest HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    let mut connection = Connection::open(engine.socket()).expect("the engine accepts");
    connection.send(head.as_bytes()).and_then(|()| connection.send(&bytes)).expect("the engine takes the archive");
    let head = connection.head().expect("the engine answers");
    connection.body(&head).expect("the answer is whole");
    assert_eq!(head.status, 200, "importing the image");
}

fn copy_up(scale: Scale, engines: &[&Engine], figures: &mut Figures) {
    let mut p50 = Vec::new();
    for (name, engine) in ["", "other: "].into_iter().zip(engines) {
        with_files(engine, scale.files);
        let mut client = engine.connect();
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let body = r#"{"Image":"many","Cmd":["/x"],"HostConfig":{"NetworkMode":"none","Binds":["copied:/many"]}}"#;
            let begin = Instant::now();
            let made = client.post("/v1.41/containers/create", body, 201);
            times.push(micros(begin));
            client.remove(made["Id"].as_str().expect("an id"));
            client.delete("/v1.41/volumes/copied");
        }
        let times = Samples::new(times);
        p50.push(times.percentile(50.0));
        figures.time(&format!("{name}copy-up of {} files", scale.files), &times);
    }
    if let [own, reference] = p50[..] {
        figures.at_least("copy-up: times faster", reference / own, Some(2.0));
    }
}

/// A tar of a tree, as a file.
fn tree(dir: &Path, files: usize) -> std::path::PathBuf {
    let path = dir.join("tree.tar");
    let mut out = File::create(&path).expect("a file");
    let one = vec![b'x'; 1 << 20];
    for n in 0..files {
        // Each archive ends where the next begins.
        let bytes = kit::Tar::new().file(&format!("tree/{}/{n}", n % 16), 0o644, &one).bytes();
        out.write_all(&bytes[..bytes.len() - 1024]).expect("a file");
    }
    out.write_all(&[0; 1024]).expect("a file");
    path
}

/// Seconds that a tree takes in, and out.
fn in_and_out(engine: &Engine, client: &mut Client, archive: &Path) -> (f64, f64) {
    let id = client.create(&["true"], Network::None, "");
    let mut connection = Connection::open(engine.socket()).expect("the engine accepts");
    let size = std::fs::metadata(archive).expect("a file").len();
    let begin = Instant::now();
    let head =
        format!("PUT /v1.41/containers/{id}/archive?path=/ HTTP/1.1\r\nHost: d\r\nContent-Length: {size}\r\n\r\n");
    connection.send(head.as_bytes()).expect("the engine listens");
    let (mut file, mut buffer) = (File::open(archive).expect("a file"), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).expect("a file") {
            0 => break,
            n => connection.send(&buffer[..n]).expect("the engine takes the archive"),
        }
    }
    assert_eq!(connection.head().expect("the engine answers").status, 200);
    let into = begin.elapsed().as_secs_f64();
    let mut connection = Connection::open(engine.socket()).expect("the engine accepts");
    let begin = Instant::now();
    let request = format!("GET /v1.41/containers/{id}/archive?path=/tree HTTP/1.1\r\nHost: d\r\n\r\n");
    connection.send(request.as_bytes()).expect("the engine listens");
    assert_eq!(connection.head().expect("the engine answers").status, 200);
    let mut bytes = 0;
    while let Some(chunk) = connection.chunk().expect("the answer is whole") {
        bytes += chunk.len() as u64;
    }
    let out = begin.elapsed().as_secs_f64();
    assert!(bytes >= size - (1 << 20), "{bytes} of {size} bytes");
    client.remove(&id);
    (into, out)
}

fn trees(scale: Scale, daemon: &Daemon, engines: &[&Engine], figures: &mut Figures) {
    let dir = tempfile::Builder::new().prefix("gt-bench").tempdir_in("/tmp").expect("a directory in /tmp");
    let archive = tree(dir.path(), scale.tree);
    let (mut into, mut out) = (vec![Vec::new(); engines.len()], vec![Vec::new(); engines.len()]);
    for _ in 0..ROUNDS {
        for (at, engine) in engines.iter().enumerate() {
            let (taken, given) = in_and_out(engine, &mut engine.connect(), &archive);
            into[at].push(taken * 1e6);
            out[at].push(given * 1e6);
        }
    }
    for (what, times) in [("into", &into), ("out of", &out)] {
        let p50: Vec<f64> = times.iter().map(|times| Samples::new(times.clone()).percentile(50.0)).collect();
        for (name, times) in ["", "other: "].into_iter().zip(times) {
            figures.time(&format!("{name}{} MiB {what} a container", scale.tree), &Samples::new(times.clone()));
        }
        if let [own, reference] = p50[..] {
            figures.at_least(&format!("{what} a container: times faster"), reference / own, Some(1.5));
        }
    }
    figures.at_most("daemon at most, with trees", mib(daemon.pid(), "status", "VmHWM:"), "MB", Some(40.0));
}
