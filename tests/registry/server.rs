//! Debian's `docker-registry` inside a daemon's namespaces: plain, with TLS, with passwords, with a token server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::json;
use testkit::fake_registry::{Answer, FakeRegistry, Reply};
use testkit::{Daemon, command, places};

use crate::eventually;

static PORT: AtomicU16 = AtomicU16::new(5000);

/// An address that is not the loopback's, so that nothing there is insecure by default.
pub const OUTSIDE: &str = "10.77.0.1";

/// A running registry. Killed when dropped.
pub struct Server {
    child: Child,
    address: String,
    dir: PathBuf,
}

/// What the registry wants.
#[derive(Default)]
pub struct Setup {
    host: Option<&'static str>,
    sections: Vec<String>,
    http: String,
}

impl Setup {
    /// On another address than 127.0.0.1.
    pub fn host(mut self, host: &'static str) -> Self {
        self.host = Some(host);
        self
    }

    /// With TLS by this certificate and key, and perhaps an authority that clients must have a certificate of.
    pub fn tls(mut self, certificate: &Path, clients: Option<&Path>) -> Self {
        let key = certificate.with_extension("key");
        let clients = clients.map(|ca| format!(", clientcas: [{}]", ca.display())).unwrap_or_default();
        self.http = format!(", tls: {{certificate: {}, key: {}{clients}}}", certificate.display(), key.display());
        self
    }

    /// With a name and a password.
    pub fn password(mut self, d: &Daemon, name: &str, password: &str) -> Self {
        let line = command::run(Command::new(places::find("htpasswd")).args(["-Bbn", name, password]), b"").text();
        fs::write(d.path("htpasswd"), line + "\n").unwrap();
        let section = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}", d.path("htpasswd").display());
        self.sections.push(section);
        self
    }

    /// With tokens of this server, signed with a certificate.
    pub fn tokens(mut self, realm: &str, certificate: &Path) -> Self {
        let file = certificate.display();
        self.sections.push(format!(
            "auth: {{token: {{realm: '{realm}', service: test, issuer: issuer, rootcertbundle: {file}}}}}"
        ));
        self
    }

    /// Starts it.
    pub fn start(self, d: &Daemon) -> Server {
        let address = format!("{}:{}", self.host.unwrap_or("127.0.0.1"), PORT.fetch_add(1, Ordering::Relaxed));
        let dir = d.path(&format!("registry-{}", address.replace(':', "-")));
        fs::create_dir_all(&dir).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '{address}', secret: test{}}}\n{}\n",
            dir.join("data").display(),
            self.http,
            self.sections.join("\n")
        );
        fs::write(dir.join("config.yml"), config).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = d.namespaces().command(places::find("docker-registry"));
        command.arg("serve").arg(dir.join("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let server = Server { child, address, dir };
        let up = || {
            d.exec_inside(&["sh", "-c", &format!("exec 3<>/dev/tcp/{}", server.address.replace(':', "/"))]).code == 0
        };
        let up = || {
            up() || d.exec_inside(&["curl", "-sk", "-o", "/dev/null", &format!("http://{}/", server.address)]).code == 0
        };
        assert!(eventually(up), "no registry: {}", server.log());
        server
    }
}

impl Server {
    /// Plain, on the loopback.
    pub fn plain(d: &Daemon) -> Server {
        Setup::default().start(d)
    }

    /// `name:tag` in it.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.address
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gives the namespaces an address that is not the loopback's.
pub fn outside(d: &Daemon) {
    let _ = d.exec_inside(&["ip", "address", "add", &format!("{OUTSIDE}/32"), "dev", "lo"]).ok();
}

fn openssl(args: &[&str]) {
    let _ = command::run(Command::new(places::find("openssl")).args(args), b"").ok();
}

/// A self-signed certificate for [`OUTSIDE`], as Docker's manual makes it; its key lies beside it.
pub fn self_signed(d: &Daemon, name: &str) -> PathBuf {
    let certificate = d.path(&format!("{name}.pem"));
    let (file, key) = (certificate.display().to_string(), certificate.with_extension("key").display().to_string());
    let san = format!("subjectAltName=IP:{OUTSIDE}");
    openssl(&[
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "2", "-subj", "/CN=test", "-addext", &san,
        "-keyout", &key, "-out", &file,
    ]);
    certificate
}

/// An authority and a certificate of it, for [`OUTSIDE`]; their keys lie beside them.
pub fn signed(d: &Daemon, name: &str) -> (PathBuf, PathBuf) {
    let (ca, certificate) = (d.path(&format!("{name}-ca.pem")), d.path(&format!("{name}.pem")));
    let text = |path: &Path| path.display().to_string();
    let (ca_key, key) = (text(&ca.with_extension("key")), text(&certificate.with_extension("key")));
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-sha256",
        "-days",
        "2",
        "-subj",
        "/CN=authority",
        "-keyout",
        &ca_key,
        "-out",
        &text(&ca),
    ]);
    let request = text(&d.path(&format!("{name}.csr")));
    openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-keyout", &key, "-out", &request]);
    let extensions = d.path(&format!("{name}.ext"));
    fs::write(&extensions, format!("subjectAltName=IP:{OUTSIDE}\nextendedKeyUsage=serverAuth,clientAuth\n")).unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &text(&ca),
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        &text(&extensions),
        "-out",
        &text(&certificate),
    ]);
    (ca, certificate)
}

/// The directory of certificates for a registry, beside the daemon's configuration.
pub fn certs_dir(d: &Daemon, address: &str) -> PathBuf {
    let dir = d.path("certs.d").join(address);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// A token server: gives every client with the password what it asks for, and everybody `pull`.
pub fn token_server(d: &Daemon, address: &str, certificate: &Path) -> FakeRegistry {
    let fake = FakeRegistry::inside(d.namespaces(), address);
    let certificate = certificate.to_path_buf();
    fake.rule(move |seen| {
        let scopes: Vec<String> =
            seen.path.split(['?', '&']).filter_map(|p| p.strip_prefix("scope=")).map(decoded).collect();
        let known = seen.header("authorization") == "Basic bWU6c2VjcmV0";
        if !seen.header("authorization").is_empty() && !known {
            return Some(Reply::Send(Answer::new(401, r#"{"details":"incorrect username or password"}"#)));
        }
        let access = scopes.iter().filter_map(|scope| {
            let mut parts = scope.splitn(3, ':');
            let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
            let actions: Vec<_> = actions.split(',').filter(|action| known || *action == "pull").collect();
            Some(json!({"type": kind, "name": name, "actions": actions}))
        });
        let token = signed_token(
            &certificate,
            &json!({
                "iss": "issuer", "sub": "me", "aud": "test", "exp": 4_000_000_000_u64, "nbf": 1, "iat": 1, "jti": "1",
                "access": access.collect::<Vec<_>>(),
            }),
        );
        Some(Reply::Send(Answer::new(200, json!({"token": token, "expires_in": 300}).to_string())))
    });
    fake
}

fn decoded(text: &str) -> String {
    text.replace("%3A", ":").replace("%2C", ",").replace("%2F", "/")
}

/// A JWT with the certificate in its head, as the registry checks it.
fn signed_token(certificate: &Path, claims: &serde_json::Value) -> String {
    let run = |args: &[&str], input: &[u8]| {
        let mut child = Command::new("openssl")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("openssl starts");
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), input).unwrap();
        child.wait_with_output().unwrap().stdout
    };
    let pem = fs::read_to_string(certificate).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let head = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]}).to_string();
    let url = |bytes: &[u8]| {
        let text = String::from_utf8(run(&["base64", "-A"], bytes)).unwrap();
        text.trim().trim_end_matches('=').replace('+', "-").replace('/', "_")
    };
    let signed = format!("{}.{}", url(head.as_bytes()), url(claims.to_string().as_bytes()));
    let key = certificate.with_extension("key").display().to_string();
    let signature = run(&["dgst", "-sha256", "-sign", &key], signed.as_bytes());
    format!("{signed}.{}", url(&signature))
}
