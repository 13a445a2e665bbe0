//! The content of files, as BuildKit counts it for its keys (package `cache/contenthash`): headers as in the sums of archives that old
//! versions of Docker made, with data; directories by their own headers and what is in them, in order.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use model::digest::{Algorithm, Digest, Hasher};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use sys::rooted::Rooted;
use sys::tree;

use crate::content::{DEPTH, open_at, open_directory, open_file, too_deep, xattrs};
use crate::copy::How;
use crate::op::file::matcher;
use crate::pattern::component;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// Some files of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cache) struct Selector {
    /// Relative to the root, whether or not it begins with a slash.
    pub(super) path: String,
    /// A link at its end is followed.
    pub(super) follow: bool,
    /// The path is a pattern.
    pub(super) wild: bool,
    /// Of what is taken, and of what is not.
    pub(super) patterns: (Vec<String>, Vec<String>),
}

impl Selector {
    pub(super) fn is_filtered(&self) -> bool {
        self.wild || !self.patterns.0.is_empty() || !self.patterns.1.is_empty()
    }
}

/// The digests of files of a tree, one for each way in which BuildKit has written them; no selector is all files. `bare`: the root has
/// no header, as directories of clients have none.
///
/// Errors: `NotFound` for a path that is not there.
pub(in crate::cache) fn digests(root: &Rooted, selectors: &[Selector], bare: bool) -> io::Result<Vec<Digest>> {
    let whole = [Selector::default()];
    let selectors = if selectors.is_empty() { &whole } else { selectors };
    let mut found = [Vec::new(), Vec::new()];
    for selector in selectors {
        let files = Files { root, bare };
        let both = if selector.is_filtered() {
            files.filtered(selector)?
        } else {
            let one = files.one(&selector.path, selector.follow)?;
            [one.clone(), one]
        };
        found.iter_mut().zip(both).for_each(|(all, one)| all.push(one.to_string()));
    }
    let mut digests: Vec<Digest> =
        found.iter().map(|all| Digest::of(Algorithm::Sha256, all.join("\0").as_bytes())).collect();
    digests.dedup();
    Ok(digests)
}

/// An absolute path without what is in the way; empty: the root.
fn clean(path: &str) -> String {
    let path = model::mount::clean(&format!("/{path}"));
    if path == "/" { String::new() } else { path }
}

/// A path as keys have it.
fn key(path: &str) -> Vec<u8> {
    path.bytes().map(|byte| if byte == b'/' { 0 } else { byte }).collect()
}

/// Whether a path has a wildcard; one behind a backslash is none.
pub(super) fn is_wild(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => _ = chars.next(),
            _ => {}
        }
    }
    false
}

/// A tree of files.
struct Files<'f> {
    root: &'f Rooted,
    bare: bool,
}

/// A path that is taken.
struct Taken {
    path: String,
    digest: Digest,
}

/// What is known of the directories that lead to a path.
struct Parents {
    /// Paths and headers of those that are not taken yet, outermost first.
    headers: Vec<(String, Digest, bool)>,
    taken: Vec<Taken>,
    /// The path that the pattern has matched, below which everything counts.
    matched: Option<String>,
}

impl Files<'_> {
    fn open(&self, path: &str, follow: bool) -> io::Result<OwnedFd> {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        let path = if path.is_empty() { "/" } else { path };
        self.root.open(path, flags, Mode::empty())
    }

    /// What a path is, with all that is in it.
    fn one(&self, path: &str, follow: bool) -> io::Result<Digest> {
        let path = clean(path);
        let node = self.open(&path, follow)?;
        self.whole(&node, path.is_empty(), 0)
    }

    fn whole(&self, node: &OwnedFd, is_root: bool, depth: usize) -> io::Result<Digest> {
        let stat = rustix::fs::fstat(node)?;
        let own = self.header(node, &stat, is_root)?;
        if !tree::file_type(&stat).is_dir() {
            return Ok(own);
        }
        if depth == DEPTH {
            return Err(too_deep());
        }
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"\0");
        hasher.update(own.as_str().as_bytes());
        let dir = open_directory(node)?;
        for name in sorted(&dir)? {
            let digest = self.whole(&open_at(&dir, &name)?, false, depth + 1)?;
            hasher.update(b"\0");
            hasher.update(name.as_bytes());
            hasher.update(digest.as_str().as_bytes());
        }
        Ok(hasher.finish())
    }

    fn header(&self, node: &OwnedFd, stat: &Stat, is_root: bool) -> io::Result<Digest> {
        if is_root && self.bare { Ok(Digest::of(Algorithm::Sha256, b"")) } else { header(node, stat) }
    }

    /// What patterns take: with paths, and with names only, as versions before 0.26 have written it.
    fn filtered(&self, selector: &Selector) -> io::Result<[Digest; 2]> {
        let path = clean(&selector.path);
        // The part before the first wildcard may lead over links.
        let prefix = match selector.wild {
            true => path.split('/').take_while(|part| !is_wild(part)).collect::<Vec<_>>().join("/"),
            false => path.clone(),
        };
        let (include, exclude) = &selector.patterns;
        let list = |patterns: &[String]| matcher(patterns).map_err(io::Error::other);
        let filter = How { include: list(include)?, exclude: list(exclude)?, ..How::default() };
        let walk = Walk { files: self, selector, path: &path, filter };
        let mut parents = Parents { headers: Vec::new(), taken: Vec::new(), matched: None };
        match self.open(&prefix, selector.wild || selector.follow) {
            Ok(node) => walk.visit(&node, &prefix, &mut parents, 0)?,
            Err(error) if selector.wild && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let same = |digest: Digest| [digest.clone(), digest];
        match parents.taken.as_slice() {
            [] => Ok(same(Digest::of(Algorithm::Sha256, b""))),
            [only] if name(&only.path) == name(&path) => Ok(same(only.digest.clone())),
            all => {
                let (mut new, mut old) = (Hasher::new(Algorithm::Sha256), Hasher::new(Algorithm::Sha256));
                for (at, taken) in all.iter().enumerate() {
                    let own = key(taken.path.strip_prefix(&prefix).unwrap_or(&taken.path));
                    new.update(if own.is_empty() { b"\0" } else { &own });
                    old.update(if at == 0 { b"" } else { b"\0" });
                    old.update(name(&taken.path).as_bytes());
                    new.update(taken.digest.as_str().as_bytes());
                    old.update(taken.digest.as_str().as_bytes());
                }
                Ok([new.finish(), old.finish()])
            }
        }
    }
}

/// A walk over what patterns may take.
struct Walk<'w> {
    files: &'w Files<'w>,
    selector: &'w Selector,
    path: &'w str,
    filter: How,
}

impl Walk<'_> {
    fn visit(&self, node: &OwnedFd, path: &str, parents: &mut Parents, depth: usize) -> io::Result<()> {
        if depth == DEPTH {
            return Err(too_deep());
        }
        let stat = rustix::fs::fstat(node)?;
        let is_dir = tree::file_type(&stat).is_dir();
        let reach = parents.headers.len();
        if let Some(relative) = self.relative(path, parents)
            && !(is_dir && path.is_empty())
        {
            let is_top = parents.headers.is_empty();
            let digest = match tree::file_type(&stat) {
                FileType::Symlink if is_top && self.selector.follow => self.files.one(path, true)?,
                _ => self.files.header(node, &stat, path.is_empty())?,
            };
            let takes = self.filter.takes(&relative);
            if takes {
                for (path, digest, is_taken) in &mut parents.headers {
                    if !std::mem::replace(is_taken, true) {
                        parents.taken.push(Taken { path: path.clone(), digest: digest.clone() });
                    }
                }
                parents.taken.push(Taken { path: path.to_owned(), digest: digest.clone() });
            }
            if is_dir {
                parents.headers.push((path.to_owned(), digest, takes));
            }
        }
        if is_dir {
            let dir = open_directory(node)?;
            for name in sorted(&dir)? {
                let below = format!("{path}/{}", name.to_string_lossy());
                self.visit(&open_at(&dir, &name)?, &below, parents, depth + 1)?;
            }
        }
        parents.headers.truncate(reach);
        Ok(())
    }

    /// The path as patterns see it; `None`: it lies outside.
    fn relative(&self, path: &str, parents: &mut Parents) -> Option<String> {
        let top = match self.selector.wild {
            true => {
                let is_below = |top: &String| path.starts_with(&format!("{top}/"));
                if !parents.matched.as_ref().is_some_and(is_below) {
                    let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
                    let (pattern, name) = (parts(self.path), parts(path));
                    if pattern.len() != name.len() || !pattern.iter().zip(&name).all(|(p, n)| component(p, n)) {
                        return None;
                    }
                    parents.matched = Some(path.to_owned());
                }
                parents.matched.clone()?
            }
            false => self.path.to_owned(),
        };
        let whole = format!("{path}/");
        Some(whole.strip_prefix(&format!("{top}/")).unwrap_or(&whole).trim_end_matches('/').to_owned())
    }
}

fn sorted(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = tree::names(dir)?;
    names.sort();
    Ok(names)
}

/// The header of a file or directory, with the data of a regular file.
fn header(node: &OwnedFd, stat: &Stat) -> io::Result<Digest> {
    let kind = tree::file_type(stat);
    let (flag, size) = match kind {
        FileType::Directory => ('5', 0),
        FileType::Symlink => ('2', 0),
        FileType::CharacterDevice => ('3', 0),
        FileType::BlockDevice => ('4', 0),
        FileType::Fifo => ('6', 0),
        _ => ('0', stat.st_size),
    };
    let is_link = kind == FileType::Symlink;
    let mode = if is_link { 0o777 } else { stat.st_mode & 0o7777 };
    let target = if is_link { rustix::fs::readlinkat(node, c"", Vec::new())? } else { CString::default() };
    let (major, minor) = match kind {
        FileType::CharacterDevice | FileType::BlockDevice => {
            (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
        }
        _ => (0, 0),
    };
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(
        format!("namemode{mode}uid{}gid{}size{size}typeflag{flag}linkname", stat.st_uid, stat.st_gid).as_bytes(),
    );
    hasher.update(target.as_bytes());
    hasher.update(format!("unamegnamedevmajor{major}devminor{minor}").as_bytes());
    if !is_link {
        for (name, value) in xattrs(node)? {
            if name == b"security.capability" || !name.starts_with(b"security.") {
                hasher.update(&name);
                hasher.update(&value);
            }
        }
    }
    if kind.is_file() {
        let mut file = open_file(node)?;
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
        }
    }
    Ok(hasher.finish())
}
