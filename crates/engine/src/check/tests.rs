//! Damaged rows on a real data root, which no client can plant. These need root (ownership, devices, whiteouts).

use std::path::PathBuf;

use events::Events;
use image::row::{IMAGES, NAMES};
use image::{Images, ImportArgs, import, repository_tag};
use model::Kind;
use model::digest::Digest;
use registry::Registries;
use snapshot::archive::Writer;
use store::{Row, Table};
use volume::VOLUMES;

use super::*;
use crate::container::row::CONTAINERS;
use crate::container::row::sample;
use crate::quarantine::{QUARANTINE, Quarantine};

/// A data root with one image, `a:latest`, at rest.
struct Place {
    dir: tempfile::TempDir,
    image: Digest,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let mut tar = Writer::new(Vec::new());
        tar.file("name", 0o644, 7, &mut &b"content"[..]).unwrap();
        let tar = tar.finish().unwrap();
        let args = ImportArgs { reference: repository_tag("a", "").unwrap(), ..ImportArgs::default() };
        let snapshots = snapshot::open(dir.path(), "").unwrap();
        let images =
            Images::open(dir.path(), store(dir.path()), snapshots.layers, Registries::new(Default::default())).unwrap();
        let image = import(&images, &Events::default(), args, tar.as_slice()).unwrap();
        Place { dir, image }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn spoil<R: Row + 'static>(&self, table: &'static Table<R>, key: &str, bytes: &'static [u8]) {
        let key = key.to_owned();
        store(&self.root()).write_blocking(move |tx| tx.put_raw(table, &key, bytes)).unwrap();
    }

    fn check(&self, repair: bool) -> Result<Report> {
        at_rest(&self.root(), "", repair, &tempfile::tempfile().unwrap())
    }

    /// What is found, what a repair does, and that nothing is found afterwards.
    fn repaired(&self) -> (Vec<String>, Vec<String>) {
        let found = self.check(false).unwrap().faults.into_iter().map(|fault| fault.name).collect();
        let report = self.check(true).unwrap();
        assert_eq!((report.clean, report.faults), (true, vec![]));
        assert_eq!(self.check(false).unwrap().faults, []);
        (found, report.repaired)
    }

    fn quarantined(&self, kind: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root().join(QUARANTINE).join(kind)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn store(root: &Path) -> Store {
    Store::open(&root.join("gantry.redb")).unwrap()
}

#[test]
fn an_images_row_is_written_anew_from_its_documents() {
    let place = Place::new();
    let key = place.image.as_str();
    let before = store(&place.root()).read(|tx| tx.get(&IMAGES, key)).unwrap().unwrap();
    place.spoil(&IMAGES, key, b"spoiled");
    let (found, repaired) = place.repaired();
    assert!(found.contains(&"damaged-row".to_owned()) && found.contains(&"orphan-layer".to_owned()), "{found:?}");
    assert_eq!(repaired, [format!("wrote the row of image {key} anew")]);
    let mut after = store(&place.root()).read(|tx| tx.get(&IMAGES, key)).unwrap().unwrap();
    after.created = before.created;
    assert_eq!(after, before);
}

#[test]
fn rows_that_cannot_be_written_anew_are_kept_in_the_quarantine() {
    let place = Place::new();
    let row = sample(1, model::lifecycle::State::Exited);
    let container = row.id.as_str().to_owned();
    std::fs::create_dir_all(place.root().join("containers").join(&container).join("rw/upper")).unwrap();
    std::fs::write(place.root().join("containers").join(&container).join("rw/upper/file"), "precious").unwrap();
    std::fs::create_dir_all(place.root().join("volumes/v/_data")).unwrap();
    place.spoil(&CONTAINERS, &container, br#"{"v":1,"row":{"id":7}}"#);
    place.spoil(&NAMES, "docker.io/library/b:latest", b"");
    place.spoil(&VOLUMES, "v", b"{}");
    place.spoil(&network::row::NETWORKS, "n", b"{}");
    let (found, _) = place.repaired();
    assert_eq!(found, ["damaged-row"; 4]);
    let file = place.root().join(QUARANTINE).join("containers").join(&container).join("rw/upper/file");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
    let mut rows = place.quarantined("rows");
    rows.sort();
    let names =
        [format!("containers-{container}"), "image-names-docker_io_library_b_latest".into(), "networks-n".into()];
    assert_eq!(rows, names);
    let (volumes, containers) =
        store(&place.root()).read(|tx| Ok((tx.keys(&VOLUMES)?, tx.keys(&CONTAINERS)?))).unwrap();
    assert_eq!((volumes, containers), (vec!["v".to_owned()], vec![]));
}

#[test]
fn a_name_that_leads_nowhere_is_dropped_and_what_is_left_of_its_image_removed() {
    let place = Place::new();
    let key = place.image.as_str().to_owned();
    store(&place.root()).write_blocking(move |tx| tx.delete(&IMAGES, &key)).unwrap();
    let (found, repaired) = place.repaired();
    assert_eq!(found, ["dangling-name", "orphan-blob", "orphan-blob", "orphan-blob", "orphan-layer"]);
    assert_eq!(repaired[0], "dropped the name docker.io/library/a:latest");
}

#[test]
fn rows_of_a_newer_version_are_nobodys_to_repair() {
    let place = Place::new();
    place.spoil(&NAMES, "docker.io/library/b:latest", br#"{"v":99,"row":{}}"#);
    let report = place.check(false).unwrap();
    assert!(report.faults[0].repair.contains("a newer version"), "{report:?}");
    assert_eq!(place.check(true).unwrap_err().kind(), Kind::Conflict);
    assert_eq!(place.check(false).unwrap().faults, report.faults);
}

#[test]
fn a_removal_of_a_volume_that_was_cut_short_loses_nothing() {
    let place = Place::new();
    for name in ["whole", "gone"] {
        std::fs::create_dir_all(place.root().join(format!("volumes/{}/{name}/_data", volume::REMOVED))).unwrap();
    }
    let row = volume::Volume::found(&place.root().join("volumes"), "whole");
    store(&place.root()).write_blocking(move |tx| tx.put(&VOLUMES, "whole", &row)).unwrap();
    assert_eq!(place.repaired().0, ["leftover"]);
    let left: Vec<_> = std::fs::read_dir(place.root().join("volumes").join(volume::REMOVED))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["whole"]);
}

/// What is here was named by rows that are gone: a repair keeps all of it.
#[test]
fn content_without_its_store_is_kept_in_the_quarantine() {
    for spoil in [
        (|store| std::fs::remove_file(store).unwrap()) as fn(&Path),
        |store| std::fs::write(store, "").unwrap(),
        |store| std::fs::File::options().write(true).open(store).unwrap().set_len(4096).unwrap(),
    ] {
        let place = Place::new();
        std::fs::create_dir_all(place.root().join("volumes/v/_data")).unwrap();
        std::fs::write(place.root().join("volumes/v/_data/file"), "precious").unwrap();
        spoil(&place.root().join(root::STORE));
        let report = place.check(false).unwrap();
        let names: Vec<_> = report.faults.iter().map(|fault| fault.name.as_str()).collect();
        assert_eq!((report.clean, names), (false, vec!["store-lost"]));
        assert_eq!(place.check(false).unwrap(), report, "a check has changed something");
        let report = place.check(true).unwrap();
        assert!(report.clean && report.repaired.len() >= 4, "{report:?}");
        let lost = place.root().join(QUARANTINE).join("stores/lost");
        assert_eq!(std::fs::read_to_string(lost.join("volumes/v/_data/file")).unwrap(), "precious");
        assert_eq!(std::fs::read_dir(lost.join("content/blobs/sha256")).unwrap().count(), 3);
        root::open_store(&place.root(), &place.root().join("exec"), &Quarantine::new(&place.root())).unwrap();
        assert_eq!(place.check(false).unwrap().faults, []);
    }
}

/// What another store or an older copy does not name goes aside and is not swept; then the store is gone by.
#[test]
fn what_a_doubtful_store_does_not_name_is_kept_in_the_quarantine() {
    let place = Place::new();
    let other = tempfile::tempdir().unwrap();
    drop(store(other.path()));
    std::fs::create_dir_all(place.root().join(format!("volumes/{}/gone/_data", volume::REMOVED))).unwrap();
    std::fs::copy(other.path().join(root::STORE), place.root().join(root::STORE)).unwrap();
    let exec = place.root().join("exec");
    let error = root::open_store(&place.root(), &exec, &Quarantine::new(&place.root())).err().unwrap();
    assert!(error.message().contains("another data root"), "{error}");
    let (found, _) = place.repaired();
    let wanted = ["orphan-blob", "orphan-blob", "orphan-blob", "orphan-layer", "leftover", "store-doubtful"];
    assert_eq!(found, wanted);
    assert_eq!((place.quarantined("blobs").len(), place.quarantined("layers").len()), (3, 1));
    assert_eq!(place.quarantined("files"), ["gone"]);
    root::open_store(&place.root(), &exec, &Quarantine::new(&place.root())).unwrap();
}
