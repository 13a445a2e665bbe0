//! Threads for what blocks, a class for each kind of work (`docs/design/0021-blocking.md`).

use std::sync::Arc;

use blocking::{Class, Work};
use tokio::sync::Semaphore;

/// Runs of the host's `ps` at one time.
const PROGRAMS_AT_ONCE: usize = 4;
/// Threads that look up users of execs in containers at one time.
const USERS_AT_ONCE: usize = 64;

/// Threads for what blocks, a class for each kind of work: none is exhausted by another's.
pub(crate) struct Threads {
    pub(in crate::container) creates: Class,
    pub(in crate::container) starts: Class,
    pub(in crate::container) syncs: Class,
    pub(in crate::container) ends: Class,
    pub(crate) networks: Class,
    pub(in crate::container) removals: Class,
    pub(in crate::container) processes: Class,
    /// The beginning of runs of the host's `ps`.
    pub(in crate::container) programs: Class,
    pub(crate) background: Class,
    /// Places for runs of the host's `ps`, those that cannot be killed included.
    pub(in crate::container) programs_at_once: Arc<Semaphore>,
    /// Places for looks into containers' files of users, those that a mount in a container holds up included.
    pub(in crate::container) users_at_once: Arc<Semaphore>,
}

impl Threads {
    /// All classes, with their bounds.
    pub fn new() -> Threads {
        let [creates, starts, syncs, ends] = [Work::Creates, Work::Starts, Work::Syncs, Work::Ends].map(Class::new);
        let [networks, removals, processes] = [Work::Networks, Work::Removals, Work::Processes].map(Class::new);
        let [programs, background] = [Work::Programs, Work::Background].map(Class::new);
        Threads {
            creates,
            starts,
            syncs,
            ends,
            networks,
            removals,
            processes,
            programs,
            background,
            programs_at_once: Arc::new(Semaphore::new(PROGRAMS_AT_ONCE)),
            users_at_once: Arc::new(Semaphore::new(USERS_AT_ONCE)),
        }
    }
}
