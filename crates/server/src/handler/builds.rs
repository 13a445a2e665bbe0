//! `POST /build`, as clients without BuildKit use it, and what ends a build.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use build::classic::{self, Client, Failed, Options, context};
use build::job::{self, Answer, Attributes, Inputs, Job, Limits, Local, Network};
use hyper::StatusCode;
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Error, Result};
use registry::Credentials;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{State, done, progress};
use crate::limits;
use crate::query::Query;
use crate::request::Request;
use crate::routes::Outcome;

/// The header with credentials of several registries.
const AUTH: &str = "X-Registry-Config";
/// Bytes of its content.
const AUTH_BYTES: usize = 1 << 20;

/// Builds an image of the context in the body; the answer tells of it step by step.
pub async fn build(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    if request.query.text("version") == "2" {
        return super::build_sessions::build(state, request).await;
    }
    refuse(&request)?;
    let options = options(&state, &request)?;
    let (events, received) = mpsc::channel(job::EVENTS);
    let mut job = engine::build::job(&state.engine, Arc::new(Nothing), events);
    job.limits = build_limits(&request.query)?;
    job.network = network(request.query.text("networkmode"));
    let job = Arc::new(job);
    let noted = state.engine.builder.going.note(request.query.text("buildid"), &job.cancel);
    let outcome = begin(&state, &mut request, &job, &options).await;
    let (recipe, context) = match outcome {
        Ok(begun) => begun,
        Err(error) => {
            engine::build::end(&state.engine, job).await;
            return Err(error);
        }
    };
    let (lines, messages) = mpsc::channel(limits::STREAM_QUEUE);
    let engine = state.engine.clone();
    let (bus, transfers) = (engine.events.clone(), engine.settings().services.transfers);
    tokio::spawn(async move {
        let client = Client { lines: lines.clone(), events: received, bus, transfers };
        let mut work = pin!(classic::build(job.clone(), recipe, context, options, client));
        let outcome = tokio::select! {
            outcome = &mut work => outcome,
            () = lines.closed() => {
                job.cancel.cancel();
                work.await
            }
        };
        engine::build::end(&engine, job).await;
        drop(noted);
        let last = match outcome {
            Ok(_) => return,
            Err(Failed { error, code: 0 }) => Err(error),
            Err(Failed { error, code }) => Ok(api::ProgressMessage::error(i64::from(code), error.message())),
        };
        // A client that left hears of nothing.
        drop(lines.send(last).await);
    });
    Ok(progress::answer(messages).await?.into())
}

/// `POST /build/cancel`
pub async fn cancel(state: Arc<State>, request: Request) -> Result<Outcome> {
    let id = request.query.text("id");
    if id.is_empty() {
        return Err(Error::invalid("build ID not provided"));
    }
    state.engine.builder.going.cancel(id);
    done(StatusCode::OK)
}

type Begun = (classic::Recipe, context::Context);

/// Takes the context in and reads the Dockerfile: what is wrong with them is the answer's status.
async fn begin(state: &State, request: &mut Request, job: &Arc<Job>, options: &Options) -> Result<Begun> {
    let body = request.upload();
    let (job, name) = (job.clone(), request.query.text("dockerfile").to_owned());
    let remote = request.query.text("remote").to_owned();
    if !remote.is_empty() {
        let context = context::remote(&job, &remote, &name).await?;
        return Ok((classic::read(&context.dockerfile, options)?, context));
    }
    let running = state
        .transfers
        .place()
        .await
        .run(move |client| context::open(&job.builder, body.from(&client), &name, &job.lease));
    let context = running.outcome().await??;
    Ok((classic::read(&context.dockerfile, options)?, context))
}

/// What this builder does not do, by name.
fn refuse(request: &Request) -> Result<()> {
    let query = &request.query;
    match query.text("version") {
        "" | "1" => {}
        other => return Err(Error::invalid(format!("invalid version {other:?}"))),
    }
    match query.text("remote") {
        "" => {}
        "client-session" => {
            let text = "experimental session with v1 builder is no longer supported, use builder version v2 (BuildKit) instead";
            return Err(Error::invalid(text));
        }
        _ => {}
    }
    if query.flag("squash") {
        return Err(Error::invalid("squash is only supported with experimental mode"));
    }
    if query.all("securityopt").any(|option| !option.is_empty()) {
        return Err(Error::invalid("security options are not supported on linux"));
    }
    match query.text("isolation") {
        "" | "default" => {}
        other => return Err(Error::invalid(format!("unsupported isolation: {other:?}"))),
    }
    if query.has("outputs") && !request.version.before(40) {
        return Err(Error::invalid("outputs are only supported with builder version v2 (BuildKit)"));
    }
    Ok(())
}

fn options(state: &State, request: &Request) -> Result<Options> {
    let query = &request.query;
    let tags = query.all("t").filter(|name| !name.is_empty()).map(tag).collect::<Result<Vec<_>>>()?;
    let mut distinct: Vec<ImageRef> = Vec::new();
    for tag in tags {
        if distinct.iter().all(|known| known.canonical() != tag.canonical()) {
            distinct.push(tag);
        }
    }
    let host = Platform::new("linux", &state.engine.host.architecture, "");
    let platform = match query.text("platform") {
        text if !text.is_empty() && !request.version.before(32) => Some(Platform::parse(text, &host)?),
        _ => None,
    };
    let labels: Option<BTreeMap<String, String>> = json(query, "labels", "labels")?;
    let arguments: Option<BTreeMap<String, Option<String>>> = json(query, "buildargs", "build args")?;
    let cache_from: Option<Vec<String>> = json(query, "cachefrom", "cache-from")?;
    Ok(Options {
        tags: distinct,
        dockerfile: query.text("dockerfile").to_owned(),
        target: query.text("target").to_owned(),
        arguments: arguments.unwrap_or_default(),
        labels: labels.unwrap_or_default(),
        cache_from: cache_from.unwrap_or_default(),
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        quiet: query.flag("q"),
        removes: query.flag_or("rm", true) || query.flag("forcerm"),
        platform,
        extra_hosts: query
            .all("extrahosts")
            .filter(|entry| !entry.is_empty())
            .map(extra_host)
            .collect::<Result<_>>()?,
        credentials: credentials(request),
    })
}

/// A name that the image gets.
fn tag(text: &str) -> Result<ImageRef> {
    let name = ImageRef::parse_normalized(text)?;
    if name.digest.is_some() {
        return Err(Error::invalid("build tag cannot contain a digest"));
    }
    Ok(name.with_default_tag())
}

fn extra_host(entry: &str) -> Result<(String, String)> {
    let (name, address) =
        entry.split_once([':', '=']).ok_or_else(|| Error::invalid(format!("invalid host {entry}")))?;
    if address != "host-gateway" && address.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err() {
        return Err(Error::invalid(format!("invalid host {entry}")));
    }
    Ok((name.to_owned(), address.trim_matches(['[', ']']).to_owned()))
}

/// A parameter that is JSON; empty: nothing.
fn json<T: DeserializeOwned>(query: &Query, key: &str, what: &str) -> Result<Option<T>> {
    match query.text(key) {
        "" => Ok(None),
        text => {
            let read = api::decode::from_slice(text.as_bytes());
            read.map_err(|error| Error::invalid(format!("error reading {what}: {error}")))
        }
    }
}

fn build_limits(query: &Query) -> Result<Limits> {
    let number = |key: &str| -> Result<i64> {
        let refused = |error: Error| Error::invalid(error.message());
        Ok(query.integer(key).map_err(refused)?.unwrap_or(0))
    };
    Ok(Limits {
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: query.text("cpusetcpus").to_owned(),
        cpuset_mems: query.text("cpusetmems").to_owned(),
        cgroup_parent: query.text("cgroupparent").to_owned(),
        shm_size: number("shmsize")?,
        ulimits: json::<Vec<api::Ulimit>>(query, "ulimits", "ulimit settings")?.unwrap_or_default(),
    })
}

fn network(mode: &str) -> Network {
    match mode {
        "" | "default" | "bridge" => Network::Default,
        "host" => Network::Host,
        "none" => Network::None,
        other => Network::Named(other.to_owned()),
    }
}

/// What registries are shown; what cannot be read is as good as none, as with the reference.
fn credentials(request: &Request) -> BTreeMap<String, Credentials> {
    let text = request.header(AUTH).unwrap_or_default().trim();
    if text.is_empty() || text.len() > AUTH_BYTES {
        return BTreeMap::new();
    }
    let bytes = URL_SAFE.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).or_else(|_| STANDARD.decode(text));
    let read = bytes.ok().and_then(|bytes| api::decode::from_slice::<BTreeMap<String, Credentials>>(&bytes).ok());
    if read.is_none() {
        tracing::debug!("credentials of a build are ignored: they cannot be read");
    }
    let agent = request.header("user-agent").unwrap_or_default();
    let mut read = read.unwrap_or_default();
    read.values_mut().for_each(|one| agent.clone_into(&mut one.client_agent));
    read
}

/// The classic builder gives its context to its steps itself, and has no secrets.
struct Nothing;

impl Inputs for Nothing {
    fn local<'a>(&'a self, name: &'a str, _: &'a Attributes) -> Answer<'a, Result<Local>> {
        Box::pin(async move { Err(Error::not_found(format!("no access allowed to dir {name:?}"))) })
    }

    fn secret<'a>(&'a self, _: &'a str) -> Answer<'a, Result<Option<Vec<u8>>>> {
        Box::pin(async { Ok(None) })
    }
}
