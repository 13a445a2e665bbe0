//! `GET /metrics` on its own listener, and how long the calls of the API took.

use std::sync::Arc;

use engine::metrics::{Metrics, text};
use model::Result;

use crate::error;
use crate::handler::State;
use crate::policy::{Asked, Policy, Verdict};
use crate::response;
use crate::routes::{Handler, Outcome, Route};

/// Everything that the listener serves.
pub const ROUTES: &[Route<State>] =
    &[Route { method: "GET", path: "/metrics", since: 0, handler: Handler::Run(|state, _| Box::pin(scrape(state))) }];

async fn scrape(state: Arc<State>) -> Result<Outcome> {
    let text = state.metrics.scrape(&state.engine).await?;
    Ok(response::text_of(text::CONTENT_TYPE, text).into())
}

/// Times calls. It refuses nothing.
pub struct Meter(pub Arc<Metrics>);

impl Policy for Meter {
    fn before<'a>(&'a self, _asked: &'a Asked) -> Verdict<'a> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn after<'a>(&'a self, asked: &'a Asked, outcome: &'a Result<Outcome>) -> Verdict<'a> {
        let is_done = match outcome {
            Ok(Outcome::Response(answer)) => answer.status().is_success(),
            Ok(Outcome::Hijack(_)) => true,
            Err(error) => error::status(error.kind()).is_success(),
        };
        if is_done {
            self.0.timers.note(asked.method.as_str(), asked.route, asked.begun.elapsed());
        }
        Box::pin(std::future::ready(Ok(())))
    }
}
