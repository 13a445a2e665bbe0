//! What steps are found by in caches that BuildKit reads and writes.
//!
//! A record has the digest of its operation ([`Keyed::digests`], `CacheMap` of BuildKit's package `solver/llbsolver/ops`), and for
//! each input the records that it may go on from: those of the step before, with a selector that says which files are used, or one
//! of the content of these files. Sources are known by what they are, not by what they are called.

mod files;
mod json;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::pb;
use bollard_buildkit_proto::pb::file_action::Action;
use bollard_buildkit_proto::pb::op::Op;
use bollard_buildkit_proto::pb::user_opt::User;
use model::digest::{Algorithm, Digest};
use snapshot::LayerKey;

use crate::graph::Vertex;
use crate::record::Layer;
use files::is_wild;
use json::{Dialect, Object};

pub(super) use files::{Selector, digests};

/// The output of the records of contents.
const CONTENT: i64 = -1;

/// What a step is found by.
pub(super) struct Keyed {
    /// Of the operation: one for each way in which BuildKit has written it.
    pub(super) digests: Vec<Digest>,
    /// For each input.
    pub(super) inputs: Vec<Used>,
}

/// What a step uses of an input.
#[derive(Clone, Debug, Default)]
pub(super) struct Used {
    /// Goes with records of the step before; empty: none.
    pub(super) selector: String,
    /// The files by which the input may be known instead.
    pub(super) content: Option<Vec<Selector>>,
}

fn sha256(bytes: impl AsRef<[u8]>) -> Digest {
    Digest::of(Algorithm::Sha256, bytes.as_ref())
}

/// The digest of a record: of a step's digest and one of its outputs.
pub(super) fn record(digest: &Digest, output: i64) -> Digest {
    sha256(format!("{digest}@{output}"))
}

/// The record of contents.
pub(super) fn content(digest: &Digest) -> Digest {
    record(digest, CONTENT)
}

/// The record of an image whose layers these are; `None`: nobody knows what they are.
pub(super) fn image(chain: &[Layer]) -> Option<Digest> {
    let mut id: Option<Digest> = None;
    for layer in chain {
        let LayerKey::Diff(diff_id) = &layer.key else { return None };
        id = Some(id.map_or_else(|| diff_id.clone(), |id| sha256(format!("{id} {diff_id}"))));
    }
    Some(record(&sha256(format!("buildkit.source.v0:{}", id?)), 0))
}

/// What a step is found by; `None`: by nothing.
pub(super) fn of(vertex: &Vertex) -> Option<Keyed> {
    let mut digests: Vec<Digest> = Vec::new();
    for dialect in Dialect::ALL {
        let digest = sha256(operation(vertex, dialect)?);
        if !digests.contains(&digest) {
            digests.push(digest);
        }
    }
    let mut inputs = vec![Used::default(); vertex.inputs.len()];
    match &vertex.op {
        Op::Exec(exec) => of_mounts(exec, &mut inputs)?,
        Op::File(file) => of_actions(file, &mut inputs)?,
        _ => {}
    }
    Some(Keyed { digests, inputs })
}

fn operation(vertex: &Vertex, dialect: Dialect) -> Option<String> {
    let object = Object::default();
    Some(match &vertex.op {
        Op::Exec(exec) => {
            let host = || {
                let host = image::oci::host();
                pb::Platform { os: host.os, architecture: host.architecture, ..pb::Platform::default() }
            };
            let platform = vertex.platform.clone().unwrap_or_else(host);
            object
                .text("Type", "buildkit.exec.v0")
                .raw("Exec", json::exec(exec, dialect))
                .raw("OS", json::quoted(&platform.os))
                .raw("Arch", json::quoted(&platform.architecture))
                .text("Variant", &platform.variant)
                .text("OSVersion", &platform.os_version)
                .texts("OSFeatures", &platform.os_features)
                .done()
        }
        Op::File(file) => {
            let called = |action: &pb::FileAction| match &action.action {
                Some(Action::Copy(copy)) if at(action.secondary_input, vertex.inputs.len()).is_some() => {
                    Some(last_name(&copy.src).to_owned())
                }
                _ => None,
            };
            let action = |own: &pb::FileAction| {
                json::quoted(&STANDARD.encode(json::action(own, called(own).as_deref(), dialect)))
            };
            let places = |own: &pb::FileAction| format!("[{},{},{}]", own.input, own.secondary_input, own.output);
            let object = object
                .text("Type", "buildkit.file.v0")
                .raw("Actions", format!("[{}]", joined(file.actions.iter().map(action))));
            match is_usual(&file.actions) {
                true => object,
                false => object.list("indexes", file.actions.iter().map(places)),
            }
            .done()
        }
        Op::Merge(merge) => object.text("Type", "buildkit.merge.v0").raw("Merge", json::merge(merge, dialect)).done(),
        Op::Diff(diff) => object.text("Type", "buildkit.diff.v0").raw("Diff", json::diff(diff, dialect)).done(),
        Op::Source(_) | Op::Build(_) => return None,
    })
}

fn joined(values: impl Iterator<Item = String>) -> String {
    values.collect::<Vec<_>>().join(",")
}

/// An index of one of `count` inputs.
fn at(index: i64, count: usize) -> Option<usize> {
    usize::try_from(index).ok().filter(|at| *at < count)
}

/// The last name of a path, as Go's `path.Base` has it.
fn last_name(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match (path.is_empty(), trimmed.is_empty()) {
        (true, _) => ".",
        (_, true) => "/",
        _ => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

/// Whether each action goes on with what the one before has left, as most do. Then places are not part of the key.
fn is_usual(actions: &[pb::FileAction]) -> bool {
    let count = actions.len() as i64;
    !actions.is_empty()
        && (0..).zip(actions).all(|(at, action)| {
            let input = if at == 0 { 0 } else { count + at - 1 };
            let output = if at == count - 1 { 0 } else { -1 };
            action.input == input && matches!(action.secondary_input, -1 | 1) && action.output == output
        })
}

/// Which files of its inputs a program uses; `None`: mounts do not fit the inputs.
fn of_mounts(exec: &pb::ExecOp, inputs: &mut [Used]) -> Option<()> {
    let mut selectors: Vec<Vec<String>> = vec![Vec::new(); inputs.len()];
    let mut by_content = vec![false; inputs.len()];
    for mount in &exec.mounts {
        let kind = pb::MountType::try_from(mount.mount_type).unwrap_or(pb::MountType::Bind);
        if matches!(kind, pb::MountType::Secret | pb::MountType::Ssh | pb::MountType::Tmpfs) || mount.input == -1 {
            continue;
        }
        let index = at(mount.input, inputs.len())?;
        let part = model::mount::clean(&format!("/{}", mount.selector));
        let is_safe = mount.output == -1 || mount.readonly || part == "/";
        let wanted = pb::MountContentCache::try_from(mount.content_cache).unwrap_or(pb::MountContentCache::Default);
        by_content[index] = match wanted {
            pb::MountContentCache::Off => false,
            pb::MountContentCache::On => is_safe,
            pb::MountContentCache::Default => is_safe && mount.dest != "/",
        };
        selectors[index].push(part);
    }
    for ((used, paths), by_content) in inputs.iter_mut().zip(selectors).zip(by_content) {
        if !paths.is_empty() {
            used.selector = sha256(paths.join("\0")).to_string();
        }
        let all = paths.iter().any(|path| path == "/");
        let follow = |path| Selector { path, follow: true, ..Selector::default() };
        used.content =
            by_content.then(|| if all { Vec::new() } else { outermost(paths).into_iter().map(follow).collect() });
    }
    Some(())
}

/// Which files of its inputs actions use; `None`: owners do not fit the inputs.
fn of_actions(file: &pb::FileOp, inputs: &mut [Used]) -> Option<()> {
    let mut selectors: Vec<Vec<Selector>> = vec![Vec::new(); inputs.len()];
    for action in &file.actions {
        let owner = match &action.action {
            Some(Action::Copy(own)) => &own.owner,
            Some(Action::Mkfile(own)) => &own.owner,
            Some(Action::Mkdir(own)) => &own.owner,
            _ => &None,
        };
        let owner = owner.clone().unwrap_or_default();
        for (user, path) in [(owner.user, "/etc/passwd"), (owner.group, "/etc/group")] {
            if let Some(User::ByName(named)) = user.and_then(|user| user.user) {
                let path = path.to_owned();
                selectors.get_mut(usize::try_from(named.input).ok()?)?.push(Selector {
                    path,
                    follow: true,
                    ..Selector::default()
                });
            }
        }
        if let (Some(Action::Copy(copy)), Some(at)) = (&action.action, at(action.secondary_input, inputs.len())) {
            selectors[at].push(Selector {
                path: copy.src.clone(),
                follow: copy.follow_symlink,
                wild: copy.allow_wildcard && is_wild(&copy.src),
                patterns: (copy.include_patterns.clone(), copy.exclude_patterns.clone()),
            });
        }
    }
    for (index, (used, selectors)) in inputs.iter_mut().zip(selectors).enumerate() {
        let is_target = file.actions.iter().any(|action| at(action.input, usize::MAX) == Some(index));
        if selectors.is_empty() || is_target {
            continue;
        }
        let mut paths: Vec<&str> = selectors.iter().map(|selector| selector.path.as_str()).collect();
        paths.sort_unstable();
        paths.reverse();
        used.selector = sha256(paths.join("\0")).to_string();
        used.content = Some(distinct(selectors));
    }
    Some(())
}

/// Paths that lie below no other, in order.
fn outermost(mut paths: Vec<String>) -> Vec<String> {
    paths.sort();
    if paths.len() == 1 {
        return paths;
    }
    paths.dedup();
    let all = paths.clone();
    paths.retain(|path| {
        let is_below =
            |other: &&String| *other != path && path.starts_with(&format!("{}/", other.trim_end_matches('/')));
        !all.iter().any(|other| is_below(&other))
    });
    paths
}

/// Selectors of which none is a part of another, by their paths.
fn distinct(selectors: Vec<Selector>) -> Vec<Selector> {
    let plain = |follow: bool| {
        let own = selectors.iter().filter(|selector| !selector.is_filtered() && selector.follow == follow);
        let paths = outermost(own.map(|selector| selector.path.clone()).collect());
        paths.into_iter().map(move |path| Selector { path, follow, ..Selector::default() }).collect::<Vec<_>>()
    };
    let mut all = [plain(false), plain(true)].concat();
    all.extend(selectors.iter().filter(|selector| selector.is_filtered()).cloned());
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

#[cfg(test)]
mod tests;
