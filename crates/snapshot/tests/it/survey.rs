//! Layers looked over: sound ones pass, each kind of change is seen, and a damaged layer is unpacked anew.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use model::digest::Digest;
use snapshot::Examined;
use tar::EntryType;

use crate::Place;
use crate::layer::Layer;

/// One of everything, directories without an entry and whiteouts among it.
fn of_everything() -> Layer {
    Layer::default()
        .dir("etc", 0o755)
        .file("etc/name", "content")
        .file("etc/other", "content")
        .link("etc/hard", EntryType::Link, "etc/name")
        .link("etc/soft", EntryType::Symlink, "name")
        .file("etc/.wh.gone", "")
        .dir("opaque", 0o700)
        .file("opaque/.wh..wh..opq", "")
        .file("no/entry/for/this", "x")
        .link("turn", EntryType::Symlink, "nowhere/yet")
        .file("turn/file", "behind a link")
        .device("null")
        .suid("suid")
}

/// Applies it; answers its directory, its digest and its archive.
fn applied(place: &Place) -> (std::path::PathBuf, Digest, Vec<u8>) {
    let tar = of_everything().tar();
    let lease = place.pins.lease();
    let layer = place.snapshots.layers.apply_layer(None, &mut tar.as_slice(), &lease).unwrap();
    (place.snapshots.survey.root().join(layer.diff_id.hex()), layer.diff_id, tar)
}

pub fn a_layer_is_like_its_archive(place: Place) {
    let (_, id, tar) = applied(&place);
    let layers = place.snapshots.survey;
    // Times that unpacking makes differ by now.
    std::thread::sleep(Duration::from_millis(20));
    let sound = Examined::Sound(place.snapshots.layers.layer(&(&id).into()).unwrap().unwrap());
    assert_eq!(layers.examine(&id, Some(&mut tar.as_slice())).unwrap(), sound);
    assert_eq!(layers.examine(&id, None).unwrap(), sound);
    assert_eq!(layers.list().unwrap(), std::slice::from_ref(&id));
    assert_eq!(layers.strays().unwrap(), snapshot::Strays::default());
    let other = Layer::default().file("a", "b").tar();
    assert_eq!(layers.examine(&id, Some(&mut other.as_slice())).unwrap_err().kind(), model::Kind::InvalidParameter);
    let absent = Digest::from_sha256(&[9; 32]);
    assert_eq!(layers.examine(&absent, None).unwrap(), Examined::Missing);
    assert_eq!(layers.strays().unwrap(), snapshot::Strays::default());
}

/// A change to a layer's directory.
type Change = fn(&Path);

pub fn each_change_of_a_layer_is_seen_and_put_right(place: Place) {
    let changes: [(&str, Change); 12] = [
        ("/etc/name: other content", |l| fs::write(l.join("fs/etc/name"), "CONTENT").unwrap()),
        ("/etc/name: other size", |l| fs::write(l.join("fs/etc/name"), "more content").unwrap()),
        ("/etc/other: other mode", |l| {
            fs::set_permissions(l.join("fs/etc/other"), Permissions::from_mode(0o600)).unwrap();
        }),
        ("/suid: other owner", |l| chown(l.join("fs/suid"), Some(8), None).unwrap()),
        ("/etc/other: other time of change", |l| {
            let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
            File::options().write(true).open(l.join("fs/etc/other")).unwrap().set_times(times).unwrap();
        }),
        ("/etc/soft: other target", |l| {
            fs::remove_file(l.join("fs/etc/soft")).unwrap();
            symlink("elsewhere", l.join("fs/etc/soft")).unwrap();
        }),
        ("/no/entry/for/this: missing", |l| fs::remove_file(l.join("fs/no/entry/for/this")).unwrap()),
        ("/no/new: not in the archive", |l| fs::write(l.join("fs/no/new"), "").unwrap()),
        ("/opaque: something of another kind", |l| {
            fs::remove_dir_all(l.join("fs/opaque")).unwrap();
            fs::write(l.join("fs/opaque"), "").unwrap();
        }),
        ("its record (layer.json) is missing", |l| fs::remove_file(l.join("layer.json")).unwrap()),
        ("layer sha256:", |l| fs::write(l.join("layer.json"), "{").unwrap()),
        ("its tree (fs) is missing", |l| fs::remove_dir_all(l.join("fs")).unwrap()),
    ];
    let (dir, id, tar) = applied(&place);
    let layers = place.snapshots.survey;
    for (number, (text, change)) in changes.iter().enumerate() {
        change(&dir);
        let found = layers.examine(&id, Some(&mut tar.as_slice())).unwrap();
        let Examined::Damaged(told) = found else { panic!("{text}: {found:?}") };
        assert!(told.contains(text), "{told:?} is not {text:?}");
        let aside = place.dir.path().join(format!("aside-{number}"));
        layers.replace(&id, &mut tar.as_slice(), &aside).unwrap();
        assert!(aside.exists());
        assert!(matches!(layers.examine(&id, Some(&mut tar.as_slice())).unwrap(), Examined::Sound(_)), "{text}");
    }
    layers.remove(&id).unwrap();
    layers.replace(&id, &mut tar.as_slice(), &place.dir.path().join("aside")).unwrap();
    assert!(matches!(layers.examine(&id, Some(&mut tar.as_slice())).unwrap(), Examined::Sound(_)));
    assert_eq!(layers.strays().unwrap(), snapshot::Strays::default());
}

pub fn what_lies_beside_the_layers_is_named(place: Place) {
    let (dir, ..) = applied(&place);
    let root = dir.parent().unwrap();
    fs::create_dir_all(root.join("tmp/77/fs")).unwrap();
    fs::write(root.join("note"), "").unwrap();
    let strays = place.snapshots.survey.strays().unwrap();
    assert_eq!(strays.leftovers, [root.join("tmp/77")]);
    assert_eq!(strays.unknown, [root.join("note")]);
}
