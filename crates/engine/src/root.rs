//! The data root: whether its store may be gone by, and its own small files.
//!
//! A start sweeps what no row names. That is garbage only if the rows are those that belong here: a store that is missing,
//! empty, damaged, another root's or an older copy names too little, and a data root whose disk is not mounted names
//! nothing. Such a start is refused, with a text that says how to go on; nothing has been touched then.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use image::row::IMAGES;
use model::id::ContainerId;
use model::{Context, Error, Result};
use sha2::{Digest, Sha256};
use store::{Doubt, Store};

use crate::container::row::CONTAINERS;
use crate::quarantine::Quarantine;

/// The store's file.
pub const STORE: &str = "gantry.redb";
/// Says which store the data root's is, and how far it has come.
pub const STORE_MARK: &str = "gantry.redb.mark";
/// In the exec root: the id of the store whose containers run there.
const OWNER: &str = "store-id";
/// The file of the engine's id.
const ENGINE_ID: &str = "engine-id";
/// Bytes of a small file at most.
const SMALL: u64 = 256;

/// How to go on without the rows that are gone.
const GO_ON: &str = "put the store that belongs here back (with its .mark), or have `gantryd check --repair` move what no \
                     row names to the quarantine";

/// What lies in a data root besides its store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Directories of containers.
    containers: usize,
    /// Volumes with data.
    volumes: usize,
    /// Unpacked layers.
    layers: usize,
    /// Blobs.
    blobs: usize,
}

impl Content {
    /// Counts names.
    #[expect(clippy::disallowed_methods, reason = "before anybody is served")]
    pub fn of(root: &Path) -> Result<Content> {
        let count = |dir: &str, counts: &dyn Fn(&Path, &str) -> bool| -> Result<usize> {
            let dir = root.join(dir);
            Ok(names(&dir)?.iter().filter(|name| counts(&dir.join(name), name)).count())
        };
        let is_volume = |path: &Path, name: &str| match name {
            ::volume::REMOVED => fs::read_dir(path).is_ok_and(|mut left| left.next().is_some()),
            _ => path.join("_data").is_dir(),
        };
        let is_hex = |_: &Path, name: &str| ContainerId::parse(name).is_some();
        Ok(Content {
            containers: count("containers", &is_hex)?,
            volumes: count("volumes", &is_volume)?,
            layers: count("snapshots/overlay", &is_hex)? + count("snapshots/copy", &is_hex)?,
            blobs: count("content/blobs/sha256", &is_hex)?,
        })
    }

    /// Whether there is nothing that could be lost.
    pub fn is_nothing(&self) -> bool {
        *self == Content::default()
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Content { containers, volumes, layers, blobs } = self;
        write!(f, "{containers} containers, {volumes} volumes, {layers} layers and {blobs} blobs")
    }
}

/// Opens the store of a data root, or begins a new one where there is nothing yet.
///
/// Errors: `DataLoss` when it is not the store that belongs here, `Conflict` when the exec root has another's containers.
pub fn open_store(data_root: &Path, exec_root: &Path, quarantine: &Quarantine) -> Result<Store> {
    let path = data_root.join(STORE);
    let (content, running) = (Content::of(data_root)?, running(exec_root)?);
    if !is_there(&path)? {
        refuse_to_begin_anew(&path, content, (exec_root, &running))?;
    }
    let store = Store::open(&path).map_err(|error| how_to_go_on(error, content))?;
    set_mark_aside(&store, content, quarantine)?;
    if let Some(why) = doubt(&store, content).map_err(|error| how_to_go_on(error, content))? {
        return Err(how_to_go_on(Error::data_loss(format!("the store {}: {why}", path.display())), content));
    }
    refuse_others_containers(&store, exec_root, &running, quarantine)?;
    if let Err(error) = store.approve() {
        // A full disk. Without its mark the store is taken for the right one as long as it names something.
        tracing::warn!(%error, "the store has no mark");
    }
    note_owner(&store, exec_root);
    Ok(store)
}

/// A mark that cannot be read tells nothing: the store is one without, which is refused if it names nothing of what is here.
fn set_mark_aside(store: &Store, content: Content, quarantine: &Quarantine) -> Result<()> {
    match store.doubt() {
        Err(error) if content.is_nothing() || !names_nothing(store)? => {
            quarantine.set_file_aside(&quarantine.data_root().join(STORE_MARK), "files", error.message())
        }
        _ => Ok(()),
    }
}

/// Why the store is not, or may not be, the one that belongs to this content.
pub fn doubt(store: &Store, content: Content) -> Result<Option<String>> {
    Ok(match store.doubt()? {
        None => None,
        Some(Doubt::Foreign) => Some(format!("it belongs to another data root: {STORE_MARK} names another store")),
        Some(Doubt::Older { commits, newest }) => {
            Some(format!("it is an older copy: it has {commits} commits, and {STORE_MARK} has seen {newest}"))
        }
        Some(Doubt::Unmarked) if names_nothing(store)? && !content.is_nothing() => {
            Some("it names no image and no container".into())
        }
        Some(Doubt::Unmarked) => None,
    })
}

fn names_nothing(store: &Store) -> Result<bool> {
    store.read(|tx| Ok(tx.keys(&IMAGES)?.is_empty() && tx.keys(&CONTAINERS)?.is_empty()))
}

fn how_to_go_on(error: Error, content: Content) -> Error {
    match error.kind() {
        model::Kind::DataLoss => Error::data_loss(format!("{}; the data root has {content}: {GO_ON}", error.message())),
        _ => error,
    }
}

/// There is no store: what is here belonged to one that is gone.
fn refuse_to_begin_anew(path: &Path, content: Content, running: (&Path, &[String])) -> Result<()> {
    if !content.is_nothing() {
        return Err(how_to_go_on(Error::data_loss(format!("the store {} is missing", path.display())), content));
    }
    let (exec_root, ids) = running;
    if !ids.is_empty() {
        let root = path.parent().unwrap_or(path).display();
        return Err(Error::conflict(format!(
            "the data root {root} is empty, but {} has {}: is the disk of the data root not mounted? To begin anew, end \
             these containers and remove their directories there",
            exec_root.display(),
            listed(ids)
        )));
    }
    Ok(())
}

/// Monitors that no row of this store knows would be ended.
fn refuse_others_containers(
    store: &Store,
    exec_root: &Path,
    running: &[String],
    quarantine: &Quarantine,
) -> Result<()> {
    let path = exec_root.join(OWNER);
    let owner = match sys::file::read_small(&path, SMALL) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Ok(owner) if is_store_id(&owner) => owner,
        other => {
            let why = other.err().map_or("it names no store".to_owned(), |error| error.to_string());
            return quarantine.set_file_aside(&path, "files", &why);
        }
    };
    let own = store.id()?;
    let is_own = own.is_some_and(|own| String::from_utf8_lossy(&owner).trim() == own);
    if running.is_empty() || is_own {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "the exec root {} has {} of another data root: name that one (--data-root), or another exec root (--exec-root)",
        exec_root.display(),
        listed(running)
    )))
}

/// Whether this is the id of a store, of the first version's too.
fn is_store_id(bytes: &[u8]) -> bool {
    let id = bytes.trim_ascii();
    id.is_empty() || (id.len() == 32 && id.iter().all(u8::is_ascii_hexdigit))
}

fn note_owner(store: &Store, exec_root: &Path) {
    let noted = store.id().and_then(|id| {
        let id = id.unwrap_or_default();
        Ok(sys::file::replace(&exec_root.join(OWNER), format!("{id}\n").as_bytes(), 0o600)?)
    });
    if let Err(error) = noted {
        tracing::warn!(%error, "the exec root does not tell whose containers run there");
    }
}

/// The containers with a directory in the exec root.
fn running(exec_root: &Path) -> Result<Vec<String>> {
    let mut ids = names(exec_root)?;
    ids.retain(|name| ContainerId::parse(name).is_some());
    ids.sort_unstable();
    Ok(ids)
}

fn listed(ids: &[String]) -> String {
    /// More are counted only.
    const SHOWN: usize = 3;
    let shown: Vec<_> = ids.iter().take(SHOWN).map(|id| &id[..12]).collect();
    let more = if ids.len() > SHOWN { ", …" } else { "" };
    format!("{} containers ({}{more})", ids.len(), shown.join(", "))
}

/// Whether there is anything of this name.
#[expect(clippy::disallowed_methods, reason = "before anybody is served")]
pub fn is_there(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("looking for {}", path.display())),
    }
}

/// The names in a directory; none when it does not exist.
#[expect(clippy::disallowed_methods, reason = "before anybody is served")]
fn names(dir: &Path) -> Result<Vec<String>> {
    let context = || format!("listing {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(context)?,
    };
    let name = |entry: std::io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<std::io::Result<_>>().with_context(context)
}

/// The unique local network (RFC 4193) of this engine: its 40 bits are the last of the first eight bytes of the id's
/// SHA-256, as the reference chooses them.
pub fn local_ipv6(engine_id: &str) -> ipnet::Ipv6Net {
    let digest = Sha256::digest(engine_id.as_bytes());
    let mut octets = [0u8; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&digest[3..8]);
    ipnet::Ipv6Net::new_assert(octets.into(), 48)
}

/// The engine's id: made once, kept in the data root. An empty file is one that a power cut has taken the content of; one
/// that cannot be read is set aside.
pub fn engine_id(root: &Path, quarantine: &Quarantine) -> Result<String> {
    let path: PathBuf = root.join(ENGINE_ID);
    let id = match sys::file::read_small(&path, SMALL) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(e.to_string()),
        Ok(bytes) => String::from_utf8(bytes)
            .ok()
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.chars().any(char::is_control))
            .ok_or_else(|| "it is not text".to_owned()),
    };
    match id {
        Ok(id) if id.is_empty() => {}
        Ok(id) => return Ok(id),
        Err(why) => quarantine.set_file_aside(&path, "files", &why)?,
    }
    let b = sys::random::bytes32();
    let hex: String = b[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let id = format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32]);
    sys::file::replace(&path, id.as_bytes(), 0o644).with_context(|| format!("writing {}", path.display()))?;
    Ok(id)
}

#[cfg(test)]
mod tests;
