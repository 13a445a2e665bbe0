//! A file from a web server, by its address alone: the source of `docker import URL`. No credentials, the proxies and
//! time-outs of registries, redirects between http and https.

use std::net::IpAddr;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HeaderMap, IF_NONE_MATCH, LOCATION};
use hyper::{Method, StatusCode};
use model::{Error, Kind, Result};

use crate::Registries;
use crate::certs::{CertFiles, client_config};
use crate::exchange::{Answer, Body, Call, Http, set};
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

    /// `200`, …
    pub fn status(&self) -> u16 {
        self.answer.status.as_u16()
    }

    /// A field of the answer; empty if it is missing or no text.
    pub fn header(&self, name: &str) -> &str {
        self.answer.header(name).unwrap_or_default()
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        self.answer.next().await.map_err(|fault| fault.error)
    }
}

/// What is asked of a web server.
#[derive(Clone, Debug, Default)]
pub struct WebRequest {
    /// Where.
    pub address: String,
    /// What is here already, by the server's own name for it (`If-None-Match`); empty: nothing.
    pub etag: String,
    /// Shown to this server and to no other that it leads to; empty: nothing.
    pub authorization: String,
}

/// Asks for a file. A status of refusal is an error of the kind it speaks of.
pub async fn download(registries: &Registries, address: &str) -> Result<Download> {
    let Download { answer } =
        ask(registries, &WebRequest { address: address.to_owned(), ..WebRequest::default() }).await?;
    if answer.status.as_u16() < 400 { Ok(Download { answer }) } else { Err(refused(address, answer).await) }
}

/// Asks for a file, whatever the status of the answer. Redirects are followed, but none that leads from elsewhere to this
/// machine.
pub async fn ask(registries: &Registries, request: &WebRequest) -> Result<Download> {
    let settings = registries.settings();
    let mut url = Url::parse(&request.address)?;
    let first = url.clone();
    let tls = client_config(CertFiles::default(), &registries.roots, &settings).await?;
    let http = Http::new(settings, registries.roots.clone());
    for _ in 0..REDIRECTS {
        let mut headers = HeaderMap::new();
        if !request.etag.is_empty() {
            set(&mut headers, IF_NONE_MATCH, &request.etag);
        }
        if !request.authorization.is_empty() && url.same_origin(&first) {
            set(&mut headers, AUTHORIZATION, &request.authorization);
        }
        let call = Call {
            method: Method::GET,
            url: url.clone(),
            headers,
            body: Body::Empty,
            tls: tls.clone(),
            pinned: None,
            dial_timeout: None,
        };
        let answer = http.send(call).await.map_err(|fault| fault.error)?;
        match answer.header(LOCATION) {
            Some(location) if answer.status.is_redirection() => {
                let next = url.join(location)?;
                if !next.same_origin(&url) && is_here(&next).await && !is_here(&first).await {
                    return Err(Error::forbidden(format!(
                        "Get {:?}: a redirect from another host to this one is not followed",
                        request.address
                    )));
                }
                url = next;
            }
            _ => return Ok(Download { answer }),
        }
    }
    Err(Error::system(format!("Get {:?}: stopped after {REDIRECTS} redirects", request.address)))
}

/// Whether an address leads to this machine's own services, or to those of its link.
async fn is_here(url: &Url) -> bool {
    let local = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    };
    match tokio::net::lookup_host(url.host_port()).await {
        Ok(mut found) => found.any(|address| local(address.ip())),
        // It is not reached either.
        Err(_) => false,
    }
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
