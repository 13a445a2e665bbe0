//! What goes out of a container: the list of changes, the layer of a commit, the archive of an export.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use snapshot::archive::{Archive, Entry, Kind};
use snapshot::{Change, ChangeKind};
use tar::EntryType;

use crate::conformance::is_place;
use crate::layer::Layer;
use crate::{Mounted, Place, apply, mounted};

/// One name of a tree, as far as an archive keeps it.
#[derive(Debug, PartialEq)]
struct Shape {
    mode: u32,
    owner: (u32, u32),
    seconds: i64,
    device: u64,
    content: u64,
    xattr: Vec<u8>,
    links: u64,
}

/// Everything below a directory.
fn shapes(dir: &Path) -> BTreeMap<String, Shape> {
    let mut found = BTreeMap::new();
    collect(dir, "", &mut found);
    found
}

fn collect(dir: &Path, below: &str, found: &mut BTreeMap<String, Shape>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{below}/{}", path.file_name().unwrap().to_str().unwrap());
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = match meta.file_type() {
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().as_bytes().to_vec(),
            kind if kind.is_file() => fs::read(&path).unwrap(),
            _ => Vec::new(),
        };
        let mut value = vec![0; 100];
        let length = rustix::fs::lgetxattr(&path, c"user.k", &mut value).unwrap_or(0);
        value.truncate(length);
        let shape = Shape {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            seconds: meta.mtime(),
            device: meta.rdev(),
            content: hash(&content),
            xattr: value,
            links: if meta.is_dir() { 0 } else { meta.nlink() },
        };
        found.insert(name.clone(), shape);
        if meta.is_dir() {
            collect(&path, &name, found);
        }
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hasher::write(&mut hasher, bytes);
    std::hash::Hasher::finish(&hasher)
}

fn entries(tar: &[u8]) -> Vec<Entry> {
    let mut archive = Archive::new(tar);
    let mut found = Vec::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        found.push(entry);
    }
    found
}

pub fn names(tar: &[u8]) -> Vec<String> {
    entries(tar).into_iter().map(|entry| String::from_utf8(entry.path).unwrap()).collect()
}

fn image() -> [Layer; 2] {
    let bottom = Layer::default()
        .dir("etc", 0o755)
        .file("etc/same", "1")
        .file("etc/written", "1")
        .file("etc/gone", "1")
        .dir("dir", 0o755)
        .file("dir/a", "1")
        .dir("again", 0o755)
        .file("again/old", "1")
        .dir("touched", 0o755)
        .file("turned", "a file")
        .dir("flat", 0o755)
        .file("flat/x", "1")
        .file("linked", "many names")
        .link("linked-too", EntryType::Link, "linked");
    [bottom, Layer::default().dir("top", 0o755).file("top/file", "1")]
}

/// Every kind of change that a container can make.
fn change_all(root: &Mounted) {
    fs::write(root.at("etc/written"), "changed").unwrap();
    fs::remove_file(root.at("etc/gone")).unwrap();
    fs::remove_dir_all(root.at("dir")).unwrap();
    fs::remove_dir_all(root.at("again")).unwrap();
    fs::create_dir(root.at("again")).unwrap();
    fs::write(root.at("again/new"), "x").unwrap();
    fs::create_dir(root.at("fresh")).unwrap();
    fs::write(root.at("fresh/file"), "x").unwrap();
    fs::set_permissions(root.at("top/file"), fs::Permissions::from_mode(0o4700)).unwrap();
    fs::write(root.at("touched/passing"), "x").unwrap();
    fs::remove_file(root.at("touched/passing")).unwrap();
    fs::remove_file(root.at("turned")).unwrap();
    fs::create_dir(root.at("turned")).unwrap();
    fs::write(root.at("turned/inside"), "x").unwrap();
    fs::remove_dir_all(root.at("flat")).unwrap();
    fs::write(root.at("flat"), "a file now").unwrap();
}

pub fn changes_are_told(place: Place) {
    let layers = image().map(|layer| apply(&place, layer));
    let root = mounted(&place, "c1", &layers);
    assert_eq!(place.snapshots.roots.changes("c1", &layers).unwrap(), []);
    change_all(&root);
    let change = |kind: ChangeKind, path: &str| Change { path: path.to_owned(), kind };
    use ChangeKind::{Added, Deleted, Modified};
    let expected = [
        change(Modified, "/again"),
        change(Added, "/again/new"),
        change(Deleted, "/again/old"),
        change(Deleted, "/dir"),
        change(Modified, "/etc"),
        change(Deleted, "/etc/gone"),
        change(Modified, "/etc/written"),
        change(Modified, "/flat"),
        change(Added, "/fresh"),
        change(Added, "/fresh/file"),
        change(Modified, "/top"),
        change(Modified, "/top/file"),
        change(Modified, "/turned"),
        change(Added, "/turned/inside"),
    ];
    // The container may run: its root is still mounted.
    assert_eq!(place.snapshots.roots.changes("c1", &layers).unwrap(), expected);
}

pub fn empty_places_of_mounts_are_no_changes(place: Place) {
    let layers = [apply(&place, Layer::default().file("program", "x"))];
    let root = mounted(&place, "c1", &layers);
    for dir in ["dev/shm", "etc", "proc", "sys", "data"] {
        fs::create_dir_all(root.at(dir)).unwrap();
    }
    for file in ["etc/hosts", "etc/hostname", "etc/resolv.conf"] {
        fs::write(root.at(file), "").unwrap();
    }
    let told = |place: &Place| {
        let changes = place.snapshots.roots.changes("c1", &layers).unwrap();
        changes.into_iter().map(|change| (change.kind, change.path)).collect::<Vec<_>>()
    };
    assert_eq!(told(&place), [(ChangeKind::Added, "/data".to_owned())]);
    fs::write(root.at("etc/mine"), "x").unwrap();
    fs::write(root.at("etc/hosts"), "127.0.0.1 me").unwrap();
    let expected = [
        (ChangeKind::Added, "/data"),
        (ChangeKind::Modified, "/etc"),
        (ChangeKind::Added, "/etc/hosts"),
        (ChangeKind::Added, "/etc/mine"),
    ];
    assert_eq!(told(&place), expected.map(|(kind, path)| (kind, path.to_owned())));
}

pub fn a_file_whose_time_was_set_back_is_packed(place: Place) {
    let layers = [apply(&place, Layer::default().file("file", "one"))];
    let root = mounted(&place, "c1", &layers);
    let before = fs::metadata(root.at("file")).unwrap().modified().unwrap();
    fs::write(root.at("file"), "two").unwrap();
    fs::File::options().write(true).open(root.at("file")).unwrap().set_modified(before).unwrap();
    let mut tar = Vec::new();
    let diff_id = place.snapshots.roots.write_diff("c1", &layers, &mut tar).unwrap();
    match place.snapshots.roots.name() {
        // A whole tree is not read to find such a file.
        "native" => assert_eq!(diff_id, None),
        _ => assert_eq!(names(&tar), ["file"]),
    }
}

/// A layer of all changes over the same image gives the same tree.
pub fn a_packed_layer_gives_the_same_tree(place: Place) {
    let layers = image().map(|layer| apply(&place, layer));
    let root = mounted(&place, "c1", &layers);
    let mut tar = Vec::new();
    assert_eq!(place.snapshots.roots.write_diff("c1", &layers, &mut tar).unwrap(), None);
    assert_eq!(tar, [0; 1024]);
    change_all(&root);
    let long = format!("fresh/{}/{}", "l".repeat(120), "\u{e9}".repeat(60));
    fs::create_dir_all(root.at(&long)).unwrap();
    symlink("/a/target".repeat(20), root.at("fresh/symlink")).unwrap();
    fs::hard_link(root.at("linked"), root.at("fresh/third-name")).unwrap();
    rustix::fs::mknodat(CWD, root.at("fresh/fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, root.at("fresh/null"), FileType::CharacterDevice, Mode::RUSR, null).unwrap();
    rustix::fs::setxattr(root.at("fresh/file"), c"user.k", b"value\n", XattrFlags::empty()).unwrap();
    std::os::unix::fs::chown(root.at("fresh/file"), Some(3_000_000), Some(7)).unwrap();
    std::os::unix::net::UnixListener::bind(root.at("fresh/socket")).unwrap();
    tar.clear();
    let diff_id = place.snapshots.roots.write_diff("c1", &layers, &mut tar).unwrap().unwrap();
    let mut again = Vec::new();
    place.snapshots.roots.write_diff("c1", &layers, &mut again).unwrap();
    assert_eq!(tar, again);
    // No layer holds a socket, but what its going does to the directory's time may be seen.
    let packed = fs::metadata(root.at("fresh")).unwrap().modified().unwrap();
    fs::remove_file(root.at("fresh/socket")).unwrap();
    fs::File::open(root.at("fresh")).unwrap().set_modified(packed).unwrap();

    let lease = place.pins.lease();
    let info = place.snapshots.layers.apply_layer(Some(&diff_id), &mut tar.as_slice(), &lease).unwrap();
    let committed = [layers.to_vec(), vec![snapshot::LayerKey::Diff(info.diff_id)]].concat();
    let copy = mounted(&place, "c2", &committed);
    let (mut expected, mut found) = (shapes(&root.at("")), shapes(&copy.at("")));
    for trees in [&mut expected, &mut found] {
        // Only its time changed, which no layer tells of.
        trees.get_mut("/touched").unwrap().seconds = 0;
        // In a copy each container has a mark of its own.
        trees.get_mut("/.dockerenv").unwrap().seconds = 0;
        // Links of one file over two layers are not told apart by every driver.
        for name in ["/linked", "/linked-too", "/fresh/third-name"] {
            trees.get_mut(name).unwrap().links = 0;
        }
    }
    assert_eq!(found, expected);
    assert_eq!(place.snapshots.roots.changes("c2", &committed).unwrap(), []);
}

pub fn names_of_one_file_stay_one_file(place: Place) {
    let layers = [apply(&place, Layer::default().file("a", "1").dir("d", 0o755))];
    let root = mounted(&place, "c1", &layers);
    fs::hard_link(root.at("a"), root.at("d/b")).unwrap();
    let mut tar = Vec::new();
    place.snapshots.roots.write_diff("c1", &layers, &mut tar).unwrap();
    let linked: Vec<_> = entries(&tar).into_iter().filter(|entry| entry.kind == Kind::HardLink).collect();
    assert_eq!((linked.len(), linked[0].path.as_slice(), linked[0].link.as_slice()), (1, &b"a"[..], &b"d/b"[..]));
}

pub fn an_export_is_the_whole_tree(place: Place) {
    let bottom = Layer::default().dir("etc", 0o755).file("etc/gone", "1").dir("hidden", 0o755).file("hidden/x", "1");
    let middle = Layer::default().file("hidden", "a file").file("etc/.wh.gone", "").dir("o", 0o755).file("o/x", "1");
    let top = Layer::default().dir("o", 0o711).file("o/.wh..wh..opq", "").file("o/y", "1").suid("su").link(
        "su2",
        EntryType::Link,
        "su",
    );
    let layers = [bottom, middle, top].map(|layer| apply(&place, layer));
    let root = mounted(&place, "c1", &layers);
    change_nothing_but(&root);
    let mut tar = Vec::new();
    place.snapshots.roots.export("c1", &layers, &mut tar).unwrap();
    let is_place =
        |path: &[u8]| path.starts_with(b"dev/") || is_place(str::from_utf8(path).unwrap().trim_end_matches('/'));
    let mut found = entries(&tar);
    found.retain(|entry| !is_place(&entry.path));
    let paths: Vec<_> = found.iter().map(|entry| str::from_utf8(&entry.path).unwrap()).collect();
    assert_eq!(paths, ["big", "etc/", "etc/new", "hidden", "o/", "o/y", "su", "su2"]);
    assert_eq!((found[6].kind, found[6].mode, found[6].uid), (Kind::File, 0o4755, 7));
    assert_eq!((found[7].kind, found[7].link.as_slice()), (Kind::HardLink, &b"su"[..]));
    // What tar makes of it is what the container sees.
    let copy = place.dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    let mut unpacker = tar::Archive::new(tar.as_slice());
    unpacker.set_preserve_ownerships(true);
    unpacker.set_preserve_permissions(true);
    unpacker.set_mask(0);
    unpacker.unpack(&copy).unwrap();
    let (mut expected, mut found) = (shapes(&root.at("")), shapes(&copy));
    // This unpacker sets times of directories before it fills them.
    for shape in expected.values_mut().chain(found.values_mut()).filter(|shape| shape.links == 0) {
        shape.seconds = 0;
    }
    assert_eq!(found, expected);
}

fn change_nothing_but(root: &Mounted) {
    fs::write(root.at("etc/new"), "x").unwrap();
    fs::write(root.at("big"), vec![b'x'; 300_001]).unwrap();
}

pub fn a_tree_in_flux_is_read_to_its_end(place: Place) {
    let layers = [apply(&place, Layer::default().dir("d", 0o755).file("kept", "1"))];
    let root = mounted(&place, "c1", &layers);
    let outside = place.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A directory with content and a link that leads out take turns under one name.
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for n in 0..20 {
                    fs::create_dir_all(root.at(&format!("d/{n}/deep/er"))).unwrap();
                    fs::write(root.at(&format!("d/{n}/deep/er/file")), vec![b'x'; 10_000]).unwrap();
                }
                for n in 0..20 {
                    let name = root.at(&format!("d/{n}"));
                    fs::remove_dir_all(&name).unwrap();
                    symlink(&outside, &name).unwrap();
                    fs::remove_file(&name).unwrap();
                }
            }
        });
        for _ in 0..60 {
            let mut tar = Vec::new();
            place.snapshots.roots.export("c1", &layers, &mut tar).unwrap();
            let names = names(&tar);
            assert!(names.contains(&"kept".to_owned()) && !names.iter().any(|name| name.contains("secret")));
            tar.clear();
            place.snapshots.roots.write_diff("c1", &layers, &mut tar).unwrap();
            assert!(!names.iter().any(|name| name.contains("secret")));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

pub fn a_removed_container_is_no_whole_export(place: Place) {
    let layers = [apply(&place, Layer::default().file("a", "1").file("b", "1"))];
    drop(mounted(&place, "c1", &layers));
    struct Remove<'p>(&'p Place);
    impl std::io::Write for Remove<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.snapshots.roots.remove("c1").unwrap();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = place.snapshots.roots.export("c1", &layers, &mut Remove(&place)).unwrap_err();
    assert!(error.message().contains("was removed while it was read"), "{error}");
    let error = place.snapshots.roots.export("c1", &layers, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), model::Kind::NotFound);
}

/// Deeper than any path: what can be named is told, nothing fails, and descriptors do not grow with the depth.
pub fn depth_has_no_price(place: Place) {
    let layers = [apply(&place, Layer::default().file("kept", "1"))];
    let root = mounted(&place, "c1", &layers);
    let mut here: std::os::fd::OwnedFd = fs::File::open(root.at("")).unwrap().into();
    let name = CString::new("d").unwrap();
    for _ in 0..2500 {
        rustix::fs::mkdirat(&here, &name, Mode::from_raw_mode(0o755)).unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        here = rustix::fs::openat(&here, &name, flags, Mode::empty()).unwrap();
    }
    let mut counted = Count { place: place.dir.path(), bytes: 0, most: 0 };
    place.snapshots.roots.export("c1", &layers, &mut counted).unwrap();
    assert!(counted.bytes > 2000 * 512 && counted.most < 20, "{} descriptors", counted.most);
    assert_eq!(place.snapshots.roots.changes("c1", &layers).unwrap().len(), 2048);
}

/// Nor has that of a layer: a test has the stack that such work has in the daemon.
pub fn a_layers_depth_has_no_price(place: Place) {
    let layers = [apply(&place, Layer::default().deep(1900))];
    let root = mounted(&place, "c1", &layers);
    assert!(root.at("d/d/d").exists());
    let mut tar = Vec::new();
    place.snapshots.roots.export("c1", &layers, &mut tar).unwrap();
    assert!(tar.len() > 1900 * 512);
    drop(root);
    place.snapshots.roots.remove("c1").unwrap();
}

struct Count<'p> {
    place: &'p Path,
    bytes: usize,
    most: usize,
}

impl std::io::Write for Count<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes += bytes.len();
        if self.bytes.is_multiple_of(512 * 64) {
            let links = fs::read_dir("/proc/self/fd").unwrap().map(|fd| fs::read_link(fd.unwrap().path()));
            let own = links.filter(|link| link.as_ref().is_ok_and(|link| link.starts_with(self.place)));
            self.most = self.most.max(own.count());
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Read by the layer's own unpacker as well as by others.
pub fn capabilities_are_kept(place: Place) {
    let layers = [apply(&place, Layer::default().file("ping", "x"))];
    let root = mounted(&place, "c1", &layers);
    // Version 2, CAP_NET_RAW, effective.
    let capability = [&[1, 0, 0, 2], &(1_u32 << 13).to_le_bytes()[..], &[0; 12]].concat();
    rustix::fs::setxattr(root.at("ping"), c"security.capability", &capability, XattrFlags::empty()).unwrap();
    let mut tar = Vec::new();
    place.snapshots.roots.write_diff("c1", &layers, &mut tar).unwrap();
    let found = entries(&tar);
    assert_eq!(found[0].xattrs[&b"security.capability"[..]], capability);
    assert!(found.iter().all(|entry| entry.xattrs.keys().all(|key| !key.starts_with(b"trusted."))));
    let mut text = String::new();
    let mut reader = tar::Archive::new(tar.as_slice());
    reader.entries().unwrap().next().unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "x");
}
