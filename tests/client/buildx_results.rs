//! What becomes of results, as the real client asks for it: images of several platforms, archives, trees of files, what is said of an
//! image, free texts, compression, times.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testkit::images::sha256;
use testkit::{Daemon, buildx, command};

use crate::build_context::Context;
use crate::buildx::{new_context, with_buildx};

/// Each platform gets its name in a file, made by a program of this machine.
const PLATFORMS: &str = "FROM --platform=$BUILDPLATFORM busybox AS make\nARG TARGETPLATFORM\nRUN mkdir /out && echo $TARGETPLATFORM > /out/name\n\
    FROM scratch\nCOPY --from=make /out/ /\n";
const BOTH: &str = "--platform=linux/amd64,linux/arm64";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An OCI layout, unpacked.
pub struct Layout(BTreeMap<String, Vec<u8>>);

impl Layout {
    /// Of an archive.
    pub fn unpack(d: &Daemon, archive: &Path) -> Layout {
        let dir = d.path(&format!("{}.d", archive.file_name().unwrap().to_str().unwrap()));
        fs::create_dir_all(&dir).unwrap();
        let _ = command::run(Command::new("tar").arg("xfC").arg(archive).arg(&dir), b"").ok();
        Layout::open(&dir)
    }

    /// Of a directory.
    pub fn open(dir: &Path) -> Layout {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir.join("blobs/sha256")).unwrap() {
            let path = entry.unwrap().path();
            let (name, bytes) = (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap());
            assert_eq!(sha256(&bytes), name);
            files.insert(format!("sha256:{name}"), bytes);
        }
        files.insert("index.json".into(), fs::read(dir.join("index.json")).unwrap());
        Layout(files)
    }

    /// A document.
    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.0[name]).unwrap()
    }

    /// What the layout is of.
    pub fn target(&self) -> Value {
        self.json("index.json")["manifests"][0].clone()
    }

    /// What a descriptor names.
    pub fn of(&self, descriptor: &Value) -> Value {
        self.json(descriptor["digest"].as_str().unwrap())
    }
}

fn export(d: &Daemon, context: &Context, name: &str, kind: &str, words: &[&str]) -> Layout {
    let path = d.path(name);
    let output = format!("--output=type={kind},dest={}", path.display());
    let _ = context.build(d, &[&[output.as_str()], words].concat()).ok();
    Layout::unpack(d, &path)
}

fn texts<'v>(list: &'v Value, pointer: &str) -> Vec<&'v str> {
    list.as_array().unwrap().iter().map(|entry| entry.pointer(pointer).and_then(Value::as_str).unwrap_or("")).collect()
}

#[test]
fn images_of_several_platforms() {
    let d = with_buildx();
    let context = new_context(&d, "both", PLATFORMS);
    let built = context.build(&d, &[BOTH, "-t", "both"]).ok();
    for part in ["[linux/amd64 make 2/2] RUN", "exporting manifest list sha256:", "exporting attestation manifest"] {
        assert!(built.stderr.contains(part), "{part}\n{}", built.stderr);
    }
    let listed: Value = serde_json::from_slice(&d.http("GET", "/v1.48/images/json?manifests=1", "").body).unwrap();
    let both = listed.as_array().unwrap().iter().find(|image| image["RepoTags"][0] == "both:latest").unwrap();
    let kinds = texts(&both["Manifests"], "/Kind");
    assert_eq!(kinds.iter().filter(|kind| **kind == "image").count(), 2, "{both}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "attestation").count(), 2, "{both}");
    // The same as an archive for the client, and to its standard output.
    let layout = export(&d, &context, "both.tar", "oci", &[BOTH, "-t", "both:1"]);
    let target = layout.target();
    assert_eq!(
        (target["mediaType"].as_str(), target["annotations"]["org.opencontainers.image.ref.name"].as_str()),
        (Some(INDEX), Some("1"))
    );
    let index = layout.of(&target);
    assert_eq!(texts(&index["manifests"], "/platform/architecture"), ["amd64", "arm64"]);
    for entry in index["manifests"].as_array().unwrap() {
        let config = layout.of(&layout.of(entry)["config"]);
        assert_eq!(config["architecture"], entry["platform"]["architecture"]);
    }
    let words = ["build", "--progress=plain", BOTH, "--output=type=oci", context.dir.to_str().unwrap()];
    let out = buildx::client(&d, &words).output().unwrap();
    let listed = command::run(Command::new("tar").arg("tf").arg("-"), &out.stdout).ok();
    assert!(out.status.success() && listed.stdout.contains("index.json"), "{}", listed.stdout);
    // An archive for `docker load` has one.
    let docker = format!("--output=type=docker,dest={}", d.path("docker.tar").display());
    let refused = context.build(&d, &[BOTH, &docker]);
    assert!(
        refused
            .stderr
            .contains("docker exporter does not support exporting manifest lists, use the oci exporter instead"),
        "{}",
        refused.stderr
    );
    let _ = context.build(&d, &[&docker, "-t", "loaded:1"]).ok();
    let loaded = command::run(d.cli(&["load", "-i"]).arg(d.path("docker.tar")), b"").ok();
    assert!(loaded.stdout.contains("Loaded image: loaded:1"), "{}", loaded.stdout);
    d.finish();
}

#[test]
fn files_of_several_platforms() {
    let d = with_buildx();
    let context = new_context(&d, "trees", PLATFORMS);
    let read = |path: &str| fs::read_to_string(d.path(path)).unwrap();
    let to = |kind: &str, name: &str| format!("--output=type={kind},dest={}", d.path(name).display());
    let _ = context.build(&d, &[BOTH, &to("local", "tree")]).ok();
    assert_eq!(
        (read("tree/linux_amd64/name"), read("tree/linux_arm64/name")),
        ("linux/amd64\n".into(), "linux/arm64\n".into())
    );
    let tar = to("tar", "tree.tar");
    let _ = context.build(&d, &[BOTH, &tar]).ok();
    let listed = command::run(Command::new("tar").arg("tf").arg(d.path("tree.tar")), b"").ok();
    assert_eq!(listed.stdout.lines().filter(|line| line.ends_with("/name")).count(), 2, "{}", listed.stdout);
    // In one directory files of the same name are refused; others lie beside each other.
    let one = format!("{},platform-split=false", to("local", "one"));
    let refused = context.build(&d, &[BOTH, &one]);
    assert!(refused.stderr.contains("when split option is disabled"), "{}", refused.stderr);
    let named = PLATFORMS
        .replace("/out/name", "/out/d/${TARGETPLATFORM#linux/}")
        .replace("/out &&", "/out /out/d && touch /out/special && chmod 4755 /out/special &&");
    let context = new_context(
        &d,
        "names",
        &named
            .replace("/out/special", "/out/d/special-$TARGETARCH")
            .replace("TARGETPLATFORM\n", "TARGETPLATFORM TARGETARCH\n"),
    );
    let _ = context.build(&d, &[BOTH, &one]).ok();
    assert_eq!((read("one/d/amd64"), read("one/d/arm64")), ("linux/amd64\n".into(), "linux/arm64\n".into()));
    // One platform lies in a directory of its own where that is wanted.
    let _ = context.build(&d, &[&format!("{},platform-split=true", to("local", "split"))]).ok();
    assert_eq!(read("split/linux_amd64/d/amd64"), "linux/amd64\n");
    d.finish();
}

/// A program of another platform fails as the kernel says it.
#[test]
fn a_program_of_another_platform_fails() {
    let d = with_buildx();
    // The header of an executable of another machine, and nothing else.
    let mut header = vec![0_u8; 64];
    header[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0");
    let context = new_context(&d, "foreign", "FROM scratch\nCOPY --chmod=755 sh /bin/sh\nRUN true\n");
    fs::write(context.dir.join("sh"), header).unwrap();
    let failed = context.build(&d, &["--platform=linux/arm64"]);
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.contains("exec /bin/sh: exec format error"), "{}", failed.stderr);
    assert!(failed.stderr.contains("process \"/bin/sh -c true\" did not complete successfully"), "{}", failed.stderr);
    d.finish();
}

/// The statements on the first manifest of an index, by the types of their predicates.
fn statements(layout: &Layout) -> BTreeMap<String, Value> {
    let index = layout.of(&layout.target());
    let is_said = |entry: &&Value| entry["annotations"]["vnd.docker.reference.type"] == "attestation-manifest";
    let Some(entry) = index["manifests"].as_array().into_iter().flatten().find(is_said) else { return BTreeMap::new() };
    let manifest = layout.of(entry);
    let layers = manifest["layers"].as_array().unwrap();
    layers
        .iter()
        .map(|layer| (layer["annotations"]["in-toto.io/predicate-type"].as_str().unwrap().to_owned(), layout.of(layer)))
        .collect()
}

#[test]
fn provenance_says_as_much_as_is_wanted() {
    let d = with_buildx();
    let context =
        new_context(&d, "said", "FROM busybox\nARG WORD\nRUN --mount=type=secret,id=s true\nCOPY f /\n").file("f", "1");
    fs::write(d.path("secret"), "hidden-value").unwrap();
    let secret = format!("--secret=id=s,src={}", d.path("secret").display());
    let said = |name: &str, words: &[&str]| {
        let words = [&["--build-arg=WORD=told", &secret], words].concat();
        statements(&export(&d, &context, name, "oci", &words))
    };
    let provenance = |said: &BTreeMap<String, Value>| {
        said.iter().find(|(kind, _)| kind.contains("slsa.dev/provenance")).map(|(_, statement)| statement.clone())
    };
    let most = provenance(&said("max.tar", &["--provenance=mode=max"])).expect("provenance");
    let text = most.to_string();
    assert!(text.contains("\"told\"") && text.contains("/bin/sh") && !text.contains("hidden-value"), "{text}");
    let least = provenance(&said("min.tar", &["--provenance=mode=min"])).expect("provenance").to_string();
    assert!(!least.contains("\"told\"") && least.contains("pkg:docker/"), "{least}");
    assert!(said("none.tar", &["--provenance=false"]).is_empty());
    // What is said unless something else is wanted is not for archives.
    assert!(said("usual.tar", &[]).is_empty());
    d.finish();
}

#[test]
fn packages_are_listed_by_the_wanted_generator() {
    let d = with_buildx();
    let list = "{\"_type\":\"https://in-toto.io/Statement/v0.1\",\"predicateType\":\"https://spdx.dev/Document\",\"predicate\":{\"name\":\"listed\"}}";
    let file = format!(
        "FROM busybox\nCOPY <<EOF /list\n{list}\nEOF\nCMD [\"sh\", \"-c\", \"test -e $BUILDKIT_SCAN_SOURCE/marker && cp /list $BUILDKIT_SCAN_DESTINATION/x.spdx.json\"]\n"
    );
    let _ = new_context(&d, "generator", &file).build(&d, &["-t", "generator:1"]).ok();
    let context = new_context(&d, "scanned", "FROM busybox\nRUN touch /marker\n");
    let layout = export(
        &d,
        &context,
        "sbom.tar",
        "oci",
        &["--sbom=generator=generator:1", "--provenance=false", "-t", "scanned:1"],
    );
    let said = statements(&layout);
    assert_eq!(said["https://spdx.dev/Document"]["predicate"]["name"], "listed");
    let subject = said["https://spdx.dev/Document"]["subject"][0]["digest"]["sha256"].as_str().unwrap().to_owned();
    let image = layout.of(&layout.target())["manifests"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(image, format!("sha256:{subject}"));
    d.finish();
}

#[test]
fn free_texts_of_every_place() {
    let d = with_buildx();
    let context = new_context(&d, "texts", "FROM scratch\nCOPY f /\n").file("f", "1");
    let words = [
        BOTH,
        "--annotation=a=everywhere",
        "--annotation=manifest:b=manifest",
        "--annotation=manifest[linux/arm64]:c=arm",
        "--annotation=index:d=index",
        "--annotation=manifest-descriptor:e=entry",
        "--annotation=index-descriptor:f=target",
    ];
    let layout = export(&d, &context, "texts.tar", "oci", &words);
    let target = layout.target();
    assert_eq!(target["annotations"]["f"], "target", "{target}");
    let index = layout.of(&target);
    assert_eq!(index["annotations"], serde_json::json!({"d": "index"}));
    for (entry, has_more) in [(&index["manifests"][0], false), (&index["manifests"][1], true)] {
        assert_eq!(entry["annotations"]["e"], "entry", "{entry}");
        let own = &layout.of(entry)["annotations"];
        assert_eq!((&own["a"], &own["b"]), (&Value::from("everywhere"), &Value::from("manifest")));
        assert_eq!(own["c"] == "arm", has_more);
    }
    let one = format!("--output=type=oci,dest={}", d.path("one.tar").display());
    let refused = context.build(&d, &["--annotation=index:a=b", "--provenance=false", &one]);
    assert!(
        refused.stderr.contains("index annotations not supported for single platform export"),
        "{}",
        refused.stderr
    );
    d.finish();
}

#[test]
fn layers_are_compressed_as_is_wanted_and_times_are_chosen() {
    let d = with_buildx();
    let context = new_context(&d, "same", "FROM busybox\nCOPY f /\nRUN echo 1 > /made\n").file("f", "1");
    let packed = |name: &str, options: &str| {
        let kind = format!("oci,{options}");
        export(&d, &context, name, &kind, &["--provenance=false"])
    };
    let types = |layout: &Layout| {
        let manifest = layout.of(&layout.target());
        texts(&manifest["layers"], "/mediaType").into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let forced =
        |form: &str| types(&packed(&format!("{form}.tar"), &format!("compression={form},force-compression=true")));
    assert!(forced("zstd").iter().all(|kind| kind == "application/vnd.oci.image.layer.v1.tar+zstd"));
    assert!(forced("uncompressed").iter().all(|kind| kind == "application/vnd.oci.image.layer.v1.tar"));
    assert!(forced("gzip").iter().all(|kind| kind == GZIP));
    let refused = context.build(&d, &["--output=type=image,compression=estargz"]);
    assert!(refused.stderr.contains("unsupported compression type estargz"), "{}", refused.stderr);
    // The same files and the same time give the same image, whenever it is built.
    let digest = |name: &str| {
        let words = ["--provenance=false", "--no-cache", "--build-arg=SOURCE_DATE_EPOCH=1700000000"];
        let layout = export(&d, &context, name, "oci,rewrite-timestamp=true", &words);
        let manifest = layout.of(&layout.target());
        let config = layout.of(&manifest["config"]);
        assert_eq!(config["created"], "2023-11-14T22:13:20Z");
        layout.target()["digest"].as_str().unwrap().to_owned()
    };
    assert_eq!(digest("first.tar"), digest("second.tar"));
    d.finish();
}

/// An image that is given blob by blob; what was built is named in files.
#[test]
fn layouts_in_directories_and_names_of_results_in_files() {
    let d = with_buildx();
    let context = new_context(&d, "dir", "FROM busybox\nCOPY f /f\n").file("f", "one");
    let dir = d.path("layout");
    let output = format!("--output=type=oci,tar=false,dest={}", dir.display());
    for _ in 0..2 {
        let _ = context.build(&d, &[&output, "-t", "x:1", "--provenance=mode=min"]).ok();
    }
    let layout = Layout::open(&dir);
    assert_eq!(layout.target()["mediaType"], INDEX);
    assert_eq!(layout.of(&layout.target())["manifests"][0]["mediaType"], MANIFEST);
    // It is a context.
    let digest = layout.target()["digest"].as_str().unwrap().to_owned();
    let user = new_context(
        &d,
        "uses",
        "FROM dep AS one\nRUN cat /f > /g\nFROM scratch\nCOPY --from=one /g /g\nCOPY --from=dep /f /h\n",
    );
    let dep = format!("--build-context=dep=oci-layout://{}@{digest}", dir.display());
    let _ = user.build(&d, &[&dep, &format!("--output=type=local,dest={}", d.path("used").display())]).ok();
    assert_eq!(
        fs::read_to_string(d.path("used/g")).unwrap() + &fs::read_to_string(d.path("used/h")).unwrap(),
        "oneone"
    );
    let missing = format!("sha256:{}", "0".repeat(64));
    let dep = format!("--build-context=dep=oci-layout://{}@{missing}", dir.display());
    let refused = user.build(&d, &[&dep]);
    assert!(refused.code != 0 && refused.stderr.contains("not found"), "{}", refused.stderr);
    let (ids, said) = (d.path("iid"), d.path("metadata.json"));
    let files = [format!("--iidfile={}", ids.display()), format!("--metadata-file={}", said.display())];
    let _ = context.build(&d, &[&files[0], &files[1], "-t", "named:1"]).ok();
    let said: Value = serde_json::from_slice(&fs::read(&said).unwrap()).unwrap();
    assert_eq!(said["image.name"], "docker.io/library/named:1");
    let id = d.inspect("named:1", "{{.Id}}");
    assert_eq!(said["containerimage.digest"].as_str(), Some(id.as_str()));
    assert_eq!(fs::read_to_string(&ids).unwrap(), id);
    d.finish();
}
