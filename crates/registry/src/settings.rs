//! How registries are reached: the configuration that the daemon gives, and the threads that read the files that it names.

use std::path::PathBuf;
use std::time::Duration;

use blocking::{Blocking, Class, Work};
use model::Result;

/// See the module. Replaced as a whole by a reload.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Mirrors of Docker Hub, as URLs.
    pub mirrors: Vec<String>,
    /// Registries (`host[:port]` or CIDR) that may be spoken to without verified TLS; 127.0.0.0/8 and ::1 always are.
    pub insecure: Vec<String>,
    /// Directories with one directory per registry: `hosts.toml`, `*.crt`, `*.cert` with `*.key`. The first that has the
    /// registry counts.
    pub certs_dirs: Vec<PathBuf>,
    /// The proxies of the daemon.
    pub proxies: Proxies,
    /// `User-Agent`.
    pub user_agent: String,
    /// Bounds of waiting.
    pub timeouts: Timeouts,
    /// The system's trusted certificates (PEM); `None`: the usual places (`SSL_CERT_FILE`).
    pub ca_bundle: Option<PathBuf>,
    /// Directories with further ones, a file each (`SSL_CERT_DIR`).
    pub ca_dirs: Vec<PathBuf>,
    /// `/etc/hosts`
    pub hosts_file: PathBuf,
    /// `/etc/resolv.conf`
    pub resolv_conf: PathBuf,
    /// Where `docker search` looks for names without a registry.
    pub index: String,
    /// What reads all of these files.
    pub files: Files,
}

/// Reads files of the configuration, on threads of their own class.
#[derive(Clone, Debug)]
pub struct Files(Class);

impl Default for Files {
    fn default() -> Files {
        Files(Class::new(Work::Registries))
    }
}

impl Files {
    /// Runs what reads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Blocking) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.0.run(job).await
    }
}

/// Proxies, as URLs; empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For http.
    pub http: String,
    /// For https.
    pub https: String,
    /// Hosts, domains and CIDRs reached without one, separated by commas.
    pub none_for: String,
}

/// Longest waits, and how often something is tried.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// For a TCP connection, all addresses of a name together.
    pub connect: Duration,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For the head of an answer.
    pub head: Duration,
    /// For the next bytes of a body.
    pub stall: Duration,
    /// First pause before another attempt; doubled for each further one.
    pub pause: Duration,
    /// Longest pause, whatever `Retry-After` asks for.
    pub longest_pause: Duration,
    /// Attempts of one request.
    pub attempts: u32,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(30),
            handshake: Duration::from_secs(15),
            head: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
            attempts: 5,
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            mirrors: Vec::new(),
            insecure: Vec::new(),
            certs_dirs: vec!["/etc/docker/certs.d".into()],
            proxies: Proxies::default(),
            user_agent: concat!("gantry/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeouts: Timeouts::default(),
            ca_bundle: None,
            ca_dirs: Vec::new(),
            hosts_file: "/etc/hosts".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            index: "https://index.docker.io/v1/".to_owned(),
            files: Files::default(),
        }
    }
}
