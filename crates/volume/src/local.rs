//! The local driver: a directory `<root>/<name>/_data` per volume.
//!
//! The options `type`, `o`, `device` (a mount made on first use) are known and refused for now.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use model::{Context, Error, Result};
use sys::tree;

use crate::VolumeDriver;

/// The directory of a volume's data, within the volume's own.
const DATA: &str = "_data";

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
        root.join(name).join(DATA)
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
        let failed = || format!("error removing volume path '{}'", self.root.join(name).display());
        let root = File::open(&self.root).with_context(failed)?;
        tree::remove(&root, &c_name(name)?).with_context(failed)
    }

    fn usage(&self, name: &str) -> Result<u64> {
        let failed = || format!("measuring volume {name}");
        let volume = File::open(self.root.join(name)).with_context(failed)?;
        let data = tree::open_dir(&volume, &c_name(DATA)?).with_context(failed)?;
        // The directory itself is no data: an empty volume has none.
        let own = tree::blocks(&rustix::fs::fstat(&data).map_err(std::io::Error::from).with_context(failed)?);
        Ok(tree::usage(data).with_context(failed)?.saturating_sub(own))
    }
}

fn c_name(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Error::invalid("name with a zero byte"))
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
