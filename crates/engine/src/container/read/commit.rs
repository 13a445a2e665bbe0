//! `POST /commit`: what a container has become, as an image (B-im-12).
//!
//! The container is frozen meanwhile unless the client does not want that, and goes on in every case: when the commit
//! fails, when the client leaves, and when the daemon dies over it (the next one sees from the row why it was frozen).

use std::sync::Arc;
use std::time::Instant;

use api::{ContainerConfig, HealthConfig, ImageConfig};
use image::{self, CommitImage};
use model::Result;
use model::reference::ImageRef;

use super::export::refuse_dying;
use crate::Engine;
use crate::container::definition::Definition;
use crate::container::publish;
use crate::container::registry::command::Command;
use crate::container::registry::standing::Standing;

/// What commit takes.
#[derive(Clone, Debug, Default)]
pub struct CommitArgs {
    /// The container.
    pub container: String,
    /// The name that the image gets; `None`: it stays without.
    pub name: Option<ImageRef>,
    /// The comment of its history.
    pub comment: String,
    /// Who made it; empty: who made the image below.
    pub author: String,
    /// Leave the container running.
    pub no_pause: bool,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// Instead of the container's configuration, which fills in what this leaves open.
    pub config: Option<ContainerConfig>,
}

/// Makes the image; answers its id. Events: pause and unpause, create and tag of the image, commit.
///
/// Errors: `NotFound`, `Conflict` for a container that is dead or being removed, `InvalidParameter` for bad changes.
pub async fn commit(engine: &Arc<Engine>, args: CommitArgs) -> Result<String> {
    let handle = engine.containers.find(&args.container)?;
    refuse_dying(&handle.view().row, "commit")?;
    // Before it is frozen: it must not wait for others.
    let turn = engine.disk.walks.turn().await;
    let asked = Instant::now();
    let frozen = !args.no_pause && handle.ask(|reply| Command::Pause { passing: true, reply }).await.is_ok();
    let standing = frozen.then(|| handle.stand(asked));
    let row = handle.view().row.clone();
    let (working, shared) = (row.clone(), engine.clone());
    let (comment, name) = (args.comment.clone(), args.name.as_ref().map(ImageRef::familiar).unwrap_or_default());
    let made = turn.run(move |_| make(&shared, &working, args, standing.as_ref())).await;
    if frozen && let Err(error) = handle.ask(|reply| Command::Unpause { reply }).await {
        // Somebody else has let it go on, or ended it.
        tracing::debug!(container = row.id.short(), %error, "not thawed after a commit");
    }
    // It may have been removed while it was read.
    let id = made.or_else(|error| refuse_dying(&handle.view().row, "commit").and(Err(error)))?;
    publish(&engine.events, &row, "commit", [("comment", comment), ("imageID", id.clone()), ("imageRef", name)]);
    Ok(id)
}

fn make(engine: &Engine, row: &Definition, args: CommitArgs, standing: Option<&Standing>) -> Result<String> {
    let own = portable(&row.config);
    let given = args.config.as_ref().map_or_else(|| own.clone(), portable);
    let changed = image::apply_changes(given, &args.changes)?;
    let keeps_entrypoint = entrypoint_is_given(args.config.as_ref(), &args.changes);
    let config = inherit(changed, own, keeps_entrypoint);
    let layers = snapshot::keys(&row.image.layers);
    let wanted = CommitImage {
        pack: &|out| {
            let written = engine.snapshots.roots.write_diff(row.id.as_str(), &layers, out)?;
            standing.map_or(Ok(()), Standing::check).map(|()| written)
        },
        image: &row.image.id,
        manifest: row.image.manifest.as_ref().map(|(_, digest, _)| digest),
        config,
        created_by: row.config.cmd.as_deref().unwrap_or_default().join(" "),
        comment: args.comment,
        author: args.author,
        name: args.name,
    };
    Ok(image::commit(&engine.images, &engine.events, wanted)?.to_string())
}

/// The part of a container's configuration that an image has too.
fn portable(config: &ContainerConfig) -> ImageConfig {
    ImageConfig {
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.clone(),
        env: config.env.clone().unwrap_or_default(),
        entrypoint: config.entrypoint.clone().unwrap_or_default(),
        cmd: config.cmd.clone().unwrap_or_default(),
        volumes: config.volumes.clone().unwrap_or_default(),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone().unwrap_or_default(),
        stop_signal: config.stop_signal.clone(),
        args_escaped: config.args_escaped,
        healthcheck: config.healthcheck.clone(),
        on_build: config.on_build.clone(),
        shell: config.shell.clone(),
    }
}

/// An entrypoint that was given as an empty list stays empty.
fn entrypoint_is_given(config: Option<&ContainerConfig>, changes: &[String]) -> bool {
    let named = |line: &str| line.trim_start().get(..10).is_some_and(|word| word.eq_ignore_ascii_case("ENTRYPOINT"));
    config.is_some_and(|config| config.entrypoint.is_some()) || changes.iter().any(|change| change.lines().any(named))
}

/// What the wanted configuration leaves open is the container's.
fn inherit(mut wanted: ImageConfig, own: ImageConfig, keeps_entrypoint: bool) -> ImageConfig {
    let text = |wanted: &mut String, own: String| {
        if wanted.is_empty() {
            *wanted = own;
        }
    };
    text(&mut wanted.user, own.user);
    text(&mut wanted.working_dir, own.working_dir);
    text(&mut wanted.stop_signal, own.stop_signal);
    for (port, empty) in own.exposed_ports {
        wanted.exposed_ports.entry(port).or_insert(empty);
    }
    for (key, value) in own.labels {
        wanted.labels.entry(key).or_insert(value);
    }
    wanted.volumes.extend(own.volumes);
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in own.env {
        if !wanted.env.iter().any(|given| key(given) == key(&entry)) {
            wanted.env.push(entry);
        }
    }
    if wanted.entrypoint.is_empty() {
        if wanted.cmd.is_empty() {
            wanted.cmd = own.cmd;
        }
        if !keeps_entrypoint {
            wanted.entrypoint = own.entrypoint;
        }
    }
    wanted.healthcheck = inherit_health(wanted.healthcheck, own.healthcheck);
    wanted
}

fn inherit_health(wanted: Option<HealthConfig>, own: Option<HealthConfig>) -> Option<HealthConfig> {
    let (Some(mut wanted), Some(own)) = (wanted.clone(), own.clone()) else { return wanted.or(own) };
    if wanted.test.is_empty() {
        wanted.test = own.test;
    }
    let number = |wanted: i64, own: i64| if wanted == 0 { own } else { wanted };
    Some(HealthConfig {
        test: wanted.test,
        interval: number(wanted.interval, own.interval),
        timeout: number(wanted.timeout, own.timeout),
        start_period: number(wanted.start_period, own.start_period),
        start_interval: number(wanted.start_interval, own.start_interval),
        retries: number(wanted.retries, own.retries),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> ImageConfig {
        ImageConfig {
            user: "1000".into(),
            env: vec!["A=1".into(), "B=2".into()],
            entrypoint: vec!["/entry".into()],
            cmd: vec!["cmd".into()],
            working_dir: "/srv".into(),
            labels: [("k".to_owned(), "own".to_owned()), ("l".to_owned(), "own".to_owned())].into(),
            healthcheck: Some(HealthConfig { test: vec!["CMD".into(), "x".into()], retries: 3, ..Default::default() }),
            ..ImageConfig::default()
        }
    }

    #[test]
    fn what_is_left_open_is_the_containers() {
        assert_eq!(inherit(ImageConfig::default(), own(), false), own());
        assert_eq!(inherit(own(), own(), false), own());
    }

    #[test]
    fn what_is_given_wins() {
        let wanted = ImageConfig {
            env: vec!["B=3".into(), "C=4".into()],
            cmd: vec!["other".into()],
            labels: [("k".to_owned(), "given".to_owned())].into(),
            healthcheck: Some(HealthConfig { interval: 5, ..Default::default() }),
            ..ImageConfig::default()
        };
        let merged = inherit(wanted, own(), false);
        assert_eq!(merged.env, ["B=3", "C=4", "A=1"]);
        assert_eq!((merged.cmd, merged.entrypoint), (vec!["other".to_owned()], vec!["/entry".to_owned()]));
        assert_eq!((merged.labels["k"].as_str(), merged.labels["l"].as_str()), ("given", "own"));
        let health = merged.healthcheck.unwrap();
        assert_eq!((health.interval, health.retries, health.test.len()), (5, 3, 2));
    }

    #[test]
    fn a_new_entrypoint_drops_the_command_and_an_empty_one_stays() {
        let changed = image::apply_changes(own(), &["ENTRYPOINT [\"/new\"]".to_owned()]).unwrap();
        let merged = inherit(changed, own(), true);
        assert_eq!((merged.entrypoint, merged.cmd), (vec!["/new".to_owned()], vec![]));
        let changed = image::apply_changes(own(), &["entrypoint []".to_owned()]).unwrap();
        assert!(entrypoint_is_given(None, &["entrypoint []".to_owned()]));
        let merged = inherit(changed, own(), true);
        assert_eq!((merged.entrypoint, merged.cmd), (vec![], vec!["cmd".to_owned()]));
    }
}
