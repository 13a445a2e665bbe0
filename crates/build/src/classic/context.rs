//! The context of a classic build: an archive, unpacked to a layer of its own, and the Dockerfile in it.

use std::io::Read;
use std::sync::Arc;

use dockerfile::ignore::{Matcher, ignore_patterns};
use dockerfile::llb::About;
use model::digest::{Algorithm, Hasher};
use model::{Context as _, Error, Result};
use rustix::fs::AtFlags;
use snapshot::Extraction;
use store::Lease;
use sys::rooted::Rooted;

use crate::builder::Builder;
use crate::content;
use crate::job::Job;
use crate::key::Key;
use crate::op::file;
use crate::record::{Layer, keys};
use crate::result::Solved;
use crate::root::{Tree, Work};

/// Bytes of a Dockerfile.
const DOCKERFILE: u64 = 16 << 20;
/// Bytes of a .dockerignore.
const IGNORE: u64 = 16 << 20;
/// The name of a file that came from a server.
const REMOTE: &str = "context";
/// The usual name.
pub(super) const USUAL: &str = "Dockerfile";

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

/// The context that lies on another host: a repository, an archive, or a Dockerfile alone.
///
/// Errors: as of [`open`], and of the source.
pub async fn remote(job: &Arc<Job>, address: &str, name: &str) -> Result<Context> {
    let invalid = |error: dockerfile::Error| Error::invalid(error.message());
    let mut graph = dockerfile::llb::Graph::default();
    let git = dockerfile::GitSource::parse(address).map_err(invalid)?;
    let is_git = git.is_some();
    let (vertex, about) = match git {
        Some(mut git) => {
            if git.like_path {
                git.remote = format!("https://{}", git.remote);
            }
            dockerfile::llb::git(&git, About::named(address))
        }
        None if address.starts_with("http://") || address.starts_with("https://") => {
            dockerfile::llb::http(address, [REMOTE, ""], About::named(address))
        }
        None => return Err(Error::invalid(format!("remote context provided by {address:?} is not supported"))),
    };
    let output = graph.add(vertex, about);
    let definition = graph.definition(Some(output), None);
    let files = job.solve_definition(&definition).await.map_err(|failure| failure.error)?;
    let files = files.ok_or_else(|| Error::system("a context without files"))?;
    let (job, name, address) = (job.clone(), name.to_owned(), address.to_owned());
    let threads = job.builder.threads.clone();
    let read = move |_: &_| {
        let tree = Tree::open(&job.builder.roots, &keys(&files.chain()))?;
        if is_git {
            let name = if name.is_empty() { USUAL } else { &name };
            let (_, dockerfile) = read_dockerfile(tree.root(), name)?;
            return Ok(Context { files: files.solved, dockerfile });
        }
        let file = || tree.root().open(format!("/{REMOTE}"), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty());
        let node = file().with_context(|| format!("reading {address}"))?;
        if file::is_archive(content::open_file(&node)?) {
            return open(&job.builder, content::open_file(&node)?, &name, &job.lease);
        }
        let text = tree.root().read(format!("/{REMOTE}"), DOCKERFILE).with_context(|| format!("reading {address}"))?;
        if text.is_empty() {
            return Err(Error::invalid(format!("the Dockerfile ({address}) cannot be empty")));
        }
        let nothing = Solved { key: Key::new("no context").finish(), outputs: Default::default(), cached: true };
        Ok(Context { files: Arc::new(nothing), dockerfile: String::from_utf8_lossy(&text).into_owned() })
    };
    threads.run(read).await
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
        return Err(Error::invalid(format!("the Dockerfile ({name}) cannot be empty")));
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
