//! Where a registry's content is asked for, in order: mirrors first, the registry itself last.
//!
//! - `certs.d/<host>/hosts.toml` decides where there is one; else the configured mirrors (for Docker Hub only, B-im-7)
//!   and then the registry over https;
//! - an insecure registry is tried over https with any certificate, then over http.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use model::{Error, Result};

use crate::certs::CertFiles;
use crate::hosts_toml::{self, Capabilities, Host};
use crate::resolver::Resolver;
use crate::settings::Settings;
use crate::url::{Scheme, Url};

/// The domain of Docker Hub in references.
pub const HUB: &str = "docker.io";
/// The host behind it.
pub const HUB_HOST: &str = "registry-1.docker.io";

/// One place to ask.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The API's root, `/v2` included, without a slash at its end.
    pub root: Url,
    /// Not the registry itself: it is told whose content is meant, and its failures are not the registry's.
    pub mirror: bool,
    /// What it may be asked for.
    pub capabilities: Capabilities,
    /// For TLS.
    pub files: CertFiles,
    /// Additional header fields.
    pub header: Vec<(String, String)>,
    /// Longest wait for a connection, where it differs.
    pub dial_timeout: Option<Duration>,
    /// The next endpoint is the same without TLS, for when this one does not speak it.
    pub fallback: bool,
}

/// What a directory of `certs.d` says.
enum Directory {
    None,
    Files(CertFiles),
    Hosts(PathBuf, Vec<Host>),
}

/// The endpoints of a domain (`docker.io`, `localhost:5000`), those of a push without mirrors.
pub async fn endpoints(settings: &Settings, domain: &str) -> Result<Vec<Endpoint>> {
    let resolver = Resolver { hosts_file: settings.hosts_file.clone(), resolv_conf: settings.resolv_conf.clone() };
    let itself = if domain == HUB || domain == "index.docker.io" { HUB_HOST } else { domain };
    let insecure = is_insecure(settings, domain, &resolver).await;
    let mut found = Vec::new();
    match directory(settings, domain)? {
        Directory::Hosts(dir, hosts) => {
            for host in hosts {
                found.extend(configured(&dir, host, itself, insecure)?);
            }
            return Ok(found);
        }
        Directory::None if domain == HUB => found.extend(mirrors(settings, &resolver).await?),
        Directory::Files(_) if domain == HUB => found.extend(mirrors(settings, &resolver).await?),
        Directory::None | Directory::Files(_) => {}
    }
    let files = certificates(settings, itself)?;
    found.extend(secure_then_plain(itself, files, insecure)?);
    Ok(found)
}

/// The registry over https and, if it is insecure, over http.
fn secure_then_plain(host: &str, files: CertFiles, insecure: bool) -> Result<Vec<Endpoint>> {
    let files = CertFiles { skip_verify: files.skip_verify || insecure, ..files };
    let https = plain_endpoint(Url::parse(&format!("https://{host}/v2"))?, files);
    if !insecure {
        return Ok(vec![https]);
    }
    let http = Endpoint { root: Url { scheme: Scheme::Http, ..https.root.clone() }, ..https.clone() };
    Ok(vec![Endpoint { fallback: true, ..https }, http])
}

fn plain_endpoint(root: Url, files: CertFiles) -> Endpoint {
    Endpoint {
        root,
        mirror: false,
        capabilities: Capabilities::ALL,
        files,
        header: Vec::new(),
        dial_timeout: None,
        fallback: false,
    }
}

/// `registry-mirrors`
async fn mirrors(settings: &Settings, resolver: &Resolver) -> Result<Vec<Endpoint>> {
    let mut found = Vec::new();
    for mirror in &settings.mirrors {
        let text = if mirror.contains("://") { mirror.clone() } else { format!("https://{mirror}") };
        let mut root = Url::parse(&text).map_err(|e| e.prefix("invalid mirror"))?;
        let path = root.path.trim_end_matches('/');
        root.path = if path.ends_with("/v2") { path.to_owned() } else { format!("{path}/v2") };
        let mut files = certificates(settings, &root.authority)?;
        files.skip_verify = insecure_host(settings, &root.authority, resolver).await;
        let capabilities = Capabilities { push: false, ..Capabilities::ALL };
        found.push(Endpoint { mirror: true, capabilities, ..plain_endpoint(root, files) });
    }
    Ok(found)
}

/// An entry of `hosts.toml`.
fn configured(dir: &Path, host: Host, itself: &str, insecure: bool) -> Result<Vec<Endpoint>> {
    let path = |name: &str| if Path::new(name).is_absolute() { PathBuf::from(name) } else { dir.join(name) };
    let key = |(certificate, key): &(String, String)| {
        let second = if key.is_empty() { certificate } else { key };
        (path(certificate), path(second))
    };
    let files = CertFiles {
        ca: host.ca.iter().map(|name| path(name)).collect(),
        client: host.client.iter().map(key).collect(),
        skip_verify: host.skip_verify.unwrap_or(false),
    };
    let mut endpoints = match &host.root {
        None => secure_then_plain(itself, files, insecure)?,
        Some(root) => {
            let mirror = root.authority != itself;
            vec![Endpoint { mirror, ..plain_endpoint(root.clone(), files) }]
        }
    };
    for endpoint in &mut endpoints {
        endpoint.capabilities = host.capabilities;
        endpoint.header.clone_from(&host.header);
        endpoint.dial_timeout = host.dial_timeout;
    }
    Ok(endpoints)
}

/// The names a host's directory may have: `host:port`, `host_port_`.
fn directory_names(host: &str) -> Vec<String> {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => vec![format!("{name}_{port}_"), host.to_owned()],
        _ => vec![host.to_owned()],
    }
}

fn directory(settings: &Settings, host: &str) -> Result<Directory> {
    let mut names = directory_names(host);
    names.push("_default".into());
    let mut candidates = settings.certs_dirs.iter().flat_map(|root| names.iter().map(|name| root.join(name)));
    let Some(dir) = candidates.find(|dir| dir.is_dir()) else { return Ok(Directory::None) };
    let file = dir.join("hosts.toml");
    match fs::metadata(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Directory::Files(CertFiles::of_directory(&dir)?));
        }
        Ok(metadata) if metadata.len() <= hosts_toml::FILE_BYTES => {}
        Ok(_) => return Err(Error::invalid(format!("{} is too large", file.display()))),
        Err(error) => return Err(Error::from(error).prefix(file.display())),
    }
    let read = fs::read_to_string(&file).map_err(Error::from);
    // Falling back here would send requests where the administrator did not want them.
    let hosts = read.and_then(|text| hosts_toml::parse(&text)).map_err(|e| e.prefix(file.display()))?;
    Ok(Directory::Hosts(dir, hosts))
}

/// The certificates of a host that is asked directly.
fn certificates(settings: &Settings, host: &str) -> Result<CertFiles> {
    match directory(settings, host)? {
        Directory::Files(files) => Ok(files),
        Directory::Hosts(dir, _) => CertFiles::of_directory(&dir),
        Directory::None => Ok(CertFiles::default()),
    }
}

async fn is_insecure(settings: &Settings, domain: &str, resolver: &Resolver) -> bool {
    // Docker Hub is always secure, whatever its addresses are.
    domain != HUB && insecure_host(settings, domain, resolver).await
}

/// Whether `host[:port]` is in the list, or one of its addresses in a network of the list or on the loopback.
async fn insecure_host(settings: &Settings, authority: &str, resolver: &Resolver) -> bool {
    let named = |entry: &&String| entry.split_once("://").map_or(entry.as_str(), |(_, rest)| rest) == authority;
    if settings.insecure.iter().any(|entry| named(&entry)) {
        return true;
    }
    let nets: Vec<IpNet> = settings.insecure.iter().filter_map(|entry| entry.parse().ok()).collect();
    let within = |address: &IpAddr| {
        let address = address.to_canonical();
        address.is_loopback() || nets.iter().any(|net| net.contains(&address))
    };
    let Ok(url) = Url::parse(&format!("https://{authority}/")) else { return false };
    let (host, _) = url.host_port();
    match host.parse::<IpAddr>() {
        Ok(address) => within(&address),
        // A name that cannot be looked up now is not insecure; the request itself will say why.
        Err(_) => resolver.resolve(host).await.is_ok_and(|addresses| addresses.iter().any(within)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        dir: tempfile::TempDir,
        settings: Settings,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("hosts"), "10.9.0.1 near.test\n127.0.0.1 localhost\n8.8.8.8 far.test\n").unwrap();
        let settings = Settings {
            certs_dirs: vec![dir.path().join("certs.d")],
            hosts_file: dir.path().join("hosts"),
            resolv_conf: dir.path().join("none"),
            insecure: vec!["10.0.0.0/8".into(), "http://plain.test:5000".into()],
            mirrors: vec!["http://mirror.test:5000/sub/".into()],
            ..Settings::default()
        };
        Fixture { dir, settings }
    }

    impl Fixture {
        fn file(&self, path: &str, text: &str) {
            let path = self.dir.path().join("certs.d").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn of(&self, domain: &str) -> Vec<String> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let found = runtime.block_on(endpoints(&self.settings, domain)).unwrap();
            let shown = |e: &Endpoint| {
                let mirror = if e.mirror { " mirror" } else { "" };
                let any = if e.files.skip_verify { " any" } else { "" };
                format!("{}{mirror}{any}", e.root)
            };
            found.iter().map(shown).collect()
        }
    }

    /// B-im-7
    #[test]
    fn mirrors_are_for_the_hub_and_insecure_registries_fall_back() {
        let f = fixture();
        for (domain, expected) in [
            ("docker.io", &["http://mirror.test:5000/sub/v2 mirror", "https://registry-1.docker.io/v2"][..]),
            ("far.test", &["https://far.test/v2"]),
            ("near.test:5000", &["https://near.test:5000/v2 any", "http://near.test:5000/v2 any"]),
            ("plain.test:5000", &["https://plain.test:5000/v2 any", "http://plain.test:5000/v2 any"]),
            ("localhost:5000", &["https://localhost:5000/v2 any", "http://localhost:5000/v2 any"]),
            ("127.3.2.1", &["https://127.3.2.1/v2 any", "http://127.3.2.1/v2 any"]),
            ("[::1]:5000", &["https://[::1]:5000/v2 any", "http://[::1]:5000/v2 any"]),
        ] {
            assert_eq!(f.of(domain), expected, "{domain}");
        }
    }

    #[test]
    fn hosts_toml_decides_for_any_registry() {
        let f = fixture();
        f.file(
            "far.test/hosts.toml",
            "ca = \"own.crt\"\n[host.\"http://mirror.test\"]\ncapabilities = [\"pull\"]\nskip_verify = true\n",
        );
        assert_eq!(f.of("far.test"), ["http://mirror.test/v2 mirror any", "https://far.test/v2"]);
        f.file("docker.io/hosts.toml", "server = \"https://hub.test\"\n");
        assert_eq!(f.of("docker.io"), ["https://hub.test/v2 mirror"]);
        f.file("_default/hosts.toml", "[host.\"https://all.test\"]\n");
        assert_eq!(f.of("other.test"), ["https://all.test/v2 mirror", "https://other.test/v2"]);
    }

    #[test]
    fn dockers_certificate_directories_are_found() {
        let f = fixture();
        for (dir, host) in [("far.test:5000", "far.test:5000"), ("far.test_444_", "far.test:444")] {
            for file in ["ca.crt", "x.cert", "x.key", "note.txt"] {
                f.file(&format!("{dir}/{file}"), "");
            }
            let files = certificates(&f.settings, host).unwrap();
            assert_eq!((files.ca.len(), files.client.len()), (1, 1), "{dir}");
        }
        f.file("bad.test/x.cert", "");
        assert!(certificates(&f.settings, "bad.test").unwrap_err().message().starts_with("missing key "));
        f.file("worse.test/hosts.toml", "server = 1");
        assert!(directory(&f.settings, "worse.test").is_err());
    }
}
