//! Tokens: from a challenge and credentials to what a request shows.
//!
//! Credentials are shown to the registry they are for and to the token server that this registry names, and over
//! clear text only if the registry itself is spoken to so.

use std::time::{Duration, Instant};

use gojson::Document;
use hyper::Method;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use serde::Deserialize;

use crate::challenge::Challenge;
use crate::credentials::{Credentials, WantedToken};
use crate::exchange::{Body, Call, Http, set};
use crate::failure::{self, Fault, Reason, Result};
use crate::session::Way;
use crate::url::{Scheme, Url, escape};

/// Longest answer of a token server.
const ANSWER_BYTES: usize = 1 << 20;
/// How long a token lives that does not say (as the specification has it).
const DEFAULT_LIFE: u64 = 60;
/// Longest life that is believed.
const LONGEST_LIFE: u64 = 24 * 3600;
/// A token is not used in its last seconds.
const MARGIN: Duration = Duration::from_secs(5);
/// The name under which tokens are asked for.
const CLIENT: &str = "docker";

/// A token and how long it may be shown.
#[derive(Clone)]
pub struct Token {
    /// `Bearer …`
    pub authorization: String,
    /// Until when.
    pub until: Instant,
    /// A refresh token, when one was asked for.
    pub refresh: String,
}

impl Token {
    fn new(token: &str, expires_in: i64) -> Token {
        let life = u64::try_from(expires_in).unwrap_or(0).clamp(DEFAULT_LIFE, LONGEST_LIFE);
        let until = Instant::now() + Duration::from_secs(life);
        Token { authorization: format!("Bearer {token}"), until, refresh: String::new() }
    }

    /// Whether it may still be shown.
    pub fn is_fresh(&self) -> bool {
        Instant::now() + MARGIN < self.until
    }
}

/// What is asked for.
pub struct TokenRequest<'a> {
    /// `repository:x:pull`, …
    pub scopes: &'a [String],
    /// Shown to the token server; `None`: as anybody.
    pub credentials: Option<&'a Credentials>,
    /// For a login: the answer shall hold a refresh token.
    pub offline: bool,
    /// How the registry itself is reached.
    pub registry: Scheme,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answered {
    token: String,
    access_token: String,
    refresh_token: String,
    /// Seconds; 0: it does not say.
    expires_in: i64,
}

/// Asks the token server of a challenge.
pub async fn fetch(http: &Http, challenge: &Challenge, request: &TokenRequest<'_>, way: Way) -> Result<Token> {
    let Challenge::Bearer { realm, service, .. } = challenge else {
        return Err(Fault::nonsense("the registry wants no token"));
    };
    let url = Url::parse(realm).map_err(|e| Fault::nonsense(format!("invalid token auth challenge realm: {e}")))?;
    if url.scheme == Scheme::Http && request.registry == Scheme::Https && request.credentials.is_some() {
        return Err(Fault::nonsense(format!(
            "the registry sends credentials over clear text: {}; they were not sent",
            url.shown()
        )));
    }
    let (shown, call) = (url.shown(), call(url, service, request, way));
    let method = call.method.clone();
    let which = if request.credentials.is_some() { "oauth" } else { "anonymous" };
    let unfetched = |mut fault: Fault, why: &str| {
        if !request.offline {
            fault.error = fault.error.prefix(format!("failed to authorize: failed to fetch {which} token{why}"));
        }
        fault
    };
    let answer = http.send(call).await.map_err(|fault| unfetched(fault, ""))?;
    let (status, headers) = (answer.status, answer.headers.clone());
    let body = answer.bytes(ANSWER_BYTES).await?;
    if !status.is_success() {
        let why = format!(": unexpected status from {method} request to {shown}: {}", failure::shown(status));
        let mut fault = unfetched(failure::refusal(status, &headers, &body), &why);
        if status == hyper::StatusCode::FORBIDDEN {
            fault.reason = Reason::Denied;
        }
        return Err(fault);
    }
    let answered = answered(&body)?;
    let token = if answered.token.is_empty() { answered.access_token } else { answered.token };
    if token.is_empty() {
        return Err(Fault::nonsense("authorization server did not include a token in the response"));
    }
    Ok(Token { refresh: answered.refresh_token, ..Token::new(&token, answered.expires_in) })
}

/// A token of the client's own, if it fetches any. One that cannot be had is told of, and no more: the daemon asks by itself.
pub async fn delegated(credentials: Option<&Credentials>, wanted: WantedToken<'_>) -> Option<Token> {
    let delegate = credentials?.delegate.0.as_ref()?;
    match delegate.fetch(wanted).await {
        Ok(fetched) if !fetched.token.is_empty() => Some(Token::new(&fetched.token, fetched.expires_in)),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, host = wanted.host, "the client has fetched no token");
            None
        }
    }
}

fn answered(body: &[u8]) -> Result<Answered> {
    let answered = Document::parse_first(body).and_then(|document| document.fit());
    answered.map_err(|e| Fault::nonsense(format!("unable to decode token response: {}", e.stream_message())))
}

fn call(url: Url, service: &str, request: &TokenRequest<'_>, (tls, pinned): Way) -> Call {
    let mut headers = HeaderMap::new();
    set(&mut headers, ACCEPT, "application/json");
    let refresh = request.credentials.map(|c| c.identitytoken.as_str()).filter(|token| !token.is_empty());
    if let Some(refresh) = refresh {
        // OAuth2, as registries with identity tokens have it.
        let form = [
            ("grant_type", "refresh_token"),
            ("service", service),
            ("client_id", CLIENT),
            ("scope", &request.scopes.join(" ")),
            ("refresh_token", refresh),
        ];
        let form: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
        set(&mut headers, CONTENT_TYPE, "application/x-www-form-urlencoded");
        let body = Body::Whole(form.join("&").into());
        return Call { method: Method::POST, url, headers, body, tls, pinned, dial_timeout: None };
    }
    let mut url = url;
    if !service.is_empty() {
        url = url.with_query("service", service);
    }
    for scope in request.scopes {
        url = url.with_query("scope", scope);
    }
    if request.offline {
        url = url.with_query("offline_token", "true").with_query("client_id", CLIENT);
    }
    if let Some(credentials) = request.credentials
        && let Some(basic) = credentials.basic()
    {
        url = url.with_query("account", &credentials.username);
        set(&mut headers, AUTHORIZATION, &basic);
    }
    Call { method: Method::GET, url, headers, body: Body::Empty, tls, pinned, dial_timeout: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_go_reads_them() {
        let read =
            |text: &str| answered(text.as_bytes()).map(|a| (a.token, a.access_token, a.refresh_token, a.expires_in));
        let texts =
            |token: &str, access: &str, refresh: &str| (token.to_owned(), access.to_owned(), refresh.to_owned());
        let with_life = |(token, access, refresh), life| (token, access, refresh, life);
        for (text, wanted) in [
            (r#"{"token":"a","expires_in":300}"#, with_life(texts("a", "", ""), 300)),
            (r#"{"Token":"a","Expires_In":null,"issued_at":"x"}"#, with_life(texts("a", "", ""), 0)),
            (r#"{"ACCESS_TOKEN":"b","Refresh_token":"c"} trailing"#, with_life(texts("", "b", "c"), 0)),
            (r#"{"token":null,"access_token":"b","expires_in":-1}"#, with_life(texts("", "b", ""), -1)),
            ("null", with_life(texts("", "", ""), 0)),
        ] {
            assert_eq!(read(text).unwrap(), wanted, "{text}");
        }
        for (text, why) in [
            ("", "EOF"),
            ("<html>", "invalid character '<' looking for beginning of value"),
            (r#"{"token":"#, "unexpected EOF"),
        ] {
            let refused = read(text).unwrap_err().error;
            assert_eq!(refused.message(), format!("unable to decode token response: {why}"));
        }
        assert!(read(r#"{"token":1}"#).is_err() && read(r#"{"expires_in":"300"}"#).is_err());
    }
}
