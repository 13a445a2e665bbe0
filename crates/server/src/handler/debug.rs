//! `/debug/*`, in debug mode only. Of Go's profiles there are those that have a meaning here.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::StatusCode;
use model::{Error, Result};
use serde_json::{Value, json};

use super::{State, ok};
use crate::request::Request;
use crate::response;
use crate::routes::Outcome;

/// The profiles that are answered.
const PROFILES: [(&str, &str); 2] =
    [("cmdline", "The command line of the daemon"), ("goroutine", "Threads, containers and tables of the daemon")];

/// `GET /debug/vars`
pub async fn vars(state: Arc<State>, _request: Request) -> Result<Outcome> {
    let tables: BTreeMap<_, _> = engine::tables::sizes(&state.engine);
    let memory = json!({"Alloc": sys::memory::in_use(), "Sys": sys::memory::resident().unwrap_or(0)});
    let vars: Value = json!({
        "cmdline": std::env::args().collect::<Vec<_>>(),
        "memstats": memory,
        "tables": tables,
        "events": state.engine.events.newest(),
    });
    ok(&vars)
}

/// `GET /debug/pprof/`
pub async fn index(_state: Arc<State>, _request: Request) -> Result<Outcome> {
    let lines = PROFILES.map(|(name, about)| format!("{name}\t{about}\n"));
    Ok(response::text(StatusCode::OK, lines.concat()).into())
}

/// `GET /debug/pprof/cmdline`: arguments, a NUL between them.
pub async fn cmdline(_state: Arc<State>, _request: Request) -> Result<Outcome> {
    let arguments: Vec<String> = std::env::args().collect();
    Ok(response::text(StatusCode::OK, arguments.join("\0")).into())
}

/// `GET /debug/pprof/{name}`
pub async fn profile(state: Arc<State>, request: Request) -> Result<Outcome> {
    if request.name() != "goroutine" {
        return Err(Error::not_found("Unknown profile"));
    }
    let engine = state.engine.clone();
    let text = state.reads.run(move |on| Ok(engine::dump::text(&engine, on))).await?;
    Ok(response::text(StatusCode::OK, text).into())
}

/// Profiles of Go's runtime, which is not there.
pub async fn of_go(_state: Arc<State>, _request: Request) -> Result<Outcome> {
    let text = "Gantry has no such profile: use perf(1), with the process's id of the daemon";
    Err(Error::not_implemented(text))
}
