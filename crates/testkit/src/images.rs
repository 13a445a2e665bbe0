//! Images made on the spot: busybox, the kit's own test program, a Debian root.
//!
//! - Everything is deterministic (times are zero), so image ids are the same in every run.
//! - Archives are what `docker save` writes: `manifest.json`, a config, layers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
pub use tar::EntryType;

use crate::{command, places};

/// Builds a tar in memory.
pub struct Tar {
    builder: tar::Builder<Vec<u8>>,
}

impl Default for Tar {
    fn default() -> Self {
        Self::new()
    }
}

impl Tar {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self { builder: tar::Builder::new(Vec::new()) }
    }

    fn entry(mut self, path: &str, kind: tar::EntryType, mode: u32, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        self.builder.append_data(&mut header, path, content).expect("writing to memory");
        self
    }

    fn link(mut self, path: &str, kind: tar::EntryType, target: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o777);
        header.set_size(0);
        self.builder.append_link(&mut header, path, target).expect("writing to memory");
        self
    }

    /// A directory.
    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(path, tar::EntryType::Directory, mode, b"")
    }

    /// A regular file.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(path, tar::EntryType::Regular, mode, content)
    }

    /// A hard link.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.link(path, tar::EntryType::Link, target)
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.link(path, tar::EntryType::Symlink, target)
    }

    /// An entry as the header has it, whatever its name, link and size say; nothing is checked.
    #[must_use]
    pub fn raw(mut self, name: &str, kind: tar::EntryType, link: &str, (size, content): (u64, &[u8])) -> Self {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(size);
        if matches!(kind, tar::EntryType::Char | tar::EntryType::Block) {
            header.set_device_major(1).and_then(|()| header.set_device_minor(3)).expect("small numbers");
        }
        header.set_cksum();
        self.builder.append(&header, content).expect("writing to memory");
        self
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        self.builder.into_inner().expect("writing to memory")
    }
}

/// `<algorithm>:<hex>`; `sha256` and `sha512`.
#[must_use]
pub fn digest(algorithm: &str, bytes: &[u8]) -> String {
    let hash: Vec<u8> = match algorithm {
        "sha512" => sha2::Sha512::digest(bytes).to_vec(),
        _ => sha2::Sha256::digest(bytes).to_vec(),
    };
    format!("{algorithm}:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// `sha256` in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Root file system of busybox, from the static one of the distribution, every applet a hard link.
#[must_use]
pub fn busybox_tar() -> Vec<u8> {
    let program = places::find("busybox");
    let content = std::fs::read(&program).expect("busybox can be read");
    assert!(!is_dynamic(&content), "{} is not static: install busybox-static", program.display());
    let mut root = Tar::new();
    for (dir, mode) in [
        ("bin/", 0o755),
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("home/", 0o755),
        ("proc/", 0o755),
        ("root/", 0o700),
        ("srv/", 0o755),
        ("sys/", 0o755),
        ("tmp/", 0o1777),
        ("usr/", 0o755),
        ("usr/bin/", 0o755),
        ("var/", 0o755),
        ("var/www/", 0o755),
    ] {
        root = root.dir(dir, mode);
    }
    root = root
        .file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n")
        .file("etc/group", 0o644, b"root:x:0:\ndaemon:x:1:\nwheel:x:10:daemon\nwww-data:x:33:\nnogroup:x:65534:\n")
        .file("etc/not-executable", 0o644, b"#!/bin/sh\n")
        .file("bin/busybox", 0o755, &content);
    let list = command::run(Command::new(&program).arg("--list"), b"").ok().stdout;
    for applet in list.lines().filter(|name| !name.is_empty() && *name != "busybox") {
        root = root.hard_link(&format!("bin/{applet}"), "bin/busybox");
    }
    root.symlink("usr/bin/env", "/bin/env").bytes()
}

/// True when an ELF program names an interpreter.
fn is_dynamic(elf: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let word = |at: usize, size: usize| -> u64 {
        let slice = elf.get(at..at + size).unwrap_or(&[]);
        slice.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
    };
    let (table, entry_size, count) = (word(32, 8), word(54, 2), word(56, 2));
    (0..count).any(|n| word((table + n * entry_size) as usize, 4) == u64::from(INTERPRETER))
}

/// An archive as `docker save` writes it: one image, its name, its layers (plain tars) and its container configuration.
#[must_use]
pub fn docker_archive(name: &str, layers: &[Vec<u8>], config: &Value) -> Vec<u8> {
    let digests: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    let image = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": digests.iter().map(|d| format!("sha256:{d}")).collect::<Vec<_>>()},
        "history": layers.iter().map(|_| json!({"created": "1970-01-01T00:00:00Z", "created_by": "testkit"})).collect::<Vec<_>>(),
    });
    let image = image.to_string();
    let config_name = format!("{}.json", sha256(image.as_bytes()));
    let paths: Vec<String> = digests.iter().map(|d| format!("{d}/layer.tar")).collect();
    let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": paths}]).to_string();
    let mut archive = Tar::new().file(&config_name, 0o644, image.as_bytes());
    for (path, layer) in paths.iter().zip(layers) {
        archive = archive.file(path, 0o644, layer);
    }
    archive.file("manifest.json", 0o644, manifest.as_bytes()).bytes()
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `busybox:latest`, command `sh`.
#[must_use]
pub fn busybox_archive() -> &'static [u8] {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    ARCHIVE.get_or_init(|| docker_archive("busybox:latest", &[busybox_tar()], &json!({"Cmd": ["sh"], "Env": [PATH]})))
}

/// `probe:latest`: the test program alone, as `/probe`.
#[must_use]
pub fn probe_archive() -> &'static [u8] {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let program = std::fs::read(places::program("gantry-probe")).expect("the test program can be read");
        assert!(!is_dynamic(&program), "gantry-probe is not static: build it with the workspace's flags");
        let root = Tar::new().file("probe", 0o755, &program).dir("tmp/", 0o1777).bytes();
        docker_archive("probe:latest", &[root], &json!({"Entrypoint": ["/probe"], "Cmd": ["true"]}))
    })
}

/// `front:latest`: a front end for builds, alone. Without the symbols of its programs it is small enough to be loaded often.
#[must_use]
pub fn frontend_archive() -> &'static [u8] {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory for a program");
        let (built, small) = (places::program("gantry-frontend"), dir.path().join("frontend"));
        let _ = command::run(Command::new(places::find("strip")).arg("-o").arg(&small).arg(built), b"").ok();
        let program = std::fs::read(&small).expect("the front end can be read");
        assert!(!is_dynamic(&program), "gantry-frontend is not static: build it with the workspace's flags");
        let root = Tar::new().file("front", 0o755, &program).dir("tmp/", 0o1777).bytes();
        let labels = json!({"moby.buildkit.frontend.caps": "moby.buildkit.frontend.inputs"});
        docker_archive("front:latest", &[root], &json!({"Entrypoint": ["/front"], "Labels": labels}))
    })
}

/// An image of many layers: file `n` holds `n`, file `top` holds the last number, and layer `n` removes file `n - 2`.
#[must_use]
pub fn layered_archive(name: &str, count: usize) -> Vec<u8> {
    let mut layers = vec![busybox_tar()];
    for n in 1..count {
        let layer = Tar::new().file(&format!("layer-{n}"), 0o644, n.to_string().as_bytes()).file(
            "top",
            0o644,
            n.to_string().as_bytes(),
        );
        let layer = if n > 2 { layer.file(&format!(".wh.layer-{}", n - 2), 0o000, b"") } else { layer };
        layers.push(layer.bytes());
    }
    docker_archive(name, &layers, &json!({"Cmd": ["sh"], "Env": [PATH]}))
}

/// A minimal Debian root file system as a tar; made once by debootstrap and kept in `target/images`.
#[must_use]
pub fn debian_tar() -> PathBuf {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| {
        let dir = places::target_dir().join("images");
        let tar = dir.join("debian.tar");
        if !tar.exists() {
            std::fs::create_dir_all(&dir).expect("target can be written");
            debootstrap(&tar);
        }
        tar
    })
    .clone()
}

fn debootstrap(tar: &Path) {
    let root = tempfile::tempdir().expect("a directory for debootstrap");
    let mut bootstrap = Command::new(places::find("debootstrap"));
    let mirror = std::env::var("DEBIAN_MIRROR").unwrap_or_else(|_| "http://deb.debian.org/debian".into());
    bootstrap.args(["--variant=minbase", "bookworm"]).arg(root.path()).arg(mirror);
    let status = bootstrap.stdout(std::process::Stdio::null()).status().expect("debootstrap starts");
    assert!(status.success(), "debootstrap failed: {status}");
    let partial = tar.with_extension("partial");
    let mut pack = Command::new("tar");
    pack.arg("--numeric-owner").arg("--one-file-system").arg("-C").arg(root.path()).arg("-cf").arg(&partial).arg(".");
    assert!(pack.status().expect("tar starts").success(), "tar failed");
    std::fs::rename(&partial, tar).expect("a file in target can be renamed");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busybox_root_has_its_applets_and_sticky_tmp() {
        let bytes = busybox_tar();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|e| {
                let e = e.unwrap();
                (e.path().unwrap().display().to_string(), e.header().mode().unwrap())
            })
            .collect();
        assert!(entries.contains(&("tmp/".into(), 0o1777)));
        for applet in ["sh", "httpd", "ping", "cat", "top"] {
            assert!(entries.iter().any(|(path, _)| *path == format!("bin/{applet}")), "{applet}");
        }
    }

    #[test]
    fn archives_are_the_same_every_time() {
        let one = docker_archive("x:y", &[Tar::new().file("a", 0o644, b"1").bytes()], &json!({}));
        let two = docker_archive("x:y", &[Tar::new().file("a", 0o644, b"1").bytes()], &json!({}));
        assert_eq!(one, two);
    }
}
