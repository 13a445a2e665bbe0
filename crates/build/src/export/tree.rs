//! The files of a result for a client: each platform's in a directory of its own where there are several, with what is said of it as
//! files beside them.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use bollard_buildkit_proto::fsutil::types::Stat;
use events::now;
use model::digest::{Algorithm, Hasher};
use model::time::Timestamp;
use model::{Context as _, Error, Result};
use rustix::fs::FileType;
use snapshot::archive::{Entry, Kind, Time, Writer};
use sys::tree;

use super::options::FileTree;
use super::source::{Source, Target};
use super::stat;
use crate::attest::statement::{self, Named};
use crate::content;
use crate::record::keys;
use crate::root::{Roots, Tree};

/// Bytes copied at once.
const CHUNK: usize = 128 << 10;
/// Names of files with several links that are remembered; others are files of their own.
const LINKS: usize = 1 << 20;
/// Go's `os.FileMode` of a directory of a platform, and of a file with an attestation.
const DIRECTORY: u32 = (1 << 31) | 0o755;
const ATTESTATION: u32 = 0o600;
/// Go's bits of set-user-id, set-group-id and sticky.
const SPECIAL: u32 = 0b1101 << 20;
/// Files of several targets in one directory.
const MERGED: usize = 1_000_000;
/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;

/// Files that are sent to a client.
pub struct Files {
    parts: Vec<Part>,
    /// What else lies in the client's directory goes.
    pub delete: bool,
}

/// The files of one target.
struct Part {
    /// The directory they are in; empty: none.
    directory: String,
    tree: Tree,
    /// The time of all files, in nanoseconds since 1970.
    time: Option<i64>,
    /// Files beside those of the tree, by name.
    said: Vec<(Stat, Vec<u8>)>,
}

impl Files {
    /// Mounts the trees of a result. Blocks.
    ///
    /// Errors: `InvalidParameter` when two platforms have the same file and share a directory.
    pub(super) fn open(roots: &Roots, wanted: &FileTree, source: &Source) -> Result<Files> {
        let split = wanted.platform_split.unwrap_or(source.multiple);
        let made = now().unix_seconds();
        let mut parts = Vec::new();
        for target in &source.targets {
            let epoch = wanted.epoch.unwrap_or(target.epoch);
            let tree = Tree::open(roots, &keys(&target.chain))?;
            let directory = if split { target.id.replace('/', "_") } else { String::new() };
            let mut part =
                Part { directory, tree, time: epoch.map(|epoch| epoch.saturating_mul(SECOND)), said: Vec::new() };
            let suffix = if source.multiple && !split { target.id.replace('/', "_") } else { String::new() };
            let naming = Naming { prefix: &wanted.attestation_prefix, suffix: &suffix, seconds: epoch.unwrap_or(made) };
            part.said = said(roots, target, &part, &naming)?;
            parts.push(part);
        }
        let files = Files { parts, delete: wanted.delete };
        if !split && source.targets.len() > 1 {
            files.refuse_twice(&source.targets)?;
        }
        Ok(files)
    }

    fn refuse_twice(&self, targets: &[Target]) -> Result<()> {
        let mut seen: HashMap<String, &str> = HashMap::new();
        for (part, target) in self.parts.iter().zip(targets) {
            let mut twice = None;
            part.walk(&mut |stat, _| {
                if stat.mode & DIRECTORY & !0o777 == 0 {
                    match seen.insert(stat.path.clone(), &target.id) {
                        Some(before) if twice.is_none() => twice = Some((stat.path, before)),
                        _ => {}
                    }
                }
                Ok(())
            })?;
            if let Some((path, before)) = twice {
                return Err(Error::invalid(format!(
                    "cannot overwrite {path} from {before} with {} when split option is disabled",
                    target.id
                )));
            }
        }
        Ok(())
    }

    /// Tells every file in the order in which clients expect them: directories before what is in them, names in order. Blocks.
    pub fn walk(&self, each: &mut dyn FnMut(Stat) -> io::Result<()>) -> io::Result<()> {
        self.visit(&mut |stat, _| each(stat))
    }

    /// Opens a regular file that [`Files::walk`] told of. Blocks.
    ///
    /// Errors: `NotFound` for one that is none.
    pub fn open_file(&self, path: &str) -> io::Result<Box<dyn Read + Send>> {
        for part in &self.parts {
            let inner = match part.directory.as_str() {
                "" => Some(path),
                directory => path.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/')),
            };
            let Some(inner) = inner else { continue };
            if let Some((_, bytes)) = part.said.iter().find(|(stat, _)| stat.path == inner) {
                return Ok(Box::new(io::Cursor::new(bytes.clone())));
            }
            let Ok(node) = part.tree.root().locate_beneath(inner) else { continue };
            if tree::file_type(&rustix::fs::fstat(&node)?).is_file() {
                return Ok(Box::new(content::open_file(&node)?));
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("{path}: no such file")))
    }

    /// Every file with its full path.
    fn visit(&self, each: &mut Visit<'_>) -> io::Result<()> {
        if self.parts.iter().filter(|part| part.directory.is_empty()).count() > 1 {
            return self.visit_merged(each);
        }
        let mut order: Vec<&Part> = self.parts.iter().collect();
        order.sort_by(|a, b| a.directory.cmp(&b.directory));
        for part in order {
            if part.directory.is_empty() {
                part.walk(each)?;
                continue;
            }
            let mod_time = part.time.unwrap_or_default();
            each(Stat { path: part.directory.clone(), mode: DIRECTORY, mod_time, ..Stat::default() }, Data::None)?;
            let below = |path: &str| format!("{}/{path}", part.directory);
            part.walk(&mut |stat, data| {
                let is_link = stat.mode & (1 << 27) == 0 && !stat.linkname.is_empty();
                let linkname = if is_link { below(&stat.linkname) } else { stat.linkname.clone() };
                each(Stat { path: below(&stat.path), linkname, ..stat }, data)
            })?;
        }
        Ok(())
    }

    /// The files of targets that share a directory, in one order; of a directory that several have the first counts.
    fn visit_merged(&self, each: &mut Visit<'_>) -> io::Result<()> {
        let mut all: BTreeMap<Vec<String>, (Stat, &Part)> = BTreeMap::new();
        for part in &self.parts {
            part.walk(&mut |stat, _| {
                if all.len() >= MERGED {
                    return Err(io::Error::other(format!(
                        "more than {MERGED} files of several platforms in one directory"
                    )));
                }
                let parts = stat.path.split('/').map(str::to_owned).collect();
                all.entry(parts).or_insert((stat, part));
                Ok(())
            })?;
        }
        for (stat, part) in all.into_values() {
            let said = part.said.iter().find(|(said, _)| said.path == stat.path);
            let is_file = stat.mode & !(0o777 | SPECIAL) == 0 && stat.linkname.is_empty();
            match said {
                Some((_, bytes)) => each(stat, Data::Bytes(bytes))?,
                None if is_file => {
                    let node = part.tree.root().locate_beneath(&stat.path)?;
                    each(stat, Data::Node(&node))?;
                }
                None => each(stat, Data::None)?,
            }
        }
        Ok(())
    }

    /// Writes all of it as a tar.
    pub(super) fn archive(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut tar = Writer::new(out);
        self.visit(&mut |stat, data| write(&mut tar, stat, data))?;
        tar.finish().map(drop)
    }
}

/// The data of a file that is visited.
enum Data<'d> {
    /// It has none.
    None,
    /// Open by `O_PATH`.
    Node(&'d OwnedFd),
    /// As it is.
    Bytes(&'d [u8]),
}

type Visit<'v> = dyn FnMut(Stat, Data<'_>) -> io::Result<()> + 'v;

struct Level {
    dir: OwnedFd,
    names: Vec<std::ffi::CString>,
    path: String,
}

impl Part {
    /// Every file, those that are said among those of the tree by their names.
    fn walk(&self, each: &mut Visit<'_>) -> io::Result<()> {
        let mut links: HashMap<(u64, u64), String> = HashMap::new();
        let mut said = self.said.iter().peekable();
        let top = rustix::io::fcntl_dupfd_cloexec(self.tree.root().as_fd(), 0)?;
        let mut open = vec![level(&top, String::new())?];
        while let Some(depth) = open.len().checked_sub(1) {
            let at = &mut open[depth];
            let next = at.names.pop();
            if depth == 0 {
                let name = next.as_ref().map(|name| name.to_string_lossy().into_owned());
                while let Some((stat, bytes)) =
                    said.next_if(|(stat, _)| name.as_ref().is_none_or(|name| stat.path < *name))
                {
                    each(stat.clone(), Data::Bytes(bytes))?;
                }
                // What is said is told once, whatever the tree has under its name.
                if let Some((stat, bytes)) = said.next_if(|(stat, _)| Some(&stat.path) == name.as_ref()) {
                    each(stat.clone(), Data::Bytes(bytes))?;
                    continue;
                }
            }
            let Some(name) = next else {
                open.pop();
                continue;
            };
            let path = content::join(&at.path, &name);
            let node = content::open_at(&at.dir, &name)?;
            if self.tell(path.clone(), &node, &mut links, each)? {
                if open.len() == content::DEPTH {
                    return Err(content::too_deep());
                }
                open.push(level(&node, path)?);
            }
        }
        Ok(())
    }

    /// Tells one file; whether it is a directory.
    fn tell(
        &self,
        path: String,
        node: &OwnedFd,
        links: &mut HashMap<(u64, u64), String>,
        each: &mut Visit<'_>,
    ) -> io::Result<bool> {
        let own = rustix::fs::fstat(node)?;
        let kind = tree::file_type(&own);
        if kind == FileType::Socket {
            return Ok(false);
        }
        let mut stat = stat::describe(path.clone(), node, &own)?;
        if let Some(time) = self.time {
            stat.mod_time = time;
        }
        if kind.is_file() && own.st_nlink > 1 {
            let inode = (own.st_dev, own.st_ino);
            if let Some(first) = links.get(&inode) {
                stat.linkname.clone_from(first);
                each(stat, Data::None)?;
                return Ok(false);
            }
            if links.len() < LINKS {
                links.insert(inode, path);
            }
        }
        each(stat, if kind.is_file() { Data::Node(node) } else { Data::None })?;
        Ok(kind.is_dir())
    }
}

fn level(node: &OwnedFd, path: String) -> io::Result<Level> {
    let dir = content::open_directory(node)?;
    let mut names = tree::names(&dir)?;
    names.reverse();
    Ok(Level { dir, names, path })
}

/// How files with attestations are called, and their time in seconds since 1970.
struct Naming<'n> {
    prefix: &'n str,
    suffix: &'n str,
    seconds: i64,
}

/// What is said of a target, as files in the order of their names. Blocks.
fn said(roots: &Roots, target: &Target, part: &Part, naming: &Naming<'_>) -> Result<Vec<(Stat, Vec<u8>)>> {
    let attestations: Vec<_> = target.attestations.iter().filter(|one| !one.inline_only).collect();
    if attestations.is_empty() {
        return Ok(Vec::new());
    }
    let itself = subjects(part).context("reading the result")?;
    let mut files: Vec<(Stat, Vec<u8>)> = Vec::new();
    for statement in statement::statements(roots, &attestations, &itself)? {
        let bytes = serde_json::to_vec_pretty(&statement)
            .map_err(|error| Error::system(format!("encoding an attestation: {error}")))?;
        let base = statement.path.rsplit('/').next().unwrap_or_default();
        let path = named(&format!("{}{base}", naming.prefix), naming.suffix);
        if path.contains('/') || matches!(path.as_str(), "" | "." | "..") {
            return Err(Error::invalid(format!("invalid name of an attestation: {path:?}")));
        }
        if files.iter().any(|(known, _)| known.path == path) {
            return Err(Error::invalid(format!("duplicate attestation path name {path}")));
        }
        let size = bytes.len() as i64;
        let mod_time = Timestamp::from_unix_seconds(naming.seconds).unix_nanos();
        files.push((Stat { path, mode: ATTESTATION, size, mod_time, ..Stat::default() }, bytes));
    }
    files.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    Ok(files)
}

/// A name with a platform before its extension.
fn named(name: &str, platform: &str) -> String {
    match (platform, name.rfind('.')) {
        ("", _) => name.to_owned(),
        (_, Some(at)) => format!("{}.{platform}{}", &name[..at], &name[at..]),
        (_, None) => format!("{name}.{platform}"),
    }
}

/// Every regular file with its digest.
fn subjects(part: &Part) -> io::Result<Vec<Named>> {
    let mut found = Vec::new();
    part.walk(&mut |stat, data| {
        if let Data::Node(node) = data {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            let mut file = content::open_file(node)?;
            let mut buffer = vec![0; CHUNK];
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    n => hasher.update(&buffer[..n]),
                }
            }
            found.push(Named::new(&stat.path, &hasher.finish()));
        }
        Ok(())
    })?;
    Ok(found)
}

/// Writes a file to an archive.
fn write(tar: &mut Writer<&mut dyn Write>, stat: Stat, data: Data<'_>) -> io::Result<()> {
    let is_symlink = stat.mode & (1 << 27) != 0;
    let kind = match stat.mode {
        mode if mode & (1 << 31) != 0 => Kind::Directory,
        _ if is_symlink => Kind::Symlink,
        mode if mode & (1 << 21) != 0 => Kind::Char,
        mode if mode & (1 << 26) != 0 => Kind::Block,
        mode if mode & (1 << 25) != 0 => Kind::Fifo,
        _ if !stat.linkname.is_empty() => Kind::HardLink,
        _ => Kind::File,
    };
    let bits = [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];
    let special = bits.into_iter().filter(|(own, _)| stat.mode & own != 0).map(|(_, bit)| bit);
    let size = if kind == Kind::File { stat.size.unsigned_abs() } else { 0 };
    tar.entry(&Entry {
        kind,
        path: stat.path.into_bytes(),
        link: stat.linkname.into_bytes(),
        size,
        mode: special.fold(stat.mode & 0o777, |mode, bit| mode | bit),
        uid: stat.uid,
        gid: stat.gid,
        mtime: Time { seconds: stat.mod_time.div_euclid(SECOND), nanos: 0 },
        major: u32::try_from(stat.devmajor).unwrap_or_default(),
        minor: u32::try_from(stat.devminor).unwrap_or_default(),
        xattrs: match kind {
            Kind::HardLink => Default::default(),
            _ => stat.xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect(),
        },
        sparse: None,
    })?;
    match data {
        Data::None => return Ok(()),
        Data::Bytes(bytes) => tar.data(bytes)?,
        Data::Node(node) => {
            let mut file = content::open_file(node)?.take(size);
            let mut buffer = vec![0; CHUNK];
            let mut left = size;
            while left > 0 {
                match file.read(&mut buffer)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => {
                        tar.data(&buffer[..n])?;
                        left -= n as u64;
                    }
                }
            }
        }
    }
    tar.pad(size)
}
