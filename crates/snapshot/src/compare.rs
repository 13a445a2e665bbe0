//! Whether two trees are alike: names, kinds, modes, owners, sizes, times, links, attributes and content.
//!
//! Both trees belong to one archive, or should ([`Origin`]). A time that the unpacking itself made (directories
//! without an entry, whiteouts) says nothing and is not compared; neither are attributes of devices, pipes and links.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, Stat};

use crate::tree::{self, Walk};
use crate::view::{is_opaque, link_target, xattrs};

/// Differences that are told; the others are counted.
const TOLD: usize = 5;
/// Bytes compared at once.
const BUFFER: usize = 128 << 10;

/// Where a tree that is compared with its archive comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was unpacked from an archive: it has nothing else.
    Archive,
    /// It was made here and packed, and packing leaves out what is as the layers below have it.
    Here,
}

/// How a tree differs from what it should be.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    told: Vec<String>,
    count: u64,
}

impl Differences {
    fn note(&mut self, path: &[CString], what: impl std::fmt::Display) {
        self.count += 1;
        if self.told.len() < TOLD {
            let path: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
            self.told.push(format!("/{}: {what}", path.join("/")));
        }
    }

    /// In one line; `None` when there are none.
    pub(crate) fn text(&self) -> Option<String> {
        let more = match self.count - self.told.len() as u64 {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        (self.count > 0).then(|| self.told.join("; ") + &more)
    }
}

/// Compares the tree `found` with the tree `expected`, whose root is newer than its archive and older than its content.
pub(crate) fn compare(found: OwnedFd, expected: OwnedFd, begun: &Stat, origin: Origin) -> io::Result<Differences> {
    let mut differences = Differences::default();
    let mut path: Vec<CString> = Vec::new();
    let mut buffers = (vec![0; BUFFER], vec![0; BUFFER]);
    if rustix::fs::fstat(&found)?.st_mode != rustix::fs::fstat(&expected)?.st_mode {
        differences.note(&path, "other mode");
    }
    let (mut found, mut expected) = (Walk::new(found, c".")?, Walk::new(expected, c".")?);
    if origin == Origin::Archive {
        surplus(&found, &expected, &path, &mut differences);
    }
    loop {
        while let Some(name) = expected.next_name() {
            path.push(name.clone());
            let pair = Pair { found: &found.here, expected: &expected.here, name: &name, begun };
            let (different, directories) = pair.compare(&mut buffers)?;
            if let Some(what) = different {
                differences.note(&path, what);
            }
            if directories && found.enter(&name)? && expected.enter(&name)? {
                if origin == Origin::Archive {
                    surplus(&found, &expected, &path, &mut differences);
                }
            } else {
                path.pop();
            }
        }
        found.leave()?;
        if expected.leave()?.is_none() {
            return Ok(differences);
        }
        path.pop();
    }
}

/// Notes the names that should not be there.
fn surplus(found: &Walk, expected: &Walk, path: &[CString], differences: &mut Differences) {
    // Both are sorted, last name first.
    let known = |name: &CString| expected.left().binary_search_by(|other| name.cmp(other)).is_ok();
    for name in found.left().iter().filter(|name| !known(name)) {
        differences.note(&[path, std::slice::from_ref(name)].concat(), "not in the archive");
    }
}

/// One name in two directories.
struct Pair<'p> {
    found: &'p OwnedFd,
    expected: &'p OwnedFd,
    name: &'p CStr,
    begun: &'p Stat,
}

impl Pair<'_> {
    /// What differs first, and whether both are directories.
    fn compare(&self, buffers: &mut (Vec<u8>, Vec<u8>)) -> io::Result<(Option<&'static str>, bool)> {
        let Some(found) = tree::stat(self.found, self.name)? else { return Ok((Some("missing"), false)) };
        let Some(expected) = tree::stat(self.expected, self.name)? else { return Ok((Some("not compared"), false)) };
        if tree::file_type(&found) != tree::file_type(&expected) {
            return Ok((Some("something of another kind"), false));
        }
        let kind = tree::file_type(&expected);
        let different = match self.status(&found, &expected) {
            Some(what) => Some(what),
            None if kind.is_symlink() => {
                (self.link(self.found)? != self.link(self.expected)?).then_some("other target")
            }
            None if kind.is_dir() || kind.is_file() => self.opened(kind.is_dir(), buffers)?,
            None => None,
        };
        Ok((different.or_else(|| self.time(&found, &expected)), kind.is_dir()))
    }

    /// What the status tells.
    fn status(&self, found: &Stat, expected: &Stat) -> Option<&'static str> {
        let kind = tree::file_type(expected);
        if (found.st_uid, found.st_gid) != (expected.st_uid, expected.st_gid) {
            Some("other owner")
        } else if found.st_mode != expected.st_mode {
            Some("other mode")
        } else if (kind.is_char_device() || kind.is_block_device()) && found.st_rdev != expected.st_rdev {
            Some("other device")
        } else if kind.is_file() && found.st_size != expected.st_size {
            Some("other size")
        } else if !kind.is_dir() && found.st_nlink != expected.st_nlink {
            Some("other hard links")
        } else {
            None
        }
    }

    /// What the time of change tells, if it is the archive's.
    fn time(&self, found: &Stat, expected: &Stat) -> Option<&'static str> {
        // An archive without fractions of seconds says nothing of those that a layer made here has.
        let has_fraction = expected.st_mtime_nsec != 0;
        let time = |stat: &Stat| (stat.st_mtime, if has_fraction { stat.st_mtime_nsec } else { 0 });
        let from_archive = time(expected) < time(self.begun);
        (from_archive && time(found) != time(expected)).then_some("other time of change")
    }

    fn link(&self, dir: &OwnedFd) -> io::Result<CString> {
        link_target(dir, &self.name.to_owned())
    }

    /// What attributes and content tell.
    fn opened(&self, directory: bool, buffers: &mut (Vec<u8>, Vec<u8>)) -> io::Result<Option<&'static str>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |dir: &OwnedFd| rustix::fs::openat(dir, self.name, flags, Mode::empty());
        let (found, expected) = (open(self.found)?, open(self.expected)?);
        let sorted = |file: &OwnedFd| -> io::Result<_> {
            let mut all = xattrs(file)?;
            all.sort();
            Ok(all)
        };
        if sorted(&found)? != sorted(&expected)? {
            return Ok(Some("other extended attributes"));
        }
        if directory {
            return Ok((is_opaque(&found)? != is_opaque(&expected)?).then_some("opaque on one side only"));
        }
        let same = same_content(&mut File::from(found), &mut File::from(expected), buffers)?;
        Ok((!same).then_some("other content"))
    }
}

fn same_content(a: &mut File, b: &mut File, (left, right): &mut (Vec<u8>, Vec<u8>)) -> io::Result<bool> {
    loop {
        let n = a.read(left)?;
        if n == 0 {
            return Ok(b.read(right)? == 0);
        }
        match b.read_exact(&mut right[..n]) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        if left[..n] != right[..n] {
            return Ok(false);
        }
    }
}
