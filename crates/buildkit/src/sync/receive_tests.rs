//! Trees of files that clients send, honest ones and others.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const DIRECTORY: u32 = 1 << 31 | 0o755;
const LINK: u32 = 1 << 27 | 0o777;

fn status(path: &str, mode: u32, content: &str) -> Stat {
    let size = i64::try_from(content.len()).unwrap();
    Stat { path: path.into(), mode, size, mod_time: 1_700_000_000_000_000_001, ..Stat::default() }
}

fn packet(kind: PacketType) -> Packet {
    Packet { r#type: kind.into(), ..Packet::default() }
}

/// Sends a tree; answers which files were asked for, and whether anything was changed.
fn send(root: &Path, entries: &[(Stat, &str)], differ: Differ) -> Result<(Vec<String>, bool)> {
    let mut receiver = Receiver::new(Rooted::open_dir(root).unwrap(), differ)?;
    for (stat, _) in entries {
        receiver.take(Packet { stat: Some(stat.clone()), ..packet(PacketType::PacketStat) }, &Blocking::alone())?;
    }
    receiver.take(packet(PacketType::PacketStat), &Blocking::alone())?;
    let mut asked = Vec::new();
    while !receiver.is_complete() {
        let ids = receiver.requests();
        assert!(!ids.is_empty() && ids.len() <= WINDOW);
        for id in ids {
            let (stat, content) = &entries[id as usize];
            asked.push(stat.path.clone());
            for part in [content.as_bytes(), b""] {
                receiver
                    .take(Packet { id, data: part.to_vec(), ..packet(PacketType::PacketData) }, &Blocking::alone())?;
            }
        }
    }
    Ok((asked, receiver.finish()?))
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn only_what_differs_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let first = [
        (status("a", 0o644, "one"), "one"),
        (status("d", DIRECTORY, ""), ""),
        (status("d/b", 0o755, "two"), "two"),
        (status("d/c", 0o600, "three"), "three"),
        (Stat { linkname: "../a".into(), ..status("d/l", LINK, "") }, ""),
    ];
    let (asked, changed) = send(root, &first, Differ::Metadata).unwrap();
    assert_eq!((asked, changed), (vec!["a".into(), "d/b".into(), "d/c".into()], true));
    assert_eq!((text(&root.join("d/l")).as_str(), text(&root.join("d/c")).as_str()), ("one", "three"));
    let found = std::fs::metadata(root.join("d/b")).unwrap();
    assert_eq!((found.permissions().mode() & 0o7777, found.mtime(), found.mtime_nsec()), (0o755, 1_700_000_000, 1));
    assert_eq!(std::fs::metadata(root.join("d")).unwrap().mtime(), 1_700_000_000);
    assert_eq!(send(root, &first, Differ::Metadata).unwrap(), (vec![], false));
    assert_eq!(send(root, &first, Differ::None).unwrap().0.len(), 3);
    let second = [
        first[0].clone(),
        (status("d", DIRECTORY, ""), ""),
        (status("d/c", 0o600, "changed"), "changed"),
        (status("e", 0o644, "new"), "new"),
    ];
    let (asked, changed) = send(root, &second, Differ::Metadata).unwrap();
    assert_eq!((asked, changed), (vec!["d/c".into(), "e".into()], true));
    assert!(!root.join("d/b").exists() && root.join("d/l").symlink_metadata().is_err());
    assert_eq!(std::fs::metadata(root.join("d")).unwrap().mtime(), 1_700_000_000);
    assert_eq!(send(root, &[], Differ::Metadata).unwrap(), (vec![], true));
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 0);
}

#[test]
fn kinds_may_change() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let tree = [(status("x", DIRECTORY, ""), ""), (status("x/y", 0o644, "1"), "1")];
    send(root, &tree, Differ::Metadata).unwrap();
    send(root, &[(Stat { linkname: "/etc".into(), ..status("x", LINK, "") }, "")], Differ::Metadata).unwrap();
    assert_eq!(std::fs::read_link(root.join("x")).unwrap(), Path::new("/etc"));
    send(root, &tree, Differ::Metadata).unwrap();
    assert_eq!(text(&root.join("x/y")), "1");
    send(root, &[(status("x", 0o644, "2"), "2")], Differ::Metadata).unwrap();
    assert_eq!(text(&root.join("x")), "2");
}

#[test]
fn links_between_files_stay() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let link = Stat { linkname: "a".into(), ..status("b", 0o644, "one") };
    let tree = [(status("a", 0o644, "one"), "one"), (link.clone(), "")];
    assert_eq!(send(root, &tree, Differ::Metadata).unwrap(), (vec!["a".into()], true));
    assert_eq!(std::fs::metadata(root.join("a")).unwrap().nlink(), 2);
    assert_eq!(send(root, &tree, Differ::Metadata).unwrap(), (vec![], false));
    let tree = [(status("a", 0o600, "one"), "one"), (link, "")];
    send(root, &tree, Differ::Metadata).unwrap();
    assert_eq!(std::fs::metadata(root.join("a")).unwrap().nlink(), 2);
}

#[test]
fn what_no_honest_client_sends_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(dir.path().join("outside"), "kept").unwrap();
    let refused = |entries: &[(Stat, &str)]| send(&root, entries, Differ::Metadata).unwrap_err().message().to_owned();
    for path in ["../outside", "a/../../outside", ".."] {
        assert_eq!(refused(&[(status(path, 0o644, ""), "")]), format!("escape check {path}: invalid argument"));
    }
    assert_eq!(refused(&[(status("/etc/x", 0o644, ""), "")]), "absolute path /etc/x: invalid argument");
    for path in ["", ".", "a//b", "./a", "a/", "a\0b"] {
        assert!(refused(&[(status(path, 0o644, ""), "")]).starts_with("unclean path"), "{path:?}");
    }
    for (first, second) in [("b", "a"), ("a", "a"), ("a", "a/b"), ("a", "c/d")] {
        let entries = [(status(first, 0o644, ""), ""), (status(second, 0o644, ""), "")];
        assert!(refused(&entries).starts_with("changes out of order"), "{first} {second}");
    }
    let link = Stat { linkname: "..".into(), ..status("l", LINK, "") };
    assert!(refused(&[(link, ""), (status("l/outside", 0o644, "x"), "x")]).starts_with("changes out of order"));
    for target in ["../outside", "missing"] {
        refused(&[(Stat { linkname: target.into(), ..status("h", 0o644, "") }, "")]);
    }
    assert_eq!(text(&dir.path().join("outside")), "kept");
    let mut receiver = Receiver::new(Rooted::open_dir(&root).unwrap(), Differ::Metadata).unwrap();
    let data = Packet { id: 5, data: b"x".to_vec(), ..packet(PacketType::PacketData) };
    assert_eq!(receiver.take(data, &Blocking::alone()).unwrap_err().message(), "invalid file request 5");
    receiver.take(packet(PacketType::PacketStat), &Blocking::alone()).unwrap();
    assert!(receiver.take(packet(PacketType::PacketStat), &Blocking::alone()).is_err());
    let told = Packet { data: b"no".to_vec(), ..packet(PacketType::PacketErr) };
    assert_eq!(receiver.take(told, &Blocking::alone()).unwrap_err().message(), "error from sender: no");
}

/// Numbers that look random, the same in each run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn packet(&mut self) -> Packet {
        const PATHS: &[&str] =
            &["a", "a/b", "a/b/c", "b", "l", "l/outside", "../outside", "/etc", "a/../b", "", "z", "z/outside"];
        const MODES: &[u32] =
            &[0o644, 0o755, DIRECTORY, DIRECTORY, LINK, 1 << 25 | 0o600, 1 << 24, 1 << 19, 1 << 26 | 1 << 21 | 0o600];
        let kind = self.one(&[0, 0, 0, 0, 0, 0, 1, 2, 2, 3, 4, 9]);
        let stat = Stat {
            path: self.one(PATHS).into(),
            mode: self.one(MODES),
            linkname: self.one(&["", "", "..", "/", "a", "../outside", "l/outside"]).into(),
            size: self.one(&[0, 1, -1, i64::MAX]),
            mod_time: self.one(&[0, -1, i64::MIN, i64::MAX, 1_700_000_000_000_000_000]),
            ..Stat::default()
        };
        let is_end = self.below(12) == 0;
        let data = vec![0; self.below(3)];
        let id = u32::try_from(self.below(8)).unwrap();
        Packet { r#type: kind, stat: (kind == 0 && !is_end).then_some(stat), id, data }
    }
}

/// Whatever a client sends, in whatever order: nothing outside of the root is touched, and nothing panics.
#[test]
fn no_packets_reach_out_of_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let outside = dir.path().join("outside");
    std::fs::write(&outside, "kept").unwrap();
    let before = std::fs::metadata(&outside).unwrap();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for _ in 0..600 {
        let mut receiver = Receiver::new(Rooted::open_dir(&root).unwrap(), Differ::Metadata).unwrap();
        for _ in 0..40 {
            if receiver.take(numbers.packet(), &Blocking::alone()).is_err() {
                break;
            }
            let _ = receiver.requests();
        }
        let _ = receiver.finish();
        let after = std::fs::metadata(&outside).unwrap();
        assert_eq!((after.nlink(), after.mode(), after.mtime()), (1, before.mode(), before.mtime()));
        assert_eq!(text(&outside), "kept");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
