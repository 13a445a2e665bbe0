//! Registries behind proxies, over TLS and by SOCKS5, and authorities from the environment of the daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use testkit::{Daemon, Options, places};

use crate::eventually;
use crate::server::{OUTSIDE, Setup, outside, signed};

/// `proxy.py` inside a daemon's namespaces. Killed when dropped.
struct Proxy {
    child: Child,
    log: PathBuf,
}

impl Proxy {
    /// Of a kind (`http`, `socks5`) at an address; with TLS by this certificate.
    fn start(d: &Daemon, kind: &str, (address, port): (&str, &str), certificate: Option<&Path>) -> Proxy {
        let log = d.path(&format!("proxy-{kind}-{port}.log"));
        // Of another that was here before.
        drop(fs::remove_file(&log));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("registry/proxy.py");
        let mut command = d.namespaces().command(places::python());
        command.arg(script).args([kind, address, port]).arg(&log);
        if let Some(certificate) = certificate {
            command.arg(certificate).arg(certificate.with_extension("key"));
        }
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let proxy = Proxy { child, log };
        assert!(eventually(|| proxy.asked().contains("listening")), "no proxy");
        proxy
    }

    /// What it was asked for.
    fn asked(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn push_and_pull(d: &Daemon, name: &str) {
    let _ = d.docker(&["tag", "busybox", name]).ok();
    let _ = d.docker(&["push", "-q", name]).ok();
    let _ = d.docker(&["rmi", name]).ok();
    let _ = d.docker(&["pull", "-q", name]).ok();
}

#[test]
fn a_proxy_over_tls_is_verified_by_the_authorities_of_the_environment() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("authorities.pem");
    let proxy = format!("https://you:p%40ss@{OUTSIDE}:3129");
    let d = Options::new().env("SSL_CERT_FILE", &file.display().to_string()).env("HTTPS_PROXY", &proxy).start();
    d.busybox();
    outside(&d);
    let (authority, certificate) = signed(&d, "one");
    let (_, foreign) = signed(&d, "other");
    fs::copy(&authority, &file).unwrap();
    let registry = Setup::default().host(OUTSIDE).tls(&certificate, None).start(&d);
    let name = registry.name("app:1");
    let _ = d.docker(&["tag", "busybox", &name]).ok();
    let stranger = Proxy::start(&d, "http", (OUTSIDE, "3129"), Some(&foreign));
    d.docker(&["push", &name]).fails(1, "certificate signed by unknown authority");
    assert!(!stranger.asked().contains("CONNECT"), "{}", stranger.asked());
    drop(stranger);
    let proxy = Proxy::start(&d, "http", (OUTSIDE, "3129"), Some(&certificate));
    push_and_pull(&d, &name);
    let asked = format!("CONNECT {} you:p@ss\n", registry.address());
    assert!(proxy.asked().contains(&asked), "{}", proxy.asked());
    drop((registry, proxy));
    d.finish();
}

#[test]
fn a_socks5_proxy_looks_names_up_and_takes_a_password() {
    let place = tempfile::tempdir().unwrap();
    let (empty, full) = (place.path().join("empty"), place.path().join("full"));
    [&empty, &full].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let d = Options::new()
        .env("SSL_CERT_DIR", &format!("{}:{}", empty.display(), full.display()))
        .env("HTTPS_PROXY", "socks5://you:secret@127.0.0.1:1080")
        .env("HTTP_PROXY", "socks5h://127.0.0.1:1081")
        .config(r#"{"insecure-registries": ["hidden.test:5998"]}"#)
        .start();
    d.busybox();
    outside(&d);
    let (authority, certificate) = signed(&d, "one");
    fs::copy(&authority, full.join("one.pem")).unwrap();
    let secure = Proxy::start(&d, "socks5", ("127.0.0.1", "1080"), None);
    let plain = Proxy::start(&d, "socks5", ("127.0.0.1", "1081"), None);
    let registry = Setup::default().host(OUTSIDE).tls(&certificate, None).start(&d);
    push_and_pull(&d, &registry.name("app:1"));
    assert!(secure.asked().contains(&format!("socks5 {} you:secret\n", registry.address())), "{}", secure.asked());
    // Nobody but the proxy knows the name.
    let hidden = testkit::fake_registry::FakeRegistry::inside(d.namespaces(), "127.0.0.1:5998");
    push_and_pull(&d, "hidden.test:5998/app:1");
    let asked = format!("{}{}", secure.asked(), plain.asked());
    assert!(asked.contains("socks5 hidden.test:5998 "), "{asked}");
    drop((registry, secure, plain, hidden));
    d.finish();
}
