//! Which servers are asked for names that no network has.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::place::{ADDRESS, PORT};
use crate::proto::{ResolverSpec, Upstream};

/// The host's configuration, and what systemd-resolved has found for hosts whose own file names only its stub.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
const SYSTEMD_STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
/// Bytes of a configuration that are read.
const MAX_FILE: u64 = 1 << 20;
/// How often the host's configuration is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A file as it was when it was read: file system, inode, length, time of the last change.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// The servers of a sandbox.
#[derive(Debug, Default)]
pub struct Servers {
    addresses: Vec<SocketAddr>,
    source: Upstream,
    is_internal: bool,
    is_confined: bool,
    looked: Option<Instant>,
    stamps: [Stamp; 2],
}

/// The servers now.
#[derive(Clone, Copy, Debug)]
pub struct Current<'a> {
    /// In the order in which they are asked.
    pub addresses: &'a [SocketAddr],
    /// They are asked from the host's network.
    pub by_host: bool,
    /// They are not those of the last look.
    pub changed: bool,
}

impl Servers {
    /// Those of this specification. Behind gates all are asked from the host's network, which internal networks do not use.
    pub fn new(spec: &ResolverSpec) -> Servers {
        let (source, is_internal, is_confined) = (spec.upstream.clone(), spec.is_internal, spec.is_confined);
        let given = match &source {
            Upstream::Given(given) if !(is_internal && is_confined) => given.as_slice(),
            _ => &[],
        };
        // The resolver does not ask itself.
        let others = given.iter().filter(|address| **address != IpAddr::V4(ADDRESS)).take(dns::servers::MAX_SERVERS);
        let addresses = others.map(|address| SocketAddr::new(*address, PORT)).collect();
        Servers { addresses, source, is_internal, is_confined, looked: None, stamps: [None; 2] }
    }

    /// Follows the host's configuration.
    pub fn at(&mut self, now: Instant) -> Current<'_> {
        let follows = self.source == Upstream::Host;
        let is_due = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_EVERY);
        let mut changed = false;
        if follows && !self.is_internal && is_due {
            self.looked = Some(now);
            let stamps = FILES.map(stamp);
            if stamps != self.stamps {
                self.stamps = stamps;
                let addresses = of_host().into_iter().map(|address| SocketAddr::new(address, PORT)).collect();
                changed = self.addresses != addresses;
                self.addresses = addresses;
            }
        }
        Current { addresses: &self.addresses, by_host: follows || self.is_confined, changed }
    }
}

fn stamp(path: &str) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

fn of_host() -> Vec<IpAddr> {
    let of_file = |path| dns::servers::of(&read(path));
    match of_file(FILES[0]) {
        servers if servers == [SYSTEMD_STUB] => match of_file(FILES[1]) {
            upstream if upstream.is_empty() => servers,
            upstream => upstream,
        },
        servers => servers,
    }
}

fn read(path: &str) -> String {
    use std::io::Read;
    let mut text = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        // What can be read is read.
        let _ = file.take(MAX_FILE).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}
