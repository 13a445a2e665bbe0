//! Directories that steps keep between builds (`RUN --mount=type=cache`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::pb;
use model::{Context, Result};

use crate::copy::{self, How, Target};
use crate::key::Key;
use crate::record::{Chain, keys};
use crate::root::{Roots, Tree};

/// All of them, below one directory.
#[derive(Clone)]
pub struct Caches {
    dir: PathBuf,
    /// Held while one is made.
    making: Arc<Mutex<()>>,
}

impl Caches {
    /// Below this directory.
    pub fn new(dir: PathBuf) -> Caches {
        Caches { dir, making: Arc::default() }
    }

    /// The directory of a cache; a new one begins with what lies in the layers at `part`. Blocks.
    pub(crate) fn place(&self, roots: &Roots, option: &pb::CacheOpt, begin: &Chain, part: &str) -> Result<PathBuf> {
        let _turn = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = Key::new("cache");
        key.part(option.id.as_bytes());
        let place = self.dir.join(key.finish().hex());
        if place.is_dir() {
            return Ok(place);
        }
        fs::create_dir_all(&self.dir).with_context(|| format!("creating {}", self.dir.display()))?;
        let new = self.dir.join("new");
        remove(&new)?;
        fs::create_dir(&new).with_context(|| format!("creating {}", new.display()))?;
        if !begin.is_empty() {
            let tree = Tree::open(roots, &keys(begin))?;
            let node = tree.root().locate(format!("/{part}")).with_context(|| format!("looking for {part}"))?;
            let target = sys::rooted::Rooted::open_dir(&new)?;
            let how = How { contents: true, ..How::default() };
            copy::copy(&node, "", &Target { root: &target, path: "/" }, &how)?;
            let stat = rustix::fs::fstat(&node).map_err(std::io::Error::from)?;
            let owner = (Some(stat.st_uid), Some(stat.st_gid));
            std::os::unix::fs::chown(&new, owner.0, owner.1)?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(stat.st_mode & 0o7777);
            fs::set_permissions(&new, mode)?;
        }
        fs::rename(&new, &place).with_context(|| format!("making {}", place.display()))?;
        Ok(place)
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
