//! Who is at the other end of a connection: read once, when it is accepted, and carried by each of its requests.

use std::fmt;
use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process of this machine, as it was when it connected (unix(7), `SO_PEERCRED`).
    Process {
        /// Its effective user.
        uid: u32,
        /// Its effective group.
        gid: u32,
        /// Its id; `None` when the kernel names none.
        pid: Option<i32>,
    },
    /// A TCP client.
    Address {
        /// From where it connected.
        address: SocketAddr,
        /// The subject of the certificate with which it proved who it is (RFC 4514): `CN=client,O=x`. `None` without TLS,
        /// or when the daemon asks for no certificate.
        subject: Option<String>,
    },
}

impl Peer {
    /// The same peer after it showed its certificates, its own first. What cannot be read has no subject.
    #[must_use]
    pub fn with_certificates(self, chain: Option<&[CertificateDer<'_>]>) -> Peer {
        match self {
            Peer::Address { address, .. } => Peer::Address { address, subject: chain.and_then(subject) },
            process @ Peer::Process { .. } => process,
        }
    }
}

fn subject(chain: &[CertificateDer<'_>]) -> Option<String> {
    let certificate = Certificate::from_der(chain.first()?).ok()?;
    Some(certificate.tbs_certificate().subject().to_string())
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Process { uid, gid, pid: Some(pid) } => write!(f, "uid={uid} gid={gid} pid={pid}"),
            Peer::Process { uid, gid, pid: None } => write!(f, "uid={uid} gid={gid}"),
            Peer::Address { address, subject: Some(subject) } => write!(f, "{address} {subject}"),
            Peer::Address { address, subject: None } => write!(f, "{address}"),
        }
    }
}
