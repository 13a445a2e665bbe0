//! What is said of a result, in images and as files.

use std::sync::Arc;

use bollard_buildkit_proto::pb;
use build::attest::{self, Request, Wanted};
use build::cancel::Cancel;
use build::export::{Attestation, Content, Subject};
use build::job::{Answer, Attributes, Inputs, Job, Local, Output, Runner, Step, StepSource};
use model::time::Timestamp;
use prost::Message;
use serde_json::{Value, json};

use crate::place::Place;

fn said(path: &str, predicate_type: &str, content: Content) -> Attestation {
    Attestation {
        path: path.into(),
        predicate_type: predicate_type.into(),
        subjects: Vec::new(),
        content,
        inline_only: false,
        core: String::new(),
    }
}

fn provenance() -> Attestation {
    let bytes = Arc::new(br#"{"buildDefinition":{"b":1,"a":2}}"#.to_vec());
    said("provenance.json", "https://slsa.dev/provenance/v1", Content::Bytes(bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_gets_a_manifest_with_what_is_said_of_it() {
    let place = Place::new();
    let source = place.source(&place.two_layers(), &[], vec![provenance()]);
    let (answer, _) = place.export("image", &[("name", "app:1")], &source).await;
    let index = place.document(&answer["containerimage.digest"]);
    let [image, of_image] = [&index["manifests"][0], &index["manifests"][1]];
    assert_eq!(of_image["platform"], json!({"architecture": "unknown", "os": "unknown"}));
    assert_eq!(
        of_image["annotations"],
        json!({"vnd.docker.reference.digest": image["digest"], "vnd.docker.reference.type": "attestation-manifest"})
    );
    let manifest = place.document(of_image["digest"].as_str().unwrap());
    assert_eq!(manifest["artifactType"], "application/vnd.docker.attestation.manifest.v1+json");
    assert_eq!((&manifest["subject"]["digest"], &manifest["config"]["data"]), (&image["digest"], &json!("e30=")));
    let layer = &manifest["layers"][0];
    assert_eq!(layer["annotations"], json!({"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"}));
    let statement = place.document(layer["digest"].as_str().unwrap());
    let digest = image["digest"].as_str().unwrap().trim_start_matches("sha256:");
    assert_eq!(
        statement,
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "predicateType": "https://slsa.dev/provenance/v1",
            "subject": [{"name": "pkg:docker/app@1?platform=linux%2Famd64", "digest": {"sha256": digest}}],
            "predicate": {"buildDefinition": {"b": 1, "a": 2}},
        })
    );
    // The image is run, and its attestations are found.
    assert_eq!(place.builder.images.resolve("app:1", None).unwrap().platform, "linux/amd64");
    let (old, _) = place.export("image", &[("oci-artifact", "false")], &source).await;
    let index = place.document(&old["containerimage.digest"]);
    let manifest = place.document(index["manifests"][1]["digest"].as_str().unwrap());
    assert_eq!((manifest.get("artifactType"), manifest.get("subject")), (None, None));
    let config = place.document(manifest["config"]["digest"].as_str().unwrap());
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    let (refused, _) = place.try_export("image", &[("oci-mediatypes", "false")], &source).await;
    assert_eq!(refused.unwrap_err().message(), "cannot export attestations with \"oci-mediatypes=false\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_images_only_is_in_no_archive_and_no_file() {
    let place = Place::new();
    let inline = Attestation { inline_only: true, ..provenance() };
    let source = place.source(&place.two_layers(), &[], vec![inline]);
    let (image, _) = place.export("image", &[], &source).await;
    assert!(!image.contains_key("containerimage.config.digest"));
    let (archive, _) = place.export("oci", &[], &source).await;
    assert!(archive.contains_key("containerimage.config.digest"));
    let (forced, _) = place.export("oci", &[("attestation-inline", "true")], &source).await;
    assert_eq!(forced["containerimage.digest"], image["containerimage.digest"]);
    let (_, client) = place.export("local", &[], &source).await;
    assert!(!client.0.lock().order.iter().any(|path| path.contains("provenance")));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_sent_with_what_is_said_of_each() {
    let place = Place::new();
    let source = place.source(&place.two_layers(), &[("source.date.epoch", "5")], vec![provenance()]);
    let (_, client) = place.export("local", &[("attestation-prefix", "x-")], &source).await;
    let taken = client.0.lock();
    assert_eq!(taken.order.last().unwrap(), "x-provenance.json");
    let (stat, bytes) = &taken.tree["x-provenance.json"];
    assert_eq!((stat.mode, stat.mod_time, stat.size), (0o600, 5_000_000_000, bytes.len() as i64));
    let statement: Value = serde_json::from_slice(bytes).unwrap();
    let subjects = statement["subject"].as_array().unwrap();
    let names: Vec<&str> = subjects.iter().map(|subject| subject["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dir/file", "new"]);
    assert_eq!(subjects[1]["digest"]["sha256"], "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_taken_apart_and_the_main_list_comes_first() {
    let place = Place::new();
    let statement =
        |name: &str| json!({"predicateType": "https://spdx.dev/Document", "predicate": {"name": name}}).to_string();
    let bundle = place.layer(&Default::default(), "scan", |root| {
        std::fs::write(root.join("extra.spdx.json"), statement("extra")).unwrap();
        std::fs::write(root.join("sbom.spdx.json"), statement("main")).unwrap();
    });
    let list =
        Attestation { core: "sbom".into(), ..said("", "https://spdx.dev/Document", Content::Bundle(bundle.clone())) };
    let source = place.source(&place.two_layers(), &[], vec![list]);
    let (answer, _) = place.export("image", &[("name", "app")], &source).await;
    let index = place.document(&answer["containerimage.digest"]);
    let manifest = place.document(index["manifests"][1]["digest"].as_str().unwrap());
    let names: Vec<Value> = (0..2)
        .map(|at| place.document(manifest["layers"][at]["digest"].as_str().unwrap())["predicate"]["name"].clone())
        .collect();
    assert_eq!(names, ["main", "extra"]);
    for (attestation, text) in [
        (said("", "https://other", Content::Bundle(bundle.clone())), "does not match required predicate type"),
        (said("nosuch", "", Content::Bundle(bundle.clone())), "opening the bundle"),
        (
            said("sbom.spdx.json", "https://slsa.dev/provenance/v1", Content::File(bundle.clone())),
            "frontend may not set provenance",
        ),
        (said("..", "https://x", Content::File(bundle.clone())), "is not a regular file"),
        (said("", "https://x", Content::File(bundle)), "does not have set path"),
    ] {
        let source = place.source(&place.two_layers(), &[], vec![attestation]);
        let (refused, _) = place.try_export("image", &[], &source).await;
        let error = refused.unwrap_err();
        assert!(error.message().contains(text), "{text}: {error:?}");
    }
    let named = Attestation {
        subjects: vec![Subject::Itself("other".into()), Subject::Other("x".into(), Vec::new())],
        ..provenance()
    };
    let source = place.source(&place.two_layers(), &[], vec![named]);
    let (answer, _) = place.export("image", &[("name", "app")], &source).await;
    let index = place.document(&answer["containerimage.digest"]);
    let manifest = place.document(index["manifests"][1]["digest"].as_str().unwrap());
    let statement = place.document(manifest["layers"][0]["digest"].as_str().unwrap());
    let names: Vec<&Value> = statement["subject"].as_array().unwrap().iter().map(|subject| &subject["name"]).collect();
    assert_eq!(names, [&json!("pkg:docker/app@latest?platform=linux%2Famd64"), &json!("other"), &json!("x")]);
}

/// A client that has nothing.
struct Nothing;

impl Inputs for Nothing {
    fn local<'a>(&'a self, name: &'a str, _: &'a Attributes) -> Answer<'a, model::Result<Local>> {
        Box::pin(async move { Err(model::Error::not_found(name)) })
    }

    fn secret<'a>(&'a self, _: &'a str) -> Answer<'a, model::Result<Option<Vec<u8>>>> {
        Box::pin(async { Ok(None) })
    }
}

/// Speaks the generator's protocol: lists the names in what it finds.
struct Scanner;

impl Runner for Scanner {
    fn run(&self, step: Step, _: Output, _: Cancel) -> Answer<'_, model::Result<i32>> {
        let place = |target: &str| {
            let mount = step.mounts.iter().find(|mount| mount.target.trim_end_matches('/') == target).unwrap();
            let StepSource::Tree(tree) = &mount.source else { panic!("no tree") };
            (format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(tree)), mount.writable)
        };
        let (source, destination) = (place("/run/src/core/sbom"), place("/run/out"));
        assert!(!source.1 && destination.1);
        for line in
            ["BUILDKIT_SCAN_SOURCE=/run/src/core/sbom", "BUILDKIT_SCAN_DESTINATION=/run/out/", "BUILDKIT_SCAN_LEVEL=3"]
        {
            assert!(step.env.iter().any(|known| known == line), "{line}: {:?}", step.env);
        }
        assert_eq!(step.args, ["/new"]);
        let mut names: Vec<String> = std::fs::read_dir(source.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let statement = json!({"predicateType": "https://spdx.dev/Document", "predicate": {"names": names}});
        std::fs::write(format!("{}/sbom.spdx.json", destination.0), statement.to_string()).unwrap();
        Box::pin(async { Ok(0) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_lists_the_packages_of_a_result_and_its_origin_is_told() {
    let place = Place::new();
    place.export("image", &[("name", "scanner")], &place.source(&place.two_layers(), &[], Vec::new())).await;
    let chain = place.layer(&Default::default(), "COPY", |root| std::fs::write(root.join("only"), "").unwrap());
    place.export("image", &[("name", "base")], &place.source(&chain, &[], Vec::new())).await;
    let (sender, mut events) = tokio::sync::mpsc::channel(build::job::EVENTS);
    let told = tokio::spawn(async move {
        let mut names = Vec::new();
        while let Some(event) = events.recv().await {
            if let build::job::Event::Started { name, .. } = event {
                names.push(name);
            }
        }
        names
    });
    let job = Arc::new(Job::new(&place.builder, Arc::new(Scanner), Arc::new(Nothing), sender));
    let base = pb::SourceOp { identifier: "docker-image://docker.io/library/base:latest".into(), ..Default::default() };
    let base = pb::Op { op: Some(pb::op::Op::Source(base)), ..Default::default() }.encode_to_vec();
    let digest = model::digest::Digest::of(model::digest::Algorithm::Sha256, &base).to_string();
    let last = pb::Op { inputs: vec![pb::Input { digest, index: 0 }], ..Default::default() }.encode_to_vec();
    let definition = pb::Definition { def: vec![base, last], ..Default::default() };
    let files = job.solve_definition(&definition).await.unwrap().unwrap();
    let mut source = Arc::unwrap_or_clone(place.source(&files.chain(), &[], Vec::new()));
    let attributes = [("attest:provenance", "mode=max"), ("attest:sbom", "generator=scanner,LEVEL=3")];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let wanted = Wanted::read(&attributes).unwrap();
    let started = Timestamp::from_unix_seconds(1);
    let request = Request { frontend: String::new(), attributes, reference: "r".into(), started };
    let definitions = [("linux/amd64".to_owned(), definition)].into();
    attest::add(&job, &mut source, &wanted, (&request, &definitions)).await.unwrap();
    let (answer, _) = place.export("image", &[], &Arc::new(source.clone())).await;
    let index = place.document(&answer["containerimage.digest"]);
    let manifest = place.document(index["manifests"][1]["digest"].as_str().unwrap());
    let said = |at: usize| place.document(manifest["layers"][at]["digest"].as_str().unwrap());
    assert_eq!(said(0)["predicate"], json!({"names": ["only"]}));
    let material = &said(1)["predicate"]["buildDefinition"]["resolvedDependencies"][0];
    assert_eq!(material["uri"], "pkg:docker/base@latest");
    assert!(material["digest"]["sha256"].is_string());
    // It is there already.
    let count = source.targets[0].attestations.len();
    let only = Wanted { provenance: None, ..wanted };
    attest::add(&job, &mut source, &only, (&request, &definitions)).await.unwrap();
    assert_eq!(source.targets[0].attestations.len(), count);
    job.await_kept().await;
    drop(job);
    let names = told.await.unwrap();
    assert!(
        names.iter().any(|name| name.starts_with("[linux/amd64] generating sbom using docker.io/library/scanner")),
        "{names:?}"
    );
}
