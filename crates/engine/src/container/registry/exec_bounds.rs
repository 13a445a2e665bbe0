//! How many exec sessions are remembered that do not run: made and not started, or ended.
//!
//! Clients make them without end and say at will how large they are. Beyond the bounds the oldest go, ended ones first; of
//! several containers that together are too many, those of the container that has the most. One that was never started is
//! remembered by its id for a while, so that who starts it late is told why it is gone.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use model::Error;
use model::id::ContainerId;

use super::exec_session::{Phase, Session};

/// Sessions at rest of one container, and of all.
pub const PER_CONTAINER: Bound = Bound { sessions: 1024, bytes: 4 << 20 };
/// See [`PER_CONTAINER`].
pub const IN_ALL: Bound = Bound { sessions: 4096, bytes: 16 << 20 };
/// Sessions of one container that run at once: a monitor tells a next daemon of so many, and of a probe.
pub const AT_ONCE: usize = monitor::proto::MAX_RUNNING_EXECS - 1;
/// Ids of expired sessions that are remembered.
const EXPIRED: usize = 1024;
/// Bytes that a session takes besides its texts, or a text besides its own.
const OVERHEAD: usize = 512;
const TEXT_OVERHEAD: usize = 32;

/// So many sessions, and so many bytes of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bound {
    /// Their number.
    pub sessions: usize,
    /// What they take in memory, about.
    pub bytes: usize,
}

impl Bound {
    fn exceeds(&self, other: &Bound) -> bool {
        self.sessions > other.sessions || self.bytes > other.bytes
    }

    fn add(&mut self, session: &Session) {
        self.sessions += 1;
        self.bytes += weight(&session.config);
    }

    fn take(&mut self, session: &Session) {
        self.sessions -= 1;
        self.bytes -= weight(&session.config);
    }
}

/// Bytes that a session with this configuration takes, about.
fn weight(config: &api::ExecConfig) -> usize {
    let lists = config.env.iter().chain(&config.cmd).flatten();
    let texts = [&config.user, &config.detach_keys, &config.working_dir];
    OVERHEAD
        + lists.map(|text| text.len() + TEXT_OVERHEAD).sum::<usize>()
        + texts.map(|text| text.len()).iter().sum::<usize>()
}

/// The sessions that have to go so that the others are within the bounds; never `newest`.
pub fn surplus<'s>(all: impl Iterator<Item = &'s Arc<Session>>, newest: &Session) -> Vec<Arc<Session>> {
    surplus_of(all, newest, (PER_CONTAINER, IN_ALL))
}

fn surplus_of<'s>(
    all: impl Iterator<Item = &'s Arc<Session>>,
    newest: &Session,
    (per_container, in_all): (Bound, Bound),
) -> Vec<Arc<Session>> {
    let mut total = Bound::default();
    let mut containers: HashMap<&ContainerId, (Bound, Vec<&Arc<Session>>)> = HashMap::new();
    for session in all.filter(|session| matches!(session.phase(), Phase::Created | Phase::Ended(..))) {
        total.add(session);
        let (sum, sessions) = containers.entry(&session.container).or_default();
        sum.add(session);
        sessions.push(session);
    }
    let is_within = |containers: &HashMap<&ContainerId, (Bound, Vec<&Arc<Session>>)>| {
        containers.get(&newest.container).is_none_or(|(sum, _)| !sum.exceeds(&per_container))
    };
    if is_within(&containers) && !total.exceeds(&in_all) {
        return Vec::new();
    }
    // Ended ones last, the oldest of each last: they are popped.
    for (_, sessions) in containers.values_mut() {
        sessions.sort_by_key(|session| std::cmp::Reverse((session.phase() == Phase::Created, session.number)));
        sessions.retain(|session| session.id != newest.id);
    }
    let mut surplus = Vec::new();
    loop {
        let from = if !is_within(&containers) {
            Some(newest.container.clone())
        } else if total.exceeds(&in_all) {
            let largest = containers.iter().filter(|(_, (_, sessions))| !sessions.is_empty());
            largest.max_by_key(|(_, (sum, _))| sum.bytes).map(|(container, _)| (*container).clone())
        } else {
            None
        };
        let Some((sum, sessions)) = from.as_ref().and_then(|from| containers.get_mut(from)) else { return surplus };
        let Some(oldest) = sessions.pop() else { return surplus };
        sum.take(oldest);
        total.take(oldest);
        surplus.push(oldest.clone());
    }
}

/// The ids of the last sessions that went without having been started.
#[derive(Default)]
pub struct Expired(VecDeque<String>);

impl Expired {
    /// Remembers one.
    pub fn push(&mut self, session: &Session) {
        if session.phase() == Phase::Created {
            if self.0.len() == EXPIRED {
                self.0.pop_front();
            }
            self.0.push_back(session.id.clone());
        }
    }

    /// What is said of an id that leads to no session.
    pub fn no_such(&self, key: &str) -> Error {
        if self.0.iter().any(|id| id == key) {
            return Error::not_found(format!(
                "exec {key} has expired: more than {} exec instances of its container (or {} of all containers) were \
                 created and not started",
                PER_CONTAINER.sessions, IN_ALL.sessions
            ));
        }
        no_such(key)
    }
}

/// The refusal of a session more than may run at once in a container.
pub fn too_many(container: &ContainerId) -> Error {
    Error::conflict(format!(
        "container {} runs {AT_ONCE} exec instances, which is the limit: no other is started before one of them has ended",
        container.as_str()
    ))
}

/// The reference's text for a session that cannot be found.
pub fn no_such(key: &str) -> Error {
    Error::not_found(format!("No such exec instance: {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn session(container: u8, number: u64, bytes: usize) -> Arc<Session> {
        let config = api::ExecConfig { user: "x".repeat(bytes), ..Default::default() };
        let container = ContainerId::from_bytes([container; 32]);
        Arc::new(Session::new(format!("{container:?}-{number}"), (container, 0), config, number))
    }

    fn numbers(surplus: &[Arc<Session>]) -> Vec<u64> {
        surplus.iter().map(|session| session.number).collect()
    }

    #[test]
    fn the_oldest_go_ended_ones_first_and_never_those_that_run() {
        let all: Vec<_> = (0..6).map(|number| session(1, number, 0)).collect();
        all[0].set(Phase::Running(1));
        all[3].set(Phase::Ended(0, 1, Instant::now()));
        let bound = Bound { sessions: 3, bytes: usize::MAX };
        let none = Bound { sessions: usize::MAX, bytes: usize::MAX };
        assert_eq!(numbers(&surplus_of(all.iter(), &all[5], (bound, none))), [3, 1]);
        assert_eq!(numbers(&surplus_of(all.iter(), &all[5], (none, bound))), [3, 1]);
        assert!(surplus_of(all.iter(), &all[5], (none, none)).is_empty());
        let nothing = Bound::default();
        assert_eq!(numbers(&surplus_of(all.iter(), &all[5], (nothing, nothing))), [3, 1, 2, 4]);
    }

    #[test]
    fn the_container_that_has_the_most_gives_way() {
        let mut all: Vec<_> = (0..4).map(|number| session(1, number, 1000)).collect();
        all.push(session(2, 4, 10));
        let bound = Bound { sessions: usize::MAX, bytes: 4000 };
        let gone = surplus_of(all.iter(), &all[4], (bound, bound));
        assert_eq!(numbers(&gone), [0, 1]);
        let mut expired = Expired::default();
        expired.push(&gone[0]);
        assert!(expired.no_such(&gone[0].id).message().contains("has expired"));
        assert_eq!(expired.no_such("ab").message(), "No such exec instance: ab");
    }
}
