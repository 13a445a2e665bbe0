//! Files of web servers, and what the client sends in the place of one.
//!
//! What was fetched is kept under the digest of its content; the server is asked again whether it still has that (`ETag`), but for
//! a file whose checksum is known, which is fetched once.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use events::now;
use model::digest::{Digest, Hasher};
use model::{Context as _, Error, Result};
use registry::WebRequest;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use store::Lease;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::image::attribute;
use crate::copy;
use crate::job::{Attributes, Incoming, Job};
use crate::key::Key;
use crate::record::{Kind, Layer, Page, Record};
use crate::result::Solved;
use crate::root::{Roots, Work};

/// Bytes of a file.
const SIZE: u64 = 64 << 30;
/// Bytes read at once of what a client sends.
const CHUNK: usize = 256 << 10;
/// Chunks that wait for the disk.
const AHEAD: usize = 4;
/// Servers that are none: the client's session, and the body of its request.
const CLIENT: [&str; 2] = ["http://buildkit-session/", "http://build-context-"];
/// A name for what has none.
const UNNAMED: &str = "download";
/// Permissions for which nothing is said.
const MODE: u32 = 0o600;

/// How the file is to lie in the result.
struct Form {
    /// Empty: as the server says.
    name: String,
    mode: u32,
    owner: (u32, u32),
    checksum: Option<Digest>,
}

impl Form {
    fn read(attributes: &Attributes) -> Result<Form> {
        let number = |key: &str, radix: u32, unset: u32| match attribute(attributes, key) {
            "" => Ok(unset),
            text => u32::from_str_radix(text, radix).map_err(|_| Error::invalid(format!("invalid {key}: {text:?}"))),
        };
        let checksum = match attribute(attributes, "http.checksum") {
            "" => None,
            text => Some(Digest::parse(text)?),
        };
        Ok(Form {
            name: attribute(attributes, "http.filename").to_owned(),
            mode: number("http.perm", 8, MODE)? & 0o7777,
            owner: (number("http.uid", 10, 0)?, number("http.gid", 10, 0)?),
            checksum,
        })
    }

    /// What the file counts as when it has this name, content and time.
    fn key(&self, name: &str, digest: &Digest, time: i64) -> Digest {
        let mut key = Key::new("http");
        key.part(name.as_bytes()).part(digest.as_str().as_bytes()).part(&self.mode.to_le_bytes());
        key.part(&self.owner.0.to_le_bytes()).part(&self.owner.1.to_le_bytes()).part(&time.to_le_bytes());
        key.finish()
    }
}

/// The file of an address.
///
/// Errors: `invalid response status 404`; `digest mismatch`.
pub(super) async fn solve(job: &Arc<Job>, address: &str, attributes: &Attributes) -> Result<Solved> {
    let form = Form::read(attributes)?;
    if CLIENT.iter().any(|client| address.starts_with(client)) {
        let incoming = job.inputs.upload(address).await?;
        let name = if form.name.is_empty() { UNNAMED.to_owned() } else { form.name.clone() };
        let made = write(job, &form, &plain(&name)?, 0, From::Client(incoming)).await?;
        return Ok(made.0);
    }
    let known = known(job, address, &form);
    if let (Some(page), Some(_)) = (&known, &form.checksum)
        && let Some(found) = job.look_up(&page.record)
    {
        job.note_pin(address.to_owned(), page.digest.to_string());
        return Ok(found);
    }
    let etag = known.as_ref().filter(|page| job.look_up(&page.record).is_some());
    let request = WebRequest {
        address: address.to_owned(),
        etag: etag.map(|page| page.etag.clone()).unwrap_or_default(),
        authorization: authorization(job, address, attributes).await?,
    };
    let images = &job.builder.images;
    let download = tokio::select! {
        download = registry::ask(&images.registries, &request) => download?,
        () = job.cancel.cancelled() => return Err(crate::cancel::cancelled()),
    };
    if download.status() == 304
        && let Some((found, page)) = known.and_then(|page| Some((job.look_up(&page.record)?, page)))
    {
        job.note_pin(address.to_owned(), page.digest.to_string());
        return Ok(found);
    }
    if download.status() >= 300 {
        return Err(Error::system(format!("invalid response status {}", download.status())));
    }
    let name = match form.name.as_str() {
        "" => named(address, download.header("content-disposition")),
        name => name.to_owned(),
    };
    let time = httpdate::parse_http_date(download.header("last-modified")).ok();
    let time = time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs());
    let etag = download.header("etag").to_owned();
    let (solved, digest) =
        write(job, &form, &plain(&name)?, i64::try_from(time).unwrap_or(0), From::Server(Box::new(download))).await?;
    job.note_pin(address.to_owned(), digest.to_string());
    let page = Page { etag, digest, record: solved.key.clone() };
    job.builder.records.note_page(&page_key(address, &form), page).await?;
    Ok(solved)
}

/// What is known of an address; of one whose checksum is given only what has this checksum.
fn known(job: &Job, address: &str, form: &Form) -> Option<Page> {
    let page = job.builder.records.page(&page_key(address, form))?;
    form.checksum.as_ref().is_none_or(|checksum| *checksum == page.digest).then_some(page)
}

fn page_key(address: &str, form: &Form) -> Digest {
    let mut key = Key::new("page");
    key.part(address.as_bytes()).part(form.name.as_bytes()).part(&form.mode.to_le_bytes());
    key.part(&form.owner.0.to_le_bytes()).part(&form.owner.1.to_le_bytes());
    key.part(form.checksum.as_ref().map(Digest::as_str).unwrap_or_default().as_bytes());
    key.finish()
}

/// What the server is shown: a secret of the client for this host.
async fn authorization(job: &Job, address: &str, attributes: &Attributes) -> Result<String> {
    let host = address.split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let header = match attribute(attributes, "http.authheadersecret") {
        "" => format!("HTTP_AUTH_HEADER_{host}"),
        name => name.to_owned(),
    };
    if let Some(value) = job.inputs.secret(&header).await? {
        return Ok(String::from_utf8_lossy(&value).trim().to_owned());
    }
    let token = job.inputs.secret(&format!("HTTP_AUTH_TOKEN_{host}")).await?;
    Ok(token.map(|token| format!("Bearer {}", String::from_utf8_lossy(&token).trim())).unwrap_or_default())
}

/// The name that a server or an address gives a file.
fn named(address: &str, disposition: &str) -> String {
    let given = disposition.split(';').find_map(|part| part.trim().strip_prefix("filename="));
    let given = given.map(|name| name.trim_matches('"').rsplit('/').next().unwrap_or_default().to_owned());
    let path = address.split("://").nth(1).and_then(|rest| rest.split_once('/')).map_or("", |(_, path)| path);
    let last = path.split(['?', '#']).next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let named = |name: &String| !name.is_empty() && name != "." && name != "..";
    given.filter(named).or_else(|| Some(last.to_owned()).filter(named)).unwrap_or_else(|| UNNAMED.to_owned())
}

/// A name in the top directory, and nothing else.
fn plain(name: &str) -> Result<String> {
    let refused = name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) || name.len() > 255;
    if refused { Err(Error::invalid(format!("invalid file name {name:?}"))) } else { Ok(name.to_owned()) }
}

/// Where bytes come from.
enum From {
    Client(Incoming),
    Server(Box<registry::Download>),
}

impl From {
    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Vec<u8>> {
        match self {
            From::Client(incoming) => {
                let mut chunk = Vec::with_capacity(CHUNK);
                incoming.read_buf(&mut chunk).await.context("reading what the client sends")?;
                Ok(chunk)
            }
            From::Server(download) => Ok(download.next().await?.map(Vec::from).unwrap_or_default()),
        }
    }
}

/// Writes a file, which becomes a result; answers the digest of its content, too.
async fn write(job: &Arc<Job>, form: &Form, name: &str, time: i64, mut from: From) -> Result<(Solved, Digest)> {
    let (chunks, received) = mpsc::channel(AHEAD);
    let cancel = job.cancel.clone();
    let read = async move {
        let mut total = 0_u64;
        loop {
            let chunk = tokio::select! {
                chunk = from.next() => chunk?,
                () = cancel.cancelled() => return Err(crate::cancel::cancelled()),
            };
            total += chunk.len() as u64;
            if total > SIZE {
                return Err(Error::invalid(format!("a file of more than {SIZE} bytes")));
            }
            let is_end = chunk.is_empty();
            // An empty chunk says that all has come.
            if chunks.send(chunk).await.is_err() || is_end {
                return Ok(());
            }
        }
    };
    let file = Place { name: name.to_owned(), mode: form.mode, owner: form.owner, time };
    let (roots, lease, checksum) = (job.builder.roots.clone(), job.lease.clone(), form.checksum.clone());
    let write = job.builder.threads.run(move |_| file.write(&roots, &lease, checksum.as_ref(), received));
    let (read, written) = tokio::join!(read, write);
    read?;
    let (layer, size, digest) = written?;
    let key = form.key(name, &digest, time);
    if let Some(found) = job.look_up(&key) {
        return Ok((Solved { cached: false, ..found }, digest));
    }
    let (now, layers) = (now(), vec![layer]);
    let record = Record {
        outputs: [(0, layers.clone())].into(),
        kind: Kind::Regular,
        description: format!("http url {name}"),
        created: now,
        used: now,
        uses: 1,
        size,
        parents: Vec::new(),
    };
    job.keep(&key, Arc::new(record), None);
    Ok((Solved { key, outputs: [(0, Arc::new(layers))].into(), cached: false }, digest))
}

/// A file to come.
struct Place {
    name: String,
    mode: u32,
    owner: (u32, u32),
    /// Seconds since 1970.
    time: i64,
}

impl Place {
    /// Blocks.
    fn write(
        &self,
        roots: &Roots,
        lease: &Lease,
        checksum: Option<&Digest>,
        mut received: mpsc::Receiver<Vec<u8>>,
    ) -> Result<(Layer, u64, Digest)> {
        let work = Work::prepare(roots, &[])?;
        let view = work.open()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let made = view.root().open(format!("/{}", self.name), flags, Mode::from_raw_mode(0o600));
        let mut file = File::from(made.with_context(|| format!("creating {}", self.name))?);
        let mut hasher = Hasher::to_match(checksum);
        let broken = || Error::system("the download was given up");
        loop {
            let chunk = received.blocking_recv().ok_or_else(broken)?;
            if chunk.is_empty() {
                break;
            }
            hasher.update(&chunk);
            file.write_all(&chunk).with_context(|| format!("writing {}", self.name))?;
        }
        let digest = hasher.finish();
        if let Some(expected) = checksum.filter(|expected| **expected != digest) {
            return Err(Error::invalid(format!("digest mismatch {digest}: {expected}")));
        }
        self.dress(file).with_context(|| format!("writing {}", self.name))?;
        let top = copy::at(self.time.saturating_mul(1_000_000_000));
        let root = rustix::io::dup(view.root().as_fd()).map_err(io::Error::from)?;
        copy::touch(&root, top).context("writing a file")?;
        drop((root, view));
        let (key, size) = work.commit(lease)?;
        Ok((Layer { key, blob: None }, size, digest))
    }

    fn dress(&self, file: File) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        rustix::fs::chownat(&file, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(self.mode))?;
        copy::touch(&file.into(), copy::at(self.time.saturating_mul(1_000_000_000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_the_server_or_by_its_address() {
        for (address, disposition, name) in [
            ("http://a/b/c.tar?x=/y", "", "c.tar"),
            ("http://a/b/", "", "download"),
            ("http://a", "", "download"),
            ("http://a/..", "", "download"),
            ("http://a/b", "attachment; filename=\"d\"", "d"),
            ("http://a/b", "attachment; filename=\"../../e\"", "e"),
            ("http://a/b", "attachment; filename=\"..\"", "b"),
        ] {
            assert_eq!(named(address, disposition), name, "{address} {disposition}");
        }
        for name in ["", ".", "..", "a/b", "a\0"] {
            assert!(plain(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn numbers_of_a_form_are_checked() {
        let read = |key: &str, value: &str| Form::read(&[(key.to_owned(), value.to_owned())].into());
        assert_eq!(read("http.perm", "755").unwrap().mode, 0o755);
        assert_eq!(read("http.uid", "7").unwrap().owner, (7, 0));
        for (key, value) in [("http.perm", "9"), ("http.uid", "-1"), ("http.checksum", "x"), ("http.gid", "4294967296")]
        {
            assert!(read(key, value).is_err(), "{key}={value}");
        }
    }
}
