//! The exec sessions of all containers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::Result;
use model::id::ContainerId;
use model::lock::{Mutex, MutexGuard};

use super::exec_bounds::{self, Expired};
use super::exec_session::{Phase, Session};

/// How long an ended session can be inspected.
pub const KEPT_FOR: Duration = Duration::from_secs(300);

/// All sessions of all containers.
#[derive(Default)]
pub struct Execs {
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    made: AtomicU64,
    expired: Mutex<Expired>,
}

impl Execs {
    /// How many sessions are remembered.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Finds by full id or unique prefix.
    pub fn find(&self, key: &str) -> Result<Arc<Session>> {
        let sessions = self.lock();
        if let Some(session) = sessions.get(key) {
            return Ok(session.clone());
        }
        let mut matching = sessions.values().filter(|s| !key.is_empty() && s.id.starts_with(key));
        match (matching.next(), matching.next()) {
            (Some(session), None) => Ok(session.clone()),
            _ => Err(self.expired().no_such(key)),
        }
    }

    /// Makes a session, forgetting those that ended long ago and those that are too many.
    pub fn make(&self, run: (ContainerId, u64), config: api::ExecConfig) -> Arc<Session> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let session = Arc::new(Session::new(super::random_id(), run, config, number));
        let mut sessions = self.lock();
        sessions.retain(|_, s| !matches!(s.phase(), Phase::Ended(_, _, at) if at.elapsed() > KEPT_FOR));
        sessions.insert(session.id.clone(), session.clone());
        for surplus in exec_bounds::surplus(sessions.values(), &session) {
            sessions.remove(&surplus.id);
            self.expired().push(&surplus);
        }
        session
    }

    /// Adds a session that an earlier daemon has made, with the number that it gets; false: it is there.
    pub fn take_up(&self, made: impl FnOnce(u64) -> Session) -> bool {
        let session = made(self.made.fetch_add(1, Ordering::Relaxed));
        match self.lock().entry(session.id.clone()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(Arc::new(session));
                true
            }
        }
    }

    fn expired(&self) -> MutexGuard<'_, Expired> {
        self.expired.lock()
    }

    /// Forgets one.
    pub fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Forgets the sessions of a removed container.
    pub fn forget_container(&self, container: &ContainerId) {
        self.lock().retain(|_, s| s.container != *container);
    }

    /// Ends every session of a container that stopped, and forgets those that were never started.
    pub fn end_all(&self, container: &ContainerId, code: i32) {
        self.lock().retain(|_, session| {
            let own = session.container == *container;
            if let (true, Phase::Running(pid)) = (own, session.phase()) {
                session.set(Phase::Ended(code, pid, Instant::now()));
            }
            !own || session.phase() != Phase::Created
        });
    }

    /// Ids of the container's sessions that have not ended.
    pub fn live_of(&self, container: &ContainerId) -> Vec<String> {
        let live = |s: &&Arc<Session>| s.container == *container && !matches!(s.phase(), Phase::Ended(..));
        self.lock().values().filter(live).map(|s| s.id.clone()).collect()
    }

    /// How many of the container's sessions run, those on their way included.
    pub fn running_in(&self, container: &ContainerId) -> usize {
        let runs = |s: &&Arc<Session>| matches!(s.phase(), Phase::Starting | Phase::Running(_));
        self.lock().values().filter(|s| s.container == *container).filter(runs).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.sessions.lock()
    }
}
