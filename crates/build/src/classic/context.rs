//! The context of a classic build: an archive, unpacked to a layer of its own, and the Dockerfile in it.

use std::io::Read;
use std::sync::Arc;

use dockerfile::ignore::{Matcher, ignore_patterns};
use model::digest::{Algorithm, Hasher};
use model::{Context as _, Error, Result};
use rustix::fs::AtFlags;
use snapshot::Extraction;
use store::Lease;
use sys::rooted::Rooted;

use crate::builder::Builder;
use crate::key::Key;
use crate::record::Layer;
use crate::result::Solved;
use crate::root::Work;

/// Bytes of a Dockerfile.
const DOCKERFILE: u64 = 16 << 20;
/// Bytes of a .dockerignore.
const IGNORE: u64 = 16 << 20;
/// The usual name.
const USUAL: &str = "Dockerfile";

/// What the client sent.
pub struct Context {
    /// Its files.
    pub files: Arc<Solved>,
    /// The Dockerfile's text.
    pub dockerfile: String,
}

/// Unpacks an archive, compressed or not, and reads the Dockerfile of this name. What the context's .dockerignore leaves out of
/// the two is removed. Blocks.
///
/// Errors: `System` when there is no such file, or it is empty; `InvalidParameter` for an archive that is none.
pub fn open(builder: &Builder, archive: impl Read + Send, name: &str, lease: &Lease) -> Result<Context> {
    let mut archive = Hashed { inner: archive, hash: Hasher::new(Algorithm::Sha256) };
    let work = Work::prepare(&builder.roots, &[])?;
    let view = work.open()?;
    let how = Extraction { owner: Some((0, 0)), ..Extraction::default() };
    let tar = snapshot::decompress(snapshot::to_layer(&mut archive)?)?;
    snapshot::extract(view.root(), std::path::Path::new("/"), tar, how).context("reading the build context")?;
    let name = if name.is_empty() { USUAL } else { name };
    let (found, dockerfile) = read_dockerfile(view.root(), name)?;
    leave_out(view.root(), &found)?;
    drop(view);
    let (layer, _) = work.commit(lease)?;
    let mut key = Key::new("context");
    key.part(archive.hash.finish().as_str().as_bytes());
    let chain = Arc::new(vec![Layer { key: layer, blob: None }]);
    let files = Arc::new(Solved { key: key.finish(), outputs: [(0, chain)].into(), cached: false });
    Ok(Context { files, dockerfile })
}

/// The Dockerfile, and its path as it is.
fn read_dockerfile(root: &Rooted, name: &str) -> Result<(String, String)> {
    let missing = || Error::system(format!("Cannot locate specified Dockerfile: {name}"));
    let read = |name: &str| root.read(format!("/{name}"), DOCKERFILE);
    let lower = name.to_lowercase();
    let (found, bytes) = match read(name) {
        Ok(bytes) => (name.to_owned(), bytes),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && name == USUAL => {
            (lower.clone(), read(&lower).map_err(|_| missing())?)
        }
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            return Err(Error::from(e).prefix(format!("the Dockerfile ({name})")));
        }
        Err(_) => return Err(missing()),
    };
    if bytes.is_empty() {
        return Err(Error::system(format!("the Dockerfile ({name}) cannot be empty")));
    }
    Ok((found, String::from_utf8_lossy(&bytes).into_owned()))
}

/// Removes the Dockerfile and .dockerignore from the context when the latter says so: a client has sent them for the daemon.
fn leave_out(root: &Rooted, dockerfile: &str) -> Result<()> {
    let Ok(bytes) = root.read("/.dockerignore", IGNORE) else { return Ok(()) };
    let read = ignore_patterns(&bytes).and_then(|patterns| Matcher::new(&patterns));
    let patterns = read.map_err(|error| Error::invalid(error.message()).prefix("failed parsing .dockerignore"))?;
    for path in [".dockerignore", dockerfile] {
        if patterns.matches(path) {
            root.unlink(format!("/{path}"), AtFlags::empty()).with_context(|| format!("removing {path}"))?;
        }
    }
    Ok(())
}

struct Hashed<R> {
    inner: R,
    hash: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}
