//! Files of results, read for front ends and clients. Every path is resolved below the result's own root.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use model::{Context, Result};
use rustix::fs::{Mode, OFlags};

use crate::job::Job;
use crate::record::{Chain, keys};
use crate::root::Tree;

/// Bytes of a file; `None`: there is none of this name. `range` is in bytes; what lies behind its end is not read.
///
/// Errors: the kernel's, for a directory among others.
pub async fn read(job: &Arc<Job>, chain: &Chain, path: &str, range: Range<u64>) -> Result<Option<Vec<u8>>> {
    let (roots, chain) = (job.builder.roots.clone(), chain.clone());
    let path = format!("/{}", path.trim_start_matches('/'));
    job.builder.threads.run(move |_| read_blocking(&Tree::open(&roots, &keys(&chain))?, &path, range)).await
}

fn read_blocking(tree: &Tree, path: &str, range: Range<u64>) -> Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = tree.root().open(path, flags, Mode::empty());
    let mut file = match opened {
        Ok(fd) => std::fs::File::from(fd),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(e).with_context(|| format!("open {path}")),
    };
    let mut bytes = Vec::new();
    let copy = || {
        if range.start > 0 {
            file.seek(SeekFrom::Start(range.start))?;
        }
        file.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)
    };
    copy().with_context(|| format!("read {path}"))?;
    Ok(Some(bytes))
}
