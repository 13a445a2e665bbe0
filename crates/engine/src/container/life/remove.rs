//! `DELETE /containers/{id}` and `POST /containers/prune`.

use std::sync::Arc;

use events::{Events, Ride, Rows, now};
use model::filter::Filters;
use model::lifecycle::{Effect, Input, Refusal};
use model::{Error, Kind, Result};
use snapshot::RootStore;

use super::actor::{Accepted, Actor, Done, redefine};
use super::environment::Environment;
use super::timers::Timer;
use super::{place, procedure};
use crate::Engine;
use crate::container::Containers;
use crate::container::definition::MountRow;
use crate::container::definition::links;
use crate::container::registry::arguments::RemoveArgs;
use crate::container::registry::command::{Command, Reply, answer};
use crate::container::registry::draft;
use crate::container::row::{self, CONTAINERS, ContainerRow};
use crate::disk::{self, Disk};

/// Removes a container with its writable layer, its directory and its log.
pub async fn remove(containers: &Containers, name: &str, args: RemoveArgs) -> Result<()> {
    let handle = containers.find(name)?;
    if handle.view().row.state.is_removing() {
        return Err(Error::conflict(format!("removal of container {name} is already in progress")));
    }
    if args.link {
        return remove_link(containers, name).await;
    }
    match handle.ask(|reply| Command::Remove { args, reply }).await {
        // Somebody else's removal came first; the container is gone, as wished.
        Err(error) if error.kind() == Kind::NotFound && containers.find(name).is_err() && args.force => Ok(()),
        outcome => outcome,
    }
}

/// `DELETE /containers/{parent}/{alias}?link=1`: the link goes, the containers stay. What the hosts file says stays until
/// the next start.
async fn remove_link(containers: &Containers, name: &str) -> Result<()> {
    let path = name.trim_start_matches('/');
    let Some((parent, alias)) = path.rsplit_once('/') else {
        return Err(Error::system("Conflict, cannot remove the default link name of the container"));
    };
    let handle = containers
        .find(parent)
        .map_err(|_| Error::system(format!("Cannot get parent /{parent} for link name /{path}")))?;
    let alias = alias.to_owned();
    handle.ask(|reply| Command::Unlink { alias, reply }).await
}

/// The container with the link loses it.
pub(super) async fn unlink(actor: &mut Actor, alias: String, reply: Reply) {
    let outcome = redefine(actor, |definition| {
        let links = definition.host_config.links.iter_mut();
        links.for_each(|links| links.retain(|link| links::parse(link).is_ok_and(|link| link.alias != alias)));
    });
    let outcome = outcome.await;
    if outcome.is_ok() {
        actor.publish();
    }
    answer(reply, outcome);
}

/// Removes the container, if need be after the end of its run.
pub(super) async fn begin<E: Environment>(actor: &mut Actor<E>, args: RemoveArgs, reply: Reply) {
    let Some(Accepted { row, effects, reply }) = actor.step(Input::Remove { force: args.force }, reply) else {
        return;
    };
    actor.row = row;
    actor.waiting.removals.push(reply);
    actor.waiting.removal = Some(args);
    // What cannot be sent to the monitor was logged; one that does not kill is killed in time.
    drop(actor.perform(&effects).await);
}

/// The container goes with its anonymous volumes (B-ar-1).
pub(super) fn remove_itself<E: Environment>(actor: &mut Actor<E>) {
    actor.waiting.removal = Some(RemoveArgs { volumes: true, ..RemoveArgs::default() });
    remove_now(actor);
}

/// Nothing runs (any more) of a container that is to be removed.
pub(super) fn remove_now<E: Environment>(actor: &mut Actor<E>) {
    // A restart that was due is none.
    actor.timers.cancel(Timer::BackOff);
    if actor.happened(Input::Remove { force: true }).contains(&Effect::Delete) {
        begin_removal(actor);
    }
}

/// The row goes first, then what it referred to; a crash in between leaves what the next start sweeps.
pub(super) fn begin_removal<E: Environment>(actor: &mut Actor<E>) {
    actor.publish();
    // Whoever wants a next run will not get it, whether the removal succeeds or not.
    for reply in actor.waiting.restarts.drain(..) {
        answer(reply, Err(Refusal::StartRemoving.to_error(&actor.row.name, actor.row.id.as_str())));
    }
    let args = actor.waiting.removal.unwrap_or_default();
    (procedure::Procedure { actor }).begin("its files and volumes to be removed");
    let told = actor.engine.events().ride(vec![draft(&actor.row, "destroy", [])]);
    let delete = actor.engine.delete(actor.row.clone(), args, told.rows());
    actor.jobs.spawn(async move { Done::Deleted(delete.await.map(|()| told)) });
}

/// The container is gone, or it is dead, for later daemons too, and can be removed again.
pub(super) async fn deleted<E: Environment>(actor: &mut Actor<E>, outcome: Result<Ride>) {
    (procedure::Procedure { actor }).end();
    let (told, text) = match outcome {
        Ok(told) => (Some(told), None),
        Err(error) => (None, Some(error.message().to_string())),
    };
    if let Some(text) = &text {
        actor.happened(Input::RemovalFailed);
        actor.row.run.error.clone_from(text);
        // Its row may be gone, or its files half. It is not destroyed, whatever an earlier commit said.
        let back = actor.engine.events().take_back();
        if actor.record_with(back.rows()).await.is_ok() {
            back.publish();
        }
    } else {
        let containers = actor.engine.containers();
        containers.execs.forget_container(&actor.row.id);
        containers.forget(&actor.row.id, &actor.row.name);
        told.into_iter().for_each(Ride::publish);
    }
    actor.waiting.removal = None;
    actor.publish_removal(text.clone());
    for reply in actor.waiting.removals.drain(..) {
        answer(reply, text.clone().map_or(Ok(()), |text| Err(Error::system(text))));
    }
    actor.gone = text.is_none();
}

/// The row, the directories, then the volumes, whose drivers have threads of their own.
pub(super) async fn delete(engine: &Arc<Engine>, row: ContainerRow, args: RemoveArgs, told: Rows) -> Result<()> {
    let (shared, row) = (engine.clone(), Arc::new(row));
    let removed = row.clone();
    engine.containers.threads.removals.run(move |_| delete_own(&shared, &removed, told)).await?;
    for volume in row.volumes().filter(|volume| args.volumes && volume.anonymous) {
        remove_unused(engine, volume).await?;
    }
    engine.host.faults.pass("remove", "volumes")
}

/// The row, then what it alone refers to.
fn delete_own(engine: &Engine, row: &ContainerRow, told: Rows) -> Result<()> {
    let gone = row.clone();
    engine.store.write_blocking(move |tx| row::delete(tx, &gone).and_then(|()| told.put(tx)))?;
    let faults = &engine.host.faults;
    faults.pass("remove", "row")?;
    let settings = engine.settings();
    // With the writable layer in it.
    engine.containers.trash.take(&settings.roots.container(row.id.as_str()))?;
    faults.pass("remove", "directory")?;
    let run_dir = place::run_dir(&settings.roots, row);
    sys::descriptors::persist(|| run::place::remove_dir(&run_dir))?;
    faults.pass("remove", "run")
}

/// Removes an anonymous volume, unless a container has it in its row: the last one that goes takes it along, of several that
/// go beside each other as well.
async fn remove_unused(engine: &Arc<Engine>, volume: &MountRow) -> Result<()> {
    let named_by = || {
        let users = crate::volume::named_by(&engine.containers, &volume.name)?.into_iter();
        let has_row = |user: &String| engine.store.read(|tx| tx.get(&CONTAINERS, user)).map(|row| row.is_some());
        users.filter_map(|user| has_row(&user).map(|has| has.then_some(user)).transpose()).collect()
    };
    match engine.volumes.remove(&volume.name, named_by).await {
        Err(error) if error.kind() == Kind::Conflict => {}
        Ok(()) => engine.events.publish("volume", "destroy", &volume.name, [("driver", volume.driver.clone())]),
        // Taken along by somebody else.
        Err(error) if error.kind() == Kind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The filter keys of prune.
const PRUNE_KEYS: &[&str] = &["label", "label!", "until"];

/// Removes all containers that do not run and pass the filters; their ids and the bytes given back.
pub async fn prune(
    containers: &Containers,
    roots: &Arc<dyn RootStore>,
    events: &Events,
    disk: &Disk,
    filters: &Filters,
) -> Result<(Vec<String>, u64)> {
    let _turn = disk::turn(&disk.pruning.containers)?;
    filters.validate(PRUNE_KEYS)?;
    let until = filters.until(now())?;
    let (mut removed, mut bytes) = (Vec::new(), 0);
    for handle in containers.all() {
        let view = handle.view();
        let labels = view.row.config.labels.clone().unwrap_or_default();
        let chosen = !view.row.state.is_running()
            && !view.row.own_labels.keep
            && until.is_none_or(|until| view.row.created <= until)
            && filters.match_labels(&labels);
        if !chosen {
            continue;
        }
        let (walked, id) = (roots.clone(), handle.id.clone());
        let size = disk.walks.run(move |_| walked.usage(id.as_str())).await.unwrap_or(0);
        let args = RemoveArgs::default();
        if let Err(error) = handle.ask(|reply| Command::Remove { args, reply }).await {
            // Somebody else's removal may have come first.
            if error.kind() != Kind::NotFound {
                tracing::warn!(container = handle.id.short(), %error, "not pruned");
            }
            continue;
        }
        removed.push(handle.id.as_str().to_string());
        bytes += size;
    }
    events.publish("container", "prune", "", [("reclaimed", bytes.to_string())]);
    Ok((removed, bytes))
}
