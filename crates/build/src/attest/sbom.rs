//! Lists of the packages in a result, made by an image that speaks the generator's protocol: it is run as a step with the result mounted
//! below `/run/src/core/sbom`, and writes statements to `/run/out` (docs/attestations/sbom-protocol.md of BuildKit).

use std::sync::Arc;

use bollard_buildkit_proto::pb;
use dockerfile::ImageQuestion;
use model::digest::{Algorithm, Digest};
use model::reference::ImageRef;
use model::{Error, Result};
use prost::Message;

use super::request::Definitions;
use super::wanted::Sbom;
use crate::export::{Attestation, Content, Source};
use crate::job::Job;
use crate::result::Failure;
use crate::sources;

/// Where the generator finds the result, and writes to.
const SOURCE: &str = "/run/src/core/sbom";
const DESTINATION: &str = "/run/out/";
/// What it writes.
const SPDX: &str = "https://spdx.dev/Document";
/// The beginning of the name of the main list.
const CORE: &str = "sbom";

/// Lists the packages of each target that has none yet.
pub(super) async fn add(
    job: &Arc<Job>,
    source: &mut Source,
    wanted: &Sbom,
    definitions: &Definitions,
) -> Result<(), Failure> {
    let has_one = |attestation: &Attestation| attestation.predicate_type == SPDX;
    if source.targets.iter().any(|target| target.attestations.iter().any(has_one)) {
        return Ok(());
    }
    let generator = Generator::resolve(job, wanted).await?;
    for target in &mut source.targets {
        let Some(definition) = definitions.get(&target.id).filter(|definition| !definition.def.is_empty()) else {
            continue;
        };
        let scan = generator.definition(definition, &target.id)?;
        let Some(files) = job.solve_definition(&scan).await? else { continue };
        target.attestations.push(Attestation {
            path: String::new(),
            predicate_type: SPDX.to_owned(),
            subjects: Vec::new(),
            content: Content::Bundle(files.chain()),
            inline_only: false,
            core: CORE.to_owned(),
        });
    }
    Ok(())
}

/// The image that lists packages.
struct Generator {
    /// With its digest.
    reference: String,
    args: Vec<String>,
    env: Vec<String>,
    cwd: String,
}

impl Generator {
    async fn resolve(job: &Arc<Job>, wanted: &Sbom) -> Result<Generator> {
        let reference = ImageRef::parse_normalized(&wanted.generator)?.with_default_tag();
        let question = ImageQuestion {
            reference: reference.canonical(),
            platform: image::oci::host(),
            resolve: String::new(),
            title: format!("[internal] load metadata for {}", wanted.generator),
            layout: None,
        };
        let answer = sources::configuration(job, &question).await?;
        let config = dockerfile::Image::read(&answer.config).map_err(|error| Error::invalid(error.message()))?.config;
        let args: Vec<String> = config.entrypoint.iter().chain(&config.cmd).cloned().collect();
        if args.is_empty() {
            return Err(Error::invalid(format!("scanner {} does not have cmd", wanted.generator)));
        }
        let mut env = config.env.clone();
        env.push(format!("BUILDKIT_SCAN_DESTINATION={DESTINATION}"));
        env.push(format!("BUILDKIT_SCAN_SOURCE={SOURCE}"));
        env.extend(wanted.parameters.iter().map(|(name, value)| format!("BUILDKIT_SCAN_{name}={value}")));
        let cwd = if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir.clone() };
        let digest = if answer.digest.is_empty() { String::new() } else { format!("@{}", answer.digest) };
        Ok(Generator { reference: format!("{}{digest}", reference.canonical()), args, env, cwd })
    }

    /// What the generator writes when it looks at what a definition is of.
    fn definition(&self, of: &pb::Definition, name: &str) -> Result<pb::Definition> {
        let malformed = |error: prost::DecodeError| Error::invalid(format!("invalid definition: {error}"));
        let mut definition = of.clone();
        let last = definition.def.pop().unwrap_or_default();
        let result = pb::Op::decode(last.as_slice()).map_err(malformed)?.inputs.into_iter().next();
        let result = result.ok_or_else(|| Error::invalid("invalid definition: it is of nothing"))?;
        let host = image::oci::host();
        let platform = pb::Platform { os: host.os, architecture: host.architecture, ..pb::Platform::default() };
        let scanner = pb::SourceOp { identifier: format!("docker-image://{}", self.reference), ..Default::default() };
        let scanner =
            pb::Op { op: Some(pb::op::Op::Source(scanner)), platform: Some(platform.clone()), ..Default::default() };
        let scanner = put(&mut definition, &scanner, None);
        let scan = pb::Op {
            inputs: vec![scanner, result],
            op: Some(pb::op::Op::Exec(self.exec())),
            platform: Some(platform),
            ..Default::default()
        };
        let title = format!("[{name}] generating sbom using {}", self.reference);
        let scan = pb::Input { index: 1, ..put(&mut definition, &scan, Some(title)) };
        put(&mut definition, &pb::Op { inputs: vec![scan], ..Default::default() }, None);
        Ok(definition)
    }

    fn exec(&self) -> pb::ExecOp {
        let mount =
            |dest: &str, input: i64, output: i64| pb::Mount { dest: dest.into(), input, output, ..Default::default() };
        let tmpfs = pb::Mount { mount_type: pb::MountType::Tmpfs as i32, ..mount("/tmp", -1, -1) };
        let mounts = vec![
            mount("/", 0, 0),
            tmpfs,
            pb::Mount { readonly: true, ..mount(SOURCE, 1, -1) },
            mount(DESTINATION.trim_end_matches('/'), -1, 1),
        ];
        let meta =
            pb::Meta { args: self.args.clone(), env: self.env.clone(), cwd: self.cwd.clone(), ..pb::Meta::default() };
        pb::ExecOp { meta: Some(meta), mounts, ..pb::ExecOp::default() }
    }
}

/// Adds an operation; what others name it by.
fn put(definition: &mut pb::Definition, operation: &pb::Op, name: Option<String>) -> pb::Input {
    let bytes = operation.encode_to_vec();
    let digest = Digest::of(Algorithm::Sha256, &bytes).to_string();
    if !definition.def.contains(&bytes) {
        definition.def.push(bytes);
    }
    let mut about = pb::OpMetadata::default();
    about.description.extend(name.map(|name| ("llb.customname".to_owned(), name)));
    definition.metadata.insert(digest.clone(), about);
    pb::Input { digest, index: 0 }
}
