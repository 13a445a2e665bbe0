//! The registry: containers by id and name, each with the queue of its actor and its published view, and what all of them
//! share.
//!
//! Its lock is held for look-ups only, never across an await, never while work is done.

pub mod arguments;
pub mod claims;
pub mod command;
pub mod exec_bounds;
pub mod exec_session;
pub mod execs;
pub mod probes;
pub mod readers;
pub mod standing;
pub mod threads;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use model::id::ContainerId;
use model::lock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use model::{Error, Result};
use tokio::sync::{mpsc, oneshot, watch};

use events::{Draft, Events};

use self::claims::Claims;
use self::command::Command;
use self::execs::Execs;
use self::probes::ProbeCounts;
use self::readers::Readers;
use self::standing::Standing;
use self::threads::Threads;
use super::definition::{Definition, links};
use super::unloaded::Unloaded;
use super::view::ContainerView;
use crate::ending::Ending;

/// Commands that may wait for one actor.
pub const COMMAND_QUEUE: usize = 64;

/// A container as others see it: somebody to talk to and something to read.
#[derive(Clone)]
pub struct Handle {
    /// The full id.
    pub id: ContainerId,
    commands: mpsc::Sender<Command>,
    views: watch::Receiver<Arc<ContainerView>>,
}

impl Handle {
    /// Of the container whose actor takes these commands and publishes these views.
    pub(in crate::container) fn new(
        id: ContainerId,
        commands: mpsc::Sender<Command>,
        views: watch::Receiver<Arc<ContainerView>>,
    ) -> Handle {
        Handle { id, commands, views }
    }

    /// The newest published view; never waits.
    pub fn view(&self) -> Arc<ContainerView> {
        self.views.borrow().clone()
    }

    /// A receiver that sees every later change.
    pub fn watch(&self) -> watch::Receiver<Arc<ContainerView>> {
        self.views.clone()
    }

    /// Commands that wait for the actor.
    pub fn waiting(&self) -> usize {
        self.commands.max_capacity() - self.commands.capacity()
    }

    /// Sends a command; an actor that is gone means the container is.
    pub async fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).await.map_err(|_| no_such(self.id.as_str()))
    }
}

/// All containers of the daemon, with their exec sessions.
pub struct Containers {
    index: RwLock<Index>,
    pub(in crate::container) execs: Execs,
    /// Where the directories of removed containers go.
    pub(crate) trash: snapshot::Trash,
    /// For containers that will be started.
    pub(in crate::container) monitors: monitor::Spares,
    pub(in crate::container) logs: Readers,
    /// Who mounts their writable layers.
    pub(in crate::container) claims: Claims,
    pub(crate) threads: Threads,
    /// Whether the daemon ends: no container starts any more.
    pub ending: Ending,
    /// How many probes of health checks there were.
    pub probes: ProbeCounts,
    /// Those that are not loaded.
    pub unloaded: Vec<Unloaded>,
}

#[derive(Default)]
struct Index {
    by_id: BTreeMap<ContainerId, Handle>,
    names: HashMap<String, ContainerId>,
}

impl Containers {
    /// None but those that are not loaded, whose names are taken. To be called on the runtime.
    pub fn new(trash: snapshot::Trash, monitors: monitor::Spares, unloaded: Vec<Unloaded>) -> Containers {
        let (execs, claims, ending, probes) = Default::default();
        let (logs, threads) = (Readers::start(), Threads::new());
        let names = unloaded.iter().filter_map(|one| Some((one.name.clone()?, one.id.clone()))).collect();
        let index = RwLock::new(Index { names, ..Index::default() });
        Containers { index, execs, trash, monitors, logs, claims, threads, ending, probes, unloaded }
    }

    /// Refuses what would begin now: the daemon ends (`Unavailable`), or descriptors are short (`System`).
    pub(crate) fn refuse_new(&self) -> Result<()> {
        self.ending.refuse()?;
        if sys::descriptors::are_short(sys::descriptors::KEPT_FROM_STARTS) {
            return Err(Error::system("too many open files"));
        }
        Ok(())
    }

    /// Finds by full id, then exact name (leading slash optional), then unique id prefix (B-id-1); or by a link, `web/alias`.
    pub fn find(&self, key: &str) -> Result<Handle> {
        if key.is_empty() {
            return Err(Error::invalid("invalid name or ID supplied: \"\""));
        }
        let index = self.read();
        let by_id = ContainerId::parse(key).and_then(|id| index.by_id.get(&id));
        let named = || index.names.get(key.strip_prefix('/').unwrap_or(key)).and_then(|id| index.by_id.get(id));
        if let Some(handle) = by_id.or_else(named) {
            return Ok(handle.clone());
        }
        drop(index);
        if key.trim_start_matches('/').contains('/') {
            return self.linked(key);
        }
        self.with_prefix(key)
    }

    /// Finds the container that is called so by a link: `web/alias`.
    fn linked(&self, path: &str) -> Result<Handle> {
        let missing = || no_such(path);
        let (parent, alias) = path.trim_start_matches('/').rsplit_once('/').ok_or_else(missing)?;
        let view = self.find(parent).map_err(|_| missing())?.view();
        let mut links = view.row.host_config.links.iter().flatten().filter_map(|link| links::parse(link).ok());
        let link = links.find(|link| link.alias == alias).ok_or_else(missing)?;
        self.find(&link.name).map_err(|_| missing())
    }

    /// A container's view, by name or id.
    pub(crate) fn view_of(&self, name: &str) -> Option<Arc<ContainerView>> {
        self.find(name).ok().map(|handle| handle.view())
    }

    /// Finds the one container whose id begins so.
    pub fn with_prefix(&self, prefix: &str) -> Result<Handle> {
        if prefix.is_empty() {
            return Err(Error::invalid("prefix can't be empty"));
        }
        let index = self.read();
        let mut with_prefix = index.by_id.values().filter(|h| h.id.as_str().starts_with(prefix));
        match (with_prefix.next(), with_prefix.next()) {
            (Some(handle), None) => Ok(handle.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!("multiple IDs found with provided prefix: {prefix}"))),
            (None, _) => Err(no_such(prefix)),
        }
    }

    /// All containers, in the order of their ids.
    pub fn all(&self) -> Vec<Handle> {
        self.read().by_id.values().cloned().collect()
    }

    /// Entries of the tables here.
    pub fn sizes(&self) -> [(&'static str, usize); 3] {
        let index = self.read();
        [("containers", index.by_id.len()), ("names", index.names.len()), ("execs", self.execs.count())]
    }

    /// Reserves a name for an id; the holder's id is named in the refusal (B-id-2).
    pub fn reserve(&self, name: &str, id: &ContainerId) -> Result<()> {
        let mut index = self.write();
        match index.names.get(name) {
            Some(holder) if holder != id => Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". \
                 You have to remove (or rename) that container to be able to reuse that name.",
                holder = holder.as_str()
            ))),
            _ => {
                index.names.insert(name.to_string(), id.clone());
                Ok(())
            }
        }
    }

    /// Frees a name if this id holds it.
    pub fn release(&self, name: &str, id: &ContainerId) {
        let mut index = self.write();
        if index.names.get(name) == Some(id) {
            index.names.remove(name);
        }
    }

    /// The ids of all containers that are here, are being made, or are being removed.
    pub(crate) fn ids(&self) -> HashSet<String> {
        let index = self.read();
        index.by_id.keys().chain(index.names.values()).map(|id| id.as_str().to_owned()).collect()
    }

    /// Lists the container for look-ups. Its name must have been reserved.
    pub(crate) fn insert(&self, handle: Handle) {
        self.write().by_id.insert(handle.id.clone(), handle);
    }

    /// Forgets the container and its name.
    pub(crate) fn forget(&self, id: &ContainerId, name: &str) {
        let mut index = self.write();
        index.by_id.remove(id);
        if index.names.get(name) == Some(id) {
            index.names.remove(name);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write()
    }
}

/// Publishes an event of a container, with its name, image and labels.
pub(in crate::container) fn publish<const N: usize>(
    events: &Events,
    row: &Definition,
    action: &str,
    more: [(&str, String); N],
) {
    events.publish_all(vec![draft(row, action, more)]);
}

/// An event of a container, with its name, image and labels.
pub(in crate::container) fn draft<const N: usize>(row: &Definition, action: &str, more: [(&str, String); N]) -> Draft {
    let mut attributes = row.event_attributes();
    attributes.extend(more.map(|(key, value)| (key.to_owned(), value)));
    Draft::new("container", action, row.id.as_str(), attributes)
}

/// The reference's text for a container that cannot be found.
pub fn no_such(key: &str) -> Error {
    Error::not_found(format!("No such container: {key}"))
}

impl Handle {
    /// Sends a command and waits for its answer.
    pub async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command) -> Result<T> {
        let (reply, mut answer) = oneshot::channel();
        self.send(command(reply)).await?;
        // An actor that ends has removed its container. A command that comes into its queue at that very moment may lie
        // there for as long as there are handles, this one among them: so the queue's end is waited for, too.
        let outcome = tokio::select! {
            biased;
            outcome = &mut answer => outcome.ok(),
            () = self.commands.closed() => answer.try_recv().ok(),
        };
        outcome.unwrap_or_else(|| Err(no_such(self.id.as_str())))
    }

    /// Tells the monitor again and again that the daemon works on the container, which was asked to stand still at `asked`.
    pub fn stand(&self, asked: Instant) -> Standing {
        let handle = self.clone();
        Standing::begin(asked, move || {
            let handle = handle.clone();
            async move {
                let sent = Instant::now();
                if handle.ask(|reply| Command::Ping { reply }).await.is_ok() {
                    return Some(Instant::now());
                }
                // One that does not run any more does nothing either.
                (handle.view().pid == 0).then_some(sent)
            }
        })
    }
}

/// 64 random hex digits: the form of container and exec ids.
pub fn random_id() -> String {
    ContainerId::from_bytes(sys::random::bytes32()).as_str().to_string()
}

#[cfg(test)]
mod tests {
    use model::Kind;
    use model::lifecycle::State;

    use super::*;

    /// What the queue of an ended actor still holds is no reason to wait.
    #[tokio::test]
    async fn a_command_that_nobody_reads_is_answered() {
        let row = crate::container::row::sample(1, State::Exited);
        let view = ContainerView {
            row,
            pid: 0,
            init: None,
            exec_ids: Vec::new(),
            exits: 0,
            removed: true,
            removal_error: None,
        };
        let (sender, mut commands) = mpsc::channel(1);
        let id = view.row.id.clone();
        let handle = Handle { id, commands: sender, views: watch::channel(Arc::new(view)).1 };
        let asked = tokio::spawn(async move { handle.ask(|reply| Command::Start { reply }).await });
        let unread = commands.recv().await;
        drop(commands);
        let outcome = tokio::time::timeout(std::time::Duration::from_secs(10), asked).await;
        assert_eq!(outcome.unwrap().unwrap().unwrap_err().kind(), Kind::NotFound);
        drop(unread);
    }
}
