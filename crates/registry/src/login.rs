//! `docker login`: whether a registry takes the credentials.

use hyper::header::WWW_AUTHENTICATE;
use model::authority::{Authority, HUB};
use model::reference::ImageRef;
use model::{Error, Result};

use crate::Registries;
use crate::challenge::{self, Challenge};
use crate::credentials::{Credentials, host_of, hub};
use crate::endpoint::Endpoint;
use crate::failure::{Fault, Reason, shown};
use crate::session::{Access, Repository};
use crate::token::TokenRequest;
use crate::url::Url;

/// Shows the credentials to the registry they are for; answers an identity token, if it gives one.
///
/// Errors: `Unauthorized` when the token server refuses, `System` in the reference's words when the registry does.
pub async fn login(registries: &Registries, credentials: Credentials) -> Result<String> {
    let given = host_of(&credentials.serveraddress);
    let server = Authority::parse(given).ok();
    let is_hub = given.is_empty() || server.is_some_and(|server| server.is_hub());
    let host = if is_hub { HUB } else { given };
    let reference = ImageRef { domain: host.to_owned(), path: String::new(), tag: None, digest: None };
    let serveraddress = if is_hub { hub().to_string() } else { host.to_owned() };
    let credentials = Credentials { serveraddress, ..credentials };
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
    session: &Repository,
    endpoint: &Endpoint,
    credentials: &Credentials,
) -> std::result::Result<String, Fault> {
    let url = Url { path: format!("{}/", endpoint.root.path), ..endpoint.root.clone() };
    let probe = session.probe(endpoint, &url, None).await?;
    let values = probe.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges = challenge::parse(values);
    probe.discard().await;
    let bearer = challenges.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
    let (authorization, identity) = match bearer {
        Some(challenge) => {
            let (scopes, credentials) = (&[][..], Some(credentials));
            let request = TokenRequest { scopes, credentials, offline: true, registry: endpoint.root.scheme };
            let token = session.token(endpoint, challenge, &request).await?;
            (Some(token.authorization), token.refresh)
        }
        None if challenges.is_empty() => (None, String::new()),
        None => (credentials.basic(), String::new()),
    };
    let answer = session.probe(endpoint, &url, authorization.as_deref()).await?;
    if !answer.status.is_success() {
        let text = format!("login attempt to {url} failed with status: {}", shown(answer.status));
        return Err(Error::system(text).into());
    }
    answer.discard().await;
    Ok(identity)
}
