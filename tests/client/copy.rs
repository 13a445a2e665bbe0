//! `docker cp`: files into containers and out of them, running or not, volumes included; and what tries to misuse it.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use serde_json::Value;
use testkit::Daemon;
use testkit::http::Response;
use testkit::images::Tar;

use crate::with_busybox;

fn cp(d: &Daemon, from: &str, to: &str) {
    let _ = d.docker(&["cp", "-q", from, to]).ok();
}

/// The text that a command in a container prints.
fn inside(d: &Daemon, name: &str, script: &str) -> String {
    d.docker(&["exec", name, "sh", "-c", script]).text()
}

/// What `HEAD` tells of a path.
fn stat(d: &Daemon, name: &str, path: &str) -> Value {
    let answer = d.http("HEAD", &format!("/containers/{name}/archive?path={path}"), "").expect(200);
    let text = answer.header("X-Docker-Container-Path-Stat").unwrap().to_owned();
    let json = d.exec_inside(&["sh", "-c", &format!("echo {text} | base64 -d")]).ok().stdout;
    serde_json::from_str(&json).unwrap()
}

/// An archive of files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    files.iter().fold(Tar::new(), |tar, (path, content)| tar.file(path, 0o644, content)).bytes()
}

/// Puts an archive into a directory of container `c`.
fn put(d: &Daemon, path: &str, tar: &[u8]) -> Response {
    let mut connection = d.connection();
    let head = format!(
        "PUT /containers/c/archive?path={path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        tar.len()
    );
    connection.send(&[head.as_bytes(), tar].concat()).unwrap();
    let mut answer = connection.head().unwrap();
    answer.body = connection.body(&answer).unwrap();
    answer
}

/// A directory with what an archive can hold.
fn tree(d: &Daemon) -> String {
    let top = d.path("tree");
    fs::create_dir_all(top.join("sub/empty")).unwrap();
    fs::write(top.join("file"), "content").unwrap();
    fs::hard_link(top.join("file"), top.join("sub/hard")).unwrap();
    symlink("../file", top.join("sub/link")).unwrap();
    fs::write(top.join("x".repeat(200)), "long").unwrap();
    std::os::unix::fs::chown(top.join("file"), Some(1000), Some(1001)).unwrap();
    top.display().to_string()
}

/// Archives are taken in every compression that the reference knows.
#[test]
fn archives_are_unpacked_whatever_compresses_them() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "c", "busybox", "true"]).ok();
    let place = d.path("f.tar");
    for program in ["cat", "gzip -c", "bzip2 -c", "xz -c", "zstd -c"] {
        fs::write(&place, tar(&[("f", program.as_bytes())])).unwrap();
        let packed = d.path("packed");
        let script = format!("{program} < {} > {}", place.display(), packed.display());
        let _ = d.exec_inside(&["sh", "-c", &script]).ok();
        let _ = put(&d, "/tmp", &fs::read(packed).unwrap()).expect(200);
        let out = d.docker(&["cp", "c:/tmp/f", "-"]);
        assert!(out.stdout.contains(program), "{program}: {out:?}");
    }
    d.finish();
}

/// What cannot be looked up or unpacked is told in the reference's words.
#[test]
fn errors_are_the_references() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "c", "busybox", "true"]).ok();
    let links = Tar::new().symlink("loop", "loop").bytes();
    let _ = put(&d, "/", &links).expect(200);
    for (path, text) in [
        ("etc/passwd/", "lstat /etc/passwd/: not a directory"),
        ("etc/passwd/.", "lstat /etc/passwd/.: not a directory"),
        ("/loop", "evalSymlinksInScope: too many links in /loop"),
    ] {
        assert_eq!(d.http("GET", &format!("/containers/c/archive?path={path}"), "").expect(500).message(), text);
    }
    let files = tar(&[("f", b"x")]);
    assert_eq!(put(&d, "/etc/passwd", &files).expect(400).message(), "extraction point is not a directory");
    assert_eq!(put(&d, "/etc/passwd/", &files).expect(500).message(), "lstat /etc/passwd/: not a directory");
    let link = |name: &str, to: &str| Tar::new().symlink(name, to).bytes();
    for (archive, status, text) in [
        (
            Tar::new().raw("a/../../f", testkit::images::EntryType::Regular, "", (1, b"x")).bytes(),
            500,
            "\"../f\" is outside of \"/tmp\"",
        ),
        (link("up", "../.."), 500, "invalid symlink \"/tmp/up\" -> \"../..\""),
        (Tar::new().hard_link("hard", "none").bytes(), 404, "Could not find the file /tmp in container c"),
    ] {
        assert_eq!(put(&d, "/tmp", &archive).expect(status).message(), text);
    }
    // An absolute link is the container's, and so is one that stays below.
    let _ = put(&d, "/tmp", &link("abs", "/etc")).expect(200);
    let _ = put(&d, "/tmp", &link("d/below", "../x")).expect(200);
    d.finish();
}

#[test]
fn into_and_out_of_containers_in_every_state() {
    let d = with_busybox();
    let tree = tree(&d);
    let _ = d.docker(&["create", "--name", "created", "busybox", "sh", "-c", "cat /dst/tree/file; ls /dst/tree"]).ok();
    let _ = d.docker(&["run", "-d", "--name", "running", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["run", "--name", "exited", "busybox", "sh", "-c", "echo made > /made"]).ok();
    let _ = d.docker(&["run", "-d", "--name", "paused", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["pause", "paused"]).ok();
    let out = d.path("out");
    for name in ["created", "running", "exited", "paused"] {
        // The directory takes the place that does not exist yet, then lies in it.
        cp(&d, &tree, &format!("{name}:/srv/new"));
        cp(&d, &tree, &format!("{name}:/srv"));
        fs::create_dir_all(&out).unwrap();
        cp(&d, &format!("{name}:/srv/."), out.to_str().unwrap());
        for top in ["new", "tree"] {
            assert_eq!(fs::read_to_string(out.join(top).join("file")).unwrap(), "content", "{name}");
            assert_eq!(fs::read_link(out.join(top).join("sub/link")).unwrap(), Path::new("../file"));
            assert_eq!(fs::read_to_string(out.join(top).join("x".repeat(200))).unwrap(), "long");
            let ino = |path: &str| fs::metadata(out.join(top).join(path)).unwrap().ino();
            assert_eq!(ino("file"), ino("sub/hard"));
            assert!(out.join(top).join("sub/empty").is_dir());
        }
        fs::remove_dir_all(&out).unwrap();
        cp(&d, &format!("{name}:/srv/new/file"), out.to_str().unwrap());
        assert_eq!(fs::read_to_string(&out).unwrap(), "content");
        fs::remove_file(&out).unwrap();
    }
    assert_eq!(inside(&d, "running", "stat -c %u:%g /srv/new/file"), "1000:1001");
    cp(&d, "exited:/made", out.to_str().unwrap());
    assert_eq!(fs::read_to_string(&out).unwrap(), "made\n");
    // What was copied into a container that never ran is there when it runs.
    let _ = d.docker(&["exec", "running", "mkdir", "/dst"]).ok();
    let _ = d.docker_input(&["cp", "-", "created:/"], &tar(&[("dst/tree/file", b"streamed")])).ok();
    assert_eq!(d.docker(&["start", "-a", "created"]).text(), "streamedfile");
    d.remove_containers();
    d.finish();
}

#[test]
fn files_of_a_container_that_never_ran_outlive_the_daemon() {
    let mut d = with_busybox();
    fs::write(d.path("file"), "kept").unwrap();
    let _ = d.docker(&["create", "--name", "c", "busybox", "cat", "/srv/file"]).ok();
    cp(&d, d.path("file").to_str().unwrap(), "c:/srv/");
    d.crash();
    assert_eq!(d.docker(&["start", "-a", "c"]).text(), "kept");
    d.remove_containers();
    d.finish();
}

#[test]
fn volumes_and_memory_are_seen() {
    let d = with_busybox();
    fs::write(d.path("file"), "x").unwrap();
    let file = d.path("file").display().to_string();
    let args = ["-v", "vol:/vol", "-v", "vol:/ro:ro", "--tmpfs", "/mem"];
    let run = |name: &str, verb: &[&str], rest: &[&str]| {
        let all = [verb, &["--name", name], &args, &["busybox"], rest].concat();
        let _ = d.docker(&all).ok();
    };
    run("running", &["run", "-d"], &["sleep", "1000"]);
    run("created", &["create"], &["true"]);
    cp(&d, &file, "running:/vol/one");
    cp(&d, &file, "running:/mem/two");
    cp(&d, &file, "created:/vol/three");
    assert_eq!(inside(&d, "running", "ls /vol /mem"), "/mem:\ntwo\n\n/vol:\none\nthree");
    for name in ["running", "created"] {
        let error = d.docker(&["cp", &file, &format!("{name}:/ro/x")]).stderr;
        assert!(error.contains("mounted volume is marked read-only"), "{error}");
        assert_eq!(stat(&d, name, "/ro/one")["size"], 1);
    }
    let hosts = d.docker(&["cp", "running:/etc/hosts", "-"]).ok().stdout;
    assert!(hosts.contains("127.0.0.1\tlocalhost"), "{hosts}");
    let _ =
        d.docker(&["run", "-d", "--name", "sealed", "--read-only", "-v", "vol:/vol", "busybox", "sleep", "1000"]).ok();
    let error = d.docker(&["cp", &file, "sealed:/srv"]).stderr;
    assert!(error.contains("container rootfs is marked read-only"), "{error}");
    cp(&d, &file, "sealed:/vol/four");
    d.remove_containers();
    let _ = d.docker(&["volume", "rm", "vol"]).ok();
    d.finish();
}

#[test]
fn the_head_tells_what_stands_there() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]).ok();
    let script = "cd /srv; echo hello > file; chmod 4755 file; ln -s file link; ln -s /srv/none dangling; ln -s /srv dir; mkfifo p";
    let _ = d.docker(&["exec", "c", "sh", "-c", script]).ok();
    let told = |path: &str| {
        let it = stat(&d, "c", path);
        (
            it["name"].as_str().unwrap().to_owned(),
            it["mode"].as_u64().unwrap(),
            it["linkTarget"].as_str().unwrap().to_owned(),
        )
    };
    let directory = 1 << 31;
    let link = 1 << 27 | 0o777;
    assert_eq!(told("/srv/file"), ("file".into(), 1 << 23 | 0o755, String::new()));
    assert_eq!(told("/srv/link"), ("link".into(), link, "/srv/file".into()));
    assert_eq!(told("/srv/dangling"), ("dangling".into(), link, "/srv/none".into()));
    assert_eq!(told("/srv/dir"), ("dir".into(), link, "/srv".into()));
    assert_eq!(told("/srv/dir/"), ("dir".into(), directory | 0o755, String::new()));
    assert_eq!(told("/srv/p"), ("p".into(), 1 << 25 | 0o644, String::new()));
    assert_eq!(told("/"), ("/".into(), directory | 0o755, String::new()));
    assert_eq!(stat(&d, "c", "/srv/file")["size"], 6);
    let missing = |method: &str, path: &str| {
        let path = format!("/containers/c/archive?path={path}");
        d.http(method, &path, "").expect(404).message()
    };
    assert_eq!(missing("GET", "/none"), "Could not find the file /none in container c");
    assert_eq!(missing("PUT", "/none"), "Could not find the file /none in container c");
    let refused = |method: &str, path: &str, status: u16| {
        let path = format!("/containers/c/archive?path={path}");
        d.http(method, &path, "").expect(status).message()
    };
    assert_eq!(refused("GET", "", 400), "bad parameter: path cannot be empty");
    assert_eq!(refused("PUT", "/srv/file", 400), "extraction point is not a directory");
    assert!(refused("GET", "/srv/file/x", 500).ends_with("not a directory"));
    assert_eq!(d.http("GET", "/containers/none/archive?path=/x", "").expect(404).message(), "No such container: none");
    d.remove_containers();
    d.finish();
}

#[test]
fn owners_kinds_and_events() {
    let d = with_busybox();
    let since = (crate::events::now() - 1).to_string();
    let _ = d.docker(&["run", "-d", "--name", "c", "-u", "1000:1001", "busybox", "sleep", "1000"]).ok();
    fs::write(d.path("file"), "x").unwrap();
    let file = d.path("file").display().to_string();
    cp(&d, &file, "c:/tmp/plain");
    let _ = d.docker(&["cp", "-q", "-a", &file, "c:/tmp/archive"]).ok();
    assert_eq!(inside(&d, "c", "stat -c %u:%g /tmp/plain"), "0:0");
    let tar = tar(&[("owned", b"x"), ("dir/x", b"y")]);
    let put_into = |query: &str, status: u16| put(&d, &format!("/tmp{query}"), &tar).expect(status);
    put_into("&copyUIDGID=1", 200);
    assert_eq!(inside(&d, "c", "stat -c %u:%g /tmp/owned"), "1000:1001");
    let _ = d.docker(&["exec", "-u", "0", "c", "sh", "-c", "rm -r /tmp/owned; mkdir /tmp/owned"]).ok();
    let message = put_into("&noOverwriteDirNonDir=1", 500).message();
    assert_eq!(message, "cannot overwrite directory \"/tmp/owned\" with non-directory \"/tmp\"");
    put_into("", 200);
    assert_eq!(inside(&d, "c", "cat /tmp/owned"), "x");
    let _ = d.docker(&["cp", "c:/tmp/owned", "-"]).ok();
    let events = d
        .docker(&["events", "--since", &since, "--until", &crate::events::now().to_string(), "--format", "{{.Action}}"])
        .text();
    for action in ["extract-to-dir", "archive-path"] {
        assert!(events.lines().any(|line| line == action), "{action} in {events}");
    }
    d.remove_containers();
    d.finish();
}

#[test]
fn a_mount_in_the_way_keeps_its_content() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c", "-v", "vol:/srv/a/b", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["exec", "c", "sh", "-c", "echo precious > /srv/a/b/data"]).ok();
    let tar = tar(&[("a", b"a file")]);
    let answer = put(&d, "/srv", &tar).expect(500);
    assert!(answer.message().ends_with("device or resource busy"), "{}", answer.message());
    assert_eq!(inside(&d, "c", "cat /srv/a/b/data"), "precious");
    d.remove_containers();
    let _ = d.docker(&["volume", "rm", "vol"]).ok();
    d.finish();
}

/// A file that is mounted is not replaced beneath its mount, nor is the mount taken from the container.
#[test]
fn a_mounted_file_in_the_way_stays() {
    let d = with_busybox();
    let bound = d.path("bound");
    fs::write(&bound, "bound").unwrap();
    let bind = format!("{}:/srv/f", bound.display());
    let _ = d.docker(&["run", "-d", "--name", "c", "-v", &bind, "-v", "vol:/v", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["exec", "c", "sh", "-c", "mkdir -p /v/srv; echo x > /v/srv/f"]).ok();
    let hosts = inside(&d, "c", "cat /etc/hosts");
    for state in ["running", "exited"] {
        for (dir, name) in [("/etc", "hosts"), ("/etc", "hostname"), ("/etc", "resolv.conf"), ("/srv", "f")] {
            for bytes in [tar(&[(name, b"another")]), tar(&[("new", b"x"), (name, b"another")])] {
                let answer = put(&d, dir, &bytes).expect(500);
                assert_eq!(answer.message(), format!("unlinkat {dir}/{name}: device or resource busy"), "{state}");
            }
        }
        // Below what is replaced as a whole.
        for (name, bytes) in [("srv", tar(&[("srv", b"a file")])), ("etc", tar(&[("etc", b"a file")]))] {
            let answer = put(&d, "/", &bytes).expect(500);
            assert!(answer.message().starts_with(&format!("unlinkat /{name}")), "{state}: {}", answer.message());
        }
        let read = d.docker(&["cp", "c:/srv/f", "-"]);
        assert!(read.stdout.contains("bound") && fs::read_to_string(&bound).unwrap() == "bound", "{state}");
        if state == "running" {
            assert_eq!(
                inside(&d, "c", "cat /srv/f; grep -c -e /etc/host -e /etc/resolv -e /srv/f /proc/mounts"),
                "bound4"
            );
            assert_eq!(inside(&d, "c", "cat /etc/hosts"), hosts);
            let _ = d.docker(&["stop", "-t0", "c"]).ok();
        }
    }
    d.remove_containers();
    let _ = d.docker(&["volume", "rm", "vol"]).ok();
    d.finish();
}

#[test]
fn a_link_that_is_swapped_leads_into_the_container() {
    let d = with_busybox();
    let canary = d.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("passwd"), "host").unwrap();
    let swap = format!(
        "mkdir -p /srv/real {host}; echo mine > /srv/real/passwd; cd /srv; while :; do mv real d; mv d real; ln -s {host} d; rm d; done",
        host = canary.display()
    );
    let _ = d.docker(&["run", "-d", "--name", "c", "busybox", "sh", "-c", &swap]).ok();
    let tar = tar(&[("passwd", b"changed")]);
    for _ in 0..testkit::soak::rounds(100, 10_000) {
        let _any = put(&d, "/srv/d", &tar);
        let read = d.http("GET", "/containers/c/archive?path=/srv/d/", "");
        assert!(!read.text().contains("host"));
    }
    assert_eq!(fs::read_to_string(canary.join("passwd")).unwrap(), "host");
    d.remove_containers();
    d.finish();
}
