//! Unpacking: what an archive says comes out, and nothing comes out elsewhere. These need root (ownership, devices).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use proptest::prelude::*;
use tar::{EntryType, Header};

use super::*;

/// A directory `root` to unpack into, beside a canary that must not change.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root")).unwrap();
        fs::create_dir_all(dir.path().join("canary/etc")).unwrap();
        fs::write(dir.path().join("canary/etc/passwd"), "root").unwrap();
        Place { dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn apply(&self, tar: &[u8], whiteouts: Whiteouts) -> io::Result<Applied> {
        apply(File::open(self.at("")).unwrap().into(), tar, whiteouts)
    }

    /// Everything outside of the root: names, kinds, modes, sizes, contents.
    fn outside(&self) -> Vec<(PathBuf, u32, u64, Vec<u8>)> {
        let mut found = Vec::new();
        let mut todo = vec![self.dir.path().to_owned()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                let (path, meta) = (entry.path(), entry.metadata().unwrap());
                let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                if meta.is_dir() && path != self.at("").parent().unwrap().join("root") {
                    todo.push(path.clone());
                }
                if path.file_name().unwrap() != "root" {
                    found.push((path, meta.mode(), meta.nlink(), content));
                }
            }
        }
        found.sort();
        found
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub name: Vec<u8>,
    pub kind: EntryType,
    pub link: Vec<u8>,
    pub mode: u32,
    pub owner: (u64, u64),
    pub data: Vec<u8>,
}

pub(crate) fn item(name: &str, kind: EntryType) -> Item {
    Item { name: name.into(), kind, link: Vec::new(), mode: 0o644, owner: (0, 0), data: Vec::new() }
}

pub(crate) fn file(name: &str, data: &str) -> Item {
    Item { data: data.into(), ..item(name, EntryType::Regular) }
}

pub(crate) fn dir(name: &str, mode: u32) -> Item {
    Item { mode, ..item(name, EntryType::Directory) }
}

pub(crate) fn link(name: &str, kind: EntryType, target: &str) -> Item {
    Item { link: target.into(), ..item(name, kind) }
}

/// An archive of these. Writes headers by hand: the codec's builder refuses the names that matter here.
pub(crate) fn tar(items: &[Item]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..item.name.len()].copy_from_slice(&item.name);
        header.as_old_mut().linkname[..item.link.len()].copy_from_slice(&item.link);
        header.set_entry_type(item.kind);
        header.set_mode(item.mode);
        header.set_uid(item.owner.0);
        header.set_gid(item.owner.1);
        header.set_mtime(1_000_000_000);
        header.set_size(item.data.len() as u64);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&item.data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

#[test]
fn every_kind_of_entry_comes_out_as_it_went_in() {
    let place = Place::new();
    let items = [
        dir("d/", 0o2555),
        Item { mode: 0o4755, owner: (7, 8), ..file("d/suid", "x") },
        link("d/hard", EntryType::Link, "d/suid"),
        link("sym", EntryType::Symlink, "/d/suid"),
        item("null", EntryType::Char),
        item("blk", EntryType::Block),
        item("fifo", EntryType::Fifo),
        dir("sticky", 0o1777),
    ];
    place.apply(&tar(&items), Whiteouts::Overlay).unwrap();
    let meta = |path: &str| fs::symlink_metadata(place.at(path)).unwrap();
    assert_eq!(meta("d").mode() & 0o7777, 0o2555);
    assert_eq!((meta("d/suid").mode() & 0o7777, meta("d/suid").uid(), meta("d/suid").gid()), (0o4755, 7, 8));
    assert_eq!(meta("d/hard").ino(), meta("d/suid").ino());
    assert_eq!(fs::read_link(place.at("sym")).unwrap(), PathBuf::from("/d/suid"));
    assert_eq!(meta("null").rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(meta("null").mode() & 0o7777, 0o644);
    assert_eq!(meta("sticky").permissions().mode() & 0o7777, 0o1777);
    for path in ["d", "d/suid", "sym", "fifo", "blk", "sticky"] {
        assert_eq!(meta(path).mtime(), 1_000_000_000, "{path}");
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    let place = Place::new();
    let items = [
        dir("a", 0o755),
        file("a/b", "1"),
        file("a", "now a file"),
        file("c", "file"),
        dir("c", 0o700),
        file("c/d", "2"),
        link("l", EntryType::Symlink, "c"),
        dir("l", 0o755),
        file("l/only", "3"),
    ];
    place.apply(&tar(&items), Whiteouts::Overlay).unwrap();
    assert_eq!(fs::read_to_string(place.at("a")).unwrap(), "now a file");
    assert_eq!(fs::read_to_string(place.at("c/d")).unwrap(), "2");
    assert!(place.at("l/only").exists() && !place.at("c/only").exists());
}

#[test]
fn parents_without_an_entry_are_made_and_noted() {
    let place = Place::new();
    let items = [
        file("tmp/deep/file", "x"),
        file("etc/x", ""),
        dir("etc", 0o750),
        dir("real", 0o755),
        link("alias", EntryType::Symlink, "/real"),
        file("alias/new/file", "y"),
    ];
    let applied = place.apply(&tar(&items), Whiteouts::Overlay).unwrap();
    let implicit: Vec<_> = applied.implicit.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect();
    assert_eq!(implicit, ["real/new", "tmp", "tmp/deep"]);
    assert_eq!(fs::metadata(place.at("etc")).unwrap().mode() & 0o7777, 0o750);
    assert!(place.at("real/new/file").exists());
}

#[test]
fn whiteouts_become_what_overlay_reads() {
    let place = Place::new();
    let items = [
        file("d/.wh.gone", ""),
        file("d/.wh..wh..opq", ""),
        file(".wh..wh.plnk", ""),
        file(".wh.again", ""),
        dir("again", 0o755),
        file(".wh.under", ""),
        file("under/file", ""),
        dir("mine", 0o755),
        file(".wh.mine", ""),
        file("kept", "k"),
        file(".wh.kept", ""),
    ];
    place.apply(&tar(&items), Whiteouts::Overlay).unwrap();
    let opaque = |path: &str| crate::view::is_opaque(&File::open(place.at(path)).unwrap().into()).unwrap();
    let gone = fs::symlink_metadata(place.at("d/gone")).unwrap();
    assert_eq!((gone.mode() & 0o170_000, gone.rdev()), (0o020_000, 0));
    assert!(opaque("d") && opaque("again") && opaque("mine") && opaque("under"));
    assert_eq!(fs::read_to_string(place.at("kept")).unwrap(), "k");
    let left: Vec<_> = fs::read_dir(place.at("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".wh.")), "{left:?}");
}

#[test]
fn extended_attributes_are_kept_except_overlays_own() {
    let place = Place::new();
    let mut builder = tar::Builder::new(Vec::new());
    let capability = [1_u8, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let records: [(&str, &[u8]); 3] = [
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.user.note", b"n"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
    ];
    for (name, kind) in [("ping", EntryType::Regular), ("dir", EntryType::Directory), ("link", EntryType::Symlink)] {
        builder.append_pax_extensions(records).unwrap();
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(1000);
        header.set_size(0);
        header.set_path(name).unwrap();
        if kind == EntryType::Symlink {
            header.set_link_name("ping").unwrap();
        }
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
    }
    place.apply(&builder.into_inner().unwrap(), Whiteouts::Overlay).unwrap();
    let xattrs = |path: &str| crate::view::xattrs(&File::open(place.at(path)).unwrap().into()).unwrap();
    let names: Vec<_> = xattrs("ping").into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.contains(&"security.capability".to_owned()) && names.contains(&"user.note".to_owned()));
    let mut value = [0; 64];
    let read = rustix::fs::lgetxattr(place.at("dir"), "trusted.overlay.redirect", &mut value);
    assert_eq!(read, Err(Errno::NODATA));
}

#[test]
fn what_climbs_out_is_refused() {
    for (items, text) in [
        (vec![file("../x", "")], "\"../x\" is outside of the layer"),
        (vec![file("a/../../x", "")], "\"../x\" is outside of the layer"),
        (vec![file("a", ""), link("b", EntryType::Link, "../../canary/etc/passwd")], "is outside of the layer"),
        (vec![file("d/.wh.", "")], "invalid whiteout"),
        (vec![file(".wh...", "")], "invalid whiteout"),
        (vec![file("d/.wh..", "")], "invalid whiteout"),
        (vec![link("b", EntryType::Link, "nothing")], "b: hard link to nothing: no such file or directory"),
    ] {
        let place = Place::new();
        let before = place.outside();
        let error = place.apply(&tar(&items), Whiteouts::Overlay).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(place.outside(), before);
    }
}

#[test]
fn links_that_point_out_lead_inside() {
    let place = Place::new();
    symlink("root", place.dir.path().join("marker")).unwrap();
    let canary = place.dir.path().join("canary");
    let before = place.outside();
    let items = [
        link("abs", EntryType::Symlink, canary.to_str().unwrap()),
        file("abs/etc/passwd", "evil"),
        link("up", EntryType::Symlink, "../../canary"),
        file("up/etc/passwd", "evil"),
        link("file", EntryType::Symlink, "../canary/etc/passwd"),
        file("file", "evil"),
        link("hard", EntryType::Link, "up/etc/passwd"),
        file("/absolute", "in"),
        file("/../absolute2", "in"),
    ];
    place.apply(&tar(&items), Whiteouts::Overlay).unwrap();
    assert_eq!(place.outside(), before);
    assert!(place.at("canary/etc/passwd").exists() && place.at("absolute2").exists());
}

/// A hundred kilobytes of gzip can name gigabytes of directories.
#[test]
fn names_of_directories_do_not_fill_the_memory() {
    let place = Place::new();
    let above = format!("{}/", "a".repeat(200)).repeat(19);
    let named = |n: usize| {
        let name = format!("{above}{n:06}");
        let mut long = Item { data: name.into_bytes(), ..item("long", EntryType::GNULongName) };
        long.data.push(0);
        let archive = tar(&[long, dir("x", 0o755)]);
        archive[..archive.len() - 1024].to_vec()
    };
    let mut n = 0;
    let endless = std::iter::from_fn(|| {
        n += 1;
        Some(io::Cursor::new(named(n)))
    });
    let error =
        apply(File::open(place.at("")).unwrap().into(), Endless(endless, io::Cursor::default()), Whiteouts::Overlay);
    assert_eq!(error.unwrap_err().to_string(), "archive/tar: too many directories");
    assert!(n < NOTES / 3800, "{n} directories");
}

/// One piece after the other.
struct Endless<I>(I, io::Cursor<Vec<u8>>);

impl<I: Iterator<Item = io::Cursor<Vec<u8>>>> Read for Endless<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.1.read(buffer)? {
                0 => self.1 = self.0.next().unwrap_or_default(),
                n => return Ok(n),
            }
        }
    }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => "[abc]",
        2 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just(String::new()),
        1 => Just("canary".to_owned()),
        1 => Just("etc".to_owned()),
        1 => Just("passwd".to_owned()),
        1 => "\\.wh\\.[abc.]{0,2}",
        1 => Just(".wh..wh..opq".to_owned()),
    ];
    (any::<bool>(), prop::collection::vec(part, 1..5))
        .prop_map(|(absolute, parts)| format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")).into_bytes())
}

fn evil() -> impl Strategy<Value = Item> {
    let kind = prop_oneof![
        3 => Just(EntryType::Regular),
        2 => Just(EntryType::Directory),
        4 => Just(EntryType::Symlink),
        3 => Just(EntryType::Link),
        1 => Just(EntryType::Char),
        1 => Just(EntryType::Fifo),
    ];
    (name(), kind, name(), prop::bits::u32::masked(0o7777)).prop_map(|(name, kind, link, mode)| {
        let data = if kind == EntryType::Regular { b"evil".to_vec() } else { Vec::new() };
        Item { name, kind, link, mode, owner: (0, 0), data }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the archive holds, applied or refused: nothing outside the root changes.
    #[test]
    fn nothing_outside_the_root_is_touched(items in prop::collection::vec(evil(), 1..24), files in any::<bool>()) {
        let place = Place::new();
        let before = place.outside();
        let whiteouts = if files { Whiteouts::Files } else { Whiteouts::Overlay };
        // Each entry on its own as well, so that a refusal does not end the attack.
        for item in &items {
            drop(place.apply(&tar(std::slice::from_ref(item)), whiteouts));
        }
        drop(place.apply(&tar(&items), whiteouts));
        prop_assert_eq!(place.outside(), before);
    }

    /// Rubbish is an error or nothing, never a panic.
    #[test]
    fn rubbish_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..3000), at in 0_usize..2000) {
        let place = Place::new();
        let mut spoilt = tar(&[file("a", "12345"), dir("b", 0o755), file("b/c", "x")]);
        let end = (at + bytes.len()).min(spoilt.len());
        if at < end {
            spoilt[at..end].copy_from_slice(&bytes[..end - at]);
        }
        drop(place.apply(&spoilt, Whiteouts::Overlay));
        drop(place.apply(&bytes, Whiteouts::Overlay));
    }
}

/// As deep as a name can be, with none of its directories in the archive: on a stack that holds no frame for each.
#[test]
fn a_name_of_two_thousand_parts_takes_no_stack() {
    let deep = "d/".repeat(1900);
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in [(format!("{deep}f"), "1"), ("x".into(), "1"), (format!("{deep}g"), "2")] {
        let mut header = Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    let tar = builder.into_inner().unwrap();
    let place = Place::new();
    std::thread::scope(|scope| {
        let apply = || place.apply(&tar, Whiteouts::Overlay).map(|applied| applied.implicit.len());
        let applying = std::thread::Builder::new().stack_size(192 << 10).spawn_scoped(scope, apply).unwrap();
        assert_eq!(applying.join().unwrap().unwrap(), 1900);
    });
    assert_eq!(fs::read(place.at(&format!("{deep}g"))).unwrap(), b"2");
}

/// What is noted of directories goes with them, and with nothing that is only named alike.
#[test]
fn a_directory_that_is_replaced_is_forgotten_with_what_was_in_it() {
    let place = Place::new();
    let items = [
        file("d/e/f", ""),
        file("d-/f", ""),
        file("d0/f", ""),
        file("dd/f", ""),
        link("d", EntryType::Symlink, "dd"),
        file("dd/e/f", ""),
        file("dd/e", "no directory any more"),
    ];
    let applied = place.apply(&tar(&items), Whiteouts::Overlay).unwrap();
    let names: Vec<_> = applied.implicit.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    assert_eq!(names, ["d-", "d0", "dd"]);
}
