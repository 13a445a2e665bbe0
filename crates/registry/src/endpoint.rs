//! Where a registry's content is asked for, in order: mirrors first, the registry itself last.
//!
//! - `certs.d/<host>/hosts.toml` decides where there is one; else the configured mirrors (for Docker Hub only, B-im-7)
//!   and then the registry over https;
//! - an insecure registry is tried over https with any certificate, then over http.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blocking::Blocking;
use model::authority::{Authority, HUB_HOST, Host as ServerHost};
use model::{Error, Result};

use crate::certs::CertFiles;
use crate::connect::Pinned;
use crate::hosts_toml::{self, Capabilities, Host};
use crate::insecure::{self, Verdict};
use crate::resolver::Resolver;
use crate::settings::Settings;
use crate::url::{Scheme, Url};

/// Names in a directory of `certs.d` that are looked at.
const DIRECTORIES: usize = 10_000;

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
    /// The only addresses to connect to, where it is insecure because of them.
    pub pinned: Option<Pinned>,
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
    let resolver = Resolver::new(settings);
    let named = Authority::parse(domain).map_err(|error| unusable(domain, &error))?;
    let hub = names_hub(&named);
    let itself = if hub { Authority { host: ServerHost::Name(HUB_HOST.to_owned()), port: None } } else { named };
    let verdict = insecure::judge(settings, &itself, &resolver).await;
    let mut found = Vec::new();
    match configuration(settings, domain).await? {
        Directory::Hosts(dir, hosts) => {
            for host in hosts {
                found.extend(configured(&dir, host, &itself, &verdict)?);
            }
            return Ok(found);
        }
        Directory::None | Directory::Files(_) if hub => found.extend(mirrors(settings, &resolver).await?),
        Directory::None | Directory::Files(_) => {}
    }
    let files = certificates(settings, &itself.to_string()).await?;
    found.extend(secure_then_plain(&itself, files, &verdict)?);
    Ok(found)
}

/// Whether it is a name that references have for Docker Hub.
pub fn names_hub(server: &Authority) -> bool {
    let by_domain = |name: &str| matches!(name, "docker.io" | "index.docker.io");
    server.is_hub() && matches!(&server.host, ServerHost::Name(name) if by_domain(name))
}

/// A domain to which no connection can be made, in the words of Go's dialer.
fn unusable(domain: &str, error: &Error) -> Error {
    let port = domain.rsplit_once(':').map_or("", |(_, port)| port);
    let why = match error.message().starts_with("invalid port") {
        true => format!("address {port}: invalid port"),
        false => format!("lookup {domain}: no such host"),
    };
    Error::system(format!("Get \"https://{domain}/v2/\": dial tcp: {why}"))
}

/// The registry over https and, if it is insecure, over http.
fn secure_then_plain(host: &Authority, files: CertFiles, verdict: &Verdict) -> Result<Vec<Endpoint>> {
    let files = CertFiles { skip_verify: files.skip_verify || verdict.is_insecure(), ..files };
    let https = plain_endpoint(Url::parse(&format!("https://{host}/v2"))?, files);
    let https = Endpoint { pinned: verdict.pinned(), ..https };
    if !verdict.is_insecure() {
        return Ok(vec![https]);
    }
    let http = Endpoint { root: Url::parse(&format!("http://{host}/v2"))?, ..https.clone() };
    Ok(vec![Endpoint { fallback: true, ..https }, http])
}

fn plain_endpoint(root: Url, files: CertFiles) -> Endpoint {
    Endpoint {
        root,
        mirror: false,
        capabilities: Capabilities::ALL,
        files,
        pinned: None,
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
        let mut files = certificates(settings, &root.authority()).await?;
        let verdict = insecure::judge(settings, &root.server, resolver).await;
        files.skip_verify = verdict.is_insecure();
        let capabilities = Capabilities { push: false, ..Capabilities::ALL };
        let pinned = verdict.pinned();
        found.push(Endpoint { mirror: true, capabilities, pinned, ..plain_endpoint(root, files) });
    }
    Ok(found)
}

/// An entry of `hosts.toml`.
fn configured(dir: &Path, host: Host, itself: &Authority, verdict: &Verdict) -> Result<Vec<Endpoint>> {
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
        None => secure_then_plain(itself, files, verdict)?,
        Some(root) => {
            let own = Url { server: itself.clone(), ..root.clone() };
            let mirror = own.host_port() != root.host_port();
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

/// The host's directory below `root`: by the name as it was written, else by any other spelling, else the one for all.
#[expect(clippy::disallowed_methods, reason = "on a thread of the registries")]
fn directory_in(on: &Blocking, root: &Path, host: &str) -> Option<PathBuf> {
    let written = directory_names(host).into_iter().map(|name| root.join(name)).find(|dir| dir.is_dir());
    let default = || Some(root.join("_default")).filter(|dir| dir.is_dir());
    written.or_else(|| spelled_otherwise(on, root, host)).or_else(default)
}

/// The first directory, by name, that means the same server.
#[expect(clippy::disallowed_methods, reason = "on a thread of the registries")]
fn spelled_otherwise(_on: &Blocking, root: &Path, host: &str) -> Option<PathBuf> {
    let place = |server: Authority| (server.port_or(Scheme::Https.default_port()), server.host);
    let wanted = place(Authority::parse(host).ok()?);
    let entries = fs::read_dir(root).ok()?.take(DIRECTORIES).flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let means = |name: &String| {
        let underscores = name.strip_suffix('_').and_then(|name| name.rsplit_once('_'));
        let text = underscores.map_or_else(|| name.clone(), |(host, port)| format!("{host}:{port}"));
        Authority::parse(&text).is_ok_and(|server| place(server) == wanted)
    };
    names.into_iter().filter(means).map(|name| root.join(name)).find(|dir| dir.is_dir())
}

/// What is configured for a host.
async fn configuration(settings: &Settings, host: &str) -> Result<Directory> {
    let (dirs, host) = (settings.certs_dirs.clone(), host.to_owned());
    settings.files.read(move |on| directory(on, &dirs, &host)).await
}

#[expect(clippy::disallowed_methods, reason = "on a thread of the registries")]
fn directory(on: &Blocking, dirs: &[PathBuf], host: &str) -> Result<Directory> {
    let found = dirs.iter().find_map(|root| directory_in(on, root, host));
    let Some(dir) = found else { return Ok(Directory::None) };
    let file = dir.join("hosts.toml");
    match fs::metadata(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Directory::Files(CertFiles::of_directory(on, &dir)?));
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
async fn certificates(settings: &Settings, host: &str) -> Result<CertFiles> {
    match configuration(settings, host).await? {
        Directory::Files(files) => Ok(files),
        Directory::Hosts(dir, _) => settings.files.read(move |on| CertFiles::of_directory(on, &dir)).await,
        Directory::None => Ok(CertFiles::default()),
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
            ("Docker.io", &["http://mirror.test:5000/sub/v2 mirror", "https://registry-1.docker.io/v2"]),
            ("docker.io:443", &["http://mirror.test:5000/sub/v2 mirror", "https://registry-1.docker.io/v2"]),
            ("registry-1.docker.io", &["https://registry-1.docker.io/v2"]),
            ("PLAIN.test:05000", &["https://plain.test:5000/v2 any", "http://plain.test:5000/v2 any"]),
            ("[0:0::1]:80", &["https://[::1]:80/v2 any", "http://[::1]/v2 any"]),
            ("far.test:0443", &["https://far.test/v2"]),
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
    fn a_domain_without_a_port_that_can_be_dialled_is_refused() {
        let f = fixture();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let message = |domain| runtime.block_on(endpoints(&f.settings, domain)).unwrap_err().message().to_owned();
        assert_eq!(message("h.test:99999"), "Get \"https://h.test:99999/v2/\": dial tcp: address 99999: invalid port");
        assert_eq!(message("[::1]:0"), "Get \"https://[::1]:0/v2/\": dial tcp: address 0: invalid port");
        assert_eq!(message("1.2.3.4.5"), "Get \"https://1.2.3.4.5/v2/\": dial tcp: lookup 1.2.3.4.5: no such host");
    }

    /// Whatever the spelling, the administrator's word for a registry holds.
    #[test]
    fn other_spellings_find_the_same_directory() {
        let f = fixture();
        f.file("Far.test_05000_/hosts.toml", "[host.\"https://mirror.test\"]\n");
        f.file("far.test:443/hosts.toml", "[host.\"https://other.test\"]\n");
        f.file("_default/hosts.toml", "[host.\"https://all.test\"]\n");
        for domain in ["far.test:5000", "FAR.test:005000", "Far.test:5000"] {
            assert_eq!(f.of(domain)[0], "https://mirror.test/v2 mirror", "{domain}");
        }
        for domain in ["far.test", "far.test:443", "FAR.test:0443"] {
            assert_eq!(f.of(domain)[0], "https://other.test/v2 mirror", "{domain}");
        }
        assert_eq!(f.of("far.test:5001")[0], "https://all.test/v2 mirror");
    }

    #[tokio::test]
    async fn dockers_certificate_directories_are_found() {
        let f = fixture();
        for (dir, host) in [("far.test:5000", "far.test:5000"), ("far.test_444_", "far.test:444")] {
            for file in ["ca.crt", "x.cert", "x.key", "note.txt"] {
                f.file(&format!("{dir}/{file}"), "");
            }
            let files = certificates(&f.settings, host).await.unwrap();
            assert_eq!((files.ca.len(), files.client.len()), (1, 1), "{dir}");
        }
        f.file("bad.test/x.cert", "");
        assert!(certificates(&f.settings, "bad.test").await.unwrap_err().message().starts_with("missing key "));
        f.file("worse.test/hosts.toml", "server = 1");
        assert!(configuration(&f.settings, "worse.test").await.is_err());
    }
}
