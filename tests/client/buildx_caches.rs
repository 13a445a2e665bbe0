//! Caches in directories of the client, as the real client writes and reads them.

use std::fs;
use std::path::Path;

use testkit::command::Output;
use testkit::{Daemon, buildx, command};

use crate::build_context::Context;
use crate::buildx::{new_context, steps, with_buildx};

/// A step of which the result has a file only, and those of the result.
const FILE: &str = "FROM busybox AS make\nRUN echo made > /made\nFROM busybox\nWORKDIR /w\nCOPY f d/\nCOPY --from=make /made /made\nRUN echo ran > /ran\n";

/// Forgets what was built.
pub fn prune(d: &Daemon) {
    let _ = command::run(&mut buildx::client(d, &["buildx", "prune", "-af"]), b"").ok();
}

/// Steps with a line of the Dockerfile that were not run.
pub fn cached(output: &Output) -> Vec<String> {
    steps(output, "CACHED").into_iter().filter(|name| name.contains("RUN") || name.contains("COPY")).collect()
}

fn context(d: &Daemon, name: &str) -> Context {
    new_context(d, name, FILE).file("f", "1")
}

#[test]
fn a_cache_in_a_directory_saves_the_steps() {
    let d = with_buildx();
    let context = context(&d, "cached");
    for (mode, all) in [("min", false), ("max", true)] {
        let dir = d.path(mode);
        let to = format!("--cache-to=type=local,dest={},mode={mode}", dir.display());
        let from = format!("--cache-from=type=local,src={}", dir.display());
        prune(&d);
        let written = context.build(&d, &[&to]).ok();
        assert!(written.stderr.contains("exporting cache to client directory"), "{}", written.stderr);
        assert!(fs::read_to_string(dir.join("index.json")).unwrap().contains("sha256:"));
        prune(&d);
        let read = context.build(&d, &[&from]).ok();
        let found = cached(&read);
        assert!(read.stderr.contains("importing cache manifest from local:"), "{}", read.stderr);
        let has = |word: &str| found.iter().any(|name| name.contains(word));
        assert!(has("RUN echo ran") && has("COPY f") && has("COPY --from=make"), "{found:?}\n{}", read.stderr);
        assert_eq!(has("RUN echo made"), all, "{found:?}\n{}", read.stderr);
        // Twice the same: what is there is not written again.
        let _ = context.build(&d, &[&to]).ok();
    }
    // One that is not there is no failure, and no cache.
    prune(&d);
    let none = d.path("none");
    fs::create_dir_all(&none).unwrap();
    let none = context.build(&d, &[&format!("--cache-from=type=local,src={}", none.display())]).ok();
    assert_eq!(cached(&none), Vec::<String>::new());
    d.finish();
}

/// Flips bytes in the middle of every blob that is no document.
fn spoil(dir: &Path) {
    for entry in fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if bytes[0] != b'{' {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn layers_of_a_cache_that_are_not_what_they_are_said_to_be_are_not_taken() {
    let d = with_buildx();
    let context = context(&d, "spoilt");
    let dir = d.path("spoilt-cache");
    let _ = context.build(&d, &[&format!("--cache-to=type=local,dest={},mode=max", dir.display())]).ok();
    prune(&d);
    let _ = d.docker(&["image", "prune", "-f"]).ok();
    spoil(&dir);
    let from = format!("--cache-from=type=local,src={}", dir.display());
    let built = context.build(&d, &[&from, "-t", "spoilt"]).ok();
    assert_eq!(cached(&built), Vec::<String>::new(), "{}", built.stderr);
    assert_eq!(d.docker(&["run", "--rm", "spoilt", "cat", "/ran", "/made"]).text(), "ran\nmade");
    d.finish();
}

/// Of these kinds the client sends one only to a daemon, without an account; the others it leaves out.
#[test]
fn caches_of_other_kinds_are_refused_by_name() {
    let d = with_buildx();
    let context = context(&d, "kinds");
    let refused = context.build(&d, &["--cache-to=type=azblob,name=n,account_url=http://127.0.0.1:9"]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("failed to solve: unknown cache exporter: \"azblob\""), "{}", refused.stderr);
    d.finish();
}

/// A cache that BuildKit 0.13 has written (Docker 26.1.5, with containerd's store), and the directory that was built.
#[test]
fn a_cache_of_buildkit_saves_the_steps() {
    let d = with_buildx();
    let archive = d.path("buildkit-cache.tar.gz");
    fs::write(&archive, include_bytes!("data/buildkit-cache.tar.gz")).unwrap();
    let _ = command::run(std::process::Command::new("tar").arg("xpfC").arg(&archive).arg(d.path("")), b"").ok();
    let from = format!("--cache-from=type=local,src={}", d.path("cache").display());
    let context = d.path("context");
    let words = ["--platform=linux/amd64", "--provenance=false", "-t", "exchanged", &from, context.to_str().unwrap()];
    let built = command::run(&mut buildx::build(&d, &words), b"").ok();
    let ran: Vec<&str> = built
        .stderr
        .lines()
        .filter(|line| line.contains("] RUN") || line.contains("] COPY") || line.contains("] WORKDIR"))
        .collect();
    let found = steps(&built, "CACHED").len();
    assert!(ran.len() >= 9 && found >= ran.len(), "{found} of {ran:?}\n{}", built.stderr);
    d.finish();
}
