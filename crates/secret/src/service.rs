//! Making, listing, changing, removing and opening them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use model::time::Timestamp;
use model::{Error, Result};
use store::Store;
use zeroize::Zeroizing;

use crate::Plain;
use crate::key::Key;
use crate::row::{Kind, SEALS, SECRETS, Seal, Secret};

/// Objects of one host, both kinds together.
const MAX: usize = 10_000;
/// Characters of a name.
const NAME: usize = 64;
/// Characters of an id.
const ID: usize = 25;

/// All of a daemon.
pub struct Secrets {
    store: Store,
    key_file: PathBuf,
}

/// One to come.
pub struct Draft {
    /// Kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Content.
    pub data: Plain,
}

/// What is to become of one.
pub struct Update {
    /// The version that is changed.
    pub version: u64,
    /// The name that it has.
    pub name: String,
    /// Labels from now on.
    pub labels: BTreeMap<String, String>,
    /// Content, which must be empty or what it is.
    pub data: Plain,
}

impl Secrets {
    /// Those in the store; the key is looked for when it is needed.
    pub fn new(store: Store, key_file: PathBuf) -> Secrets {
        Secrets { store, key_file }
    }

    /// Makes one. Reads the key file, which blocks for a moment.
    ///
    /// Errors: `InvalidParameter` for name and content, `Conflict` when there is one of this name.
    pub fn create(&self, draft: Draft) -> Result<Secret> {
        let Draft { kind, name, labels, data } = draft;
        check_name(&name)?;
        if data.is_empty() || data.len() >= kind.limit() {
            let (what, limit) = (kind.as_str(), kind.limit());
            return Err(invalid(format!("{what} data must be larger than 0 and less than {limit} bytes")));
        }
        let now = Timestamp::from_unix_nanos(sys::clock::System.unix_nanos());
        let secret = Secret { id: new_id(), kind, name, labels, created: now, updated: now, version: 1 };
        let seal = Seal(BASE64_STANDARD.encode(self.key()?.seal(&secret.owner(), &data)?));
        drop(data);
        self.store.write_blocking(move |tx| {
            let key = Secret::key(kind, &secret.name);
            if tx.get(&SECRETS, &key)?.is_some() {
                let text = format!("{} {} already exists", kind.as_str(), secret.name);
                return Err(Error::conflict(format!("rpc error: code = AlreadyExists desc = {text}")));
            }
            if tx.keys(&SECRETS)?.len() >= MAX {
                return Err(Error::conflict(format!("there are more than {MAX} secrets and configs")));
            }
            tx.put(&SEALS, &secret.id, &seal)?;
            tx.put(&SECRETS, &key, &secret)?;
            Ok(secret)
        })
    }

    /// The key. A new one is made as long as there is nothing that an older one has sealed.
    fn key(&self) -> Result<Key> {
        if self.store.read(|tx| tx.keys(&SEALS))?.is_empty() {
            return Key::read_or_make(&self.key_file);
        }
        Key::read(&self.key_file).map_err(|error| error.with_kind(model::Kind::System))
    }

    /// All of a kind, by name.
    pub fn list(&self, kind: Kind) -> Result<Vec<Secret>> {
        let all = self.store.read(|tx| tx.readable(&SECRETS))?;
        Ok(all.into_iter().map(|(_, secret)| secret).filter(|secret| secret.kind == kind).collect())
    }

    /// The one of this id or name, or whose id begins so.
    ///
    /// Errors: `NotFound`; `InvalidParameter` when several ids begin so.
    pub fn find(&self, kind: Kind, reference: &str) -> Result<Secret> {
        let all = self.list(kind)?;
        let exact = all.iter().find(|secret| secret.id == reference);
        if let Some(secret) = exact.or_else(|| all.iter().find(|secret| secret.name == reference)) {
            return Ok(secret.clone());
        }
        let meant: Vec<_> = all.iter().filter(|s| !reference.is_empty() && s.id.starts_with(reference)).collect();
        let what = kind.as_str();
        match &meant[..] {
            [one] => Ok((*one).clone()),
            [] => Err(Error::not_found(format!("{what} {reference} not found"))),
            several => {
                Err(Error::invalid(format!("{what} {reference} is ambiguous ({} matches found)", several.len())))
            }
        }
    }

    /// The one of this name exactly.
    pub fn named(&self, kind: Kind, name: &str) -> Result<Secret> {
        let found = self.store.read(|tx| tx.get(&SECRETS, &Secret::key(kind, name)))?;
        found.ok_or_else(|| Error::not_found(format!("{} {name} not found", kind.as_str())))
    }

    /// Its content. Reads the key file, which blocks for a moment.
    ///
    /// Errors: `System` when the key is missing or another.
    pub fn open(&self, secret: &Secret) -> Result<Plain> {
        let missing = || Error::system(format!("{} {} has no content", secret.kind.as_str(), secret.name));
        let Seal(text) = self.store.read(|tx| tx.get(&SEALS, &secret.id))?.ok_or_else(missing)?;
        let sealed = BASE64_STANDARD.decode(text).map_err(|_| missing())?;
        self.key()?.open(&secret.owner(), &sealed).ok_or_else(|| {
            let (what, name, file) = (secret.kind.as_str(), &secret.name, self.key_file.display());
            Error::system(format!("{what} {name} cannot be decrypted: it is damaged, or {file} has another key"))
        })
    }

    /// Changes labels; everything else stays as it is.
    pub fn update(&self, kind: Kind, reference: &str, update: Update) -> Result<()> {
        let known = self.find(kind, reference)?;
        let same = update.name == known.name && (update.data.is_empty() || *update.data == *self.open(&known)?);
        if !same {
            return Err(invalid("only updates to Labels are allowed".to_owned()));
        }
        let now = Timestamp::from_unix_nanos(sys::clock::System.unix_nanos());
        self.store.write_blocking(move |tx| {
            let key = Secret::key(kind, &known.name);
            let row = tx.get(&SECRETS, &key)?.filter(|row| row.id == known.id);
            let row = row.ok_or_else(|| Error::not_found(format!("{} {} not found", kind.as_str(), known.id)))?;
            if row.version != update.version {
                return Err(Error::system("rpc error: code = Unknown desc = update out of sequence"));
            }
            tx.put(&SECRETS, &key, &Secret { labels: update.labels, updated: now, version: row.version + 1, ..row })
        })
    }

    /// Removes one; what it was. `users` tells which containers ask for it.
    ///
    /// Errors: `NotFound`; `InvalidParameter` while containers ask for it, as the reference says it of services.
    pub fn remove(&self, kind: Kind, reference: &str, users: impl FnOnce(&str) -> Vec<String>) -> Result<Secret> {
        let secret = self.find(kind, reference)?;
        let users = users(&secret.name);
        if !users.is_empty() {
            let whom = if users.len() == 1 { "container" } else { "containers" };
            let (what, name, users) = (kind.as_str(), &secret.name, users.join(", "));
            return Err(invalid(format!("{what} '{name}' is in use by the following {whom}: {users}")));
        }
        let gone = secret.clone();
        self.store.write_blocking(move |tx| {
            tx.delete(&SECRETS, &Secret::key(kind, &gone.name))?;
            tx.delete(&SEALS, &gone.id).map(drop)
        })?;
        Ok(secret)
    }
}

fn invalid(text: String) -> Error {
    Error::invalid(format!("rpc error: code = InvalidArgument desc = {text}"))
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(invalid("name must be provided".to_owned()));
    }
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let is_known = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    if bytes.len() <= NAME && is_end(bytes.first()) && is_end(bytes.last()) && bytes.iter().all(is_known) {
        return Ok(());
    }
    Err(invalid(format!(
        "invalid name, only {NAME} [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]"
    )))
}

/// Lower-case letters and digits.
fn new_id() -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let random = Zeroizing::new(sys::random::bytes32());
    random.iter().take(ID).map(|byte| char::from(DIGITS[usize::from(*byte) % DIGITS.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> (tempfile::TempDir, Secrets) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let secrets = Secrets::new(store, dir.path().join("key"));
        (dir, secrets)
    }

    fn draft(kind: Kind, name: &str, data: &[u8]) -> Draft {
        Draft { kind, name: name.into(), labels: BTreeMap::new(), data: Zeroizing::new(data.to_vec()) }
    }

    #[test]
    fn one_is_made_found_opened_and_removed() {
        let (dir, secrets) = secrets();
        let made = secrets.create(draft(Kind::Secret, "db", b"content of a secret")).unwrap();
        assert!(made.id.len() == ID && made.version == 1);
        for reference in [made.id.as_str(), "db", &made.id[..10]] {
            assert_eq!(secrets.find(Kind::Secret, reference).unwrap(), made);
        }
        assert_eq!(&**secrets.open(&made).unwrap(), b"content of a secret");
        // The same name of the other kind is another.
        assert_eq!(secrets.find(Kind::Config, "db").unwrap_err().message(), "config db not found");
        drop(secrets.create(draft(Kind::Config, "db", b"x")).unwrap());
        let error = secrets.create(draft(Kind::Secret, "db", b"x")).unwrap_err();
        assert_eq!(error.message(), "rpc error: code = AlreadyExists desc = secret db already exists");
        let stored = std::fs::read(dir.path().join("store")).unwrap();
        assert!(!stored.windows(10).any(|part| part == b"content of" || part == b"Y29udGVudC"));
        let error = secrets.remove(Kind::Secret, "db", |_| vec!["c1".into(), "c2".into()]).unwrap_err();
        assert!(error.message().ends_with("secret 'db' is in use by the following containers: c1, c2"));
        drop(secrets.remove(Kind::Secret, "db", |_| Vec::new()).unwrap());
        assert!(secrets.open(&made).is_err() && secrets.list(Kind::Secret).unwrap().is_empty());
    }

    #[test]
    fn names_and_sizes_are_the_references() {
        let (_dir, secrets) = secrets();
        for name in ["a", "a.b-c_d", &"x".repeat(64)] {
            assert!(secrets.create(draft(Kind::Secret, name, b"x")).is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "a/b", "a b", &"x".repeat(65), "\u{e9}"] {
            let error = secrets.create(draft(Kind::Secret, name, b"x")).unwrap_err();
            assert_eq!(error.kind(), model::Kind::InvalidParameter, "{name}");
        }
        for (kind, bytes, text) in
            [(Kind::Secret, 0, "512000"), (Kind::Secret, 512_000, "512000"), (Kind::Config, 1_024_000, "1024000")]
        {
            let error = secrets.create(draft(kind, "n", &vec![1; bytes])).unwrap_err();
            assert!(error.message().ends_with(&format!("larger than 0 and less than {text} bytes")), "{error}");
        }
        assert!(secrets.create(draft(Kind::Secret, "n", &vec![1; 511_999])).is_ok());
    }

    /// A key that is missing is not made anew over what the old one has sealed.
    #[test]
    fn a_lost_key_is_told_of() {
        let (dir, secrets) = secrets();
        let made = secrets.create(draft(Kind::Secret, "db", b"x")).unwrap();
        let key = dir.path().join("key");
        std::fs::rename(&key, dir.path().join("elsewhere")).unwrap();
        for error in [secrets.open(&made).err().unwrap(), secrets.create(draft(Kind::Secret, "e", b"x")).unwrap_err()] {
            assert!(error.message().contains("is missing") && error.kind() == model::Kind::System, "{error}");
        }
        assert!(!key.exists());
        let _ = Key::read_or_make(&key).unwrap();
        assert!(secrets.open(&made).err().unwrap().message().contains("has another key"));
    }

    #[test]
    fn labels_alone_are_changed() {
        let (_dir, secrets) = secrets();
        let made = secrets.create(draft(Kind::Config, "c", b"x")).unwrap();
        let update = |version, name: &str, data: &[u8]| Update {
            version,
            name: name.into(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            data: Zeroizing::new(data.to_vec()),
        };
        for wrong in [update(1, "d", b""), update(1, "c", b"y")] {
            let error = secrets.update(Kind::Config, &made.id, wrong).unwrap_err();
            assert!(error.message().ends_with("only updates to Labels are allowed"));
        }
        assert!(
            secrets.update(Kind::Config, "c", update(2, "c", b"")).unwrap_err().message().contains("out of sequence")
        );
        secrets.update(Kind::Config, "c", update(1, "c", b"x")).unwrap();
        let now = secrets.find(Kind::Config, "c").unwrap();
        assert_eq!((now.version, now.labels["a"].as_str(), now.id), (2, "b", made.id));
    }
}
