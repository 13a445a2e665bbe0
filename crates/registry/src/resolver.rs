//! From a host's name to its addresses: literals, `/etc/hosts`, then the servers of `/etc/resolv.conf`.
//!
//! Own, because the daemon is a static glibc program and glibc's resolver would load plug-ins at run time. Files are
//! read for every look-up, so a change counts at once. Nothing is cached: a pull looks a name up a few times.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use blocking::Blocking;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::dns::{self, Answer, Kind};
use crate::settings::{Files, Settings};

/// Longest configuration file that is read.
const FILE_BYTES: u64 = 4 << 20;
/// Servers that are asked, as with glibc.
const SERVERS: usize = 3;
/// Search domains that are tried, as with glibc.
const SEARCH: usize = 6;
/// Longest datagram.
const DATAGRAM: usize = 4096;
const PORT: u16 = 53;

/// Looks names up.
#[derive(Clone, Debug)]
pub struct Resolver {
    files: Files,
    /// `/etc/hosts`
    pub hosts_file: PathBuf,
    /// `/etc/resolv.conf`
    pub resolv_conf: PathBuf,
}

/// What `/etc/resolv.conf` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Config {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: usize,
}

impl Resolver {
    /// With the files of the configuration.
    pub fn new(settings: &Settings) -> Resolver {
        let Settings { files, hosts_file, resolv_conf, .. } = settings;
        Resolver { files: files.clone(), hosts_file: hosts_file.clone(), resolv_conf: resolv_conf.clone() }
    }

    /// A file as text; one that cannot be read says nothing.
    async fn read(&self, path: &Path) -> String {
        let path = path.to_owned();
        self.files.read(move |on| Ok(read(on, &path))).await.unwrap_or_default()
    }

    /// The addresses of a host, IPv4 first; at least one. The error has the words of Go's resolver.
    pub async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let found = addresses_in(&self.read(&self.hosts_file).await, host);
        if !found.is_empty() {
            return Ok(found);
        }
        // RFC 6761: it never leaves this machine.
        if host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let config = Config::parse(&self.read(&self.resolv_conf).await);
        let mut failure = None;
        for name in config.names(host) {
            let (v4, v6) = tokio::join!(config.ask(&name, Kind::A), config.ask(&name, Kind::Aaaa));
            let mut found = Vec::new();
            for answer in [v4, v6] {
                match answer {
                    Ok(addresses) => found.extend(addresses),
                    Err(error) => failure = Some(error),
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let server = config.servers.first().map(|s| format!(" on {s}")).unwrap_or_default();
        Err(match failure {
            Some(error) => {
                let text = format!("lookup {host}{server}: {}", model::io_text(&error));
                io::Error::new(io::ErrorKind::TimedOut, text)
            }
            None => io::Error::new(io::ErrorKind::NotFound, format!("lookup {host}{server}: no such host")),
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "on a thread of the registries")]
fn read(_on: &Blocking, path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // A file that cannot be read says nothing.
        let _ = file.take(FILE_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The addresses that a hosts file has for a name.
fn addresses_in(hosts: &str, name: &str) -> Vec<IpAddr> {
    let wanted = name.trim_end_matches('.');
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address: IpAddr = words.next()?.split('%').next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(wanted)).then_some(address)
    };
    let mut found: Vec<IpAddr> = hosts.lines().filter_map(line).collect();
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

impl Config {
    fn parse(text: &str) -> Config {
        let mut config =
            Config { servers: Vec::new(), search: Vec::new(), ndots: 1, timeout: Duration::from_secs(5), attempts: 2 };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => config.servers.extend(words.next().and_then(server)),
                Some("search" | "domain") => config.search = words.map(str::to_owned).take(SEARCH).collect(),
                Some("options") => words.for_each(|word| config.option(word)),
                _ => {}
            }
        }
        config.servers.truncate(SERVERS);
        if config.servers.is_empty() {
            config.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        config
    }

    fn option(&mut self, word: &str) {
        let Some((name, Ok(value))) = word.split_once(':').map(|(n, v)| (n, v.parse::<u8>())) else { return };
        match name {
            "ndots" => self.ndots = usize::from(value.min(15)),
            "timeout" => self.timeout = Duration::from_secs(u64::from(value.clamp(1, 30))),
            "attempts" => self.attempts = usize::from(value.clamp(1, 5)),
            _ => {}
        }
    }

    /// The names to ask for, in order.
    fn names(&self, host: &str) -> Vec<String> {
        if host.ends_with('.') {
            return vec![host.to_owned()];
        }
        let mut names: Vec<_> = self.search.iter().map(|domain| format!("{host}.{domain}")).collect();
        let at = if host.matches('.').count() >= self.ndots { 0 } else { names.len() };
        names.insert(at, host.to_owned());
        names
    }

    /// The addresses of one kind; none when the name does not exist or has none.
    async fn ask(&self, name: &str, kind: Kind) -> io::Result<Vec<IpAddr>> {
        let random = sys::random::bytes32();
        let Some(query) = dns::query(u16::from_be_bytes([random[0], random[1]]), name, kind) else {
            return Ok(Vec::new());
        };
        let mut last = io::Error::other("no server answered");
        for _ in 0..self.attempts {
            for server in &self.servers {
                match timeout(self.timeout, exchange(*server, &query)).await {
                    Ok(Ok(Answer::Addresses(addresses))) => return Ok(addresses),
                    Ok(Ok(Answer::NoSuchName)) => return Ok(Vec::new()),
                    Ok(Ok(Answer::Truncated | Answer::Failed(_))) => last = io::Error::other("server misbehaving"),
                    Ok(Err(error)) => last = error,
                    Err(_) => last = io::Error::other("i/o timeout"),
                }
            }
        }
        Err(last)
    }
}

fn server(text: &str) -> Option<SocketAddr> {
    // A zone (`fe80::1%eth0`) needs the interface's number: such servers are left out.
    text.parse::<IpAddr>().ok().map(|address| (address, PORT).into())
}

async fn exchange(server: SocketAddr, query: &[u8]) -> io::Result<Answer> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Port 0: a random one, half of what keeps forged answers out.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = [0; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match dns::answer(query, &buffer[..length]) {
            Some(Answer::Truncated) => return over_tcp(server, query).await,
            Some(answer) => return Ok(answer),
            None => {}
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    dns::answer(query, &answer).ok_or_else(|| io::Error::other("server misbehaving"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_files_are_read() {
        let hosts = "127.0.0.1 localhost # own\n::1 localhost ip6-localhost\n10.0.0.9\tregistry.test Registry\nbad x\n";
        let shown = |name| addresses_in(hosts, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(shown("registry"), ["10.0.0.9"]);
        assert!(shown("own").is_empty() && shown("x").is_empty());
    }

    #[test]
    fn resolv_conf_is_read() {
        let config = Config::parse(
            "# c\nsearch a.test b.test\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver ::1\noptions ndots:2 timeout:1 attempts:9 rotate\n",
        );
        assert_eq!(config.servers, ["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!((config.ndots, config.timeout, config.attempts), (2, Duration::from_secs(1), 5));
        assert_eq!(config.names("x.y"), ["x.y.a.test", "x.y.b.test", "x.y"]);
        assert_eq!(config.names("x.y.z"), ["x.y.z", "x.y.z.a.test", "x.y.z.b.test"]);
        assert_eq!(config.names("x."), ["x."]);
        assert_eq!(Config::parse("").servers, ["127.0.0.1:53".parse().unwrap()]);
    }

    #[tokio::test]
    async fn a_server_is_asked() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let answering = tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, client) = server.recv_from(&mut buffer).await.unwrap();
            let mut reply = buffer[..length].to_vec();
            reply[2] |= 0x80;
            reply[7] = 1;
            reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x09\0\x04\x0a\0\0\x07");
            // A stranger's answer first: it is not taken.
            let mut forged = reply.clone();
            forged[0] ^= 1;
            server.send_to(&forged, client).await.unwrap();
            server.send_to(&reply, client).await.unwrap();
        });
        let query = dns::query(9, "r.test", Kind::A).unwrap();
        let answer = exchange(address, &query).await.unwrap();
        assert_eq!(answer, Answer::Addresses(vec!["10.0.0.7".parse().unwrap()]));
        answering.await.unwrap();
    }
}
