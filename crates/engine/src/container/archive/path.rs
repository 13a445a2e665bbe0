//! Paths of `docker cp`, as the reference reads them: Go's `filepath` and `os.FileMode`.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use model::Error;
use model::time::Timestamp;
use rustix::fs::{FileType, Mode, OFlags};
use sys::rooted::Rooted;

/// Links followed on the way to a path before it counts as a circle (Go's `filepath.EvalSymlinks`).
const LINKS: usize = 255;

/// The path from the root without `.`, `..` and doubled slashes, and with the end that says how it is to be read: `/` or `/.`.
pub(super) fn absolute(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    if last_element(path) == "." {
        clean.push_str(if clean.ends_with('/') { "." } else { "/." });
    }
    if path.ends_with('/') && !clean.ends_with('/') {
        clean.push('/');
    }
    clean
}

/// The last element of a path, as Go's `filepath.Base`: `.` for none, `/` for the root.
pub(super) fn last_element(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

/// What stands at a path: open by `O_PATH`, and as the client is told. A link at the end is not followed, unless the path
/// ends as that of a directory.
pub(super) fn stat(root: &Rooted, path: &str) -> io::Result<(OwnedFd, api::PathStat)> {
    let node = root.open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    let stat = rustix::fs::fstat(&node)?;
    let link_target = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let endless = |error: io::Error| match error.raw_os_error() {
                None => io::Error::other(format!("evalSymlinksInScope: too many links in {path}")),
                Some(_) => error,
            };
            resolve(root, path).map_err(endless)?.display().to_string()
        }
        _ => String::new(),
    };
    let mtime = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    let told = api::PathStat {
        name: last_element(path).to_owned(),
        size: stat.st_size,
        mode: go_mode(stat.st_mode),
        mtime: Timestamp::from_unix_nanos(i64::try_from(mtime).unwrap_or_default()).rfc3339_nano(),
        link_target,
    };
    Ok((node, told))
}

/// Where a path leads to with every link followed, as far as it exists; links are the container's.
pub(super) fn resolve(root: &Rooted, path: &str) -> io::Result<PathBuf> {
    let components = |text: &str| text.split('/').rev().map(str::to_owned).collect::<Vec<_>>();
    let (mut todo, mut done, mut links) = (components(path), PathBuf::from("/"), 0);
    while let Some(name) = todo.pop() {
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                done.pop();
                continue;
            }
            name => done.push(name),
        }
        // Anything but a link stays as it is, also what is not there.
        let Ok(target) = root.read_link(&done) else { continue };
        links += 1;
        if links > LINKS {
            return Err(io::Error::other("EvalSymlinks: too many links"));
        }
        let target = target.to_string_lossy().into_owned();
        done.pop();
        if target.starts_with('/') {
            done = PathBuf::from("/");
        }
        todo.extend(components(&target));
    }
    Ok(done)
}

/// Why a path cannot be looked up, in the reference's words.
pub(super) fn not_found(error: io::Error, path: &str, container: &str) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::not_found(format!("Could not find the file {path} in container {container}")),
        // Told by us, in full.
        _ if error.raw_os_error().is_none() => Error::from(error),
        _ => Error::from(error).prefix(format!("lstat {path}")),
    }
}

/// A mode as Go's `os.FileMode` counts it.
fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special = special.into_iter().filter(|(bit, _)| mode & bit != 0).fold(0, |all, (_, bit)| all | bit);
    kind | special | mode & 0o777
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_keep_the_end_that_says_how_to_read_them() {
        let cases = [
            ("/etc/hosts", "/etc/hosts", "hosts"),
            ("etc//./x/../hosts", "/etc/hosts", "hosts"),
            ("/etc/", "/etc/", "etc"),
            ("/etc/.", "/etc/.", "."),
            ("/etc/./", "/etc/./", "."),
            ("/", "/", "/"),
            ("/.", "/.", "."),
            (".", "/.", "."),
            ("../..", "/", "/"),
        ];
        for (path, clean, name) in cases {
            assert_eq!((absolute(path).as_str(), last_element(&absolute(path))), (clean, name), "{path}");
        }
    }

    #[test]
    fn modes_are_those_of_go() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o104_755), 1 << 23 | 0o755);
        assert_eq!(go_mode(0o041_777), 1 << 31 | 1 << 20 | 0o777);
        assert_eq!(go_mode(0o020_666), 1 << 26 | 1 << 21 | 0o666);
        symlink("/a/../b", dir.path().join("link")).unwrap();
        symlink("link/c", dir.path().join("second")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let root = Rooted::open_dir(dir.path()).unwrap();
        let (_, stat) = stat(&root, "/second").unwrap();
        assert_eq!((stat.link_target.as_str(), stat.mode >> 27), ("/b/c", 1));
        assert!(resolve(&root, "/loop").is_err());
        let missing = not_found(super::stat(&root, "/none").unwrap_err(), "/none", "box");
        assert_eq!(missing.message(), "Could not find the file /none in container box");
    }
}
