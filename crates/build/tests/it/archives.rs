//! The exporters `oci` and `docker`.

use std::collections::BTreeMap;
use std::io::Read;

use build::record::Chain;
use serde_json::{Value, json};
use snapshot::archive::Archive;

use crate::place::Place;

/// The members of an archive, by name, in order.
fn members(tar: &[u8]) -> (Vec<String>, BTreeMap<String, Vec<u8>>) {
    let mut archive = Archive::new(tar);
    let (mut order, mut files) = (Vec::new(), BTreeMap::new());
    while let Some(entry) = archive.next_entry().unwrap() {
        let mut bytes = vec![0; entry.size as usize];
        let mut at = 0;
        while at < bytes.len() {
            at += archive.read(&mut bytes[at..]).unwrap();
        }
        let name = String::from_utf8(entry.path).unwrap();
        order.push(name.clone());
        files.insert(name, bytes);
    }
    (order, files)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oci_layout_has_every_blob_and_is_the_same_twice() {
    let place = Place::new();
    let source = place.source(&place.two_layers(), &[("source.date.epoch", "77")], Vec::new());
    let attributes = [("name", "a:1,b:2")];
    let (answer, client) = place.export("oci", &attributes, &source).await;
    let (_, again) = place.export("oci", &attributes, &source).await;
    let tar = client.0.lock().files.remove(0);
    assert!(tar == again.0.lock().files[0]);
    let (order, files) = members(&tar);
    let mut sorted = order.clone();
    sorted.sort();
    assert_eq!(order, sorted);
    assert!(order[0] == "blobs/" && order[1] == "blobs/sha256/" && !files.contains_key("manifest.json"));
    assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let names: Vec<_> = (0..2).map(|at| &index["manifests"][at]["annotations"]["io.containerd.image.name"]).collect();
    assert_eq!(names, [&json!("docker.io/library/a:1"), &json!("docker.io/library/b:2")]);
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.created"], "1970-01-01T00:01:17Z");
    assert_eq!(index["manifests"][0]["digest"], answer["containerimage.digest"].as_str());
    // Manifest, configuration, two layers.
    assert_eq!(order.iter().filter(|name| name.starts_with("blobs/sha256/")).count(), 1 + 4);
    assert_eq!(place.builder.images.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_archive_is_loaded_again() {
    let place = Place::new();
    let source = place.source(&place.two_layers(), &[], Vec::new());
    let (answer, client) = place.export("docker", &[("name", "app")], &source).await;
    let tar = client.0.lock().files.remove(0);
    let (_, files) = members(&tar);
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["RepoTags"], json!(["app:latest"]));
    assert!(files.contains_key(manifest[0]["Layers"][1].as_str().unwrap()));
    let other = Place::new();
    let (builder, bus) = (other.builder.clone(), other.bus.clone());
    let load = move || image::load(&builder.images, &bus, tar.as_slice(), &[], &mut |_| ());
    tokio::task::spawn_blocking(load).await.unwrap().unwrap();
    let found = other.builder.images.resolve("app", None).unwrap();
    assert_eq!(found.id.as_str(), answer["containerimage.digest"]);
    let chain = Chain::default();
    let (refused, _) = place.try_export("docker", &[], &place.two_platforms([&chain, &chain])).await;
    let text = "docker exporter does not currently support exporting manifest lists";
    assert_eq!(refused.unwrap_err().message(), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_come_behind_what_they_name() {
    let place = Place::new();
    let (a, b) = (place.two_layers(), place.two_layers());
    let (answer, client) = place.export("oci", &[("tar", "false")], &place.two_platforms([&a, &b])).await;
    let taken = client.0.lock();
    let mut seen: Vec<&str> = Vec::new();
    for (descriptor, bytes) in &taken.blobs {
        assert_eq!(bytes.len() as i64, descriptor.size);
        if descriptor.media_type.ends_with("+json") && !descriptor.media_type.contains("config") {
            let text = std::str::from_utf8(bytes).unwrap();
            let named = text.split('"').filter(|word| word.starts_with("sha256:"));
            named.for_each(|digest| assert!(seen.contains(&digest), "{digest} of {}", descriptor.digest));
        }
        seen.push(&descriptor.digest);
    }
    assert_eq!(*seen.last().unwrap(), answer["containerimage.digest"]);
    let mut bytes = Vec::new();
    taken.blobs[0].1.as_slice().read_to_end(&mut bytes).unwrap();
    assert!(!bytes.is_empty());
}
