//! The local driver: a directory `<root>/<name>/_data` per volume.
//!
//! The options `type`, `o`, `device` (a mount made on first use) are known and refused for now.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use model::{Context, Error, Result};

use crate::VolumeDriver;

/// See the module.
pub struct Local {
    root: PathBuf,
}

impl Local {
    /// Opens or makes the root.
    pub fn open(root: &Path) -> Result<Local> {
        make_dir(root, 0o701)?;
        Ok(Local { root: root.to_owned() })
    }
}

impl Local {
    /// Where the data of a volume lies under `root`.
    pub(crate) fn data(root: &Path, name: &str) -> PathBuf {
        root.join(name).join("_data")
    }

    /// Removes directories that a create cut short has left: without a row and without data.
    pub(crate) fn sweep(&self, known: &[String]) -> Result<()> {
        for entry in fs::read_dir(&self.root).with_context(|| format!("listing {}", self.root.display()))? {
            let name = entry.context("listing volumes")?.file_name();
            let Some(name) = name.to_str().filter(|name| !known.iter().any(|k| k == name)) else { continue };
            // Both fail when something is in the way, which is then none of ours to remove.
            if fs::remove_dir(self.mountpoint(name)).is_ok() {
                drop(fs::remove_dir(self.root.join(name)));
            }
        }
        Ok(())
    }
}

impl VolumeDriver for Local {
    fn name(&self) -> &'static str {
        crate::LOCAL
    }

    fn validate(&self, _name: &str, options: &BTreeMap<String, String>) -> Result<()> {
        match options.keys().next().map(String::as_str) {
            None => Ok(()),
            Some(key @ ("type" | "o" | "device" | "size")) => {
                Err(Error::not_implemented(format!("volume option {key:?} is not supported yet")))
            }
            Some(key) => Err(Error::invalid(format!("invalid option: {key:?}"))),
        }
    }

    fn create(&self, name: &str, _options: &BTreeMap<String, String>) -> Result<()> {
        make_dir(&self.root.join(name), 0o701)?;
        make_dir(&self.mountpoint(name), 0o755)
    }

    fn mountpoint(&self, name: &str) -> PathBuf {
        Local::data(&self.root, name)
    }

    fn mount(&self, name: &str, _options: &BTreeMap<String, String>) -> Result<PathBuf> {
        let path = self.mountpoint(name);
        if !path.is_dir() {
            return Err(Error::system(format!("the data of volume {name} is gone: {}", path.display())));
        }
        Ok(path)
    }

    fn unmount(&self, _name: &str) -> Result<()> {
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.root.join(name);
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::from(e).prefix(format!("error removing volume path '{}'", path.display())))
            }
            _ => Ok(()),
        }
    }

    fn usage(&self, name: &str) -> Result<u64> {
        let mut seen = std::collections::HashSet::new();
        usage(&self.mountpoint(name), &mut seen).with_context(|| format!("measuring volume {name}"))
    }
}

/// Bytes on disk below a directory, hard links once. What vanishes meanwhile counts nothing.
fn usage(top: &Path, seen: &mut std::collections::HashSet<(u64, u64)>) -> io::Result<u64> {
    let mut bytes = 0;
    let mut todo = vec![top.to_owned()];
    while let Some(dir) = todo.pop() {
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let Ok(entry) = entry else { continue };
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                todo.push(entry.path());
            }
            if meta.is_dir() || meta.nlink() == 1 || seen.insert((meta.dev(), meta.ino())) {
                bytes += meta.blocks() * 512;
            }
        }
    }
    Ok(bytes)
}

/// Makes a directory of exactly this mode; an existing one is left as it is.
fn make_dir(path: &Path, mode: u32) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    // The umask has cut the mode above.
    made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .with_context(|| format!("error while creating volume path '{}'", path.display()))
}
