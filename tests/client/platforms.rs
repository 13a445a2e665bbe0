//! Images for several platforms: what is listed, chosen, saved, removed by platform, and the attestations beside them.

use serde_json::{Value, json};
use testkit::Daemon;
use testkit::images::{Tar, busybox_tar};
use testkit::layouts::Layout;

use crate::events::now;

const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
const SBOM: &str = "https://spdx.dev/Document";

/// `multi:1` for amd64 and arm64, with attestations of the first; the content for arm/v7 is not in the archive.
struct Multi {
    layout: Layout,
    index: String,
    native: String,
    arm64: String,
    v7: String,
}

fn native() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" }
}

fn foreign() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux/amd64" } else { "linux/arm64" }
}

fn multi() -> Multi {
    let mut layout = Layout::new();
    let config = json!({"Cmd": ["cat", "/who"], "Env": ["PATH=/bin"]});
    let who = |text: &str| Tar::new().file("who", 0o644, text.as_bytes()).bytes();
    let native = layout.image(native(), &[busybox_tar(), who("native")], &config);
    let arm64 = layout.image(foreign(), &[who("foreign")], &config);
    let v7 = layout.image("linux/arm/v7", &[who("v7")], &config);
    let statements = [
        (PROVENANCE, json!({"_type": "https://in-toto.io/Statement/v0.1", "predicate": {"builder": 1}})),
        (SBOM, json!({"packages": []})),
    ];
    let attestation = layout.attestation(&native, &statements);
    let index = layout.index(&[native.clone(), arm64.clone(), v7.clone(), attestation]);
    layout.forget(&v7);
    let name = [("io.containerd.image.name", "docker.io/library/multi:1"), ("org.opencontainers.image.ref.name", "1")];
    let digest = |descriptor: &Value| descriptor["digest"].as_str().unwrap().to_owned();
    let digests = [&index, &native, &arm64, &v7].map(digest);
    let layout = layout.entry(&index, &name);
    let [index, native, arm64, v7] = digests;
    Multi { layout, index, native, arm64, v7 }
}

fn query(platform: &str) -> String {
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
    let variant = parts.next().map(|v| format!(",%22variant%22:%22{v}%22")).unwrap_or_default();
    format!("platform=%7B%22os%22:%22{os}%22,%22architecture%22:%22{architecture}%22{variant}%7D")
}

#[test]
fn manifests_are_listed_and_chosen_by_platform() {
    let d = Daemon::start();
    let multi = multi();
    d.load(&multi.layout.tar());
    assert_eq!(d.inspect("multi:1", "{{.Id}}"), multi.index);
    assert_eq!(d.docker(&["run", "--rm", "multi:1"]).text(), "native");
    let list = d.http("GET", "/images/json?manifests=1", "").expect(200).json();
    let manifests = list[0]["Manifests"].as_array().unwrap();
    let shape = |m: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&m["ID"]), text(&m["Kind"]), m["Available"].as_bool().unwrap())
    };
    let shapes: Vec<_> = manifests.iter().map(shape).collect();
    assert_eq!(shapes[0], (multi.native.clone(), "image".into(), true));
    assert_eq!(shapes[1], (multi.arm64.clone(), "image".into(), true));
    assert_eq!(shapes[2], (multi.v7.clone(), "image".into(), false));
    assert_eq!(
        (shapes[3].1.as_str(), manifests[3]["AttestationData"]["For"].as_str()),
        ("attestation", Some(multi.native.as_str()))
    );
    assert_eq!(manifests[2]["ImageData"]["Platform"]["variant"], "v7");
    let tree = d.docker(&["images", "--tree"]).text();
    assert!(["linux/amd64", "linux/arm64", "linux/arm/v7"].iter().all(|p| tree.contains(p)), "{tree}");

    let by = |platform: &str| {
        d.docker(&["image", "inspect", "--platform", platform, "-f", "{{.Id}} {{.Architecture}}", "multi:1"])
    };
    assert_eq!(by(foreign()).text(), format!("{} {}", multi.arm64, &foreign()["linux/".len()..]));
    assert!(by("linux/arm/v7").ok().stdout.starts_with(&multi.v7));
    by("linux/s390x")
        .fails(1, "image with reference multi:1 was found but does not provide the specified platform (linux/s390x)");
    let history = |platform: &str| d.docker(&["history", "-q", "--no-trunc", "--platform", platform, "multi:1"]);
    assert_eq!(history(foreign()).text(), multi.index);
    history("linux/arm/v7").fails(1, "does not provide the specified platform (linux/arm)");
    let both = format!("/images/multi:1/json?manifests=1&{}", query(native()));
    let text = "conflicting options: manifests and platform options cannot both be set";
    assert_eq!(d.http("GET", &both, "").expect(400).message(), text);
    d.finish();
}

#[test]
fn a_container_of_another_platform_can_be_made() {
    let d = Daemon::start();
    let multi = multi();
    d.load(&multi.layout.tar());
    let made = d.docker(&["create", "--name", "c1", "--platform", foreign(), "multi:1"]).ok();
    assert!(!made.stderr.contains("does not match"), "{made:?}");
    let manifest =
        d.http("GET", "/containers/c1/json", "").expect(200).json()["ImageManifestDescriptor"]["digest"].clone();
    assert_eq!(manifest, multi.arm64.as_str());
    let mut only = Layout::new();
    let image = only.image(foreign(), &[Tar::new().file("x", 0o644, b"x").bytes()], &json!({"Cmd": ["/x"]}));
    d.load(&only.entry(&image, &[("io.containerd.image.name", "docker.io/library/only:1")]).tar());
    let warned = d.docker(&["create", "--name", "c2", "only:1"]).ok().stderr;
    let expected = format!(
        "The requested image's platform ({}) does not match the detected host platform ({}) and no specific platform was requested",
        foreign(),
        native()
    );
    assert!(warned.contains(&expected), "{warned}");
    assert_eq!(d.inspect("only:1", "{{.Architecture}}"), &foreign()["linux/".len()..]);
    let _ = d.docker(&["rm", "c1", "c2"]).ok();
    d.finish();
}

/// A machine runs what its 32-bit ancestors do, unasked; who asks for a platform gets that one.
#[test]
#[cfg(target_arch = "x86_64")]
fn an_image_for_an_ancestor_runs() {
    let d = Daemon::start();
    let mut layout = Layout::new();
    let image = layout.image("linux/386", &[busybox_tar()], &json!({"Cmd": ["echo", "old"], "Env": ["PATH=/bin"]}));
    let index = layout.index(&[image]);
    d.load(&layout.entry(&index, &[("io.containerd.image.name", "docker.io/library/old:1")]).tar());
    let ran = d.docker(&["run", "--rm", "old:1"]).ok();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("old\n", ""));
    let text = "image with reference old:1 was found but does not provide the specified platform (linux/amd64)";
    let asked =
        |platform: &str| d.http("POST", &format!("/containers/create?platform={platform}"), "{\"Image\":\"old:1\"}");
    assert_eq!(asked("linux/amd64").expect(404).message(), text);
    let _ = asked("linux/386").expect(201);
    d.finish();
}

#[test]
fn platforms_are_saved_and_loaded_alone() {
    let d = Daemon::start();
    let multi = multi();
    d.load(&multi.layout.tar());
    let path = d.path("one.tar");
    let file = path.to_str().unwrap();
    let _ = d.docker(&["save", "--platform", foreign(), "-o", file, "multi:1"]).ok();
    let names = d.exec_inside(&["tar", "-tf", file]).ok().stdout;
    let has = |names: &str, digest: &str| names.contains(&digest["sha256:".len()..]);
    assert!(has(&names, &multi.arm64) && !has(&names, &multi.native) && !has(&names, &multi.index), "{names}");
    let refusal = "no suitable export target found: image with reference multi:1 was found but does not provide";
    d.docker(&["save", "--platform", "linux/s390x", "-o", file, "multi:1"]).fails(1, refusal);
    let two = format!("multi:1/get?{}&{}", query(native()), query(foreign()));
    let answer = d.http("GET", &format!("/v1.51/images/{two}"), "").expect(400).message();
    assert_eq!(
        answer,
        "multiple platform parameters are not supported in this API version; use API version 1.52 or later"
    );
    let _ = d.docker(&["rmi", "multi:1"]).ok();
    let _ = d.docker(&["load", "-i", file]).ok();
    assert_eq!(d.inspect("multi:1", "{{.Id}}"), multi.arm64);
    let _ = d.docker(&["rmi", "multi:1"]).ok();
    let whole = d.path("whole.tar");
    std::fs::write(&whole, multi.layout.tar()).unwrap();
    let load = |platform: &str| d.docker(&["load", "--platform", platform, "-i", whole.to_str().unwrap()]);
    load("linux/s390x")
        .fails(1, "image multi:1 was loaded, but doesn't provide the requested platform ([linux/s390x])");
    assert_eq!(load(foreign()).text(), "Loaded image: multi:1");
    let events = d.docker(&["events", "--since", "0", "--until", &now().to_string(), "--filter", "event=save"]).text();
    assert!(events.contains(&format!("image save {0} (name={0})", multi.arm64)), "{events}");
    d.finish();
}

#[test]
fn a_platform_is_removed_and_the_image_stays() {
    let d = Daemon::start();
    let multi = multi();
    d.load(&multi.layout.tar());
    let blobs = || std::fs::read_dir(d.data_root().join("content/blobs/sha256")).unwrap().count();
    let before = blobs();
    let remove = |words: &[&str]| d.docker(&[&["rmi"], words, &["multi:1"]].concat());
    remove(&["--platform", foreign()]).fails(1, "Content will be removed from all images referencing this variant.");
    // The client takes what is not there for removed when it is forced.
    let missing = remove(&["-f", "--platform", "linux/s390x"]).stderr;
    assert!(missing.contains("failed to delete platform linux/s390x for image sha256:"), "{missing}");
    assert_eq!(remove(&["-f", "--platform", foreign()]).text(), format!("Deleted: {}", multi.arm64));
    assert_eq!(blobs(), before - 3);
    let again = remove(&["-f", "--platform", foreign()]).stderr;
    assert!(again.contains("does not provide the specified platform"), "{again}");
    assert_eq!(d.docker(&["run", "--rm", "multi:1"]).text(), "native");
    let list = d.http("GET", "/images/json?manifests=1", "").expect(200).json();
    assert_eq!(list[0]["Manifests"][1]["Available"], false);
    // What is left is saved and comes back as the same index.
    let path = d.path("left.tar");
    let _ = d.docker(&["save", "-o", path.to_str().unwrap(), "multi:1"]).ok();
    let _ = d.docker(&["rmi", "multi:1"]).ok();
    assert_eq!(blobs(), 0);
    let _ = d.docker(&["load", "-i", path.to_str().unwrap()]).ok();
    assert_eq!(d.inspect("multi:1", "{{.Id}}"), multi.index);
    d.finish();
}

#[test]
fn attestations_are_told() {
    let d = Daemon::start();
    let multi = multi();
    d.load(&multi.layout.tar());
    d.busybox();
    let get = |query: &str| d.http("GET", &format!("/images/multi:1/attestations{query}"), "");
    let all = get("").expect(200).json();
    let types: Vec<_> = all.as_array().unwrap().iter().map(|s| s["PredicateType"].as_str().unwrap()).collect();
    assert_eq!(types, [PROVENANCE, SBOM]);
    assert!(all[0].get("Statement").is_none());
    assert_eq!(all[0]["Descriptor"]["mediaType"], "application/vnd.in-toto+json");
    assert_eq!(all[0]["Descriptor"]["annotations"]["in-toto.io/predicate-type"], PROVENANCE);
    let one = get(&format!("?type={SBOM}&type=x&statement=true")).expect(200).text();
    assert!(one.contains(r#""Statement":{"packages":[]}"#) && !one.contains(PROVENANCE), "{one}");
    assert_eq!(get("?type=x").expect(200).text(), "[]\n");
    assert_eq!(get(&format!("?{}", query(foreign()))).expect(200).text(), "[]\n");
    assert_eq!(d.http("GET", "/images/busybox/attestations", "").expect(200).text(), "[]\n");
    assert_eq!(d.http("GET", "/images/nosuch/attestations", "").expect(404).message(), "No such image: nosuch:latest");
    let missing = get(&format!("?{}", query("linux/s390x"))).expect(404).message();
    assert!(missing.ends_with("no manifest for platform linux/s390x: not found"), "{missing}");
    let two = format!("?{}&{}", query(native()), query(foreign()));
    assert_eq!(get(&two).expect(400).message(), "only one platform value is currently supported");
    assert_eq!(get("?platform=%7B%7D").expect(400).message(), "both OS and Architecture must be provided");
    d.finish();
}

/// Indexes within indexes: loaded, run, saved and loaded again, by platform too.
#[test]
fn an_index_within_an_index_is_loaded_and_saved() {
    let d = Daemon::start();
    let mut layout = Layout::new();
    let config = json!({"Cmd": ["cat", "/who"], "Env": ["PATH=/bin"]});
    let who = |text: &str| Tar::new().file("who", 0o644, text.as_bytes()).bytes();
    let own = layout.image(native(), &[busybox_tar(), who("native")], &config);
    let other = layout.image(foreign(), &[who("foreign")], &config);
    let attestation = layout.attestation(&own, &[(SBOM, json!({"packages": []}))]);
    let mut inner = layout.index(&[own, attestation]);
    for _ in 0..3 {
        inner = layout.index(&[inner]);
    }
    let index = layout.index(&[other, inner]);
    let name = [("io.containerd.image.name", "docker.io/library/nested:1")];
    d.load(&layout.entry(&index, &name).tar());
    assert_eq!(d.docker(&["run", "--rm", "nested:1"]).text(), "native");
    let _ = d.docker(&["create", "--name", "c1", "--platform", foreign(), "nested:1"]).ok();
    let _ = d.docker(&["rm", "c1"]).ok();
    let saved = d.path("saved.tar");
    let _ = d.docker(&["save", "-o", saved.to_str().unwrap(), "nested:1"]).ok();
    let id = d.inspect("nested:1", "{{.Id}}");
    assert_eq!(d.faults(), Vec::<String>::new());
    let _ = d.docker(&["rmi", "nested:1"]).ok();
    assert_eq!(std::fs::read_dir(d.data_root().join("content/blobs/sha256")).unwrap().count(), 0);
    let _ = d.docker(&["load", "-i", saved.to_str().unwrap()]).ok();
    assert_eq!(d.inspect("nested:1", "{{.Id}}"), id);
    assert_eq!(d.docker(&["run", "--rm", "nested:1"]).text(), "native");
    d.finish();
}
