//! Images whose parts are named by SHA-512: pulled, loaded, run, saved, pushed and checked like any other.

use serde_json::{Value, json};
use testkit::Daemon;
use testkit::fake_registry::{Answer, FakeRegistry, Image, Reply};
use testkit::images::{Tar, busybox_tar, digest};
use testkit::layouts::Layout;

use crate::{assert_nothing, eventually};

const NAME: &str = "127.0.0.1:5001/app";

fn image() -> Image {
    let who = Tar::new().file("who", 0o644, b"sha512").bytes();
    Image::hashed_by("sha512", &[busybox_tar(), who], &json!({"Cmd": ["cat", "/who"]}), "amd64")
}

/// How many blobs of an algorithm are here.
fn blobs(d: &Daemon, algorithm: &str) -> usize {
    std::fs::read_dir(d.data_root().join("content/blobs").join(algorithm)).unwrap().count()
}

#[test]
fn an_image_is_pulled_by_tag_and_by_digest_and_pushed() {
    let d = Daemon::start();
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    let id = fake.image("app", "1", &image());
    let tagged = format!("{NAME}:1");
    assert!(d.docker(&["pull", &tagged]).text().contains(&format!("Digest: {id}")));
    assert_eq!(d.inspect(&tagged, "{{.Id}} {{index .RepoDigests 0}}"), format!("{id} {NAME}@{id}"));
    assert_eq!(d.docker(&["run", "--rm", &tagged]).text(), "sha512");
    assert_eq!((blobs(&d, "sha512"), blobs(&d, "sha256")), (4, 0));
    assert_eq!(d.faults(), [""; 0]);
    // Everything is here: nothing is fetched again.
    let sent = fake.sent();
    assert!(d.docker(&["pull", &tagged]).text().contains("Image is up to date"));
    assert_eq!(fake.sent(), sent);
    let short = &id["sha512:".len()..][..12];
    for name in [id.as_str(), short, &id[..20], &format!("{NAME}@{id}")] {
        assert_eq!(d.inspect(name, "{{.Id}}"), id, "{name}");
    }
    let _ = d.docker(&["tag", short, &format!("{NAME}:2")]).ok();
    let output = d.docker(&["push", &format!("{NAME}:2")]).ok().stdout;
    assert!(output.contains("2: digest: sha"), "{output}");
    let _ = d.docker(&["rmi", "-f", &id]).ok();
    assert_nothing(&d);
    assert_eq!(blobs(&d, "sha512"), 0);
    let by_digest = format!("{NAME}@{id}");
    let _ = d.docker(&["pull", "-q", &by_digest]).ok();
    assert_eq!(d.docker(&["run", "--rm", &by_digest]).text(), "sha512");
    let wrong = format!("{NAME}@{}", digest("sha512", b"other"));
    d.docker(&["pull", &wrong]).fails(1, "not found");
    drop(fake);
    d.finish();
}

/// What is pushed to a registry without anything of it can be pulled from there.
#[test]
fn blobs_are_uploaded_under_their_digests() {
    let d = Daemon::start();
    let mut layout = Layout::hashed_by("sha512");
    let first = layout.image("linux/amd64", &[busybox_tar()], &json!({"Cmd": ["echo", "one"]}));
    let about = layout.attestation(&first, &[("https://example.com/p", json!({"a": 1}))]);
    let index = layout.index(&[first, about]);
    let name = format!("{NAME}:1");
    d.load(&layout.entry(&index, &[("io.containerd.image.name", &name)]).tar());
    let id = index["digest"].as_str().unwrap();
    assert_eq!(d.inspect(&name, "{{.Id}}"), id);
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    let _ = d.docker(&["push", "-q", &name]).ok();
    let pushed = fake.seen().iter().filter(|seen| seen.method == "PUT" && seen.path.contains("sha512")).count();
    assert!(pushed >= 4, "{pushed}");
    let saved = d.docker(&["save", "-o", &d.path("saved.tar").display().to_string(), &name]);
    let _ = saved.ok();
    let list = d.exec_inside(&["tar", "tf", &d.path("saved.tar").display().to_string()]).ok().stdout;
    assert!(list.contains(&format!("blobs/{}\n", id.replace(':', "/"))), "{list}");
    let _ = d.docker(&["rmi", "-f", id]).ok();
    assert_nothing(&d);
    let _ = d.docker(&["load", "-i", &d.path("saved.tar").display().to_string()]).ok();
    assert_eq!(d.inspect(&name, "{{.Id}}"), id);
    assert_eq!(d.docker(&["run", "--rm", &name]).text(), "one");
    let _ = d.docker(&["rmi", "-f", id]).ok();
    let _ = d.docker(&["pull", "-q", &name]).ok();
    assert_eq!(d.docker(&["run", "--rm", &name]).text(), "one");
    assert_eq!(d.faults(), [""; 0]);
    drop(fake);
    d.finish();
}

#[test]
fn content_that_is_not_what_its_digest_says_is_refused() {
    let d = Daemon::start();
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    let image = image();
    fake.image("app", "1", &image);
    let name = format!("{NAME}:1");
    let layer = digest("sha512", &image.layers[1]);
    let mut spoiled = image.layers[1].clone();
    *spoiled.last_mut().unwrap() ^= 1;
    fake.blob_as(&layer, &spoiled);
    d.docker(&["pull", &name]).fails(1, &format!("expected {layer}: failed precondition"));
    assert_nothing(&d);
    fake.image("app", "1", &image);
    let other = [&image.manifest[..], b" "].concat();
    fake.rule(move |seen| {
        let by_digest = seen.method == "GET" && seen.path.contains("/manifests/sha512:");
        by_digest.then(|| Reply::Send(Answer::new(200, other.clone())))
    });
    d.docker(&["pull", &name]).fails(1, "manifest verification failed for digest sha512:");
    fake.behave();
    // A digest of the right algorithm for the wrong layer.
    let tar = Tar::new().file("x", 0o644, b"x").bytes();
    let mut lying = Image::hashed_by("sha512", &[tar], &json!({}), "amd64");
    let config: Value = serde_json::from_slice(&lying.config).unwrap();
    let mut config = config;
    config["rootfs"]["diff_ids"] = json!([digest("sha512", b"another")]);
    let (before, after) = (digest("sha512", &lying.config), config.to_string().into_bytes());
    let (old, new) = (lying.config.len().to_string(), after.len().to_string());
    let manifest = String::from_utf8(lying.manifest.clone()).unwrap();
    let manifest = manifest
        .replace(&before, &digest("sha512", &after))
        .replace(&format!("\"size\":{old}"), &format!("\"size\":{new}"));
    (lying.config, lying.manifest) = (after, manifest.into_bytes());
    fake.image("app", "1", &lying);
    d.docker(&["pull", &name]).fails(1, "wrong diff id calculated on extraction");
    assert!(eventually(|| d.docker(&["images", "-q"]).text().is_empty()));
    drop(fake);
    d.finish();
}

/// An archive with parts by both algorithms; a file that is not what its name says is refused.
#[test]
fn an_archive_that_lies_is_refused() {
    let d = Daemon::start();
    let name = digest("sha512", b"other").replace(':', "/");
    let tar = Tar::new()
        .file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", 0o644, br#"{"schemaVersion":2,"manifests":[]}"#)
        .file(&format!("blobs/{name}"), 0o644, b"this")
        .bytes();
    d.docker_input(&["load"], &tar).fails(1, "unexpected commit digest sha512:");
    assert_nothing(&d);
    d.finish();
}
