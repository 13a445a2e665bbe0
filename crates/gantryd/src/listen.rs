//! Binding the API's sockets: unix (mode 0660, the configured group), tcp, tcp with TLS, and those inherited from the
//! service manager (`fd://`).

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::{Context, Error, Result};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use server::listener::Listener;

use crate::config::{Host, Listen, Tls};
use crate::upgrade::Sockets;

/// What an administrator has to wait for when the API is open to everybody (B-api-12).
const INSECURE_DELAY: Duration = Duration::from_secs(1);
/// In addition, when it can be reached from other machines.
const INSECURE_REMOTE_DELAY: Duration = Duration::from_secs(15);

/// Commands that wait to be heard on the control socket.
const CONTROL_QUEUE: i32 = 16;

/// Binds all configured addresses.
///
/// Sockets that a program before this one has left are taken instead, by the names of their addresses; `kept` gets another
/// reference to each, for the next one.
pub async fn bind(listen: &Listen, left: &mut Sockets, kept: &mut Sockets) -> Result<Vec<Listener>> {
    let tls = listen.tls.as_ref().map(tls_config).transpose()?;
    let mut inherited = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for host in &listen.hosts {
        match host {
            Host::Unix(path) => {
                let name = format!("unix://{}", path.display());
                let listener = match left.take(&name) {
                    Some(socket) => socket.into(),
                    None => bind_unix(path, &listen.group)?,
                };
                kept.keep(name, &listener)?;
                listeners.push(Listener::Unix(listener));
            }
            Host::Tcp { host, port } => {
                warn_if_open(listen, host).await;
                for address in resolve(host, *port)? {
                    let name = format!("tcp://{address}");
                    let listener = match left.take(&name) {
                        Some(socket) => socket.into(),
                        None => TcpListener::bind(address).with_context(|| format!("listen tcp {address}"))?,
                    };
                    kept.keep(name, &listener)?;
                    listeners.push(match &tls {
                        Some(config) => Listener::Tls(listener, config.clone()),
                        None => Listener::Tcp(listener),
                    });
                }
            }
            Host::Fd(_) => {
                let again = (0..).map_while(|n| left.take(&activated(n))).map(Activated::of);
                let mut sockets: Vec<_> = again.collect::<Result<_>>()?;
                if sockets.is_empty() {
                    sockets = take_inherited(&mut inherited)?;
                }
                for (n, socket) in sockets.into_iter().enumerate() {
                    kept.keep(activated(n), &socket)?;
                    listeners.push(socket.listener(tls.as_ref()));
                }
            }
        }
    }
    Ok(listeners)
}

/// The name of a socket of the service manager.
fn activated(number: usize) -> String {
    format!("fd://{number}")
}

/// A socket that the service manager has made.
enum Activated {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Activated {
    fn of(socket: OwnedFd) -> Result<Activated> {
        let address = rustix::net::getsockname(&socket).context("looking at a socket")?;
        Ok(match address.address_family() {
            AddressFamily::UNIX => Activated::Unix(socket.into()),
            _ => Activated::Tcp(socket.into()),
        })
    }

    fn listener(self, tls: Option<&Arc<rustls::ServerConfig>>) -> Listener {
        match (self, tls) {
            (Activated::Unix(listener), _) => Listener::Unix(listener),
            (Activated::Tcp(listener), Some(config)) => Listener::Tls(listener, config.clone()),
            (Activated::Tcp(listener), None) => Listener::Tcp(listener),
        }
    }
}

impl AsFd for Activated {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Activated::Unix(listener) => listener.as_fd(),
            Activated::Tcp(listener) => listener.as_fd(),
        }
    }
}

/// Binds the control socket, which is for root alone from its first moment on.
pub fn bind_control(path: &Path, left: &mut Sockets, kept: &mut Sockets) -> Result<Listener> {
    let listener: UnixListener = match left.take(CONTROL) {
        Some(socket) => socket.into(),
        None => bind_for_root(path)?.into(),
    };
    kept.keep(CONTROL.to_owned(), &listener)?;
    Ok(Listener::Control(listener))
}

/// The name of the control socket.
const CONTROL: &str = "control";

fn bind_for_root(path: &Path) -> Result<OwnedFd> {
    free(path)?;
    let bound = || -> rustix::io::Result<OwnedFd> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // Binding gives the name the socket's own mode.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, CONTROL_QUEUE)?;
        Ok(socket)
    };
    bound().with_context(|| format!("can't create control socket {}", path.display()))
}

/// Binds the listener for metrics; an empty address means none.
pub fn bind_metrics(address: &str, left: &mut Sockets, kept: &mut Sockets) -> Result<Vec<Listener>> {
    if address.is_empty() {
        return Ok(Vec::new());
    }
    let addresses = address.to_socket_addrs().with_context(|| format!("failed to start metrics server: {address}"))?;
    addresses
        .map(|address| {
            let name = format!("metrics://{address}");
            let listener = match left.take(&name) {
                Some(socket) => socket.into(),
                None => TcpListener::bind(address)
                    .with_context(|| format!("failed to start metrics server: listen tcp {address}"))?,
            };
            kept.keep(name, &listener)?;
            tracing::info!("metrics API listening on {address}");
            Ok(Listener::Tcp(listener))
        })
        .collect()
}

/// Makes way for a socket: a name that nobody listens at any more goes.
#[expect(clippy::disallowed_methods, reason = "on the main thread, before anybody is served")]
fn free(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        if UnixStream::connect(path).is_ok() {
            return Err(Error::conflict(format!(
                "can't create unix socket {}: address already in use",
                path.display()
            )));
        }
        fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "on the main thread, before anybody is served")]
fn bind_unix(path: &Path, group: &str) -> Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    free(path)?;
    let listener = UnixListener::bind(path).with_context(|| format!("can't create unix socket {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("chmod {}", path.display()))?;
    match group_id(group) {
        Some(gid) => {
            std::os::unix::fs::chown(path, Some(0), Some(gid)).with_context(|| format!("chown {}", path.display()))?
        }
        None if group.is_empty() || group == "docker" => {
            tracing::warn!(group, "could not change group of {}: group not found", path.display());
        }
        None => {
            return Err(Error::invalid(format!(
                "could not change group {} to {group}: group {group} not found",
                path.display()
            )));
        }
    }
    Ok(listener)
}

/// group(5), or a number. No id that the kernel takes for "unchanged" or for something negative.
#[expect(clippy::disallowed_methods, reason = "on the main thread, before anybody is served")]
fn group_id(group: &str) -> Option<u32> {
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    group_in(&text, group).filter(|id| *id <= model::user::MAX_ID)
}

fn group_in(text: &str, group: &str) -> Option<u32> {
    let named = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == group).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    named.or_else(|| group.parse().ok())
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    if host == "localhost" {
        // Answered without the machine's resolver.
        return Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]);
    }
    let addresses = (host, port).to_socket_addrs().with_context(|| format!("lookup {host}"))?;
    Ok(addresses.collect())
}

/// Whoever reaches an unverified tcp address is root on this host.
async fn warn_if_open(listen: &Listen, host: &str) {
    if listen.tls.as_ref().is_some_and(|tls| tls.verify_clients) {
        return;
    }
    tracing::warn!(
        host,
        "[DEPRECATION NOTICE] binding to an IP address without --tlsverify is insecure and gives root access on this machine to everyone who has access to your network."
    );
    if listen.insecure_tcp_accepted {
        return;
    }
    tokio::time::sleep(INSECURE_DELAY).await;
    let local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !local {
        tracing::warn!("[DEPRECATION NOTICE] startup is intentionally being slowed down to show this message");
        tokio::time::sleep(INSECURE_REMOTE_DELAY).await;
    }
}

fn take_inherited(inherited: &mut listenfd::ListenFd) -> Result<Vec<Activated>> {
    let mut listeners = Vec::new();
    for index in 0..inherited.len() {
        if let Ok(Some(listener)) = inherited.take_unix_listener(index) {
            listeners.push(Activated::Unix(listener));
        } else if let Ok(Some(listener)) = inherited.take_tcp_listener(index) {
            listeners.push(Activated::Tcp(listener));
        }
    }
    if listeners.is_empty() {
        return Err(Error::invalid(
            "no sockets found via socket activation: make sure the service was started by systemd",
        ));
    }
    Ok(listeners)
}

fn tls_config(tls: &Tls) -> Result<Arc<rustls::ServerConfig>> {
    let read = |e: rustls::pki_types::pem::Error, path: &Path| {
        Error::invalid(format!("could not load X509 key pair ({}): {e}", path.display()))
    };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(&tls.cert).and_then(Iterator::collect).map_err(|e| read(e, &tls.cert))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| read(e, &tls.key))?;
    let builder = rustls::ServerConfig::builder();
    let builder = if tls.verify_clients {
        let mut roots = rustls::RootCertStore::empty();
        let authorities: Vec<_> =
            CertificateDer::pem_file_iter(&tls.ca).and_then(Iterator::collect).map_err(|e| read(e, &tls.ca))?;
        roots.add_parsable_certificates(authorities);
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
        builder
            .with_client_cert_verifier(verifier.map_err(|e| Error::invalid(format!("invalid TLS configuration: {e}")))?)
    } else {
        builder.with_no_client_auth()
    };
    let config = builder.with_single_cert(chain, key);
    let mut config = config.map_err(|e| Error::invalid(format!("invalid TLS configuration: {e}")))?;
    // HTTP/2 is for clients of gRPC, which speak nothing else; whoever speaks both attaches, too.
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Removes the unix sockets.
#[expect(clippy::disallowed_methods, reason = "on the main thread, before anybody is served")]
pub fn clean_up(listen: &Listen, control: &Path) {
    let hosts = listen.hosts.iter().filter_map(|host| match host {
        Host::Unix(path) => Some(path.as_path()),
        _ => None,
    });
    for path in hosts.chain([control]) {
        if let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "socket stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_ids_in_range() {
        assert_eq!(group_in("a:x:5:\nb:x:7:\n", "b"), Some(7));
        assert_eq!((group_in("", "12"), group_in("b:x:z:", "b")), (Some(12), None));
        assert_eq!(group_id("2147483647"), Some(2_147_483_647));
        for beyond in ["2147483648", "4294967295", "4294967296", "-1"] {
            assert_eq!(group_id(beyond), None, "{beyond}");
        }
    }
}
