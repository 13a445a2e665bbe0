//! Pulling: what users see, platforms, digests, all tags, one fetch for several clients.

use serde_json::json;
use testkit::Daemon;
use testkit::fake_registry::{FakeRegistry, INDEX, Image, MANIFEST, descriptor, noise};
use testkit::images::Tar;

use crate::server::Server;
use crate::{assert_nothing, eventually, kept};

fn image(content: &str) -> Image {
    let layer = Tar::new().file("content", 0o644, content.as_bytes()).bytes();
    Image::new(&[layer], &json!({"Cmd": ["/x"], "Labels": {"a": "b"}}))
}

/// B-im-4
#[test]
fn progress_is_told_as_users_know_it() {
    let d = Daemon::start();
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    let digest = fake.image("app", "1.0", &image("x"));
    let answer = d.http("POST", "/v1.45/images/create?fromImage=127.0.0.1:5001/app&tag=1.0", "").expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let text = answer.text();
    let lines: Vec<&str> = text.split_terminator("\r\n").collect();
    assert_eq!(lines[0], r#"{"status":"Pulling from app","id":"1.0"}"#);
    let id = format!("\"id\":\"{}\"", &testkit::images::sha256(&image("x").layers[0])[..12]);
    assert_eq!(lines[1], format!(r#"{{"status":"Pulling fs layer","progressDetail":{{}},{id}}}"#));
    for status in ["Verifying Checksum", "Download complete", "Pull complete"] {
        assert!(lines.contains(&format!(r#"{{"status":"{status}","progressDetail":{{}},{id}}}"#).as_str()), "{text}");
    }
    let end = &lines[lines.len() - 2..];
    assert_eq!(end[0], format!(r#"{{"status":"Digest: {digest}"}}"#));
    assert_eq!(end[1], r#"{"status":"Status: Downloaded newer image for 127.0.0.1:5001/app:1.0"}"#);
    let again = d.http("POST", "/v1.45/images/create?fromImage=127.0.0.1:5001/app&tag=1.0", "").expect(200).text();
    let expected = format!(
        "{{\"status\":\"Pulling from app\",\"id\":\"1.0\"}}\r\n{{\"status\":\"Digest: {digest}\"}}\r\n\
         {{\"status\":\"Status: Image is up to date for 127.0.0.1:5001/app:1.0\"}}\r\n"
    );
    assert_eq!(again, expected);
    // A pull that finds nothing to do is noted all the same.
    let tagged = || d.inspect("127.0.0.1:5001/app:1.0", "{{.Metadata.LastTagTime}}");
    let before = tagged();
    let _ = d.http("POST", "/images/create?fromImage=127.0.0.1:5001/app&tag=1.0", "").expect(200);
    assert_ne!(tagged(), before);
    drop(fake);
    d.finish();
}

#[test]
fn a_name_without_an_image_is_refused_by_status() {
    let d = Daemon::start();
    let registry = Server::plain(&d);
    let path = |name: &str, tag: &str| format!("/images/create?fromImage={}&tag={tag}", registry.name(name));
    let answer = d.http("POST", &path("nosuch", "1"), "").expect(404);
    let name = registry.name("nosuch:1");
    assert_eq!(answer.message(), format!("failed to resolve reference {name:?}: {name}: not found"));
    let answer = d.http("POST", "/images/create?fromImage=UPPER&tag=1", "").expect(400);
    assert_eq!(answer.message(), "invalid reference format: repository name (library/UPPER) must be lowercase");
    let answer = d.http("POST", "/images/create?fromImage=scratch&tag=1", "").expect(403);
    assert_eq!(answer.message(), "'scratch' is a reserved name");
    d.docker(&["pull", "127.0.0.1:9/x"]).fails(1, "dial tcp 127.0.0.1:9: connect: connection refused");
    d.docker(&["run", "--rm", "127.0.0.1:9/x", "true"]).fails(125, "connection refused");
    drop(registry);
    d.finish();
}

#[test]
fn a_tag_that_moved_brings_the_newer_image() {
    let d = Daemon::start();
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    let first = fake.image("app", "latest", &image("1"));
    assert_eq!(d.docker(&["pull", "-q", "127.0.0.1:5001/app"]).text(), "127.0.0.1:5001/app:latest");
    let second = fake.image("app", "latest", &image("2"));
    assert!(d.docker(&["pull", "127.0.0.1:5001/app"]).text().contains("Downloaded newer image"));
    assert_eq!(d.inspect("127.0.0.1:5001/app", "{{.Id}}"), second);
    assert_eq!(d.docker(&["images", "-q", "--no-trunc", "--filter", "dangling=true"]).text(), first);
    let by_digest = format!("127.0.0.1:5001/app@{first}");
    assert!(d.docker(&["pull", &by_digest]).text().contains(&format!("Digest: {first}")));
    assert_eq!(d.inspect(&by_digest, "{{.Id}}"), first);
    assert_eq!(d.inspect("127.0.0.1:5001/app", "{{.Id}}"), second, "the tag stays where it is");
    drop(fake);
    d.finish();
}

#[test]
fn the_platform_chooses_from_an_index() {
    let d = Daemon::start();
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    let mut entries = Vec::new();
    for (architecture, digest_of) in [("amd64", "a"), ("arm64", "b")] {
        let layer = Tar::new().file(digest_of, 0o644, b"x").bytes();
        let image = Image::of_platform(&[layer], &json!({}), architecture);
        fake.image("app", architecture, &image);
        let mut entry = descriptor(MANIFEST, &image.manifest);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entries.push(entry);
    }
    let attestation = json!({
        "mediaType": MANIFEST, "digest": format!("sha256:{}", "0".repeat(64)), "size": 7,
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": entries[0]["digest"]},
    });
    entries.push(attestation);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
    let digest = fake.manifest("app", "1", INDEX, index.as_bytes());
    let _ = d.docker(&["pull", "-q", "--platform", "linux/arm64", "127.0.0.1:5001/app:1"]).ok();
    assert_eq!(d.inspect("127.0.0.1:5001/app:1", "{{.Id}}"), digest);
    assert_eq!(kept(&d).2, 1, "the other platform is not fetched");
    let _ = d.docker(&["pull", "-q", "127.0.0.1:5001/app:1"]).ok();
    assert_eq!(
        d.inspect("127.0.0.1:5001/app:1", "{{.Architecture}}"),
        std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64")
    );
    assert_eq!(kept(&d).2, 2, "both are here now");
    d.docker(&["pull", "--platform", "linux/s390x", "127.0.0.1:5001/app:1"])
        .fails(1, "no matching manifest for linux/s390x in the manifest list entries");
    let removed = d.docker(&["rmi", "127.0.0.1:5001/app:1"]).text();
    assert!(removed.contains(&format!("Deleted: {digest}")), "{removed}");
    assert_eq!(kept(&d), (0, 0, 0));
    drop(fake);
    d.finish();
}

#[test]
fn all_tags_are_pulled() {
    let d = Daemon::start();
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    for tag in ["1", "2", "latest"] {
        fake.image("app", tag, &image(tag));
    }
    let output = d.docker(&["pull", "-a", "127.0.0.1:5001/app"]).text();
    assert_eq!(output.matches("Downloaded newer image").count(), 3, "{output}");
    let mut tags: Vec<String> =
        d.docker(&["images", "--format", "{{.Tag}}"]).text().lines().map(str::to_string).collect();
    tags.sort();
    assert_eq!(tags, ["1", "2", "latest"]);
    drop(fake);
    d.finish();
}

/// Layers shared by images, and by clients, are fetched once; one that leaves does not stop the others.
#[test]
fn a_layer_is_fetched_once_for_all_clients() {
    let d = Daemon::start();
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    fake.image("app", "1", &Image::of_noise(&[3 << 20, 3 << 20]));
    // It would take minutes.
    fake.slow(32 << 10);
    let mut leaves = d.spawn(&["pull", "127.0.0.1:5001/app:1"]);
    assert!(eventually(|| fake.sent() > 64 << 10));
    let mut stays = d.connection();
    let request =
        "POST /images/create?fromImage=127.0.0.1:5001/app&tag=1 HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n";
    stays.send(request.as_bytes()).unwrap();
    assert_eq!(stays.head().unwrap().status, 200);
    let mut told = String::new();
    let mut hear = |wanted: &str| {
        while !told.contains(wanted) {
            let chunk = stays.chunk().unwrap().unwrap_or_else(|| panic!("{wanted:?} is not in {told}"));
            told += &String::from_utf8(chunk).unwrap();
        }
    };
    // It follows what the other has begun.
    hear("\"Downloading\"");
    assert!(testkit::process::signal(leaves.pid(), rustix::process::Signal::INT));
    let _ = leaves.end();
    fake.slow(0);
    hear("Downloaded newer image");
    drop(stays);
    assert_eq!(fake.count("GET /v2/app/blobs/"), 3, "{:?}", fake.seen());
    assert!(fake.sent() < 7 << 20, "{}", fake.sent());
    let other =
        Image::new(&[Tar::new().file("noise-0", 0o644, &noise(1, 3 << 20)).bytes()], &json!({"Cmd": ["/other"]}));
    fake.slow(0);
    fake.image("other", "1", &other);
    let output = d.docker(&["pull", "127.0.0.1:5001/other:1"]).text();
    assert!(output.contains("Already exists"), "{output}");
    drop(fake);
    d.finish();
}

#[test]
fn events_tell_of_pull_and_push() {
    let d = Daemon::start();
    let registry = Server::plain(&d);
    d.busybox();
    let name = registry.name("app:1");
    let _ = d.docker(&["tag", "busybox", &name]).ok();
    let _ = d.docker(&["push", "-q", &name]).ok();
    let _ = d.docker(&["rmi", &name]).ok();
    let _ = d.docker(&["pull", "-q", &name]).ok();
    let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1;
    let until = until.to_string();
    let events = d.docker(&[
        "events",
        "--since",
        "0",
        "--until",
        &until,
        "--filter",
        "type=image",
        "--format",
        "{{.Action}} {{.Actor.ID}} {{index .Actor.Attributes \"name\"}}",
    ]);
    let events = events.text();
    for action in ["push", "pull"] {
        let line = format!("{action} {name} {}", registry.name("app"));
        assert!(events.lines().any(|l| l == line), "{line} is not in\n{events}");
    }
    drop(registry);
    d.finish();
}

/// Two equal `WORKDIR`s of a Dockerfile make two equal layers.
#[test]
fn an_image_that_names_a_layer_twice_is_pulled_and_pushed() {
    let d = Daemon::start();
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    let (empty, own) = (Tar::new().bytes(), Tar::new().file("own", 0o644, b"x").bytes());
    let layers = [testkit::images::busybox_tar(), empty.clone(), own.clone(), empty.clone(), empty, own];
    let twice = Image::new(&layers, &json!({"Cmd": ["/bin/cat", "/own"]}));
    let digest = fake.image("app", "1", &twice);
    let _ = d.docker(&["pull", "127.0.0.1:5001/app:1"]).ok();
    // Each layer comes once.
    assert_eq!(fake.count("GET /v2/app/blobs/"), 1 + 3);
    assert_eq!(d.docker(&["run", "--rm", "127.0.0.1:5001/app:1"]).text(), "x");
    assert_eq!(kept(&d), (1 + 1 + 3, 0, 3));
    let _ = d.docker(&["tag", "127.0.0.1:5001/app:1", "127.0.0.1:5001/again:1"]).ok();
    let pushed = d.docker(&["push", "127.0.0.1:5001/again:1"]).text();
    assert!(pushed.contains(&digest), "{pushed}");
    let _ = d.docker(&["rmi", "127.0.0.1:5001/app:1", "127.0.0.1:5001/again:1"]).ok();
    assert_nothing(&d);
    drop(fake);
    d.finish();
}
