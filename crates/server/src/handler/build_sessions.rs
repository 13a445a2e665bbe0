//! `POST /build?version=2`: a build by BuildKit for a client that offers a session, and is told of it in the answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::ProgressMessage;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use buildkit::{Going, Wanted};
use hyper::StatusCode;
use model::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{State, done, progress};
use crate::limits;
use crate::query::Query;
use crate::request::Request;
use crate::routes::Outcome;

/// What progress and the id of the image are called in the answer.
const TRACE: &str = "moby.buildkit.trace";
const IMAGE: &str = "moby.image.id";
/// As `remote`: the context comes with a request of its own, whose `buildid` begins with this.
const UPLOAD: &str = "upload-request";

/// One of the parameter `outputs`.
#[derive(Deserialize)]
struct Output {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "Attrs", default)]
    attributes: Option<BTreeMap<String, String>>,
}

/// Builds; the answer has what `Control.Status` would tell.
pub async fn build(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    if let Some(id) = request.query.text("buildid").strip_prefix(UPLOAD).and_then(|rest| rest.strip_prefix(':')) {
        let id = id.to_owned();
        state.buildkit.uploads.offer(&id, Box::new(request.reader())).await?;
        return done(StatusCode::OK);
    }
    let mut wanted = wanted(&request.query)?;
    wanted.body = match request.query.text("remote") {
        "" => Some(Box::new(request.reader())),
        UPLOAD => Some(state.buildkit.uploads.take(request.query.text("buildid")).await?),
        _ => None,
    };
    let going = state.buildkit.build(wanted)?;
    let (lines, messages) = mpsc::channel(limits::STREAM_QUEUE);
    tokio::spawn(tell(going, lines));
    Ok(progress::answer_at_once(messages).into())
}

async fn tell(mut going: Going, lines: mpsc::Sender<Result<ProgressMessage>>) {
    let line = |id: &str, aux: Value| ProgressMessage { id: id.to_owned(), aux: Some(aux), ..Default::default() };
    loop {
        let some = tokio::select! {
            some = going.next() => some,
            // The build is cancelled.
            () = lines.closed() => return,
        };
        let Some(some) = some else { break };
        for message in some {
            if lines.send(Ok(line(TRACE, STANDARD.encode(message).into()))).await.is_err() {
                return;
            }
        }
    }
    let last = match going.outcome().await {
        Ok(response) => match response.get("containerimage.digest") {
            Some(id) => Ok(line(IMAGE, json!({"ID": id}))),
            None => return,
        },
        Err(error) => Err(error),
    };
    // A client that left hears of nothing.
    drop(lines.send(last).await);
}

/// The request as the front end takes it.
fn wanted(query: &Query) -> Result<Wanted> {
    let mut attributes = BTreeMap::new();
    let mut set = |key: &str, value: &str| _ = attributes.insert(key.to_owned(), value.to_owned());
    for (parameter, key) in [("target", "target"), ("platform", "platform"), ("shmsize", "shm-size")] {
        match query.text(parameter) {
            "" | "0" => {}
            value => set(key, value),
        }
    }
    match query.text("dockerfile") {
        "" | "." => {}
        name => set("filename", name),
    }
    match query.text("remote") {
        "client-session" | "" | UPLOAD => {}
        address => set("context", address),
    }
    if query.flag("nocache") {
        set("no-cache", "");
    }
    set("image-resolve-mode", if query.flag("pull") { "pull" } else { "default" });
    match query.text("networkmode") {
        "" | "default" => {}
        mode @ ("host" | "none") => set("force-network-mode", mode),
        other => return Err(Error::invalid(format!("network mode {other:?} not supported by buildkit"))),
    }
    let hosts: Vec<String> = query.all("extrahosts").map(|host| host.replacen(':', "=", 1)).collect();
    if !hosts.is_empty() {
        set("add-hosts", &hosts.join(","));
    }
    let ulimits: Option<Vec<api::Ulimit>> = json(query, "ulimits")?;
    let ulimits = ulimits.unwrap_or_default();
    if !ulimits.is_empty() {
        let texts: Vec<String> = ulimits.iter().map(|one| format!("{}={}:{}", one.name, one.soft, one.hard)).collect();
        set("ulimit", &texts.join(","));
    }
    let arguments: Option<BTreeMap<String, Option<String>>> = json(query, "buildargs")?;
    for (name, value) in arguments.unwrap_or_default() {
        if let Some(value) = value {
            set(&format!("build-arg:{name}"), &value);
        }
    }
    let labels: Option<BTreeMap<String, String>> = json(query, "labels")?;
    for (name, value) in labels.unwrap_or_default() {
        set(&format!("label:{name}"), &value);
    }
    Ok(Wanted {
        reference: reference(query),
        session: query.text("session").to_owned(),
        attributes,
        exporter: exporter(query)?,
        body: None,
        entitlements: if query.text("networkmode") == "host" { vec!["network.host".into()] } else { Vec::new() },
    })
}

fn reference(query: &Query) -> String {
    match query.text("buildid") {
        "" => model::id::ContainerId::from_bytes(sys::random::bytes32()).to_string(),
        id => id.to_owned(),
    }
}

fn exporter(query: &Query) -> Result<Option<(String, BTreeMap<String, String>)>> {
    let outputs: Option<Vec<Output>> = json(query, "outputs")?;
    let mut outputs = outputs.unwrap_or_default();
    if outputs.len() > 1 {
        return Err(Error::invalid("multiple outputs not supported"));
    }
    let (kind, mut attributes) = match outputs.pop() {
        None => ("moby".to_owned(), BTreeMap::new()),
        Some(output) if output.kind == "cacheonly" => return Ok(None),
        Some(output) => (output.kind, output.attributes.unwrap_or_default()),
    };
    let names: Vec<&str> = query.all("t").filter(|name| !name.is_empty()).collect();
    if matches!(kind.as_str(), "moby" | "image") && !names.is_empty() {
        attributes.insert("name".into(), names.join(","));
    }
    Ok(Some((kind, attributes)))
}

/// A parameter that is JSON; empty: nothing.
fn json<T: serde::de::DeserializeOwned>(query: &Query, key: &str) -> Result<Option<T>> {
    match query.text(key) {
        "" => Ok(None),
        text => {
            let read = api::decode::from_slice(text.as_bytes());
            read.map_err(|error| Error::invalid(format!("error reading {key}: {error}")))
        }
    }
}
