//! Results and caches of builds in a registry, as the real client asks for them.

use std::fs;

use serde_json::Value;
use testkit::command::Output;
use testkit::{Daemon, buildx, command, places};

use crate::server::{Server, Setup};

const ONE: &str = "FROM busybox\nWORKDIR /w\nCOPY f d/\nRUN echo ran > /ran\n";
const BOTH: &str = "FROM scratch\nCOPY f /\n";

/// A daemon with an image and the plugin, and a directory to build.
fn with_context(dockerfile: &str) -> Daemon {
    let d = Daemon::start();
    d.busybox();
    buildx::install(&d);
    fs::create_dir_all(d.path("context")).unwrap();
    fs::write(d.path("context/Dockerfile"), dockerfile).unwrap();
    fs::write(d.path("context/f"), "1").unwrap();
    d
}

fn build(d: &Daemon, words: &[&str]) -> Output {
    let context = d.path("context");
    command::run(&mut buildx::build(d, &[words, &[context.to_str().unwrap()]].concat()), b"")
}

/// The client within the daemon's network: it asks the registry itself.
fn inside(d: &Daemon, words: &[&str]) -> Output {
    let mut command = d.namespaces().command(places::docker());
    command.args(words).env("DOCKER_HOST", format!("unix://{}", d.socket().display()));
    command.env("DOCKER_CONFIG", d.path("cli")).env("HOME", d.path("cli"));
    command::run(&mut command, b"")
}

fn prune(d: &Daemon) {
    let _ = command::run(&mut buildx::client(d, &["buildx", "prune", "-af"]), b"").ok();
    let _ = d.docker(&["image", "prune", "-f"]).ok();
}

/// How many steps of the Dockerfile were not run.
fn cached(output: &Output) -> usize {
    output.stderr.lines().filter(|line| line.starts_with('#') && line.ends_with(" CACHED")).count()
}

#[test]
fn a_result_is_pushed_with_the_credentials_of_the_client() {
    let d = with_context(BOTH);
    let registry = Setup::default().password(&d, "me", "secret").start(&d);
    let name = registry.name("app:1");
    let (said, output) = (d.path("metadata.json"), format!("--metadata-file={}", d.path("metadata.json").display()));
    let words = ["--platform=linux/amd64,linux/arm64", "--push", "--provenance=mode=max", &output, "-t", &name];
    let refused = build(&d, &words);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("failed to push"), "{}", refused.stderr);
    let _ = d.docker(&["login", "-u", "me", "-p", "secret", registry.address()]).ok();
    let pushed = build(&d, &words).ok();
    assert!(pushed.stderr.contains("pushing manifest for"), "{}", pushed.stderr);
    let said: Value = serde_json::from_slice(&fs::read(said).unwrap()).unwrap();
    let digest = said["containerimage.digest"].as_str().unwrap();
    let inspected = inside(&d, &["buildx", "imagetools", "inspect", &name]).ok();
    for part in [digest, "linux/amd64", "linux/arm64", "attestation-manifest"] {
        assert!(inspected.stdout.contains(part), "{part}\n{}", inspected.stdout);
    }
    let provenance = inside(&d, &["buildx", "imagetools", "inspect", &name, "--format", "{{json .Provenance}}"]).ok();
    assert!(
        provenance.stdout.contains("linux/arm64") && provenance.stdout.contains("buildkit"),
        "{}",
        provenance.stdout
    );
    // What was pushed is what is here, and can be pulled.
    assert_eq!(d.inspect(&name, "{{.Id}}"), digest);
    let _ = d.docker(&["rmi", &name]).ok();
    assert!(d.docker(&["pull", &name]).ok().stdout.contains(digest));
    // Under no tag, and of a registry that is not there.
    let output = format!("--output=type=registry,name={}", registry.name("other:2"));
    let _ = build(&d, &[&output]).ok();
    let _ = inside(&d, &["buildx", "imagetools", "inspect", &registry.name("other:2")]).ok();
    let failed = build(&d, &["--push", "-t", "127.0.0.1:9/x"]);
    assert!(failed.code != 0 && failed.stderr.contains("failed to push 127.0.0.1:9/x"), "{}", failed.stderr);
    drop(registry);
    d.finish();
}

#[test]
fn a_cache_in_a_registry_saves_the_steps() {
    let d = with_context(ONE);
    let registry = Server::plain(&d);
    let name = registry.name("cache:1");
    for more in
        ["mode=max", "mode=min", "mode=max,image-manifest=true,oci-mediatypes=true", "mode=max,compression=zstd"]
    {
        prune(&d);
        let _ = build(&d, &[&format!("--cache-to=type=registry,ref={name},{more}")]).ok();
        prune(&d);
        let read = build(&d, &[&format!("--cache-from=type=registry,ref={name}")]).ok();
        assert!(cached(&read) >= 3, "{more}\n{}", read.stderr);
    }
    let missing = build(&d, &[&format!("--cache-from={}", registry.name("none:1"))]).ok();
    assert!(missing.stderr.contains("importing cache manifest from"), "{}", missing.stderr);
    drop(registry);
    d.finish();
}

#[test]
fn an_image_in_a_registry_has_the_cache_of_its_steps() {
    let d = with_context(ONE);
    let registry = Server::plain(&d);
    let name = registry.name("app:1");
    let pushed = build(&d, &["--push", "--cache-to=type=inline", "-t", &name]).ok();
    assert!(pushed.stderr.contains("pushing manifest for"), "{}", pushed.stderr);
    let _ = d.docker(&["rmi", &name]).ok();
    prune(&d);
    let read = build(&d, &[&format!("--cache-from={name}"), "-t", "again"]).ok();
    assert!(cached(&read) >= 3, "{}", read.stderr);
    assert_eq!(d.docker(&["run", "--rm", "again", "cat", "/ran"]).text(), "ran");
    drop(registry);
    d.finish();
}
