//! Rules and verdicts, with keys made here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::Kind;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

use super::*;
use crate::key::tests::p256_pem;

struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Signer {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        Signer(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).unwrap())
    }

    fn public(&self) -> PublicKey {
        PublicKey::from_pem(p256_pem(self.0.public_key().as_ref()).as_bytes()).unwrap()
    }

    fn sign(&self, reference: &str, digest: &Digest) -> Signature {
        let payload = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"{reference}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
        );
        let signature = self.0.sign(&SystemRandom::new(), payload.as_bytes()).unwrap();
        Signature::new(payload.as_bytes(), &STANDARD.encode(signature)).unwrap()
    }
}

fn name(text: &str) -> ImageRef {
    ImageRef::parse_normalized(text).unwrap()
}

fn digest(n: u8) -> Digest {
    Digest::from_sha256(&[n; 32])
}

fn policy(scopes: &[&str], key: &PublicKey) -> Policy {
    Policy::new(scopes.iter().map(|scope| Rule::new(scope, vec![key.clone()]).unwrap()).collect()).unwrap()
}

#[test]
fn the_most_specific_rule_governs() {
    let key = Signer::new().public();
    let policy = policy(&["r.test", "r.test/team", "r.test/team/app", "r.test:5000", "docker.io/busybox"], &key);
    let scope = |text: &str| policy.rule(&name(text)).map(|rule| rule.scope.as_str());
    assert_eq!(scope("r.test/x:1"), Some("r.test"));
    assert_eq!(scope("r.test/teams"), Some("r.test"));
    assert_eq!(scope("r.test/team"), Some("r.test/team"));
    assert_eq!(scope("r.test/team/application"), Some("r.test/team"));
    assert_eq!(scope("r.test/team/app/x"), Some("r.test/team/app"));
    assert_eq!(scope("r.test:5000/team/app"), Some("r.test:5000"));
    assert_eq!(scope("r.test:5001/team/app"), None);
    assert_eq!(scope("other.test/r.test/team"), None);
    for busybox in ["busybox", "docker.io/busybox:1", "index.docker.io/library/busybox"] {
        assert_eq!(scope(busybox), Some("docker.io/busybox"), "{busybox}");
    }
    assert_eq!(scope("alpine"), None);
}

#[test]
fn other_spellings_of_a_registry_do_not_escape() {
    let scopes = ["r.test/a", "127.0.0.1:5001", "[::1]:5001/a", "docker.io/busybox", "xn--bcher-kva.test"];
    let policy = policy(&scopes, &Signer::new().public());
    for text in [
        "R.TEST/a",
        "r.Test:443/a:1",
        "r.test:80/a/b",
        "r.test:00443/a",
        "127.0.0.1:05001/x",
        "127.0.0.1:0000005001/x/y:1",
        "127.1:5001/x",
        "2130706433:5001/x",
        "127.000.000.001:5001/x",
        "[::ffff:7f00:1]:5001/x",
        "[0:0:0:0:0:0:0:1]:5001/a",
        "[::0001]:05001/a",
        "XN--bcher-kva.test/any",
        "registry-1.docker.io/library/busybox",
        "Index.Docker.io/library/busybox",
        "docker.io:443/library/busybox",
        "registry.hub.docker.com/library/busybox",
    ] {
        assert!(policy.rule(&name(text)).is_some(), "{text}");
    }
    for text in ["127.0.0.1:50010/x", "127.0.0.1:5002/x", "127.0.0.11:5001/x", "r.test:5001/a", "127.0.0.1:70537/x"] {
        assert!(policy.rule(&name(text)).is_none(), "{text}");
    }
}

#[test]
fn the_scope_of_a_rule_may_be_spelled_in_any_way() {
    let key = Signer::new().public();
    for (scope, text) in [
        ("127.0.0.1:05001", "127.0.0.1:5001/x"),
        ("R.Test:0443/a", "r.test/a"),
        ("[0:0::1]:5000", "[::1]:5000/x"),
        ("127.1:80", "127.0.0.1/x"),
        ("registry-1.docker.io/library/busybox", "busybox"),
    ] {
        assert!(policy(&[scope], &key).rule(&name(text)).is_some(), "{scope} {text}");
    }
    for scope in ["r.test:65536", "r.test:0", "r.test:99999/x", "1.2.3.4.5"] {
        let refused = Rule::new(scope, vec![key.clone()]).unwrap_err();
        assert_eq!(refused.message(), format!("{scope:?} is no registry and no repository of one"));
    }
}

#[test]
fn rules_that_would_govern_nothing_are_refused() {
    let key = Signer::new().public();
    for scope in ["", "team", "/x", "r.test/", "r.test/Team", "r.test/x:1", "r.test//x", "https://r.test", "r.test/x/"]
    {
        let refused = Rule::new(scope, vec![key.clone()]).is_err();
        assert_eq!(refused, scope != "r.test/", "{scope:?}");
    }
    assert!(Rule::new("localhost", vec![key.clone()]).is_ok() && Rule::new("[::1]:5000/x", vec![key.clone()]).is_ok());
    assert_eq!(Rule::new("r.test", vec![]).unwrap_err().message(), "\"r.test\" has 0 keys; it must have 1 to 100");
    let twice = vec![Rule::new("r.test", vec![key.clone()]).unwrap(), Rule::new("R.test:443", vec![key]).unwrap()];
    assert_eq!(Policy::new(twice).unwrap_err().message(), "\"r.test\" and \"R.test:443\" are the same");
}

#[test]
fn a_signature_counts_for_one_digest_in_one_repository() {
    let (signer, other) = (Signer::new(), Signer::new());
    let policy = policy(&["r.test"], &signer.public());
    let app = name("r.test/app:1");
    let rule = policy.rule(&app).unwrap();
    let admit = |signatures: &[Signature]| rule.admit(&app, &digest(1), signatures).map(|admitting| admitting.len());
    let why = |signatures: &[Signature]| {
        let error = admit(signatures).unwrap_err();
        assert_eq!(error.kind(), Kind::Forbidden);
        let start = format!("image r.test/app:1@{} is refused by the signature policy of \"r.test\": ", digest(1));
        error.message().strip_prefix(&start).unwrap_or_else(|| panic!("{error}")).to_owned()
    };
    let good = signer.sign("r.test/app", &digest(1));
    assert_eq!(admit(&[other.sign("r.test/app", &digest(1)), good.clone()]).unwrap(), 1);
    assert_eq!(admit(&[signer.sign("R.test:443/app", &digest(1))]).unwrap(), 1);
    assert_eq!(why(&[]), "it is not signed");
    assert_eq!(why(&[other.sign("r.test/app", &digest(1))]), "it is signed by none of the rule's keys");
    let another = signer.sign("r.test/app", &digest(2));
    assert_eq!(why(&[another]), format!("what is signed is another image: {}", digest(2)));
    let elsewhere = signer.sign("r.test/other", &digest(1));
    assert_eq!(why(&[elsewhere]), "what is signed is an image of another repository: r.test/other");
    assert!(why(&[signer.sign("r.test/APP", &digest(1))]).starts_with("invalid reference format"));
    let mut json = serde_json::to_value(&good).unwrap();
    json["payload"] = json["payload"].as_str().unwrap().replace("null", "{}").into();
    let tampered: Signature = serde_json::from_value(json).unwrap();
    assert_eq!(why(&[tampered]), "it is signed by none of the rule's keys");
}

#[test]
fn a_signature_is_kept_when_the_rule_of_its_own_repository_knows_its_key() {
    let (signer, other) = (Signer::new(), Signer::new());
    let policy = policy(&["r.test/team"], &signer.public());
    assert_eq!(policy.signed(&signer.sign("r.test/team/app", &digest(1))), Some(digest(1)));
    assert_eq!(policy.signed(&signer.sign("r.test/app", &digest(1))), None);
    assert_eq!(policy.signed(&other.sign("r.test/team/app", &digest(1))), None);
    assert_eq!(Policy::default().signed(&signer.sign("r.test/team/app", &digest(1))), None);
}
