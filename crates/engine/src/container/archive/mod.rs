//! `docker cp`: the files of a container, running or not, read and written through a view of its file system that has its
//! volumes (`runtime::view`).
//!
//! Everything blocks, for as long as the client of a transfer does. Paths are resolved below the container's root by the
//! kernel; a process that swaps directories for links meanwhile reaches nothing but the container's own files.

mod path;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ::volume::Mounted;
use model::{Error, Kind, Result};
use runtime::view::{Origin, Place, Source, View, ViewMount};
use snapshot::{Extraction, LayerStore, RootStore};
use sys::mount::Reach;

use super::definition::{Definition, MountKind, MountRow};
use super::life::{donors, facts, files};
use super::registry::command::Command;
use super::view::ContainerView;
use super::{Handle, publish};
use crate::Engine;
use crate::held::{Held, Use};

/// A file or directory of a container that is about to be read.
pub struct Opened {
    /// What the client is told of it.
    pub stat: api::PathStat,
    /// Open by `O_PATH`.
    node: OwnedFd,
    /// Its name in the archive.
    name: Vec<u8>,
    /// Keeps the mounts that it lies in.
    _view: Shown,
}

/// The file system of a container, and its volumes, which are mounted as long as it is seen.
struct Shown {
    view: View,
    /// Of a container that runs they are mounted anyway. Ends behind the view.
    _volumes: Option<Use>,
}

impl Shown {
    fn root(&self) -> &sys::rooted::Rooted {
        self.view.root()
    }
}

/// How a `PUT` treats what the archive has.
#[derive(Clone, Copy, Debug, Default)]
pub struct PutArgs {
    /// The container's user owns everything.
    pub copy_uid_gid: bool,
    /// A directory replaces nothing but a directory, and is replaced by nothing else.
    pub no_overwrite_dir_non_dir: bool,
}

/// Looks a path up; `name` is the container's as the client wrote it. A link at its end is not followed.
///
/// Errors: `NotFound` for the container and for the path, in the reference's words.
pub fn stat(engine: &Engine, name: &str, path: &str) -> Result<api::PathStat> {
    let view = engine.containers.find(name)?.view();
    let files = readable(engine, &view)?;
    path::stat(files.root(), path).map(|(_, stat)| stat).map_err(|e| path::not_found(e, path, name))
}

/// Opens a path to be read by [`Opened::write`]. Event: archive-path.
pub fn open(engine: &Engine, name: &str, path: &str) -> Result<Opened> {
    let view = engine.containers.find(name)?.view();
    let files = readable(engine, &view)?;
    let absolute = path::absolute(path);
    let found = path::stat(files.root(), &absolute);
    let (node, stat) = found.map_err(|e| path::not_found(e, path, name))?;
    // The root's entries have absolute names.
    let name = if stat.name == "/" { Vec::new() } else { stat.name.clone().into_bytes() };
    publish(&engine.events, &view.row, "archive-path", []);
    Ok(Opened { stat, node, name, _view: files })
}

impl Opened {
    /// Writes it as an uncompressed tar, a directory with all that lies in it.
    pub fn write(self, out: &mut dyn Write) -> Result<()> {
        Ok(snapshot::pack(&self.node, &self.name, out)?)
    }
}

/// Unpacks an archive, compressed or not, into a directory of a container. Event: extract-to-dir.
///
/// Errors: `NotFound` for the container and the directory; `InvalidParameter` for what is no directory or is read-only;
/// `System` for what the archive or the kernel refuses. What was unpacked before stays.
pub fn put(engine: &Engine, name: &str, path: &str, args: PutArgs, archive: impl Read + Send) -> Result<()> {
    let handle = engine.containers.find(name)?;
    note_written(engine, &handle)?;
    // A container that is about to start is waited for, and seen as it runs then.
    let claim = engine.containers.claims.claim(&handle.id)?;
    let view = handle.view();
    super::read::export::refuse_dying(&view.row, "copy files into")?;
    let claim = if view.pid == 0 { Some(claim) } else { None };
    let files = writable(engine, &view)?;
    let row = &view.row;
    let place = path::resolve(files.root(), path).map_err(|e| path::not_found(e, path, name))?;
    let found = files.root().stat(&place).map_err(|e| path::not_found(e, path, name))?;
    if !rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir() {
        return Err(Error::invalid("extraction point is not a directory"));
    }
    check_writable(row, &place)?;
    let owner = match row.config.user.as_str() {
        user if args.copy_uid_gid && !user.is_empty() => Some(owner(&files, user)?),
        _ => None,
    };
    let how = Extraction { owner, keep_kinds: args.no_overwrite_dir_non_dir };
    let tar = snapshot::decompress(archive)?;
    snapshot::extract(files.root(), &place, tar, how)?;
    // Mounted no more before the next one mounts it.
    drop(files);
    drop(claim);
    publish(&engine.events, row, "extract-to-dir", []);
    Ok(())
}

fn owner(files: &Shown, user: &str) -> Result<(u32, u32)> {
    let found = runtime::user::resolve(files.root(), user, &[]);
    let found = found.map_err(|e| Error::invalid(e.to_error(runtime::What::Create).0.message()))?;
    Ok((found.uid, found.gid))
}

fn readable(engine: &Engine, view: &ContainerView) -> Result<Shown> {
    shown(engine, view, Origin::Read)
}

fn writable(engine: &Engine, view: &ContainerView) -> Result<Shown> {
    shown(engine, view, Origin::Write)
}

fn shown(engine: &Engine, view: &ContainerView, at_rest: fn(runtime::Rootfs) -> Origin) -> Result<Shown> {
    let row = &view.row;
    let (origin, volumes) = match running(view) {
        Some(process) => (Origin::Process(process?), None),
        None => {
            let volumes = Use::begin(&engine.volumes, row.volumes().map(MountRow::part))?;
            (at_rest(rootfs(&*engine.snapshots.roots, row)?), Some(volumes))
        }
    };
    let mounts = mounts(engine, row, volumes.as_ref().map(|volumes| &volumes.held))?;
    Ok(Shown { view: View::open(origin, mounts)?, _volumes: volumes })
}

/// The writable layer of a container that never ran holds something from now on, which no later daemon may make anew.
#[expect(clippy::disallowed_methods, reason = "not yet on a thread of a class")]
fn note_written(engine: &Engine, handle: &Handle) -> Result<()> {
    let view = handle.view();
    let run = &view.row.run;
    if run.was_started || run.was_written {
        return Ok(());
    }
    engine.snapshots.roots.make_durable(view.row.id.as_str())?;
    tokio::runtime::Handle::current().block_on(handle.ask(|reply| Command::NoteWritten { reply }))
}

/// The first process of a container that runs.
fn running(view: &ContainerView) -> Option<Result<OwnedFd>> {
    (view.pid != 0).then(|| donors::first_process(view))
}

fn rootfs(roots: &dyn RootStore, row: &Definition) -> Result<runtime::Rootfs> {
    let found =
        roots.rootfs(row.id.as_str(), &snapshot::keys(&row.image.layers)).map_err(|error| match error.kind() {
            Kind::NotFound => error.with_kind(Kind::System),
            _ => error,
        })?;
    Ok(match found {
        snapshot::Rootfs::Overlay { lower, upper, work } => runtime::Rootfs::Overlay { lower, upper, work },
        snapshot::Rootfs::Dir(path) => runtime::Rootfs::Dir(path),
    })
}

/// What is mounted in the container beside the kernel's own file systems, those above first.
#[expect(clippy::disallowed_methods, reason = "not yet on a thread of a class")]
fn mounts(engine: &Engine, row: &Definition, held: Option<&Held>) -> Result<Vec<ViewMount>> {
    let mut all: Vec<ViewMount> =
        row.mounts.iter().map(|row| mount(&*engine.snapshots.layers, row, held)).collect::<Result<_>>()?;
    let tmpfs = row.host_config.tmpfs.keys();
    all.extend(tmpfs.map(|target| ViewMount { destination: target.into(), source: Source::Tmpfs }));
    let owner = files::owner(&engine.containers, row).unwrap_or_else(|_| row.id.clone());
    let dir = engine.settings().roots.container(owner.as_str());
    for (name, target) in [
        (run::files::RESOLV_CONF, "/etc/resolv.conf"),
        (run::files::HOSTNAME, "/etc/hostname"),
        (run::files::HOSTS, "/etc/hosts"),
    ] {
        let source = dir.join(name);
        // One that was never started has none yet; what the user mounts there wins.
        if source.is_file() && !all.iter().any(|mount| mount.destination == Path::new(target)) {
            let source = Source::Bind { place: Place::Path(source), reach: Reach::Mount, read_only: false };
            all.push(ViewMount { destination: target.into(), source });
        }
    }
    all.sort_by(|a, b| a.destination.cmp(&b.destination));
    Ok(all)
}

fn mount(layers: &dyn LayerStore, row: &MountRow, held: Option<&Held>) -> Result<ViewMount> {
    let options = row.spec.as_ref().and_then(|entry| entry.bind_options.as_ref());
    let top_only = options.is_some_and(|options| options.non_recursive);
    let (source, tree) = match held.and_then(|held| Some((held, held.of(&row.name)?))) {
        Some((held, Mounted::Tree(_))) => (PathBuf::new(), Some(held.open(row.part())?)),
        Some((_, Mounted::Directory(path))) => (path.clone(), None),
        None => (PathBuf::from(&row.source), None),
    };
    let source = match row.kind {
        MountKind::Tmpfs => Source::Tmpfs,
        MountKind::Image => {
            let place = Place::Tree(facts::image_tree(layers, row)?);
            Source::Bind { place, reach: Reach::Mount, read_only: true }
        }
        MountKind::Bind | MountKind::Volume => Source::Bind {
            place: match (tree, row.subpath()) {
                (Some(tree), _) => Place::Tree(tree),
                (None, "") => Place::Path(source),
                (None, part) => Place::Beneath(source, part.into()),
            },
            reach: if top_only { Reach::Mount } else { Reach::Tree },
            read_only: !row.writable,
        },
    };
    Ok(ViewMount { destination: PathBuf::from(&row.destination), source })
}

/// Refuses a place that the container itself may not write to.
fn check_writable(row: &Definition, place: &Path) -> Result<()> {
    let above = row.mounts.iter().filter(|mount| place.starts_with(&mount.destination));
    match above.max_by_key(|mount| mount.destination.len()) {
        Some(mount) if mount.writable => Ok(()),
        Some(_) => Err(Error::invalid("mounted volume is marked read-only")),
        None if row.host_config.readonly_rootfs => Err(Error::invalid("container rootfs is marked read-only")),
        None => Ok(()),
    }
}
