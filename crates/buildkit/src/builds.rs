//! Builds by the names that their clients gave them, those that have ended among them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use build::Builder;
use build::history::History;
use model::lock::{Mutex, MutexGuard};
use model::{Error, Result};
use tokio::sync::watch;

use crate::account::Account;
use crate::build::Build;
use crate::scope::Scope;

/// Builds at one time.
const GOING: usize = 256;
/// Builds that have ended and are remembered, at most.
const ENDED: usize = 1000;
/// Bytes of what those have told, altogether.
const TOLD: usize = 32 << 20;

/// All builds of the daemon. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Builds(Arc<Shared>);

#[derive(Default)]
struct Shared {
    all: Mutex<All>,
    arrived: watch::Sender<()>,
    /// Told of all that happens to builds.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct All {
    going: HashMap<String, Arc<Build>>,
    ended: VecDeque<Arc<Account>>,
}

impl Builds {
    /// Notes a build.
    ///
    /// Errors: `Conflict` when there is one of its name; `Unavailable` when there are too many.
    pub(crate) fn enter(&self, build: &Arc<Build>) -> Result<()> {
        let mut all = self.all();
        if all.going.contains_key(build.id()) {
            return Err(Error::conflict(format!("job ID {} exists", build.id())));
        }
        if all.going.len() >= GOING {
            return Err(Error::unavailable(format!("more than {GOING} builds at one time")));
        }
        all.ended.retain(|ended| ended.id() != build.id());
        all.going.insert(build.id().to_owned(), build.clone());
        drop(all);
        self.0.arrived.send_replace(());
        self.0.changed.send_replace(());
        Ok(())
    }

    /// Those that are known of earlier daemons.
    pub(crate) fn of_past(history: &History) -> Builds {
        let builds = Builds::default();
        builds.all().ended = history.load().into_iter().map(|past| Arc::new(Account::of_past(past))).collect();
        builds
    }

    /// Makes what is on the disk of a build agree with what is remembered of it.
    pub(crate) async fn settle(&self, builder: &Arc<Builder>, id: &str) {
        let (own, shared, id) = (self.clone(), builder.clone(), id.to_owned());
        let work = move |_: &_| shared.history.settle(&id, || own.ended(&id).map(|build| build.past()));
        if let Err(error) = builder.threads.run(work).await {
            tracing::warn!(%error, "the next daemon will not know what this one does of a build");
        }
    }

    /// A build that has ended and belongs to the history.
    fn ended(&self, id: &str) -> Option<Arc<Account>> {
        self.all().ended.iter().find(|build| build.id() == id && !build.request.internal).cloned()
    }

    /// Notes that a build has ended; forgets others by the rules of the configuration, which are answered.
    pub(crate) fn leave(&self, build: &Arc<Build>) -> Vec<String> {
        let mut all = self.all();
        all.going.remove(build.id());
        all.ended.push_back(build.account.clone());
        let settings = build.job.builder.settings();
        // A negative number is no bound of the user's.
        let most = usize::try_from(settings.history_entries).unwrap_or(ENDED).min(ENDED);
        let age = i64::try_from(settings.history_age.as_nanos()).unwrap_or(i64::MAX);
        let oldest = events::now().unix_nanos().saturating_sub(age);
        let is_old = |ended: &Arc<Account>| ended.ended.get().is_some_and(|(time, _)| time.unix_nanos() < oldest);
        let mut told: usize = all.ended.iter().map(|ended| ended.progress.bytes()).sum();
        let mut count = all.ended.len();
        let mut forgotten = Vec::new();
        // The oldest come first. As with the reference, one goes that is too old while there are too many; those that are pinned
        // stay as long as there is room for any.
        all.ended.retain(|ended| {
            let is_beyond = count > ENDED || told > TOLD;
            let goes = is_beyond || (!ended.is_pinned() && count > most && is_old(ended));
            if goes {
                count -= 1;
                told = told.saturating_sub(ended.progress.bytes());
                forgotten.push(ended.id().to_owned());
            }
            !goes
        });
        drop(all);
        self.0.changed.send_replace(());
        forgotten
    }

    /// Told of whatever happens to builds.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Keeps a build that has ended from being forgotten, or no longer; whether there is one.
    pub(crate) fn pin(&self, id: &str, pinned: bool) -> bool {
        let all = self.all();
        let found = all.ended.iter().find(|build| build.id() == id);
        found.inspect(|build| build.pin(pinned));
        let is_found = found.is_some();
        drop(all);
        self.0.changed.send_replace(());
        is_found
    }

    /// The build of this name, one that has ended as well, waited for until a while has gone.
    ///
    /// Errors: `NotFound` in the reference's words.
    pub(crate) async fn any(&self, id: &str, wait: Duration) -> Result<Arc<Account>> {
        self.find(id, wait, |all| {
            let going = all.going.get(id).map(|build| &build.account);
            going.or_else(|| all.ended.iter().find(|build| build.id() == id)).cloned()
        })
        .await
    }

    /// The build of this name that goes on, driven by its client.
    pub(crate) async fn driven(&self, id: &str, wait: Duration) -> Result<(Arc<Build>, Arc<Scope>)> {
        self.find(id, wait, |all| {
            let build = all.going.get(id)?;
            Some((build.clone(), build.client.clone()?))
        })
        .await
    }

    /// Those that go on, and those that have ended, the oldest first.
    pub(crate) fn list(&self) -> Vec<Arc<Account>> {
        let all = self.all();
        all.ended.iter().chain(all.going.values().map(|build| &build.account)).cloned().collect()
    }

    /// Forgets one that has ended; whether there was one.
    pub(crate) fn forget(&self, id: &str) -> bool {
        let mut all = self.all();
        let before = all.ended.len();
        all.ended.retain(|build| build.id() != id);
        let is_gone = all.ended.len() < before;
        drop(all);
        self.0.changed.send_replace(());
        is_gone
    }

    async fn find<T>(&self, id: &str, wait: Duration, look: impl Fn(&All) -> Option<T>) -> Result<T> {
        let mut arrived = self.0.arrived.subscribe();
        let found = async {
            loop {
                arrived.borrow_and_update();
                if let Some(build) = look(&self.all()) {
                    return build;
                }
                if arrived.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let missing = || Error::not_found(format!("no such job {id}"));
        tokio::time::timeout(wait, found).await.map_err(|_| missing())
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.all.lock()
    }
}
