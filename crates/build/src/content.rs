//! The content of files, as keys of steps count it: types, modes, owners, sizes, targets of links, device numbers, extended
//! attributes and data, with the names below a directory; neither times nor the name of the top element.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use model::digest::{Algorithm, Digest, Hasher};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use sys::rooted::Rooted;
use sys::tree;

use crate::key::Key;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// Directories within directories.
pub const DEPTH: usize = 1024;
/// Bytes of one extended attribute, and of all their names.
const XATTR: usize = 64 << 10;

/// Whether a path below the top counts, by its path relative to the top.
pub type Wanted<'w> = dyn Fn(&str) -> bool + 'w;

/// The digest of what `node` (open by `O_PATH`) is, with all that lies in it.
pub fn digest(node: &OwnedFd, wanted: &Wanted<'_>) -> io::Result<Digest> {
    let stat = rustix::fs::fstat(node)?;
    let mut key = Key::new("content");
    describe(&mut key, node, &stat)?;
    if !tree::file_type(&stat).is_dir() {
        return Ok(key.finish());
    }
    let top = open_directory(node)?;
    let mut open = vec![Level { names: reversed(&top)?, dir: top, path: String::new() }];
    while let Some(level) = open.last_mut() {
        let Some(name) = level.names.pop() else {
            open.pop();
            continue;
        };
        let path = join(&level.path, &name);
        let child = open_at(&level.dir, &name)?;
        let stat = rustix::fs::fstat(&child)?;
        let is_dir = tree::file_type(&stat).is_dir();
        if wanted(&path) {
            key.part(path.as_bytes());
            describe(&mut key, &child, &stat)?;
        }
        if is_dir {
            if open.len() == DEPTH {
                return Err(too_deep());
            }
            let dir = open_directory(&child)?;
            open.push(Level { names: reversed(&dir)?, dir, path });
        }
    }
    Ok(key.finish())
}

struct Level {
    dir: OwnedFd,
    names: Vec<CString>,
    path: String,
}

/// The refusal of directories that lie deeper in each other than [`DEPTH`].
pub fn too_deep() -> io::Error {
    io::Error::other(format!("directories lie more than {DEPTH} deep in each other"))
}

/// A path with one more component.
pub fn join(path: &str, name: &CString) -> String {
    let name = name.to_string_lossy();
    if path.is_empty() { name.into_owned() } else { format!("{path}/{name}") }
}

fn reversed(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = tree::names(dir)?;
    names.reverse();
    Ok(names)
}

/// The child of this name, open by `O_PATH`, a link itself.
pub fn open_at(dir: &OwnedFd, name: &CString) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// A directory that is open by `O_PATH`, for reading.
pub fn open_directory(node: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(node, c".", flags, Mode::empty())?)
}

/// A regular file that is open by `O_PATH`, for reading.
pub fn open_file(node: &OwnedFd) -> io::Result<File> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", node.as_raw_fd()));
    File::open(path)
}

fn describe(key: &mut Key, node: &OwnedFd, stat: &Stat) -> io::Result<()> {
    for number in [stat.st_mode, stat.st_uid, stat.st_gid] {
        key.part(&number.to_le_bytes());
    }
    match tree::file_type(stat) {
        FileType::RegularFile => {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            let mut file = open_file(node)?;
            let mut buffer = vec![0; CHUNK.min(usize::try_from(stat.st_size).unwrap_or(CHUNK).max(1))];
            loop {
                let n = file.read(&mut buffer)?;
                if n == 0 {
                    break;
                }
                hasher.update(&buffer[..n]);
            }
            key.part(hasher.finish().as_str().as_bytes());
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(node, c"", Vec::new())?;
            key.part(target.as_bytes());
            return Ok(());
        }
        FileType::CharacterDevice | FileType::BlockDevice => _ = key.part(&stat.st_rdev.to_le_bytes()),
        _ => {}
    }
    for (name, value) in xattrs(node)? {
        key.part(&name).part(&value);
    }
    Ok(())
}

/// Extended attributes of what is open by `O_PATH` and no link, those of the file system's own apart.
pub fn xattrs(node: &OwnedFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let place = format!("/proc/self/fd/{}", node.as_raw_fd());
    let mut names = vec![0; XATTR];
    let length = match rustix::fs::listxattr(place.as_str(), &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"system.") || name == b"security.selinux" {
            continue;
        }
        let mut value = vec![0; XATTR];
        match rustix::fs::getxattr(place.as_str(), name, &mut value) {
            Ok(length) => found.push((name.to_vec(), value[..length].to_vec())),
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    found.sort();
    Ok(found)
}

/// Paths below `root` that a pattern with wildcards matches, sorted as they lie in the directories. Links are not followed on the
/// way.
pub fn expand(root: &Rooted, pattern: &str) -> io::Result<Vec<String>> {
    let parts = crate::pattern::components(pattern);
    let fixed = parts.iter().take_while(|part| !crate::pattern::is_pattern(part)).count().min(parts.len());
    let base = parts[..fixed].join("/");
    let top = match root.open(format!("/{base}"), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
        Ok(top) => top,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let depth = if parts.contains(&"**") { DEPTH } else { parts.len() - fixed };
    let mut found = Vec::new();
    let mut open = vec![Level { names: reversed(&top)?, dir: top, path: String::new() }];
    while let Some(level) = open.last_mut() {
        let Some(name) = level.names.pop() else {
            open.pop();
            continue;
        };
        let path = join(&level.path, &name);
        let below: Vec<&str> = path.split('/').collect();
        let child = open_at(&level.dir, &name)?;
        if crate::pattern::path(&parts[fixed..], &below) {
            found.push(if base.is_empty() { path.clone() } else { format!("{base}/{path}") });
        }
        if open.len() < depth && tree::file_type(&rustix::fs::fstat(&child)?).is_dir() {
            let dir = open_directory(&child)?;
            open.push(Level { names: reversed(&dir)?, dir, path });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn node(root: &std::path::Path, path: &str) -> OwnedFd {
        Rooted::open_dir(root).unwrap().open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap()
    }

    #[test]
    fn content_counts_and_times_and_the_own_name_do_not() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::create_dir_all(dir.path().join(name).join("sub")).unwrap();
            std::fs::write(dir.path().join(name).join("sub/file"), "1").unwrap();
            symlink("file", dir.path().join(name).join("sub/link")).unwrap();
        }
        let of = |path: &str| digest(&node(dir.path(), path), &|_| true).unwrap();
        assert_eq!(of("a"), of("b"));
        let file = dir.path().join("b/sub/file");
        File::options().write(true).open(&file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(of("a"), of("b"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_ne!(of("a"), of("b"));
        let rest = |path: &str| digest(&node(dir.path(), path), &|path| path != "sub/file").unwrap();
        assert_eq!(rest("a"), rest("b"));
        std::fs::rename(dir.path().join("a/sub"), dir.path().join("a/other")).unwrap();
        assert_ne!(rest("a"), rest("b"));
    }

    #[test]
    fn wildcards_are_expanded() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/x.txt", "a/y.txt", "a/z", "b/x.txt", "b/c/x.txt"] {
            std::fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(path), "").unwrap();
        }
        let root = Rooted::open_dir(dir.path()).unwrap();
        let found = |pattern: &str| expand(&root, pattern).unwrap();
        assert_eq!(found("/a/*.txt"), ["a/x.txt", "a/y.txt"]);
        assert_eq!(found("*/x.txt"), ["a/x.txt", "b/x.txt"]);
        assert_eq!(found("**/x.txt"), ["a/x.txt", "b/c/x.txt", "b/x.txt"]);
        assert!(found("none*").is_empty() && found("none/*").is_empty());
    }
}
