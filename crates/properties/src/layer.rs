//! Unpacking a layer, and an archive into a directory of a container.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use model::digest::Digest;
use sha2::{Digest as _, Sha256};
use snapshot::Snapshots;
use store::Pins;

/// Bytes of a block of an archive, and where its header keeps size and checksum.
const BLOCK: usize = 512;
const SIZE: std::ops::Range<usize> = 124..136;
const SUM: std::ops::Range<usize> = 148..156;

/// A data root with canaries around the place where layers are unpacked.
struct Place {
    dir: tempfile::TempDir,
    snapshots: Snapshots,
    pins: Pins,
    before: Vec<Seen>,
    /// What lies among the layers when there is none.
    empty: Vec<PathBuf>,
}

/// What is looked at outside of the layers: path, mode, links, size, time of change, content.
type Seen = (PathBuf, u32, u64, u64, (i64, i64), Vec<u8>);

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// An archive is refused and nothing is left of it, or it is the layer of its digest and can be removed whole; in both
/// cases nothing outside of the layer changes. Asked of the bytes as they are, and with the checksums of their headers
/// made right. Needs root.
pub fn layer(bytes: &[u8]) {
    PLACE.with_borrow_mut(|place| {
        let place = place.get_or_insert_with(Place::new);
        place.unpack(bytes);
        let repaired = repaired(bytes);
        if repaired != bytes {
            place.unpack(&repaired);
        }
    });
}

/// An archive put into a directory of a container changes nothing outside of the container, refused or not. Asked of the
/// bytes as they are, and with the checksums of their headers made right. Needs root.
pub fn extraction(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("data/snapshots");
    fs::create_dir_all(root.join("dst")).expect("a directory");
    std::os::unix::fs::symlink("/", root.join("dst/up")).expect("a link");
    fs::write(dir.path().join("canary"), "untouched").expect("a file");
    let before = outside(dir.path());
    let rooted = sys::rooted::Rooted::open_dir(&root).expect("the root");
    for (bytes, keep_kinds) in [(bytes.to_vec(), false), (repaired(bytes), true), (repaired(bytes), false)] {
        let how = snapshot::Extraction { keep_kinds, ..Default::default() };
        // What is refused is told; only what it did counts here.
        drop(snapshot::extract(&rooted, Path::new("/dst"), &bytes[..], how));
    }
    assert_eq!(outside(dir.path()), before, "something outside of the container changed");
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        fs::create_dir_all(data.join("etc")).expect("a directory");
        for canary in ["canary", "etc-passwd", "data/canary", "data/etc/passwd"] {
            let mut file = fs::File::create(dir.path().join(canary)).expect("a file");
            file.write_all(b"untouched").expect("a file");
        }
        let snapshots = snapshot::open(&data, "").expect("layers can be unpacked here (as root)");
        let (before, empty) = (outside(dir.path()), left(&data.join("snapshots")));
        Place { dir, snapshots, pins: Pins::default(), before, empty }
    }

    fn unpack(&self, tar: &[u8]) {
        let lease = self.pins.lease();
        let applied = self.snapshots.layers.apply_layer(None, &mut { tar }, &lease);
        if let Ok(info) = &applied {
            assert_eq!(info.diff_id, Digest::from_sha256(&Sha256::digest(tar).into()));
            assert_eq!(
                self.snapshots.layers.layer(&(&info.diff_id).into()).expect("it can be read").map(|l| l.size),
                Some(info.size)
            );
        }
        drop(lease);
        self.snapshots.layers.sweep(&HashSet::new(), &self.pins.begin_sweep()).expect("layers can be removed");
        let left = left(&self.dir.path().join("data/snapshots"));
        assert_eq!(left, self.empty, "something is left of {applied:?}");
        assert_eq!(outside(self.dir.path()), self.before, "something outside of the layer changed");
    }
}

/// Everything but what lies in the directory of layers.
fn outside(root: &Path) -> Vec<Seen> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).expect("it can be listed").map(|entry| entry.expect("an entry")) {
            let (path, meta) = (entry.path(), entry.metadata().expect("its attributes"));
            if path.ends_with("data/snapshots") {
                continue;
            }
            let content = if meta.is_file() { fs::read(&path).expect("its content") } else { Vec::new() };
            let changed = if meta.is_file() { (meta.mtime(), meta.ctime()) } else { (0, 0) };
            found.push((path.clone(), meta.mode(), meta.nlink(), meta.size(), changed, content));
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    found.sort();
    found
}

/// What lies among the layers and where they are made.
fn left(snapshots: &Path) -> Vec<PathBuf> {
    let list = |dir: &Path| -> Vec<PathBuf> {
        fs::read_dir(dir).into_iter().flatten().map(|entry| entry.expect("an entry").path()).collect()
    };
    let drivers = list(snapshots);
    let inner = drivers.iter().flat_map(|driver| list(driver));
    inner.flat_map(|path| if path.ends_with("tmp") { list(&path) } else { vec![path] }).collect()
}

/// The archive with every header's checksum made right, so that changes behind a header are not all refused at once.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let mut fixed = bytes.to_vec();
    let mut at = 0;
    while let Some(header) = fixed.get_mut(at..at + BLOCK) {
        if header.iter().any(|byte| *byte != 0) {
            header[SUM].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let digits = header[SIZE].iter().take_while(|byte| byte.is_ascii_digit());
        let size = digits.fold(0_usize, |size, digit| size.saturating_mul(8).saturating_add(usize::from(digit - b'0')));
        at = at.saturating_add(BLOCK).saturating_add(size.saturating_add(BLOCK - 1) / BLOCK * BLOCK);
    }
    fixed
}
