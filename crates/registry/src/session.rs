//! A session with one registry for one operation: connections, tokens and which endpoints work, shared by the
//! operation's requests.
//!
//! - A request goes to the endpoints in order; a mirror's failure is never the end.
//! - Authorization is shown to the endpoint it was made for and to nobody a redirect leads to.
//! - No lock is held while waiting.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, LOCATION, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use model::Error;
use model::authority::Authority;
use model::lock::Mutex;
use model::reference::ImageRef;
use rustls::ClientConfig;
use tokio::time::sleep;

use crate::certs::{self, CertFiles, SystemRoots};
use crate::challenge::{self, Challenge};
use crate::connect::Pinned;
use crate::credentials::{Credentials, WantedToken, meant_for};
use crate::endpoint::{self, Endpoint};
use crate::exchange::{Answer, Body, Call, Http, describe, set};
use crate::failure::{self, Fault, Reason, Result, Retry};
use crate::insecure::{self, Verdict};
use crate::resolver::Resolver;
use crate::settings::Settings;
use crate::token::{self, Token, TokenRequest};
use crate::url::Url;

/// Redirects followed for one request.
const REDIRECTS: usize = 10;
/// Longest refusal that is read.
const REFUSAL_BYTES: usize = 64 << 10;
/// Endpoints of one registry.
const ENDPOINTS: usize = 64;

/// What is to be done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Pull,
    /// Read and write; mirrors are left alone.
    Push,
}

/// What a request needs of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// What a tag means.
    Resolve,
    /// Content by digest.
    Content,
    /// Writing.
    Push,
}

/// A repository of a registry, within one operation.
pub struct Repository {
    pub(crate) reference: ImageRef,
    pub(crate) settings: Arc<Settings>,
    roots: Arc<SystemRoots>,
    http: Http,
    endpoints: Vec<Endpoint>,
    access: Access,
    credentials: Credentials,
    /// Whom the credentials may be shown to.
    credentials_host: Option<Authority>,
    grants: Mutex<HashMap<String, Grant>>,
    tls: Mutex<HashMap<CertFiles, Arc<ClientConfig>>>,
    /// What was found out about servers that redirects and challenges led to.
    verdicts: Mutex<HashMap<Authority, Verdict>>,
    /// A bit for each endpoint that does not speak TLS.
    plain: AtomicU64,
}

/// How a server is verified, and the only addresses to connect to, if those were judged.
pub(crate) type Way = (Arc<ClientConfig>, Option<Pinned>);

/// What an endpoint wants to be shown.
#[derive(Clone)]
struct Grant {
    challenge: Challenge,
    /// By the scopes, joined by spaces.
    tokens: HashMap<String, Token>,
}

/// One request to an endpoint.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    /// Scopes besides the repository's own.
    pub(crate) scopes: Vec<String>,
}

impl Ask {
    pub(crate) fn new(method: Method, url: Url) -> Ask {
        Ask { method, url, headers: HeaderMap::new(), body: Body::Empty, scopes: Vec::new() }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Ask {
        set(&mut self.headers, name, value);
        self
    }
}

impl Repository {
    pub(crate) async fn open(
        settings: Arc<Settings>,
        roots: Arc<SystemRoots>,
        reference: &ImageRef,
        credentials: Credentials,
        access: Access,
    ) -> model::Result<Repository> {
        let user_agent = credentials.agent(&settings.user_agent);
        let settings = match user_agent == settings.user_agent {
            true => settings,
            false => Arc::new(Settings { user_agent, ..Settings::clone(&settings) }),
        };
        let mut endpoints = endpoint::endpoints(&settings, &reference.domain).await?;
        endpoints.truncate(ENDPOINTS);
        Ok(Repository {
            http: Http::new(settings.clone(), roots.clone()),
            credentials_host: credentials.host(reference),
            reference: reference.clone(),
            settings,
            roots,
            endpoints,
            access,
            credentials: credentials.completed(),
            grants: Mutex::default(),
            tls: Mutex::default(),
            verdicts: Mutex::default(),
            plain: AtomicU64::new(0),
        })
    }

    /// What it is the repository of.
    pub fn reference(&self) -> &ImageRef {
        &self.reference
    }

    /// The configuration that was in force when the session began.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// `<root>/<path>/<rest>`, with the namespace for mirrors.
    pub(crate) fn url(&self, endpoint: &Endpoint, rest: &str) -> Url {
        let root = &endpoint.root;
        let url = Url { path: format!("{}/{}/{rest}", root.path, self.reference.path), ..root.clone() };
        if endpoint.mirror { url.with_query("ns", &self.reference.domain) } else { url }
    }

    /// Tries the endpoints in order, each as often as its failures allow.
    pub(crate) async fn anywhere<'r, T, F>(&'r self, need: Need, attempt: impl Fn(&'r Endpoint) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let able = |e: &Endpoint| match need {
            Need::Resolve => e.capabilities.resolve,
            Need::Content => e.capabilities.pull,
            Need::Push => e.capabilities.push && (!e.mirror || self.endpoints.len() == 1),
        };
        let usable = self.endpoints.iter().enumerate().filter(|(_, e)| able(e));
        let usable: Vec<_> = usable.filter(|(n, _)| self.plain.load(Ordering::Relaxed) & (1 << n) == 0).collect();
        let mut failure = None;
        for (at, (n, endpoint)) in usable.iter().enumerate() {
            let last = at + 1 == usable.len();
            let outcome = match last || !(endpoint.mirror || endpoint.fallback) {
                true => self.patiently(|| attempt(endpoint)).await,
                false => attempt(endpoint).await,
            };
            match outcome {
                Err(fault) if !last && endpoint.fallback && fault.reason == Reason::Unreachable => {
                    tracing::debug!(error = %fault.error, "no TLS there; trying without");
                    self.plain.fetch_or(1 << n, Ordering::Relaxed);
                    failure = Some(fault);
                }
                Err(fault) if !last && endpoint.mirror => {
                    tracing::info!(endpoint = %endpoint.root, error = %fault.error, "a mirror failed; trying the next");
                    failure = Some(fault);
                }
                outcome => return outcome,
            }
        }
        Err(failure.unwrap_or_else(|| {
            Error::invalid(format!("no configured host of {} can do this", self.reference.domain)).into()
        }))
    }

    /// Tries again after failures that may pass.
    async fn patiently<T, F: Future<Output = Result<T>>>(&self, attempt: impl Fn() -> F) -> Result<T> {
        let mut pauses = Pauses::new(&self.settings);
        loop {
            let fault = match attempt().await {
                Err(fault) if fault.reason != Reason::Unreachable => fault,
                outcome => return outcome,
            };
            match pauses.next(&fault) {
                Some(pause) => sleep(pause).await,
                None => return Err(fault),
            }
        }
    }

    /// Sends a request, follows redirects, shows what is asked for. Any status is an answer.
    pub(crate) async fn send(&self, endpoint: &Endpoint, ask: Ask) -> Result<Answer> {
        let Ask { method, mut url, headers, mut body, scopes } = ask;
        let mut challenged = false;
        for _ in 0..REDIRECTS {
            let at_home = url.same_origin(&endpoint.root);
            let mut headers = headers.clone();
            if at_home {
                for (name, value) in &endpoint.header {
                    if let Ok(name) = HeaderName::try_from(name.as_str()) {
                        set(&mut headers, name, value);
                    }
                }
                if let Some(authorization) = self.authorization(endpoint, &scopes).await? {
                    set(&mut headers, AUTHORIZATION, &authorization);
                }
            }
            let again = match &body {
                Body::Empty => Some(Body::Empty),
                Body::Whole(bytes) => Some(Body::Whole(bytes.clone())),
                Body::Stream(_) => None,
            };
            let (tls, pinned) = self.way(endpoint, &url).await?;
            let dial_timeout = endpoint.dial_timeout;
            let call = Call { method: method.clone(), url: url.clone(), headers, body, tls, pinned, dial_timeout };
            let answer = self.http.send(call).await?;
            let Some(next_body) = again else { return Ok(answer) };
            body = next_body;
            if answer.status == StatusCode::UNAUTHORIZED && at_home && !challenged {
                challenged = true;
                if !self.take_challenge(endpoint, &answer)? {
                    return Ok(answer);
                }
                answer.discard().await;
            } else if answer.status.is_redirection()
                && matches!(method, Method::GET | Method::HEAD)
                && let Some(location) = answer.header(LOCATION)
            {
                url = url.join(location).map_err(|e| Fault::from(e.prefix(describe(&method, &url))))?;
                answer.discard().await;
            } else {
                return Ok(answer);
            }
        }
        Err(Fault::nonsense(format!("{}: stopped after {REDIRECTS} redirects", describe(&method, &url))))
    }

    /// As [`Repository::send`]; a status of refusal is a fault.
    pub(crate) async fn ask(&self, endpoint: &Endpoint, ask: Ask) -> Result<Answer> {
        let answer = self.send(endpoint, ask).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(refusal(answer).await) }
    }

    /// Sends a request without body that shows only what is given, and follows nothing.
    pub(crate) async fn probe(&self, endpoint: &Endpoint, url: &Url, authorization: Option<&str>) -> Result<Answer> {
        let mut headers = HeaderMap::new();
        if let Some(authorization) = authorization {
            set(&mut headers, AUTHORIZATION, authorization);
        }
        let (tls, pinned) = self.way(endpoint, url).await?;
        let (url, dial_timeout) = (url.clone(), endpoint.dial_timeout);
        self.http.send(Call { method: Method::GET, url, headers, body: Body::Empty, tls, pinned, dial_timeout }).await
    }

    /// A token of the server that a challenge of the endpoint names.
    pub(crate) async fn token(
        &self,
        endpoint: &Endpoint,
        challenge: &Challenge,
        request: &TokenRequest<'_>,
    ) -> Result<Token> {
        let Challenge::Bearer { realm, .. } = challenge else {
            return Err(Fault::nonsense("the registry wants no token"));
        };
        let realm = Url::parse(realm).map_err(|e| e.prefix("invalid token auth challenge realm"))?;
        token::fetch(&self.http, challenge, request, self.way(endpoint, &realm).await?).await
    }

    /// The endpoints that are the registry itself.
    pub(crate) fn own_endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let only_mirrors = self.endpoints.iter().all(|e| e.mirror);
        self.endpoints.iter().filter(move |e| only_mirrors || !e.mirror)
    }

    /// How the server of a URL is verified, and where it is if that was judged. Only the endpoint itself sees the client's
    /// certificate. Others are verified as the endpoint is, but one that is insecure by its addresses says nothing of them:
    /// they are judged by their own.
    async fn way(&self, endpoint: &Endpoint, url: &Url) -> Result<Way> {
        if url.same_origin(&endpoint.root) {
            return Ok((self.tls(endpoint.files.clone()).await?, endpoint.pinned.clone()));
        }
        let files = endpoint.files.without_client();
        if endpoint.pinned.is_none() {
            return Ok((self.tls(files).await?, None));
        }
        let verdict = self.verdict(&url.server).await;
        let files = CertFiles { skip_verify: verdict.is_insecure(), ..files };
        Ok((self.tls(files).await?, verdict.pinned()))
    }

    /// Judges a server, once for the whole operation.
    async fn verdict(&self, server: &Authority) -> Verdict {
        let known = |verdicts: &Mutex<HashMap<Authority, Verdict>>| verdicts.lock().get(server).cloned();
        if let Some(verdict) = known(&self.verdicts) {
            return verdict;
        }
        let resolver = Resolver::new(&self.settings);
        let verdict = insecure::judge(&self.settings, server, &resolver).await;
        let mut verdicts = self.verdicts.lock();
        verdicts.entry(server.clone()).or_insert(verdict).clone()
    }

    async fn tls(&self, files: CertFiles) -> Result<Arc<ClientConfig>> {
        let known = || self.tls.lock();
        if let Some(config) = known().get(&files) {
            return Ok(config.clone());
        }
        let config = certs::client_config(files.clone(), &self.roots, &self.settings).await?;
        Ok(known().entry(files).or_insert(config).clone())
    }

    /// The credentials, if they are for this endpoint.
    fn credentials_for(&self, endpoint: &Endpoint) -> Option<&Credentials> {
        let meant = self.credentials_host.as_ref().is_some_and(|host| meant_for(host, &endpoint.root));
        Some(&self.credentials).filter(|c| meant && !c.is_empty())
    }

    /// Remembers what the endpoint wants to be shown; `false` when it cannot be shown.
    fn take_challenge(&self, endpoint: &Endpoint, answer: &Answer) -> Result<bool> {
        let values = answer.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges = challenge::parse(values);
        let credentials = self.credentials_for(endpoint);
        if credentials.is_some_and(|c| !c.registrytoken.is_empty()) {
            return Ok(false);
        }
        let bearer = challenges.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
        let Some(challenge) = bearer.or(challenges.first()).cloned() else { return Ok(false) };
        if challenge == Challenge::Basic && credentials.and_then(Credentials::basic).is_none() {
            let text = format!("{}: no basic auth credentials", answer.what());
            return Err(Fault { error: Error::system(text), retry: Retry::Never, reason: Reason::Unauthorized });
        }
        let mut grants = self.grants.lock();
        // What was shown before is not enough, or no longer.
        grants.insert(endpoint.root.to_string(), Grant { challenge, tokens: HashMap::new() });
        Ok(true)
    }

    /// What a request to this endpoint shows.
    async fn authorization(&self, endpoint: &Endpoint, more: &[String]) -> Result<Option<String>> {
        let credentials = self.credentials_for(endpoint);
        if let Some(credentials) = credentials.filter(|c| !c.registrytoken.is_empty()) {
            return Ok(Some(format!("Bearer {}", credentials.registrytoken)));
        }
        let known = self.grants.lock().get(&endpoint.root.to_string()).cloned();
        let Some(grant) = known else { return Ok(None) };
        let Challenge::Bearer { scope, realm, service, .. } = &grant.challenge else {
            return Ok(credentials.and_then(Credentials::basic));
        };
        let scopes = self.scopes(scope, more);
        let key = scopes.join(" ");
        if let Some(token) = grant.tokens.get(&key).filter(|token| token.is_fresh()) {
            return Ok(Some(token.authorization.clone()));
        }
        let request = TokenRequest { scopes: &scopes, credentials, offline: false, registry: endpoint.root.scheme };
        let host = endpoint.root.server.to_string();
        let wanted = WantedToken { host: &host, realm, service, scopes: &scopes };
        let token = match token::delegated(credentials, wanted).await {
            Some(token) => token,
            None => self.token(endpoint, &grant.challenge, &request).await?,
        };
        let mut grants = self.grants.lock();
        if let Some(grant) = grants.get_mut(&endpoint.root.to_string()) {
            grant.tokens.insert(key, token.clone());
        }
        Ok(Some(token.authorization))
    }

    /// The scopes a token is asked for: this repository's, what the challenge adds, what the request adds.
    fn scopes(&self, challenged: &str, more: &[String]) -> Vec<String> {
        let name = format!("repository:{}:", self.reference.path);
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let mut scopes = vec![format!("{name}{actions}")];
        let added = challenged.split(' ').filter(|scope| !scope.is_empty() && !scope.starts_with(&name));
        for scope in added.map(str::to_owned).chain(more.iter().cloned()) {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        scopes
    }
}

/// Reads a refusal.
pub(crate) async fn refusal(answer: Answer) -> Fault {
    let (status, headers) = (answer.status, answer.headers.clone());
    let body = answer.bytes(REFUSAL_BYTES).await.unwrap_or_default();
    failure::refusal(status, &headers, &body)
}

/// The pauses between attempts: doubled each time, unless the registry says how long; a bounded number of them.
pub struct Pauses {
    left: u32,
    next: Duration,
    longest: Duration,
}

impl Pauses {
    /// As the settings have it.
    pub fn new(settings: &Settings) -> Pauses {
        let timeouts = &settings.timeouts;
        Pauses { left: timeouts.attempts.saturating_sub(1), next: timeouts.pause, longest: timeouts.longest_pause }
    }

    /// The pause before the next attempt; `None`: there is none.
    pub fn next(&mut self, fault: &Fault) -> Option<Duration> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let usual = self.next;
        self.next = (self.next * 2).min(self.longest);
        match fault.retry {
            Retry::Never => None,
            Retry::Later => Some(usual),
            Retry::After(asked) => (asked <= self.longest).then_some(asked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Proxies;

    /// What redirects and challenges of a registry lead to is insecure for reasons of its own only, unless the
    /// administrator has named the registry.
    #[tokio::test]
    async fn others_are_judged_by_their_own_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let hosts =
            "127.0.0.1 near.test\n127.0.0.2 other.test\n127.0.0.1 torn.test\n192.0.2.1 torn.test\n192.0.2.1 far.test\n";
        std::fs::write(dir.path().join("hosts"), hosts).unwrap();
        let settings = Arc::new(Settings {
            hosts_file: dir.path().join("hosts"),
            resolv_conf: dir.path().join("none"),
            certs_dirs: Vec::new(),
            insecure: vec!["listed.test".into()],
            proxies: Proxies::default(),
            ..Settings::default()
        });
        for (domain, url, any, pinned) in [
            ("near.test:5000", "https://near.test:5000/x", true, Some("127.0.0.1")),
            ("near.test:5000", "https://near.test:6000/x", true, Some("127.0.0.1")),
            ("near.test:5000", "https://other.test/x", true, Some("127.0.0.2")),
            ("near.test:5000", "https://torn.test/x", false, None),
            ("near.test:5000", "https://far.test/x", false, None),
            ("near.test:5000", "https://listed.test/x", true, None),
            ("listed.test", "https://far.test/x", true, None),
            ("far.test", "https://near.test/x", false, None),
        ] {
            let reference = ImageRef::parse_normalized(&format!("{domain}/x")).unwrap();
            let (settings, roots) = (settings.clone(), Arc::default());
            let repository = Repository::open(settings, roots, &reference, Credentials::default(), Access::Pull);
            let repository = repository.await.unwrap();
            let (tls, addresses) = repository.way(&repository.endpoints[0], &Url::parse(url).unwrap()).await.unwrap();
            let expected = repository.tls(CertFiles { skip_verify: any, ..CertFiles::default() }).await.unwrap();
            assert!(Arc::ptr_eq(&tls, &expected), "{domain} {url}");
            let addresses = addresses.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
            assert_eq!(addresses.as_deref(), pinned, "{domain} {url}");
        }
    }
}
