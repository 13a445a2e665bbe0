//! `docker login`: whether a registry takes the credentials.

use std::sync::Arc;

use hyper::header::WWW_AUTHENTICATE;
use hyper::Method;
use model::reference::ImageRef;
use model::{Error, Result};

use crate::Registries;
use crate::challenge::{self, Challenge};
use crate::credentials::{Credentials, host_of, hub_host};
use crate::endpoint::Endpoint;
use crate::failure::{Fault, Reason, shown};
use crate::session::{Access, Ask, Repository};
use crate::token::{self, Wish};
use crate::url::Url;

/// The domain that a login without an address means.
const DEFAULT: &str = "docker.io";

/// Shows the credentials to the registry they are for; answers an identity token, if it gives one.
///
/// Errors: `Unauthorized` when the token server refuses, `System` in the reference's words when the registry does.
pub async fn login(registries: &Registries, credentials: Credentials) -> Result<String> {
    let host = match host_of(&credentials.serveraddress) {
        "" => DEFAULT,
        "index.docker.io" | "registry-1.docker.io" => DEFAULT,
        host => host,
    };
    let reference = ImageRef { domain: host.to_owned(), path: String::new(), tag: None, digest: None };
    let credentials = Credentials { serveraddress: hub_host(host).to_owned(), ..credentials };
    let session = registries.repository(&reference, credentials.clone(), Access::Push).await?;
    let mut failure = None;
    for endpoint in session.own_endpoints() {
        match at(&session, endpoint, &credentials).await {
            Ok(token) => return Ok(token),
            Err(fault) if fault.reason == Reason::Unauthorized => return Err(fault.error),
            Err(fault) if !endpoint.fallback => return Err(failure.unwrap_or(fault).error),
            // The other way may do; what the first said is told if it does not.
            Err(fault) => failure = Some(fault).filter(|fault| fault.reason != Reason::Unreachable),
        }
    }
    Err(failure.map_or_else(|| Error::invalid(format!("no endpoint of {host}")), |fault| fault.error))
}

async fn at(
    session: &Arc<Repository>,
    endpoint: &Endpoint,
    credentials: &Credentials,
) -> std::result::Result<String, Fault> {
    let url = Url { path: format!("{}/", endpoint.root.path), ..endpoint.root.clone() };
    let probe = session.probe(endpoint, url.clone()).await?;
    let values = probe.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges = challenge::parse(values);
    let bearer = challenges.iter().find(|c| matches!(c, Challenge::Bearer { .. })).cloned();
    probe.discard().await;
    let mut identity = String::new();
    if let Some(Challenge::Bearer { realm, .. }) = &bearer {
        let realm = Url::parse(realm).map_err(|e| e.prefix("invalid token auth challenge realm"))?;
        let wish = Wish { scopes: &[], credentials: Some(credentials), offline: true, registry: endpoint.root.scheme };
        let challenge = bearer.as_ref().expect("matched above");
        let tls = session.tls(endpoint, &realm)?;
        identity = token::fetch(session.http(), challenge, &wish, &tls).await?.refresh;
    }
    let answer = session.send(endpoint, Ask::new(Method::GET, url.clone())).await?;
    if !answer.status.is_success() {
        let text = format!("login attempt to {url} failed with status: {}", shown(answer.status));
        return Err(Error::system(text).into());
    }
    answer.discard().await;
    Ok(identity)
}
