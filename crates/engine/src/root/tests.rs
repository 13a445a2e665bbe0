//! Which data roots are begun, and which are refused.

use super::*;
use model::Kind;

/// A data root and an exec root.
struct Roots(tempfile::TempDir);

impl Roots {
    fn new() -> Roots {
        let roots = Roots(tempfile::tempdir().unwrap());
        [roots.data(), roots.exec()].iter().for_each(|dir| fs::create_dir(dir).unwrap());
        roots
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn exec(&self) -> PathBuf {
        self.0.path().join("exec")
    }

    fn quarantine(&self) -> Quarantine {
        Quarantine::new(&self.data())
    }

    fn store(&self) -> PathBuf {
        self.data().join(STORE)
    }

    fn open(&self) -> Result<()> {
        open_store(&self.data(), &self.exec(), &self.quarantine()).map(drop)
    }

    fn make(&self, place: &str) {
        fs::create_dir_all(self.data().join(place)).unwrap();
    }
}

fn id(digit: &str) -> String {
    digit.repeat(64)
}

#[test]
fn content_without_its_store_is_refused_by_name() {
    let places = [
        format!("containers/{}", id("1")),
        "volumes/v/_data".to_owned(),
        "volumes/.removed/v".to_owned(),
        format!("snapshots/overlay/{}", id("2")),
        format!("snapshots/copy/{}", id("2")),
        format!("content/blobs/sha256/{}", id("3")),
    ];
    for place in &places {
        for (what, spoil) in [
            ("is missing", (|_| ()) as fn(&Path)),
            ("the file is empty", |store| fs::write(store, "").unwrap()),
            ("no regular file", |store| fs::create_dir(store).unwrap()),
            ("magic number", |store| fs::write(store, vec![0; 1 << 20]).unwrap()),
        ] {
            let roots = Roots::new();
            roots.make(place);
            spoil(&roots.store());
            let error = roots.open().unwrap_err();
            assert_eq!(error.kind(), Kind::DataLoss, "{place}: {what}");
            let text = error.message();
            let store = roots.store().display().to_string();
            assert!(text.contains(what) && text.contains(&store) && text.contains("gantryd check --repair"), "{text}");
            assert!(roots.open().is_err() && roots.data().join(place).exists());
        }
    }
}

#[test]
fn a_new_root_begins_and_goes_on() {
    let roots = Roots::new();
    // What a start makes before it is killed, and what an operator's disk brings.
    ["containers", "tmp", "volumes/empty", "snapshots/overlay/tmp/1", "lost+found"].iter().for_each(|p| roots.make(p));
    roots.open().unwrap();
    roots.make(&format!("content/blobs/sha256/{}", id("4")));
    roots.open().unwrap();
    // A mark that outlives a store without content names nothing that could be lost.
    let roots = Roots::new();
    roots.open().unwrap();
    fs::remove_file(roots.store()).unwrap();
    roots.open().unwrap();
    roots.open().unwrap();
}

#[test]
fn a_store_from_elsewhere_or_an_older_copy_is_refused() {
    let (roots, other) = (Roots::new(), Roots::new());
    roots.open().unwrap();
    other.open().unwrap();
    let copy = fs::read(roots.store()).unwrap();
    let store = open_store(&roots.data(), &roots.exec(), &roots.quarantine()).unwrap();
    for key in ["a", "b"] {
        store.write_blocking(move |tx| tx.put_raw(&IMAGES, key, b"x")).unwrap();
    }
    drop(store);
    roots.make(&format!("snapshots/overlay/{}", id("5")));
    let newest = fs::read(roots.store()).unwrap();
    for (bytes, wanted) in [(fs::read(other.store()).unwrap(), "another data root"), (copy, "an older copy")] {
        fs::write(roots.store(), bytes).unwrap();
        for _ in 0..2 {
            let error = roots.open().unwrap_err();
            assert!(error.kind() == Kind::DataLoss && error.message().contains(wanted), "{error}");
        }
    }
    fs::write(roots.store(), newest).unwrap();
    roots.open().unwrap();
    // Without its mark only one that names nothing is suspicious.
    fs::remove_file(roots.data().join(STORE_MARK)).unwrap();
    roots.open().unwrap();
    // One that cannot be read is as good as none, and kept.
    fs::write(roots.data().join(STORE_MARK), "rubbish").unwrap();
    roots.open().unwrap();
    assert_eq!(fs::read(roots.data().join("quarantine/files").join(STORE_MARK)).unwrap(), b"rubbish");
    fs::remove_file(roots.data().join(STORE_MARK)).unwrap();
    fs::write(roots.store(), fs::read(other.store()).unwrap()).unwrap();
    let error = roots.open().unwrap_err();
    assert!(error.message().contains("names no image and no container"), "{error}");
}

#[test]
fn containers_of_another_data_root_are_left_alone() {
    let (roots, other) = (Roots::new(), Roots::new());
    fs::create_dir(roots.exec().join(id("6"))).unwrap();
    // The disk of the data root is not mounted.
    let error = roots.open().unwrap_err();
    assert!(error.kind() == Kind::Conflict && error.message().contains("not mounted"), "{error}");
    assert!(!roots.store().exists(), "the next start would find a store");
    // Of the first version: nothing tells whose they are.
    other.open().unwrap();
    for name in [STORE, STORE_MARK] {
        fs::copy(other.data().join(name), roots.data().join(name)).unwrap();
    }
    roots.open().unwrap();
    roots.open().unwrap();
    // Another's root with this exec root.
    let third = Roots::new();
    third.open().unwrap();
    let error = open_store(&third.data(), &roots.exec(), &third.quarantine()).map(drop).unwrap_err();
    assert!(error.message().contains("of another data root"), "{error}");
    fs::remove_dir(roots.exec().join(id("6"))).unwrap();
    open_store(&third.data(), &roots.exec(), &third.quarantine()).unwrap();
}

#[test]
fn an_engines_id_is_kept_and_one_that_cannot_be_read_is_set_aside() {
    let roots = Roots::new();
    let quarantine = roots.quarantine();
    let id = || engine_id(&roots.data(), &quarantine).unwrap();
    let mut last = id();
    assert_eq!((last.len(), id()), (36, last.clone()));
    let path = roots.data().join(ENGINE_ID);
    fs::write(&path, "").unwrap();
    assert_ne!(id(), last);
    assert!(quarantine.warnings().is_empty());
    let spoils = [
        (|path| fs::write(path, b"\xff\xfe").unwrap()) as fn(&Path),
        |path| fs::write(path, "x".repeat(1000)).unwrap(),
        |path| fs::write(path, "\0".repeat(36)).unwrap(),
        |path| fs::create_dir(path).unwrap(),
        |path| std::os::unix::fs::symlink(path, path).unwrap(),
    ];
    for (n, spoil) in spoils.into_iter().enumerate() {
        fs::remove_file(&path).unwrap();
        spoil(&path);
        let made = id();
        assert!(made != last && made.len() == 36 && id() == made);
        last = made;
        let warnings = quarantine.warnings();
        assert!(warnings.len() == n + 1 && warnings[n].starts_with(&path.display().to_string()), "{warnings:?}");
    }
    assert_eq!(fs::read_dir(roots.data().join("quarantine/files")).unwrap().count(), spoils.len());
}

#[test]
fn an_exec_root_that_does_not_tell_whose_it_is_is_taken_over() {
    let roots = Roots::new();
    roots.open().unwrap();
    fs::create_dir(roots.exec().join(id("6"))).unwrap();
    let owner = fs::read(roots.exec().join(OWNER)).unwrap();
    for spoiled in [&owner[..7], b"\xff\xfe", &[0; 33]] {
        fs::write(roots.exec().join(OWNER), spoiled).unwrap();
        roots.open().unwrap();
        assert_eq!(fs::read(roots.exec().join(OWNER)).unwrap(), owner);
    }
}
