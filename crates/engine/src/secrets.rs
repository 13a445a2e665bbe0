//! Secrets and configs of this host: for clients, and in containers that ask for them by a label of their own.
//!
//! A container gets them as files of a tmpfs at `/run/secrets` and `/run/configs`, made for each run; nothing of them is in its
//! definition but names, so that neither inspect, commit nor export has any.

use std::collections::BTreeMap;

use events::Events;
use model::Result;
use model::grant::Grant;
use model::own_label::{self, OwnLabels};
use runtime::memory_files::{self, MemoryFile};
use runtime::spec;

pub use secret::{Draft, Kind, Plain, Secret, Secrets, Update};

use crate::Engine;
use crate::container::definition::Definition;
use crate::held::Shown;

/// Where a container finds them.
fn directory(kind: Kind) -> &'static str {
    match kind {
        Kind::Secret => "/run/secrets",
        Kind::Config => "/run/configs",
    }
}

/// The label that asks for them.
fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Secret => own_label::SECRETS,
        Kind::Config => own_label::CONFIGS,
    }
}

/// The name of the kind's events.
fn event(kind: Kind) -> &'static str {
    match kind {
        Kind::Secret => "secret",
        Kind::Config => "config",
    }
}

/// Those of the daemon.
pub fn of(engine: &Engine) -> Secrets {
    Secrets::new(engine.store.clone(), engine.settings().services.secrets.key_file.clone())
}

fn granted(labels: &OwnLabels, kind: Kind) -> &[Grant] {
    match kind {
        Kind::Secret => &labels.secrets,
        Kind::Config => &labels.configs,
    }
}

/// Refuses what is not there; a container that could never start is not made.
pub fn check(all: &Secrets, labels: &OwnLabels) -> Result<()> {
    for kind in [Kind::Secret, Kind::Config] {
        for grant in granted(labels, kind) {
            // Not "not found", which clients take for the image.
            let found = all.named(kind, &grant.name);
            drop(found.map_err(|e| {
                e.with_kind(model::Kind::InvalidParameter).prefix(format!("invalid label {}", label(kind)))
            })?);
        }
    }
    Ok(())
}

/// Makes one. Blocks. Event: create.
pub fn create(all: &Secrets, events: &Events, draft: Draft) -> Result<Secret> {
    let made = all.create(draft)?;
    publish(events, "create", &made);
    Ok(made)
}

/// Changes the labels of one. Blocks. Event: update.
pub fn update(all: &Secrets, events: &Events, kind: Kind, reference: &str, update: Update) -> Result<()> {
    all.update(kind, reference, update)?;
    if let Ok(changed) = all.find(kind, reference) {
        publish(events, "update", &changed);
    }
    Ok(())
}

/// Removes one that no container asks for. Blocks. Event: remove.
pub fn remove(engine: &Engine, kind: Kind, reference: &str) -> Result<()> {
    // Names of the containers that ask for it, running or not.
    let users = |name: &str| {
        let views = engine.containers.all().into_iter().map(|handle| handle.view());
        let asks = |labels: &OwnLabels| granted(labels, kind).iter().any(|grant| grant.name == name);
        let mut names: Vec<_> =
            views.filter(|view| asks(&view.row.own_labels)).map(|view| view.row.name.clone()).collect();
        names.sort();
        names
    };
    let gone = of(engine).remove(kind, reference, users)?;
    publish(&engine.events, "remove", &gone);
    Ok(())
}

fn publish(events: &Events, action: &str, secret: &Secret) {
    events.publish(event(secret.kind), action, &secret.id, [("name", secret.name.clone())]);
}

/// Adds to a run what its container asks for. Blocks.
///
/// Errors: `NotFound` for what is there no more; `System` when it cannot be decrypted.
pub fn show(all: &Secrets, row: &Definition, shown: &mut Shown, mounts: &mut Vec<spec::Mount>) -> Result<()> {
    for kind in [Kind::Secret, Kind::Config] {
        let grants = granted(&row.own_labels, kind);
        if grants.is_empty() {
            continue;
        }
        let mut opened: BTreeMap<&str, Plain> = BTreeMap::new();
        for grant in grants {
            opened.insert(&grant.name, all.open(&all.named(kind, &grant.name)?)?);
        }
        let files = grants.iter().map(|Grant { name, file, uid, gid, mode }| MemoryFile {
            name: file,
            data: &opened[name.as_str()],
            owner: (*uid, *gid),
            mode: *mode,
        });
        let files: Vec<_> = files.collect();
        let tree = memory_files::mount(&files)?;
        let bind = spec::Bind {
            source: String::new(),
            subpath: String::new(),
            namespace: None,
            tree: None,
            access: spec::Access::ReadOnly,
            recursion: spec::Recursion::Top,
            propagation: None,
            source_mount: None,
            propagation_optional: true,
        };
        mounts
            .push(spec::Mount { target: directory(kind).into(), kind: spec::MountKind::Bind(shown.pass(tree, bind)?) });
    }
    Ok(())
}
