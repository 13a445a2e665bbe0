//! Credentials: passwords, tokens, TLS with one's own authority and with client certificates.

use std::fs;

use testkit::{Daemon, Options};

use crate::assert_nothing;
use crate::server::{OUTSIDE, Server, Setup, certs_dir, outside, self_signed, signed, token_server};

fn push_and_pull(d: &Daemon, name: &str) {
    let _ = d.docker(&["tag", "busybox", name]).ok();
    let _ = d.docker(&["push", "-q", name]).ok();
    let _ = d.docker(&["rmi", name]).ok();
    let _ = d.docker(&["pull", "-q", name]).ok();
    let _ = d.docker(&["rmi", name]).ok();
}

#[test]
fn a_password_opens_the_registry() {
    let d = Daemon::start();
    d.busybox();
    let registry = Setup::default().password(&d, "me", "secret").start(&d);
    let name = registry.name("app:1");
    let _ = d.docker(&["tag", "busybox", &name]).ok();
    d.docker(&["push", &name]).fails(1, "no basic auth credentials");
    d.docker(&["pull", &name]).fails(1, "no basic auth credentials");
    let login = |password: &str| {
        d.docker_input(&["login", "-u", "me", "--password-stdin", registry.address()], password.as_bytes())
    };
    login("wrong")
        .fails(1, &format!("login attempt to http://{}/v2/ failed with status: 401 Unauthorized", registry.address()));
    assert!(login("secret").text().contains("Login Succeeded"));
    push_and_pull(&d, &name);
    let _ = d.docker(&["logout", registry.address()]).ok();
    d.docker(&["pull", &name]).fails(1, "no basic auth credentials");
    drop(registry);
    d.finish();
}

#[test]
fn a_token_server_opens_the_registry() {
    let d = Daemon::start();
    d.busybox();
    let certificate = self_signed(&d, "tokens");
    let tokens = token_server(&d, "127.0.0.1:5999", &certificate);
    let registry = Setup::default().tokens("http://127.0.0.1:5999/token", &certificate).start(&d);
    let name = registry.name("app:1");
    let _ = d.docker(&["tag", "busybox", &name]).ok();
    d.docker(&["push", &name]).fails(1, "denied: requested access to the resource is denied");
    let login = |password: &str| {
        d.docker_input(&["login", "-u", "me", "--password-stdin", registry.address()], password.as_bytes())
    };
    login("wrong").fails(1, "unauthorized: incorrect username or password");
    assert!(login("secret").text().contains("Login Succeeded"));
    push_and_pull(&d, &name);
    let _ = d.docker(&["tag", "busybox", &name]).ok();
    let _ = d.docker(&["tag", "busybox", &registry.name("other:1")]).ok();
    let output = d.docker(&["push", &registry.name("other:1")]).text();
    assert!(output.contains("Mounted from app"), "{output}");
    let _ = d.docker(&["logout", registry.address()]).ok();
    let _ = d.docker(&["rmi", &name]).ok();
    // Everybody may read.
    let _ = d.docker(&["pull", "-q", &name]).ok();
    drop((registry, tokens));
    d.finish();
}

#[test]
fn a_certificate_of_ones_own_is_trusted_when_it_is_configured() {
    let d = Daemon::start();
    d.busybox();
    outside(&d);
    let certificate = self_signed(&d, "server");
    let registry = Setup::default().host(OUTSIDE).tls(&certificate, None).start(&d);
    let name = registry.name("app:1");
    let _ = d.docker(&["tag", "busybox", &name]).ok();
    d.docker(&["push", &name])
        .fails(1, "tls: failed to verify certificate: x509: certificate signed by unknown authority");
    fs::copy(&certificate, certs_dir(&d, registry.address()).join("ca.crt")).unwrap();
    push_and_pull(&d, &name);
    drop(registry);
    d.finish();
}

#[test]
fn a_registry_may_want_a_certificate_of_the_client() {
    let d = Daemon::start();
    d.busybox();
    outside(&d);
    let (ca, certificate) = signed(&d, "server");
    let registry = Setup::default().host(OUTSIDE).tls(&certificate, Some(&ca)).start(&d);
    let name = registry.name("app:1");
    let _ = d.docker(&["tag", "busybox", &name]).ok();
    let dir = certs_dir(&d, registry.address());
    fs::copy(&ca, dir.join("ca.crt")).unwrap();
    assert_ne!(d.docker(&["push", &name]).code, 0);
    fs::copy(&certificate, dir.join("client.cert")).unwrap();
    d.docker(&["push", &name]).fails(1, "missing key ");
    fs::copy(certificate.with_extension("key"), dir.join("client.key")).unwrap();
    push_and_pull(&d, &name);
    drop(registry);
    d.finish();
}

#[test]
fn an_insecure_registry_needs_no_certificate_and_no_tls() {
    let d = Options::new().config(&format!("{{\"insecure-registries\": [\"{OUTSIDE}/32\"]}}")).start();
    d.busybox();
    outside(&d);
    let certificate = self_signed(&d, "server");
    for setup in [Setup::default().host(OUTSIDE).tls(&certificate, None), Setup::default().host(OUTSIDE)] {
        let registry = setup.start(&d);
        push_and_pull(&d, &registry.name("app:1"));
    }
    d.finish();
}

#[test]
fn a_secure_registry_is_never_spoken_to_in_clear() {
    let d = Daemon::start();
    outside(&d);
    let registry = Setup::default().host(OUTSIDE).start(&d);
    d.docker(&["pull", &registry.name("app:1")]).fails(1, "http: server gave HTTP response to HTTPS client");
    assert_nothing(&d);
    let _ = Server::plain(&d);
    drop(registry);
    d.finish();
}
