//! Swarm routes of an engine that is in no swarm: what the reference checks before it says so, and what it says.

use std::sync::Arc;

use model::{Error, Result};
use serde_json::Value;

use super::State;
use crate::frame::NO_SWARM;
use crate::query::go_quote;
use crate::request::{Request, invalid_body};
use crate::routes::Outcome;

fn refused() -> Result<Outcome> {
    Err(Error::unavailable(NO_SWARM))
}

/// `POST /swarm/leave`
pub async fn leave(_state: Arc<State>, _request: Request) -> Result<Outcome> {
    Err(Error::unavailable("This node is not part of a swarm"))
}

/// `GET /services`, `/nodes`, `/tasks`, `/secrets`, `/configs`
pub async fn list(_state: Arc<State>, request: Request) -> Result<Outcome> {
    drop(request.query.filters()?);
    refused()
}

/// `GET /services/{id}/logs`, `GET /tasks/{id}/logs`
pub async fn logs(_state: Arc<State>, request: Request) -> Result<Outcome> {
    super::streams::check_log_query(&request.query)?;
    refused()
}

/// Routes whose body is a JSON object: the name of its Go type, and the noun whose version the query has.
macro_rules! with_body {
    ($($function:ident $spec:literal $noun:expr, $doc:literal;)*) => {$(
        #[doc = $doc]
        pub async fn $function(_state: Arc<State>, request: Request) -> Result<Outcome> {
            check(request, $spec, $noun).await?;
            refused()
        }
    )*};
}

with_body! {
    update "swarm.Spec" Some("swarm"), "`POST /swarm/update`";
    unlock "swarm.UnlockRequest" None, "`POST /swarm/unlock`";
    create_service "swarm.ServiceSpec" None, "`POST /services/create`";
    update_service "swarm.ServiceSpec" Some("service"), "`POST /services/{id}/update`";
    update_node "swarm.NodeSpec" Some("node"), "`POST /nodes/{id}/update`";
    create_secret "swarm.SecretSpec" None, "`POST /secrets/create`";
    update_secret "swarm.SecretSpec" Some("secret"), "`POST /secrets/{id}/update`";
    create_config "swarm.ConfigSpec" None, "`POST /configs/create`";
    update_config "swarm.ConfigSpec" Some("config"), "`POST /configs/{id}/update`";
}

async fn check(mut request: Request, spec: &str, noun: Option<&str>) -> Result<()> {
    if let Some(bytes) = request.json_bytes().await? {
        let kind = match api::decode::value(&bytes).map_err(invalid_body)? {
            Value::Object(_) | Value::Null => "",
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Number(_) => "number",
            Value::Bool(_) => "bool",
        };
        if !kind.is_empty() {
            return Err(Error::invalid(format!(
                "invalid JSON: json: cannot unmarshal {kind} into Go value of type {spec}"
            )));
        }
    }
    noun.map_or(Ok(()), |noun| check_version(request.query.text("version"), noun))
}

/// The version of an object that is updated is a number (`strconv.ParseUint`).
fn check_version(version: &str, noun: &str) -> Result<()> {
    let why = match version.parse::<u64>() {
        Ok(_) if !version.starts_with('+') => return Ok(()),
        Err(error) if *error.kind() == std::num::IntErrorKind::PosOverflow => "value out of range",
        _ => "invalid syntax",
    };
    let text = match noun {
        "secret" | "config" => format!("invalid {noun} version"),
        _ => format!("invalid {noun} version '{version}': strconv.ParseUint: parsing {}: {why}", go_quote(version)),
    };
    Err(Error::invalid(text))
}
