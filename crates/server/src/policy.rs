//! What may say no to a request: asked at one place before every handler, and told at the same place after it.
//!
//! A policy sees who asks, what for, and what came of it. It sees no body. What it refuses before the handler has no
//! effect; a refusal after it keeps only the answer from the client, as an authorization plugin of the reference does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use api::ApiVersion;
use hyper::{Method, StatusCode};
use model::Result;

use crate::error;
use crate::peer::Peer;
use crate::routes::Outcome;

/// What a policy is asked about.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who asks.
    pub peer: Arc<Peer>,
    /// `GET`, `POST`, …
    pub method: Method,
    /// The decoded path behind the version.
    pub path: String,
    /// The pattern of the route: `/containers/{name}/start`.
    pub route: &'static str,
    /// The version that the client asked for, or the newest.
    pub version: ApiVersion,
    /// When its head was read.
    pub begun: Instant,
}

/// A verdict that is on its way; an error is the client's answer.
pub type Verdict<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// A rule for requests. It must answer within a time of its own.
pub trait Policy: Send + Sync {
    /// Before the handler.
    fn before<'a>(&'a self, asked: &'a Asked) -> Verdict<'a>;

    /// After the handler, before the answer leaves.
    fn after<'a>(&'a self, asked: &'a Asked, outcome: &'a Result<Outcome>) -> Verdict<'a>;
}

/// All policies of a listener's daemon, asked in their order; those behind one that refuses are not asked.
pub type Policies = Arc<[Arc<dyn Policy>]>;

/// Runs a handler between the policies.
pub async fn enforce(
    policies: Policies,
    asked: Asked,
    handler: impl Future<Output = Result<Outcome>>,
) -> Result<Outcome> {
    for policy in policies.iter() {
        policy.before(&asked).await?;
    }
    let outcome = handler.await;
    for policy in policies.iter() {
        policy.after(&asked, &outcome).await?;
    }
    outcome
}

/// Writes every request and its result to the daemon's log, at level debug. It refuses nothing.
pub struct Audit;

impl Policy for Audit {
    fn before<'a>(&'a self, asked: &'a Asked) -> Verdict<'a> {
        tracing::debug!(peer = %asked.peer, method = %asked.method, path = asked.path, version = %asked.version, "request");
        Box::pin(std::future::ready(Ok(())))
    }

    fn after<'a>(&'a self, asked: &'a Asked, outcome: &'a Result<Outcome>) -> Verdict<'a> {
        let status = match outcome {
            Ok(Outcome::Response(response)) => response.status(),
            Ok(Outcome::Hijack(_)) => StatusCode::SWITCHING_PROTOCOLS,
            Err(error) => error::status(error.kind()),
        };
        tracing::debug!(peer = %asked.peer, method = %asked.method, path = asked.path, %status, "answered");
        Box::pin(std::future::ready(Ok(())))
    }
}
