//! The frame behind TLS over the loopback: plain answers, and a hijacked stream with half-close.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use super::Server;
use crate::listener::Listener;

/// A self-signed certificate for `localhost`, made for this test.
const CERTIFICATE: &str = "MIIBkTCCATigAwIBAgIUBp3GvWkW0wNY6V6iuxNyzBdIIuQwCgYIKoZIzj0EAwIwFDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2\
MTEyMzIzMTcxMloYDzIxMjYxMDMwMjMxNzEyWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC\
AARu+oX9Xnl/5bi1LrqtfMdQ9mD2MU3dYXeEqhQHnJQymouInpeq2Qax5v7ak+0q26lD6QfzCwCCWvpXnNQ4nrXZo2YwZDAdBgNV\
HQ4EFgQUqI3sHIGvsZMSuhBYGMenmpu7gLwwHwYDVR0jBBgwFoAUqI3sHIGvsZMSuhBYGMenmpu7gLwwFAYDVR0RBA0wC4IJbG9j\
YWxob3N0MAwGA1UdEwEB/wQCMAAwCgYIKoZIzj0EAwIDRwAwRAIgEk+iHC1MbDoiI+3Qys7UhpOYLBG2elxIHlkPAfnQagYCIFme\
ktihp8ft/BoDgaJ9pAUBVNsYz4RHYZofvFPcEUvL";
/// Its key.
const KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQggEGG2nZzgNEsITZxie3Hc44eeu1zi7qmNxDE4Cim9/ShRANCAARu\
+oX9Xnl/5bi1LrqtfMdQ9mD2MU3dYXeEqhQHnJQymouInpeq2Qax5v7ak+0q26lD6QfzCwCCWvpXnNQ4nrXZ";

fn der(text: &str) -> Vec<u8> {
    STANDARD.decode(text).expect("base64")
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(der(CERTIFICATE))).expect("a root");
    roots
}

fn pair() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der(KEY)));
    (vec![CertificateDer::from(der(CERTIFICATE))], key)
}

/// Whom the server lets in.
#[derive(Clone, Copy)]
enum Clients {
    Any,
    /// Those with a certificate.
    Verified,
}

fn server_config(clients: Clients) -> Arc<ServerConfig> {
    let (chain, key) = pair();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("versions");
    let builder = match clients {
        Clients::Any => builder.with_no_client_auth(),
        Clients::Verified => {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots()), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
    };
    Arc::new(builder.with_single_cert(chain, key).expect("a valid pair"))
}

fn connect(port: u16, clients: Clients) -> StreamOwned<ClientConnection, TcpStream> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("versions").with_root_certificates(roots());
    let config = match clients {
        Clients::Any => builder.with_no_client_auth(),
        Clients::Verified => {
            let (chain, key) = pair();
            builder.with_client_auth_cert(chain, key).expect("a valid pair")
        }
    };
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    stream.set_read_timeout(Some(super::LIMIT)).expect("timeout");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a client"), stream)
}

fn start(clients: Clients) -> (Server, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("address").port();
    (Server::on(Listener::Tls(listener, server_config(clients))), port)
}

#[test]
fn answers_come_through_tls() {
    let (_server, port) = start(Clients::Any);
    let mut client = connect(port, Clients::Any);
    client.write_all(b"GET /v1.45/info HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").expect("written");
    let mut answer = Vec::new();
    // The server may close without a farewell; what came before counts.
    let _ = client.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("{\"ID\":\"x<y\"}\n"), "{answer}");
}

fn peer_seen_by(clients: Clients) -> (String, String) {
    let (_server, port) = start(clients);
    let mut client = connect(port, clients);
    client.write_all(b"GET /peer HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").expect("written");
    let mut answer = Vec::new();
    // The server may close without a farewell; what came before counts.
    let _ = client.read_to_end(&mut answer);
    let own = client.sock.local_addr().expect("address").to_string();
    (String::from_utf8_lossy(&answer).lines().last().unwrap_or_default().to_owned(), own)
}

#[test]
fn a_client_with_a_certificate_is_known_by_its_subject() {
    let (peer, own) = peer_seen_by(Clients::Verified);
    assert_eq!(peer, format!("{own} CN=localhost"));
    let (peer, own) = peer_seen_by(Clients::Any);
    assert_eq!(peer, own);
}

#[test]
fn a_hijacked_stream_half_closes_through_tls() {
    let (_server, port) = start(Clients::Any);
    let mut client = connect(port, Clients::Any);
    let request =
        "POST /v1.45/containers/a/attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nahead ";
    client.write_all(request.as_bytes()).expect("written");
    let mut head = vec![0; 4096];
    let count = client.read(&mut head).expect("head");
    assert!(head[..count].starts_with(b"HTTP/1.1 101 UPGRADED\r\n") && head[..count].ends_with(b"\r\n\r\n"));
    client.write_all(b"of time").expect("written");
    client.conn.send_close_notify();
    client.flush().expect("sent");
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    assert_eq!(String::from_utf8_lossy(&rest), "ahead of timebye");
}

#[test]
fn a_client_that_speaks_no_tls_is_let_go() {
    let (_server, port) = start(Clients::Any);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    stream.set_read_timeout(Some(super::LIMIT)).expect("timeout");
    stream.write_all(b"GET /info HTTP/1.1\r\nHost: d\r\n\r\n").expect("written");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}
