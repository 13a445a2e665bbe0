//! Images for several platforms to a registry and back: whole, in part, by platform; what the registry tells of them.

use serde_json::{Value, json};
use testkit::Daemon;
use testkit::images::{Tar, busybox_tar};
use testkit::layouts::Layout;

use crate::server::Server;

/// An index of three platforms with attestations; with or without the content of the third.
fn multi(name: &str, whole: bool) -> (Vec<u8>, String, String) {
    let mut layout = Layout::new();
    let config = json!({"Cmd": ["cat", "/who"], "Env": ["PATH=/bin"]});
    let who = |text: &str| Tar::new().file("who", 0o644, text.as_bytes()).bytes();
    let amd64 = layout.image("linux/amd64", &[busybox_tar(), who("amd64")], &config);
    let arm64 = layout.image("linux/arm64", &[busybox_tar(), who("arm64")], &config);
    let v7 = layout.image("linux/arm/v7", &[who("v7")], &config);
    let attestation = layout.attestation(&amd64, &[("https://slsa.dev/provenance/v1", json!({"predicate": {}}))]);
    let index = layout.index(&[amd64, arm64.clone(), v7.clone(), attestation]);
    if !whole {
        layout.forget(&v7);
    }
    let digest = |value: &Value| value["digest"].as_str().unwrap().to_owned();
    let name = [("io.containerd.image.name", name)];
    let (index, arm64, layout) = (digest(&index), digest(&arm64), layout.entry(&index, &name));
    (layout.tar(), index, arm64)
}

#[test]
fn an_index_comes_back_with_its_digest() {
    let d = Daemon::start();
    let registry = Server::plain(&d);
    let name = registry.name("multi:1");
    let (archive, index, arm64) = multi(&name, true);
    d.load(&archive);
    let output = d.docker(&["push", &name]).ok().stdout;
    assert!(output.contains(&format!("1: digest: {index} size: ")), "{output}");
    // The client asks the registry by itself: from where the registry can be reached.
    let (docker, host) = (testkit::places::docker().display().to_string(), format!("unix://{}", d.socket().display()));
    let manifests = d.exec_inside(&[&docker, "-H", &host, "manifest", "inspect", "--insecure", &name]).ok().stdout;
    let manifests: Value = serde_json::from_str(&manifests).unwrap();
    assert_eq!(manifests["manifests"].as_array().unwrap().len(), 4);
    let answer = d.http("GET", &format!("/distribution/{name}/json"), "").expect(200).json();
    assert_eq!(
        (answer["Descriptor"]["digest"].as_str(), answer["Platforms"].as_array().unwrap().len()),
        (Some(index.as_str()), 4)
    );
    let _ = d.docker(&["rmi", &name]).ok();
    let _ = d.docker(&["pull", "-q", &name]).ok();
    assert_eq!(d.inspect(&name, "{{.Id}}"), index);
    let list = d.http("GET", "/images/json?manifests=1", "").expect(200).json();
    let here = |m: &Value| m["Available"] == true && m["Kind"] == "image";
    assert_eq!(list[0]["Manifests"].as_array().unwrap().iter().filter(|m| here(m)).count(), 1);
    // One platform more of the same image.
    let _ = d.docker(&["pull", "-q", "--platform", "linux/arm64", &name]).ok();
    let list = d.http("GET", "/images/json?manifests=1", "").expect(200).json();
    let found: Vec<_> = list[0]["Manifests"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|m| here(m))
        .map(|m| m["ID"].as_str().unwrap())
        .collect();
    assert!(found.len() == 2 && found.contains(&arm64.as_str()), "{found:?}");
    let _ = d.docker(&["rmi", &name]).ok();
    drop(registry);
    d.finish();
}

#[test]
fn what_is_not_whole_is_pushed_in_part() {
    let d = Daemon::start();
    let registry = Server::plain(&d);
    let name = registry.name("part:1");
    let (archive, index, arm64) = multi(&name, false);
    d.load(&archive);
    let only = |platform: &str| d.docker(&["push", "--platform", platform, &name]);
    let output = only("linux/arm64").ok().stdout;
    assert!(output.contains(&format!("1: digest: {arm64} size: ")), "{output}");
    only("linux/s390x").fails(1, "does not provide the specified platform (linux/s390x)");
    // Two are here and nobody says which: the host's goes.
    let output = d.docker(&["push", &name]).ok();
    assert!(
        output.stdout.contains("digest: sha256:") && !output.stdout.contains(&format!("digest: {index}")),
        "{output:?}"
    );
    let _ = d.docker(&["rmi", &name]).ok();
    let _ = d.docker(&["pull", "-q", &name]).ok();
    assert_eq!(d.docker(&["run", "--rm", &name]).text(), "amd64");
    let _ = d.docker(&["rmi", &name]).ok();
    drop(registry);
    d.finish();
}

/// What has no index is the only one there is: it comes, with a warning.
#[test]
fn a_single_image_of_another_platform_is_pulled_with_a_warning() {
    let d = testkit::Daemon::start();
    let fake = testkit::fake_registry::FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    let tar = testkit::images::Tar::new().file("x", 0o644, b"x").bytes();
    let image = testkit::fake_registry::Image::new(&[tar], &serde_json::json!({"Cmd": ["/x"]}));
    let id = fake.image("app", "1", &image);
    let pulled = d.docker(&["pull", "--platform", "linux/s390x", "127.0.0.1:5001/app:1"]).text();
    let warning =
        "WARNING: Pulled image with specified platform (linux/s390x), but the resulting image's configured platform";
    assert!(pulled.contains(warning), "{pulled}");
    assert_eq!(d.inspect("127.0.0.1:5001/app:1", "{{.Id}}"), id);
    let agent = fake.seen().iter().map(|seen| seen.header("user-agent").to_owned()).next().unwrap();
    assert!(agent.starts_with("docker/") && agent.contains(" UpstreamClient(Docker-Client/"), "{agent}");
    assert!(fake.seen().iter().all(|seen| seen.header("accept-encoding") == "identity"));
    drop(fake);
    d.finish();
}

/// Indexes within indexes are pulled and pushed whole, and bounded.
#[test]
fn an_index_within_an_index_is_pulled_and_pushed() {
    use serde_json::json;
    use testkit::fake_registry::{FakeRegistry, INDEX, Image, MANIFEST, descriptor};
    let d = testkit::Daemon::start();
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    let image = Image::new(&[testkit::images::busybox_tar()], &json!({"Cmd": ["/bin/echo", "deep"]}));
    fake.image("app", "leaf", &image);
    let nest = |depth: usize| {
        let mut entry = descriptor(MANIFEST, &image.manifest);
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        for level in 0..depth {
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
            fake.manifest("app", &format!("d{depth}-{level}"), INDEX, index.as_bytes());
            entry = descriptor(INDEX, index.as_bytes());
        }
        entry["digest"].as_str().unwrap().to_owned()
    };
    let top = nest(5);
    let _ = d.docker(&["pull", "127.0.0.1:5001/app:d5-4"]).ok();
    assert_eq!(d.docker(&["run", "--rm", "127.0.0.1:5001/app:d5-4"]).text(), "deep");
    assert_eq!(d.inspect("127.0.0.1:5001/app:d5-4", "{{.Id}}"), top);
    let _ = d.docker(&["pull", "--platform", "linux/amd64", "127.0.0.1:5001/app:d5-4"]);
    let _ = d.docker(&["tag", "127.0.0.1:5001/app:d5-4", "127.0.0.1:5001/again:1"]).ok();
    let pushed = d.docker(&["push", "127.0.0.1:5001/again:1"]).text();
    assert!(pushed.contains(&top), "{pushed}");
    assert_eq!(fake.count("PUT /v2/again/manifests/"), 6);
    nest(12);
    d.docker(&["pull", "127.0.0.1:5001/app:d12-11"]).fails(1, "there are too many indexes within it");
    drop(fake);
    d.finish();
}
