//! From a raw request to a handler and back: routing, version gate, common header fields, errors.
//!
//! The order is the reference's (B-api-1 to B-api-5): a path that is not in its canonical form is sent there, an unknown one
//! is answered before any version is looked at, both without the common fields; the version gate comes before the
//! experimental flag is told. Whatever may change something runs as a task of its own, so that a client that leaves does not
//! leave it half done.

use std::sync::Arc;
use std::time::Instant;

use api::{ApiVersion, ErrorResponse};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, LOCATION, SERVER};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use model::{Error, Result};
use tokio::sync::watch;

use crate::budget::Budgets;
use crate::calls::Calls;
use crate::error;
use crate::hijack::Head;
use crate::path;
use crate::peer::Peer;
use crate::policy::{self, Asked, Policies};
use crate::query::{Query, decode};
use crate::request::{Body, Request};
use crate::response::{self, Response};
use crate::routes::{Handler, Outcome, Route, find};

/// What the server tells of itself, and which versions it speaks.
#[derive(Clone, Debug)]
pub struct Config {
    /// The engine's version in the `Server` field.
    pub version: String,
    /// Newest version served; also the meaning of a path without version.
    pub max_api: ApiVersion,
    /// Oldest version served.
    pub min_api: ApiVersion,
    /// Value of `Docker-Experimental`, and whether experimental routes exist.
    pub experimental: bool,
    /// Whether the debug routes exist.
    pub debug: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            version: "0.0.0".to_owned(),
            max_api: ApiVersion::MAX,
            min_api: ApiVersion::MIN,
            experimental: false,
            debug: false,
        }
    }
}

/// The routing table with what its handlers share.
pub struct Frame<S: 'static> {
    config: Config,
    routes: &'static [Route<S>],
    state: Arc<S>,
    /// The fields of every answer of a route.
    standing: HeaderMap,
    /// What may say no to a request.
    policies: Policies,
    /// For requests that are being sent.
    pub budgets: Budgets,
    /// Who answers calls of gRPC; `None`: HTTP/2 is not spoken.
    calls: Option<Arc<dyn Calls>>,
}

/// The text of a swarm route while swarm mode is off.
pub const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
                            connect this node to swarm and try again.";
/// The text of an experimental route while experimental mode is off.
const NOT_EXPERIMENTAL: &str = "This experimental feature is disabled by default. Start the Docker daemon in \
                                experimental mode in order to enable it.";

const API_VERSION: HeaderName = HeaderName::from_static("api-version");
const OSTYPE: HeaderName = HeaderName::from_static("ostype");
const EXPERIMENTAL: HeaderName = HeaderName::from_static("docker-experimental");

impl<S: Send + Sync + 'static> Frame<S> {
    /// A frame around a table.
    pub fn new(config: Config, routes: &'static [Route<S>], state: Arc<S>, policies: Policies) -> Frame<S> {
        let mut standing = HeaderMap::new();
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        standing.insert(API_VERSION, value(&config.max_api.to_string()));
        standing.insert(EXPERIMENTAL, value(if config.experimental { "true" } else { "false" }));
        standing.insert(OSTYPE, HeaderValue::from_static("linux"));
        standing.insert(SERVER, value(&format!("Docker/{} (linux)", config.version)));
        Frame { config, routes, state, standing, policies, budgets: Budgets::default(), calls: None }
    }

    /// The same with calls of gRPC besides, which are asked about as requests are.
    #[must_use]
    pub fn with_calls(self, calls: Arc<dyn Calls>) -> Frame<S> {
        Frame { calls: Some(calls), ..self }
    }

    /// Who answers calls of gRPC, if anybody does.
    pub fn calls(&self) -> Option<Arc<dyn Calls>> {
        self.calls.clone()
    }

    /// What may say no to a request.
    pub fn policies(&self) -> Policies {
        self.policies.clone()
    }

    /// The newest version served.
    pub fn newest(&self) -> ApiVersion {
        self.config.max_api
    }

    /// Answers one request.
    pub async fn answer(&self, head: Parts, body: Incoming, gone: watch::Receiver<bool>, peer: Arc<Peer>) -> Outcome {
        let body = Body::new(&head, body, &self.budgets.bodies);
        let Ok(path) = decode(head.uri.path()) else {
            return response::bad_request("malformed path").into();
        };
        if path == "*" && head.method == Method::OPTIONS {
            return response::empty(StatusCode::OK).into();
        }
        if let Some(clean) = path::clean(&path) {
            return moved(&clean, head.uri.query()).into();
        }
        let (version, path) = split_version(&path);
        let Some((route, vars)) = find(self.routes, &head.method, path).filter(|(route, _)| self.exists(route)) else {
            return not_found().into();
        };
        let (method, path) = (head.method.clone(), path.to_owned());
        let asked = match version.map(|text| self.admit(text)).transpose() {
            Ok(version) => version,
            Err((error, version)) => {
                let mut answer = error::answer(&error, Some(version));
                self.tell_of_server(&mut answer, false);
                return answer.into();
            }
        };
        let mut request = Request::new(head, body, gone, peer);
        request.version = asked.unwrap_or(self.config.max_api);
        request.path.clone_from(&path);
        request.vars = vars;
        match self.call(route, request).await {
            Ok(Outcome::Response(mut answer)) => {
                self.tell_of_server(&mut answer, true);
                answer.into()
            }
            Ok(Outcome::Hijack(mut hijack)) => {
                if let Head::Raw { fields: Some(fields), .. } = &mut hijack.head {
                    fields.clone_from(&self.standing);
                }
                Outcome::Hijack(hijack)
            }
            Err(error) => {
                error::log(&error, method.as_str(), &path);
                let mut answer = error::answer(&error, asked);
                self.tell_of_server(&mut answer, true);
                answer.into()
            }
        }
    }

    /// Debug routes are there in debug mode only.
    fn exists(&self, route: &Route<S>) -> bool {
        !matches!(route.handler, Handler::Debug(_)) || self.config.debug
    }

    /// Reads the version of a path and checks it against floor and ceiling.
    fn admit(&self, text: &str) -> Result<ApiVersion, (Error, ApiVersion)> {
        let version = ApiVersion::parse(text).unwrap_or(ApiVersion { major: 0, minor: 0 });
        if version < self.config.min_api {
            let floor = self.config.min_api;
            let message = format!(
                "client version {text} is too old. Minimum supported API version is {floor}, please upgrade your \
                 client to a newer version"
            );
            return Err((Error::invalid(message), version));
        }
        if version > self.config.max_api {
            let ceiling = self.config.max_api;
            let message = format!("client version {text} is too new. Maximum supported API version is {ceiling}");
            return Err((Error::invalid(message), version));
        }
        Ok(version)
    }

    /// Runs the handler of a route between the policies.
    async fn call(&self, route: &Route<S>, mut request: Request) -> Result<Outcome> {
        let asked = Asked {
            peer: request.peer.clone(),
            method: request.method.clone(),
            path: request.path.clone(),
            route: route.path,
            version: request.version,
            begun: Instant::now(),
        };
        let policies = self.policies.clone();
        let not_yet =
            || Error::not_implemented(format!("Gantry does not implement {} {} yet", route.method, route.path));
        let refuse = |error: Error| policy::enforce(policies.clone(), asked.clone(), std::future::ready(Err(error)));
        match route.handler {
            Handler::Run(run) | Handler::Swarmless(run) | Handler::Debug(run) => {
                let query = request.query_text().to_owned();
                request.query = Query::parse(&query)?;
                let (state, safe) = (self.state.clone(), request.method.is_safe());
                // A handler that is refused is not even made.
                let running =
                    policy::enforce(policies.clone(), asked.clone(), async move { run(state, request).await });
                if safe {
                    return running.await;
                }
                tokio::spawn(running).await.unwrap_or_else(|failed| Err(panicked(failed)))
            }
            Handler::NeedsSwarm => refuse(Error::unavailable(NO_SWARM)).await,
            Handler::Experimental if !self.config.experimental => {
                refuse(Error::not_implemented(NOT_EXPERIMENTAL)).await
            }
            Handler::NotYet | Handler::Experimental | Handler::Elsewhere => refuse(not_yet()).await,
        }
    }

    fn tell_of_server(&self, answer: &mut Response, experimental: bool) {
        let fields = answer.headers_mut();
        for (name, value) in &self.standing {
            if experimental || name != EXPERIMENTAL {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
}

fn panicked(failed: tokio::task::JoinError) -> Error {
    Error::system("internal error: the request's handler failed").with_source(failed)
}

/// The answer for a path or method that no route has.
fn not_found() -> Response {
    response::json(StatusCode::NOT_FOUND, &ErrorResponse { message: "page not found".to_owned() })
}

/// The answer for a path that has a better form.
fn moved(path: &str, query: Option<&str>) -> Response {
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    let location = format!("{}{query}", path::encode(path));
    response::with_header(response::empty(StatusCode::MOVED_PERMANENTLY), LOCATION.as_str(), &location)
}

/// `/v1.45/info` → (`1.45`, `/info`).
fn split_version(path: &str) -> (Option<&str>, &str) {
    let Some(rest) = path.strip_prefix("/v") else { return (None, path) };
    let (version, tail) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_version && !tail.is_empty() { (Some(version), tail) } else { (None, path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_split_off() {
        assert_eq!(split_version("/v1.45/info"), (Some("1.45"), "/info"));
        assert_eq!(split_version("/info"), (None, "/info"));
        assert_eq!(split_version("/volumes"), (None, "/volumes"));
        assert_eq!(split_version("/v1.45"), (None, "/v1.45"));
        assert_eq!(split_version("/v1x/info"), (None, "/v1x/info"));
    }
}
