//! One signature as cosign makes it: a small JSON document that names an image, and the signature over its bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::digest::Digest;
use model::reference::ImageRef;
use model::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::PublicKey;

/// Longest payload; cosign's take a few hundred bytes, annotations of the signer may be added.
pub const PAYLOAD_BYTES: usize = 16 << 10;
/// Longest signature in base64; RSA of 8192 bits takes 1368.
pub const SIGNATURE_BYTES: usize = 2048;

/// What the one kind of payload that counts says of itself.
const TYPE: &str = "cosign container image signature";

/// A payload with its signature. Whether it is worth anything is another question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    payload: String,
    /// Base64.
    signature: String,
}

/// What a payload says. Unknown members of the critical part and members given twice are refused: nobody may read it
/// differently.
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
    #[serde(default, rename = "optional")]
    _optional: serde::de::IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: String,
}

/// What a key signed.
pub(crate) struct Claim {
    pub(crate) repository: ImageRef,
    pub(crate) digest: Digest,
}

impl Signature {
    /// As it lies in a registry: the payload's bytes and the annotation.
    pub fn new(payload: &[u8], signature: &str) -> Result<Signature> {
        if payload.len() > PAYLOAD_BYTES || signature.len() > SIGNATURE_BYTES {
            return Err(malformed("it is too large"));
        }
        let payload = std::str::from_utf8(payload).map_err(|_| malformed("its payload is no text"))?;
        STANDARD.decode(signature).map_err(|_| malformed("it is no base64"))?;
        Ok(Signature { payload: payload.to_owned(), signature: signature.to_owned() })
    }

    /// The bytes that were signed, and the signature over them: as [`Signature::new`] takes them.
    pub fn parts(&self) -> (&[u8], &str) {
        (self.payload.as_bytes(), &self.signature)
    }

    /// The key among these that made it.
    pub(crate) fn made_by<'k>(&self, keys: &'k [PublicKey]) -> Option<&'k PublicKey> {
        let signature = STANDARD.decode(&self.signature).ok()?;
        keys.iter().find(|key| key.verifies(self.payload.as_bytes(), &signature))
    }

    /// What it says; to be believed only when a key that counts made it.
    pub(crate) fn claim(&self) -> Result<Claim> {
        let payload: Payload =
            serde_json::from_str(&self.payload).map_err(|e| malformed(&format!("its payload is {e}")))?;
        let Critical { identity, image, kind } = payload.critical;
        if kind != TYPE {
            return Err(malformed(&format!("it is a {kind:?}")));
        }
        let mut repository = ImageRef::parse_normalized(&identity.docker_reference)?;
        let digest = Digest::parse(&image.docker_manifest_digest)?;
        if repository.digest.take().is_some_and(|named| named != digest) {
            return Err(malformed("it names two digests"));
        }
        Ok(Claim { repository, digest })
    }
}

fn malformed(why: &str) -> Error {
    Error::invalid(format!("malformed signature: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload(reference: &str, digest: &str) -> String {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"{reference}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{TYPE}"}},"optional":{{"creator":"x"}}}}"#
        )
    }

    fn digest() -> String {
        format!("sha256:{}", "0a".repeat(32))
    }

    fn claim(payload: &str) -> Result<Claim> {
        Signature::new(payload.as_bytes(), "AAAA")?.claim()
    }

    #[test]
    fn cosigns_payload_is_read() {
        let claimed = claim(&payload("index.docker.io/library/app", &digest())).unwrap();
        assert_eq!(claimed.repository.canonical(), "docker.io/library/app");
        assert_eq!(claimed.digest.as_str(), digest());
        let null = payload("r.test/app", &digest()).replace(r#"{"creator":"x"}"#, "null");
        assert!(claim(&null).is_ok());
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let good = payload("r.test/app", &digest());
        for bad in [
            good.replace("\"type\"", "\"more\":1,\"type\""),
            good.replace("\"image\"", "\"identity\":{\"docker-reference\":\"r.test/other\"},\"image\""),
            good.replace(TYPE, "atomic container signature"),
            good.replace("sha256:", "sha512:"),
            good.replace("r.test/app", "R.test/APP"),
            good.replace("r.test/app", &format!("r.test/app@sha256:{}", "0b".repeat(32))),
            good.clone() + "{}",
            "[".repeat(10_000),
            String::new(),
        ] {
            assert!(claim(&bad).is_err(), "{bad:.200}");
        }
        assert!(Signature::new(good.as_bytes(), "not base64").is_err());
        assert!(Signature::new(&[b' '; PAYLOAD_BYTES + 1], "").is_err());
        assert!(Signature::new(&[0xff], "").is_err());
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_refused(text in "\\PC{0,200}") {
            let _ = claim(&text);
        }
    }
}
