//! The volumes of a container, mounted for a use: a run, the making of the container, `docker cp`.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::volume::{Mounted, Volumes};
use model::id::ContainerId;
use model::{Error, Result};
use runtime::spec::Bind;
use tokio::runtime::Handle;

/// A volume in a container.
#[derive(Clone, Copy, Debug)]
pub struct Part<'r> {
    /// The volume's name.
    pub volume: &'r str,
    /// Where the driver says that it is, for texts.
    pub place: &'r str,
    /// What of it is shown; empty: all.
    pub subpath: &'r str,
}

/// Mounts of a container with a file system of their own, at most: each is a descriptor on its way to the monitor.
const MAX_TREES: usize = 128;
/// How long the end of a run waits for drivers to let go; they go on after that.
const LET_GO_WAIT: Duration = Duration::from_secs(15);

/// What is mounted, by the volume's name. Cheap to clone; [`release`] ends the use.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<BTreeMap<String, Mounted>>);

impl Held {
    /// What is mounted of a volume.
    pub fn of(&self, volume: &str) -> Option<&Mounted> {
        self.0.get(volume)
    }

    /// What a container shows of a volume. Other containers may have put links there: none may lead out of it.
    pub fn open(&self, part: Part<'_>) -> Result<OwnedFd> {
        let Part { volume, place, subpath } = part;
        let missing = || Error::system(format!("volume {volume} is not mounted"));
        self.of(volume).ok_or_else(missing)?.open(subpath).map_err(|error| not_shown(place, subpath, error))
    }
}

/// Why a part of a volume or image cannot be shown.
fn not_shown(place: &str, subpath: &str, error: io::Error) -> Error {
    if error.kind() == ErrorKind::CrossesDevices {
        let text = "path concatenation escapes the base directory";
        return Error::invalid(format!("{text}, base: {place}, subpath: {subpath}"));
    }
    let path = format!("{place}/{subpath}");
    Error::not_found(Error::from(error).prefix(format!("cannot access path {path}: lstat {path}")).message())
}

/// A detached read-only mount of an image, or of the part of it that is to be shown; `layers` are its directories, top first.
pub fn image_tree(layers: &[PathBuf], part: Part<'_>) -> Result<OwnedFd> {
    runtime::layers::mount(layers, part.subpath).map_err(|error| not_shown(part.place, part.subpath, error))
}

/// What a run shows of the volumes that are held for it.
pub struct Shown {
    held: Held,
    /// Detached mounts, which the specification has by number.
    pub trees: Vec<OwnedFd>,
}

impl Shown {
    /// Nothing yet.
    pub fn new(held: Held) -> Shown {
        Shown { held, trees: Vec::new() }
    }

    /// The bind by which a run shows a volume. A part of it must be there.
    pub fn volume(&mut self, part: Part<'_>, bind: Bind) -> Result<Bind> {
        match self.held.of(part.volume) {
            Some(Mounted::Directory(path)) => {
                let source = path.display().to_string();
                if !part.subpath.is_empty() {
                    self.held.open(part)?;
                }
                Ok(Bind { source, ..bind })
            }
            _ => {
                let tree = self.held.open(part)?;
                self.pass(tree, bind)
            }
        }
    }

    /// A bind that shows a detached mount.
    pub fn pass(&mut self, tree: OwnedFd, bind: Bind) -> Result<Bind> {
        if self.trees.len() == MAX_TREES {
            let text = format!("more than {MAX_TREES} mounts of volumes and images with a file system of their own");
            return Err(Error::invalid(text));
        }
        let number = u16::try_from(self.trees.len()).ok();
        self.trees.push(tree);
        Ok(Bind { tree: number, subpath: String::new(), ..bind })
    }
}

/// Volumes that are held as long as this value lives.
pub struct Use {
    volumes: Volumes,
    user: String,
    names: Vec<String>,
    /// What is mounted.
    pub held: Held,
}

impl Use {
    /// Mounts these volumes for a use of their own.
    pub async fn begin<'m>(volumes: &Volumes, mounts: impl Iterator<Item = Part<'m>>) -> Result<Use> {
        let user = ContainerId::from_bytes(sys::random::bytes32()).as_str().to_owned();
        let held = hold(volumes, mounts, &user).await?;
        let names = held.0.keys().cloned().collect();
        Ok(Use { volumes: volumes.clone(), user, names, held })
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let told = self.volumes.let_go(&self.user, self.names.iter().map(String::as_str));
        if !told.is_empty() {
            let (volumes, user) = (self.volumes.clone(), std::mem::take(&mut self.user));
            Handle::current().spawn(async move { release(&volumes, told, &user).await });
        }
    }
}

/// Mounts these volumes for `user`; none if one cannot be mounted.
///
/// Errors: the driver's, with what was to be mounted.
pub async fn hold<'m>(volumes: &Volumes, parts: impl Iterator<Item = Part<'m>>, user: &str) -> Result<Held> {
    let mut held = BTreeMap::new();
    for Part { volume, place, .. } in parts {
        if held.contains_key(volume) {
            continue;
        }
        match volumes.mount(volume, user).await {
            Ok(mounted) => drop(held.insert(volume.to_owned(), mounted)),
            Err(error) => {
                release(volumes, held.into_keys().collect(), user).await;
                return Err(error.prefix(format!("error while mounting volume '{place}'")));
            }
        }
    }
    Ok(Held(Arc::new(held)))
}

/// Ends the use that `user` makes of these volumes; drivers that are slow are waited for up to a limit.
pub async fn release_all<'m>(volumes: &Volumes, parts: impl Iterator<Item = Part<'m>>, user: &str) {
    let told = volumes.let_go(user, parts.map(|part| part.volume));
    release(volumes, told, user).await;
}

/// As [`release_all`], of what [`Volumes::let_go`] has told.
pub async fn release(volumes: &Volumes, names: Vec<String>, user: &str) {
    let unmounts: Vec<_> = names
        .into_iter()
        .map(|name| {
            let (volumes, user) = (volumes.clone(), user.to_owned());
            tokio::spawn(async move {
                if let Err(error) = volumes.unmount(&name, &user).await {
                    tracing::warn!(volume = name, %error, "a volume could not be unmounted");
                }
            })
        })
        .collect();
    let all = async {
        for unmount in unmounts {
            drop(unmount.await);
        }
    };
    if tokio::time::timeout(LET_GO_WAIT, all).await.is_err() {
        tracing::warn!(user, "the driver of a volume is slow to let go");
    }
}
