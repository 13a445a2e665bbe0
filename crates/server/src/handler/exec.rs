//! Exec sessions.

use std::sync::Arc;

use api::{ExecConfig, ExecStart, IdResponse};
use engine::container::session::exec::{self, ExecSession, ExecStartArgs, LookUp};
use hyper::{HeaderMap, StatusCode};
use model::{Error, Result};

use super::containers::window;
use super::{State, created, done, ok};
use crate::hijack::{Head, Hijack, MULTIPLEXED_STREAM, RAW_STREAM};
use crate::request::Request;
use crate::routes::Outcome;

/// `POST /containers/{name}/exec`
pub async fn create(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let mut config: ExecConfig = request.json().await?;
    if config.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::invalid("No exec command specified"));
    }
    if request.version.before(42) {
        config.console_size = None;
    }
    let users = if request.version.before(52) { LookUp::AtStart } else { LookUp::AtCreate };
    let id = exec::create(&state.engine.containers, &state.engine.events, request.name(), config, users).await?;
    created(&IdResponse { id })
}

/// `POST /exec/{id}/start`: from the moment on that the stream begins, errors are told in the stream.
pub async fn start(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let body: ExecStart = request.json().await?;
    let newer = !request.version.before(42);
    let console_size = body.console_size.filter(|_| body.tty && newer);
    let narrow = |size: u64| u16::try_from(size).unwrap_or(u16::MAX);
    let args = ExecStartArgs {
        detach: body.detach,
        console_size: console_size.map(|size| size.map(narrow)),
        multiplex: !body.tty,
    };
    let attachment = match exec::start(&state.engine.containers, &state.engine.events, request.name(), args).await? {
        ExecSession::Detached => return done(StatusCode::OK),
        ExecSession::Attached(attachment) => attachment,
    };
    let upgraded = request.wants_upgrade();
    let content_type = if upgraded && newer && !body.tty { MULTIPLEXED_STREAM } else { RAW_STREAM };
    let head = Head::Raw { upgraded, content_type, fields: Some(HeaderMap::new()) };
    Ok(Outcome::Hijack(Hijack::new(head, move |socket, ahead| async move {
        attachment.connect(&state.engine.events, socket, ahead).await;
    })))
}

/// `POST /exec/{id}/resize`
pub async fn resize(state: Arc<State>, request: Request) -> Result<Outcome> {
    exec::resize(&state.engine.containers, request.name(), window(&request)?).await?;
    done(StatusCode::OK)
}

/// `GET /exec/{id}/json`
pub async fn inspect(state: Arc<State>, request: Request) -> Result<Outcome> {
    ok(&exec::inspect(&state.engine.containers, request.name()).await?)
}
