//! `docker search`: the old index's search, still served by Docker Hub.

use gojson::Document;
use hyper::Method;
use hyper::header::{ACCEPT, AUTHORIZATION};
use model::authority::HUB;
use model::reference::ImageRef;
use model::{Error, Result};
use serde::Deserialize;

use crate::Registries;
use crate::credentials::Credentials;
use crate::session::{Access, Ask};
use crate::url::Url;

/// Longest answer of an index.
const ANSWER_BYTES: usize = 4 << 20;

/// A repository that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Hit {
    /// How many users like it.
    pub star_count: i64,
    /// One of Docker's own.
    pub is_official: bool,
    /// As it is pulled.
    pub name: String,
    /// What it is.
    pub description: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Hits {
    results: Option<Vec<Hit>>,
}

/// The index that a term names (`registry.test/term`), and the rest of the term.
fn split(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => (HUB, term),
    }
}

fn hits(body: &[u8]) -> Result<Vec<Hit>> {
    let hits: Hits = Document::parse_first(body)
        .and_then(|document| document.fit())
        .map_err(|e| Error::system(format!("error decoding registry search results: {}", e.stream_message())))?;
    Ok(hits.results.unwrap_or_default())
}

/// Asks the index; at most `limit` repositories.
pub async fn search(registries: &Registries, term: &str, limit: u32, credentials: Credentials) -> Result<Vec<Hit>> {
    if term.contains("://") {
        return Err(Error::invalid(format!(
            "invalid repository name: repository name ({term}) should not have a scheme"
        )));
    }
    let (host, name) = split(term);
    let name = if host == HUB { name.strip_prefix("library/").unwrap_or(name) } else { name };
    let settings = registries.settings();
    let reference = ImageRef { domain: host.to_owned(), path: String::new(), tag: None, digest: None };
    let basic = credentials.basic();
    let session = registries.repository(&reference, Credentials::default(), Access::Push).await?;
    let mut failure = Error::not_found(format!("no index at {host}"));
    for endpoint in session.own_endpoints() {
        let mut endpoint = endpoint.clone();
        let index = match host {
            HUB => Url::parse(&settings.index)?,
            _ => Url { path: "/v1/".into(), ..endpoint.root.clone() },
        };
        endpoint.root = Url { path: index.path.trim_end_matches('/').to_owned(), ..index };
        let root = Url { path: format!("{}/search", endpoint.root.path), ..endpoint.root.clone() };
        let url = root.with_query("q", name).with_query("n", &limit.to_string());
        let mut ask = Ask::new(Method::GET, url).header(ACCEPT, "application/json");
        // Never in clear.
        if let Some(basic) = basic.as_ref().filter(|_| endpoint.root.scheme == crate::url::Scheme::Https) {
            ask = ask.header(AUTHORIZATION, basic);
        }
        match session.send(&endpoint, ask).await {
            Ok(answer) if answer.status.is_success() => {
                let bytes = answer.bytes(ANSWER_BYTES).await?;
                let mut hits = hits(&bytes)?;
                hits.truncate(limit as usize);
                return Ok(hits);
            }
            Ok(answer) => return Err(Error::system(format!("unexpected status code {}", answer.status.as_u16()))),
            Err(fault) => failure = fault.error,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_go_reads_them() {
        let read = |text: &str| hits(text.as_bytes());
        let found =
            read(r#"{"Results":[{"Star_Count":3,"IS_OFFICIAL":true,"Name":"x","description":null},null]}"#).unwrap();
        let hit = Hit { star_count: 3, is_official: true, name: "x".into(), description: String::new() };
        assert_eq!(found, [hit, Hit::default()]);
        assert_eq!(read(r#"{"results":null} x"#).unwrap(), []);
        assert_eq!(read("").unwrap_err().message(), "error decoding registry search results: EOF");
    }

    #[test]
    fn terms_name_an_index() {
        assert_eq!(split("busybox"), ("docker.io", "busybox"));
        assert_eq!(split("me/busybox"), ("docker.io", "me/busybox"));
        assert_eq!(split("r.test:5000/x/y"), ("r.test:5000", "x/y"));
        assert_eq!(split("localhost/x"), ("localhost", "x"));
    }
}
