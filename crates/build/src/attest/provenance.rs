//! Provenance: who built a result, from what, and how (SLSA v1, and v0.2 for older readers).

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use events::now;
use model::{Error, Result};
use serde_json::{Map, Value, json};

use super::capture::{Capture, without_secrets};
use super::request::Request;
use super::steps;
use super::wanted::{Mode, Provenance, Version};
use crate::export::{Attestation, Content};

/// Types of predicates and of builds.
const V1: &str = "https://slsa.dev/provenance/v1";
const V02: &str = "https://slsa.dev/provenance/v0.2";
const BUILD_V1: &str = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILD_V02: &str = "https://mobyproject.org/buildkit@v1";
/// Attributes that only say how this daemon is to work.
const OF_THE_HOST: [&str; 4] = ["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"];
/// What fields of v0.2 begin with that only builds of this kind have.
const EXTENSION: &str = "https://mobyproject.org/buildkit@v1#";

/// What a predicate says, in neither version's form yet.
struct Said {
    /// Where the Dockerfile comes from.
    source: Map<String, Value>,
    parameters: Map<String, Value>,
    materials: Vec<Value>,
    steps: Option<Value>,
    metadata: Map<String, Value>,
    platform: String,
    /// The request is told in full.
    is_whole: bool,
}

/// The attestation of a target.
///
/// Errors: `InvalidParameter` when all materials have to be known and are not.
pub(super) fn attestation(
    wanted: &Provenance,
    request: &Request,
    capture: &Capture,
    definition: &pb::Definition,
) -> Result<Attestation> {
    if wanted.complete_materials {
        capture.check()?;
    }
    let said = said(wanted, request, capture, definition)?;
    let predicate = match wanted.version {
        Version::V1 => v1(wanted, request, (&said, capture)),
        Version::V02 => v02(wanted, request, (&said, capture)),
    };
    let bytes = serde_json::to_vec_pretty(&predicate)
        .map_err(|error| Error::system(format!("encoding provenance: {error}")))?;
    Ok(Attestation {
        path: wanted.filename.clone(),
        predicate_type: if wanted.version == Version::V1 { V1 } else { V02 }.to_owned(),
        subjects: Vec::new(),
        content: Content::Bytes(Arc::new(bytes)),
        inline_only: wanted.inline_only,
        core: String::new(),
    })
}

fn said(wanted: &Provenance, request: &Request, capture: &Capture, definition: &pb::Definition) -> Result<Said> {
    let mut arguments = arguments(request);
    let mut source = Map::new();
    let key = context_key(&request.attributes);
    if let Some(address) = arguments.remove(key).filter(|address| !address.is_empty()) {
        let found = capture.find(&address);
        source.insert("uri".into(), without_secrets(&address).into());
        if let Some(material) = found.filter(|material| !material.digest.is_empty()) {
            source.insert("digest".into(), json!(material.digest));
        }
    }
    if let Some(name) = arguments.remove("filename").filter(|name| !name.is_empty()) {
        source.insert("path".into(), name.into());
    }
    let mut metadata = Map::new();
    let vcs: BTreeMap<String, String> = arguments
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("vcs:")?.to_owned(), without_secrets(value))))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    arguments.retain(|name, _| !name.starts_with("vcs:"));
    if !vcs.is_empty() {
        metadata.insert("vcs".into(), json!(vcs));
    }
    let mut is_whole = !request.frontend.is_empty();
    let mut steps = None;
    match wanted.mode {
        Mode::Min => {
            let count = arguments.len();
            arguments.retain(|name, _| !name.starts_with("build-arg:") && !name.starts_with("label:"));
            is_whole &= arguments.len() == count;
        }
        Mode::Max => {
            let config = steps::config(definition)?;
            steps = Some(config.steps);
            if let Some(files) = config.files {
                metadata.insert("source".into(), files);
            }
        }
    }
    Ok(Said {
        source,
        parameters: parameters(wanted, request, capture, &arguments),
        materials: capture.materials.iter().map(super::capture::Material::json).collect(),
        steps,
        metadata,
        platform: image::oci::host().to_string(),
        is_whole,
    })
}

/// The attribute that names the context.
fn context_key(attributes: &crate::job::Attributes) -> &str {
    match attributes.get("contextkey").filter(|key| !key.is_empty()) {
        Some(key) => key,
        None if attributes.get("input:context").is_some_and(|input| !input.is_empty()) => "input:context",
        None => "context",
    }
}

/// What the front end was asked, without what is the host's and without passwords.
fn arguments(request: &Request) -> BTreeMap<String, String> {
    let kept = request.attributes.iter().filter(|(name, _)| {
        !OF_THE_HOST.contains(&name.as_str())
            && !name.starts_with("attest:")
            && !name.starts_with("local-sessionid:")
            && !name.starts_with("sharedkey:")
    });
    kept.map(|(name, value)| (name.clone(), without_secrets(value))).collect()
}

fn parameters(
    wanted: &Provenance,
    request: &Request,
    capture: &Capture,
    arguments: &BTreeMap<String, String>,
) -> Map<String, Value> {
    let mut parameters = Map::new();
    if !request.frontend.is_empty() {
        parameters.insert("frontend".into(), request.frontend.clone().into());
    }
    if !arguments.is_empty() {
        parameters.insert("args".into(), json!(arguments));
    }
    let named = |all: &BTreeMap<String, bool>| {
        let one = |(id, optional): (&String, &bool)| match optional {
            true => json!({"id": id, "optional": true}),
            false => json!({"id": id}),
        };
        all.iter().map(one).collect::<Vec<Value>>()
    };
    if wanted.mode == Mode::Max {
        for (name, all) in [("secrets", &capture.secrets), ("ssh", &capture.agents)] {
            if !all.is_empty() {
                parameters.insert(name.into(), named(all).into());
            }
        }
    }
    if !capture.locals.is_empty() {
        let locals: Vec<Value> = capture.locals.iter().map(|name| json!({"name": name})).collect();
        parameters.insert("locals".into(), locals.into());
    }
    parameters
}

fn v1(wanted: &Provenance, request: &Request, (said, capture): (&Said, &Capture)) -> Value {
    let mut internal = Map::new();
    if let Some(steps) = &said.steps {
        internal.insert("buildConfig".into(), steps.clone());
    }
    internal.insert("builderPlatform".into(), said.platform.clone().into());
    let mut definition = Map::new();
    definition.insert("buildType".into(), BUILD_V1.into());
    definition.insert("externalParameters".into(), json!({"configSource": said.source, "request": said.parameters}));
    definition.insert("internalParameters".into(), internal.into());
    if !said.materials.is_empty() {
        definition.insert("resolvedDependencies".into(), said.materials.clone().into());
    }
    let mut metadata = Map::new();
    metadata.insert("invocationID".into(), request.reference.clone().into());
    metadata.insert("startedOn".into(), request.started.rfc3339_nano().into());
    metadata.insert("finishedOn".into(), now().rfc3339_nano().into());
    metadata.insert("buildkit_metadata".into(), said.metadata.clone().into());
    if is_hermetic(capture) {
        metadata.insert("buildkit_hermetic".into(), true.into());
    }
    let complete = json!({"request": said.is_whole, "resolvedDependencies": capture.is_complete()});
    metadata.insert("buildkit_completeness".into(), complete);
    if wanted.reproducible {
        metadata.insert("buildkit_reproducible".into(), true.into());
    }
    json!({
        "buildDefinition": definition,
        "runDetails": {"builder": {"id": wanted.builder_id}, "metadata": metadata},
    })
}

fn v02(wanted: &Provenance, request: &Request, (said, capture): (&Said, &Capture)) -> Value {
    let mut source = said.source.clone();
    if let Some(path) = source.remove("path") {
        source.insert("entryPoint".into(), path);
    }
    let mut predicate = Map::new();
    predicate.insert("builder".into(), json!({"id": wanted.builder_id}));
    predicate.insert("buildType".into(), BUILD_V02.into());
    if !said.materials.is_empty() {
        predicate.insert("materials".into(), said.materials.clone().into());
    }
    let environment = json!({"platform": said.platform});
    let invocation = json!({"configSource": source, "parameters": said.parameters, "environment": environment});
    predicate.insert("invocation".into(), invocation);
    if let Some(steps) = &said.steps {
        predicate.insert("buildConfig".into(), steps.clone());
    }
    let complete = json!({"parameters": said.is_whole, "environment": true, "materials": capture.is_complete()});
    let mut metadata = Map::new();
    metadata.insert("buildInvocationID".into(), request.reference.clone().into());
    metadata.insert("buildStartedOn".into(), request.started.rfc3339_nano().into());
    metadata.insert("buildFinishedOn".into(), now().rfc3339_nano().into());
    metadata.insert("completeness".into(), complete);
    metadata.insert("reproducible".into(), wanted.reproducible.into());
    metadata.insert(format!("{EXTENSION}metadata"), said.metadata.clone().into());
    if is_hermetic(capture) {
        metadata.insert(format!("{EXTENSION}hermetic"), true.into());
    }
    predicate.insert("metadata".into(), metadata.into());
    predicate.into()
}

/// Nothing came in that is not told.
fn is_hermetic(capture: &Capture) -> bool {
    capture.is_complete() && !capture.has_network
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Attributes;
    use model::time::Timestamp;
    use prost::Message;

    fn definition() -> pb::Definition {
        let source = pb::SourceOp {
            identifier: format!("docker-image://docker.io/library/b:1@sha256:{}", "2".repeat(64)),
            ..pb::SourceOp::default()
        };
        let source = pb::Op { op: Some(pb::op::Op::Source(source)), ..pb::Op::default() };
        let input = |op: &pb::Op| {
            let digest = model::digest::Digest::of(model::digest::Algorithm::Sha256, &op.encode_to_vec());
            pb::Input { digest: digest.to_string(), index: 0 }
        };
        let secret = pb::SecretOpt { id: "token".into(), ..pb::SecretOpt::default() };
        let mounts = vec![
            pb::Mount { dest: "/".into(), ..pb::Mount::default() },
            pb::Mount {
                dest: "/s".into(),
                input: -1,
                output: -1,
                mount_type: pb::MountType::Secret as i32,
                secret_opt: Some(secret),
                ..pb::Mount::default()
            },
        ];
        let meta = pb::Meta { args: vec!["true".into()], env: vec!["A=1".into()], ..pb::Meta::default() };
        let exec = pb::ExecOp { meta: Some(meta), mounts, ..pb::ExecOp::default() };
        let exec = pb::Op { inputs: vec![input(&source)], op: Some(pb::op::Op::Exec(exec)), ..pb::Op::default() };
        let last = pb::Op { inputs: vec![input(&exec)], ..pb::Op::default() };
        let def = [source, exec, last].iter().map(Message::encode_to_vec).collect();
        pb::Definition { def, ..pb::Definition::default() }
    }

    fn predicate(settings: &str) -> Value {
        let attributes: Attributes = [
            ("attest:provenance", settings),
            ("build-arg:TOKEN", "hidden"),
            ("label:a", "b"),
            ("context", "https://u:p@h/x.git#main"),
            ("filename", "Other"),
            ("target", "t"),
            ("platform", "linux/amd64"),
            ("vcs:revision", "abc"),
            ("vcs:source", "https://u:p@h/x.git"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let wanted = super::super::Wanted::read(&attributes).unwrap().provenance.unwrap();
        let request = Request {
            frontend: "dockerfile.v0".into(),
            attributes,
            reference: "ref1".into(),
            started: Timestamp::from_unix_seconds(1),
        };
        let definition = definition();
        let capture = Capture::of(&definition, &Default::default()).unwrap();
        let attestation = attestation(&wanted, &request, &capture, &definition).unwrap();
        let Content::Bytes(bytes) = attestation.content else { panic!("no bytes") };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!text.contains(":p@") && !text.contains("attest:"), "{text}");
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn little_is_said_in_mode_min() {
        let said = predicate("mode=min");
        let definition = &said["buildDefinition"];
        let external = &definition["externalParameters"];
        assert_eq!(external["configSource"], json!({"uri": "https://xxxxx:xxxxx@h/x.git#main", "path": "Other"}));
        assert_eq!(external["request"], json!({"frontend": "dockerfile.v0", "args": {"target": "t"}}));
        let uri = "pkg:docker/b@1";
        assert_eq!(definition["resolvedDependencies"], json!([{"uri": uri, "digest": {"sha256": "2".repeat(64)}}]));
        assert_eq!(definition["internalParameters"].as_object().unwrap().len(), 1);
        let metadata = &said["runDetails"]["metadata"];
        assert_eq!(metadata["buildkit_completeness"], json!({"request": false, "resolvedDependencies": true}));
        assert_eq!(
            (&metadata["invocationID"], &metadata["startedOn"]),
            (&json!("ref1"), &json!("1970-01-01T00:00:01Z"))
        );
        assert_eq!(metadata["buildkit_metadata"]["vcs"]["revision"], "abc");
    }

    #[test]
    fn arguments_steps_and_names_of_secrets_are_said_in_mode_max() {
        let said = predicate("mode=max,reproducible=true,builder-id=b");
        let request = &said["buildDefinition"]["externalParameters"]["request"];
        assert_eq!(request["args"]["build-arg:TOKEN"], "hidden");
        assert_eq!(request["secrets"], json!([{"id": "token"}]));
        let config = &said["buildDefinition"]["internalParameters"]["buildConfig"];
        assert_eq!(config["llbDefinition"][1]["op"]["Op"]["exec"]["meta"], json!({"args": ["true"], "env": ["A=1"]}));
        assert_eq!(config["llbDefinition"][1]["inputs"], json!(["step0:0"]));
        assert_eq!(said["runDetails"]["builder"]["id"], "b");
        assert_eq!(said["runDetails"]["metadata"]["buildkit_reproducible"], true);
    }

    #[test]
    fn older_readers_get_the_same_in_their_form() {
        let said = predicate("mode=max,version=v0.2");
        assert_eq!(said["buildType"], BUILD_V02);
        assert_eq!(said["invocation"]["configSource"]["entryPoint"], "Other");
        assert_eq!(said["materials"][0]["uri"], "pkg:docker/b@1");
        let complete = json!({"parameters": true, "environment": true, "materials": true});
        assert_eq!(said["metadata"]["completeness"], complete);
        assert_eq!(said["metadata"]["https://mobyproject.org/buildkit@v1#metadata"]["vcs"]["revision"], "abc");
        assert_eq!(said["buildConfig"]["llbDefinition"].as_array().unwrap().len(), 3);
    }
}
