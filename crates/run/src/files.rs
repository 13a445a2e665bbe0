//! The three files every container gets: `hostname`, `hosts` and `resolv.conf`, written anew at every start
//! (B-dns-1, B-dns-5). Their contents are `network::files`'s.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use model::{Context, Result};
use network::files::{self, DnsConfig, DnsMode, HostName};

pub const HOSTNAME: &str = "hostname";
pub const HOSTS: &str = "hosts";
pub const RESOLV_CONF: &str = "resolv.conf";

/// What goes into the files, but for what only the network knows.
#[derive(Clone, Debug)]
pub struct Files {
    /// The directory that has them.
    pub dir: PathBuf,
    pub hostname: String,
    pub domainname: String,
    pub hosts: Hosts,
    pub dns: DnsConfig,
    pub dns_mode: DnsMode,
}

/// What `hosts` says.
#[derive(Clone, Debug)]
pub enum Hosts {
    /// What the host's says.
    Host,
    /// What a step of a build has: its loopback, and these.
    Step {
        /// Further names.
        extra: Vec<(String, IpAddr)>,
    },
    /// The container's own names, and these.
    Own {
        /// Further names.
        extra: Vec<(String, IpAddr)>,
        /// The loopback has IPv6 addresses.
        ipv6: bool,
    },
}

/// Makes the files empty in the directory of a container to come: filling a file costs less than making one.
pub fn make_ahead(dir: &Path) -> Result<()> {
    let make = |name| fs::File::create(dir.join(name)).with_context(|| format!("making {name} ahead"));
    [HOSTNAME, HOSTS, RESOLV_CONF].into_iter().try_for_each(|name| make(name).map(drop))
}

/// The host's resolver configuration and its path; empty where there is none.
pub fn host_resolv_conf() -> (String, &'static str) {
    let text = fs::read_to_string(files::RESOLV_CONF).unwrap_or_default();
    let source = files::host_resolv_conf_path(&text);
    let text = if source == files::RESOLV_CONF { text } else { fs::read_to_string(source).unwrap_or(text) };
    (text, source)
}

impl Files {
    /// Writes them; `own` are the container's addresses.
    pub fn write(&self, own: &[IpAddr]) -> Result<()> {
        let put = |name: &str, text: String| {
            fs::write(self.dir.join(name), text).with_context(|| format!("writing {name} of the container"))
        };
        put(HOSTS, self.hosts(own))?;
        put(HOSTNAME, files::hostname(&self.hostname))?;
        put(RESOLV_CONF, self.resolv_conf())
    }

    /// What `resolv.conf` says by the host's configuration as it is now.
    pub fn resolv_conf(&self) -> String {
        let (text, source) = host_resolv_conf();
        files::resolv_conf(&text, source, &self.dns, self.dns_mode)
    }

    fn hosts(&self, own: &[IpAddr]) -> String {
        let name = HostName { hostname: &self.hostname, domainname: &self.domainname };
        match &self.hosts {
            Hosts::Step { extra } => files::hosts_of_step(&self.hostname, extra),
            Hosts::Own { extra, ipv6 } => files::hosts(name, own, extra, *ipv6),
            Hosts::Host => fs::read_to_string("/etc/hosts").unwrap_or_else(|_| files::hosts(name, own, &[], true)),
        }
    }
}
