//! `docker load`: archives of every kind that tools write, and what is saved again.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use testkit::Daemon;
use testkit::command;
use testkit::images::{Tar, layered_archive, sha256};
use testkit::layouts::{Layout, gzip};
use testkit::places;

fn load(d: &Daemon, archive: &[u8]) -> String {
    d.docker_input(&["load"], archive).ok().stdout
}

/// The blobs of the store, by digest.
fn blobs(d: &Daemon) -> Vec<String> {
    let dir = std::fs::read_dir(d.data_root().join("content/blobs/sha256")).unwrap();
    let mut digests: Vec<_> = dir.map(|entry| format!("sha256:{}", entry.unwrap().file_name().display())).collect();
    digests.sort();
    digests
}

/// An archive as engines of long ago wrote it: a directory by a made-up id for each layer, `repositories` beside.
fn legacy(name: &str, tag: &str) -> Vec<u8> {
    let layers = [
        Tar::new().dir("d", 0o755).file("d/file", 0o644, b"bottom").bytes(),
        Tar::new().file("d/file", 0o600, b"top").file("who", 0o644, b"legacy").bytes(),
    ];
    let ids = [sha256(b"first id"), sha256(b"second id")];
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "config": {"Cmd": ["sh"], "Image": "sha256:0", "Env": null}, "container": "x",
        "created": "2016-01-01T00:00:00Z", "docker_version": "1.12", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string();
    let config_name = format!("{}.json", sha256(config.as_bytes()));
    let mut archive = Tar::new();
    for (id, layer) in ids.iter().zip(&layers) {
        archive = archive
            .dir(&format!("{id}/"), 0o755)
            .file(&format!("{id}/VERSION"), 0o644, b"1.0")
            .file(&format!("{id}/json"), 0o644, json!({"id": id}).to_string().as_bytes())
            .file(&format!("{id}/layer.tar"), 0o644, layer);
    }
    let paths: Vec<_> = ids.iter().map(|id| format!("{id}/layer.tar")).collect();
    let manifest = json!([{"Config": config_name, "RepoTags": [format!("{name}:{tag}")], "Layers": paths}]);
    archive
        .file(&config_name, 0o644, config.as_bytes())
        .file("manifest.json", 0o644, manifest.to_string().as_bytes())
        .file("repositories", 0o644, json!({name: {tag: ids[1]}}).to_string().as_bytes())
        .bytes()
}

#[test]
fn archives_of_old_engines() {
    let d = Daemon::start();
    assert_eq!(load(&d, &legacy("old/app", "v1")), "Loaded image: old/app:v1\n");
    let layers: Value = serde_json::from_str(&d.inspect("old/app:v1", "{{json .RootFS.Layers}}")).unwrap();
    assert_eq!(layers.as_array().unwrap().len(), 2);
    assert_eq!(d.inspect("old/app:v1", "{{.Created}}"), "2016-01-01T00:00:00Z");
    // The oldest format, without a list of images, is refused by what is missing.
    let oldest = Tar::new().dir("x/", 0o755).file("x/layer.tar", 0o644, b"").file("repositories", 0o644, b"{}").bytes();
    let output = d.docker_input(&["load"], &oldest);
    assert!(output.code == 1 && output.stderr.contains("unrecognized image format"), "{output:?}");
    d.finish();
}

#[test]
fn archives_compressed_by_any_name() {
    let d = Daemon::start();
    let archive = layered_archive("layers:1", 3);
    assert_eq!(load(&d, &gzip(&archive)), "Loaded image: layers:1\n");
    let id = d.inspect("layers:1", "{{.Id}}");
    let path = d.path("a.tar");
    std::fs::write(&path, &archive).unwrap();
    let packed = d.exec_inside(&["zstd", "-q", "-f", path.to_str().unwrap()]);
    assert_eq!(packed.code, 0, "{packed:?}");
    assert_eq!(d.docker(&["load", "-q", "-i", &format!("{}.zst", path.display())]).text(), "Loaded image: layers:1");
    assert_eq!(d.inspect("layers:1", "{{.Id}}"), id);
    // What follows the end is nobody's.
    for after in [&b"garbage"[..], &[0; 4096]] {
        assert_eq!(load(&d, &[&gzip(&archive), after].concat()), "Loaded image: layers:1\n");
        assert_eq!(load(&d, &[&archive, after].concat()), "Loaded image: layers:1\n");
    }
    assert_eq!(d.inspect("layers:1", "{{.Id}}"), id);
    d.finish();
}

/// BuildKit's `type=oci` and `type=docker`: an index with attestations, named twice.
#[test]
fn archives_of_buildkit() {
    let d = Daemon::start();
    let mut layout = Layout::new();
    let root = Tar::new().file("a", 0o644, b"1").bytes();
    let image = layout.image("linux/amd64", &[root], &json!({"Cmd": ["/a"]}));
    let attestation = layout.attestation(&image, &[("https://slsa.dev/provenance/v1", json!({"predicate": {}}))]);
    let index = layout.index(&[image, attestation]);
    let digests = layout.digests();
    let archive = layout
        .entry(
            &index,
            &[("io.containerd.image.name", "docker.io/library/built:1"), ("org.opencontainers.image.ref.name", "1")],
        )
        .entry(
            &index,
            &[("io.containerd.image.name", "localhost:5000/built:2"), ("org.opencontainers.image.ref.name", "2")],
        )
        .tar();
    assert_eq!(load(&d, &archive), "Loaded image: built:1\nLoaded image: localhost:5000/built:2\n");
    assert_eq!(Some(d.inspect("built:1", "{{.Id}}").as_str()), index["digest"].as_str());
    // Every blob is kept as it came, and goes out again as it is.
    assert_eq!(blobs(&d), digests);
    let saved = d.path("saved.tar");
    let _ = d.docker(&["save", "-o", saved.to_str().unwrap(), "built:1", "localhost:5000/built:2"]).ok();
    let _ = d.docker(&["rmi", "built:1", "localhost:5000/built:2"]).ok();
    assert_eq!(blobs(&d), Vec::<String>::new());
    let _ = d.docker(&["load", "-i", saved.to_str().unwrap()]).ok();
    assert_eq!(blobs(&d), digests);
    assert_eq!(d.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).text().lines().count(), 2);
    d.finish();
}

/// A tag alone is no name; a manifest that an archive lacks is an error before anything is registered.
#[test]
fn archives_without_names_or_parts() {
    let d = Daemon::start();
    let mut layout = Layout::new();
    let image = layout.image("linux/amd64", &[Tar::new().file("a", 0o644, b"1").bytes()], &json!({}));
    let id = image["digest"].as_str().unwrap().to_owned();
    let named = layout.clone().entry(&image, &[("org.opencontainers.image.ref.name", "latest")]);
    assert_eq!(load(&d, &named.tar()), format!("Loaded image ID: {id}\n"));
    let _ = d.docker(&["rmi", &id]).ok();
    layout.forget(&image);
    let output = d.docker_input(&["load"], &layout.entry(&image, &[]).tar());
    assert!(output.code == 1 && output.stderr.contains(&id), "{output:?}");
    assert_eq!((d.docker(&["images", "-aq"]).text(), blobs(&d)), (String::new(), Vec::new()));
    d.finish();
}

/// What makes a layout, what lies beside its blobs, which names are taken.
#[test]
fn layouts_are_read_as_the_reference_reads_them() {
    let d = Daemon::start();
    let mut layout = Layout::new();
    let image = layout.image("linux/amd64", &[Tar::new().file("a", 0o644, b"1").bytes()], &json!({}));
    let id = image["digest"].as_str().unwrap().to_owned();
    let refused = |archive: &[u8], text: &str| {
        let output = d.docker_input(&["load"], archive);
        assert!(output.code == 1 && output.stderr.trim_end() == text, "{output:?}");
    };
    let mark = |text: &str| Tar::new().file("oci-layout", 0o644, text.as_bytes());
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    refused(&mark("{}").file("index.json", 0o644, index).bytes(), "unrecognized image format");
    refused(&mark(r#"{"imageLayoutVersion":"1.0.0"}"#).bytes(), "missing index.json in OCI layout 1.0.0");
    refused(&mark(r#"{"imageLayoutVersion":"9"}"#).bytes(), "unsupported OCI version 9");
    refused(&layout.clone().tar(), "image might be filtered out");
    // A file manager's leavings are no blobs, a name by another digest is no name.
    let other = format!("docker.io/library/a@sha256:{}", "1".repeat(64));
    let named = layout.clone().entry(&image, &[("io.containerd.image.name", &other)]).tar();
    let archive = [&Tar::new().file("blobs/sha256/._x", 0o644, b"junk").bytes()[..1024], &named].concat();
    assert_eq!(load(&d, &archive), format!("Loaded image ID: {id}\n"));
    d.finish();
}

fn skopeo(words: &[&str]) {
    let mut command = Command::new(places::find("skopeo"));
    let _ = command::run(command.args(["copy", "--insecure-policy", "-q"]).args(words), b"").ok();
}

/// skopeo writes with the library of podman and buildah: what those save is the same.
#[test]
fn archives_of_skopeo_and_podman_and_back() {
    let d = Daemon::start();
    d.load(&layered_archive("layers:1", 4));
    let at = |name: &str| d.path(name).display().to_string();
    let _ = d.docker(&["save", "-o", &at("gantry.tar"), "layers:1"]).ok();
    // Ours is both kinds at once.
    skopeo(&[
        &format!("docker-archive:{}", at("gantry.tar")),
        &format!("oci-archive:{}:localhost/app:oci", at("oci.tar")),
    ]);
    skopeo(&[
        &format!("oci-archive:{}", at("gantry.tar")),
        &format!("docker-archive:{}:localhost/app:docker", at("docker.tar")),
    ]);
    skopeo(&[&format!("docker-archive:{}", at("gantry.tar")), &format!("oci:{}:tag", at("layout"))]);
    let packed = Command::new("tar").args(["-C", &at("layout"), "-cf", &at("layout.tar"), "."]).status().unwrap();
    assert!(packed.success() && Path::new(&at("layout.tar")).exists());
    let layers = d.inspect("layers:1", "{{json .RootFS.Layers}}");
    let loaded = |name: &str| d.docker(&["load", "-i", &at(name)]).text();
    assert_eq!(loaded("oci.tar"), "Loaded image: localhost/app:oci");
    assert_eq!(loaded("docker.tar"), "Loaded image: localhost/app:docker");
    let nameless = loaded("layout.tar");
    let id = nameless.strip_prefix("Loaded image ID: ").unwrap();
    for name in ["localhost/app:oci", "localhost/app:docker", id] {
        assert_eq!(d.inspect(name, "{{json .RootFS.Layers}}"), layers, "{name}");
        assert_eq!(d.docker(&["run", "--rm", name, "cat", "/top"]).text(), "3", "{name}");
    }
    d.finish();
}
