//! Public keys as `cosign generate-key-pair` and `openssl pkey -pubout` write them: PEM around a SubjectPublicKeyInfo.
//!
//! ECDSA on P-256 and P-384 with SHA-256 (cosign hashes with SHA-256 whatever the curve), Ed25519, and RSA of 2048 to
//! 8192 bits with PKCS #1 v1.5 and SHA-256.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::digest::Digest;
use model::{Error, Result};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, UintRef};
use x509_cert::der::{Decode, Reader, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoRef;

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// What a point that is written out whole begins with.
const UNCOMPRESSED: u8 = 4;

/// How a key's signatures are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

/// A key that signatures are verified with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: Kind,
    /// The key itself in its algorithm's form.
    bytes: Vec<u8>,
    fingerprint: Digest,
}

impl PublicKey {
    /// Reads the one key of a PEM file.
    pub fn from_pem(pem: &[u8]) -> Result<PublicKey> {
        let text = std::str::from_utf8(pem).map_err(|_| malformed("it is no text"))?;
        let (_, rest) = text.split_once(BEGIN).ok_or_else(|| malformed(format!("it has no line {BEGIN:?}")))?;
        let (body, rest) = rest.split_once(END).ok_or_else(|| malformed(format!("it has no line {END:?}")))?;
        if rest.contains(BEGIN) {
            return Err(malformed("it has more than one key"));
        }
        let body: String = body.split_whitespace().collect();
        let info = STANDARD.decode(body).map_err(|_| malformed("it is no base64"))?;
        let (kind, bytes) =
            read(&info).ok_or_else(|| malformed("it is no ECDSA P-256 or P-384, Ed25519 or RSA key"))?;
        let hash = ring::digest::digest(&ring::digest::SHA256, &info);
        let hash = hash.as_ref().try_into().map_err(|_| malformed("it cannot be hashed"))?;
        Ok(PublicKey { kind, bytes, fingerprint: Digest::from_sha256(hash) })
    }

    /// The digest of the key's SubjectPublicKeyInfo: `openssl pkey -pubin -outform DER | sha256sum`.
    pub fn fingerprint(&self) -> &Digest {
        &self.fingerprint
    }

    /// Whether the signature is this key's over the message.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self.kind {
            Kind::P256 => &signature::ECDSA_P256_SHA256_ASN1,
            Kind::P384 => &signature::ECDSA_P384_SHA256_ASN1,
            Kind::Ed25519 => &signature::ED25519,
            Kind::Rsa => &signature::RSA_PKCS1_2048_8192_SHA256,
        };
        UnparsedPublicKey::new(algorithm, &self.bytes).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.kind, self.fingerprint)
    }
}

fn malformed(why: impl fmt::Display) -> Error {
    Error::invalid(format!("not a public key: {why}"))
}

/// A SubjectPublicKeyInfo's kind of key and its bits (RFC 5280, 4.1.2.7; RFC 5480, 8017 and 8410).
fn read(info: &[u8]) -> Option<(Kind, Vec<u8>)> {
    let info = SubjectPublicKeyInfoRef::from_der(info).ok()?;
    let bits = info.subject_public_key.as_bytes()?;
    let (algorithm, parameters) = (info.algorithm.oid, info.algorithm.parameters);
    let point = |length: usize| bits.len() == length && bits[0] == UNCOMPRESSED;
    let curve = || parameters.and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
    let kind = if algorithm == EC {
        match curve() {
            Some(P256) if point(65) => Kind::P256,
            Some(P384) if point(97) => Kind::P384,
            _ => return None,
        }
    } else if algorithm == ED25519 && parameters.is_none() && bits.len() == 32 {
        Kind::Ed25519
    } else if algorithm == RSA && parameters.is_some_and(AnyRef::is_null) && is_rsa(bits) {
        Kind::Rsa
    } else {
        return None;
    };
    Some((kind, bits.to_vec()))
}

/// Modulus and exponent (RFC 8017, A.1.1), the modulus of a size in bytes whose signatures can be verified.
fn is_rsa(bits: &[u8]) -> bool {
    let modulus = || -> x509_cert::der::Result<usize> {
        let mut reader = SliceReader::new(bits)?;
        let length = reader.sequence(|numbers| -> x509_cert::der::Result<usize> {
            let modulus = UintRef::decode(numbers)?;
            UintRef::decode(numbers)?;
            Ok(modulus.as_bytes().len())
        })?;
        reader.finish()?;
        Ok(length)
    };
    modulus().is_ok_and(|bytes| (256..=1024).contains(&bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The PEM of a SubjectPublicKeyInfo.
    pub fn pem(info: &[u8]) -> String {
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(info))
    }

    /// The PEM of an ECDSA P-256 key's public half.
    pub fn p256_pem(point: &[u8]) -> String {
        let (ec, p256) = (EC.as_bytes(), P256.as_bytes());
        let head = [&[0x30, 0x59, 0x30, 0x13, 0x06, 0x07][..], ec, &[0x06, 0x08], p256, &[0x03, 0x42, 0x00]].concat();
        pem(&[&head, point].concat())
    }

    /// Made with `openssl genpkey … | openssl pkey -pubout`.
    const FROM_OPENSSL: [(&str, Kind); 4] = [
        (
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEMMnOaFMmooAAUAz9XRniirIfAVpYcRJL2fZYA2KwKCgldz36neAw8EtTVCfHzDVwdwGdut+xQzgqFzJXJZAhYQ==",
            Kind::P256,
        ),
        (
            "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEeFgSzPd7VRMlAb2yc852JqdNbZZQWtZc+iEpwoV2kwhNKotK+u5HcVy3FQuDd4vttqnNygHQtdZ1+RfqN4OKf5UTjvWlp0WY/mFuda9L1K4YoKGi8y+ttUGchEEANv9z",
            Kind::P384,
        ),
        ("MCowBQYDK2VwAyEABaV5T9d739Isl9FNz7DdtS3V7c3SMewkSOaYwOVKAoc=", Kind::Ed25519),
        (
            "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAolLpQHcsepZYsXKFmDe+uCXIdmRdHW/uyP8EJnaA5bVLMMlQ5+XitB4PJoEotJKhRqMH7BuhKGAVI6ftqAgysQnq+3UOjn6FGrv/grlC0MABVTyK9zaoiryl4w75ohVv5cHIILW609NRb+osEp8FDvilA8I3j2ShYHi9rY/cpc5+zmQfHUEPclD7f4QSY7muRZmxtGzqjcF5qwSbJBKNE6BGtcuHrtSFzw0GP+t6he9aPCwxSfiwv3w7+IiJfkMwhYmXIQ1vrAylhDgzxz2jVw19MRtcRnLN25F6uBsUZ3z+gAQNmtBs9+ARYZAnNbjf/d1jBmvZtkrCk1etm3URKwIDAQAB",
            Kind::Rsa,
        ),
    ];

    #[test]
    fn keys_of_openssl_are_read() {
        for (base64, kind) in FROM_OPENSSL {
            let key = PublicKey::from_pem(pem(&STANDARD.decode(base64).unwrap()).as_bytes()).unwrap();
            assert_eq!(key.kind, kind);
            assert!(!key.verifies(b"x", b"y"));
        }
    }

    #[test]
    fn what_is_no_key_is_refused_by_name() {
        let text = |pem: &str| PublicKey::from_pem(pem.as_bytes()).unwrap_err().message().to_owned();
        assert_eq!(text(""), "not a public key: it has no line \"-----BEGIN PUBLIC KEY-----\"");
        assert_eq!(text(BEGIN), "not a public key: it has no line \"-----END PUBLIC KEY-----\"");
        assert_eq!(text(&format!("{BEGIN}\n!\n{END}")), "not a public key: it is no base64");
        let key = p256_pem(&[&[UNCOMPRESSED][..], &[7; 64]].concat());
        assert_eq!(text(&key.repeat(2)), "not a public key: it has more than one key");
        let other = "not a public key: it is no ECDSA P-256 or P-384, Ed25519 or RSA key";
        assert_eq!(text(&p256_pem(&[&[2][..], &[7; 64]].concat())), other);
        assert_eq!(text(&pem(&[0x30, 0])), other);
    }

    #[test]
    fn every_cut_and_every_flipped_length_of_a_key_is_refused_or_another_key() {
        for (base64, _) in FROM_OPENSSL {
            let info = STANDARD.decode(base64).unwrap();
            for end in 0..info.len() {
                assert_eq!(read(&info[..end]), None, "cut at {end}");
            }
            for at in 0..info.len() {
                let mut spoiled = info.clone();
                spoiled[at] ^= 0x55;
                assert_ne!(read(&spoiled), read(&info), "byte {at}");
            }
        }
    }
}
