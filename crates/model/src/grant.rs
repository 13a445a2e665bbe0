//! What a container asks of the host's secrets and configs: the values of the labels `gantry.secrets` and `gantry.configs`.
//!
//! `NAME[=FILE][:UID:GID[:MODE]]`, several behind commas: `db,tls-key=server.pem:1000:1000:0400`.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Secrets, or configs, of one container.
const MAX: usize = 256;
/// Bytes of a file's name.
const FILE: usize = 255;
/// Mode of a file whose mode is not told.
const MODE: u32 = 0o444;

/// One that a container gets as a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The secret's or config's name.
    pub name: String,
    /// The file's name in the directory of its kind.
    pub file: String,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permissions.
    pub mode: u32,
}

impl Grant {
    /// Reads the value of a label; an empty one asks for nothing.
    ///
    /// Errors: `InvalidParameter` with the label's name.
    pub fn parse(label: &str, value: &str) -> Result<Vec<Grant>> {
        let mut all: Vec<Grant> = Vec::new();
        for item in value.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let invalid = |why: &str| Error::invalid(format!("invalid label {label:?}: {item:?}: {why}"));
            let grant = read(item).map_err(invalid)?;
            if all.iter().any(|other| other.file == grant.file) {
                return Err(invalid("the file is there twice"));
            }
            if all.len() == MAX {
                return Err(invalid("there are too many"));
            }
            all.push(grant);
        }
        Ok(all)
    }
}

fn read(item: &str) -> Result<Grant, &'static str> {
    let mut parts = item.split(':');
    let first = parts.next().unwrap_or_default();
    let (name, file) = first.split_once('=').unwrap_or((first, first));
    if name.is_empty() {
        return Err("a name is missing");
    }
    let is_plain = !file.is_empty() && file.len() <= FILE && !file.contains(['/', '\0']) && file != "." && file != "..";
    if !is_plain {
        return Err("the file's name must be one without slashes");
    }
    let id = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX).ok_or("an owner is no number");
    let mut grant = Grant { name: name.into(), file: file.into(), uid: 0, gid: 0, mode: MODE };
    if let Some(uid) = parts.next() {
        (grant.uid, grant.gid) = (id(uid)?, id(parts.next().ok_or("a group is missing")?)?);
    }
    if let Some(mode) = parts.next() {
        let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777);
        grant.mode = mode.ok_or("a mode is no octal number up to 0777")?;
    }
    if parts.next().is_some() { Err("there is more behind the mode") } else { Ok(grant) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read_or_refused_by_name() {
        let read = |value: &str| Grant::parse("gantry.secrets", value);
        assert_eq!(read("").unwrap(), []);
        let all = read("db, tls=server.pem:1000:1001:0400,x=y:5:6").unwrap();
        let told: Vec<_> = all.iter().map(|g| (&*g.name, &*g.file, g.uid, g.gid, g.mode)).collect();
        assert_eq!(
            told,
            [("db", "db", 0, 0, 0o444), ("tls", "server.pem", 1000, 1001, 0o400), ("x", "y", 5, 6, 0o444)]
        );
        for (value, why) in [
            ("=x", "a name is missing"),
            ("a=", "the file's name must be one without slashes"),
            ("a=../x", "the file's name must be one without slashes"),
            ("a=..", "the file's name must be one without slashes"),
            ("a:1", "a group is missing"),
            ("a:1:x", "an owner is no number"),
            ("a:4294967295:1", "an owner is no number"),
            ("a:1:1:4755", "a mode is no octal number up to 0777"),
            ("a:1:1:0400:1", "there is more behind the mode"),
            ("a,b=a", "the file is there twice"),
        ] {
            let error = read(value).unwrap_err();
            assert!(error.message().ends_with(why), "{value}: {error}");
            assert!(error.message().starts_with("invalid label \"gantry.secrets\": "), "{error}");
        }
    }
}
