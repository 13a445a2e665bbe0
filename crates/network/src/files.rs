//! Contents of a container's `resolv.conf`, `hosts` and `hostname`.

use std::net::IpAddr;

/// What a container's configuration says about name resolution; empty lists = not given.
#[derive(Clone, Debug, Default)]
pub struct DnsConfig {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// Whose resolver a container uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsMode {
    /// `--network host`: the host's file as it is.
    Host,
    /// Default bridge, no embedded resolver: loopback servers (and IPv6 ones, where the container has no IPv6) left out.
    Bridge { ipv6: bool },
    /// `none`: the host's file with the container's overrides.
    None,
}

/// The host file that containers' files are based on: systemd-resolved's upstream list where the host's own file only
/// names the local stub.
pub fn host_resolv_conf_path(host_text: &str) -> &'static str {
    let _ = host_text;
    todo!()
}

/// The text of `resolv.conf`. `source` is named in the trailing comment.
pub fn resolv_conf(host_text: &str, source: &str, dns: &DnsConfig, mode: DnsMode) -> String {
    let _ = (host_text, source, dns, mode);
    todo!()
}

/// The container's own names: `hostname` and `domainname` (may be empty).
#[derive(Clone, Copy, Debug)]
pub struct HostName<'a> {
    pub hostname: &'a str,
    pub domainname: &'a str,
}

/// The text of `hosts`: localhost, `extra` (`--add-host`, already resolved), then one line per own address.
pub fn hosts(name: HostName<'_>, addresses: &[IpAddr], extra: &[(String, IpAddr)], ipv6: bool) -> String {
    let _ = (name, addresses, extra, ipv6);
    todo!()
}

/// The text of `hostname`.
pub fn hostname(hostname: &str) -> String {
    format!("{hostname}\n")
}
