//! Images: import, load, list, inspect, tag, remove.

use serde_json::json;
use testkit::images::{busybox_tar, debian_tar, layered_archive, sha256};
use testkit::layouts::Layout;
use testkit::{Daemon, Running, places};

use crate::events::now;
use crate::{eventually, with_busybox};

#[test]
fn import_a_root_file_system() {
    let d = Daemon::start();
    let tar = d.path("rootfs.tar");
    std::fs::write(&tar, busybox_tar()).unwrap();
    let id = d.docker(&["import", tar.to_str().unwrap(), "busybox:latest"]).text();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(d.docker(&["run", "--rm", "busybox", "echo", "hello"]).text(), "hello");
    assert_eq!(
        d.docker_input(&["import", "-c", "CMD [\"echo\", \"from import\"]", "-", "second:v1"], &busybox_tar())
            .ok()
            .code,
        0
    );
    assert_eq!(d.docker(&["run", "--rm", "second:v1"]).text(), "from import");
    d.finish();
}

#[test]
fn import_from_an_address() {
    let d = Daemon::start();
    std::fs::write(d.path("rootfs.tar"), busybox_tar()).unwrap();
    let dir = d.path("").display().to_string();
    let mut command = d.namespaces().command(places::find("busybox"));
    command.args(["httpd", "-f", "-p", "127.0.0.1:8099", "-h", &dir]);
    let mut server = Running::start(&mut command);
    let fetch =
        |path: &str| d.exec_inside(&["curl", "-sf", "-o", "/dev/null", &format!("http://127.0.0.1:8099/{path}")]).code;
    assert!(eventually(|| fetch("rootfs.tar") == 0));
    let output = d.docker(&["import", "http://127.0.0.1:8099/rootfs.tar", "fetched:1"]).ok().stdout;
    assert!(
        output.contains("Downloading from http://127.0.0.1:8099/rootfs.tar") && output.contains("sha256:"),
        "{output}"
    );
    assert_eq!(d.docker(&["run", "--rm", "fetched:1", "echo", "hello"]).text(), "hello");
    assert_eq!(d.inspect("fetched:1", "{{.Comment}}"), "Imported from http://127.0.0.1:8099/rootfs.tar");
    let refused = "failed to GET http://127.0.0.1:8099/nosuch with status 404 Not Found";
    d.docker(&["import", "http://127.0.0.1:8099/nosuch"]).fails(1, refused);
    let create = |source: &str| d.http("POST", &format!("/images/create?fromSrc={source}"), "");
    assert!(create("127.0.0.1:8099/nosuch").expect(404).message().starts_with(refused));
    assert!(create("127.0.0.1:1/x").expect(500).message().contains("connection refused"));
    assert_eq!(create("ftp://x/y").expect(400).message(), "unsupported protocol scheme \"ftp\"");
    server.kill();
    d.finish();
}

#[test]
fn load_list_inspect_tag_remove() {
    let d = Daemon::start();
    let archive = layered_archive("layers:v1", 5);
    let output = d.docker_input(&["load"], &archive).ok().stdout;
    assert_eq!(output, "Loaded image: layers:v1\n");
    assert_eq!(d.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).text(), "layers:v1");
    let id = d.docker(&["inspect", "-f", "{{.Id}}", "layers:v1"]).text();
    assert_eq!(d.docker(&["images", "-q", "--no-trunc"]).text(), id);
    assert_eq!(d.docker(&["inspect", "-f", "{{len .RootFS.Layers}} {{.Os}}", "layers:v1"]).text(), "5 linux");
    let _ = d.docker(&["tag", "layers:v1", "other/name:x"]).ok();
    assert_eq!(d.docker(&["inspect", "-f", "{{.Id}}", "other/name:x"]).text(), id);
    assert_eq!(d.docker(&["rmi", "other/name:x"]).ok().stdout, "Untagged: other/name:x\n");
    let removed = d.docker(&["rmi", "layers:v1"]).ok().stdout;
    assert!(removed.contains("Untagged: layers:v1") && removed.contains(&format!("Deleted: {id}")), "{removed}");
    assert_eq!(d.docker(&["images", "-q"]).text(), "");
    d.docker(&["inspect", "--type", "image", "layers:v1"]).fails(1, "No such image: layers:v1");
    d.finish();
}

#[test]
fn layers_stack_and_whiteouts_hide() {
    let d = Daemon::start();
    d.load(&layered_archive("layers:latest", 60));
    let output = d.docker(&[
        "run",
        "--rm",
        "layers",
        "sh",
        "-c",
        "cat /top; echo; ls / | grep -c layer-; ls /layer-58 /layer-59; ls /layer-57",
    ]);
    assert_eq!(output.stdout, "59\n2\n/layer-58\n/layer-59\n", "{output:?}");
    d.finish();
}

#[test]
fn an_image_in_use_stays() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "c1", "busybox", "true"]).ok();
    let output = d.docker(&["rmi", "busybox"]);
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains("conflict: unable to delete busybox:latest (must be forced) - container"),
        "{output:?}"
    );
    let _ = d.docker(&["rm", "c1"]).ok();
    let _ = d.docker(&["rmi", "busybox"]).ok();
    d.finish();
}

#[test]
fn a_moved_tag_leaves_the_old_image() {
    let d = with_busybox();
    let old = d.docker(&["inspect", "-f", "{{.Id}}", "busybox"]).text();
    d.load(&layered_archive("busybox:latest", 2));
    assert_ne!(d.docker(&["inspect", "-f", "{{.Id}}", "busybox"]).text(), old);
    assert_eq!(d.docker(&["images", "-q", "--no-trunc", "--filter", "dangling=true"]).text(), old);
    d.finish();
}

/// The digest says which image, the tag which of its names (B-im-9).
#[test]
fn a_name_with_tag_and_digest_is_one_name() {
    let d = with_busybox();
    let id = d.inspect("busybox", "{{.Id}}");
    let _ = d.docker(&["tag", "busybox", "busybox:2"]).ok();
    d.docker(&["rmi", &format!("busybox:9@{id}")]).fails(1, "No such image: busybox:9@");
    assert_eq!(d.docker(&["rmi", &format!("busybox:2@{id}")]).text(), "Untagged: busybox:2");
    assert_eq!(d.inspect("busybox", "{{.RepoTags}}"), "[busybox:latest]");
    let removed = d.docker(&["rmi", &format!("busybox:latest@{id}")]).text();
    assert_eq!(removed, format!("Untagged: busybox:latest\nDeleted: {id}"));
    // Whatever the text of a source, it is no image.
    let tag = |source: &str| d.http("POST", &format!("/images/{source}/tag?repo=x"), "").expect(404).message();
    assert_eq!(tag("busybox:"), "invalid reference format");
    d.finish();
}

/// Filters look at every platform of an image; what a prune takes is told by its name.
#[test]
fn filters_of_list_and_prune() {
    let d = Daemon::start();
    let mut layout = Layout::new();
    let labels = |value: &str| json!({"Labels": {"k": value}});
    let one = layout.image("linux/amd64", &[], &labels("one"));
    let two = layout.image("linux/s390x", &[], &labels("two"));
    let index = layout.index(&[one, two]);
    d.load(&layout.entry(&index, &[("io.containerd.image.name", "docker.io/library/multi:1")]).tar());
    let listed = |filters: &[&str]| {
        let filters: Vec<_> = filters.iter().flat_map(|filter| ["-f", filter]).collect();
        d.docker(&[&["images", "--format", "{{.Repository}}"], &filters[..]].concat()).text()
    };
    assert_eq!((listed(&["label=k=one"]), listed(&["label=k=two"])), ("multi".to_owned(), "multi".to_owned()));
    assert_eq!((listed(&["label=k=three"]), listed(&["label!=k=one"])), (String::new(), "multi".to_owned()));
    assert_eq!(
        (listed(&["until=1s", "until=10h"]), listed(&["until=0s", "until=-1h"])),
        (String::new(), "multi".to_owned())
    );
    d.docker(&["images", "-f", "until=x"]).fails(1, "invalid value for 'until' filter: failed to parse value as time");
    let _ = d.docker(&["image", "prune", "-af", "--filter", "label=k=two"]).ok();
    let (until, form) = (now().to_string(), "{{.Action}} {{.Actor.Attributes.name}}");
    let told = d.docker(&[
        "events",
        "--since",
        "0",
        "--until",
        &until,
        "--format",
        form,
        "-f",
        "event=untag",
        "-f",
        "event=delete",
    ]);
    assert_eq!(told.text(), "untag multi:1\ndelete multi:1");
    d.finish();
}

/// A client that sends before it reads gets its refusal, not a broken pipe.
#[test]
fn a_refusal_reaches_a_client_that_still_sends() {
    let d = Daemon::start();
    let body = "x".repeat(8 << 20);
    for (path, status) in [
        ("/images/create?fromSrc=-&repo=BAD", 400),
        ("/images/load?platform=x", 400),
        ("/images/load", 200),
        ("/build", 500),
        ("/nosuch", 404),
    ] {
        let mut connection = d.connection();
        let _ = connection.request("POST", path, &body).expect(status);
        // The buffers of a large request go with its connection.
        let _ = d.http("GET", "/_ping", "").expect(200);
    }
    d.finish();
}

#[test]
fn garbage_is_refused_and_nothing_stays() {
    let d = Daemon::start();
    let output = d.docker_input(&["load"], b"this is no archive");
    assert_ne!(output.code, 0, "{output:?}");
    let mut broken = layered_archive("broken:v1", 3);
    broken.truncate(broken.len() / 2);
    let output = d.docker_input(&["load"], &broken);
    assert_ne!(output.code, 0, "{output:?}");
    assert_eq!(d.docker(&["images", "-aq"]).text(), "");
    d.docker(&["run", "nosuch:1", "true"]).fails(125, "");
    assert_eq!(d.http("GET", "/images/nosuch/json", "").expect(404).message(), "No such image: nosuch:latest");
    d.finish();
}

#[test]
fn the_same_archive_gives_the_same_identity() {
    let archive = layered_archive("same:v1", 3);
    let id = |d: &Daemon| d.docker(&["inspect", "-f", "{{.Id}}", "same:v1"]).text();
    let one = Daemon::start();
    one.load(&archive);
    let two = Daemon::start();
    two.load(&archive);
    assert_eq!(id(&one), id(&two));
    assert_eq!(sha256(b"").len(), 64);
    one.finish();
    two.finish();
}

#[test]
fn a_whole_debian() {
    let d = Daemon::start();
    let tar = debian_tar();
    let _ = d.docker(&["import", tar.to_str().unwrap(), "debian:latest"]).ok();
    assert!(d.docker(&["run", "--rm", "debian", "cat", "/etc/os-release"]).text().contains("Debian"));
    assert_eq!(d.docker(&["run", "--rm", "debian", "dpkg", "--verify", "bash"]).text(), "");
    assert_eq!(
        d.docker(&["run", "--rm", "-u", "nobody", "debian", "stat", "-c", "%A", "/usr/bin/passwd"]).text(),
        "-rwsr-xr-x"
    );
    assert_eq!(d.docker(&["run", "--rm", "debian", "perl", "-e", "print 6*7"]).text(), "42");
    d.finish();
}

/// Of one repository one tag and digest references are one name; two tags are two.
#[test]
fn an_id_with_a_tag_and_a_digest_reference_of_one_repository_is_removed() {
    let d = testkit::Daemon::start();
    let fake = testkit::fake_registry::FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    let image = testkit::fake_registry::Image::of_noise(&[100]);
    let id = fake.image("app", "1", &image);
    let pull = || {
        let _ = d.docker(&["pull", "-q", "127.0.0.1:5001/app:1"]).ok();
        let _ = d.docker(&["pull", "-q", &format!("127.0.0.1:5001/app@{id}")]).ok();
    };
    pull();
    let removed = d.docker(&["rmi", &id["sha256:".len()..][..12]]).text();
    assert_eq!(removed.lines().filter(|line| line.starts_with("Untagged")).count(), 2, "{removed}");
    assert!(removed.contains(&format!("Deleted: {id}")), "{removed}");
    pull();
    let _ = d.docker(&["tag", "127.0.0.1:5001/app:1", "other:1"]).ok();
    d.docker(&["rmi", &id]).fails(1, "image is referenced in multiple repositories");
    let _ = d.docker(&["rmi", "-f", &id]).ok();
    drop(fake);
    d.finish();
}

#[test]
fn a_snapshotter_is_a_graph_driver_for_old_clients_only() {
    let d = crate::with_busybox();
    let driver = |version: &str| d.http("GET", &format!("/{version}/images/busybox/json"), "").expect(200).json();
    assert_eq!(driver("v1.51")["GraphDriver"]["Name"], "overlayfs");
    assert!(driver("v1.52").get("GraphDriver").is_none());
    d.finish();
}

/// An image whose layer is no archive comes in, and is told of.
#[test]
fn what_cannot_be_unpacked_is_loaded_and_named() {
    let d = testkit::Daemon::start();
    let archive = testkit::images::docker_archive("bad:1", &[b"no archive at all".to_vec()], &serde_json::json!({}));
    let output = d.docker_input(&["load"], &archive).ok();
    assert!(output.stdout.contains("Loaded image: bad:1\nError unpacking image bad:1: "), "{output:?}");
    assert_eq!(d.docker(&["images", "-q"]).text().lines().count(), 1);
    assert_ne!(d.docker(&["create", "bad:1", "true"]).code, 0);
    let _ = d.docker(&["rmi", "bad:1"]).ok();
    assert_eq!(d.docker(&["ps", "-aq"]).text(), "");
    d.finish();
}

#[test]
fn the_proxies_in_force_are_shown_without_their_credentials() {
    let d = testkit::Options::new()
        .args(&["--http-proxy", "http://me:secret@proxy.test:3128/", "--no-proxy", "a.test,10.0.0.0/8"])
        .env("HTTPS_PROXY", "socks5://you:s3cret@proxy.test")
        .start();
    let info = d.http("GET", "/info", "").expect(200);
    assert!(!info.text().contains("ecret"), "{}", info.text());
    let info = info.json();
    let shown = ["HttpProxy", "HttpsProxy", "NoProxy"].map(|key| info[key].as_str().unwrap().to_owned());
    let expected = ["http://xxxxx:xxxxx@proxy.test:3128/", "socks5://xxxxx:xxxxx@proxy.test", "a.test,10.0.0.0/8"];
    assert_eq!(shown, expected);
    d.finish();
}
