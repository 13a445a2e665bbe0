//! Files of results, as front ends look at them.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use blocking::Blocking;
use bollard_buildkit_proto::fsutil::types::Stat;
use build::job::Job;
use build::record::{Chain, keys};
use build::root::Tree;
use model::{Context, Error, Result};
use rustix::fs::{FileType, Mode, OFlags};
use sys::tree;

use crate::sync::mode::to_wire;

/// Entries of one directory.
const ENTRIES: usize = 100_000;
/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;

/// What a directory has, in order; those only that a pattern matches, if there is one.
pub(crate) async fn list(job: &Arc<Job>, chain: &Chain, (path, pattern): (&str, &str)) -> Result<Vec<Stat>> {
    let (roots, chain, pattern) = (job.builder.roots.clone(), chain.clone(), pattern.to_owned());
    let path = format!("/{}", path.trim_start_matches('/'));
    let work = move |on: &_| {
        let root = Tree::open(&roots, &keys(&chain))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = root.root().open(&path, flags, Mode::empty()).with_context(|| format!("open {path}"))?;
        let mut names = tree::names(&dir)?;
        if names.len() > ENTRIES {
            return Err(Error::invalid(format!("more than {ENTRIES} files in {path}")));
        }
        names.sort();
        let parts = [pattern.as_str()];
        let is_wanted =
            |name: &CString| pattern.is_empty() || build::pattern::path(&parts, &[name.to_string_lossy().as_ref()]);
        let shown = names.iter().filter(|name| is_wanted(name)).map(|name| describe(&dir, name, on));
        Ok(shown.collect::<io::Result<Vec<_>>>()?)
    };
    job.builder.threads.run(work).await
}

/// What a path leads to; a link at its end is not followed.
pub(crate) async fn stat(job: &Arc<Job>, chain: &Chain, path: &str) -> Result<Stat> {
    let (roots, chain) = (job.builder.roots.clone(), chain.clone());
    let path = format!("/{}", path.trim_matches('/'));
    let work = move |on: &_| {
        let root = Tree::open(&roots, &keys(&chain))?;
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let parent = if parent.is_empty() { "/" } else { parent };
        let name = if name.is_empty() { "." } else { name };
        let told = || format!("lstat {path}");
        let dir = root.root().open(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).with_context(told)?;
        let name = CString::new(name).map_err(|_| Error::invalid("a path with a zero byte"))?;
        describe(&dir, &name, on).with_context(told)
    };
    job.builder.threads.run(work).await
}

#[expect(clippy::disallowed_methods, reason = "on a thread that may block")]
fn describe(dir: &OwnedFd, name: &CString, _on: &Blocking) -> io::Result<Stat> {
    let stat = tree::stat(dir, name)?.ok_or(io::ErrorKind::NotFound)?;
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let linkname = match tree::file_type(&stat) {
        FileType::Symlink => rustix::fs::readlinkat(dir, name, Vec::new())?.to_string_lossy().into_owned(),
        _ => String::new(),
    };
    Ok(Stat {
        path: name.to_string_lossy().into_owned(),
        mode: to_wire(stat.st_mode),
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: stat.st_size,
        mod_time: stat.st_mtime.saturating_mul(SECOND).saturating_add(nanos),
        linkname,
        devmajor: rustix::fs::major(stat.st_rdev).into(),
        devminor: rustix::fs::minor(stat.st_rdev).into(),
        ..Stat::default()
    })
}
