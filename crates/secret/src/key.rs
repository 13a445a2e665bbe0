//! The key file, and what is sealed under the key.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use model::{Context, Error, Result};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::Plain;

/// Bytes of the key.
const KEY: usize = 32;

/// The key, in memory.
pub struct Key(LessSafeKey);

impl Key {
    /// Reads the key file. `NotFound` when there is none.
    pub fn read(path: &Path) -> Result<Key> {
        let shown = path.display();
        let meta = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::not_found(format!("the key file {shown} of secrets is missing")));
            }
            other => other.with_context(|| format!("reading the key file {shown} of secrets"))?,
        };
        if meta.mode() & 0o077 != 0 {
            return Err(Error::system(format!("the key file {shown} of secrets can be read by others than its owner")));
        }
        let bytes = sys::file::read_small(path, KEY as u64);
        let bytes = Zeroizing::new(bytes.with_context(|| format!("reading the key file {shown} of secrets"))?);
        Key::of(&bytes).ok_or_else(|| Error::system(format!("the key file {shown} of secrets has not {KEY} bytes")))
    }

    /// Reads the key file, or makes it with a new key.
    pub fn read_or_make(path: &Path) -> Result<Key> {
        match Key::read(path) {
            Err(error) if error.kind() == model::Kind::NotFound => {}
            other => return other,
        }
        let bytes = Zeroizing::new(sys::random::bytes32());
        let made = || -> io::Result<()> {
            let temporary = path.with_extension("new");
            drop(std::fs::remove_file(&temporary));
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(&*bytes)?;
            file.sync_all()?;
            // Not over one that somebody else has made meanwhile.
            let linked = std::fs::hard_link(&temporary, path);
            std::fs::remove_file(&temporary)?;
            linked?;
            path.parent().map_or(Ok(()), sys::file::sync_dir)
        };
        match made() {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::from(error).prefix(format!("making the key file {} of secrets", path.display())))
            }
            _ => Key::read(path),
        }
    }

    fn of(bytes: &[u8]) -> Option<Key> {
        UnboundKey::new(&CHACHA20_POLY1305, bytes).ok().map(|key| Key(LessSafeKey::new(key)))
    }

    /// Seals content for `owner`: a random nonce, then the ciphertext with its tag.
    pub fn seal(&self, owner: &str, plain: &Plain) -> Result<Vec<u8>> {
        let random = sys::random::bytes32();
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&random[..NONCE_LEN]);
        // Room for the tag: bytes that are not encrypted yet are not left behind by a vector that grows.
        let mut sealed = Zeroizing::new(Vec::with_capacity(plain.len() + CHACHA20_POLY1305.tag_len()));
        sealed.extend_from_slice(plain);
        let done = self.0.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(owner.as_bytes()),
            &mut *sealed,
        );
        done.map_err(|_| Error::system("internal error: a secret could not be sealed"))?;
        Ok([&nonce[..], &sealed[..]].concat())
    }

    /// Opens what was sealed for `owner`. `None`: it was sealed under another key, for another, or is damaged.
    pub fn open(&self, owner: &str, sealed: &[u8]) -> Option<Plain> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let length = self.0.open_in_place(nonce, Aad::from(owner.as_bytes()), &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_seal_is_for_one_owner_and_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let key = Key::read_or_make(&path).unwrap();
        let plain = Zeroizing::new(b"content".to_vec());
        let sealed = key.seal("a", &plain).unwrap();
        assert!(!sealed.windows(7).any(|part| part == b"content"));
        assert_ne!(sealed, key.seal("a", &plain).unwrap());
        assert_eq!(Key::read(&path).unwrap().open("a", &sealed).unwrap(), plain);
        assert!(
            key.open("b", &sealed).is_none() && key.open("a", &sealed[1..]).is_none() && key.open("a", b"").is_none()
        );
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(key.open("a", &damaged).is_none(), "{at}");
        }
        let other = Key::read_or_make(&dir.path().join("other")).unwrap();
        assert!(other.open("a", &sealed).is_none());
    }

    #[test]
    fn the_file_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        assert_eq!(Key::read(&path).err().unwrap().kind(), model::Kind::NotFound);
        let _ = Key::read_or_make(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Key::read_or_make(&path).err().unwrap().message().contains("can be read by others"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"short").unwrap();
        assert!(Key::read_or_make(&path).err().unwrap().message().contains("has not 32 bytes"));
    }
}
