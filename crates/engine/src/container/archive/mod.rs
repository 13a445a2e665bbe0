//! `docker cp`: the files of a container, running or not, read and written through a view of its file system that has its
//! volumes (`runtime::view`).
//!
//! First the container is found, its binds are looked at and its volumes mounted; what follows blocks, for as long as the
//! client of a transfer does, on a thread of the transfer. Paths are resolved below the container's root by the
//! kernel; a process that swaps directories for links meanwhile reaches nothing but the container's own files.

mod path;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::volume::Mounted;
use model::{Error, Kind, Result};
use runtime::view::{Origin, Place, Source, View, ViewMount};
use snapshot::{Extraction, LayerStore, RootStore};
use sys::mount::Reach;

use super::definition::{Definition, MountKind, MountRow};
use super::life::{donors, files, runtime_spec};
use super::registry::claims::Claim;
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

/// A container whose files are about to be seen. Its binds have answered; its volumes are mounted, as long as this value lives.
pub struct Subject {
    engine: Arc<Engine>,
    view: Arc<ContainerView>,
    /// As the client wrote it.
    name: String,
    /// Of a container that runs they are mounted anyway.
    volumes: Option<Use>,
    /// Of a container that does not run and is written to: no start mounts it meanwhile.
    claim: Option<Claim>,
}

/// Finds a container to read from.
///
/// Errors: `NotFound`; `System` for a bind whose source does not answer; those of drivers of volumes.
pub async fn to_read(engine: &Arc<Engine>, name: &str) -> Result<Subject> {
    let view = engine.containers.find(name)?.view();
    subject(engine, name, view, None).await
}

/// Finds a container to write to. One that is about to start is waited for, and seen as it runs then.
///
/// Errors: as [`to_read`]; `Conflict` for one that is going away, or that others write to.
pub async fn to_write(engine: &Arc<Engine>, name: &str) -> Result<Subject> {
    let handle = engine.containers.find(name)?;
    note_written(engine, &handle).await?;
    let claim = engine.containers.claims.claim(&handle.id).await?;
    let view = handle.view();
    super::read::export::refuse_dying(&view.row, "copy files into")?;
    let claim = Some(claim).filter(|_| view.pid == 0);
    subject(engine, name, view, claim).await
}

async fn subject(engine: &Arc<Engine>, name: &str, view: Arc<ContainerView>, claim: Option<Claim>) -> Result<Subject> {
    let binds = view.row.mounts.iter().filter(|mount| mount.kind == MountKind::Bind);
    engine.disk.paths.survey(binds.map(|mount| mount.source.clone()).collect()).await?;
    let volumes = match view.pid {
        0 => Some(Use::begin(&engine.volumes, view.row.volumes().map(MountRow::part)).await?),
        _ => None,
    };
    Ok(Subject { engine: engine.clone(), view, name: name.to_owned(), volumes, claim })
}

/// The writable layer of a container that never ran holds something from now on, which no later daemon may make anew.
async fn note_written(engine: &Arc<Engine>, handle: &Handle) -> Result<()> {
    let view = handle.view();
    if view.row.run.was_started || view.row.run.was_written {
        return Ok(());
    }
    let (roots, id) = (engine.snapshots.roots.clone(), handle.id.clone());
    engine.containers.threads.creates.run(move |_| roots.make_durable(id.as_str())).await?;
    handle.ask(|reply| Command::NoteWritten { reply }).await
}

/// The file system of a container, and what keeps its volumes mounted. The view ends first.
struct Shown {
    view: View,
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

impl Subject {
    /// Looks a path up. A link at its end is not followed. Blocks.
    ///
    /// Errors: `NotFound` for the path, in the reference's words.
    pub fn stat(self, path: &str) -> Result<api::PathStat> {
        let Subject { engine, view, name, volumes, .. } = self;
        let files = shown(&engine, &view, volumes, Origin::Read)?;
        path::stat(files.root(), path).map(|(_, stat)| stat).map_err(|e| path::not_found(e, path, &name))
    }

    /// Opens a path to be read by [`Opened::write`]. Event: archive-path. Blocks.
    ///
    /// Errors: as [`Subject::stat`].
    pub fn open(self, path: &str) -> Result<Opened> {
        let Subject { engine, view, name, volumes, .. } = self;
        let files = shown(&engine, &view, volumes, Origin::Read)?;
        let absolute = path::absolute(path);
        let found = path::stat(files.root(), &absolute);
        let (node, stat) = found.map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => path::not_found(e, path, &name),
            _ => path::not_found(e, &absolute, &name),
        })?;
        // The root's entries have absolute names.
        let name = if stat.name == "/" { Vec::new() } else { stat.name.clone().into_bytes() };
        publish(&engine.events, &view.row, "archive-path", []);
        Ok(Opened { stat, node, name, _view: files })
    }

    /// Finds the directory that an archive is to be unpacked to. Blocks.
    ///
    /// Errors: `NotFound` for the directory; `InvalidParameter` for what is no directory or is read-only.
    pub fn target(self, path: &str, args: PutArgs) -> Result<Target> {
        let Subject { engine, view, name, volumes, claim } = self;
        let files = shown(&engine, &view, volumes, Origin::Write)?;
        let row = &view.row;
        let place = path::resolve(files.root(), path).map_err(|e| path::not_found(e, path, &name))?;
        let found = files.root().stat(&place).map_err(|e| path::not_found(e, path, &name))?;
        if !rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir() {
            if path.ends_with('/') || path.ends_with("/.") {
                let error = rustix::io::Errno::NOTDIR.into();
                return Err(path::not_found(error, &path::absolute(path), &name));
            }
            return Err(Error::invalid("extraction point is not a directory"));
        }
        check_writable(row, &place)?;
        let owner = match row.config.user.as_str() {
            user if args.copy_uid_gid && !user.is_empty() => Some(owner(&files, user)?),
            _ => None,
        };
        let keep_kinds = args.no_overwrite_dir_non_dir;
        let how = Extraction { owner, keep_kinds, links_inside: true, ..Extraction::default() };
        Ok(Target { files, claim, engine, view, named: (path.to_owned(), name), place, how })
    }
}

/// A directory of a container that an archive is about to be unpacked to. Its mounts end before anybody else may write.
pub struct Target {
    files: Shown,
    claim: Option<Claim>,
    engine: Arc<Engine>,
    view: Arc<ContainerView>,
    /// The path and the container as the client names them.
    named: (String, String),
    place: PathBuf,
    how: Extraction,
}

impl Target {
    /// Unpacks an archive, compressed or not. Event: extract-to-dir. Blocks.
    ///
    /// Errors: `System` for what the archive or the kernel refuses. What was unpacked before stays.
    pub fn unpack(self, archive: impl Read + Send) -> Result<()> {
        let Target { files, claim, engine, view, named: (path, name), place, how } = self;
        let tar = snapshot::decompress(snapshot::to_layer(archive)?)?;
        // What an entry needs and is not there, such as the target of a hard link, is told like the directory itself.
        snapshot::extract(files.root(), &place, tar, how).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => path::not_found(error, &path, &name),
            _ => error.into(),
        })?;
        // Mounted no more before the next one mounts it.
        drop(files);
        drop(claim);
        publish(&engine.events, &view.row, "extract-to-dir", []);
        Ok(())
    }
}

impl Opened {
    /// Writes it as an uncompressed tar, a directory with all that lies in it.
    pub fn write(self, out: &mut dyn Write) -> Result<()> {
        Ok(snapshot::pack(&self.node, &self.name, out)?)
    }
}

fn owner(files: &Shown, user: &str) -> Result<(u32, u32)> {
    let found = runtime::user::resolve(files.root(), user, &[]);
    let found = found.map_err(|e| Error::invalid(e.to_error(runtime::What::Create).0.message()))?;
    Ok((found.uid, found.gid))
}

fn shown(
    engine: &Engine,
    view: &ContainerView,
    volumes: Option<Use>,
    at_rest: fn(runtime::Rootfs) -> Origin,
) -> Result<Shown> {
    let row = &view.row;
    let origin = match running(view) {
        Some(process) => Origin::Process(process?),
        None => at_rest(rootfs(&*engine.snapshots.roots, row)?),
    };
    let mounts = mounts(engine, row, volumes.as_ref().map(|volumes| &volumes.held))?;
    Ok(Shown { view: View::open(origin, mounts)?, _volumes: volumes })
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
#[expect(clippy::disallowed_methods, reason = "on the thread of the transfer")]
fn mounts(engine: &Engine, row: &Definition, held: Option<&Held>) -> Result<Vec<ViewMount>> {
    let tmpfs = row.host_config.tmpfs.keys();
    let mut all: Vec<_> = tmpfs.map(|target| ViewMount { destination: target.into(), source: Source::Tmpfs }).collect();
    for one in row.mounts.iter().filter(|mount| !row.gives_way_to_tmpfs(mount)) {
        all.push(mount(&*engine.snapshots.layers, one, held)?);
    }
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
            let place = Place::Tree(runtime_spec::image_tree(layers, row)?);
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
