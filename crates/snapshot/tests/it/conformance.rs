//! What every snapshotter promises; run by each driver.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use model::Kind;
use model::digest::Digest;
use snapshot::LayerKey;
use tar::EntryType;

use crate::layer::Layer;
use crate::{Mounted, Place};

pub fn apply(place: &Place, layer: Layer) -> LayerKey {
    let lease = place.pins.lease();
    LayerKey::Diff(place.snapshots.layers.apply_layer(None, &mut layer.tar().as_slice(), &lease).unwrap().diff_id)
}

pub fn mounted(place: &Place, id: &str, layers: &[LayerKey]) -> Mounted {
    place.snapshots.roots.prepare(id, layers).unwrap();
    Mounted::new(&place.snapshots.roots.rootfs(id, layers).unwrap())
}

/// The names in a directory, without the empty places of mounts (which the copy driver does not have).
fn names(root: &Mounted, path: &str) -> Vec<String> {
    let entries = fs::read_dir(root.at(path)).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !is_place(&format!("{path}/{name}")) && (name != "etc" || !names_in(root, "etc").is_empty()));
    names.sort();
    names
}

fn names_in(root: &Mounted, path: &str) -> Vec<String> {
    if root.at(path).is_dir() { names(root, path) } else { Vec::new() }
}

pub fn is_place(path: &str) -> bool {
    let places = [".dockerenv", "dev", "proc", "sys", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"];
    places.contains(&path.trim_start_matches("./"))
}

fn live(layers: &[&LayerKey]) -> HashSet<LayerKey> {
    layers.iter().map(|key| (*key).clone()).collect()
}

pub fn layers_are_merged_top_over_bottom(place: Place) {
    let bottom = Layer::default()
        .dir("etc", 0o755)
        .file("etc/kept", "bottom")
        .file("etc/gone", "bottom")
        .file("etc/changed", "bottom")
        .dir("opaque", 0o755)
        .file("opaque/hidden", "bottom")
        .dir("turned", 0o755)
        .file("turned/inside", "bottom")
        .file("file", "bottom")
        .dir("removed", 0o755)
        .file("removed/x", "bottom");
    let top = Layer::default()
        .dir("etc", 0o700)
        .file("etc/.wh.gone", "")
        .file("etc/changed", "top")
        .dir("opaque", 0o755)
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/shown", "top")
        .file("turned", "a file now")
        .dir("file", 0o755)
        .file("file/inside", "top")
        .file(".wh.removed", "");
    let again = Layer::default().dir("removed", 0o755).file("removed/y", "third");
    let layers = [apply(&place, bottom), apply(&place, top), apply(&place, again)];
    let root = mounted(&place, "c1", &layers);
    assert_eq!(names(&root, "."), ["etc", "file", "opaque", "removed", "turned"]);
    assert_eq!(names(&root, "etc"), ["changed", "kept"]);
    assert_eq!(fs::read_to_string(root.at("etc/changed")).unwrap(), "top");
    assert_eq!(names(&root, "opaque"), ["shown"]);
    assert_eq!(fs::read_to_string(root.at("turned")).unwrap(), "a file now");
    assert_eq!(names(&root, "file"), ["inside"]);
    assert_eq!(names(&root, "removed"), ["y"]);
    assert_eq!(fs::metadata(root.at("etc")).unwrap().mode() & 0o7777, 0o700);
}

/// On a stack that holds no frame for each directory.
pub fn a_deep_directory_is_copied_out(place: Place) {
    let layers = [apply(&place, Layer::default().deep(300))];
    let target = place.dir.path().join("volume");
    fs::create_dir(&target).unwrap();
    std::thread::scope(|scope| {
        let copy = || place.snapshots.layers.copy_out(&layers, "/d", &target).unwrap();
        let copying = std::thread::Builder::new().stack_size(192 << 10).spawn_scoped(scope, copy).unwrap();
        copying.join().unwrap();
    });
    assert!(target.join("d/".repeat(299)).join("f").is_file());
}

/// B-vol-4: what a volume takes over from the image.
pub fn a_directory_is_copied_out(place: Place) {
    let bottom = Layer::default()
        .dir("data", 0o750)
        .file("data/kept", "bottom")
        .file("data/gone", "bottom")
        .dir("data/below", 0o711)
        .file("data/below/deep", "deep")
        .link("data/below/hard", EntryType::Link, "data/below/deep")
        .link("data/alike", EntryType::Link, "data/below/deep")
        .file("plain", "no directory")
        .link("way", EntryType::Symlink, "../data/below")
        .link("circle", EntryType::Symlink, "circle");
    let top = Layer::default().file("data/.wh.gone", "").file("data/new", "top").link(
        "long",
        EntryType::Symlink,
        "/way/../../data",
    );
    let layers = [apply(&place, bottom), apply(&place, top)];
    let target = place.dir.path().join("volume");
    fs::create_dir(&target).unwrap();
    place.snapshots.layers.copy_out(&layers, "/data", &target).unwrap();
    let mut names: Vec<_> =
        fs::read_dir(&target).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["alike", "below", "kept", "new"]);
    let inode = |name: &str| fs::metadata(target.join(name)).unwrap().ino();
    assert_eq!((inode("alike"), inode("below/hard")), (inode("below/deep"), inode("below/deep")));
    assert_eq!(fs::read_to_string(target.join("below/deep")).unwrap(), "deep");
    assert_eq!(fs::metadata(target.join("below")).unwrap().mode() & 0o7777, 0o711);
    assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o750);
    let other = place.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    place.snapshots.layers.copy_out(&layers, "/nowhere", &other).unwrap();
    let over_a_file = place.snapshots.layers.copy_out(&layers, "/plain", &other).unwrap_err();
    assert!(over_a_file.message().ends_with("source /plain is not directory"), "{over_a_file}");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    assert!(place.snapshots.layers.copy_out(&layers, "/circle/x", &other).is_err());
    place.snapshots.layers.copy_out(&layers, "/long/below", &other).unwrap();
    assert_eq!(fs::read_to_string(other.join("deep")).unwrap(), "deep");
    for (path, file) in [("/way/deep", true), ("/way", false), ("/way/none", false)] {
        let found = place.snapshots.layers.file_type(&layers, path).unwrap();
        assert_eq!(found.is_some_and(|kind| !kind.is_dir()), file, "{path}");
    }
}

pub fn attributes_survive(place: Place) {
    let layer = Layer::default()
        .dir("bin", 0o2755)
        .suid("bin/su")
        .link("bin/hard", EntryType::Link, "bin/su")
        .link("bin/soft", EntryType::Symlink, "/bin/su")
        .device("null");
    let layers = [apply(&place, layer)];
    let root = mounted(&place, "c1", &layers);
    let meta = |path: &str| fs::symlink_metadata(root.at(path)).unwrap();
    assert_eq!((meta("bin/su").mode() & 0o7777, meta("bin/su").uid()), (0o4755, 7));
    assert_eq!(meta("bin/su").nlink(), 2);
    assert_eq!(meta("bin/hard").ino(), meta("bin/su").ino());
    assert_eq!(fs::read_link(root.at("bin/soft")).unwrap().to_str(), Some("/bin/su"));
    assert_eq!(meta("null").rdev(), 0x103);
    assert_eq!((meta("bin").mode() & 0o7777, meta("bin").mtime()), (0o2755, 1_600_000_000));
    assert_eq!(meta("").mode() & 0o7777, 0o755);
}

pub fn directories_without_an_entry_keep_what_is_below(place: Place) {
    let bottom = Layer::default().dir("tmp", 0o1777).dir("srv", 0o750).dir("srv/deep", 0o711);
    let bottom = bottom.dir("new-", 0o700).dir("new-/in", 0o711).dir("new0", 0o701);
    let top = Layer::default().file("tmp/file", "x").file("srv/deep/file", "x").file("new/file", "x");
    let top = top.file("new/in/file", "x").file("new-/in/file", "x").file("new0/file", "x");
    let layers = [apply(&place, bottom), apply(&place, top)];
    let root = mounted(&place, "c1", &layers);
    let mode = |path: &str| fs::metadata(root.at(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("tmp"), mode("srv"), mode("srv/deep"), mode("new")), (0o1777, 0o750, 0o711, 0o755));
    assert_eq!([mode("new/in"), mode("new-"), mode("new-/in"), mode("new0")], [0o755, 0o700, 0o711, 0o701]);
    assert!(root.at("tmp/file").exists() && root.at("srv/deep/file").exists());
    drop(root);
    assert_eq!(place.snapshots.roots.changes("c1", &layers).unwrap(), []);
}

pub fn containers_do_not_see_each_other(place: Place) {
    let layers = [apply(&place, Layer::default().file("file", "image"))];
    let one = mounted(&place, "one", &layers);
    let two = mounted(&place, "two", &layers);
    let before = place.snapshots.roots.usage("one").unwrap();
    fs::write(one.at("file"), vec![b'x'; 1 << 20]).unwrap();
    fs::hard_link(one.at("file"), one.at("link")).unwrap();
    assert_eq!(fs::read_to_string(two.at("file")).unwrap(), "image");
    // Where the image's file was copied to begin with, it has grown by what is new.
    let grown = place.snapshots.roots.usage("one").unwrap() - before;
    assert!([1 << 20, (1 << 20) - 5].contains(&grown), "{grown}");
    let error = place.snapshots.roots.prepare("one", &layers).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    drop(one);
    place.snapshots.roots.remove("one").unwrap();
    place.snapshots.roots.remove("one").unwrap();
    assert_eq!(place.snapshots.roots.usage("one").unwrap_err().kind(), Kind::NotFound);
    place.snapshots.roots.prepare("one", &layers).unwrap();
    assert_eq!(fs::read_to_string(two.at("file")).unwrap(), "image");
}

/// Everything under the directory of layers that is not a whole layer.
fn leftovers(place: &Place) -> Vec<String> {
    let driver = fs::read_dir(place.dir.path().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let mut found: Vec<String> = fs::read_dir(driver.join("tmp")).unwrap().map(|e| format!("{e:?}")).collect();
    let others = fs::read_dir(&driver).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    found.extend(others.filter(|name| !matches!(name.as_str(), "tmp" | "places" | "blanks")));
    found
}

pub fn a_bad_layer_leaves_nothing(place: Place) {
    let lease = place.pins.lease();
    let tar = Layer::default().file("a", "1").file("b", "2").tar();
    let wrong = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    let try_apply =
        |expected: Option<&Digest>, mut tar: &[u8]| place.snapshots.layers.apply_layer(expected, &mut tar, &lease);
    let error = try_apply(Some(&wrong), &tar).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidParameter);
    assert!(error.message().starts_with("wrong diff id calculated on extraction"), "{error}");
    let error = try_apply(None, &tar[..512]).unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::InvalidParameter, "unexpected EOF"));
    let mut outside = Layer::default().file("x", "1").tar();
    outside[..4].copy_from_slice(b"../x");
    let sum: u32 =
        outside[..512].iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
    outside[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    assert_eq!(try_apply(None, &outside).unwrap_err().message(), "\"../x\" is outside of the layer");
    assert_eq!(leftovers(&place), Vec::<String>::new());
}

pub fn one_layer_applied_by_many_is_one_layer(place: Place) {
    let tar = Layer::default().file("a", "1").tar();
    let lease = place.pins.lease();
    let infos: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| place.snapshots.layers.apply_layer(None, &mut tar.as_slice(), &lease).unwrap()))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(infos.iter().all(|info| *info == infos[0]));
    assert_eq!(leftovers(&place), [infos[0].diff_id.hex()]);
    place.snapshots.layers.sync().unwrap();
    let again = place.snapshots.layers.apply_layer(Some(&infos[0].diff_id), &mut std::io::empty(), &lease).unwrap();
    assert_eq!(again, infos[0]);
}

pub fn a_sweep_takes_what_nothing_names(place: Place) {
    let kept = apply(&place, Layer::default().file("kept", "1"));
    let dead = apply(&place, Layer::default().file("dead", "2"));
    let lease = place.pins.lease();
    let mut tar = &Layer::default().file("pinned", "3").tar()[..];
    let pinned = place.snapshots.layers.apply_layer(None, &mut tar, &lease).unwrap().diff_id;
    let pinned = LayerKey::Diff(pinned);
    assert!(place.snapshots.layers.sweep(&live(&[&kept]), &place.pins.begin_sweep()).unwrap() > 0);
    let here = |key: &LayerKey| place.snapshots.layers.layer(key).unwrap().is_some();
    assert!(here(&kept) && here(&pinned) && !here(&dead));
    drop(lease);
    place.snapshots.layers.sweep(&live(&[&kept]), &place.pins.begin_sweep()).unwrap();
    assert!(here(&kept) && !here(&pinned));
}

/// What a build's step wrote is a layer at once, and packed when somebody asks for it.
pub fn a_root_becomes_a_layer_before_its_diff_id_is_known(mut place: Place) {
    let bottom = Layer::default().dir("d", 0o751).file("d/kept", "1").file("d/gone", "2");
    let base = apply(&place, bottom.dir("o", 0o755).file("o/old", "3"));
    let root = mounted(&place, "step", std::slice::from_ref(&base));
    fs::remove_file(root.at("d/gone")).unwrap();
    fs::write(root.at("d/new"), "new").unwrap();
    fs::hard_link(root.at("d/new"), root.at("d/alike")).unwrap();
    fs::remove_dir_all(root.at("o")).unwrap();
    fs::create_dir(root.at("o")).unwrap();
    fs::write(root.at("o/fresh"), "fresh").unwrap();
    drop(root);
    let local = |n: u8| LayerKey::Local(Digest::from_sha256(&[n; 32]));
    let (key, lease) = (local(1), place.pins.lease());
    let below = [base.clone()];
    let commit = |key: &LayerKey| place.snapshots.roots.commit("step", &below, key, &lease);
    assert_eq!(commit(&base).unwrap_err().kind(), Kind::InvalidParameter);
    let info = commit(&key).unwrap();
    assert!(info.size > 0);
    assert_eq!(commit(&local(2)).unwrap_err().kind(), Kind::NotFound);
    assert!(!place.snapshots.roots.has_writable("step"));
    mounted(&place, "other", &below);
    assert_eq!(place.snapshots.roots.commit("other", &below, &key, &lease).unwrap_err().kind(), Kind::Conflict);
    assert!(place.snapshots.roots.has_writable("other"));
    place.reopen();
    let layers = &place.snapshots.layers;
    assert_eq!(layers.layer(&key).unwrap(), Some(info));
    let pack = || {
        let mut tar = Vec::new();
        (layers.pack_layer(&key, &below, None, &mut tar).unwrap(), tar)
    };
    let (diff_id, tar) = pack();
    assert_eq!(pack(), (diff_id.clone(), tar.clone()));
    layers.identify(&key, &diff_id).unwrap();
    layers.identify(&key, &diff_id).unwrap();
    let wrong = Digest::from_sha256(&[7; 32]);
    assert_eq!(layers.identify(&key, &wrong).unwrap_err().kind(), Kind::Conflict);
    assert_eq!(layers.identify(&base, &wrong).unwrap_err().kind(), Kind::InvalidParameter);
    let known = LayerKey::Diff(diff_id.clone());
    assert_eq!(layers.layer(&known).unwrap().unwrap().diff_id, Some(diff_id.clone()));
    assert_eq!(place.snapshots.survey.strays().unwrap(), Default::default());
    // Unpacked elsewhere it is the same, and so it is by both of its keys at once.
    let elsewhere = crate::Place::new(place.make);
    let base_tar = Layer::default().dir("d", 0o751).file("d/kept", "1").file("d/gone", "2");
    let other_base = apply(&elsewhere, base_tar.dir("o", 0o755).file("o/old", "3"));
    let unpacked = elsewhere.snapshots.layers.apply_layer(Some(&diff_id), &mut tar.as_slice(), &lease).unwrap();
    let copy = mounted(&elsewhere, "c", &[other_base, LayerKey::Diff(unpacked.diff_id)]);
    let chain = [base.clone(), key.clone(), known.clone()];
    for root in [&copy, &mounted(&place, "c", &chain)] {
        assert_eq!(names(root, "d"), ["alike", "kept", "new"]);
        assert_eq!(names(root, "o"), ["fresh"]);
        let inode = |path: &str| fs::metadata(root.at(path)).unwrap().ino();
        assert_eq!(inode("d/new"), inode("d/alike"));
        assert_eq!(fs::metadata(root.at("d")).unwrap().mode() & 0o7777, 0o751);
    }
    assert_eq!(place.snapshots.roots.changes("c", &chain).unwrap(), []);
    // Either key keeps it.
    drop(lease);
    let sweep = |live: &HashSet<LayerKey>| layers.sweep(live, &place.pins.begin_sweep()).unwrap();
    let here = || (layers.layer(&key).unwrap().is_some(), layers.layer(&known).unwrap().is_some());
    sweep(&live(&[&base, &known]));
    assert_eq!(here(), (true, true));
    sweep(&live(&[&base, &key]));
    assert_eq!(here(), (true, false));
    assert!(sweep(&live(&[&base])) > 0);
    assert_eq!(here(), (false, false));
}

pub fn a_restart_keeps_layers_and_containers(mut place: Place) {
    let layers = [apply(&place, Layer::default().file("tmp/file", "image"))];
    let info = place.snapshots.layers.layer(&layers[0]).unwrap().unwrap();
    let root = mounted(&place, "c1", &layers);
    fs::write(root.at("written"), "x").unwrap();
    drop(root);
    let driver = fs::read_dir(place.dir.path().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    fs::create_dir_all(driver.join("tmp/7/fs/half")).unwrap();
    place.reopen();
    assert_eq!(leftovers(&place), [layers[0].pin().hex()]);
    assert_eq!(place.snapshots.layers.layer(&layers[0]).unwrap(), Some(info));
    let root = Mounted::new(&place.snapshots.roots.rootfs("c1", &layers).unwrap());
    assert_eq!(names(&root, "."), ["tmp", "written"]);
}

pub fn an_image_may_have_many_layers_or_none(place: Place) {
    let layers: Vec<_> = (0..150).map(|n| apply(&place, Layer::default().file(&format!("f{n}"), "x"))).collect();
    let root = mounted(&place, "many", &layers);
    assert_eq!(names(&root, ".").len(), 150);
    let none = mounted(&place, "none", &[]);
    fs::write(none.at("file"), "x").unwrap();
    assert_eq!(names(&none, "."), ["file"]);
}

/// Chains with equal layers beside each other, apart, and with deletions between them; each with the names it shows.
pub fn a_layer_that_is_named_twice_counts_where_it_is_topmost(place: Place) {
    let base = apply(&place, Layer::default().dir("d", 0o750).file("d/base", "base").file("f", "base"));
    let twice = apply(&place, Layer::default().dir("d", 0o700).file("d/own", "own").file("f", "own"));
    let gone = apply(&place, Layer::default().file("d/.wh.own", "").file(".wh.f", ""));
    let opaque = apply(&place, Layer::default().dir("d", 0o711).file("d/.wh..wh..opq", "").file("d/new", "new"));
    let other = apply(&place, Layer::default().file("d/implicit/x", "x").file("f", "other"));
    let empty = apply(&place, Layer::default());
    for (n, (chain, names_in_d, f)) in [
        (vec![&base, &twice, &twice], vec!["base", "own"], Some("own")),
        (vec![&base, &twice, &gone, &twice], vec!["base", "own"], Some("own")),
        (vec![&base, &twice, &gone, &twice, &gone], vec!["base"], None),
        (vec![&base, &gone, &twice, &gone, &twice, &gone], vec!["base"], None),
        (vec![&base, &twice, &opaque, &twice], vec!["new", "own"], Some("own")),
        (vec![&base, &twice, &opaque, &twice, &opaque], vec!["new"], Some("own")),
        (vec![&twice, &other, &twice, &other], vec!["implicit", "own"], Some("other")),
        (vec![&base, &empty, &twice, &empty, &empty], vec!["base", "own"], Some("own")),
        (vec![&base, &twice, &base], vec!["base", "own"], Some("base")),
        (vec![&empty, &empty], vec![], None),
    ]
    .into_iter()
    .enumerate()
    {
        let chain: Vec<LayerKey> = chain.into_iter().cloned().collect();
        let root = mounted(&place, &format!("c{n}"), &chain);
        assert_eq!(names_in(&root, "d"), names_in_d, "chain {n}");
        assert_eq!(fs::read_to_string(root.at("f")).ok().as_deref(), f, "chain {n}");
        assert!(place.snapshots.roots.changes(&format!("c{n}"), &chain).unwrap().is_empty(), "chain {n}");
    }
}

pub fn a_container_over_equal_layers_is_packed_and_exported(place: Place) {
    let base = apply(&place, Layer::default().dir("d", 0o755).file("d/base", "base"));
    let twice = apply(&place, Layer::default().file("d/own", "own"));
    let gone = apply(&place, Layer::default().file("d/.wh.own", ""));
    let chain = [base.clone(), twice.clone(), gone.clone(), twice.clone()];
    let root = mounted(&place, "c1", &chain);
    fs::remove_file(root.at("d/own")).unwrap();
    fs::write(root.at("fresh"), "x").unwrap();
    let mut layer = Vec::new();
    let committed = place.snapshots.roots.write_diff("c1", &chain, &mut layer).unwrap().unwrap();
    let lease = place.pins.lease();
    place.snapshots.layers.apply_layer(Some(&committed), &mut layer.as_slice(), &lease).unwrap();
    let committed = LayerKey::Diff(committed);
    // What was committed, and it twice, over the same layers.
    for (id, above) in [("c2", vec![committed.clone()]), ("c3", vec![committed.clone(), twice, committed])] {
        let chain = [chain.to_vec(), above].concat();
        let again = mounted(&place, id, &chain);
        assert_eq!((names(&again, "."), names(&again, "d")), (vec!["d".into(), "fresh".into()], vec!["base".into()]));
        assert!(place.snapshots.roots.changes(id, &chain).unwrap().is_empty());
        let mut tar = Vec::new();
        place.snapshots.roots.export(id, &chain, &mut tar).unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let paths = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string());
        let own: Vec<_> = paths.filter(|path| path.starts_with("d") && !path.starts_with("dev")).collect();
        assert_eq!(own, ["d/", "d/base"]);
    }
}

pub fn missing_things_are_named(place: Place) {
    let missing = Digest::parse(&format!("sha256:{}", "e".repeat(64))).unwrap();
    let error = place.snapshots.roots.prepare("c1", &[LayerKey::from(&missing)]).unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::NotFound, &*format!("layer {missing} does not exist")));
    for id in ["", "..", "a/b", "."] {
        assert_eq!(place.snapshots.roots.prepare(id, &[]).unwrap_err().kind(), Kind::InvalidParameter, "{id:?}");
    }
}

pub fn places_of_mounts_lie_below_the_image(place: Place) {
    let bottom = Layer::default().dir("dev", 0o700).file("etc/hosts", "the image's").file("sys", "a file");
    let layers = [apply(&place, bottom), apply(&place, Layer::default().file(".wh.proc", ""))];
    let (one, two) = (mounted(&place, "one", &layers), mounted(&place, "two", &layers));
    let text = |root: &Mounted, path: &str| fs::read_to_string(root.at(path)).unwrap();
    assert_eq!((text(&one, "etc/hosts"), text(&one, "sys")), ("the image's".to_owned(), "a file".to_owned()));
    assert_eq!((text(&one, "etc/resolv.conf"), text(&one, ".dockerenv")), (String::new(), String::new()));
    assert_eq!(fs::metadata(one.at("dev")).unwrap().permissions().mode() & 0o7777, 0o700);
    assert!(!one.at("proc").exists());
    assert_eq!(fs::read_link(one.at("etc/mtab")).unwrap(), Path::new("/proc/mounts"));
    fs::write(one.at("etc/resolv.conf"), "one's").unwrap();
    fs::remove_file(one.at(".dockerenv")).unwrap();
    assert_eq!(text(&two, "etc/resolv.conf"), "");
    assert!(two.at(".dockerenv").exists());
    let mut tar = Vec::new();
    place.snapshots.roots.export("two", &layers, &mut tar).unwrap();
    let found = crate::packing::names(&tar);
    assert_eq!(found.iter().filter(|name| name.starts_with("etc")).count(), 5, "{found:?}");
    assert_eq!(place.snapshots.roots.changes("two", &layers).unwrap(), []);
}

/// As many lower directories as the kernel takes: there is no room for another.
pub fn the_longest_chain_has_no_room_for_places(place: Place) {
    let layer = |n: usize| apply(&place, Layer::default().file(&format!("f{n}"), "x"));
    let layers: Vec<_> = (0..500).map(layer).collect();
    let root = mounted(&place, "full", &layers);
    assert!(root.at("f499").exists() && root.at(".dockerenv").exists() && !root.at("proc").exists());
    let root = mounted(&place, "almost", &layers[1..]);
    assert!(root.at("f499").exists() && root.at(".dockerenv").exists() && root.at("proc").exists());
}

/// Made ahead or not, a container's directory is the same.
pub fn writable_layers_made_ahead_are_like_others(mut place: Place) {
    let layers = [apply(&place, Layer::default().file("file", "image"))];
    let fill = |dir: &Path| Ok(fs::write(dir.join("more"), "")?);
    place.snapshots.roots.make_ahead(&fill).unwrap();
    place.snapshots.roots.make_ahead(&fill).unwrap();
    let blanks = |place: &Place| {
        let names = fs::read_dir(place.dir.path().join("containers")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().starts_with(snapshot::blanks::PREFIX)).count()
    };
    assert_eq!(blanks(&place), 2);
    for id in ["ahead", "too", "plain"] {
        place.snapshots.roots.prepare(id, &layers).unwrap();
    }
    assert_eq!(blanks(&place), 0);
    let shape = |id: &str| {
        let dir = place.dir.path().join("containers").join(id);
        ["", "rw", "rw/upper", "rw/work"].map(|name| fs::metadata(dir.join(name)).unwrap().permissions().mode())
    };
    assert_eq!(shape("ahead"), shape("plain"));
    let filled = |id: &str| place.dir.path().join("containers").join(id).join("more").exists();
    assert!(filled("ahead") && filled("too") && !filled("plain"));
    assert_eq!(place.snapshots.roots.prepare("plain", &layers).unwrap_err().kind(), Kind::Conflict);
    place.snapshots.roots.make_ahead(&fill).unwrap();
    // A container that has one keeps it, whatever is there to be taken.
    assert_eq!(place.snapshots.roots.prepare("ahead", &layers).unwrap_err().kind(), Kind::Conflict);
    place.snapshots.roots.prepare("next", &layers).unwrap();
    assert_eq!(blanks(&place), 1);
    place.snapshots.roots.clear_ahead().unwrap();
    assert_eq!(blanks(&place), 0);
    place.snapshots.roots.make_ahead(&fill).unwrap();
    place.reopen();
    assert_eq!(blanks(&place), 0);
    assert!(mounted(&place, "new", &layers).at("file").exists());
}

/// What a power cut has taken of a container that never ran is made again; of one that ran only what holds nothing.
pub fn what_holds_nothing_yet_is_made_again(place: Place) {
    let layers = [apply(&place, Layer::default().file("file", "image"))];
    let containers = place.dir.path().join("containers");
    let whole = |id: &str| place.snapshots.roots.has_writable(id);
    for part in ["", "rw", "rw/upper", "rw/work", "rw/fs"] {
        let id = format!("new{}", part.replace('/', "-"));
        place.snapshots.roots.prepare(&id, &layers).unwrap();
        place.snapshots.roots.make_durable(&id).unwrap();
        assert!(!place.snapshots.roots.put_right(&id, &layers, false).unwrap());
        let lost = containers.join(&id).join(part);
        if !lost.exists() {
            continue;
        }
        fs::remove_dir_all(&lost).unwrap();
        assert!(!whole(&id), "without {part:?}");
        let ran = place.snapshots.roots.put_right(&id, &layers, false).unwrap();
        assert_eq!((ran, whole(&id)), (part == "rw/work", part == "rw/work"), "without {part:?}");
        assert_eq!(place.snapshots.roots.put_right(&id, &layers, true).unwrap(), !ran);
        assert!(whole(&id), "without {part:?}");
        assert!(mounted(&place, &format!("mounted-{id}"), &layers).at("file").exists());
    }
}
