//! Pushing: digests survive the round trip, layers are mounted or known, all tags, refusals.

use testkit::Daemon;
use testkit::images::layered_archive;

use crate::kept;
use crate::server::Server;

/// What was pulled and is pushed again keeps its digests, whatever its compression.
#[test]
fn a_round_trip_keeps_digests() {
    let d = Daemon::start();
    let registry = Server::plain(&d);
    d.load(&layered_archive("layers:v1", 5));
    let (name, other) = (registry.name("app:1.0"), registry.name("sub/other:2"));
    let id = d.inspect("layers:v1", "{{.Id}}");
    let _ = d.docker(&["tag", "layers:v1", &name]).ok();
    let output = d.docker(&["push", &name]).ok().stdout;
    assert!(output.starts_with(&format!("The push refers to repository [{}]\n", registry.name("app"))), "{output}");
    assert!(output.contains(": Pushed\n") && output.contains(&format!("1.0: digest: {id} size: ")), "{output}");
    let output = d.docker(&["push", &name]).text();
    assert_eq!(output.matches("Layer already exists").count(), 5, "{output}");
    let _ = d.docker(&["tag", &name, &other]).ok();
    let output = d.docker(&["push", &other]).text();
    assert_eq!(output.matches("Mounted from app").count(), 5, "{output}");
    let layers = d.inspect(&name, "{{json .RootFS.Layers}}");
    let _ = d.docker(&["rmi", "layers:v1", &name, &other]).ok();
    assert_eq!(kept(&d), (0, 0, 0));
    let _ = d.docker(&["pull", "-q", &other]).ok();
    assert_eq!((d.inspect(&other, "{{.Id}}"), d.inspect(&other, "{{json .RootFS.Layers}}")), (id.clone(), layers));
    assert_eq!(d.docker(&["run", "--rm", &other, "cat", "/top"]).text(), "4");
    let digests = d.docker(&["images", "--digests", "--format", "{{.Digest}}"]).text();
    assert_eq!(digests, id);
    let _ = d.docker(&["rmi", &other]).ok();
    drop(registry);
    d.finish();
}

#[test]
fn all_tags_are_pushed_and_absent_ones_refused() {
    let d = Daemon::start();
    let registry = Server::plain(&d);
    d.busybox();
    for tag in ["1", "2"] {
        let _ = d.docker(&["tag", "busybox", &registry.name(&format!("app:{tag}"))]).ok();
    }
    let output = d.docker(&["push", "-a", &registry.name("app")]).text();
    assert_eq!(output.matches("digest: sha256:").count(), 2, "{output}");
    d.docker(&["push", &registry.name("app:3")]).fails(1, &format!("tag does not exist: {}", registry.name("app:3")));
    let none = registry.name("none");
    d.docker(&["push", "-a", &none]).fails(1, &format!("An image does not exist locally with the tag: {none}"));
    let tags = d.exec_inside(&["curl", "-s", &format!("http://{}", registry.name("v2/app/tags/list"))]).text();
    assert!(tags.contains("\"1\"") && tags.contains("\"2\""), "{tags}");
    drop(registry);
    d.finish();
}

/// `push without auth header` of the recorded answers.
#[test]
fn a_push_without_credentials_header_is_refused() {
    let d = Daemon::start();
    d.busybox();
    let answer = d.http("POST", "/v1.45/images/busybox/push", "").expect(400);
    assert_eq!(answer.message(), "bad parameters and missing X-Registry-Auth: invalid X-Registry-Auth header: EOF");
    d.finish();
}

#[test]
fn what_a_registry_has_is_inspected() {
    let d = Daemon::start();
    let registry = Server::plain(&d);
    d.busybox();
    let name = registry.name("app:1");
    let _ = d.docker(&["tag", "busybox", &name]).ok();
    let _ = d.docker(&["push", "-q", &name]).ok();
    let found = d.http("GET", &format!("/distribution/{name}/json"), "").expect(200).json();
    assert_eq!(found["Descriptor"]["digest"], d.inspect(&name, "{{.Id}}"));
    assert_eq!(found["Platforms"][0]["os"], "linux");
    let answer = d.http("GET", &format!("/distribution/{}/json", registry.name("nosuch:1")), "").expect(404);
    assert_eq!(answer.message(), "manifest unknown: manifest unknown");
    let id = d.inspect(&name, "{{.Id}}");
    let answer = d.http("GET", &format!("/distribution/{id}/json"), "").expect(500);
    assert_eq!(answer.message(), "no manifest found for full image ID");
    // What is named by a digest is pushed under that name only, and pulled whatever tag is asked for beside it.
    let digested = format!("{}@{id}", registry.name("app"));
    let push = |query: &str| {
        d.exec_inside(&[
            "curl",
            "-s",
            "--unix-socket",
            d.socket().to_str().unwrap(),
            "-XPOST",
            "-HX-Registry-Auth: e30=",
            &format!("http://x/images/{digested}/push{query}"),
        ])
        .text()
    };
    assert!(push("?tag=1").contains("cannot import digest reference"));
    assert!(push("").contains(&format!("tag does not exist: {digested}")));
    let pulled = d.http("POST", &format!("/images/create?fromImage={digested}&tag=nosuch"), "").expect(200).text();
    assert!(pulled.contains(&format!("Status: Image is up to date for {digested}")), "{pulled}");
    // The CLI asks the registry itself.
    let (cli, config) = (testkit::places::docker(), d.path("cli"));
    let (cli, config) = (cli.to_str().unwrap(), config.to_str().unwrap());
    let shown = d.exec_inside(&[cli, "--config", config, "manifest", "inspect", "--insecure", &name]).text();
    assert!(shown.contains("schemaVersion"), "{shown}");
    drop(registry);
    d.finish();
}

/// Pulls and pushes are in the reference's metrics when they are done.
#[test]
fn pulls_and_pushes_are_measured() {
    let d = testkit::Options::new().args(&["--metrics-addr", "127.0.0.1:9323"]).start();
    let registry = Server::plain(&d);
    d.busybox();
    let name = registry.name("app:1");
    let _ = d.docker(&["tag", "busybox", &name]).ok();
    let _ = d.docker(&["push", "-q", &name]).ok();
    let _ = d.docker(&["pull", "-q", &name]).ok();
    assert_ne!(d.docker(&["pull", "-q", &registry.name("none:1")]).code, 0);
    let text = d.exec_inside(&["curl", "-s", "http://127.0.0.1:9323/metrics"]).ok().stdout;
    for action in ["push", "pull"] {
        let line = format!("engine_daemon_image_actions_seconds_count{{action=\"{action}\"}} 1");
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    drop(registry);
    d.finish();
}
