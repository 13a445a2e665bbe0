//! Images whose chain of layers is unusual: one layer named several times.

use serde_json::json;
use testkit::images::{Tar, busybox_tar, docker_archive};
use testkit::layouts::Layout;
use testkit::{Daemon, Options};

const DRIVERS: [&str; 2] = ["overlay2", "vfs"];

/// Two files, their deletion, the files again, and an empty layer in every gap, as two equal `WORKDIR`s make them.
fn layers() -> Vec<Vec<u8>> {
    let files = Tar::new().file("srv/one", 0o644, b"1").file("srv/two", 0o644, b"2").bytes();
    let gone = Tar::new().file("srv/.wh.one", 0o000, b"").bytes();
    let empty = Tar::new().bytes();
    vec![busybox_tar(), files.clone(), empty.clone(), gone, empty.clone(), files, empty]
}

#[test]
fn an_image_that_names_a_layer_twice_is_run_committed_and_exported() {
    for driver in DRIVERS {
        let d = Options::new().args(&["--storage-driver", driver]).start();
        d.load(&docker_archive("twice:1", &layers(), &json!({"Cmd": ["ls", "/srv"], "Env": ["PATH=/bin"]})));
        assert_eq!(d.docker(&["run", "--rm", "twice:1"]).text(), "one\ntwo", "{driver}");
        let _ = d.docker(&["run", "--name", "c1", "twice:1", "sh", "-c", "rm /srv/two; echo 3 > /srv/three"]).ok();
        assert_eq!(d.docker(&["diff", "c1"]).text(), "C /srv\nA /srv/three\nD /srv/two", "{driver}");
        let exported = d.path("export.tar");
        let _ = d.docker(&["export", "-o", exported.to_str().unwrap(), "c1"]).ok();
        let names = d.exec_inside(&["tar", "-tf", exported.to_str().unwrap()]).ok().stdout;
        let srv: Vec<_> = names.lines().filter(|name| name.starts_with("srv/")).collect();
        assert_eq!(srv, ["srv/", "srv/one", "srv/three"], "{driver}");
        // The same change twice is the same layer twice.
        let _ = d.docker(&["commit", "c1", "twice:2"]).ok();
        assert_eq!(d.docker(&["run", "--rm", "twice:2", "ls", "/srv"]).text(), "one\nthree", "{driver}");
        // One layer's size counts once, in the list as on the disk.
        let _ = d.docker(&["ps", "-as"]).ok();
        assert_eq!(d.faults(), Vec::<String>::new(), "{driver}");
        let _ = d.docker(&["rm", "c1"]).ok();
        let _ = d.docker(&["rmi", "twice:1", "twice:2"]).ok();
        assert_eq!(d.docker(&["images", "-aq"]).text(), "", "{driver}");
        d.finish();
    }
}

#[test]
fn an_image_that_names_a_layer_twice_is_saved_and_loaded_again() {
    let mut d = Daemon::start();
    let mut layout = Layout::new();
    let platform = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    let image = layout.image(platform, &layers(), &json!({"Cmd": ["ls", "/srv"], "Env": ["PATH=/bin"]}));
    d.load(&layout.entry(&image, &[("io.containerd.image.name", "docker.io/library/twice:1")]).tar());
    let saved = d.path("saved.tar");
    let _ = d.docker(&["save", "-o", saved.to_str().unwrap(), "twice:1"]).ok();
    let id = d.inspect("twice:1", "{{.Id}}");
    let chain = d.inspect("twice:1", "{{len .RootFS.Layers}}");
    let _ = d.docker(&["rmi", "twice:1"]).ok();
    let _ = d.docker(&["load", "-i", saved.to_str().unwrap()]).ok();
    assert_eq!((d.inspect("twice:1", "{{.Id}}"), d.inspect("twice:1", "{{len .RootFS.Layers}}")), (id, chain));
    let _ = d.docker(&["run", "-d", "--name", "c1", "twice:1", "sleep", "1000"]).ok();
    // A new daemon finds it running and goes on.
    d.crash();
    assert_eq!(d.docker(&["exec", "c1", "ls", "/srv"]).text(), "one\ntwo");
    let _ = d.docker(&["restart", "-t", "0", "c1"]).ok();
    assert_eq!(d.docker(&["exec", "c1", "ls", "/srv"]).text(), "one\ntwo");
    let _ = d.docker(&["rm", "-f", "c1"]).ok();
    d.finish();
}
