//! The images that are pulled: layers of pseudo-random content, laid down as the registry keeps them on disk.
//!
//! - The same in every run, so they are made once and kept in `target/images`; a half-made store is never used.
//! - Content gzips about as real layers do (2.5 : 1): words of a small vocabulary between runs of noise, in many small
//!   files and some large ones.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use model::lock::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};
use testkit::places;

/// Bytes of a generated block.
const BLOCK: usize = 64 << 10;
/// Gzip's answer to the generated content, measured; only the size of what is made depends on it.
const RATIO: f64 = 2.5;

/// One image of the bench.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Its repository.
    pub name: &'static str,
    /// Layers.
    pub layers: usize,
    /// Bytes of each when compressed, about.
    pub bytes: u64,
}

/// A made image.
pub struct Made {
    /// What it is.
    pub shape: Shape,
    /// Digests of the compressed layers of its tag `1`, in hexadecimal.
    pub layers: Vec<String>,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// A registry's directory with images.
pub struct Store {
    /// What the registry calls its root directory.
    pub root: PathBuf,
    /// What is in it.
    pub images: Vec<Made>,
}

impl Store {
    /// The store of these shapes, with so many tags (`1`, `2` …) of each, which have nothing in common. Made now unless
    /// it is kept from an earlier run.
    pub fn of(name: &str, shapes: &[Shape], tags: usize) -> Store {
        let root = places::target_dir().join("images").join(format!("registry-{name}-{tags}"));
        if !root.exists() {
            println!("making {} images in {} …", shapes.len() * tags, root.display());
            let unfinished = root.with_extension("unfinished");
            let _ = fs::remove_dir_all(&unfinished);
            shapes.iter().for_each(|shape| (1..=tags).for_each(|tag| image(&unfinished, *shape, tag)));
            fs::rename(&unfinished, &root).expect("a directory in target can be renamed");
        }
        let images = shapes.iter().map(|shape| made(&root, *shape)).collect();
        Store { root, images }
    }

    /// The file of a blob.
    pub fn blob(&self, hex: &str) -> PathBuf {
        blob_path(&self.root, hex)
    }
}

fn v2(root: &Path) -> PathBuf {
    root.join("docker/registry/v2")
}

fn blob_path(root: &Path, hex: &str) -> PathBuf {
    v2(root).join("blobs/sha256").join(&hex[..2]).join(hex).join("data")
}

/// Reads back what was made.
fn made(root: &Path, shape: Shape) -> Made {
    let link = v2(root).join("repositories").join(shape.name).join("_manifests/tags/1/current/link");
    let digest = fs::read_to_string(link).expect("the registry's directory is whole: remove it to make it anew");
    let manifest = fs::read(blob_path(root, digest.trim_start_matches("sha256:"))).expect("the manifest is there");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("the manifest is JSON");
    let layers = manifest["layers"].as_array().expect("it has layers");
    Made {
        shape,
        layers: layers.iter().map(|l| l["digest"].as_str().unwrap_or_default()[7..].to_owned()).collect(),
        bytes: layers.iter().filter_map(|l| l["size"].as_u64()).sum(),
    }
}

fn image(root: &Path, shape: Shape, tag: usize) {
    let layers = Mutex::new(vec![None; shape.layers]);
    let next = Mutex::new(0..shape.layers);
    let work = || {
        while let Some(n) = { next.lock().next() } {
            let layer = layer(root, shape, (tag, n));
            layers.lock()[n] = Some(layer);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let layers: Vec<Layer> = layers.into_inner().into_iter().flatten().collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "created": "1970-01-01T00:00:00Z", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| format!("sha256:{}", l.diff_id)).collect::<Vec<_>>()},
    })
    .to_string();
    let config_digest = put(root, config.as_bytes());
    let descriptor = |kind: &str, digest: &str, size: u64| {
        let media_type = format!("application/vnd.docker.{kind}");
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": descriptor("container.image.v1+json", &config_digest, config.len() as u64),
        "layers": layers.iter().map(|l| descriptor("image.rootfs.diff.tar.gzip", &l.digest, l.size)).collect::<Vec<_>>(),
    })
    .to_string();
    let manifest = put(root, manifest.as_bytes());
    let repository = v2(root).join("repositories").join(shape.name);
    let link = |place: String, digest: &str| {
        let dir = repository.join(place);
        fs::create_dir_all(&dir).expect("target can be written");
        fs::write(dir.join("link"), format!("sha256:{digest}")).expect("target can be written");
    };
    layers.iter().map(|l| &l.digest).chain([&config_digest]).for_each(|d| link(format!("_layers/sha256/{d}"), d));
    link(format!("_manifests/revisions/sha256/{manifest}"), &manifest);
    link(format!("_manifests/tags/{tag}/current"), &manifest);
    link(format!("_manifests/tags/{tag}/index/sha256/{manifest}"), &manifest);
}

/// Writes a small blob.
fn put(root: &Path, bytes: &[u8]) -> String {
    let digest = testkit::images::sha256(bytes);
    let path = blob_path(root, &digest);
    fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("target can be written");
    fs::write(path, bytes).expect("target can be written");
    digest
}

#[derive(Clone)]
struct Layer {
    digest: String,
    diff_id: String,
    size: u64,
}

/// Hashes what is written.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
    written: u64,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), written: 0 }
    }

    fn end(self) -> (W, String, u64) {
        let hex = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        (self.inner, hex, self.written)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Makes layer `n` of an image: half of its bytes in files of up to 32 KiB, the rest in four large ones.
fn layer(root: &Path, shape: Shape, (tag, n): (usize, usize)) -> Layer {
    let file = root.join(format!("{}-{n}", shape.name));
    fs::create_dir_all(root).expect("target can be written");
    let compressed = Hashed::new(BufWriter::new(File::create(&file).expect("target can be written")));
    let gzip = flate2::write::GzEncoder::new(compressed, flate2::Compression::default());
    let mut tar = tar::Builder::new(Hashed::new(gzip));
    let total = (shape.bytes as f64 * RATIO) as u64;
    let mut noise = Noise(
        0x9e37_79b9_7f4a_7c15 ^ ((n as u64 + 1) << 32) ^ ((tag as u64) << 48) ^ shape.bytes ^ shape.layers as u64,
    );
    let (mut left, mut number) = (total / 2, 0);
    while left > 0 {
        let size = (512 + noise.next() % (32 << 10)).min(left);
        if number % 40 == 0 {
            entry(&mut tar, &format!("l{n}/d{}/", number / 40), 0, &mut noise);
        }
        entry(&mut tar, &format!("l{n}/d{}/f{number}", number / 40), size, &mut noise);
        (left, number) = (left - size, number + 1);
    }
    (0..4).for_each(|large| entry(&mut tar, &format!("l{n}/large{large}"), total / 8, &mut noise));
    let (gzip, diff_id, _) = tar.into_inner().expect("target can be written").end();
    let (mut out, digest, size) = gzip.finish().expect("target can be written").end();
    out.flush().expect("target can be written");
    let place = blob_path(root, &digest);
    fs::create_dir_all(place.parent().expect("it lies in a directory")).expect("target can be written");
    fs::rename(&file, place).expect("a file in target can be renamed");
    Layer { digest, diff_id, size }
}

fn entry(tar: &mut tar::Builder<impl Write>, path: &str, size: u64, noise: &mut Noise) {
    let mut header = tar::Header::new_gnu();
    let directory = path.ends_with('/');
    header.set_entry_type(if directory { tar::EntryType::Directory } else { tar::EntryType::Regular });
    header.set_mode(if directory { 0o755 } else { 0o644 });
    header.set_mtime(1_600_000_000);
    header.set_size(size);
    tar.append_data(&mut header, path, Content { noise, block: Vec::new(), at: 0 }.take(size))
        .expect("it can be written");
}

/// xorshift64*
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Endless content.
struct Content<'n> {
    noise: &'n mut Noise,
    block: Vec<u8>,
    at: usize,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            self.block.clear();
            self.at = 0;
            while self.block.len() < BLOCK.min(buffer.len().max(512)) {
                let word = self.noise.next();
                match word % 5 {
                    // Noise, as machine code has it.
                    0 => self.block.extend_from_slice(&(word >> 3).to_le_bytes()[..6]),
                    // One of 2,048 words.
                    _ => self.block.extend_from_slice(format!("w{:x}yz_", (word >> 20) % 2048 * 7919).as_bytes()),
                }
            }
        }
        let n = buffer.len().min(self.block.len() - self.at);
        buffer[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
