//! Volumes as the engine uses them.

use std::collections::BTreeMap;
use std::fs;

use model::Kind;

use super::*;
use crate::local::REMOVED;
use crate::row::note_use;

/// No test mounts anything: the program is not started.
fn open(root: &Path, store: Store) -> Volumes {
    let program: std::os::fd::OwnedFd = fs::File::open("/proc/self/exe").unwrap().into();
    let keeper = Keeper::open(root.with_extension("keeper"), Arc::new(program)).unwrap();
    let places = plugin::Places { sockets: root.join(".plugins"), specs: Vec::new() };
    let plugins = Plugins::new(places, tokio::runtime::Handle::current());
    Volumes::open(root, store, keeper, plugins).unwrap()
}

async fn volumes() -> (tempfile::TempDir, Volumes) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("gantry.redb")).unwrap();
    let volumes = open(&dir.path().join("volumes"), store);
    (dir, volumes)
}

fn no_container() -> Result<Vec<String>> {
    Ok(Vec::new())
}

/// A volume that is claimed, or named by the time the claim is given up, is not removed; and one that is being removed is
/// made anew by whoever claims it.
#[tokio::test]
async fn what_is_claimed_is_not_removed() {
    let (_dir, volumes) = volumes().await;
    let (_, new, claim) = volumes.create_claimed(named("vol"), "c1").await.unwrap();
    assert!(new);
    let error = volumes.remove("vol", no_container).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Conflict, "remove vol: volume is in use - [c1]"));
    let second = volumes.claim("vol", "c2").await.unwrap();
    drop(claim);
    let error = volumes.remove("vol", || Ok(vec!["c1".into()])).await.unwrap_err();
    assert_eq!(error.message(), "remove vol: volume is in use - [c1, c2]");
    drop(second);
    volumes.remove("vol", no_container).await.unwrap();
    assert_eq!(volumes.claim("vol", "c1").await.err().unwrap().kind(), Kind::NotFound);
    for _ in 0..50 {
        drop(volumes.create(named("vol")).await.unwrap());
        let (removed, claimed) =
            tokio::join!(volumes.remove("vol", no_container), volumes.create_claimed(named("vol"), "c1"));
        let (volume, new, _claim) = claimed.unwrap();
        assert!(volume.mountpoint.is_dir() && volumes.get("vol").is_ok());
        assert_eq!(removed.is_ok(), new);
    }
}

fn named(name: &str) -> CreateVolume {
    CreateVolume { name: name.into(), ..CreateVolume::default() }
}

/// B-vol-9
#[tokio::test]
async fn create_is_idempotent_and_remove_takes_the_data() {
    let (dir, volumes) = volumes().await;
    let (made, new) = volumes.create(named("wfv")).await.unwrap();
    assert!(new && made.labels.is_none() && made.options.is_none() && made.driver == "local");
    fs::write(made.mountpoint.join("file"), "x").unwrap();
    let (again, new) = volumes.create(named("wfv")).await.unwrap();
    assert_eq!((again, new), (made.clone(), false));
    assert_eq!(volumes.list().unwrap(), std::slice::from_ref(&made));
    assert_eq!(volumes.usage("wfv").unwrap(), 1);
    volumes.remove("wfv", no_container).await.unwrap();
    assert!(!dir.path().join("volumes/wfv").exists());
    let error = volumes.remove("wfv", no_container).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::NotFound, "get wfv: no such volume"));
}

/// What containers leave in volumes may be deeper than paths are long.
#[tokio::test]
async fn the_deepest_tree_is_measured_and_removed() {
    let (dir, volumes) = volumes().await;
    let (made, _) = volumes.create(named("deep")).await.unwrap();
    assert_eq!(volumes.usage("deep").unwrap(), 0);
    let mut here: std::os::fd::OwnedFd = fs::File::open(&made.mountpoint).unwrap().into();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&here, "d", rustix::fs::Mode::RWXU).unwrap();
        here = sys::tree::open_dir(&here, c"d").unwrap();
    }
    std::os::unix::fs::symlink("/", made.mountpoint.join("out")).unwrap();
    assert_eq!(volumes.usage("deep").unwrap(), 1);
    volumes.remove("deep", no_container).await.unwrap();
    assert!(!dir.path().join("volumes/deep").exists());
}

/// B-vol-3
#[tokio::test]
async fn without_a_name_it_is_anonymous() {
    let (_dir, volumes) = volumes().await;
    let (made, _) = volumes.create(CreateVolume::default()).await.unwrap();
    assert!(made.is_anonymous() && made.name.len() == 64);
    assert_eq!(made.labels.unwrap()[ANONYMOUS_LABEL], "");
}

#[tokio::test]
async fn refusals_use_the_references_words() {
    let (_dir, volumes) = volumes().await;
    let error = volumes.create(named("/x")).await.unwrap_err();
    assert_eq!(
        error.message(),
        "create /x: \"/x\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
         allowed. If you intended to pass a host directory, use absolute path"
    );
    let options = Some(BTreeMap::from([("type".to_owned(), "nfs".to_owned())]));
    let error = volumes.create(CreateVolume { options, ..named("nfs") }).await.unwrap_err();
    assert_eq!(error.message(), "create nfs: missing required option: \"device\"");
    let options = Some(BTreeMap::from([("size".to_owned(), "1g".to_owned())]));
    let error = volumes.create(CreateVolume { options, ..named("limited") }).await.unwrap_err();
    assert!(error.message().starts_with("create limited: quota size requested but no quota support: "), "{error}");
    let error = volumes.create(CreateVolume { driver: "zz".into(), ..named("other") }).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    volumes.create(named("mine")).await.unwrap();
    let error = volumes.create(CreateVolume { driver: "zz".into(), ..named("mine") }).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(volumes.list().unwrap().len() == 1);
}

#[tokio::test]
async fn a_mounted_volume_stays() {
    let (_dir, volumes) = volumes().await;
    volumes.create(named("data")).await.unwrap();
    for user in ["c1", "c2"] {
        let mounted = volumes.mount("data", user).await.unwrap();
        assert!(matches!(mounted, Mounted::Directory(_)));
    }
    let error = volumes.remove("data", no_container).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Conflict, "remove data: volume is in use - [c1, c2]"));
    volumes.unmount("data", "c1").await.unwrap();
    volumes.unmount("data", "c2").await.unwrap();
    volumes.unmount("data", "c2").await.unwrap();
    volumes.remove("data", no_container).await.unwrap();
}

#[tokio::test]
async fn many_creates_of_one_name_make_one_volume() {
    let (_dir, volumes) = volumes().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let volumes = volumes.clone();
        tasks.spawn(async move { volumes.create(named("same")).await.unwrap().1 });
    }
    let new = tasks.join_all().await.into_iter().filter(|new| *new).count();
    assert_eq!(new, 1);
}

#[tokio::test]
async fn only_empty_directories_without_a_row_are_swept() {
    let (dir, volumes) = volumes().await;
    volumes.create(named("known")).await.unwrap();
    for name in ["empty/_data", "begun", "full/_data/x", "foreign/x", "lost+found"] {
        fs::create_dir_all(dir.path().join("volumes").join(name)).unwrap();
    }
    let store = volumes.inner.store.clone();
    open(&dir.path().join("volumes"), store);
    let mut left: Vec<_> = fs::read_dir(dir.path().join("volumes")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["foreign", "full", "known", "lost+found"]);
}

#[tokio::test]
async fn a_removal_that_was_cut_short_is_undone_or_finished() {
    let (dir, volumes) = volumes().await;
    let root = dir.path().join("volumes");
    for name in ["kept", "gone"] {
        let made = volumes.create(named(name)).await.unwrap().0;
        fs::write(made.mountpoint.join("file"), name).unwrap();
        fs::create_dir_all(root.join(REMOVED)).unwrap();
        fs::rename(root.join(name), root.join(REMOVED).join(name)).unwrap();
    }
    volumes.inner.store.write(|tx| tx.delete(&VOLUMES, "gone")).await.unwrap();
    let store = volumes.inner.store.clone();
    drop(volumes);
    let volumes = open(&root, store);
    assert_eq!(fs::read_to_string(root.join("kept/_data/file")).unwrap(), "kept");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
    volumes.remove("kept", no_container).await.unwrap();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

/// A power cut takes directories that nothing was synced of: what holds nothing yet is made again, nothing else is.
#[tokio::test]
async fn an_unused_volume_is_made_again_and_a_used_one_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("gantry.redb")).unwrap();
    let root = dir.path().join("volumes");
    let volumes = open(&root, store.clone());
    for name in ["unused", "used"] {
        assert!(volumes.create(named(name)).await.unwrap().0.unused);
        volumes.make_durable(name).unwrap();
    }
    store.write(|tx| note_use(tx, "used").and_then(|()| note_use(tx, "nosuch"))).await.unwrap();
    for name in ["unused", "used"] {
        fs::remove_dir_all(root.join(name)).unwrap();
    }
    drop(volumes);
    let volumes = open(&root, store);
    assert_eq!(["unused", "used"].map(|name| root.join(name).join("_data").is_dir()), [true, false]);
    assert!(volumes.get("unused").unwrap().unused && !volumes.get("used").unwrap().unused);
    volumes.make_durable("unused").unwrap();
}

/// Rows were written where the root was then.
#[tokio::test]
async fn volumes_lie_where_the_root_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("gantry.redb")).unwrap();
    let volumes = open(&dir.path().join("volumes"), store.clone());
    volumes.create(named("vol")).await.unwrap();
    fs::rename(dir.path().join("volumes"), dir.path().join("moved")).unwrap();
    let volumes = open(&dir.path().join("moved"), store);
    let place = dir.path().join("moved/vol/_data");
    assert_eq!(volumes.get("vol").unwrap().mountpoint, place);
    assert_eq!(volumes.list().unwrap()[0].mountpoint, place);
    for user in ["c", "d"] {
        let Mounted::Directory(path) = volumes.mount("vol", user).await.unwrap() else { panic!("it is a directory") };
        assert_eq!(path, place);
    }
    assert!(!dir.path().join("volumes").exists());
}

/// The place of what is being removed is there for all of them.
#[tokio::test]
async fn volumes_are_removed_beside_each_other() {
    let (dir, volumes) = volumes().await;
    for round in 0..20 {
        let mut removals = tokio::task::JoinSet::new();
        for n in 0..8 {
            let (volumes, name) = (volumes.clone(), format!("v{round}-{n}"));
            volumes.create(named(&name)).await.unwrap();
            removals.spawn(async move { volumes.remove(&name, no_container).await });
        }
        while let Some(removed) = removals.join_next().await {
            removed.unwrap().unwrap();
        }
    }
    assert_eq!(fs::read_dir(dir.path().join("volumes")).unwrap().count(), 0);
}

/// A use that a daemon which was killed has left: it ends unless the container still runs.
#[tokio::test]
async fn uses_that_an_earlier_daemon_has_left() {
    let (_dir, volumes) = volumes().await;
    volumes.create(named("data")).await.unwrap();
    let note = |user: &str| MountNote { volume: "data".into(), user: user.into() };
    let store = volumes.inner.store.clone();
    for user in ["dead", "live"] {
        store.write(move |tx| tx.put(&MOUNTS, &note(user).key(), &note(user))).await.unwrap();
    }
    volumes.recover(&[("live".into(), vec!["data".into()])]).await.unwrap();
    while volumes.users("data").len() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(volumes.users("data"), ["live"]);
    volumes.unmount("data", "live").await.unwrap();
    volumes.remove("data", no_container).await.unwrap();
}
