//! A connection to a server: name to address, TCP, through a proxy perhaps, TLS perhaps.
//!
//! Errors have the words that users know from Go's programs.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::authority::{Authority, Host};
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, InvalidMessage};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::proxy::{Kind, Proxy};
use crate::resolver::Resolver;
use crate::socks;
use crate::url::{Scheme, Url};

/// Pause before the next address of a name is tried as well (RFC 8305).
const STAGGER: Duration = Duration::from_millis(300);
/// Addresses of a name that are tried.
const ADDRESSES: usize = 8;
/// Longest answer of a proxy to CONNECT.
const PROXY_HEAD: usize = 16 << 10;

/// Addresses of a host that were judged, and so the only ones that connections go to.
pub type Pinned = Arc<[IpAddr]>;

/// How a connection is made.
#[derive(Clone)]
pub struct Route {
    /// Looks names up.
    pub resolver: Resolver,
    /// The proxy to go through.
    pub proxy: Option<Proxy>,
    /// How a proxy that is spoken to over TLS is verified: never as the server behind it is, for which an administrator may
    /// have configured its own authorities, a certificate to show, or no verification at all.
    pub proxy_tls: Option<Arc<ClientConfig>>,
    /// The addresses to connect to, whatever the name means now; `None`: what it means.
    pub pinned: Option<Pinned>,
    /// Longest wait for TCP.
    pub connect: Duration,
    /// Longest wait for TLS (and for the proxy before it).
    pub handshake: Duration,
}

/// The bytes to and from whom the TCP connection leads to: a server, or a proxy.
pub enum Near {
    /// In clear.
    Plain(TcpStream),
    /// A proxy that is spoken to over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// The bytes to and from a server.
pub enum Stream {
    /// In clear.
    Plain(Near),
    /// Encrypted.
    Tls(Box<TlsStream<Near>>),
}

/// Connects to the server of a URL.
pub async fn connect(url: &Url, tls: &Arc<ClientConfig>, route: &Route) -> io::Result<Stream> {
    let tcp = match &route.proxy {
        Some(proxy) => dial(&proxy.server, 0, route).await?,
        None => dial(&url.server, url.scheme.default_port(), route).await?,
    };
    let secured = async {
        let near = near(tcp, url, route).await?;
        match url.scheme {
            Scheme::Http => Ok(Stream::Plain(near)),
            Scheme::Https => Ok(Stream::Tls(Box::new(secure(near, &url.server.host, tls).await?))),
        }
    };
    match timeout(route.handshake, secured).await {
        Ok(stream) => stream,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "net/http: TLS handshake timeout")),
    }
}

/// What is spoken through a TCP connection: with a proxy, what leads on to the server.
async fn near(tcp: TcpStream, url: &Url, route: &Route) -> io::Result<Near> {
    let Some(proxy) = &route.proxy else { return Ok(Near::Plain(tcp)) };
    let (host, port) = url.host_port();
    let mut near = match (proxy.kind, &route.proxy_tls) {
        (Kind::Http | Kind::Socks5, _) => Near::Plain(tcp),
        (Kind::Https, Some(tls)) => Near::Tls(Box::new(secure(tcp, &proxy.server.host, tls).await?)),
        (Kind::Https, None) => return Err(io::Error::other("proxyconnect tcp: the proxy cannot be verified")),
    };
    match (proxy.kind, url.scheme) {
        (Kind::Socks5, _) => socks::ask(&mut near, proxy, &url.server.host, port).await?,
        (_, Scheme::Https) => tunnel(&mut near, proxy, &host, port).await?,
        // It is told the whole address with each request.
        (_, Scheme::Http) => {}
    }
    Ok(near)
}

async fn secure<S>(stream: S, host: &Host, tls: &Arc<ClientConfig>) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = match host {
        Host::Name(name) => name.clone(),
        Host::Address(address) => address.to_string(),
    };
    let server = ServerName::try_from(name.clone())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("invalid host {name:?}")))?;
    TlsConnector::from(tls.clone()).connect(server, stream).await.map_err(|error| tls_error(&error, &name))
}

async fn dial(server: &Authority, default_port: u16, route: &Route) -> io::Result<TcpStream> {
    let port = server.port_or(default_port);
    let host = match &server.host {
        Host::Name(name) => name.clone(),
        Host::Address(address) => address.to_string(),
    };
    let dialed = async {
        let addresses = match &route.pinned {
            // A proxy is not what was judged.
            Some(pinned) if route.proxy.is_none() => pinned.to_vec(),
            _ => {
                let addresses = route.resolver.resolve(&host).await;
                addresses.map_err(|e| io::Error::new(e.kind(), format!("dial tcp: {e}")))?
            }
        };
        first_of(addresses.into_iter().take(ADDRESSES).map(|address| SocketAddr::new(address, port))).await
    };
    match timeout(route.connect, dialed).await {
        Ok(stream) => stream,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("dial tcp {}: i/o timeout", server))),
    }
}

/// The first address that accepts; each gets a head start on the next.
async fn first_of(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    for (n, address) in addresses.enumerate() {
        attempts.spawn(async move {
            sleep(STAGGER * u32::try_from(n).unwrap_or(0)).await;
            let connected = TcpStream::connect(address).await;
            connected.map_err(|e| io::Error::new(e.kind(), format!("dial tcp {address}: connect: {}", said(&e))))
        });
    }
    let mut failure = io::Error::other("dial tcp: no address");
    while let Some(attempt) = attempts.join_next().await {
        match attempt.map_err(io::Error::other)? {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// `Connection refused (os error 111)` → `connection refused`
fn said(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Asks a proxy for a way to the server.
async fn tunnel(tcp: &mut Near, proxy: &Proxy, host: &str, port: u16) -> io::Result<()> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let authorization = proxy_authorization(proxy).map(|value| format!("Proxy-Authorization: {value}\r\n"));
    let request =
        format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{}\r\n", authorization.unwrap_or_default());
    tcp.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    // Byte by byte: what follows the head belongs to TLS.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == PROXY_HEAD {
            return Err(io::Error::other("proxyconnect tcp: the proxy's answer is too long"));
        }
        head.push(tcp.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&head);
    let line = line.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(io::Error::other(format!("proxyconnect tcp: {}", line.split_once(' ').map_or(line, |(_, why)| why)))),
    }
}

/// The credentials in a proxy's URL, as a header's value.
pub fn proxy_authorization(proxy: &Proxy) -> Option<String> {
    let user = unescape(proxy.user.as_ref()?);
    Some(format!("Basic {}", STANDARD.encode(user)))
}

pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok());
        rest = match (first, digits) {
            (b'%', Some(byte)) => {
                out.push(byte);
                &tail[2..]
            }
            _ => {
                out.push(*first);
                tail
            }
        };
    }
    out
}

fn tls_error(error: &io::Error, host: &str) -> io::Error {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let verify = |why: String| format!("tls: failed to verify certificate: x509: {why}");
    let text = match inner {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "http: server gave HTTP response to HTTPS client".to_owned()
        }
        Some(rustls::Error::InvalidCertificate(reason)) => match reason {
            // A bad signature is that of another authority of the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                verify("certificate signed by unknown authority".into())
            }
            // A self-signed certificate that nobody said to trust.
            CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                verify("certificate signed by unknown authority".into())
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                verify("certificate has expired or is not yet valid".into())
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                verify(format!("certificate is not valid for {host}"))
            }
            other => verify(format!("{other:?}")),
        },
        Some(rustls::Error::AlertReceived(alert)) => format!("remote error: tls: {alert:?}"),
        Some(other) => format!("tls: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".into(),
        None => error.to_string(),
    };
    io::Error::other(text)
}

macro_rules! bytes_of {
    ($of:ident) => {
        impl AsyncRead for $of {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $of::Plain(inner) => Pin::new(inner).poll_read(cx, buffer),
                    $of::Tls(inner) => Pin::new(inner).poll_read(cx, buffer),
                }
            }
        }

        impl AsyncWrite for $of {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $of::Plain(inner) => Pin::new(inner).poll_write(cx, bytes),
                    $of::Tls(inner) => Pin::new(inner).poll_write(cx, bytes),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $of::Plain(inner) => Pin::new(inner).poll_flush(cx),
                    $of::Tls(inner) => Pin::new(inner).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $of::Plain(inner) => Pin::new(inner).poll_shutdown(cx),
                    $of::Tls(inner) => Pin::new(inner).poll_shutdown(cx),
                }
            }
        }
    };
}

bytes_of!(Near);
bytes_of!(Stream);

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;
    use crate::certs::{CertFiles, client_config};
    use crate::settings::Settings;

    #[test]
    fn a_proxys_credentials_are_unescaped() {
        let with =
            |user: &str| proxy_authorization(&crate::proxy::parse(&format!("http://{user}@p.test")).unwrap()).unwrap();
        assert_eq!(with("u:p%40w%"), format!("Basic {}", STANDARD.encode("u:p@w%")));
    }

    #[tokio::test]
    async fn the_first_address_that_accepts_is_taken() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = SocketAddr::from(([127, 0, 0, 1], 1));
        assert!(first_of([closed, open].into_iter()).await.is_ok());
        let refused = first_of([closed].into_iter()).await.unwrap_err();
        assert_eq!(refused.to_string(), "dial tcp 127.0.0.1:1: connect: connection refused");
    }

    const LEAF: &str = "basicConstraints=critical,CA:FALSE";

    /// A proxy over TLS with a certificate of its own, made with openssl. Answers CONNECT with 200 and ends; what it was
    /// asked is the result.
    async fn tls_proxy(dir: &std::path::Path) -> (Proxy, tokio::task::JoinHandle<String>) {
        let file = |name: &str| dir.join(name).display().to_string();
        let subject = ["-subj", "/CN=proxy", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", LEAF, "-days", "2"];
        let made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let (key, certificate) = (file("key.pem"), file("cert.pem"));
        let out = ["-keyout", &key, "-out", &certificate];
        let output = std::process::Command::new("openssl").args(made).args(subject).args(out).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let chain = CertificateDer::pem_file_iter(&certificate).unwrap().map(Result::unwrap).collect();
        let server = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key).unwrap())
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = crate::proxy::parse(&format!("https://u:p@{}", listener.local_addr().unwrap())).unwrap();
        let asked = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(tcp).await else {
                return String::new();
            };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            stream.flush().await.unwrap();
            String::from_utf8(head).unwrap()
        });
        (proxy, asked)
    }

    /// What a registry may do without, or is trusted by, says nothing about a proxy on the way: credentials go to one that
    /// was verified by the system's authorities only.
    #[tokio::test]
    async fn a_proxy_is_not_verified_as_the_registry_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let (proxy, asked) = tls_proxy(dir.path()).await;
        let bundle = |name: &str| Settings { ca_bundle: Some(dir.path().join(name)), ..Settings::default() };
        std::fs::write(dir.path().join("none.pem"), "").unwrap();
        let config = async |files: CertFiles, settings: Settings| {
            client_config(files, &Arc::default(), &Arc::new(settings)).await.unwrap()
        };
        let anybody = config(CertFiles { skip_verify: true, ..CertFiles::default() }, bundle("none.pem")).await;
        let route = |tls| Route {
            resolver: Resolver::new(&Settings::default()),
            proxy: Some(proxy.clone()),
            proxy_tls: Some(tls),
            pinned: None,
            connect: Duration::from_secs(60),
            handshake: Duration::from_secs(60),
        };
        let url = Url::parse("https://registry.test/v2/").unwrap();
        let stranger = route(config(CertFiles::default(), bundle("none.pem")).await);
        let error = connect(&url, &anybody, &stranger).await.err().expect("nobody vouches for the proxy");
        assert!(error.to_string().contains("failed to verify certificate"), "{error}");
        assert_eq!(asked.await.unwrap(), "", "the proxy was told something");
        let (proxy, asked) = tls_proxy(dir.path()).await;
        let known = Route { proxy: Some(proxy), ..route(config(CertFiles::default(), bundle("cert.pem")).await) };
        // Behind it there is nobody.
        assert!(connect(&url, &anybody, &known).await.is_err());
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("CONNECT registry.test:443 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("Proxy-Authorization: Basic dTpw\r\n"), "{asked}");
    }
}
