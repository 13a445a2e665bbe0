//! What is filled apart, and snapshots, on the disk.

use std::sync::Arc;

use model::Kind;
use plugin::Plugins;
use store::Store;

use super::*;
use crate::keeper::Keeper;

struct Place {
    dir: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("gantry.redb")).unwrap();
        Place { dir, store }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("volumes")
    }

    /// As a daemon opens it at its start.
    fn open(&self) -> Volumes {
        let program: OwnedFd = File::open("/proc/self/exe").unwrap().into();
        let keeper = Keeper::open(self.dir.path().join("keeper"), Arc::new(program)).unwrap();
        let places = plugin::Places { sockets: self.dir.path().join("plugins"), specs: Vec::new() };
        let plugins = Plugins::new(places, tokio::runtime::Handle::current());
        Volumes::open(&self.root(), self.store.clone(), keeper, plugins).unwrap()
    }

    fn entries(&self) -> Vec<String> {
        let mut all = names(&self.root()).unwrap();
        all.sort();
        all
    }
}

fn filled(volumes: &Volumes, text: &str) -> Staged {
    let staged = volumes.stage().unwrap();
    drop(staged.make_data().unwrap());
    fs::write(staged.place.join("_data/file"), text).unwrap();
    staged
}

fn named(name: &str) -> CreateVolume {
    CreateVolume { name: name.into(), ..CreateVolume::default() }
}

fn snapshot(name: &str) -> Snapshot {
    let (volume, created, labels) = ("v".to_owned(), Timestamp::from_unix_seconds(5), BTreeMap::new());
    Snapshot { name: name.into(), volume, created, labels, schedule: "daily".into() }
}

#[tokio::test]
async fn what_was_filled_becomes_a_volume_once() {
    let place = Place::new();
    let volumes = place.open();
    let made = volumes.put_in_place(filled(&volumes, "one"), named("vol")).await.unwrap();
    assert_eq!(fs::read_to_string(made.mountpoint.join("file")).unwrap(), "one");
    assert_eq!((volumes.get("vol").unwrap(), made.unused), (made.clone(), false));
    let error = volumes.put_in_place(filled(&volumes, "two"), named("vol")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    for wrong in ["a", "../x", ".snapshots"] {
        let error = volumes.put_in_place(filled(&volumes, "two"), named(wrong)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidParameter, "{wrong}");
    }
    // Data that no row knows is somebody's.
    fs::create_dir_all(place.root().join("other/_data/deep")).unwrap();
    let error = volumes.put_in_place(filled(&volumes, "two"), named("other")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    fs::create_dir_all(place.root().join("empty/_data")).unwrap();
    drop(volumes.put_in_place(filled(&volumes, "three"), named("empty")).await.unwrap());
    assert_eq!(place.entries(), ["empty", "other", "vol"]);
}

/// A daemon may end between any two steps: before the commit nothing was made, after it everything.
#[tokio::test]
async fn the_commit_decides() {
    let place = Place::new();
    let volumes = place.open();
    let waiting = place.root().join(STAGED);
    fs::create_dir(&waiting).unwrap();
    for name in ["known", "unknown"] {
        let mut staged = filled(&volumes, name);
        staged.go(waiting.join(name)).unwrap();
        staged.stay();
    }
    filled(&volumes, "half").stay();
    let row = Volume { unused: false, ..Volume::found(&place.root(), "known") };
    place.store.write(move |tx| tx.put(&VOLUMES, &row.name, &row)).await.unwrap();
    // What a repair of the metadata may have made of it.
    fs::create_dir_all(place.root().join("known/_data")).unwrap();
    drop(volumes);
    let volumes = place.open();
    let data = volumes.get("known").unwrap().mountpoint;
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "known");
    assert_eq!(place.entries(), ["known"]);
}

#[tokio::test]
async fn snapshots_are_whole_and_kept_while_they_are_read() {
    let place = Place::new();
    let volumes = place.open();
    volumes.check_snapshot_free("s1").unwrap();
    volumes.keep_snapshot(filled(&volumes, "one"), &snapshot("s1")).unwrap();
    for error in [
        volumes.check_snapshot_free("s1").unwrap_err(),
        volumes.keep_snapshot(filled(&volumes, "two"), &snapshot("s1")).unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Conflict);
    }
    drop(volumes);
    let volumes = place.open();
    assert_eq!(volumes.snapshots().unwrap(), [snapshot("s1")]);
    assert_eq!(volumes.snapshot_usage("s1").unwrap(), 3);
    let open = volumes.open_snapshot("s1").unwrap();
    let error = volumes.remove_snapshot("s1").unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Conflict, "snapshot s1 is in use"));
    drop(open);
    assert_eq!(volumes.remove_snapshot("s1").unwrap().volume, "v");
    for name in ["s1", "../v", ".", ""] {
        assert_eq!(volumes.open_snapshot(name).unwrap_err().kind(), Kind::NotFound, "{name}");
    }
    assert_eq!(place.entries(), [SNAPSHOTS]);
}
