//! Managed plugins: there are none until they can be installed.

use std::sync::Arc;

use model::{Error, Result};

use super::{State, ok};
use crate::request::Request;
use crate::routes::Outcome;

/// `GET /plugins`
pub async fn list(_state: Arc<State>, request: Request) -> Result<Outcome> {
    request.query.filters()?.validate(&["capability", "enabled"])?;
    let none: [(); 0] = [];
    ok(&none)
}

/// `GET /plugins/{name}/json`: clients that look a name up in every kind of object expect a 404 here.
pub async fn inspect(_state: Arc<State>, request: Request) -> Result<Outcome> {
    Err(Error::not_found(format!("plugin {:?} not found", request.name())))
}
