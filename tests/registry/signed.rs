//! The signature policy: images of a governed registry come in, and containers are made of them, only when cosign's
//! signature of them is by a configured key.
//!
//! Keys and signatures are made with openssl, in the form in which cosign stores and saves them.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use testkit::fake_registry::{CONFIG, FakeRegistry, INDEX, Image, MANIFEST, descriptor};
use testkit::images::{self, Tar, sha256};
use testkit::{Daemon, places};

use crate::{assert_nothing, eventually};

const REGISTRY: &str = "127.0.0.1:5001";
const APP: &str = "127.0.0.1:5001/app";
const NAME: &str = "127.0.0.1:5001/app:1";
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// A key pair of cosign's kind; its halves lie in the daemon's directory.
struct Key {
    secret: String,
    public: String,
    digest: &'static str,
}

impl Key {
    fn new(d: &Daemon, name: &str) -> Key {
        Key::of(d, name, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])
    }

    fn of(d: &Daemon, name: &str, kind: &[&str]) -> Key {
        let file = |suffix: &str| d.path(&format!("{name}.{suffix}")).display().to_string();
        let (secret, public) = (file("key"), file("pub"));
        let _ = openssl(&[&["genpkey", "-out", &secret], kind].concat(), b"");
        let _ = openssl(&["pkey", "-in", &secret, "-pubout", "-out", &public], b"");
        Key { secret, public, digest: if kind.contains(&"ED25519") { "" } else { "-sha256" } }
    }

    /// The signature over a payload, as the annotation has it.
    fn sign(&self, d: &Daemon, payload: &[u8]) -> String {
        let file = d.path("payload").display().to_string();
        fs::write(&file, payload).unwrap();
        let signature = match self.digest {
            "" => openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", &self.secret, "-in", &file], b""),
            digest => openssl(&["dgst", digest, "-sign", &self.secret, &file], b""),
        };
        String::from_utf8(openssl(&["base64", "-A"], &signature)).unwrap()
    }
}

fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut openssl = Command::new(places::find("openssl"));
    let piped = std::process::Stdio::piped;
    let mut child = openssl.args(args).stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What cosign signs.
fn payload(repository: &str, digest: &str) -> Vec<u8> {
    json!({
        "critical": {
            "identity": {"docker-reference": repository},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string()
    .into_bytes()
}

/// A manifest of signatures with the blobs that it names.
struct Signatures {
    manifest: Value,
    blobs: Vec<Vec<u8>>,
}

impl Signatures {
    fn new(signed: &[(Vec<u8>, String)]) -> Signatures {
        let config = br#"{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]},"config":{}}"#.to_vec();
        let layers = signed.iter().map(|(payload, signature)| {
            let mut layer = descriptor(PAYLOAD, payload);
            layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
            layer
        });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &config),
            "layers": layers.collect::<Vec<_>>(),
        });
        let mut blobs = vec![config];
        blobs.extend(signed.iter().map(|(payload, _)| payload.clone()));
        Signatures { manifest, blobs }
    }

    /// Of one payload by one key.
    fn by(d: &Daemon, key: &Key, repository: &str, digest: &str) -> Signatures {
        let payload = payload(repository, digest);
        let signature = key.sign(d, &payload);
        Signatures::new(&[(payload, signature)])
    }

    fn bytes(&self) -> Vec<u8> {
        self.manifest.to_string().into_bytes()
    }

    /// Serves them where cosign puts them.
    fn serve(&self, fake: &FakeRegistry, digest: &str) {
        self.blobs.iter().for_each(|blob| drop(fake.blob(blob)));
        fake.manifest("app", &format!("{}.sig", digest.replace(':', "-")), MANIFEST, &self.bytes());
    }
}

fn image(content: &str) -> Image {
    Image::new(&[Tar::new().file("x", 0o755, content.as_bytes()).bytes()], &json!({"Cmd": ["/x"]}))
}

/// Writes the daemon's configuration and has it read again.
fn reload(d: &Daemon, rules: &Value) {
    let reloads = || d.log().matches("configuration reloaded").count();
    let before = reloads();
    fs::write(d.path("daemon.json"), json!({"signature-policy": rules}).to_string()).unwrap();
    d.signal(rustix::process::Signal::HUP);
    assert!(eventually(|| reloads() > before), "not reloaded: {}", d.log());
}

/// A daemon whose images of [`REGISTRY`] must be signed by this key, and the registry.
fn governed() -> (Daemon, FakeRegistry, Key) {
    let d = Daemon::start();
    let fake = FakeRegistry::inside(d.namespaces(), REGISTRY);
    let key = Key::new(&d, "signer");
    reload(&d, &json!({REGISTRY: {"keys": [key.public]}}));
    (d, fake, key)
}

#[track_caller]
fn refused(d: &Daemon, digest: &str, why: &str) {
    let text = format!("image {NAME}@{digest} is refused by the signature policy of \"{REGISTRY}\": {why}");
    d.docker(&["pull", NAME]).fails(1, &text);
    assert_nothing(d);
}

#[test]
fn only_signed_images_are_pulled() {
    let (d, fake, key) = governed();
    let other = Key::new(&d, "other");
    let digest = fake.image("app", "1", &image("1"));
    refused(&d, &digest, "it is not signed");
    let response = d.http("POST", &format!("/images/create?fromImage={APP}&tag=1"), "");
    assert_eq!(response.status, 403, "{}", response.text());
    assert_eq!(fake.count("GET /v2/app/blobs"), 0, "nothing of a refused image is fetched");

    let stranger = format!("sha256:{}", sha256(b"another"));
    Signatures::by(&d, &other, APP, &digest).serve(&fake, &digest);
    refused(&d, &digest, "it is signed by none of the rule's keys");
    Signatures::by(&d, &key, APP, &stranger).serve(&fake, &digest);
    refused(&d, &digest, &format!("what is signed is another image: {stranger}"));
    Signatures::by(&d, &key, "127.0.0.1:5001/other", &digest).serve(&fake, &digest);
    refused(&d, &digest, "what is signed is an image of another repository: 127.0.0.1:5001/other");
    // The payload was changed after it was signed: once with its digest, once behind it.
    let signature = key.sign(&d, &payload(APP, &stranger));
    let tampered = Signatures::new(&[(payload(APP, &digest), signature)]);
    tampered.serve(&fake, &digest);
    refused(&d, &digest, "it is signed by none of the rule's keys");
    let swapped = Signatures::by(&d, &key, APP, &stranger);
    swapped.serve(&fake, &digest);
    let place = format!("sha256:{}", sha256(&payload(APP, &stranger)));
    fake.blob_as(&place, &payload(APP, &digest));
    refused(&d, &digest, "it is signed by none of the rule's keys");

    // One good signature among others is enough.
    let (own, foreign) = (payload(APP, &digest), payload(APP, &stranger));
    let both = [(foreign.clone(), other.sign(&d, &foreign)), (own.clone(), key.sign(&d, &own))];
    Signatures::new(&both).serve(&fake, &digest);
    let _ = d.docker(&["pull", "-q", NAME]).ok();
    let _ = d.docker(&["create", "--name", "c", NAME]).ok();
    d.remove_containers();
    drop(fake);
    d.finish();
}

#[test]
fn keys_of_each_kind_sign() {
    let d = Daemon::start();
    let fake = FakeRegistry::inside(d.namespaces(), REGISTRY);
    let kinds: [(&str, &[&str]); 3] = [
        ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("ed25519", &["-algorithm", "ED25519"]),
        ("rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ];
    for (name, kind) in kinds {
        let key = Key::of(&d, name, kind);
        reload(&d, &json!({APP: {"keys": [key.public]}}));
        let digest = fake.image("app", "1", &image(name));
        d.docker(&["pull", "-q", NAME]).fails(1, "it is not signed");
        Signatures::by(&d, &key, APP, &digest).serve(&fake, &digest);
        let _ = d.docker(&["pull", "-q", NAME]).ok();
    }
    drop(fake);
    d.finish();
}

/// An index is signed, not what it lists; its signature may also refer to it instead of lying under a tag.
#[test]
fn an_index_is_signed_as_a_whole_and_referrers_count() {
    let (d, fake, key) = governed();
    let image = image("1");
    let own = fake.image("app", "amd64", &image);
    let mut entry = descriptor(MANIFEST, &image.manifest);
    let architecture = std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64");
    entry["platform"] = json!({"os": "linux", "architecture": architecture});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
    let digest = fake.manifest("app", "1", INDEX, index.as_bytes());
    // A signature of the manifest alone says nothing of the index that a name leads to.
    Signatures::by(&d, &key, APP, &own).serve(&fake, &own);
    refused(&d, &digest, "it is not signed");
    let mut signatures = Signatures::by(&d, &key, APP, &digest);
    signatures.manifest["artifactType"] = json!(ARTIFACT);
    signatures.manifest["subject"] = descriptor(INDEX, index.as_bytes());
    signatures.blobs.iter().for_each(|blob| drop(fake.blob(blob)));
    fake.manifest("app", "unused", MANIFEST, &signatures.bytes());
    let mut referrer = descriptor(MANIFEST, &signatures.bytes());
    referrer["artifactType"] = json!(ARTIFACT);
    let referrers = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [referrer]}).to_string();
    fake.manifest("app", &digest.replace(':', "-"), INDEX, referrers.as_bytes());
    let _ = d.docker(&["pull", "-q", NAME]).ok();
    assert_eq!(d.inspect(NAME, "{{.Id}}"), digest);
    drop(fake);
    d.finish();
}

/// What let an image in is kept, and judged again with the keys in force.
#[test]
fn containers_are_made_without_the_registry_and_not_with_a_key_that_was_removed() {
    let (mut d, fake, key) = governed();
    let other = Key::new(&d, "other");
    let digest = fake.image("app", "1", &image("1"));
    Signatures::by(&d, &key, APP, &digest).serve(&fake, &digest);
    let _ = d.docker(&["pull", "-q", NAME]).ok();
    let unsigned = fake.image("other", "1", &image("2"));
    drop(fake);
    d.restart();
    for name in [NAME, &format!("{APP}@{digest}"), &digest] {
        let _ = d.docker(&["create", name]).ok();
    }
    let refusal = |name: &str| d.docker(&["create", name]).fails(1, "it is signed by none of the rule's keys");
    reload(&d, &json!({REGISTRY: {"keys": [other.public]}}));
    for name in [NAME, &format!("{APP}@{digest}"), &digest] {
        refusal(name);
    }
    // The more specific rule counts; with the old key beside the new one everything is as before.
    reload(&d, &json!({REGISTRY: {"keys": [other.public]}, APP: {"keys": [other.public, key.public]}}));
    let _ = d.docker(&["create", NAME]).ok();
    // A file of a key that cannot be read changes nothing.
    fs::write(&other.public, "nonsense").unwrap();
    let before = d.log().len();
    d.signal(rustix::process::Signal::HUP);
    let told = || d.log()[before..].contains("other.pub: not a public key");
    assert!(eventually(told), "{}", d.log());
    let _ = d.docker(&["create", NAME]).ok();
    let response = d.http("POST", "/containers/create", &json!({"Image": format!("{REGISTRY}/other:1")}).to_string());
    assert_eq!(response.status, 404, "{unsigned}: {}", response.text());
    d.remove_containers();
    d.finish();
}

#[test]
fn another_name_for_an_unsigned_image_does_not_help() {
    let (d, fake, key) = governed();
    d.busybox();
    let _ = d.docker(&["tag", "busybox", NAME]).ok();
    d.docker(&["create", NAME]).fails(1, "it is not signed");
    let response = d.http("POST", "/containers/create", &json!({"Image": NAME}).to_string());
    assert_eq!(response.status, 403, "{}", response.text());
    let id = d.inspect("busybox", "{{.Id}}");
    d.docker(&["create", &id]).fails(1, "it is not signed");
    let _ = d.docker(&["create", "busybox"]).ok();
    // Nor a signed image's signature under a name of another repository.
    let digest = fake.image("app", "1", &image("1"));
    Signatures::by(&d, &key, APP, &digest).serve(&fake, &digest);
    let _ = d.docker(&["pull", "-q", NAME]).ok();
    let _ = d.docker(&["tag", NAME, "127.0.0.1:5001/other:1"]).ok();
    d.docker(&["create", "127.0.0.1:5001/other:1"]).fails(1, "an image of another repository: 127.0.0.1:5001/app");
    let _ = d.docker(&["create", NAME]).ok();
    d.remove_containers();
    drop(fake);
    d.finish();
}

/// An image that came before the policy is let in by pulling it again; nothing but signatures is fetched.
#[test]
fn an_image_that_is_here_already_is_pulled_again_for_its_signatures() {
    let d = Daemon::start();
    let fake = FakeRegistry::inside(d.namespaces(), REGISTRY);
    let key = Key::new(&d, "signer");
    let digest = fake.image("app", "1", &image("1"));
    let _ = d.docker(&["pull", "-q", NAME]).ok();
    assert_eq!(fake.count(&format!("GET /v2/app/manifests/{}", digest.replace(':', "-"))), 0, "nobody asked for them");
    assert_eq!(fake.count("GET /v2/app/referrers"), 0);
    reload(&d, &json!({REGISTRY: {"keys": [key.public]}}));
    d.docker(&["create", NAME]).fails(1, "it is not signed");
    d.docker(&["pull", NAME]).fails(1, "it is not signed");
    Signatures::by(&d, &key, APP, &digest).serve(&fake, &digest);
    let blobs = fake.count("GET /v2/app/blobs");
    assert!(d.docker(&["pull", NAME]).text().contains("Image is up to date"));
    assert_eq!(fake.count("GET /v2/app/blobs"), blobs + 1, "the payload");
    let _ = d.docker(&["create", NAME]).ok();
    // All tags of a repository: those that are about other images are none.
    assert!(d.docker(&["pull", "-a", APP]).text().contains("Image is up to date"));
    d.remove_containers();
    drop(fake);
    d.finish();
}

/// An OCI layout as `cosign save` writes it.
fn layout(image: &Image, name: &str, signatures: Option<&Signatures>) -> Vec<u8> {
    let mut entry = descriptor(MANIFEST, &image.manifest);
    entry["annotations"] = json!({"kind": "dev.cosignproject.cosign/image", "io.containerd.image.name": name});
    let mut entries = vec![entry];
    let mut blobs: Vec<Vec<u8>> = image.layers.iter().chain([&image.config, &image.manifest]).cloned().collect();
    if let Some(signatures) = signatures {
        let mut entry = descriptor(MANIFEST, &signatures.bytes());
        entry["annotations"] = json!({"kind": "dev.cosignproject.cosign/sigs"});
        entries.push(entry);
        blobs.extend(signatures.blobs.iter().cloned().chain([signatures.bytes()]));
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
    let start = Tar::new().file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#).file(
        "index.json",
        0o644,
        index.as_bytes(),
    );
    let add = |tar: Tar, blob: &Vec<u8>| tar.file(&format!("blobs/sha256/{}", sha256(blob)), 0o644, blob);
    blobs.iter().fold(start, add).bytes()
}

#[test]
fn archives_may_bring_their_signatures() {
    let (d, fake, key) = governed();
    let other = Key::new(&d, "other");
    let image = image("1");
    let digest = format!("sha256:{}", sha256(&image.manifest));
    let load = |archive: &[u8]| d.docker_input(&["load"], archive);
    let refusal =
        format!("image {NAME}@{digest} is refused by the signature policy of \"{REGISTRY}\": it is not signed");
    load(&layout(&image, NAME, None)).fails(1, &refusal);
    assert_nothing(&d);
    let tar = Tar::new().file("x", 0o755, b"1").bytes();
    load(&images::docker_archive(NAME, &[tar], &json!({}))).fails(1, "it is not signed");
    assert_nothing(&d);
    // A signature by a key that is not the rule's is as good as none.
    load(&layout(&image, NAME, Some(&Signatures::by(&d, &other, APP, &digest)))).fails(1, &refusal);
    assert_nothing(&d);
    let signatures = Signatures::by(&d, &key, APP, &digest);
    let loaded = load(&layout(&image, NAME, Some(&signatures))).text();
    assert_eq!(loaded.lines().collect::<Vec<_>>(), [format!("Loaded image: {NAME}")]);
    let _ = d.docker(&["create", NAME]).ok();
    // What is saved brings its signatures along.
    let saved = d.path("signed.tar");
    let _ = d.docker(&["save", "-o", saved.to_str().unwrap(), NAME]).ok();
    d.remove_containers();
    let _ = d.docker(&["rmi", NAME]).ok();
    assert_eq!(load(&fs::read(&saved).unwrap()).text(), format!("Loaded image: {NAME}"));
    let _ = d.docker(&["create", NAME]).ok();
    // Loaded under a name that nothing governs, an image can be named into the registry later.
    d.remove_containers();
    let _ = d.docker(&["rmi", NAME]).ok();
    let _ = load(&layout(&image, "free:1", Some(&signatures))).ok();
    let _ = d.docker(&["tag", "free:1", NAME]).ok();
    let _ = d.docker(&["create", NAME]).ok();
    // What came once need not come again.
    let _ = load(&layout(&image, NAME, None)).ok();
    d.remove_containers();
    drop(fake);
    d.finish();
}

#[test]
fn a_key_that_cannot_be_read_is_an_error_of_the_configuration() {
    let start =
        |rules: Value| testkit::Options::new().config(&json!({"signature-policy": rules}).to_string()).refused();
    start(json!({"r.test": {"keys": ["/nonexistent/a.pub"]}}))
        .fails(1, "invalid signature-policy: open /nonexistent/a.pub: no such file or directory");
    start(json!({"r.test": {"keys": ["/etc/passwd"]}})).fails(1, "/etc/passwd: not a public key");
    start(json!({"team": {"keys": []}})).fails(1, "\"team\" is no registry and no repository of one");
}

/// Hosts and ports are compared as numbers, not as they were written.
#[test]
fn another_spelling_of_the_registry_does_not_help() {
    let (d, fake, key) = governed();
    let digest = fake.image("app", "1", &image("1"));
    let spellings = ["127.0.0.1:05001", "127.1:5001", "127.0.0.01:5001", "2130706433:5001", "[::ffff:7f00:1]:5001"];
    for registry in spellings {
        let text = format!("image {registry}/app:1@{digest} is refused by the signature policy of \"{REGISTRY}\"");
        d.docker(&["pull", &format!("{registry}/app:1")]).fails(1, &text);
        assert_nothing(&d);
    }
    for port in ["65536", "70537", "99999", "0"] {
        let text = format!("dial tcp: address {port}: invalid port");
        d.docker(&["pull", &format!("127.0.0.1:{port}/app:1")]).fails(1, &text);
    }
    // A signature under one spelling is one under all.
    Signatures::by(&d, &key, APP, &digest).serve(&fake, &digest);
    for registry in spellings {
        let _ = d.docker(&["pull", "-q", &format!("{registry}/app:1")]).ok();
        let _ = d.docker(&["rmi", &format!("{registry}/app:1")]).ok();
    }
    assert_nothing(&d);
    drop(fake);
    d.finish();
}
