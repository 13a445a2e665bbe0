//! From a container's row to what the start of its run needs: everything that can be refused, or that may hang on a path
//! of a user's, is looked up here, before anything is made.

use std::sync::Arc;

use model::{Context, Error, Kind, Result};
use monitor::client;
use monitor::proto::{RuntimeChoice, StartSpec};
use run::files::Hosts;
use run::{Attached, RunSpec};

use super::donors::Donors;
use super::{files, links, place, resolver, runtime_spec};
use crate::Engine;
use crate::container::definition::Definition;
use crate::container::definition::log as container_logs;
use crate::container::definition::places::Places;
use crate::held::{Held, Shown};
use crate::secrets;
use crate::settings::{BUILT_IN_RUNTIMES, Roots, Runtimes};

/// What a start says that its log refuses.
const NO_LOG: &str = "failed to create task for container: failed to initialize logging driver";

/// What is to run for this container.
pub fn plan(engine: &Arc<Engine>, row: &Definition, clients: Vec<Attached>, held: Held) -> Result<RunSpec> {
    let settings = &*engine.settings();
    let network = Places::of(row).sandbox(&engine.networks)?;
    let place = place::next(settings, row)?;
    let run_dir = &place.dir;
    let joined = Donors::find(&engine.containers, row)?.open()?;
    let mut shown = Shown::new(held);
    let linked = links::take(&|name| engine.containers.view_of(name), &row.name, &row.host_config)?;
    let mut narrow = runtime_spec::container_spec(engine, settings, row, &place.cgroup, &mut shown)?;
    narrow.process.link_env = linked.environment;
    secrets::show(&secrets::of(engine), row, &mut shown, &mut narrow.mounts.user)?;
    let mut features = engine.host.runtime.clone();
    features.time_namespaces &= settings.containers.isolation.time_namespaces;
    if row.host_config.privileged {
        features.devices = runtime::spec::host::host_devices().context("reading /dev")?;
    }
    let runtime = runtime_choice(&settings.containers.runtimes, &row.host_config.runtime)?;
    let seccomp = match &runtime {
        RuntimeChoice::Builtin => engine.host.seccomp.program(&mut narrow.security, &features)?,
        RuntimeChoice::Cli { .. } => runtime::seccomp::Program::default(),
    };
    let spec = runtime::spec::build(&narrow, &features)?;
    let rootfs = match engine.snapshots.roots.rootfs(row.id.as_str(), &snapshot::keys(&row.image.layers))? {
        snapshot::Rootfs::Overlay { lower, upper, work } => runtime::Rootfs::Overlay { lower, upper, work },
        snapshot::Rootfs::Dir(path) => runtime::Rootfs::Dir(path),
    };
    let bundle =
        runtime::Bundle { id: row.id.as_str().into(), spec, rootfs, seccomp, state_dir: run_dir.join("runtime") };
    let program = StartSpec {
        bundle,
        runtime,
        open_stdin: row.config.open_stdin,
        stdin_once: row.config.stdin_once,
        log: log_spec(&settings.roots, row)?,
        exit_path: run_dir.join(client::EXIT_RECORD),
        spill_dir: settings.roots.tmp.clone(),
        netns: false,
        joined: Vec::new(),
        trees: 0,
        attach: Vec::new(),
        resolver: resolver::of(&engine.networks, settings, Places::of(row), &row.host_config),
    };
    let mut files = files::of(&engine.networks, settings, row)?;
    if let Some(Hosts::Own { extra, .. }) = files.as_mut().map(|files| &mut files.hosts) {
        extra.extend(linked.lines);
    }
    Ok(RunSpec { id: row.id.clone(), place, program, network, joined, trees: shown.trees, files, clients })
}

/// The runtime of this name; an unknown one is refused as the reference does.
pub fn runtime_choice(runtimes: &Runtimes, name: &str) -> Result<RuntimeChoice> {
    let name = if name.is_empty() { runtimes.default.as_str() } else { name };
    if let Some(program) = runtimes.programs.get(name) {
        return Ok(RuntimeChoice::Cli { path: program.path.clone().into(), args: program.args.clone() });
    }
    if BUILT_IN_RUNTIMES.contains(&name) {
        return Ok(RuntimeChoice::Builtin);
    }
    Err(Error::invalid(format!("unknown or invalid runtime name: {name}")))
}

fn log_spec(roots: &Roots, row: &Definition) -> Result<logs::Spec> {
    let attrs = row.parsed().log().and_then(logs::Attributes::json);
    let attrs = attrs.map_err(|error| error.with_kind(Kind::System).prefix(NO_LOG))?;
    let config = &row.host_config.log_config;
    let (driver, options) = (config.kind.clone(), config.config.clone().unwrap_or_default());
    Ok(logs::Spec { driver, options, attrs, place: container_logs::place(roots, row) })
}
