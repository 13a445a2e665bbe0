//! From files to what TLS needs: trusted authorities, client certificates, and the rules of verification.
//!
//! - A certificate that is configured as trusted may also be the server's own (self-signed, as Docker's manual makes
//!   them): then its name and its time decide.
//! - The system's authorities are read from a file once per daemon; the binary carries none.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use blocking::Blocking;
use model::{Context, Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tls::Anybody;

use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::settings::Settings;

/// Longest certificate or key file that is read.
const PEM_BYTES: u64 = 8 << 20;
/// Files of one directory of authorities.
const DIRECTORY_FILES: usize = 10_000;
/// Where distributions keep their authorities.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The files of one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CertFiles {
    /// Authorities, besides the system's.
    pub ca: Vec<PathBuf>,
    /// Certificate and key of the client.
    pub client: Vec<(PathBuf, PathBuf)>,
    /// Any certificate will do.
    pub skip_verify: bool,
}

impl CertFiles {
    /// Docker's layout of a directory: `*.crt` are authorities, `x.cert` and `x.key` a client certificate.
    #[expect(clippy::disallowed_methods, reason = "on a thread of the registries")]
    pub fn of_directory(_on: &Blocking, dir: &Path) -> Result<CertFiles> {
        let mut found = CertFiles::default();
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            other => other.with_context(|| format!("reading {}", dir.display()))?,
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in &paths {
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => found.ca.push(path.clone()),
                Some("cert") => {
                    let key = path.with_extension("key");
                    if !paths.contains(&key) {
                        return Err(Error::system(format!(
                            "missing key {} for client certificate {}. CA certificates must use the extension .crt",
                            key.display(),
                            path.display()
                        )));
                    }
                    found.client.push((path.clone(), key));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// The same without the client's certificate: for a server that a redirect led to.
    #[must_use]
    pub fn without_client(&self) -> CertFiles {
        CertFiles { client: Vec::new(), ..self.clone() }
    }
}

/// The system's authorities, read when first needed.
#[derive(Default)]
pub struct SystemRoots {
    roots: OnceLock<Arc<RootCertStore>>,
}

impl SystemRoots {
    fn get(&self, on: &Blocking, settings: &Settings) -> Arc<RootCertStore> {
        self.roots.get_or_init(|| Arc::new(read_roots(on, settings.ca_bundle.as_deref(), &settings.ca_dirs))).clone()
    }
}

/// The authorities of a file, or of the first usual one, and those of all files in directories.
#[expect(clippy::disallowed_methods, reason = "on a thread of the registries")]
fn read_roots(on: &Blocking, bundle: Option<&Path>, dirs: &[PathBuf]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let usual = BUNDLES.iter().map(Path::new).find(|path| path.exists());
    match bundle.or(usual).map(|path| (path, read_certificates(on, path))) {
        Some((path, Ok(certificates))) => {
            let (added, ignored) = roots.add_parsable_certificates(certificates);
            tracing::debug!(path = %path.display(), added, ignored, "certificate authorities read");
        }
        Some((_, Err(error))) => tracing::warn!(%error, "the system's certificate authorities cannot be read"),
        None if dirs.is_empty() => {
            tracing::warn!("no file with certificate authorities was found: only those of certs.d are trusted");
        }
        None => {}
    }
    for dir in dirs {
        match fs::read_dir(dir) {
            Ok(entries) => {
                let mut paths: Vec<_> = entries.flatten().take(DIRECTORY_FILES).map(|entry| entry.path()).collect();
                paths.sort();
                // What holds no certificate is no error there: keys and lists lie beside them.
                let found =
                    paths.iter().filter(|path| path.is_file()).filter_map(|path| read_certificates(on, path).ok());
                roots.add_parsable_certificates(found.flatten());
            }
            Err(error) => tracing::warn!(dir = %dir.display(), %error, "certificate authorities cannot be read"),
        }
    }
    let mut seen = HashSet::new();
    roots.roots.retain(|root| seen.insert((root.subject.to_vec(), root.subject_public_key_info.to_vec())));
    roots
}

#[expect(clippy::disallowed_methods, reason = "on a thread of the registries")]
fn read_pem(_on: &Blocking, path: &Path) -> Result<Vec<u8>> {
    let context = || format!("reading {}", path.display());
    let size = fs::metadata(path).with_context(context)?.len();
    if size > PEM_BYTES {
        return Err(Error::invalid(format!("{} is larger than {PEM_BYTES} bytes", path.display())));
    }
    fs::read(path).with_context(context)
}

fn read_certificates(on: &Blocking, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read_pem(on, path)?;
    let certificates: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    certificates.map_err(|e| Error::invalid(format!("{}: {e}", path.display())))
}

/// What TLS to an endpoint with these files is set up with.
pub async fn client_config(
    files: CertFiles,
    system: &Arc<SystemRoots>,
    settings: &Arc<Settings>,
) -> Result<Arc<ClientConfig>> {
    let (system, own) = (system.clone(), settings.clone());
    settings.files.read(move |on| read_config(on, &files, &system, &own)).await
}

fn read_config(
    on: &Blocking,
    files: &CertFiles,
    system: &SystemRoots,
    settings: &Settings,
) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let system = system.get(on, settings);
    let verifier: Arc<dyn ServerCertVerifier> = if files.skip_verify {
        Arc::new(Anybody::new(provider.clone()))
    } else {
        let mut pinned = Vec::new();
        for path in &files.ca {
            pinned.extend(read_certificates(on, path)?);
        }
        let mut roots = RootCertStore::clone(&system);
        roots.add_parsable_certificates(pinned.iter().cloned());
        let chains = match roots.is_empty() {
            true => None,
            false => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build()
                    .map_err(|e| Error::system(format!("certificate authorities: {e}")))?,
            ),
        };
        Arc::new(Trusted { chains, pinned, provider: provider.clone() })
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::system(format!("TLS: {e}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match files.client.first() {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = read_certificates(on, certificate)?;
            let pem = read_pem(on, key)?;
            let refuse = |e: String| Error::invalid(format!("client certificate {}: {e}", certificate.display()));
            let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|e| refuse(e.to_string()))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| refuse(e.to_string()))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Verifies a chain, or the very certificate that was configured.
#[derive(Debug)]
struct Trusted {
    chains: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

/// Whether the time (unix seconds) lies within the certificate's validity (RFC 5280, 4.1.2.5); `None` when it cannot be read.
fn is_valid_at(certificate: &[u8], now: u64) -> Option<bool> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let [from, to] = [validity.not_before, validity.not_after].map(|time| time.to_unix_duration().as_secs());
    Some((from..=to).contains(&now))
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            rustls::client::verify_server_name(&parsed, server_name)?;
            return match is_valid_at(end_entity, now.as_secs()) {
                Some(true) => Ok(ServerCertVerified::assertion()),
                Some(false) => Err(CertificateError::Expired.into()),
                None => Err(CertificateError::BadEncoding.into()),
            };
        }
        match &self.chains {
            Some(chains) => chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// By openssl; valid from a UTCTime to a GeneralizedTime.
    const CERTIFICATE: &[&str] = &[
        "MIIBcDCCARWgAwIBAgIUCJx7Ju41hKcEU21l0Vds9spp1t0wCgYIKoZIzj0EAwIwDDEKMAgGA1UEAwwBYTAgFw0yNjExMzAx",
        "MzI0MTNaGA8yMDUxMDcyMjEzMjQxM1owDDEKMAgGA1UEAwwBYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJxS1ZvqwFQX",
        "F84Uax4qJJERKXvCrkS10p0TKx4bdZAxiHNUJO4hBnPA8pAo6ywEzhNVoSE9dhQNuOZ/ROUVAHejUzBRMB0GA1UdDgQWBBSz",
        "3Gjp2CMNXywEAC5G3u0+K1ekFjAfBgNVHSMEGDAWgBSz3Gjp2CMNXywEAC5G3u0+K1ekFjAPBgNVHRMBAf8EBTADAQH/MAoG",
        "CCqGSM49BAMCA0kAMEYCIQDTzEpC37LJtml1mIJ6aBSAEJ1KKUuPlFfmm+rYUQrxwwIhANtVxJuEXOgq98GprXDb0eLzPBke",
        "nJBu7id9RPtEiVK8",
    ];
    const FROM: u64 = 1796045053;
    const TO: u64 = 2573645053;

    #[test]
    fn validity_has_both_its_ends() {
        let certificate = STANDARD.decode(CERTIFICATE.concat()).unwrap();
        for (now, valid) in [(FROM - 1, false), (FROM, true), (TO, true), (TO + 1, false)] {
            assert_eq!(is_valid_at(&certificate, now), Some(valid), "{now}");
        }
        for length in 0..certificate.len() {
            assert_eq!(is_valid_at(&certificate[..length], FROM), None, "{length}");
        }
    }
}
