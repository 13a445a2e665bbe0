//! Mirrors: of Docker Hub by `registry-mirrors`, of any registry by `hosts.toml`.

use std::fs;

use serde_json::json;
use testkit::Options;
use testkit::fake_registry::{Answer, FakeRegistry, Image, Reply};
use testkit::images::Tar;

use crate::server::certs_dir;

fn image(content: &str) -> Image {
    Image::new(&[Tar::new().file("content", 0o644, content.as_bytes()).bytes()], &json!({"Cmd": ["/x"]}))
}

/// B-im-7
#[test]
fn the_hubs_images_come_from_its_mirrors() {
    let config = r#"{"registry-mirrors": ["http://127.0.0.1:5001/", "http://127.0.0.1:5002/"]}"#;
    let d = Options::new().config(config).start();
    let broken = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    broken.rule(|_| Some(Reply::Send(Answer::new(500, ""))));
    let mirror = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5002");
    let digest = mirror.image("library/app", "1", &image("x"));
    let output = d.docker(&["pull", "app:1"]).text();
    assert!(output.contains("1: Pulling from library/app"), "{output}");
    assert!(output.ends_with("docker.io/library/app:1"), "{output}");
    assert_eq!(d.inspect("app:1", "{{.Id}}"), digest);
    assert!(broken.count("HEAD") >= 1);
    drop((broken, mirror));
    d.finish();
}

#[test]
fn any_registrys_images_come_from_its_mirrors() {
    let d = Options::new().start();
    let origin = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    let mirror = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5002");
    let digest = origin.image("app", "1", &image("x"));
    mirror.image("app", "1", &image("x"));
    let hosts = "[host.\"http://127.0.0.1:5002\"]\ncapabilities = [\"pull\", \"resolve\"]\n";
    let dir = certs_dir(&d, "127.0.0.1:5001");
    fs::write(dir.join("hosts.toml"), hosts).unwrap();
    let _ = d.docker(&["pull", "-q", "127.0.0.1:5001/app:1"]).ok();
    assert_eq!(d.inspect("127.0.0.1:5001/app:1", "{{.Id}}"), digest);
    assert_eq!((origin.count("GET"), mirror.count("GET") > 0), (0, true));
    let _ = d.docker(&["push", "-q", "127.0.0.1:5001/app:1"]).ok();
    assert_eq!(mirror.count("PUT"), 0, "mirrors are not written to");
    fs::write(dir.join("hosts.toml"), "server = 1").unwrap();
    d.docker(&["pull", "127.0.0.1:5001/app:2"]).fails(1, "hosts.toml");
    drop((origin, mirror));
    d.finish();
}
