//! A data root whose store is gone, cut short, another's or older: nothing is swept, the daemon says how to go on.

use std::fs;
use std::path::{Path, PathBuf};

use testkit::Daemon;

use crate::with_busybox;

/// Every path below a directory with its length, sorted; the store and what the refused starts themselves touch not.
fn tree(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut dirs = ["content", "snapshots", "containers", "volumes"].map(|name| dir.join(name)).to_vec();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                dirs.push(entry.path());
            }
            found.push((entry.path(), if metadata.is_file() { metadata.len() } else { 0 }));
        }
    }
    found.sort();
    found
}

#[track_caller]
fn is_refused(d: &mut Daemon, what: &str, wanted: &str) {
    let before = tree(d.data_root());
    for _ in 0..2 {
        let refused = d.boot().unwrap_err();
        assert_eq!(refused.code, 1, "{what}: {refused:?}");
        for wanted in [wanted, "gantry.redb", "gantryd check --repair"] {
            assert!(refused.stderr.contains(wanted), "{what}: {}", refused.stderr);
        }
        assert_eq!(tree(d.data_root()), before, "{what}");
    }
    let checked = d.check(&[]);
    assert!(checked.code == 1 && checked.stdout.contains("store-"), "{what}: {checked:?}");
    assert_eq!(tree(d.data_root()), before, "{what}");
}

#[test]
fn a_start_without_the_right_store_sweeps_nothing() {
    let mut d = with_busybox();
    assert_eq!(d.stop(), 0);
    let (store, saved) = (d.data_root().join("gantry.redb"), d.path("saved"));
    fs::copy(&store, d.path("older")).unwrap();
    d.again();
    let _ = d.docker(&["run", "--name", "c", "-v", "kept:/kept", "busybox", "sh", "-c", "echo x > /kept/f"]).ok();
    assert_eq!(d.stop(), 0);
    fs::rename(&store, &saved).unwrap();
    is_refused(&mut d, "missing", "is missing");
    fs::write(&store, "").unwrap();
    is_refused(&mut d, "empty", "the file is empty");
    let whole = fs::read(&saved).unwrap();
    for length in [1, 4096, whole.len() / 2, whole.len() - 1] {
        fs::write(&store, &whole[..length]).unwrap();
        is_refused(&mut d, "cut short", "opening the store");
    }
    fs::copy(d.path("older"), &store).unwrap();
    is_refused(&mut d, "older", "an older copy");
    let other = Daemon::start();
    fs::copy(other.data_root().join("gantry.redb"), &store).unwrap();
    other.finish();
    is_refused(&mut d, "of another root", "another data root");
    fs::rename(&saved, &store).unwrap();
    d.again();
    assert_eq!(d.docker(&["run", "--rm", "-v", "kept:/kept", "busybox", "cat", "/kept/f"]).text(), "x");
    let _ = d.docker(&["start", "-a", "c"]).ok();
    let _ = d.docker(&["rm", "c"]).ok();
    let _ = d.docker(&["volume", "rm", "kept"]).ok();
    d.finish();
}

#[test]
fn a_repair_without_the_store_keeps_everything_and_a_start_begins_anew() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "--name", "c", "-v", "kept:/kept", "busybox", "sh", "-c", "echo x > /kept/f"]).ok();
    assert_eq!(d.stop(), 0);
    fs::remove_file(d.data_root().join("gantry.redb")).unwrap();
    let repaired = d.check(&["--repair"]);
    assert!(repaired.code == 0 && repaired.stdout.contains("repaired: moved volumes to"), "{repaired:?}");
    let kept = d.data_root().join("quarantine/stores/lost/volumes/kept/_data/f");
    assert_eq!(fs::read_to_string(kept).unwrap(), "x\n");
    d.again();
    assert_eq!(d.docker(&["ps", "-aq"]).text(), "");
    d.busybox();
    assert_eq!(d.docker(&["run", "--rm", "busybox", "echo", "works"]).text(), "works");
    d.finish();
}

/// The disk of the data root is not mounted: what runs is not taken for garbage.
#[test]
fn a_start_on_an_empty_data_root_ends_no_container() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]).ok();
    let pid: u32 = d.inspect("c", "{{.State.Pid}}").parse().unwrap();
    d.kill9();
    let (root, away) = (d.data_root().to_owned(), d.path("away"));
    fs::rename(&root, &away).unwrap();
    fs::create_dir(&root).unwrap();
    let refused = d.boot().unwrap_err();
    assert!(refused.code == 1 && refused.stderr.contains("not mounted"), "{refused:?}");
    fs::remove_dir_all(&root).unwrap();
    fs::rename(&away, &root).unwrap();
    assert!(testkit::process::alive(pid));
    d.again();
    assert_eq!(d.inspect("c", "{{.State.Pid}} {{.State.Running}}"), format!("{pid} true"));
    d.finish();
}

#[test]
fn small_files_that_cannot_be_read_are_set_aside_and_named() {
    let mut d = Daemon::start();
    assert_eq!(d.stop(), 0);
    for (path, spoiled) in
        [("engine-id", &b"\xff"[..]), ("gantry.redb.mark", b"rubbish"), ("engine-id", b""), ("gantry.redb.mark", b"")]
    {
        let place = d.data_root().join(path);
        fs::remove_file(&place).unwrap();
        match spoiled {
            b"" => fs::create_dir(&place).unwrap(),
            bytes => fs::write(&place, bytes).unwrap(),
        }
        d.again();
        let told = d.docker(&["info", "--format", "{{json .Warnings}}"]).text();
        assert!(told.contains(&place.display().to_string()) && place.is_file(), "{told}");
        assert_eq!(d.stop(), 0);
    }
    assert_eq!(fs::read_dir(d.data_root().join("quarantine/files")).unwrap().count(), 4);
    d.again();
    assert!(!d.docker(&["info", "--format", "{{json .Warnings}}"]).text().contains("quarantine"));
    d.finish();
}
