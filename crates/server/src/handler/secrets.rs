//! Secrets and configs. For clients of the API only where the configuration says so (`local-secrets`): otherwise the answer is
//! that of an engine in no swarm.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::secret::{ObjectVersion, Secret, SecretCreateResponse, SecretSpec};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use engine::secrets::{self, Draft, Kind, Plain, Update};
use hyper::StatusCode;
use model::filter::Filters;
use model::{Error, Result};

use super::{State, blocking, created, done, ok, swarm};
use crate::frame::NO_SWARM;
use crate::request::Request;
use crate::routes::Outcome;

fn is_on(state: &State) -> bool {
    state.engine.settings().services.secrets.local
}

fn no_swarm() -> Result<Outcome> {
    Err(Error::unavailable(NO_SWARM))
}

/// The routes of a kind: list, create, inspect, remove, update.
macro_rules! routes {
    ($kind:expr; $list:ident $create:ident $inspect:ident $remove:ident $update:ident) => {
        #[doc = "`GET`"]
        pub async fn $list(state: Arc<State>, request: Request) -> Result<Outcome> {
            if is_on(&state) { list(state, request, $kind).await } else { swarm::list(state, request).await }
        }
        #[doc = "`POST …/create`"]
        pub async fn $create(state: Arc<State>, request: Request) -> Result<Outcome> {
            if is_on(&state) { create(state, request, $kind).await } else { swarm::$create(state, request).await }
        }
        #[doc = "`GET …/{id}`"]
        pub async fn $inspect(state: Arc<State>, request: Request) -> Result<Outcome> {
            if is_on(&state) { inspect(state, request, $kind).await } else { no_swarm() }
        }
        #[doc = "`DELETE …/{id}`"]
        pub async fn $remove(state: Arc<State>, request: Request) -> Result<Outcome> {
            if is_on(&state) { remove(state, request, $kind).await } else { no_swarm() }
        }
        #[doc = "`POST …/{id}/update`"]
        pub async fn $update(state: Arc<State>, request: Request) -> Result<Outcome> {
            if is_on(&state) { update(state, request, $kind).await } else { swarm::$update(state, request).await }
        }
    };
}

routes!(Kind::Secret; list_secrets create_secret inspect_secret remove_secret update_secret);
routes!(Kind::Config; list_configs create_config inspect_config remove_config update_config);

/// All that pass the filters.
pub async fn list(state: Arc<State>, request: Request, kind: Kind) -> Result<Outcome> {
    let filters = request.query.filters()?;
    filters.validate(match kind {
        Kind::Secret => &["id", "label", "name", "names"],
        Kind::Config => &["id", "label", "name"],
    })?;
    let shown = blocking(&state, &state.reads, move |engine| {
        let mut all = secrets::of(engine).list(kind)?;
        all.retain(|one| passes(one, &filters));
        all.iter().map(|one| shown(engine, one)).collect::<Result<Vec<_>>>()
    });
    ok(&shown.await?)
}

fn passes(one: &secrets::Secret, filters: &Filters) -> bool {
    let any = |key: &str, test: &dyn Fn(&str) -> bool| !filters.contains(key) || filters.get(key).any(test);
    any("id", &|id| one.id.starts_with(id))
        && any("name", &|name| one.name.starts_with(name))
        && any("names", &|name| one.name == name)
        && filters.match_kv_list("label", &one.labels)
}

/// As the wire has it; of a config with its content.
fn shown(engine: &engine::Engine, one: &secrets::Secret) -> Result<Secret> {
    let data = match one.kind {
        Kind::Secret => None,
        Kind::Config => Some(BASE64_STANDARD.encode(&*secrets::of(engine).open(one)?)),
    };
    let spec = SecretSpec { name: one.name.clone(), labels: Some(one.labels.clone()), data, ..SecretSpec::default() };
    Ok(Secret {
        id: one.id.clone(),
        version: ObjectVersion { index: one.version },
        created_at: one.created.rfc3339_nano(),
        updated_at: one.updated.rfc3339_nano(),
        spec,
    })
}

/// Makes one.
pub async fn create(state: Arc<State>, mut request: Request, kind: Kind) -> Result<Outcome> {
    let (name, labels, data) = taken_apart(request.json().await?)?;
    let draft = Draft { kind, name, labels, data };
    let made =
        blocking(&state, &state.changes, move |engine| secrets::create(&secrets::of(engine), &engine.events, draft))
            .await?;
    created(&SecretCreateResponse { id: made.id })
}

/// What a request says; what only a swarm can do is refused by name.
fn taken_apart(spec: SecretSpec) -> Result<(String, BTreeMap<String, String>, Plain)> {
    let is_set = |value: &Option<serde_json::Value>| value.as_ref().is_some_and(|value| !value.is_null());
    for (field, value) in [("Driver", &spec.driver), ("Templating", &spec.templating)] {
        if is_set(value) {
            return Err(Error::invalid(format!("{field} is not supported for secrets and configs of one host")));
        }
    }
    let data = spec.data.map(|text| Plain::new(text.into_bytes())).unwrap_or_default();
    let decoded = BASE64_STANDARD.decode(&*data);
    let data = decoded.map_err(|error| Error::invalid(format!("invalid JSON: illegal base64 data: {error}")))?;
    Ok((spec.name, spec.labels.unwrap_or_default(), Plain::new(data)))
}

/// One.
pub async fn inspect(state: Arc<State>, request: Request, kind: Kind) -> Result<Outcome> {
    let reference = request.name().to_owned();
    let shown =
        blocking(&state, &state.reads, move |engine| shown(engine, &secrets::of(engine).find(kind, &reference)?));
    ok(&shown.await?)
}

/// Removes one.
pub async fn remove(state: Arc<State>, request: Request, kind: Kind) -> Result<Outcome> {
    let reference = request.name().to_owned();
    blocking(&state, &state.changes, move |engine| secrets::remove(engine, kind, &reference)).await?;
    done(StatusCode::NO_CONTENT)
}

/// Changes the labels of one.
pub async fn update(state: Arc<State>, mut request: Request, kind: Kind) -> Result<Outcome> {
    let (name, labels, data) = taken_apart(request.json().await?)?;
    let version = request.query.text("version").parse();
    let what = if kind == Kind::Secret { "secret" } else { "config" };
    let version = version.map_err(|_| Error::invalid(format!("invalid {what} version")))?;
    let (reference, update) = (request.name().to_owned(), Update { version, name, labels, data });
    blocking(&state, &state.changes, move |engine| {
        secrets::update(&secrets::of(engine), &engine.events, kind, &reference, update)
    })
    .await?;
    done(StatusCode::OK)
}
