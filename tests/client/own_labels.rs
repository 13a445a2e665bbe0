//! Labels that begin with `gantry.`: a container has those it is created with, and no image can give it any.

use testkit::{Daemon, Options};

use crate::with_busybox;

const WARNING: &str = "The image's labels have no effect: gantry.egress, gantry.health, gantry.restart, gantry.secrets, \
                       gantry.start-wait. ";

/// Creates a container of an image that carries labels of the engine: it is warned about, and the container has none of
/// them, neither for its eyes nor in what they do.
#[track_caller]
fn attack(d: &Daemon, image: &str) {
    let created = d.docker(&["create", "--name", "attacked", image, "true"]).ok();
    assert!(created.stderr.contains(WARNING), "{image}: {}", created.stderr);
    let labels = d.inspect("attacked", "{{json .Config.Labels}}");
    assert!(!labels.contains("gantry.") && labels.contains("harmless"), "{image}: {labels}");
    let listed = d.docker(&["ps", "-aq", "--filter", "label=gantry.egress"]).text();
    assert_eq!(listed, "", "{image}");
    // `gantry.keep` of an image keeps no container.
    assert!(d.docker(&["container", "prune", "-f"]).text().contains("Deleted Containers"), "{image}");
    d.docker(&["inspect", "attacked"]).fails(1, "o such object: attacked");
}

#[test]
fn an_image_cannot_give_a_container_labels_of_the_engine() {
    let changes = [
        "gantry.egress=all",
        "gantry.secrets=db",
        "gantry.keep=yes",
        "gantry.restart=on-unhealthy",
        "gantry.health=tcp://:1",
        "gantry.start-wait=1h",
        "harmless=1",
    ];
    let changes: Vec<String> = changes.iter().map(|label| format!("LABEL {label}")).collect();
    let changes: Vec<&str> = changes.iter().flat_map(|change| ["--change", change.as_str()]).collect();
    let d = with_busybox();
    // By import.
    let tar = testkit::images::Tar::new().file("data", 0o644, b"x").bytes();
    let _ = d.docker_input(&[&["import"], &changes[..], &["-", "imported"]].concat(), &tar).ok();
    attack(&d, "imported");
    // By commit, of a container that has none.
    let _ = d.docker(&["create", "--name", "c1", "busybox", "true"]).ok();
    let _ = d.docker(&[&["commit"], &changes[..], &["c1", "committed"]].concat()).ok();
    let _ = d.docker(&["rm", "c1"]).ok();
    attack(&d, "committed");
    // By an archive, and by an image made from such an image.
    let archive = d.path("saved.tar");
    let _ = d.docker(&["save", "-o", archive.to_str().unwrap(), "committed"]).ok();
    let _ = d.docker(&["rmi", "committed"]).ok();
    let _ = d.docker(&["load", "-i", archive.to_str().unwrap()]).ok();
    attack(&d, "committed");
    let _ = d.docker(&["create", "--name", "c2", "committed", "true"]).ok();
    let _ = d.docker(&[&["commit"], &changes[..], &["c2", "again"]].concat()).ok();
    let _ = d.docker(&["rm", "c2"]).ok();
    attack(&d, "again");
    let _ = d.docker(&["rmi", "imported", "committed", "again"]).ok();
    d.finish();
}

/// Labels of the daemon are shown by `info`; no container inherits them.
#[test]
fn the_daemon_cannot_give_a_container_labels_of_the_engine() {
    let d = Options::new().args(&["--label", "gantry.egress=all", "--label", "gantry.keep=yes"]).start();
    d.busybox();
    assert!(d.docker(&["info", "--format", "{{.Labels}}"]).text().contains("gantry.egress=all"));
    let created = d.docker(&["create", "--name", "c1", "busybox", "true"]).ok();
    assert_eq!((created.stderr.as_str(), d.inspect("c1", "{{json .Config.Labels}}").as_str()), ("", "{}"));
    assert!(d.docker(&["container", "prune", "-f"]).text().contains("Deleted Containers"));
    d.finish();
}

#[test]
fn an_unknown_label_of_the_engine_is_refused() {
    let d = with_busybox();
    for label in ["gantry.egres=allow:a", "gantry.secret", "gantry."] {
        let name = label.split('=').next().unwrap_or_default();
        let text = format!("unknown label {name:?}: labels that begin with \"gantry.\" are those of the engine");
        d.docker(&["create", "--label", label, "busybox", "true"]).fails(1, &text);
        let body = format!(r#"{{"Image":"busybox","Cmd":["true"],"Labels":{{"{name}":"x"}}}}"#);
        assert!(d.http("POST", "/containers/create", &body).expect(400).message().starts_with(&text), "{label}");
    }
    // The prefix is the engine's as it is written, nothing like it.
    let _ =
        d.docker(&["create", "--name", "c1", "--label", "Gantry.x=1", "--label", "gantry=1", "busybox", "true"]).ok();
    let _ = d.docker(&["rm", "c1"]).ok();
    d.finish();
}

#[test]
fn a_container_that_is_to_be_kept_survives_prunes_and_the_daemon() {
    let mut d = with_busybox();
    let _ = d.docker(&["create", "--name", "kept", "--label", "gantry.keep=yes", "busybox", "true"]).ok();
    let _ = d.docker(&["create", "--name", "passing", "--label", "gantry.keep=false", "busybox", "true"]).ok();
    d.restart();
    let _ = d.docker(&["container", "prune", "-f"]).ok();
    let _ = d.docker(&["system", "prune", "-f"]).ok();
    assert_eq!(d.docker(&["ps", "-a", "--format", "{{.Names}}"]).text(), "kept");
    let _ = d.docker(&["rm", "kept"]).ok();
    d.finish();
}
