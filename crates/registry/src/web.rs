//! A file from a web server, by its address alone: the source of `docker import URL`. No credentials, the proxies and
//! time-outs of registries, redirects between http and https.

use bytes::Bytes;
use hyper::header::{HeaderMap, LOCATION};
use hyper::{Method, StatusCode};
use model::{Error, Kind, Result};

use crate::Registries;
use crate::certs::{CertFiles, client_config};
use crate::exchange::{Answer, Body, Call, Http};
use crate::failure::shown;
use crate::url::Url;

/// Redirects that are followed.
const REDIRECTS: usize = 10;
/// Bytes of a refusal that are shown.
const REFUSAL_BYTES: usize = 4 << 10;

/// A download that has begun.
pub struct Download {
    answer: Answer,
}

impl Download {
    /// Bytes in all, if the server told.
    pub fn size(&self) -> Option<u64> {
        self.answer.header(hyper::header::CONTENT_LENGTH)?.parse().ok()
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        self.answer.next().await.map_err(|fault| fault.error)
    }
}

/// Asks for a file. A status of refusal is an error of the kind it speaks of.
pub async fn download(registries: &Registries, address: &str) -> Result<Download> {
    let settings = registries.settings();
    let mut url = Url::parse(address)?;
    let tls = client_config(CertFiles::default(), &registries.roots, &settings).await?;
    let http = Http::new(settings, registries.roots.clone());
    for _ in 0..REDIRECTS {
        let call = Call {
            method: Method::GET,
            url: url.clone(),
            headers: HeaderMap::new(),
            body: Body::Empty,
            tls: tls.clone(),
            pinned: None,
            dial_timeout: None,
        };
        let answer = http.send(call).await.map_err(|fault| fault.error)?;
        match answer.header(LOCATION) {
            Some(location) if answer.status.is_redirection() => url = url.join(location)?,
            _ if answer.status.as_u16() < 400 => return Ok(Download { answer }),
            _ => return Err(refused(address, answer).await),
        }
    }
    Err(Error::system(format!("Get {address:?}: stopped after {REDIRECTS} redirects")))
}

async fn refused(address: &str, answer: Answer) -> Error {
    let kind = match answer.status {
        StatusCode::NOT_FOUND => Kind::NotFound,
        StatusCode::BAD_REQUEST => Kind::InvalidParameter,
        StatusCode::UNAUTHORIZED => Kind::Unauthorized,
        StatusCode::FORBIDDEN => Kind::Forbidden,
        _ => Kind::System,
    };
    let status = shown(answer.status);
    let body = answer.bytes(REFUSAL_BYTES).await.unwrap_or_default();
    let body = String::from_utf8_lossy(&body).trim().to_owned();
    Error::system(format!("failed to GET {address} with status {status}: {body}")).with_kind(kind)
}
