//! Payloads of signatures, and public keys.

use model::digest::Digest;
use model::reference::ImageRef;
use signature::{Policy, PublicKey, Rule, Signature};

/// Where the rule of the property lies.
const SCOPE: &str = "r.test";

/// Bytes are no key, or a key; as a payload they are never let in by a key that did not sign them.
pub fn signatures(bytes: &[u8]) {
    if let Ok(key) = PublicKey::from_pem(bytes) {
        assert_eq!(PublicKey::from_pem(bytes).ok().as_ref(), Some(&key));
    }
    let Ok(signature) = Signature::new(bytes, "MEUCIQDx") else { return };
    let key = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEABaV5T9d739Isl9FNz7DdtS3V7c3SMewkSOaYwOVKAoc=\n-----END PUBLIC KEY-----";
    let key = PublicKey::from_pem(key.as_bytes()).expect("a key of openssl");
    let policy = Policy::new(vec![Rule::new(SCOPE, vec![key]).expect("a rule")]).expect("a policy");
    assert_eq!(policy.signed(&signature), None);
    let name = ImageRef::parse_normalized("r.test/app").expect("a name");
    let rule = policy.rule(&name).expect("it is governed");
    assert!(rule.admit(&name, &Digest::from_sha256(&[1; 32]), &[signature]).is_err());
}
