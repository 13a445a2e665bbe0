//! Images from arrival to removal, on a data root of their own. These need root (ownership, devices, whiteouts).

use std::collections::BTreeMap;
use std::io::Write;

use events::Events;
use model::digest::Digest;
use model::filter::Filters;
use model::reference::ImageRef;
use model::{Kind, Result};
use registry::Registries;
use snapshot::archive::Writer;
use store::{Store, WriteTx};

use super::*;

struct Place {
    _dir: tempfile::TempDir,
    root: std::path::PathBuf,
    images: Images,
    events: Events,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let store = Store::open(&root.join("gantry.redb")).unwrap();
        let snapshots = snapshot::open(&root, "").unwrap();
        let images = Images::open(&root, store, snapshots.layers, Registries::new(Default::default())).unwrap();
        Place { _dir: dir, root, images, events: Events::default() }
    }

    fn import(&self, name: &str, tar: &[u8]) -> Result<Digest> {
        let args = ImportArgs {
            reference: repository_tag(name, "").unwrap(),
            message: "Imported from -".into(),
            changes: vec!["CMD [\"sh\"]".into(), "LABEL tier=front".into()],
            ..ImportArgs::default()
        };
        import(&self.images, &self.events, args, tar)
    }

    fn load(&self, tar: &[u8]) -> (Result<()>, Vec<String>) {
        let mut lines = Vec::new();
        let result = load(&self.images, &self.events, tar, &[], &mut |line| lines.push(line.stream));
        (result, lines)
    }

    fn tags(&self) -> Vec<String> {
        let list = list(&self.images, &ListArgs::default()).unwrap();
        list.into_iter().flat_map(|image| image.repo_tags).collect()
    }

    fn actions(&self) -> Vec<String> {
        self.events.recent().iter().map(|event| event.action.clone()).collect()
    }

    /// Blobs and layers on the disk.
    fn disk(&self) -> (usize, usize) {
        let count = |path: &str| {
            let entries = std::fs::read_dir(self.root.join(path)).unwrap();
            entries.filter(|e| e.as_ref().unwrap().file_name().len() == 64).count()
        };
        (count("content/blobs/sha256"), count("snapshots/overlay"))
    }
}

fn rootfs(content: &str) -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    tar.directory("etc/", 0o755).unwrap();
    tar.file("etc/name", 0o644, content.len() as u64, &mut content.as_bytes()).unwrap();
    tar.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// B-im-11, B-im-2
#[test]
fn an_imported_image_is_found_and_described() {
    let place = Place::new();
    let id = place.import("busybox", &rootfs("a")).unwrap();
    assert_eq!(place.actions(), ["import"]);
    let resolved = place.images.resolve("busybox", None).unwrap();
    assert_eq!((resolved.id.clone(), resolved.layers.len()), (id.clone(), 1));
    assert_eq!(resolved.name.as_deref(), Some("busybox:latest"));
    assert_eq!(resolved.config.cmd, ["sh"]);
    assert_eq!(place.images.resolve(id.short(), None).unwrap().name, None);
    let error = place.images.resolve("nosuch", None).unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::NotFound, "No such image: nosuch:latest"));
    let error = place.images.resolve("busybox", Some("linux/s390x")).unwrap_err();
    assert!(error.message().ends_with("does not provide the specified platform (linux/s390x)"), "{error}");
    let shown = inspect(&place.images, "busybox", None, true).unwrap();
    assert_eq!(shown.repo_tags, ["busybox:latest"]);
    assert_eq!(shown.repo_digests, [format!("busybox@{id}")]);
    assert_eq!((shown.comment.as_str(), shown.root_fs.layers.len()), ("Imported from -", 1));
    assert!(shown.size > 0 && shown.manifests.len() == 1);
    let steps = history(&place.images, "busybox", None).unwrap();
    assert_eq!((steps.len(), steps[0].id.as_str()), (1, id.as_str()));
}

#[test]
fn the_catalog_survives_and_compressed_layers_keep_their_bytes() {
    let place = Place::new();
    let tar = gzip(&rootfs("zipped"));
    place.import("zipped:1", &tar).unwrap();
    let zstd_tar = zstd::encode_all(&rootfs("z2")[..], 3).unwrap();
    place.import("zipped:2", &zstd_tar).unwrap();
    let row = place.images.catalog().find("zipped:1").unwrap().image;
    assert!(row.manifests[0].layers[0].media_type.ends_with("+gzip"));
    let blob = place.images.blobs.read_small(&row.manifests[0].layers[0].digest, 1 << 20).unwrap();
    assert_eq!(blob, tar);
    let (store, snapshots) = (place.images.store.clone(), place.images.layers.clone());
    let again = Images::open(&place.root, store, snapshots, Registries::new(Default::default())).unwrap();
    assert_eq!(again.catalog().names, place.images.catalog().names);
    assert_eq!(again.count(), 2);
}

/// The same tree by two programs: no layer can be compressed so, it is kept as it was before.
#[test]
fn archives_of_other_compressions_are_taken_apart() {
    let place = Place::new();
    let xz: &[u8] = include_bytes!("../../../fuzz/seeds/archive/xz");
    place.import("other:xz", xz).unwrap();
    place.import("other:bz2", include_bytes!("../../../fuzz/seeds/archive/bzip2")).unwrap();
    let layer = |name: &str| place.images.catalog().find(name).unwrap().image.manifests[0].layers[0].clone();
    let (one, other) = (layer("other:xz"), layer("other:bz2"));
    let diff_id = &place.images.resolve("other:xz", None).unwrap().layers[0];
    assert_eq!((one.media_type.as_str(), &one.digest), (oci::LAYER, diff_id));
    assert_eq!(one, other);
    let error = place.import("other:short", &xz[..xz.len() / 2]).unwrap_err();
    assert!(error.to_string().ends_with("unexpected EOF"), "{error}");
    let mut saved = Vec::new();
    save(&place.images, &place.events, &["other:xz".to_owned()], &[], &mut saved).unwrap();
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(&saved).unwrap();
    let fresh = Place::new();
    assert_eq!(fresh.load(&encoder.finish().unwrap()).1, ["Loaded image: other:xz\n"]);
    fresh.load(&gzip(&saved)).0.unwrap();
}

/// B-im-8, B-im-9
#[test]
fn names_move_and_the_last_one_takes_the_image_along() {
    let place = Place::new();
    let first = place.import("app", &rootfs("1")).unwrap();
    tag(&place.images, &place.events, "app", "localhost:5000/app", "v1").unwrap();
    let second = place.import("app", &rootfs("2")).unwrap();
    assert_eq!(place.images.resolve("app", None).unwrap().id, second);
    assert_eq!(place.images.resolve("localhost:5000/app:v1", None).unwrap().id, first);
    tag(&place.images, &place.events, first.as_str(), "app", "old").unwrap();
    let error = remove(&place.images, &place.events, first.short(), RemoveArgs::default()).unwrap_err();
    assert_eq!(
        error.message(),
        format!(
            "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
            first.short()
        )
    );
    let items = remove(&place.images, &place.events, "app:old", RemoveArgs::default()).unwrap();
    assert_eq!(items[0].untagged, "app:old");
    assert_eq!(items.len(), 1);
    let items = remove(&place.images, &place.events, "localhost:5000/app:v1", RemoveArgs::default()).unwrap();
    assert_eq!(items.last().unwrap().deleted, first.to_string());
    let items =
        remove(&place.images, &place.events, "app", RemoveArgs { force: true, ..RemoveArgs::default() }).unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!((place.images.count(), place.disk()), (0, (0, 0)));
    let error = tag(&place.images, &place.events, "app", "x", "").unwrap_err();
    assert_eq!(error.message(), "No such image: app:latest");
}

#[test]
fn ambiguous_and_bad_names_are_refused_for_tags() {
    let place = Place::new();
    place.import("a", &rootfs("1")).unwrap();
    let message = |repo: &str, tag_name: &str| {
        tag(&place.images, &place.events, "a", repo, tag_name).unwrap_err().message().to_owned()
    };
    assert_eq!(message("sha256", "abc"), "refusing to create an ambiguous tag using digest algorithm as name");
    assert_eq!(message("UPPER", ""), "invalid reference format: repository name (library/UPPER) must be lowercase");
    assert_eq!(message("b", "-x"), "invalid tag format");
}

/// B-im-10: what was saved and loaded again has the same digests.
#[test]
fn save_and_load_keep_digests_and_names() {
    let place = Place::new();
    let plain = place.import("one", &rootfs("1")).unwrap();
    let zipped = place.import("two:v2", &gzip(&rootfs("2"))).unwrap();
    let texts = ["one".to_owned(), "two".to_owned()];
    let mut archive = Vec::new();
    save(&place.images, &place.events, &texts, &[], &mut archive).unwrap();
    let mut again = Vec::new();
    save(&place.images, &place.events, &texts, &[], &mut again).unwrap();
    assert_eq!(archive, again);
    for bytes in [archive.clone(), gzip(&archive)] {
        let other = Place::new();
        let (result, lines) = other.load(&bytes);
        result.unwrap();
        assert_eq!(lines, ["Loaded image: one:latest\n", "Loaded image: two:v2\n"]);
        assert_eq!(other.images.resolve("one", None).unwrap().id, plain);
        assert_eq!(other.images.resolve("two:v2", None).unwrap().id, zipped);
        assert_eq!(other.disk(), place.disk());
        assert_eq!(other.actions(), ["load", "load"]);
    }
    let mut nameless = Vec::new();
    save(&place.images, &place.events, &[plain.to_string()], &[], &mut nameless).unwrap();
    let other = Place::new();
    assert_eq!(other.load(&nameless).1, [format!("Loaded image ID: {plain}\n")]);
    let error = save(&place.images, &place.events, &["none".to_owned()], &[], &mut nameless).unwrap_err();
    assert_eq!(error.message(), "No such image: none:latest");
}

/// An archive of `docker save` before OCI layouts, with a layer that is a link to another's.
#[test]
fn a_docker_archive_is_loaded() {
    let layer = rootfs("old");
    let diff_id = {
        let place = Place::new();
        place.import("x", &layer).unwrap();
        place.images.resolve("x", None).unwrap().layers[0].to_string()
    };
    let config = serde_json::json!({ "architecture": oci::host().architecture, "os": "linux", "config": { "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] } });
    let manifest =
        serde_json::json!([{ "Config": "abc.json", "RepoTags": ["old:1", "old:2"], "Layers": ["l1/layer.tar"] }]);
    let mut tar = Writer::new(Vec::new());
    for (name, bytes) in [
        ("abc.json", config.to_string().into_bytes()),
        ("l1/layer.tar", layer),
        ("manifest.json", manifest.to_string().into_bytes()),
    ] {
        tar.file(name, 0o644, bytes.len() as u64, &mut &bytes[..]).unwrap();
    }
    let place = Place::new();
    let (result, lines) = place.load(&tar.finish().unwrap());
    result.unwrap();
    assert_eq!(lines, ["Loaded image: old:1\n", "Loaded image: old:2\n"]);
    assert_eq!(place.images.resolve("old:2", None).unwrap().config.cmd, ["sh"]);
    assert_eq!(place.images.count(), 1);
}

#[test]
fn what_cannot_be_loaded_or_imported_leaves_nothing() {
    let place = Place::new();
    let mut good = Vec::new();
    let other = Place::new();
    other.import("one", &rootfs("1")).unwrap();
    save(&other.images, &other.events, &["one".to_owned()], &[], &mut good).unwrap();
    let wrong_blob = {
        let mut tar = Writer::new(Vec::new());
        tar.file(&format!("blobs/sha256/{}", "a".repeat(64)), 0o644, 3, &mut &b"abc"[..]).unwrap();
        tar.finish().unwrap()
    };
    for (bytes, text) in [
        (&b"garbage"[..], "unexpected EOF"),
        (&good[..good.len() / 1024 * 512 + 100], "unexpected EOF"),
        (
            &wrong_blob,
            "unexpected commit digest sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (&rootfs("1"), "unrecognized image format"),
    ] {
        let error = place.load(bytes).0.unwrap_err();
        assert!(error.message().starts_with(text), "{error}");
        assert_eq!((place.images.count(), place.disk()), (0, (0, 0)));
    }
    let tar = rootfs("1");
    assert!(place.import("broken", &tar[..700]).is_err());
    assert!(place.import("broken", &gzip(&tar)[..60]).is_err());
    assert_eq!((place.images.count(), place.disk()), (0, (0, 0)));
}

/// B-im-14
#[test]
fn the_list_is_filtered() {
    let place = Place::new();
    place.import("one:1", &rootfs("1")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(5));
    let two = place.import("localhost/two", &rootfs("2")).unwrap();
    let dangling = place.import("", &rootfs("3")).unwrap();
    let listed = |json: &str| {
        let args = ListArgs { filters: Filters::parse(json).unwrap(), ..ListArgs::default() };
        list(&place.images, &args).map(|list| list.into_iter().map(|i| i.id).collect::<Vec<_>>())
    };
    assert_eq!(place.tags().len(), 2);
    assert_eq!(listed(r#"{"dangling":["true"]}"#).unwrap(), [dangling.to_string()]);
    assert_eq!(listed(r#"{"reference":["*/two"]}"#).unwrap(), [two.to_string()]);
    assert_eq!(listed(r#"{"since":["one:1"],"reference":["*/*"]}"#).unwrap(), [two.to_string()]);
    assert_eq!(listed(r#"{"label":["tier=front"]}"#).unwrap().len(), 3);
    assert_eq!(listed(r#"{"label":["tier=back"]}"#).unwrap().len(), 0);
    assert_eq!(listed(r#"{"before":["none"]}"#).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(listed(r#"{"zz":["x"]}"#).unwrap_err().message(), "invalid filter 'zz'");
    let shared = ListArgs { shared_size: true, ..ListArgs::default() };
    assert!(list(&place.images, &shared).unwrap().iter().all(|image| image.shared_size == 0));
    let report = prune(&place.images, &place.events, &Users::default(), &Filters::default()).unwrap();
    assert_eq!(report.images_deleted.unwrap()[1].deleted, dangling.to_string());
    assert!(report.space_reclaimed > 0);
    assert_eq!(place.images.count(), 2);
}

#[test]
fn a_repository_and_tag_become_a_name() {
    let name = |repo: &str, tag: &str| repository_tag(repo, tag).map(|r| r.map(|r: ImageRef| r.familiar()));
    assert_eq!(name("", "x").unwrap(), None);
    assert_eq!(name("a", "").unwrap().as_deref(), Some("a:latest"));
    assert_eq!(name("a:1", "2").unwrap().as_deref(), Some("a:2"));
    let digested = format!("a@sha256:{}", "0".repeat(64));
    assert_eq!(name(&digested, "").unwrap_err().message(), "cannot import digest reference");
}

/// A container's id and what it has of an image.
fn user(place: &Place, image: &Digest, digit: char) -> (String, UserRow) {
    let row = place.images.catalog().images[image].clone();
    let layers = row.manifests[0].diff_ids.clone();
    (String::from(digit).repeat(64), UserRow { reference: "a".into(), manifest: Some(image.clone()), layers })
}

fn write(place: &Place, change: impl FnOnce(&mut WriteTx<'_, '_>) -> Result<()> + Send + 'static) {
    place.images.store.write_blocking(change).unwrap();
}

#[test]
fn what_a_container_is_made_of_stays_as_long_as_the_index_has_it() {
    let place = Place::new();
    let image = place.import("a", &rootfs("one")).unwrap();
    let (id, row) = user(&place, &image, 'c');
    let (key, user) = (image.clone(), (id.clone(), row));
    write(&place, move |tx| {
        use_by_container(tx, &key)?;
        put_user(tx, &key, &user.0, &user.1)
    });
    let refused = |args: RemoveArgs| remove(&place.images, &place.events, image.as_str(), args).unwrap_err();
    let running = RemoveArgs { force: true, running: [id.clone()].into(), ..RemoveArgs::default() };
    assert!(refused(running).message().ends_with("used by running container cccccccccccc"));
    assert!(refused(RemoveArgs::default()).message().ends_with("used by stopped container cccccccccccc"));
    let users = place.images.users(|id| id[..2].to_owned()).unwrap();
    assert_eq!(users.of(&image).map(|user| user.shown.as_str()).collect::<Vec<_>>(), ["cc"]);
    assert_eq!(users.of_manifest(&image, &image), std::slice::from_ref(&id));
    // A container keeps its layers without the image, and nothing else.
    let force = RemoveArgs { force: true, ..RemoveArgs::default() };
    remove(&place.images, &place.events, image.as_str(), force).unwrap();
    assert_eq!(place.disk(), (0, 1));
    let key = image.clone();
    write(&place, move |tx| delete_user(tx, &key, &id));
    place.images.sweep().unwrap();
    assert_eq!(place.disk(), (0, 0));
    let gone = image.clone();
    let refused = place.images.store.write_blocking(move |tx| use_by_container(tx, &gone)).unwrap_err();
    assert_eq!(refused.kind(), Kind::NotFound);
}

#[test]
fn the_index_of_users_is_made_what_it_has_to_be() {
    let place = Place::new();
    let image = place.import("a", &rootfs("one")).unwrap();
    let rows: BTreeMap<_, _> = ['a', 'b', 'c', 'd']
        .map(|digit| user(&place, &image, digit))
        .map(|(id, row)| (user_key(&image, &id), row))
        .into();
    let expected = rows.clone();
    write(&place, move |tx| {
        let other = UserRow { reference: "other".into(), manifest: None, layers: Vec::new() };
        let mut keys = expected.keys();
        tx.put(&USERS, keys.next().unwrap(), &other)?;
        tx.put_raw(&USERS, keys.next().unwrap(), b"spoiled")?;
        tx.put(&USERS, keys.next().unwrap(), expected.values().next().unwrap())?;
        tx.put(&USERS, "sha256:gone/e", &other)
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let repair = || runtime.block_on(repair_users(&place.images.store, rows.clone(), |_| false)).unwrap();
    assert_eq!((repair(), repair()), (4, 0));
    let found: BTreeMap<_, _> = place.images.store.read(|tx| tx.scan(&USERS)).unwrap().into_iter().collect();
    assert_eq!(found, rows);
}
