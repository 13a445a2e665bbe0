//! Unpacking into a container's directory. These need root (ownership, devices).

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use tar::EntryType;

use super::*;
use crate::apply::tests::{Item, dir, file, item, link, tar};

/// A container's root beside a canary.
struct Place {
    dir: tempfile::TempDir,
    root: Rooted,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/dst")).unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/canary"), "untouched").unwrap();
        let root = Rooted::open_dir(dir.path().join("root")).unwrap();
        Place { dir, root }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn extract(&self, items: &[Item], how: Extraction) -> io::Result<()> {
        extract(&self.root, Path::new("/dst"), &tar(items)[..], how)
    }

    fn pack(&self, path: &str, name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        crate::pack(&self.root.locate(path).unwrap(), name.as_bytes(), &mut out).unwrap();
        out
    }
}

#[test]
fn every_kind_of_entry_comes_out_as_it_went_in() {
    let place = Place::new();
    let items = [
        dir("d/", 0o2555),
        Item { mode: 0o4755, owner: (7, 8), ..file("d/suid", "x") },
        link("d/hard", EntryType::Link, "d/suid"),
        link("sym", EntryType::Symlink, "/nowhere"),
        item("null", EntryType::Char),
        item("fifo", EntryType::Fifo),
        file("implied/deep/file", "y"),
        dir("d/later", 0o700),
    ];
    place.extract(&items, Extraction::default()).unwrap();
    let meta = |path: &str| fs::symlink_metadata(place.at("dst").join(path)).unwrap();
    assert_eq!((meta("d").mode() & 0o7777, meta("d/later").mode() & 0o7777), (0o2555, 0o700));
    assert_eq!((meta("d/suid").mode() & 0o7777, meta("d/suid").uid(), meta("d/suid").gid()), (0o4755, 7, 8));
    assert_eq!(meta("d/hard").ino(), meta("d/suid").ino());
    assert_eq!(meta("null").rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(meta("implied/deep").mode() & 0o7777, 0o755);
    for path in ["d/suid", "sym", "fifo", "d/later"] {
        assert_eq!(meta(path).mtime(), 1_000_000_000, "{path}");
    }
    let owned = Extraction { owner: Some((1000, 1001)), ..Extraction::default() };
    place.extract(&items, owned).unwrap();
    for path in ["d", "d/suid", "sym", "null", "fifo"] {
        assert_eq!((meta(path).uid(), meta(path).gid()), (1000, 1001), "{path}");
    }
    assert_eq!(meta("d/suid").mode() & 0o7777, 0o4755, "a change of the owner comes before the mode");
}

#[test]
fn times_of_directories_are_the_archives() {
    let place = Place::new();
    let items =
        [dir("a", 0o755), dir("a/b", 0o755), file("a/b/f", "1"), file("a/c", "2"), dir("z", 0o755), file("z/f", "")];
    place.extract(&items, Extraction::default()).unwrap();
    for path in ["dst/a", "dst/a/b", "dst/z"] {
        assert_eq!(fs::metadata(place.at(path)).unwrap().mtime(), 1_000_000_000, "{path}");
    }
}

#[test]
fn names_stay_in_the_directory_and_links_in_the_root() {
    let place = Place::new();
    for name in ["../out", "a/../../out", ".."] {
        let error = place.extract(&[file(name, "x")], Extraction::default()).unwrap_err();
        assert!(error.to_string().ends_with("is outside of \"/dst\""), "{name}: {error}");
    }
    place.extract(&[file("/absolute", "x"), file("/../up", "x"), file("./a//b", "x")], Extraction::default()).unwrap();
    for path in ["dst/absolute", "dst/up", "dst/a/b"] {
        assert!(place.at(path).is_file(), "{path}");
    }
    symlink("/etc", place.at("dst/link")).unwrap();
    place.extract(&[file("link/made", "x")], Extraction::default()).unwrap();
    assert!(place.at("etc/made").is_file(), "an absolute link leads below the root");
    let through = [link("up", EntryType::Symlink, "../../../../etc"), file("up/canary", "changed")];
    place.extract(&through, Extraction::default()).unwrap();
    assert_eq!(fs::read_to_string(place.dir.path().join("etc/canary")).unwrap(), "untouched");
    let out = place.extract(&[link("hard", EntryType::Link, "../../etc/canary")], Extraction::default()).unwrap_err();
    assert!(out.to_string().contains("is outside of"), "{out}");
}

#[test]
fn kinds_are_kept_when_that_is_asked() {
    let place = Place::new();
    fs::create_dir_all(place.at("dst/d/below")).unwrap();
    fs::write(place.at("dst/f"), "old").unwrap();
    let kept = Extraction { keep_kinds: true, ..Extraction::default() };
    let error = place.extract(&[file("d", "new")], kept).unwrap_err();
    assert_eq!(error.to_string(), "cannot overwrite directory \"/dst/d\" with non-directory \"/dst\"");
    let error = place.extract(&[dir("f", 0o755)], kept).unwrap_err();
    assert_eq!(error.to_string(), "cannot overwrite non-directory \"/dst/f\" with directory \"/dst\"");
    place.extract(&[dir("d", 0o755), file("f", "new")], kept).unwrap();
    assert!(place.at("dst/d/below").is_dir());
    place.extract(&[file("d", "new"), dir("f", 0o755)], Extraction::default()).unwrap();
    assert!(place.at("dst/d").is_file() && place.at("dst/f").is_dir());
}

#[test]
fn what_is_packed_is_unpacked_again() {
    let place = Place::new();
    fs::create_dir_all(place.at("src/a/b")).unwrap();
    fs::write(place.at("src/a/one"), "1").unwrap();
    fs::hard_link(place.at("src/a/one"), place.at("src/a/b/two")).unwrap();
    symlink("../one", place.at("src/a/b/link")).unwrap();
    let sparse = File::create(place.at("src/sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.at("src/socket")).unwrap();
    let packed = place.pack("/src", "renamed");
    assert!(packed.len() < 1 << 20);
    extract(&place.root, Path::new("/dst"), &packed[..], Extraction::default()).unwrap();
    let ino = |path: &str| fs::symlink_metadata(place.at(path)).unwrap().ino();
    assert_eq!(ino("dst/renamed/a/one"), ino("dst/renamed/a/b/two"));
    assert_eq!(fs::read_link(place.at("dst/renamed/a/b/link")).unwrap(), Path::new("../one"));
    let sparse = fs::metadata(place.at("dst/renamed/sparse")).unwrap();
    assert!(sparse.size() == 64 << 20 && sparse.blocks() * 512 < 1 << 20);
    assert!(!place.at("dst/renamed/socket").exists());
    let names = |packed: &[u8]| {
        let mut archive = Archive::new(packed);
        let mut names = Vec::new();
        while let Some(entry) = archive.next_entry().unwrap() {
            names.push(String::from_utf8(entry.path).unwrap());
        }
        names
    };
    assert_eq!(names(&place.pack("/src/a", ".")), ["./", "./b/", "./b/link", "./b/two", "./one"]);
    assert_eq!(names(&place.pack("/src/a", "")), ["/", "/b/", "/b/link", "/b/two", "/one"]);
    assert_eq!(names(&place.pack("/src/a/one", "name")), ["name"]);
}

/// A process of the container swaps a directory for a link to the host's while files are put into it and taken out of it.
#[test]
fn a_link_that_comes_and_goes_leads_nowhere() {
    let place = Place::new();
    let (entry, directory, away) = (place.at("dst/d"), place.at("dst/real"), place.at("dst/away"));
    fs::create_dir(&directory).unwrap();
    let outside = place.dir.path().join("etc");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(fs::rename(&directory, &entry));
                drop(fs::rename(&entry, &directory));
                drop(symlink(&outside, &away));
                drop(fs::rename(&away, &entry));
                drop(fs::remove_file(&entry));
            }
        });
        let items = [
            dir("d", 0o755),
            file("d/canary", "changed"),
            link("d/s", EntryType::Symlink, "x"),
            item("d/p", EntryType::Fifo),
        ];
        let tar = tar(&items);
        for _ in 0..300 {
            drop(extract(
                &place.root,
                Path::new("/dst"),
                &tar[..],
                Extraction { owner: Some((1, 1)), ..Extraction::default() },
            ));
            let mut out = Vec::new();
            drop(crate::pack(&place.root.locate("/dst").unwrap(), b"dst", &mut out));
            assert!(!out.windows(9).any(|bytes| bytes == b"untouched"));
        }
        done.store(true, Ordering::Relaxed);
    });
    let names: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["canary"]);
    assert_eq!(fs::read_to_string(outside.join("canary")).unwrap(), "untouched");
    let meta = fs::metadata(&outside).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (0, 0));
}

/// What is written of a directory comes back with what the directory itself is.
#[test]
fn a_whole_directory_comes_back() {
    use std::os::unix::fs::PermissionsExt;
    let (from, to) = (Place::new(), Place::new());
    fs::write(from.at("dst/file"), "content").unwrap();
    fs::create_dir(from.at("dst/sub")).unwrap();
    fs::hard_link(from.at("dst/file"), from.at("dst/sub/link")).unwrap();
    std::os::unix::fs::chown(from.at("dst"), Some(7), Some(8)).unwrap();
    fs::set_permissions(from.at("dst"), fs::Permissions::from_mode(0o2751)).unwrap();
    rustix::fs::setxattr(from.at("dst"), c"user.note", b"kept", XattrFlags::empty()).unwrap();
    let mut tar = Vec::new();
    crate::pack_tree(&from.root.locate("dst").unwrap(), &mut tar).unwrap();
    let how = Extraction { whole: true, ..Extraction::default() };
    extract(&to.root, Path::new("/dst"), &tar[..], how).unwrap();
    for name in ["dst", "dst/file", "dst/sub", "dst/sub/link"] {
        let told = |place: &Place| {
            let meta = fs::metadata(place.at(name)).unwrap();
            (meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec(), meta.nlink())
        };
        assert_eq!(told(&from), told(&to), "{name}");
    }
    let mut value = [0; 16];
    assert_eq!(rustix::fs::getxattr(to.at("dst"), c"user.note", &mut value).unwrap(), 4);
    // Otherwise the directory is its owner's alone.
    let other = Place::new();
    extract(&other.root, Path::new("/dst"), &tar[..], Extraction::default()).unwrap();
    assert_eq!(fs::metadata(other.at("dst")).unwrap().uid(), 0);
}
