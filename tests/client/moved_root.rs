//! A data root that is copied, moved, or mounted elsewhere: everything is found there, and nothing is done where it was.

use std::path::{Path, PathBuf};

use serde_json::json;
use testkit::Daemon;

use crate::check::PLANTS;
use crate::with_busybox;

/// Every file below a directory: kind, mode, owner, links, time of its last change, path, target; then the digests.
fn listing(d: &Daemon, dir: &Path) -> String {
    let script = "cd \"$0\" && find . -printf '%y %m %U:%G %n %C@ %p %l\\n' | sort -k6 && \
                  find . -type f -print0 | sort -z | xargs -0 sha256sum";
    d.exec_inside(&["sh", "-c", script, &dir.display().to_string()]).ok().stdout
}

#[track_caller]
fn inside(d: &Daemon, words: &[&str]) {
    let _ = d.exec_inside(words).ok();
}

/// Brings the data root of a stopped daemon elsewhere.
type Way = (&'static str, fn(&Daemon, &str, &str));

/// The last one is a link, which is another name of the old place.
const WAYS: &[Way] = &[
    ("copied", |d, from, to| inside(d, &["cp", "-a", from, to])),
    ("moved", |d, from, to| inside(d, &["mv", from, to])),
    ("mounted", |d, from, to| {
        inside(d, &["mkdir", to]);
        inside(d, &["mount", "--bind", from, to]);
    }),
    ("moved into a file system of its own", |d, from, to| {
        inside(d, &["mkdir", to]);
        inside(d, &["mount", "-t", "tmpfs", "elsewhere", to]);
        inside(d, &["sh", "-c", &format!("cp -a {from}/. {to} && find {from} -mindepth 1 -delete")]);
    }),
    ("linked", |d, from, to| inside(d, &["ln", "-s", from, to])),
];

/// Containers that ran, were stopped, were never started, restart always; all kinds of volumes.
fn fill(d: &Daemon) {
    let script = "echo own > /own; echo data > /v/file; echo secret > /a/file; echo more >> /etc/passwd; echo said";
    let _ = d
        .docker(&["run", "--name", "ended", "-v", "kept:/v", "-v", "/a", "-v", "/etc", "busybox", "sh", "-c", script])
        .ok();
    let sleeping = ["-d", "--stop-signal", "KILL", "--volumes-from", "ended", "busybox", "sleep", "1000"];
    let _ = d.docker(&[&["run", "--name", "stopped"], &sleeping[..]].concat()).ok();
    let _ = d.docker(&["stop", "stopped"]).ok();
    let _ = d.docker(&[&["run", "--restart", "always", "--name", "always"], &sleeping[..]].concat()).ok();
    let _ = d.docker(&["create", "--name", "created", "-v", "new:/v", "-v", "/a", "busybox", "sleep", "1000"]).ok();
    let part = json!({"Type": "volume", "Source": "kept", "Target": "/f", "VolumeOptions": {"Subpath": "file"}});
    let body = json!({"Image": "busybox", "Cmd": ["cat", "/f"], "HostConfig": {"Mounts": [part]}});
    let _ = d.http("POST", "/containers/create?name=part", &body.to_string()).expect(201);
    let _ = d.docker(&["volume", "create", "unused"]).ok();
}

/// Everything works and lies below the root.
#[track_caller]
fn is_whole(d: &Daemon, way: &str) {
    let root = d.data_root().display().to_string();
    let inspected = d.docker(&["inspect", "ended", "stopped", "always", "created", "part"]).text();
    let volumes = d.docker(&["volume", "inspect", "kept", "new", "unused"]).text();
    for line in inspected.lines().chain(volumes.lines()) {
        let is_path =
            ["\"Source\": \"", "Path\": \"", "\"Mountpoint\": \"", "Dir\": \""].iter().any(|k| line.contains(k));
        let is_below = line.contains(&format!("\"{root}/")) || !line.contains(": \"/");
        assert!(!is_path || is_below || line.contains("\"Path\": "), "{way}: {line}");
    }
    d.until("always", "{{.State.Running}}", "true");
    let seen = "cat /v/file /a/file; tail -n 1 /etc/passwd";
    for name in ["stopped", "created"] {
        let _ = d.docker(&["start", name]).ok();
    }
    for name in ["stopped", "always"] {
        assert_eq!(d.docker(&["exec", name, "sh", "-c", seen]).text(), "data\nsecret\nmore", "{way}: {name}");
    }
    assert_eq!(d.docker(&["exec", "created", "ls", "/v", "/a"]).text(), "/a:\n\n/v:", "{way}");
    assert_eq!(d.docker(&["start", "-a", "part"]).text(), "data", "{way}");
    assert!(d.docker(&["logs", "ended"]).text().starts_with("said"), "{way}");
    assert!(d.docker(&["diff", "ended"]).text().contains("A /own"), "{way}");
    assert_eq!(d.docker(&["start", "-a", "ended"]).text(), "said", "{way}");
    // What is new is made here, and what is removed is removed here.
    let _ = d.docker(&["run", "--rm", "-v", "unused:/v", "-v", "/a", "busybox", "touch", "/v/here"]).ok();
    assert!(d.exec_inside(&["stat", &format!("{root}/volumes/unused/_data/here")]).code == 0, "{way}");
    let _ = d.docker(&["volume", "rm", "unused"]).ok();
    let _ = d.docker(&["volume", "create", "unused"]).ok();
    assert_eq!(d.faults(), [""; 0], "{way}, with the daemon");
    let _ = d.docker(&["stop", "-t", "0", "stopped", "created"]).ok();
}

#[test]
fn a_data_root_works_wherever_it_is_brought() {
    let mut d = with_busybox();
    fill(&d);
    for (n, (way, bring)) in WAYS.iter().enumerate() {
        assert_eq!(d.stop(), 0);
        let (from, to) = (d.data_root().to_owned(), d.path(&format!("r{n}")));
        bring(&d, &from.display().to_string(), &to.display().to_string());
        let original = (*way == "copied").then(|| listing(&d, &from));
        d.take_root(&to);
        assert_eq!(d.faults(), [""; 0], "{way}");
        d.again();
        is_whole(&d, way);
        if let Some(original) = original {
            assert_eq!(listing(&d, &from), original, "{way}: the original");
        }
    }
    // Mounts that the test made go before the census.
    assert_eq!(d.stop(), 0);
    let (last, home) = (d.path(&format!("r{}", WAYS.len() - 1)), d.path("home"));
    inside(&d, &["rm", &last.display().to_string()]);
    bring_home(&d, &home);
    d.take_root(&home);
    d.again();
    is_whole(&d, "brought home");
    let _ = d.docker(&["rm", "-f", "-v", "ended", "stopped", "always", "created", "part"]).ok();
    let _ = d.docker(&["volume", "rm", "kept", "new", "unused"]).ok();
    d.finish();
}

/// Out of the file system of its own, and the mounts away.
fn bring_home(d: &Daemon, home: &Path) {
    let (mounted, own) = (d.path("r2").display().to_string(), d.path("r3").display().to_string());
    inside(d, &["cp", "-a", &own, &home.display().to_string()]);
    [&mounted, &own].into_iter().for_each(|place| inside(d, &["umount", place]));
}

#[test]
fn repairing_a_copy_changes_nothing_in_the_original() {
    let mut d = with_busybox();
    let _ = d.docker(&["create", "--name", "c", "-v", "kept:/kept", "-v", "/a", "busybox", "true"]).ok();
    let _ = d.docker(&["start", "-a", "c"]).ok();
    assert_eq!(d.stop(), 0);
    let (original, copy) = (d.data_root().to_owned(), d.path("copy"));
    let everything: Vec<PathBuf> = vec![original.clone(), d.exec_root().to_owned()];
    let before = everything.iter().map(|dir| listing(&d, dir)).collect::<Vec<_>>();
    d.take_root(&copy);
    let mut planted: Vec<&str> = Vec::new();
    // One of each name.
    for (what, names, plant) in PLANTS {
        if planted.contains(&names[0]) {
            continue;
        }
        planted.push(names[0]);
        inside(&d, &["cp", "-a", &original.display().to_string(), &copy.display().to_string()]);
        plant(&copy);
        let repaired = d.check(&["--repair"]);
        assert!(repaired.code == 0 && repaired.stdout.contains("repaired: "), "{what}: {repaired:?}");
        assert!(!repaired.stdout.contains(&format!("{}/", original.display())), "{what}: {repaired:?}");
        for (dir, before) in everything.iter().zip(&before) {
            assert_eq!(listing(&d, dir), *before, "{what}: {}", dir.display());
        }
        inside(&d, &["rm", "-r", &copy.display().to_string()]);
    }
    // Without the original the copy's volume is made in the copy, not where its row was written.
    inside(&d, &["mv", &original.display().to_string(), &copy.display().to_string()]);
    inside(&d, &["rm", "-r", &copy.join("volumes/kept").display().to_string()]);
    let _ = d.check(&["--repair"]).ok();
    assert!(copy.join("volumes/kept/_data").is_dir() && !original.exists());
    d.again();
    let _ = d.docker(&["start", "-a", "c"]).ok();
    let _ = d.docker(&["rm", "-v", "c"]).ok();
    let _ = d.docker(&["volume", "rm", "kept"]).ok();
    d.finish();
}
