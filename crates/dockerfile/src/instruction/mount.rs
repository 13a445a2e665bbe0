//! `RUN --mount=type=…`.

use crate::error::{Error, Result};
use crate::suggest::{Case, with_suggestion};
use crate::text::{boolean, csv_fields, quote};

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];
const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];
const SHARINGS: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];

/// Fills in the variables of a word.
pub type Expander<'a> = &'a mut dyn FnMut(&str) -> Result<String>;

/// What is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, of a stage or an image.
    #[default]
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret of the client.
    Secret,
    /// The client's agent.
    Ssh,
}

impl MountKind {
    fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// Who may use a cache at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Everybody.
    Shared,
    /// Each its own.
    Private,
    /// One after the other.
    Locked,
}

/// A mount of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// Of `type`.
    pub kind: MountKind,
    /// A stage or image; empty: the context.
    pub from: String,
    /// A path in it.
    pub source: String,
    /// Where it is.
    pub target: String,
    /// Whether it cannot be written to.
    pub readonly: bool,
    /// Bytes of memory; 0: no limit of its own.
    pub size: i64,
    /// Of a cache, a secret or an agent.
    pub id: String,
    /// Of a cache.
    pub sharing: Option<Sharing>,
    /// Whether the command cannot do without.
    pub required: bool,
    /// The variable that holds a secret.
    pub env: Option<String>,
    /// Mode, owner and group of what is mounted.
    pub access: Access,
}

/// Who may do what with what is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: Option<u32>,
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

impl Access {
    /// Whether anything is said.
    pub fn is_given(self) -> bool {
        self.mode.is_some() || self.uid.is_some() || self.gid.is_some()
    }
}

impl Mount {
    /// Reads `key=value,…`. Without an expander only what must hold of the text as written is checked.
    pub fn parse(text: &str, mut expander: Option<Expander<'_>>) -> Result<Mount> {
        let mut mount = Mount::default();
        let mut readonly = None;
        let fields = csv_fields(text).map_err(|error| error.prefix("failed to parse csv mounts"))?;
        for field in fields {
            let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
            let key = key.to_lowercase();
            match (value, &mut expander) {
                (None, None) => {}
                (None, Some(_)) => mount.switch(&key, &field, &mut readonly)?,
                (Some(value), Some(expand)) => {
                    let value = expand(value)?;
                    mount.set(&key, value, &field, &mut readonly)?;
                }
                // A `$` at the very end is no variable.
                (Some(value), None) if key == "from" => {
                    if value.find('$').is_some_and(|at| at + 1 != value.len()) {
                        let why = format!("'{key}' doesn't support variable expansion, define alias stage instead");
                        return Err(Error::new(why));
                    }
                    mount.from = value.to_owned();
                }
                (Some(_), None) => {}
            }
        }
        mount.readonly = readonly.unwrap_or(!matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs));
        mount.check()?;
        Ok(mount)
    }

    /// A key without a value.
    fn switch(&mut self, key: &str, field: &str, readonly: &mut Option<bool>) -> Result<()> {
        match key {
            "readonly" | "ro" => *readonly = Some(true),
            "readwrite" | "rw" => *readonly = Some(false),
            "required" if matches!(self.kind, MountKind::Secret | MountKind::Ssh) => self.required = true,
            "required" => return Err(self.unexpected(key)),
            _ => return Err(Error::new(format!("invalid field '{field}' must be a key=value pair"))),
        }
        Ok(())
    }

    fn unexpected(&self, key: &str) -> Error {
        Error::new(format!("unexpected key '{key}' for mount type '{}'", self.kind.name()))
    }

    fn set(&mut self, key: &str, value: String, field: &str, readonly: &mut Option<bool>) -> Result<()> {
        let invalid = || Error::new(format!("invalid value for {key}: {value}"));
        match key {
            "type" => self.kind = kind(&value)?,
            "from" => self.from = value,
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "readonly" | "ro" => *readonly = Some(boolean(&value).ok_or_else(invalid)?),
            "readwrite" | "rw" => *readonly = Some(!boolean(&value).ok_or_else(invalid)?),
            "required" if matches!(self.kind, MountKind::Secret | MountKind::Ssh) => {
                self.required = boolean(&value).ok_or_else(invalid)?;
            }
            "size" if self.kind == MountKind::Tmpfs => {
                self.size = model::units::ram_in_bytes(&value).map_err(|_| invalid())?;
            }
            "required" | "size" => return Err(self.unexpected(key)),
            "id" => self.id = value,
            "sharing" => self.sharing = Some(sharing(&value)?),
            "mode" => self.access.mode = Some(number(key, &value, 8)?),
            "uid" => self.access.uid = Some(number(key, &value, 10)?),
            "gid" => self.access.gid = Some(number(key, &value, 10)?),
            "env" => self.env = Some(value),
            _ => {
                let error = Error::new(format!("unexpected key '{key}' in '{field}'"));
                return Err(with_suggestion(error, key, KEYS, Case::Sensitive));
            }
        }
        Ok(())
    }

    /// What does not go together.
    fn check(&self) -> Result<()> {
        let refuse = |why: String| Err(Error::new(why));
        if matches!(self.kind, MountKind::Bind | MountKind::Tmpfs) {
            let access = self.access;
            let given = [("mode", access.mode), ("uid", access.uid), ("gid", access.gid)];
            if let Some((key, _)) = given.iter().find(|(_, value)| value.is_some()) {
                return refuse(format!("{key} not allowed for {} type mounts", quote(self.kind.name())));
            }
        }
        if self.kind == MountKind::Secret {
            if !self.from.is_empty() {
                return refuse("secret mount should not have a from".into());
            }
            if self.sharing.is_some() {
                return refuse("secret mount should not define sharing".into());
            }
            if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                return refuse("invalid secret mount. one of source, target required".into());
            }
            if !self.source.is_empty() && !self.id.is_empty() {
                return refuse("both source and id can't be set".into());
            }
        }
        if self.sharing.is_some() && self.kind != MountKind::Cache {
            return refuse(format!("invalid cache sharing set for {} mount", self.kind.name()));
        }
        Ok(())
    }
}

fn kind(value: &str) -> Result<MountKind> {
    let wanted = value.to_lowercase();
    KINDS.iter().find(|(name, _)| *name == wanted).map(|(_, kind)| *kind).ok_or_else(|| {
        let error = Error::new(format!("unsupported mount type {}", quote(value)));
        with_suggestion(error, value, KINDS.map(|(name, _)| name), Case::Sensitive)
    })
}

fn sharing(value: &str) -> Result<Sharing> {
    let wanted = value.to_lowercase();
    SHARINGS.iter().find(|(name, _)| *name == wanted).map(|(_, sharing)| *sharing).ok_or_else(|| {
        let error = Error::new(format!("unsupported sharing value {}", quote(value)));
        with_suggestion(error, value, SHARINGS.map(|(name, _)| name), Case::Sensitive)
    })
}

/// Digits alone: no sign.
fn number(key: &str, value: &str, radix: u32) -> Result<u32> {
    let digits = value.starts_with(|c: char| c.is_ascii_digit());
    let number = u32::from_str_radix(value, radix).ok().filter(|_| digits);
    number.ok_or_else(|| Error::new(format!("invalid value {value} for {key}")))
}
