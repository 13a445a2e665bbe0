//! Registries that lie, stall or attack: a clear error, nothing registered, nothing left.

use serde_json::{Value, json};
use testkit::fake_registry::{
    Answer, CONFIG, FakeRegistry, INDEX, Image, LAYER_GZIP, MANIFEST, Reply, descriptor, gzip, noise,
};
use testkit::images::Tar;
use testkit::{Daemon, Options};

use crate::{assert_nothing, kept};

const NAME: &str = "127.0.0.1:5001/app:1";

fn started() -> (Daemon, FakeRegistry) {
    let d = Daemon::start();
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    (d, fake)
}

#[track_caller]
fn refused(d: &Daemon, text: &str) {
    d.docker(&["pull", NAME]).fails(1, text);
    assert_nothing(d);
}

fn image() -> Image {
    Image::new(&[Tar::new().file("x", 0o644, &noise(5, 100_000)).bytes()], &json!({"Cmd": ["/x"]}))
}

/// The image's manifest, changed.
fn changed(image: &Image, change: impl FnOnce(&mut Value)) -> String {
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    change(&mut manifest);
    manifest.to_string()
}

#[test]
fn content_that_is_not_what_its_digest_says() {
    let (d, fake) = started();
    let image = image();
    fake.image("app", "1", &image);
    let layer = descriptor(LAYER_GZIP, &image.layers[0])["digest"].as_str().unwrap().to_string();
    let mut spoiled = image.layers[0].clone();
    *spoiled.last_mut().unwrap() ^= 1;
    fake.blob_as(&layer, &spoiled);
    refused(&d, &format!("expected {layer}: failed precondition"));
    assert_eq!(kept(&d).1, 0, "a part that is wrong is not kept");
    fake.blob_as(&layer, &image.layers[0][..1000]);
    refused(&d, "unexpected size");
    fake.blob(&image.layers[0]);
    let config = descriptor(CONFIG, &image.config)["digest"].as_str().unwrap().to_string();
    let mut spoiled = image.config.clone();
    spoiled[10] ^= 1;
    fake.blob_as(&config, &spoiled);
    refused(&d, &format!("expected {config}: failed precondition"));
    fake.blob(&image.config);
    let other = image.manifest.clone();
    fake.rule(move |seen| {
        let by_digest = seen.method == "GET" && seen.path.contains("/manifests/sha256:");
        let bytes = [&other[..], b" "].concat();
        by_digest.then(|| Reply::Send(Answer::new(200, bytes).with("Content-Type", MANIFEST)))
    });
    refused(&d, "manifest verification failed for digest");
    fake.behave();
    let _ = d.docker(&["pull", "-q", NAME]).ok();
    drop(fake);
    d.finish();
}

#[test]
fn documents_that_contradict_themselves() {
    let (d, fake) = started();
    let image = image();
    fake.image("app", "1", &image);
    let serve = |media_type: &str, text: &str| drop(fake.manifest("app", "1", media_type, text.as_bytes()));
    serve(MANIFEST, &changed(&image, |m| m["manifests"] = json!([descriptor(MANIFEST, b"x")])));
    refused(&d, "it is both an index and an image");
    serve(INDEX, &changed(&image, |m| drop(m.as_object_mut().unwrap().remove("mediaType"))));
    refused(&d, "invalid manifest");
    serve(MANIFEST, &changed(&image, |m| m["mediaType"] = json!(INDEX)));
    refused(&d, "mediaType in manifest should be");
    serve(MANIFEST, &changed(&image, |m| m["layers"] = json!([])));
    refused(&d, "mismatched image rootfs and manifest layers");
    serve(MANIFEST, &changed(&image, |m| m["layers"][0]["mediaType"] = json!("text/html")));
    refused(&d, "unsupported media type text/html");
    serve(MANIFEST, &changed(&image, |m| m["layers"][0]["digest"] = json!("sha256:../../x")));
    refused(&d, "checksum digest");
    serve(MANIFEST, &changed(&image, |m| m["layers"][0]["size"] = json!(-1)));
    refused(&d, "negative size");
    serve(MANIFEST, &changed(&image, |m| m["layers"] = json!(vec![m["layers"][0].clone(); 10_000])));
    refused(&d, "layers, at most");
    serve(MANIFEST, &changed(&image, |m| m["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json")));
    refused(&d, "is an artifact, not a container image");
    let model = "application/vnd.docker.ai.model.config.v0.1+json";
    serve(MANIFEST, &changed(&image, |m| m["config"]["mediaType"] = json!(model)));
    let told = d.docker(&["pull", NAME]).stdout;
    assert!(told.contains("WARNING: AI models are not supported by the Engine yet"), "{told}");
    refused(&d, "is an artifact, not a container image");
    serve(MANIFEST, &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)));
    refused(&d, "invalid manifest");
    serve("application/vnd.docker.distribution.manifest.v1+prettyjws", r#"{"schemaVersion":1,"fsLayers":[]}"#);
    refused(&d, "schema 1 support has been removed");
    serve(MANIFEST, &"x".repeat(5 << 20));
    refused(&d, "larger than");
    drop(fake);
    d.finish();
}

#[test]
fn layers_that_are_not_what_the_configuration_says() {
    let (d, fake) = started();
    let mut image = image();
    let other = gzip(&Tar::new().file("evil", 0o644, b"x").bytes());
    let manifest = changed(&image, |m| m["layers"][0] = descriptor(LAYER_GZIP, &other));
    image.layers = vec![other];
    image.manifest = manifest.into_bytes();
    fake.image("app", "1", &image);
    refused(&d, "wrong diff id calculated on extraction");
    drop(fake);
    d.finish();
}

#[test]
fn tars_that_leave_their_layer_and_bombs() {
    let (d, fake) = started();
    let canary = d.path("canary");
    std::fs::create_dir(&canary).unwrap();
    std::fs::write(canary.join("file"), "untouched").unwrap();
    let target = canary.display().to_string();
    let evil =
        Tar::new().symlink("out", &target).file("out/file", 0o644, b"touched").file("out/new", 0o644, b"x").bytes();
    fake.image("app", "1", &Image::new(&[evil], &json!({})));
    // It may be refused or confined; the canary decides.
    let _ = d.docker(&["pull", NAME]);
    assert_eq!(std::fs::read_to_string(canary.join("file")).unwrap(), "untouched");
    assert!(!canary.join("new").exists());
    let _ = d.docker(&["rmi", NAME]);
    let mut image = Image::new(&[Tar::new().bytes()], &json!({}));
    let garbage = gzip(&noise(1, 100_000));
    let manifest = changed(&image, |m| m["layers"][0] = descriptor(LAYER_GZIP, &garbage));
    (image.layers, image.manifest) = (vec![garbage], manifest.into_bytes());
    fake.image("app", "1", &image);
    assert_ne!(d.docker(&["pull", NAME]).code, 0);
    assert_nothing(&d);
    drop(fake);
    d.finish();
}

#[test]
fn refusals_in_the_middle_are_told() {
    let (d, fake) = started();
    fake.image("app", "1", &image());
    for (status, code, text) in [
        (401, "UNAUTHORIZED", "unauthorized: no"),
        (403, "DENIED", "denied: no"),
        (404, "BLOB_UNKNOWN", "blob unknown: no"),
    ] {
        fake.rule(move |seen| seen.path.contains("/blobs/").then(|| Reply::Send(Answer::refusal(status, code, "no"))));
        refused(&d, text);
        fake.behave();
    }
    fake.rule(|seen| {
        let away = Answer::new(307, "").with("Location", "file:///etc/passwd");
        seen.path.contains("/blobs/").then_some(Reply::Send(away))
    });
    refused(&d, "unsupported protocol scheme \"file\"");
    fake.behave();
    let _ = d.docker(&["pull", "-q", NAME]).ok();
    drop(fake);
    d.finish();
}

#[test]
fn a_registry_that_cuts_every_time_is_given_up_and_its_bytes_are_kept() {
    let d = Options::new().args(&["--max-download-attempts=2"]).start();
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    fake.image("app", "1", &image());
    fake.rule(|seen| seen.path.contains("/blobs/").then_some(Reply::Cut(None, 0)));
    refused(&d, "unexpected EOF");
    fake.behave();
    let _ = d.docker(&["pull", "-q", NAME]).ok();
    drop(fake);
    d.finish();
}

#[test]
fn a_full_disk_is_told_and_given_back() {
    let d = Options::new().disk("48m").start();
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    fake.image("app", "1", &Image::of_noise(&[60 << 20]));
    d.docker(&["pull", NAME]).fails(1, "no space left on device");
    let used = d.exec_inside(&["du", "-sm", &d.data_root().display().to_string()]).text();
    let used: u64 = used.split_whitespace().next().unwrap().parse().unwrap();
    assert!(used < 16, "{used} MB are still in use");
    fake.image("app", "1", &image());
    let _ = d.docker(&["pull", "-q", NAME]).ok();
    drop(fake);
    d.finish();
}
