//! Trees into a tar: a container's whole root file system (export), or what it changed over its image (a layer).
//!
//! Invariants:
//! - both are streams: what is kept in memory is one directory's names per level and the first names of files with
//!   several links, up to [`LINK_BYTES`];
//! - the same tree gives the same bytes: names in order, times in whole seconds (as the reference writes them, to whom
//!   a fraction would cost a record per file), no time of access or change, deletions at the epoch;
//! - the container may run: what vanishes is left out, a file that shrinks meanwhile is filled up with zeros;
//! - nothing of the driver gets out: no `trusted.*`, no whiteout of overlay, no socket.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use model::digest::Digest;
use model::{Context, Error, Result};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::apply::{WHITEOUT, proc_path};
use crate::archive::{Entry, Kind, Time, Writer};
use crate::changes::{self, Changed, Differ, Source};
use crate::sparse;
use crate::view::{View, xattrs};
use crate::walk::Walk;
use crate::{ChangeKind, tree};

/// Bytes of names kept to tell links by; files beyond that are written as files of their own.
const LINK_BYTES: usize = 64 << 20;
/// Bytes copied at once.
const CHUNK: usize = 128 << 10;

/// Writes everything that a container's tree over those `below` (top first) shows. With none below it the tree is all
/// there is, and what it holds are no marks of overlay.
pub(crate) fn export(tree: &Path, below: Vec<OwnedFd>, out: &mut dyn Write) -> Result<()> {
    let top = changes::open_tree(tree)?;
    let context = || format!("reading {}", tree.display());
    let merged = !below.is_empty();
    let roots = std::iter::once(top.try_clone()).chain(below.into_iter().map(Ok)).collect::<io::Result<_>>();
    export_all(roots.with_context(context)?, merged, out).with_context(context)?;
    still_there(tree, &top)
}

/// A container that was removed meanwhile has been read in part only: its tree is moved away before it is emptied.
fn still_there(tree: &Path, top: &OwnedFd) -> Result<()> {
    let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
    let now = rustix::fs::stat(tree).ok().map(identity);
    if now.is_some() && now == rustix::fs::fstat(top).ok().map(identity) {
        return Ok(());
    }
    Err(Error::system("the container was removed while it was read"))
}

fn export_all(roots: Vec<OwnedFd>, merged: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut walk = Walk::new(roots, merged)?;
    let mut packer = Packer::new(out);
    while let Some(seen) = walk.next()? {
        let Some(entry) = entry(walk.path(), &seen.node, &seen.stat)? else { continue };
        let is_dir = entry.kind == Kind::Directory;
        packer.put(entry, &seen.node, &seen.stat)?;
        if is_dir {
            walk.descend(&seen)?;
        }
    }
    packer.writer.finish()?;
    Ok(())
}

/// Writes a file, or a directory with all that lies in it, of a container that may change it meanwhile. `node` is open by
/// `O_PATH`; `name` is its name in the archive, before which the names of what lies in it begin. A directory named with
/// nothing is the container's root, whose entries have absolute names. A socket is left out.
pub fn pack(node: &OwnedFd, name: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let mut packer = Packer::new(out);
    let stat = rustix::fs::fstat(node)?;
    if let Some(top) = entry(name, node, &stat)? {
        let is_dir = top.kind == Kind::Directory;
        packer.put(top, node, &stat)?;
        if is_dir {
            below(node, name, &mut packer)?;
        }
    }
    packer.writer.finish()?;
    Ok(())
}

/// Writes a directory with all that lies in it, under the names that `tar -C DIR .` gives them: what [`crate::extract`] makes
/// of it again is equal, times to the nanosecond included. Sockets are left out.
pub fn pack_tree(dir: &OwnedFd, out: &mut dyn Write) -> io::Result<()> {
    let mut packer = Packer { is_exact: true, ..Packer::new(out) };
    let stat = rustix::fs::fstat(dir)?;
    if let Some(top) = entry(b".", dir, &stat)? {
        packer.put(top, dir, &stat)?;
        below(dir, b".", &mut packer)?;
    }
    packer.writer.finish()?;
    Ok(())
}

fn below(node: &OwnedFd, name: &[u8], packer: &mut Packer<&mut dyn Write>) -> io::Result<()> {
    let mut walk = Walk::new(vec![tree::open_dir(node, c".")?], false)?;
    while let Some(seen) = walk.next()? {
        let path = [name, b"/", walk.path()].concat();
        let Some(entry) = entry(&path, &seen.node, &seen.stat)? else { continue };
        let is_dir = entry.kind == Kind::Directory;
        packer.put(entry, &seen.node, &seen.stat)?;
        if is_dir {
            walk.descend(&seen)?;
        }
    }
    Ok(())
}

/// Writes a layer of what a container changed; returns the digest of what was written, and whether
/// anything changed.
pub(crate) fn diff(view: &View, tree: &Path, source: Source, out: &mut dyn Write) -> Result<(Digest, bool)> {
    diff_until(None, view, (tree, source), out)
}

/// The same, where no file is told to be newer than `latest`, in seconds since 1970.
pub(crate) fn diff_until(
    latest: Option<i64>,
    view: &View,
    (tree, source): (&Path, Source),
    out: &mut dyn Write,
) -> Result<(Digest, bool)> {
    let mut hashed = Hashed { inner: out, hash: Sha256::new() };
    let top = changes::open_tree(tree)?;
    let differ = Differ::new(view, tree, source)?;
    let any = layer(differ, latest, &mut hashed).with_context(|| format!("reading {}", tree.display()))?;
    still_there(tree, &top)?;
    Ok((Digest::from_sha256(&hashed.hash.finalize().into()), any))
}

struct Hashed<'w> {
    inner: &'w mut dyn Write,
    hash: Sha256,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes a layer of what the differ finds; tells whether there was anything.
fn layer(differ: Differ<'_>, latest: Option<i64>, out: &mut dyn Write) -> io::Result<bool> {
    let mut packer = Packer { latest, ..Packer::new(out) };
    let mut any = false;
    // Unchanged names of files with several links: a changed name among those brings the others along.
    let mut same: HashMap<Inode, Vec<Vec<u8>>> = HashMap::new();
    differ.run(&mut |change| {
        match change {
            Changed::Gone(path) => packer.whiteout(path)?,
            Changed::Directory(_, entry) => packer.head(entry)?,
            Changed::Same(path, stat) => match packer.links.get(&inode(stat)).cloned() {
                Some(first) => packer.link(path, first)?,
                None => {
                    if packer.room(path) {
                        same.entry(inode(stat)).or_default().push(path.to_vec());
                    }
                    return Ok(());
                }
            },
            Changed::Other(_, path, seen) => {
                let Some(entry) = entry(path, &seen.node, &seen.stat)? else { return Ok(()) };
                if is_whiteout_name(path) {
                    tracing::warn!(path = %String::from_utf8_lossy(path), "a layer cannot hold this name; left out");
                    return Ok(());
                }
                packer.put(entry, &seen.node, &seen.stat)?;
                for other in same.remove(&inode(&seen.stat)).unwrap_or_default() {
                    packer.link(&other, path.to_vec())?;
                }
            }
        }
        any = true;
        Ok(())
    })?;
    packer.writer.finish()?;
    Ok(any)
}

fn is_whiteout_name(path: &[u8]) -> bool {
    path.rsplit(|b| *b == b'/').next().is_some_and(|name| name.starts_with(WHITEOUT))
}

type Inode = (u64, u64);

fn inode(stat: &Stat) -> Inode {
    (stat.st_dev, stat.st_ino)
}

/// The head of the entry for a node; `None` for what an archive does not hold, or when it vanished.
pub(crate) fn entry(path: &[u8], node: &OwnedFd, stat: &Stat) -> io::Result<Option<Entry>> {
    let kind = match tree::file_type(stat) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Fifo => Kind::Fifo,
        _ => return Ok(None),
    };
    let device = matches!(kind, Kind::Char | Kind::Block);
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok(Some(Entry {
        kind,
        path: path.to_vec(),
        link: match kind {
            Kind::Symlink => rustix::fs::readlinkat(node, c"", Vec::new())?.into_bytes(),
            _ => Vec::new(),
        },
        size: if kind == Kind::File { stat.st_size.unsigned_abs() } else { 0 },
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanos: 0 },
        major: if device { major } else { 0 },
        minor: if device { minor } else { 0 },
        xattrs: match kind {
            Kind::Directory => portable(&tree::open_dir(node, c".")?)?,
            _ => BTreeMap::new(),
        },
        sparse: None,
    }))
}

/// The extended attributes that mean the same elsewhere.
fn portable(file: &OwnedFd) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let keep = |name: &[u8]| {
        name == b"security.capability"
            || name.starts_with(b"system.posix_acl_")
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
    };
    Ok(xattrs(file)?.into_iter().filter(|(name, _)| keep(name)).collect())
}

struct Packer<W> {
    writer: Writer<W>,
    /// The first name of files with several links.
    links: HashMap<Inode, Vec<u8>>,
    /// Bytes of names that may still be kept.
    left: usize,
    /// Times are written to the nanosecond.
    is_exact: bool,
    /// No file is told to be newer, in seconds since 1970.
    latest: Option<i64>,
    buffer: Vec<u8>,
}

impl<W: Write> Packer<W> {
    fn new(out: W) -> Packer<W> {
        let buffer = vec![0; CHUNK];
        Packer {
            writer: Writer::new(out),
            links: HashMap::new(),
            left: LINK_BYTES,
            is_exact: false,
            latest: None,
            buffer,
        }
    }

    /// Takes room for a name that is to be kept.
    fn room(&mut self, path: &[u8]) -> bool {
        match self.left.checked_sub(path.len() + size_of::<(Inode, Vec<u8>)>()) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }

    /// Writes the head of an entry, no newer than it may be.
    fn head(&mut self, entry: &Entry) -> io::Result<()> {
        match self.latest {
            Some(latest) if (entry.mtime.seconds, entry.mtime.nanos) > (latest, 0) => {
                self.writer.entry(&Entry { mtime: Time { seconds: latest, nanos: 0 }, ..entry.clone() })
            }
            _ => self.writer.entry(entry),
        }
    }

    /// Writes an entry with its data, or as a link to an earlier one.
    fn put(&mut self, mut entry: Entry, node: &OwnedFd, stat: &Stat) -> io::Result<()> {
        if self.is_exact {
            entry.mtime.nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
        }
        let linked = entry.kind != Kind::Directory && stat.st_nlink > 1;
        if linked && let Some(first) = self.links.get(&inode(stat)).cloned() {
            return self.link_like(entry, first);
        }
        let file = match entry.kind {
            Kind::File => match open(node)? {
                Some(file) => Some(file),
                None => return Ok(()),
            },
            _ => None,
        };
        if linked && self.room(&entry.path) {
            self.links.insert(inode(stat), entry.path.clone());
        }
        let Some(file) = file else { return self.head(&entry) };
        entry.xattrs = portable(&file)?;
        entry.size = rustix::fs::fstat(&file)?.st_size.unsigned_abs();
        let mut file = File::from(file);
        entry.sparse = sparse::pieces(&file, entry.size)?;
        self.head(&entry)?;
        let Some(pieces) = entry.sparse else {
            self.copy(&mut file, entry.size)?;
            return self.writer.pad(entry.size);
        };
        for (offset, length) in &pieces {
            file.seek(SeekFrom::Start(*offset))?;
            self.copy(&mut file, *length)?;
        }
        self.writer.pad(pieces.iter().map(|(_, length)| length).sum())
    }

    /// Exactly `size` bytes, whatever the file has become.
    fn copy(&mut self, file: &mut File, size: u64) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            let wanted = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = match file.read(&mut self.buffer[..wanted]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            // It was cut off while it was read; its head has been told.
            let n = if n == 0 {
                self.buffer[..wanted].fill(0);
                wanted
            } else {
                n
            };
            self.writer.data(&self.buffer[..n])?;
            left -= n as u64;
        }
        Ok(())
    }

    fn link_like(&mut self, entry: Entry, first: Vec<u8>) -> io::Result<()> {
        self.head(&Entry { kind: Kind::HardLink, link: first, size: 0, xattrs: BTreeMap::new(), ..entry })
    }

    fn link(&mut self, path: &[u8], first: Vec<u8>) -> io::Result<()> {
        self.link_like(bare(path.to_vec()), first)
    }

    /// The mark of a deleted name.
    fn whiteout(&mut self, path: &[u8]) -> io::Result<()> {
        let at = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
        self.writer.entry(&bare([&path[..at], WHITEOUT, &path[at..]].concat()))
    }
}

/// An empty file of root at the epoch.
fn bare(path: Vec<u8>) -> Entry {
    Entry {
        kind: Kind::File,
        path,
        link: Vec::new(),
        size: 0,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        major: 0,
        minor: 0,
        xattrs: BTreeMap::new(),
        sparse: None,
    }
}

/// Opens a regular file's node for reading; `None` when it is gone.
fn open(node: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::open(proc_path(node), flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// What a change is called in `docker diff`; unchanged names are not told.
pub(crate) fn kind(change: &Changed<'_>) -> Option<ChangeKind> {
    match change {
        Changed::Gone(_) => Some(ChangeKind::Deleted),
        Changed::Directory(kind, _) | Changed::Other(kind, ..) => Some(*kind),
        Changed::Same(..) => None,
    }
}
