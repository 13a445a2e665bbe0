//! `docker diff`, `docker export`, `docker commit`: what is in a container comes out of it.

use serde_json::json;
use testkit::Daemon;
use testkit::images::layered_archive;

use crate::events::now;
use crate::{eventually, with_busybox};

/// Exports a container; the archive and the names in it.
fn export(d: &Daemon, name: &str) -> (Vec<u8>, Vec<String>) {
    let path = d.path("export.tar");
    let _ = d.docker(&["export", "-o", path.to_str().unwrap(), name]).ok();
    let names = d.exec_inside(&["tar", "-tf", path.to_str().unwrap()]).ok().stdout;
    (std::fs::read(path).unwrap(), names.lines().map(str::to_owned).collect())
}

#[test]
fn a_diff_tells_what_changed_and_no_places_of_mounts() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "fresh", "busybox", "true"]).ok();
    assert_eq!(d.http("GET", "/containers/fresh/changes", "").expect(200).text(), "null\n");
    let _ = d.docker(&["run", "-d", "--name", "c1", "-v", "data:/data", "busybox", "sleep", "1000"]).ok();
    let change =
        "echo 1 > /etc/new; rm /etc/group; touch /tmp/passing; rm /tmp/passing; chmod 700 /srv; echo 1 > /data/x";
    let _ = d.docker(&["exec", "c1", "sh", "-c", change]).ok();
    let expected = "A /data\nC /etc\nD /etc/group\nA /etc/new\nC /srv";
    assert_eq!(d.docker(&["diff", "c1"]).text(), expected);
    assert_eq!(
        d.http("GET", "/containers/c1/changes", "").expect(200).json(),
        json!([
            {"Path": "/data", "Kind": 1},
            {"Path": "/etc", "Kind": 0},
            {"Path": "/etc/group", "Kind": 2},
            {"Path": "/etc/new", "Kind": 1},
            {"Path": "/srv", "Kind": 0},
        ])
    );
    assert_eq!(d.http("GET", "/containers/nosuch/changes", "").expect(404).message(), "No such container: nosuch");
    let _ = d.docker(&["rm", "-f", "fresh", "c1"]).ok();
    let _ = d.docker(&["volume", "rm", "data"]).ok();
    d.finish();
}

#[test]
fn an_export_imported_again_is_the_same_root() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c1", "-v", "data:/data", "busybox", "sleep", "1000"]).ok();
    let fill =
        "echo mine > /etc/mine; echo hidden > /data/x; ln /etc/mine /etc/again; chown 7:8 /etc/mine; rm /etc/group";
    let _ = d.docker(&["exec", "c1", "sh", "-c", fill]).ok();
    let (tar, names) = export(&d, "c1");
    for (name, expected) in [
        (".dockerenv", true),
        ("etc/mine", true),
        ("data/", true),
        ("data/x", false),
        ("etc/group", false),
        ("etc/hosts", true),
        ("proc/", true),
        ("proc/self", false),
        ("dev/null", false),
    ] {
        assert_eq!(names.iter().any(|found| found == name), expected, "{name} in {names:?}");
    }
    let _ = d.docker_input(&["import", "-", "again"], &tar).ok();
    // An image that has the mark already gives no change.
    let _ = d.docker(&["create", "--name", "c2", "again", "true"]).ok();
    assert_eq!(d.docker(&["diff", "c2"]).text(), "");
    let _ = d.docker(&["rm", "c2"]).ok();
    let look = "cat /etc/mine; stat -c '%u:%g %h' /etc/again; test -e /etc/group; echo $?; ls /data";
    assert_eq!(d.docker(&["run", "--rm", "again", "sh", "-c", look]).text(), "mine\n7:8 2\n1");
    let events =
        d.docker(&["events", "--since", "0", "--until", &now().to_string(), "--filter", "event=export"]).text();
    assert_eq!(events.lines().count(), 1, "{events}");
    let _ = d.docker(&["rm", "-f", "c1"]).ok();
    let _ = d.docker(&["volume", "rm", "data"]).ok();
    d.finish();
}

#[test]
fn an_export_is_refused_or_broken_off_without_a_trace() {
    let d = with_busybox();
    assert_eq!(d.http("GET", "/containers/nosuch/export", "").expect(404).message(), "No such container: nosuch");
    let _ = d.docker(&["run", "--name", "big", "busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=64"]).ok();
    for _ in 0..3 {
        let mut connection = d.connection();
        connection.send(b"GET /containers/big/export HTTP/1.1\r\nHost: docker\r\n\r\n").unwrap();
        assert_eq!(connection.head().unwrap().status, 200);
        connection.chunk().unwrap();
    }
    assert_eq!(d.http("HEAD", "/containers/big/export", "").status, 404);
    let exported =
        || d.docker(&["events", "--since", "0", "--until", &now().to_string(), "--filter", "event=export"]).text();
    assert_eq!(exported(), "");
    let _ = d.docker(&["rm", "big"]).ok();
    d.finish();
}

#[test]
fn a_commit_is_an_image_like_any_other() {
    let d = Daemon::start();
    d.load(&layered_archive("layers:latest", 4));
    let run = "echo new > /new; rm /layer-3; mkdir /d; echo x > /d/x; chmod 1777 /d";
    let _ = d.docker(&["run", "--name", "c1", "-e", "A=own", "-w", "/srv", "layers", "sh", "-c", run]).ok();
    let commit = [
        "commit",
        "-m",
        "a comment",
        "-a",
        "somebody",
        "-c",
        "ENV B=$A",
        "-c",
        "CMD [\"cat\", \"/new\"]",
        "-c",
        "LABEL k=v",
        "c1",
        "made:v1",
    ];
    let id = d.docker(&commit).text();
    assert_eq!(d.inspect("made:v1", "{{.Id}} {{.Comment}} {{.Author}}"), format!("{id} a comment somebody"));
    let config = d.inspect("made:v1", "{{json .Config.Env}} {{.Config.WorkingDir}} {{.Config.Labels.k}}");
    assert!(config.contains("A=own") && config.contains("B=own") && config.ends_with("] /srv v"), "{config}");
    assert_eq!(d.docker(&["run", "--rm", "made:v1"]).text(), "new");
    let look = "ls -d /layer-* /d/x; stat -c %a /d";
    assert_eq!(d.docker(&["run", "--rm", "made:v1", "sh", "-c", look]).text(), "/d/x\n/layer-2\n1777");
    let layers = |name: &str| d.inspect(name, "{{join .RootFS.Layers \" \"}}");
    assert!(layers("made:v1").starts_with(&layers("layers")) && layers("made:v1").split(' ').count() == 5);
    let history = d.docker(&["history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", "made:v1"]).text();
    let expected = format!("sh -c {run}|a comment");
    assert_eq!((history.lines().next().unwrap(), history.lines().count()), (expected.as_str(), 5));
    // Layers below keep their digests; so does all of it in an archive.
    let saved = d.path("made.tar");
    let _ = d.docker(&["save", "-o", saved.to_str().unwrap(), "made:v1"]).ok();
    let _ = d.docker(&["rm", "c1"]).ok();
    let _ = d.docker(&["rmi", "made:v1", "layers"]).ok();
    let _ = d.docker(&["load", "-i", saved.to_str().unwrap()]).ok();
    assert_eq!(d.inspect("made:v1", "{{.Id}}"), id);
    assert_eq!(d.docker(&["run", "--rm", "made:v1"]).text(), "new");
    d.finish();
}

#[test]
fn what_changed_nothing_gives_no_layer_and_names_are_optional() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "c1", "busybox", "true"]).ok();
    let id = d.docker(&["commit", "c1"]).text();
    assert_eq!(d.inspect(&id, "{{len .RootFS.Layers}} {{len .RepoTags}}"), "1 0");
    let history = d.http("GET", &format!("/images/{id}/history"), "").expect(200).json();
    assert_eq!((history[0]["CreatedBy"].as_str(), history[0]["Size"].as_i64()), (Some("true"), Some(0)));
    // The body's configuration comes first, the container's fills it up.
    let answer = d.http(
        "POST",
        "/commit?container=c1&repo=given",
        r#"{"Cmd":["echo","given"],"Env":["X=1"],"Labels":{"a":"b"},"Hostname":"ignored"}"#,
    );
    let given = answer.expect(201).json()["Id"].as_str().unwrap().to_owned();
    assert_eq!(d.inspect("given:latest", "{{.Id}} {{json .Config.Cmd}}"), format!("{given} [\"echo\",\"given\"]"));
    assert!(d.inspect("given", "{{json .Config.Env}}").starts_with("[\"X=1\",\"PATH="));
    let _ = d.docker(&["rm", "c1"]).ok();
    d.finish();
}

/// What an image was committed from: told by inspect, list and history, and gone with its last child (B-im-9, B-im-13).
#[test]
fn a_commit_knows_its_parent() {
    let d = with_busybox();
    let base = d.inspect("busybox", "{{.Id}}");
    let commit = |image: &str, name: &[&str]| {
        let container = d.docker(&["create", image, "true"]).text();
        let id = d.docker(&[&["commit", &container], name].concat()).text();
        let _ = d.docker(&["rm", &container]).ok();
        id
    };
    let middle = commit("busybox", &[]);
    let top = commit(&middle, &["top:1"]);
    assert_eq!((d.inspect(&top, "{{.Parent}}"), d.inspect(&middle, "{{.Parent}}")), (middle.clone(), base.clone()));
    let steps = d.http("GET", "/images/top:1/history", "").expect(200).json();
    assert_eq!([&steps[0]["Id"], &steps[1]["Id"], &steps[2]["Id"]], [top.as_str(), middle.as_str(), base.as_str()]);
    assert_eq!((&steps[0]["Tags"][0], &steps[2]["Tags"][0]), (&"top:1".into(), &"busybox:latest".into()));
    // A nameless parent is shown when all are asked for.
    let count =
        |all: &str| d.http("GET", &format!("/images/json?all={all}"), "").expect(200).json().as_array().unwrap().len();
    assert_eq!((count("0"), count("1")), (2, 3));
    let other = commit(&middle, &["other:1"]);
    assert_eq!(d.docker(&["rmi", "other:1"]).text(), format!("Untagged: other:1\nDeleted: {other}"));
    let removed = d.docker(&["rmi", "top:1"]).text();
    assert_eq!(removed, format!("Untagged: top:1\nDeleted: {top}\nDeleted: {middle}"));
    let top = commit(&commit("busybox", &[]), &["top:1"]);
    let removed = d.http("DELETE", "/images/top:1?noprune=1", "").expect(200).json();
    assert_eq!((removed.as_array().unwrap().len(), &removed[1]["Deleted"]), (2, &top.into()));
    d.finish();
}

#[test]
fn a_commit_freezes_and_thaws() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c1", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["commit", "c1", "one"]).ok();
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "running");
    d.docker(&["commit", "-c", "RUN x", "c1"]).fails(1, "RUN is not a valid change command");
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "running");
    let _ = d.docker(&["commit", "--pause=false", "c1", "two"]).ok();
    let actions = |d: &Daemon| {
        let text = d
            .docker(&["events", "--since", "0", "--until", &now().to_string(), "--format", "{{.Type}} {{.Action}}"])
            .text();
        let wanted = ["pause", "commit", "image create", "image tag"];
        let lines = text.lines().filter(|line| wanted.iter().any(|word| line.contains(word)));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let whole = ["container pause", "image create", "image tag", "container unpause", "container commit"];
    let failed = ["container pause", "container unpause"];
    let unfrozen = ["image create", "image tag", "container commit"];
    let expected: Vec<_> = whole.into_iter().chain(failed).chain(unfrozen).collect();
    assert_eq!(actions(&d), expected);
    // A container that was paused by its user stays paused.
    let _ = d.docker(&["pause", "c1"]).ok();
    let _ = d.docker(&["commit", "c1", "three"]).ok();
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "paused");
    let _ = d.docker(&["unpause", "c1"]).ok();
    // A daemon that dies over a commit leaves no frozen container.
    // Enough to compress for a commit that lasts for seconds.
    let _ = d.docker(&["exec", "c1", "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=384"]).ok();
    let committing = d.spawn(&["commit", "c1", "four"]);
    let status = || d.http("GET", "/containers/c1/json", "").expect(200).json()["State"]["Status"].clone();
    assert!(eventually(|| status() == "paused"));
    d.crash();
    drop(committing);
    d.until("c1", "{{.State.Status}}", "running");
    let _ = d.docker(&["exec", "c1", "true"]).ok();
    assert_eq!(d.docker(&["images", "-q", "four"]).text(), "");
    let _ = d.docker(&["rm", "-f", "c1"]).ok();
    d.finish();
}

#[test]
fn a_commit_is_refused_in_the_references_words() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "c1", "busybox", "true"]).ok();
    for (query, status, text) in [
        ("container=nosuch", 404, "No such container: nosuch"),
        ("container=c1&repo=UPPER", 400, "invalid reference format: repository name (library/UPPER) must be lowercase"),
        ("container=c1&repo=a&tag=b%20c", 400, "invalid tag format"),
        ("container=c1&changes=RUN%20x", 400, "RUN is not a valid change command"),
        ("container=c1&changes=USER%20a%20b", 400, "USER requires exactly one argument"),
    ] {
        let answer = d.http("POST", &format!("/commit?{query}"), "").expect(status);
        assert_eq!(answer.message(), text, "{query}");
    }
    let digest = format!("a@sha256:{}", "0".repeat(64));
    let answer = d.http("POST", &format!("/commit?container=c1&repo={digest}"), "").expect(400);
    assert_eq!(answer.message(), "cannot import digest reference");
    assert_eq!(d.http("POST", "/commit?container=c1", "{").expect(400).message(), "invalid JSON: unexpected EOF");
    assert_eq!(d.docker(&["images", "-aq"]).text().lines().count(), 1);
    let _ = d.docker(&["rm", "c1"]).ok();
    d.finish();
}

/// Holes stay holes: in a layer, in an archive, in a volume that takes the file over.
#[test]
fn a_sparse_file_is_committed_and_exported_by_its_data() {
    use std::os::unix::fs::MetadataExt;
    for driver in ["overlay2", "vfs"] {
        let d = testkit::Options::new().args(&["--storage-driver", driver]).start();
        d.busybox();
        let fill = "mkdir /v && truncate -s 6G /v/big && printf begin | dd of=/v/big conv=notrunc bs=4k seek=700000 2>/dev/null";
        let _ = d.docker(&["run", "--name", "c1", "busybox", "sh", "-c", fill]).ok();
        let _ = d.docker(&["commit", "-c", "VOLUME /v", "c1", "sparse"]).ok();
        let exported = d.path("export.tar");
        let _ = d.docker(&["export", "-o", exported.to_str().unwrap(), "c1"]).ok();
        assert!(std::fs::metadata(&exported).unwrap().len() < 64 << 20, "{driver}");
        let unpacked = d.path("unpacked");
        std::fs::create_dir(&unpacked).unwrap();
        let tar = ["tar", "-xf", exported.to_str().unwrap(), "-C", unpacked.to_str().unwrap(), "v/big"];
        let _ = d.exec_inside(&tar).ok();
        let meta = std::fs::metadata(unpacked.join("v/big")).unwrap();
        assert_eq!(meta.len(), 6 << 30, "{driver}: as GNU tar unpacks it");
        std::fs::remove_dir_all(&unpacked).unwrap();
        let look =
            "stat -c %s /v/big; dd if=/v/big bs=4k skip=700000 count=1 2>/dev/null | head -c 5; du -k /v/big | cut -f1";
        let told = d.docker(&["run", "--rm", "sparse", "sh", "-c", look]).text();
        let (size, rest) = told.split_once('\n').unwrap();
        assert!(size == "6442450944" && rest.starts_with("begin"), "{driver}: {told}");
        assert!(rest["begin".len()..].parse::<u64>().unwrap() < 1024, "{driver}: {told}");
        // Saved and loaded again it is the same layer.
        let saved = d.path("saved.tar");
        let _ = d.docker(&["save", "-o", saved.to_str().unwrap(), "sparse"]).ok();
        let _ = d.docker(&["rm", "c1"]).ok();
        let _ = d.docker(&["rmi", "sparse"]).ok();
        let _ = d.docker(&["load", "-i", saved.to_str().unwrap()]).ok();
        let used: u64 = walk(&d.data_root().join("content")) + walk(&d.data_root().join("snapshots"));
        assert!(used < 64 << 20, "{driver}: {used} bytes");
        d.finish();

        fn walk(dir: &std::path::Path) -> u64 {
            let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
            let size = |path: std::path::PathBuf| match path.symlink_metadata() {
                Ok(meta) if meta.is_dir() => walk(&path),
                Ok(meta) => meta.blocks() * 512 / meta.nlink(),
                Err(_) => 0,
            };
            entries.map(size).sum()
        }
    }
}

#[test]
fn a_variable_that_is_set_again_stays_in_its_place() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "c1", "-e", "A=1", "-e", "B=2", "busybox", "true"]).ok();
    let _ = d.docker(&["commit", "-c", "ENV PATH /first:$PATH", "-c", "ENV A=3 C=4", "c1", "made"]).ok();
    let own = d.inspect("made", "{{range .Config.Env}}{{.}}\n{{end}}");
    let before = d.inspect("c1", "{{range .Config.Env}}{{.}}\n{{end}}");
    let expected: Vec<String> = before
        .lines()
        .map(|line| match line.split_once('=') {
            Some(("PATH", path)) => format!("PATH=/first:{path}"),
            Some(("A", _)) => "A=3".into(),
            _ => line.to_owned(),
        })
        .chain(["C=4".to_owned()])
        .collect();
    assert_eq!(own.lines().collect::<Vec<_>>(), expected);
    let _ = d.docker(&["rm", "c1"]).ok();
    d.finish();
}
