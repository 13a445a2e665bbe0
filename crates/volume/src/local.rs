//! The local driver: a directory `<root>/<name>/_data` per volume, `<root>/.removed/<name>` for one that is on its way
//! out (no volume's name begins with a dot); `.removed` is there only as long as it is needed.
//!
//! A volume with the options `type` and `device` is what these mount, for as long as somebody uses it ([`crate::keeper`]);
//! its directory stays empty. `size` limits a tmpfs, or a directory by a quota of its file system.

mod mount;
pub mod options;
mod size;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::lock::Mutex;
use model::{Context, Error, Result};
use sys::tree;

use crate::driver::{Directories, Others, VolumeDriver};
use crate::keeper::Keeper;
use crate::mounted::Mounted;
use crate::row::{DATA, LOCAL, Volume, data};
use options::LocalOptions;

/// The directory of the volumes that are being removed.
pub const REMOVED: &str = ".removed";

/// See the module.
pub struct Local {
    root: PathBuf,
    keeper: Keeper,
    /// Held while something is moved into `.removed`, or `.removed` itself is taken away.
    removed: Mutex<()>,
}

impl Local {
    /// Opens or makes the root.
    pub fn open(root: &Path, keeper: Keeper) -> Result<Local> {
        make_dir(root, 0o701)?;
        Ok(Local { root: root.to_owned(), keeper, removed: Mutex::default() })
    }

    /// Checks a name and options without making anything.
    pub(crate) fn check(name: &str, options: &BTreeMap<String, String>) -> Result<()> {
        crate::name::validate(name)?;
        let options = LocalOptions::parse(options)?;
        let is_other = options.mount.as_ref().is_some_and(|mount| mount.kind != "tmpfs");
        match options.size {
            1.. if is_other => Err(Error::invalid("quota size requested but no quota support")),
            _ => Ok(()),
        }
    }

    /// The volumes that are mounted, by whatever daemon.
    pub(crate) fn mounted(&self) -> Vec<String> {
        self.keeper.mounted()
    }
}

/// Renames; absent is fine.
fn rename(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::from(e).prefix(format!("error moving volume path '{}'", from.display())))
        }
        _ => Ok(()),
    }
}

impl Local {
    /// Where a volume lies that is being removed.
    fn retired(&self, name: &str) -> PathBuf {
        self.root.join(REMOVED).join(name)
    }

    /// Removes the tree `name` of a directory; absent is fine.
    fn clear(&self, dir: &Path, name: &str) -> Result<()> {
        let failed = || format!("error removing volume path '{}'", dir.join(name).display());
        let dir = match File::open(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.with_context(failed)?,
        };
        tree::remove(&dir, &c_name(name)?).with_context(failed)
    }

    /// Finishes or undoes removals that were cut short, and removes directories that a create cut short has left: without
    /// a row and without data.
    pub(crate) fn sweep(&self, known: &[String]) -> Result<()> {
        let names = |dir: &Path| -> Result<Vec<String>> {
            let context = || format!("listing {}", dir.display());
            let entries = match fs::read_dir(dir) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                other => other.with_context(context)?,
            };
            let names = entries.map(|entry| Ok(entry?.file_name()));
            let names: Vec<_> = names.collect::<std::io::Result<_>>().with_context(context)?;
            Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
        };
        let removed = self.root.join(REMOVED);
        if fs::symlink_metadata(&removed).is_ok_and(|found| !found.is_dir()) {
            fs::remove_file(&removed).with_context(|| format!("error removing volume path '{}'", removed.display()))?;
        }
        for name in names(&removed)? {
            let undone = known.contains(&name) && !self.root.join(&name).exists();
            let done = if undone { self.recall(&name) } else { self.clear(&self.root.join(REMOVED), &name) };
            if let Err(error) = done {
                tracing::warn!(volume = name, %error, "what a removal has left stays until the next start");
            }
        }
        drop(fs::remove_dir(self.root.join(REMOVED)));
        let unknown = |name: &&String| !known.contains(name) && crate::name::validate(name).is_ok();
        for name in names(&self.root)?.iter().filter(unknown) {
            // Both fail when something is in the way, which is then none of ours to remove. A create that was cut short may
            // have made the outer one only.
            drop(fs::remove_dir(data(&self.root, name)));
            drop(fs::remove_dir(self.root.join(name)));
        }
        Ok(())
    }
}

impl Local {
    /// Makes a volume again that holds nothing: a power cut may have taken its directory, or have left something else there.
    pub(crate) fn put_right(&self, name: &str, options: &BTreeMap<String, String>) -> Result<()> {
        for path in [self.root.join(name), data(&self.root, name)] {
            if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_dir()) {
                fs::remove_file(&path).with_context(|| format!("error removing volume path '{}'", path.display()))?;
            }
        }
        self.create(name, &BTreeMap::new())?;
        if let Err(error) = self.limit(name, options) {
            tracing::warn!(volume = name, %error, "a volume has no limit any more");
        }
        Ok(())
    }

    /// Limits what the directory of a volume may hold, if its options say so.
    fn limit(&self, name: &str, options: &BTreeMap<String, String>) -> Result<()> {
        match LocalOptions::parse(options)? {
            LocalOptions { mount: None, size: size @ 1.. } => size::limit(&self.root, name, size),
            _ => Ok(()),
        }
    }
}

impl VolumeDriver for Local {
    fn name(&self) -> &str {
        LOCAL
    }

    fn create(&self, name: &str, options: &BTreeMap<String, String>) -> Result<()> {
        make_dir(&self.root.join(name), 0o701)?;
        make_data(&self.root.join(name))?;
        self.limit(name, options).inspect_err(|_| {
            // Only what is empty goes again.
            drop(fs::remove_dir(data(&self.root, name)));
            drop(fs::remove_dir(self.root.join(name)));
        })
    }

    fn mountpoint(&self, name: &str) -> Result<PathBuf> {
        Ok(data(&self.root, name))
    }

    fn is_mounted_for_use(&self, volume: &Volume) -> bool {
        volume.has_mount_options()
    }

    fn mount(&self, volume: &Volume, _user: &str) -> Result<Mounted> {
        let path = data(&self.root, &volume.name);
        let options = LocalOptions::parse(volume.options.as_ref().unwrap_or(&BTreeMap::new()))?;
        let Some(wanted) = options.mount else {
            if !path.is_dir() {
                return Err(Error::system(format!("the data of volume {} is gone: {}", volume.name, path.display())));
            }
            return Ok(Mounted::Directory(path));
        };
        let kept = self.keeper.mount(&volume.name, || mount::make(&wanted, options.size, &path))?;
        Ok(Mounted::Tree(Arc::new(kept)))
    }

    fn unmount(&self, volume: &Volume, _user: &str, others: Others) -> Result<()> {
        match others {
            Others::Remain => Ok(()),
            Others::None => Ok(self.keeper.unmount(&volume.name)?),
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.clear(&self.root.join(REMOVED), name)?;
        {
            let _turn = self.removed.lock();
            // Fails while there are others in it.
            drop(fs::remove_dir(self.root.join(REMOVED)));
        }
        self.clear(&self.root, name)
    }

    fn directories(&self) -> Option<&dyn Directories> {
        Some(self)
    }
}

impl Directories for Local {
    fn retire(&self, name: &str) -> Result<()> {
        size::forget(&self.root, name);
        // An earlier volume of this name may have been removed in part only.
        self.clear(&self.root.join(REMOVED), name)?;
        {
            let _turn = self.removed.lock();
            make_dir(&self.root.join(REMOVED), 0o700)?;
            rename(&self.root.join(name), &self.retired(name))?;
            if !self.retired(name).exists() {
                // There was nothing to be moved.
                drop(fs::remove_dir(self.root.join(REMOVED)));
                return Ok(());
            }
        }
        // Both ends: without its row the data would never be found in its old place.
        let sync = |dir: &Path| sys::file::sync_dir(dir).with_context(|| format!("syncing {}", dir.display()));
        sync(&self.root.join(REMOVED)).and_then(|()| sync(&self.root))
    }

    fn recall(&self, name: &str) -> Result<()> {
        rename(&self.retired(name), &self.root.join(name))
    }

    fn make_durable(&self, name: &str) -> Result<()> {
        // The innermost directory: where there is no journal, the kernel takes the new ones above it along; where there is
        // one, they were made before it.
        let place = data(&self.root, name);
        sys::file::sync_dir(&place).with_context(|| format!("syncing {}", place.display()))
    }

    fn usage(&self, name: &str) -> Result<u64> {
        let failed = || format!("measuring volume {name}");
        let volume = File::open(self.root.join(name)).with_context(failed)?;
        let data = tree::open_dir(&volume, &c_name(DATA)?).with_context(failed)?;
        tree::content_bytes(data).with_context(failed)
    }
}

/// Makes the directory of a volume's data in the volume's own. On btrfs it is a subvolume, which can be copied in one step and
/// limited; an existing one is left as it is.
pub(crate) fn make_data(volume: &Path) -> Result<()> {
    let place = volume.join(DATA);
    let parent =
        File::open(volume).with_context(|| format!("error while creating volume path '{}'", place.display()))?;
    if sys::btrfs::is_btrfs(&parent)? && !place.is_dir() {
        match sys::btrfs::create(&parent, &c_name(DATA)?) {
            Ok(()) => fs::set_permissions(&place, Permissions::from_mode(0o755))?,
            Err(error) => tracing::debug!(path = %place.display(), %error, "not made a subvolume"),
        }
    }
    make_dir(&place, 0o755)
}

pub(crate) fn c_name(name: &str) -> Result<CString> {
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
