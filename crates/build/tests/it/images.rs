//! The exporter `image`.

use std::sync::Arc;

use model::digest::Digest;
use serde_json::json;

use crate::place::{Place, WRITTEN};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_result_gives_the_same_image_byte_for_byte() {
    let (one, other) = (Place::new(), Place::new());
    let attributes = [("name", "app:1,app:2")];
    let (first, client) = one.export("moby", &attributes, &one.source(&one.two_layers(), &[], Vec::new())).await;
    let (again, _) = one.export("image", &attributes, &one.source(&one.two_layers(), &[], Vec::new())).await;
    let (elsewhere, _) = other.export("image", &attributes, &other.source(&other.two_layers(), &[], Vec::new())).await;
    assert_eq!((&first, &first), (&again, &elsewhere));
    assert_eq!(first["image.name"], "docker.io/library/app:1,docker.io/library/app:2");
    let names: Vec<String> = one.builder.images.catalog().names.keys().cloned().collect();
    assert_eq!(names, ["docker.io/library/app:1", "docker.io/library/app:2"]);
    let events: Vec<String> = one.bus.recent().iter().map(|event| event.action.clone()).collect();
    assert_eq!(events, ["create", "tag", "tag", "create", "tag", "tag"]);
    let told = format!("{:?}", client.0.lock().status);
    for what in [
        "exporting layers",
        "exporting manifest sha256:",
        "exporting config sha256:",
        "naming to docker.io/library/app:1",
    ] {
        assert!(told.contains(what), "{what}: {told}");
    }
    let manifest = one.document(&first["containerimage.digest"]);
    let config = one.document(&first["containerimage.config.digest"]);
    assert_eq!(manifest["config"]["digest"], first["containerimage.config.digest"].as_str());
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
    assert_eq!(config["history"][2]["created"], config["created"]);
    // It can be run: its layers are known by their digests.
    let found = one.builder.images.resolve("app:1", None).unwrap();
    assert_eq!(json!(found.layers), config["rootfs"]["diff_ids"]);
    assert_eq!(found.config.labels["tier"], "front");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_a_name_is_called_by_its_digest() {
    let place = Place::new();
    let source = place.source(&place.two_layers(), &[], Vec::new());
    let (answer, _) = place.export("moby", &[], &source).await;
    let digest = &answer["containerimage.digest"];
    assert_eq!(answer["image.name"], format!("moby-dangling@{digest}"));
    assert!(place.builder.images.catalog().names.is_empty());
    assert!(place.builder.images.resolve(digest, None).is_ok());
    // The front end has a name for it.
    let source = place.source(&place.two_layers(), &[("image.name", "said:3")], Vec::new());
    let (answer, _) = place.export("image", &[("name", "*"), ("name-canonical", "true")], &source).await;
    assert_eq!(answer["image.name"], "docker.io/library/said:3");
    let names: Vec<String> = place.builder.images.catalog().names.keys().cloned().collect();
    assert_eq!(names, ["docker.io/library/said:3".to_owned(), format!("docker.io/library/said@{digest}")]);
    // Nothing is kept.
    let place = Place::new();
    let source = place.source(&place.two_layers(), &[], Vec::new());
    place.export("image", &[("store", "false"), ("name", "x")], &source).await;
    assert_eq!(place.builder.images.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_platforms_are_an_index() {
    let place = Place::new();
    let (a, b) = (place.two_layers(), place.two_layers());
    let attributes = [
        ("name", "multi"),
        ("annotation.of.all", "1"),
        ("annotation[linux/arm64].of.arm", "2"),
        ("annotation-index.of.index", "3"),
        ("annotation-manifest-descriptor[linux/amd64].of.descriptor", "4"),
    ];
    let (answer, _) = place.export("image", &attributes, &place.two_platforms([&a, &b])).await;
    assert!(!answer.contains_key("containerimage.config.digest"));
    let index = place.document(&answer["containerimage.digest"]);
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(index["annotations"], json!({"of.index": "3"}));
    let [amd, arm] = [&index["manifests"][0], &index["manifests"][1]];
    assert_eq!(arm["platform"], json!({"architecture": "arm64", "os": "linux"}));
    assert_eq!(amd["annotations"], json!({"of.descriptor": "4"}));
    let annotations =
        |entry: &serde_json::Value| place.document(entry["digest"].as_str().unwrap())["annotations"].clone();
    assert_eq!(annotations(amd), json!({"of.all": "1"}));
    assert_eq!(annotations(arm), json!({"of.all": "1", "of.arm": "2"}));
    let found = |platform: &str| place.builder.images.resolve("multi", Some(platform)).unwrap().platform;
    assert_eq!((found("linux/amd64"), found("linux/arm64")), ("linux/amd64".into(), "linux/arm64".into()));
    let none = [("annotation[linux/s390x].x", "")];
    let (refused, _) = place.try_export("image", &none, &place.two_platforms([&a, &b])).await;
    assert_eq!(refused.unwrap_err().message(), "invalid annotation: no platform linux/s390x found in source");
    let source = place.source(&a, &[], Vec::new());
    let (refused, _) = place.try_export("image", &[("annotation-index.x", "")], &source).await;
    assert_eq!(refused.unwrap_err().message(), "index annotations not supported for single platform export");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_compressed_as_is_asked() {
    let place = Place::new();
    let source = place.source(&place.two_layers(), &[], Vec::new());
    let mut seen = Vec::new();
    for (attributes, media_type) in [
        (vec![], "application/vnd.oci.image.layer.v1.tar+gzip"),
        (vec![("compression", "uncompressed")], "application/vnd.oci.image.layer.v1.tar"),
        (vec![("compression", "zstd")], "application/vnd.oci.image.layer.v1.tar+zstd"),
        (vec![("compression", "zstd"), ("compression-level", "19")], "application/vnd.oci.image.layer.v1.tar+zstd"),
        (vec![("compression-level", "0")], "application/vnd.oci.image.layer.v1.tar+gzip"),
        (vec![("oci-mediatypes", "false")], "application/vnd.docker.image.rootfs.diff.tar.gzip"),
    ] {
        let (answer, _) = place.export("image", &attributes, &source).await;
        let manifest = place.document(&answer["containerimage.digest"]);
        assert_eq!(manifest["layers"][1]["mediaType"], media_type, "{attributes:?}");
        let layer = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
        let config = place.document(&answer["containerimage.config.digest"]);
        seen.push((layer, config["rootfs"].clone()));
        let (again, _) = place.export("image", &attributes, &source).await;
        assert_eq!(answer, again);
    }
    assert!(seen.iter().all(|(_, rootfs)| *rootfs == seen[0].1), "{seen:?}");
    // The plain archive is what the diff id is of.
    assert_eq!(json!(seen[1].0), seen[0].1["diff_ids"][0]);
    let archives: std::collections::BTreeSet<&String> = seen.iter().map(|(layer, _)| layer).collect();
    assert_eq!(archives.len(), 5, "{seen:?}");
    assert_eq!(seen[0].0, seen[5].0);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_other_images_are_compressed_anew_only_when_that_is_forced() {
    let place = Place::new();
    let (answer, _) =
        place.export("image", &[("name", "base")], &place.source(&place.two_layers(), &[], Vec::new())).await;
    let base = place.document(&answer["containerimage.digest"]);
    let config = place.document(&answer["containerimage.config.digest"]);
    let chain: Vec<build::record::Layer> = (0..2)
        .map(|at| build::record::Layer {
            key: (&Digest::parse(config["rootfs"]["diff_ids"][at].as_str().unwrap()).unwrap()).into(),
            blob: Some(image::row::Content {
                media_type: base["layers"][at]["mediaType"].as_str().unwrap().into(),
                digest: Digest::parse(base["layers"][at]["digest"].as_str().unwrap()).unwrap(),
                size: base["layers"][at]["size"].as_u64().unwrap(),
            }),
        })
        .collect();
    let source = place.source(
        &place.layer(&Arc::new(chain), "RUN more", |root| std::fs::write(root.join("more"), "").unwrap()),
        &[],
        Vec::new(),
    );
    let types = |answer: &build::export::Response| {
        let manifest = place.document(&answer["containerimage.digest"]);
        let layers = manifest["layers"].as_array().unwrap().clone();
        let ends: Vec<String> = layers
            .iter()
            .map(|layer| layer["mediaType"].as_str().unwrap().rsplit('+').next().unwrap().to_owned())
            .collect();
        (ends, layers[0]["digest"] == base["layers"][0]["digest"])
    };
    let (own, _) = place.export("image", &[("compression", "zstd")], &source).await;
    assert_eq!(types(&own), (vec!["gzip".into(), "gzip".into(), "zstd".into()], true));
    let (forced, _) = place.export("image", &[("compression", "zstd"), ("force-compression", "true")], &source).await;
    assert_eq!(types(&forced), (vec!["zstd".to_owned(); 3], false));
    let config =
        |answer: &build::export::Response| place.document(&answer["containerimage.config.digest"])["rootfs"].clone();
    assert_eq!(config(&own), config(&forced));
    let (again, _) = place.export("image", &[("compression", "zstd"), ("force-compression", "true")], &source).await;
    assert_eq!(forced, again);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_later_than_the_chosen_time() {
    let place = Place::new();
    let mut digests = Vec::new();
    for time in [WRITTEN + 5, WRITTEN + 900] {
        let chain = place.two_layers();
        let chain = place.layer(&chain, "RUN touch", |root| {
            std::fs::create_dir(root.join("late")).unwrap();
            std::fs::write(root.join("late/file"), "x").unwrap();
        });
        // As if it had been written later.
        let directory =
            place.builder.roots.snapshots.layers.directories(&build::record::keys(&chain)).unwrap()[0].clone();
        let file = std::fs::File::options().write(true).open(directory.join("late/file")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(time as u64)).unwrap();
        let epoch = (WRITTEN - 100).to_string();
        let source = place.source(&chain, &[("source.date.epoch", &epoch)], Vec::new());
        let (kept, _) = place.export("image", &[], &source).await;
        let (rewritten, _) = place.export("image", &[("rewrite-timestamp", "true")], &source).await;
        let config = place.document(&rewritten["containerimage.config.digest"]);
        assert_eq!(config["created"], "2023-11-14T22:11:40Z");
        assert_eq!(config["history"][0]["created"], config["created"]);
        digests.push((kept["containerimage.digest"].clone(), rewritten["containerimage.digest"].clone()));
        // The attribute counts before the front end; without a value it is none.
        let (none, _) = place.export("image", &[("source-date-epoch", "")], &source).await;
        assert_eq!(place.document(&none["containerimage.config.digest"])["created"], "2023-11-14T22:13:20Z");
        let both = [("rewrite-timestamp", "true"), ("unpack", "true")];
        let (refused, _) = place.try_export("image", &both, &source).await;
        let text = "exporter option \"rewrite-timestamp\" conflicts with \"unpack\"";
        assert_eq!(refused.unwrap_err().message(), text);
    }
    assert_ne!(digests[0].0, digests[1].0);
    assert_eq!(digests[0].1, digests[1].1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_result_is_an_image_without_layers() {
    let place = Place::new();
    let source = place.source(&build::record::Chain::default(), &[], Vec::new());
    let (answer, _) = place.export("image", &[("name", "empty")], &source).await;
    let config = place.document(&answer["containerimage.config.digest"]);
    assert_eq!(config["rootfs"], json!({"type": "layers", "diff_ids": []}));
    assert!(config["history"].as_array().unwrap().iter().all(|row| row["empty_layer"] == true));
    assert!(place.builder.images.resolve("empty", None).is_ok());
}
