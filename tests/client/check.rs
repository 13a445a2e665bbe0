//! `gantryd check`: each kind of fault is planted, named and repaired; a living daemon is not disturbed and gives no
//! false alarm.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use image::{USERS, UserRow};
use testkit::fake_registry::{FakeRegistry, Image};
use testkit::{Connection, Daemon, Options};

use crate::{PATIENCE, with_busybox};

/// What lies in a directory, sorted.
fn listed(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// The store of a data root that no daemon works on.
fn store(root: &Path) -> store::Store {
    store::Store::open(&root.join("gantry.redb")).unwrap()
}

/// The blobs of the only image, largest first: layer, configuration, manifest.
fn blobs(root: &Path) -> Vec<PathBuf> {
    let mut found = listed(&root.join("content/blobs/sha256"));
    found.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    found
}

fn layer(root: &Path) -> PathBuf {
    let found = listed(&root.join("snapshots/overlay"));
    found.into_iter().find(|path| path.file_name().unwrap().len() == 64).unwrap()
}

fn container(root: &Path) -> PathBuf {
    listed(&root.join("containers")).remove(0)
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Damage, and the names of what a check has to find.
pub type Plant = (&'static str, &'static [&'static str], fn(&Path));

pub const PLANTS: &[Plant] = &[
    ("a byte of a layer's blob", &["blob-damaged", "image-content"], |root| flip(&blobs(root)[0])),
    ("a blob cut off", &["blob-damaged", "image-content"], |root| {
        let layer = fs::File::options().write(true).open(&blobs(root)[0]).unwrap();
        layer.set_len(1000).unwrap();
    }),
    ("a blob gone", &["image-content"], |root| fs::remove_file(&blobs(root)[0]).unwrap()),
    ("a configuration gone", &["image-content"], |root| fs::remove_file(&blobs(root)[1]).unwrap()),
    ("a byte of the manifest", &["blob-damaged", "image-content"], |root| flip(&blobs(root)[2])),
    ("a layer gone", &["layer-missing"], |root| fs::remove_dir_all(layer(root)).unwrap()),
    ("a file of a layer gone", &["layer-damaged"], |root| fs::remove_file(layer(root).join("fs/bin/busybox")).unwrap()),
    ("a byte of a file of a layer", &["layer-damaged"], |root| flip(&layer(root).join("fs/bin/busybox"))),
    ("a file too many in a layer", &["layer-damaged"], |root| fs::write(layer(root).join("fs/new"), "").unwrap()),
    ("a layer without its record", &["layer-damaged"], |root| fs::remove_file(layer(root).join("layer.json")).unwrap()),
    ("an orphan blob", &["orphan-blob"], |root| {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        fs::write(root.join("content/blobs/sha256").join(empty), "").unwrap();
    }),
    ("an orphan layer", &["orphan-layer"], |root| {
        fs::create_dir_all(root.join("snapshots/overlay").join("1".repeat(64)).join("fs")).unwrap();
    }),
    ("an orphan container", &["orphan-container"], |root| {
        fs::create_dir_all(root.join("containers").join("2".repeat(64)).join("rw/upper")).unwrap();
    }),
    ("an orphan volume", &["orphan-volume"], |root| {
        fs::create_dir_all(root.join("volumes/lost/_data")).unwrap();
        fs::write(root.join("volumes/lost/_data/file"), "precious").unwrap();
    }),
    ("unfinished work", &["leftover", "leftover", "leftover"], |root| {
        fs::write(root.join("content/ingest/99"), "x").unwrap();
        fs::create_dir_all(root.join("snapshots/overlay/tmp/7/fs")).unwrap();
        fs::write(root.join("tmp/spilled"), "x").unwrap();
    }),
    ("an old part", &["expired-part"], |root| {
        let part = root.join("content/parts").join("3".repeat(64));
        fs::write(&part, "x").unwrap();
        let times = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
        fs::File::options().write(true).open(part).unwrap().set_times(times).unwrap();
    }),
    ("files of nobody", &["unknown-file"; 4], |root| {
        for place in ["note", "content/note", "content/blobs/sha256/note", "containers/note"] {
            fs::write(root.join(place), "x").unwrap();
        }
    }),
    ("a container's directory gone", &["container-directory"], |root| fs::remove_dir_all(container(root)).unwrap()),
    ("a writable layer gone", &["container-writable-layer"], |root| {
        fs::remove_dir_all(container(root).join("rw")).unwrap();
    }),
    ("half a writable layer gone", &["container-writable-layer"], |root| {
        fs::remove_dir_all(container(root).join("rw/work")).unwrap();
    }),
    ("a container that is not, in the index of users", &["image-user"], |root| {
        let row = UserRow { reference: "a".into(), manifest: None, layers: Vec::new() };
        let key = format!("sha256:{}/{}", "5".repeat(64), "6".repeat(64));
        store(root).write_blocking(move |tx| tx.put(&USERS, &key, &row)).unwrap();
    }),
    ("a volume's data gone", &["volume-data"], |root| fs::remove_dir_all(root.join("volumes/kept/_data")).unwrap()),
];

#[test]
fn each_kind_of_fault_is_named_and_repaired() {
    let mut d = with_busybox();
    let _ = d.docker(&["create", "--name", "c", "-v", "kept:/kept", "busybox", "true"]).ok();
    for (what, names, plant) in PLANTS {
        assert_eq!(d.stop(), 0);
        assert_eq!(d.faults(), [""; 0], "before {what}");
        plant(d.data_root());
        let faults = d.faults();
        let mut found: Vec<_> = faults.iter().map(|fault| fault.split(':').next().unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, *names, "{what}: {faults:#?}");
        let repaired = d.check(&["--repair"]);
        assert!(repaired.code == 0 && repaired.stdout.contains("repaired: "), "{what}: {repaired:?}");
        assert_eq!(d.faults(), [""; 0], "after the repair of {what}");
        d.again();
        assert_eq!(d.faults(), [""; 0], "with a daemon, after {what}");
        // What was lost of the image comes back by its name.
        d.busybox();
        assert_eq!(d.docker(&["run", "--rm", "busybox", "echo", "works"]).text(), "works", "after {what}");
        let _ = d.docker(&["start", "-a", "c"]).ok();
    }
    let lost = fs::read_to_string(d.data_root().join("quarantine/volumes/lost/_data/file"));
    assert_eq!(lost.unwrap(), "precious");
    d.finish();
}

/// A data root of a version that knew no index of who uses which image.
#[test]
fn an_index_of_users_that_is_not_there_is_made() {
    let mut d = with_busybox();
    let _ = d.docker(&["create", "--name", "c", "busybox", "echo", "works"]).ok();
    assert_eq!(d.stop(), 0);
    let forgotten = store(d.data_root()).write_blocking(|tx| {
        let keys: Vec<_> = tx.scan(&USERS)?.into_iter().map(|(key, _)| key).collect();
        keys.iter().try_for_each(|key| tx.delete(&USERS, key).map(drop))?;
        Ok(keys.len())
    });
    assert_eq!(forgotten.unwrap(), 1);
    assert_eq!(d.faults(), [""; 0]);
    d.again();
    let id = d.docker(&["images", "-q", "--no-trunc"]).text();
    d.docker(&["rmi", &id]).fails(1, "image is being used by stopped container");
    // The image goes, and its container keeps its layers.
    let _ = d.docker(&["rmi", "-f", &id]).ok();
    let _ = d.docker(&["image", "prune", "-af"]).ok();
    assert_eq!(d.docker(&["start", "-a", "c"]).text(), "works");
    assert_eq!(d.faults(), [""; 0]);
    let _ = d.docker(&["rm", "c"]).ok();
    let _ = d.docker(&["image", "prune", "-af"]).ok();
    d.finish();
}

#[test]
fn a_living_daemon_is_asked_and_not_disturbed() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c", "-v", "kept:/kept", "busybox", "sleep", "1000"]).ok();
    let whole = d.check(&[]).text();
    let expected = "1 layers compared with their archives, 1 containers, 1 volumes: no faults";
    assert!(whole.starts_with("checked 1 images, 3 blobs (") && whole.ends_with(expected), "{whole}");
    d.check(&["--repair"]).fails(2, "cannot be repaired now: a daemon works on it");
    fs::write(d.data_root().join("content/blobs/sha256").join("4".repeat(64)), "x").unwrap();
    flip(&layer(d.data_root()).join("fs/bin/busybox"));
    fs::write(d.data_root().join("content/ingest/5000"), "x").unwrap();
    let found = d.faults().join("\n");
    for wanted in ["blob-damaged: blob sha256:4444", "layer-damaged: layer", ": other content; and ", "leftover: "] {
        assert!(found.contains(wanted), "{wanted} in {found}");
    }
    assert_eq!(d.inspect("c", "{{.State.Running}}"), "true");
    d.remove_containers();
    assert_eq!(d.stop(), 0);
    let _ = d.check(&["--repair"]).ok();
    d.again();
    d.finish();
}

/// One round of a client's load.
type Job<'j> = dyn Fn(&mut Connection, u32) + Sync + 'j;

/// One client's load until told to stop; counts how often it came round.
fn load(d: &Daemon, stop: &AtomicBool, round: &Job<'_>, rounds: &AtomicU32) {
    let mut connection = Connection::open(&d.socket()).unwrap();
    connection.patience(PATIENCE);
    while !stop.load(Ordering::Relaxed) {
        round(&mut connection, rounds.load(Ordering::Relaxed));
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

#[track_caller]
fn asked(c: &mut Connection, method: &str, path: &str, body: &str) {
    let answer = c.try_request(method, path, body).unwrap();
    assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.text());
}

#[test]
fn a_busy_daemon_gives_no_false_alarm() {
    let d = with_busybox();
    let registry = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    for tag in ["1", "2"] {
        registry.image("app", tag, &Image::of_noise(&[1 << 20, 1 << 20, 1 << 20]));
    }
    registry.slow(20 << 20);
    let pulls = |c: &mut Connection, n: u32| {
        let tag = n % 2 + 1;
        asked(c, "POST", &format!("/images/create?fromImage=127.0.0.1:5001/app&tag={tag}"), "");
        asked(c, "DELETE", &format!("/images/127.0.0.1:5001/app:{tag}"), "");
    };
    let loads = |c: &mut Connection, n: u32| {
        d.load(&testkit::images::layered_archive("layered", 2 + n as usize % 3));
        asked(c, "DELETE", "/images/layered", "");
    };
    let containers = |c: &mut Connection, n: u32| {
        let body = format!(r#"{{"Image":"busybox","Cmd":["true"],"HostConfig":{{"Binds":["v{n}:/v"]}}}}"#);
        asked(c, "POST", &format!("/containers/create?name=c{n}"), &body);
        asked(c, "DELETE", &format!("/containers/c{n}"), "");
        asked(c, "DELETE", &format!("/volumes/v{n}"), "");
    };
    let rounds = [const { AtomicU32::new(0) }; 3];
    let jobs: [(&Job<'_>, &AtomicU32); 3] = [(&pulls, &rounds[0]), (&loads, &rounds[1]), (&containers, &rounds[2])];
    let (daemon, stop) = (&d, &AtomicBool::new(false));
    let faults = std::thread::scope(|scope| {
        let working = jobs.map(|(job, rounds)| scope.spawn(move || load(daemon, stop, job, rounds)));
        let enough = || rounds.iter().all(|rounds| rounds.load(Ordering::Relaxed) > 10);
        let mut faults = Vec::new();
        let mut checks = 0;
        while faults.is_empty() && (checks < 10 || !enough()) && !working.iter().any(|job| job.is_finished()) {
            faults = d.faults();
            checks += 1;
        }
        stop.store(true, Ordering::Relaxed);
        working.into_iter().for_each(|job| job.join().unwrap());
        faults
    });
    assert_eq!(faults, [""; 0]);
    drop(registry);
    d.finish();
}

#[test]
fn a_repair_leaves_running_containers_alone() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]).ok();
    let pid = d.inspect("c", "{{.State.Pid}}");
    d.kill9();
    assert_eq!(d.faults(), [""; 0]);
    fs::write(layer(d.data_root()).join("fs/new"), "").unwrap();
    fs::remove_dir_all(container(d.data_root()).join("rw/work")).unwrap();
    let repaired = d.check(&["--repair"]);
    assert!(repaired.code == 1 && repaired.stdout.contains("repaired: unpacked layer"), "{repaired:?}");
    assert!(repaired.stdout.contains("repair: nothing: the container runs; stop it first"), "{repaired:?}");
    d.again();
    assert_eq!(d.inspect("c", "{{.State.Pid}}"), pid);
    assert_eq!(d.docker(&["exec", "c", "echo", "works"]).text(), "works");
    assert_eq!(d.docker(&["run", "--rm", "busybox", "echo", "works"]).text(), "works");
    d.finish();
}

#[test]
fn a_layer_that_there_is_no_room_for_is_not_compared_and_that_is_told() {
    let d = Options::new().disk("64m").start();
    d.busybox();
    let output = d.check(&[]).text();
    assert!(output.contains("was not compared with its archive: the disk has no room"), "{output}");
    assert!(output.ends_with("0 layers compared with their archives, 0 containers, 0 volumes: no faults"), "{output}");
    d.finish();
}

#[test]
fn what_cannot_be_checked_is_said() {
    let mut d = Daemon::start();
    d.kill9();
    assert_eq!(d.faults(), [""; 0]);
    fs::write(d.data_root().join("gantry.redb"), "no store").unwrap();
    d.check(&[]).fails(2, "opening the store");
    fs::remove_file(d.data_root().join("gantry.redb")).unwrap();
    d.check(&[]).fails(2, "is no data root of Gantry");
    d.check(&["surplus"]).fails(2, "1 operands were given, 0 are needed");
    fs::remove_file(d.data_root().join("lock")).unwrap();
    d.check(&[]).fails(2, "lock");
    d.again();
    d.finish();
}
