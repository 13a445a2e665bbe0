//! TLS to a plugin, as its description says: the files of an authority and of a certificate to show, or no verification.

use std::io;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tls::Anybody;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The part of a description about TLS.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct TlsFiles {
    /// The server's certificate is taken as it is.
    #[serde(rename = "InsecureSkipVerify")]
    pub insecure_skip_verify: bool,
    /// Authorities, PEM.
    #[serde(rename = "CAFile")]
    pub ca_file: String,
    /// A certificate to show, PEM.
    #[serde(rename = "CertFile")]
    pub cert_file: String,
    /// Its key, PEM.
    #[serde(rename = "KeyFile")]
    pub key_file: String,
}

pub(crate) fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let builder = if files.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody::new(provider)))
    } else {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&files.ca_file)?);
        builder.with_root_certificates(roots)
    };
    let mut config = if files.cert_file.is_empty() && files.key_file.is_empty() {
        builder.with_no_client_auth()
    } else {
        let key = PrivateKeyDer::from_pem_file(&files.key_file).map_err(|e| format!("{}: {e}", files.key_file))?;
        builder.with_client_auth_cert(certificates(&files.cert_file)?, key).map_err(|e| e.to_string())?
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|e| format!("could not read certificate {path:?}: {e}"))
}

pub(crate) async fn connect(
    config: Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}
