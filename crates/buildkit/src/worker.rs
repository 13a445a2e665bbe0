//! What the builder says of itself: its one worker, and what it is able to do.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::apicaps::ApiCap;
use bollard_buildkit_proto::moby::buildkit::v1::types::{BuildkitVersion, WorkerRecord};
use bollard_buildkit_proto::pb;
use serde_json::{Value, json};

use crate::daemon::Daemon;

/// The BuildKit whose API this is.
const PACKAGE: &str = "github.com/moby/buildkit";
const VERSION: &str = "v0.23.2-gantry";
/// Labels. By the first one clients know that images are kept as in containerd's store: several platforms, attestations, and every
/// exporter and cache.
const SNAPSHOTTER: &str = "org.mobyproject.buildkit.worker.snapshotter";
const HOST_GATEWAY: &str = "org.mobyproject.buildkit.worker.moby.host-gateway-ip";

/// What definitions may ask for.
const DEFINITIONS: &[&str] = &[
    "source.image",
    "source.image.resolvemode",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.local.differ",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.http",
    "source.http.checksum",
    "source.http.perm",
    "source.http.uidgid",
    "source.ocilayout",
    "source.buildop.llbfilename",
    "exec.meta.base",
    "exec.meta.cgroup.parent",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.meta.removemountstubs.recursive",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exec.secretenv",
    "exec.validexitcode",
    "file.base",
    "file.rm.wildcard",
    "file.copy.includeexcludepatterns",
    "file.rm.nofollowsymlink",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.modestring",
    "file.symlink.create",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "mergeop",
    "diffop",
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.sourcedateepoch",
    "exporter.multiple",
];

/// What front ends may ask for.
const FRONT_ENDS: &[&str] = &[
    "solve.base",
    "resolveimage",
    "resolveimage.resolvemode",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "gateway.exec",
    "gateway.exec.extrahosts",
    "gateway.exec.secretenv",
    "source.metaresolver",
];

fn capabilities(names: &[&str]) -> Vec<ApiCap> {
    names.iter().map(|name| ApiCap { id: (*name).to_owned(), enabled: true, ..ApiCap::default() }).collect()
}

pub(crate) fn of_definitions() -> Vec<ApiCap> {
    capabilities(DEFINITIONS)
}

pub(crate) fn of_front_ends() -> Vec<ApiCap> {
    capabilities(FRONT_ENDS)
}

pub(crate) fn version() -> BuildkitVersion {
    BuildkitVersion { package: PACKAGE.into(), version: VERSION.into(), revision: String::new() }
}

/// The worker.
pub(crate) fn record(daemon: &dyn Daemon) -> WorkerRecord {
    let platform = |platform: model::platform::Platform| pb::Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant,
        ..pb::Platform::default()
    };
    let mut labels = HashMap::from([(SNAPSHOTTER.to_owned(), daemon.snapshotter())]);
    let gateway = daemon.host_gateway();
    if !gateway.is_empty() {
        labels.insert(HOST_GATEWAY.to_owned(), gateway);
    }
    WorkerRecord {
        id: daemon.id(),
        labels,
        platforms: daemon.platforms().into_iter().map(platform).collect(),
        gc_policy: Vec::new(),
        buildkit_version: Some(version()),
        cdi_devices: Vec::new(),
    }
}

/// The worker, as front ends in containers are told of it: JSON of BuildKit's `client.WorkerInfo`.
pub(crate) fn json(daemon: &dyn Daemon) -> String {
    let record = record(daemon);
    let platform = |platform: &pb::Platform| {
        let mut value = json!({"architecture": platform.architecture, "os": platform.os});
        if !platform.variant.is_empty() {
            value["variant"] = platform.variant.clone().into();
        }
        value
    };
    let platforms: Vec<Value> = record.platforms.iter().map(platform).collect();
    json!([{"ID": record.id, "Labels": record.labels, "Platforms": platforms}]).to_string()
}
