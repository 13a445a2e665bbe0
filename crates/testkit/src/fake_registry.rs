//! A small registry that misbehaves on demand, and the images it serves.
//!
//! - It listens wherever it is told to: on the test's own loopback, or inside a daemon's namespaces.
//! - Rules see every request first and may answer it, cut it or let it hang; what no rule takes is served properly
//!   (manifests, blobs with ranges, tags, uploads).
//! - It remembers every request and how many bytes of blobs it sent.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use model::lock::{Mutex, MutexGuard};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

use crate::images::{digest, sha256};
use crate::namespaces::Namespaces;

/// Bytes written at once; a slow registry pauses between them.
const PIECE: usize = 16 << 10;
/// How long a reply that hangs is kept open.
const HANG: Duration = Duration::from_secs(300);

/// OCI's media types.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// See [`MANIFEST`].
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// See [`MANIFEST`].
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// See [`MANIFEST`].
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `GET`, …
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Seen {
    /// A field; empty if absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Fields besides the length.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// With this body.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// One more field.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A refusal with a code.
    #[must_use]
    pub fn refusal(status: u16, code: &str, message: &str) -> Self {
        let body = json!({"errors": [{"code": code, "message": message}]}).to_string();
        Self::new(status, body).with("Content-Type", "application/json")
    }
}

/// What a rule does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Answers it.
    Send(Answer),
    /// Sends so many bytes of the body (of the proper answer if none is given) and closes.
    Cut(Option<Answer>, usize),
    /// Sends so many bytes of the body (of the proper answer if none is given) and then nothing.
    Hang(Option<Answer>, usize),
}

type Rule = Box<dyn FnMut(&Seen) -> Option<Reply> + Send>;

/// Media type, bytes, digest.
type Manifest = (String, Vec<u8>, String);

#[derive(Default)]
struct Content {
    /// By `name/digest` and `name/tag`.
    manifests: BTreeMap<String, Manifest>,
    blobs: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<String, Vec<u8>>,
    seen: Vec<Seen>,
}

impl Content {
    /// A manifest under a tag and its digest.
    fn enter(&mut self, name: &str, tag: &str, manifest: Manifest) {
        for key in [tag, &manifest.2] {
            self.manifests.insert(format!("{name}/{key}"), manifest.clone());
        }
    }
}

#[derive(Default)]
struct Shared {
    content: Mutex<Content>,
    rules: Mutex<Vec<Rule>>,
    stopped: AtomicBool,
    sent: AtomicU64,
    /// Bytes of blobs per second; 0: as fast as it goes.
    rate: AtomicU64,
    next: AtomicU64,
}

/// See the module. Stops when dropped.
pub struct FakeRegistry {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    /// For waking up the thread that accepts, wherever it listens.
    listener: TcpListener,
}

/// Listens inside namespaces; the calling thread stays where it is.
#[must_use]
pub fn listen_inside(namespaces: &Namespaces, address: &str) -> TcpListener {
    let path = format!("/proc/{}/ns/net", namespaces.holder());
    let address = address.to_string();
    let listening = thread::spawn(move || {
        let namespace = std::fs::File::open(path).expect("the holder lives");
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))
            .expect("root may enter a network namespace");
        TcpListener::bind(address).expect("the address is free")
    });
    listening.join().expect("the thread ends")
}

impl FakeRegistry {
    /// On the test's own loopback.
    #[must_use]
    pub fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("loopback has free ports"))
    }

    /// Inside a daemon's namespaces.
    #[must_use]
    pub fn inside(namespaces: &Namespaces, address: &str) -> Self {
        Self::on(listen_inside(namespaces, address))
    }

    fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared::default());
        let (accepting, other) = (listener.try_clone().expect("a socket can be shared"), shared.clone());
        let accepting = thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                if other.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let shared = other.clone();
                thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Self { address, shared, accepting: Some(accepting), listener }
    }

    /// `127.0.0.1:port`
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.shared.content()
    }

    /// Adds a rule; the newest is asked first.
    pub fn rule(&self, rule: impl FnMut(&Seen) -> Option<Reply> + Send + 'static) {
        self.shared.rules().insert(0, Box::new(rule));
    }

    /// Forgets all rules.
    pub fn behave(&self) {
        self.shared.rules().clear();
    }

    /// All requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.content().seen.clone()
    }

    /// Requests whose method and path begin so (`GET /v2/`).
    #[must_use]
    pub fn count(&self, start: &str) -> usize {
        self.content().seen.iter().filter(|s| format!("{} {}", s.method, s.path).starts_with(start)).count()
    }

    /// Bytes of blobs that were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Sends blobs with so many bytes per second; 0: as fast as it goes.
    pub fn slow(&self, rate: u64) {
        self.shared.rate.store(rate, Ordering::Relaxed);
    }

    /// Serves a blob; gives its digest.
    pub fn blob(&self, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", sha256(bytes));
        self.content().blobs.insert(digest.clone(), bytes.to_vec());
        digest
    }

    /// Serves a blob under any digest.
    pub fn blob_as(&self, digest: &str, bytes: &[u8]) {
        self.content().blobs.insert(digest.into(), bytes.to_vec());
    }

    /// Serves a blob no more.
    pub fn forget(&self, digest: &str) {
        self.content().blobs.remove(digest);
    }

    /// What a blob holds.
    #[must_use]
    pub fn blob_bytes(&self, digest: &str) -> Option<Vec<u8>> {
        self.content().blobs.get(digest).cloned()
    }

    /// Serves a document as a manifest, under a tag and its digest; gives the digest.
    pub fn manifest(&self, name: &str, tag: &str, media_type: &str, bytes: &[u8]) -> String {
        let digest = digest("sha256", bytes);
        self.content().enter(name, tag, (media_type.into(), bytes.to_vec(), digest.clone()));
        digest
    }

    /// Serves an image; gives the digest of its manifest.
    pub fn image(&self, name: &str, tag: &str, image: &Image) -> String {
        for blob in image.layers.iter().chain([&image.config]) {
            self.blob_as(&digest(image.algorithm, blob), blob);
        }
        let digest = digest(image.algorithm, &image.manifest);
        self.content().enter(name, tag, (MANIFEST.into(), image.manifest.clone(), digest.clone()));
        digest
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // `accept` on the shared socket ends.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        drop(self.accepting.take().map(JoinHandle::join));
    }
}

impl Shared {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock()
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock()
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(seen) = read_request(&mut reader)? {
            self.content().seen.push(seen.clone());
            let reply = self.rules().iter_mut().find_map(|rule| rule(&seen));
            let is_blob = seen.method == "GET" && seen.path.contains("/blobs/");
            let (answer, limit, hang) = match reply {
                Some(Reply::Send(answer)) => (answer, usize::MAX, false),
                Some(Reply::Cut(answer, limit)) => (answer.unwrap_or_else(|| self.proper(&seen)), limit, false),
                Some(Reply::Hang(answer, limit)) => (answer.unwrap_or_else(|| self.proper(&seen)), limit, true),
                None => (self.proper(&seen), usize::MAX, false),
            };
            self.write(&stream, &seen, &answer, (limit, is_blob))?;
            if hang {
                stream.set_read_timeout(Some(HANG))?;
                drop(reader.read(&mut [0]));
            }
            if limit != usize::MAX || self.stopped.load(Ordering::Relaxed) {
                return stream.shutdown(Shutdown::Both);
            }
        }
        Ok(())
    }

    fn write(
        &self,
        mut out: &TcpStream,
        seen: &Seen,
        answer: &Answer,
        (limit, is_blob): (usize, bool),
    ) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Status\r\n", answer.status);
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let says = |field: &str| answer.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(field));
        if !says("Content-Length") && !says("Transfer-Encoding") {
            head += &format!("Content-Length: {}\r\n", answer.body.len());
        }
        out.write_all((head + "\r\n").as_bytes())?;
        if seen.method == "HEAD" {
            return Ok(());
        }
        for piece in answer.body[..limit.min(answer.body.len())].chunks(PIECE) {
            out.write_all(piece)?;
            if is_blob {
                self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                let rate = self.rate.load(Ordering::Relaxed);
                if let Some(pause) = (piece.len() as u64 * 1_000_000).checked_div(rate) {
                    thread::sleep(Duration::from_micros(pause));
                }
            }
        }
        Ok(())
    }

    /// What a registry answers.
    fn proper(&self, seen: &Seen) -> Answer {
        let path = seen.path.split('?').next().unwrap_or_default();
        let Some(rest) = path.strip_prefix("/v2/") else { return Answer::new(404, "page not found") };
        if rest.is_empty() {
            return Answer::new(200, "{}");
        }
        if let Some((name, tag)) = rest.split_once("/manifests/") {
            return self.proper_manifest(seen, name, tag);
        }
        if let Some((name, id)) = rest.split_once("/blobs/uploads/") {
            return self.proper_upload(seen, name, id);
        }
        if let Some((_, digest)) = rest.split_once("/blobs/") {
            return self.proper_blob(seen, digest);
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            let start = format!("{name}/");
            let content = self.content();
            let tags = content.manifests.keys().filter_map(|key| key.strip_prefix(&start)).filter(|t| !t.contains(':'));
            return Answer::new(200, json!({"name": name, "tags": tags.collect::<Vec<_>>()}).to_string());
        }
        Answer::new(404, "page not found")
    }

    fn proper_manifest(&self, seen: &Seen, name: &str, tag: &str) -> Answer {
        let mut content = self.content();
        if seen.method == "PUT" {
            let algorithm = tag.split_once(':').map_or("sha256", |(algorithm, _)| algorithm);
            let digest = digest(algorithm, &seen.body);
            content.enter(name, tag, (seen.header("content-type").to_string(), seen.body.clone(), digest.clone()));
            return Answer::new(201, "").with("Docker-Content-Digest", &digest);
        }
        match content.manifests.get(&format!("{name}/{tag}")) {
            None => Answer::refusal(404, "MANIFEST_UNKNOWN", "manifest unknown"),
            Some((media_type, bytes, digest)) => {
                Answer::new(200, bytes.clone()).with("Content-Type", media_type).with("Docker-Content-Digest", digest)
            }
        }
    }

    fn proper_blob(&self, seen: &Seen, digest: &str) -> Answer {
        let content = self.content();
        let Some(bytes) = content.blobs.get(digest) else {
            return Answer::refusal(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        let from = seen.header("range").strip_prefix("bytes=").and_then(|r| r.split('-').next()?.parse::<usize>().ok());
        match from {
            None => Answer::new(200, bytes.clone()),
            Some(from) if from >= bytes.len() => Answer::new(416, ""),
            Some(from) => Answer::new(206, &bytes[from..])
                .with("Content-Range", &format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
        }
    }

    fn proper_upload(&self, seen: &Seen, name: &str, id: &str) -> Answer {
        let mut content = self.content();
        let location = |id: &str| format!("/v2/{name}/blobs/uploads/{id}");
        match seen.method.as_str() {
            "POST" => {
                let id = format!("u{}", self.next.fetch_add(1, Ordering::Relaxed));
                content.uploads.insert(id.clone(), Vec::new());
                Answer::new(202, "").with("Location", &location(&id))
            }
            "PATCH" => {
                content.uploads.entry(id.into()).or_default().extend(&seen.body);
                Answer::new(202, "").with("Location", &location(id))
            }
            _ => {
                let mut bytes = content.uploads.remove(id).unwrap_or_default();
                bytes.extend(&seen.body);
                let asked = seen.path.replace("%3A", ":");
                let algorithm = if asked.contains("digest=sha512:") { "sha512" } else { "sha256" };
                let digest = digest(algorithm, &bytes);
                if !asked.ends_with(&format!("digest={digest}")) {
                    return Answer::refusal(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
                }
                content.blobs.insert(digest.clone(), bytes);
                Answer::new(201, "").with("Docker-Content-Digest", &digest)
            }
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Seen>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_string);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut seen = Seen { method, path, headers: BTreeMap::new(), body: Vec::new() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        seen.headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
    }
    let length = seen.header("content-length").parse().unwrap_or(0);
    seen.body.resize(length, 0);
    reader.read_exact(&mut seen.body)?;
    Ok(Some(seen))
}

/// An image of one platform, as a registry has it.
#[derive(Clone, Debug)]
pub struct Image {
    /// Compressed.
    pub layers: Vec<Vec<u8>>,
    /// Digests of the layers when uncompressed.
    pub diff_ids: Vec<String>,
    /// The configuration.
    pub config: Vec<u8>,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// What its parts are named by.
    pub algorithm: &'static str,
}

impl Image {
    /// For this machine, of plain tars.
    #[must_use]
    pub fn new(tars: &[Vec<u8>], config: &Value) -> Self {
        Self::of_platform(tars, config, if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" })
    }

    /// For another architecture.
    #[must_use]
    pub fn of_platform(tars: &[Vec<u8>], config: &Value, architecture: &str) -> Self {
        Self::hashed_by("sha256", tars, config, architecture)
    }

    /// With digests of this algorithm (`sha256`, `sha512`).
    #[must_use]
    pub fn hashed_by(algorithm: &'static str, tars: &[Vec<u8>], config: &Value, architecture: &str) -> Self {
        let diff_ids: Vec<String> = tars.iter().map(|tar| digest(algorithm, tar)).collect();
        let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(algorithm, bytes), "size": bytes.len()});
        let layers: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": layers.iter().map(|layer| descriptor(LAYER_GZIP, layer)).collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        Self { layers, diff_ids, config, manifest, algorithm }
    }

    /// An image whose layers are noise of these sizes, which no compression makes smaller.
    #[must_use]
    pub fn of_noise(sizes: &[usize]) -> Self {
        let layer = |(n, size): (usize, &usize)| {
            crate::images::Tar::new().file(&format!("noise-{n}"), 0o644, &noise(n as u64 + 1, *size)).bytes()
        };
        Self::new(&sizes.iter().enumerate().map(layer).collect::<Vec<_>>(), &json!({"Cmd": ["/x"]}))
    }
}

/// `{"mediaType": …, "digest": …, "size": …}`
#[must_use]
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len()})
}

/// Compresses.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

/// Bytes that look random and are the same every time.
#[must_use]
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
