//! The loop that reads samples for everybody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use blocking::Class;
use model::id::ContainerId;
use model::lock::{Mutex, MutexGuard};
use sys::cgroup::Layout;
use tokio::sync::{Notify, watch};
use tokio::time::{Interval, MissedTickBehavior};

use super::sample::{Reading, Subject, System};
use crate::container::view::ContainerView;

/// Between two samples of a container.
const PERIOD: Duration = Duration::from_secs(1);

/// Reads samples of the containers that somebody looks at. Its loop is there only while there are some.
pub struct Sampler {
    shared: Arc<Shared>,
    period: Duration,
    pub(super) machine: Machine,
}

/// What samples depend on.
#[derive(Clone)]
pub struct Machine {
    /// Where control groups are.
    pub cgroups: Layout,
    /// Bytes of memory.
    pub memory: u64,
}

#[derive(Default)]
struct Shared {
    watched: Mutex<Watched>,
    /// A container has been added.
    added: Notify,
}

#[derive(Default)]
struct Watched {
    containers: BTreeMap<ContainerId, Watch>,
    loop_runs: bool,
}

struct Watch {
    views: Views,
    /// `None` until the first reading.
    readings: watch::Sender<Option<Reading>>,
}

/// A container as its actor publishes it.
type Views = watch::Receiver<Arc<ContainerView>>;

/// Which containers a round reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    All,
    /// Those without a reading.
    New,
}

impl Sampler {
    /// Nobody looks at anything yet.
    pub fn new(machine: Machine) -> Sampler {
        Sampler { shared: Arc::default(), period: PERIOD, machine }
    }

    /// The readings of a container: the newest, if there is one already, and those to come.
    pub(super) fn subscribe(
        &self,
        id: &ContainerId,
        views: Views,
        threads: &Class,
    ) -> watch::Receiver<Option<Reading>> {
        let mut watched = self.shared.lock();
        let new = || Watch { views, readings: watch::Sender::new(None) };
        let mut readings = watched.containers.entry(id.clone()).or_insert_with(new).readings.subscribe();
        readings.mark_changed();
        if watched.loop_runs {
            self.shared.added.notify_one();
        } else {
            watched.loop_runs = true;
            let ticks = tokio::time::interval(self.period);
            tokio::spawn(run(self.shared.clone(), ticks, self.machine.cgroups.clone(), threads.clone()));
        }
        readings
    }

    /// Containers that somebody looks at.
    #[cfg(test)]
    fn watched(&self) -> usize {
        self.shared.lock().containers.len()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock()
    }

    /// Those that the next round reads; `None` when nobody looks at any container, which ends the loop.
    fn next(&self, round: Round) -> Option<Vec<(ContainerId, Arc<ContainerView>)>> {
        let mut watched = self.lock();
        watched.containers.retain(|_, watch| watch.readings.receiver_count() > 0 && !watch.views.borrow().removed);
        watched.loop_runs = !watched.containers.is_empty();
        let read = |(_, watch): &(&ContainerId, &Watch)| round == Round::All || watch.readings.borrow().is_none();
        let view = |(id, watch): (&ContainerId, &Watch)| (id.clone(), watch.views.borrow().clone());
        watched.loop_runs.then(|| watched.containers.iter().filter(read).map(view).collect())
    }

    fn publish(&self, readings: Vec<(ContainerId, Reading)>) {
        let watched = self.lock();
        for (id, reading) in readings {
            if let Some(watch) = watched.containers.get(&id) {
                watch.readings.send_replace(Some(reading));
            }
        }
    }
}

async fn run(shared: Arc<Shared>, mut ticks: Interval, layout: Layout, threads: Class) {
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let round = tokio::select! {
            biased;
            _ = ticks.tick() => Round::All,
            () = shared.added.notified() => Round::New,
        };
        let Some(views) = shared.next(round) else { return };
        let subjects: Vec<(ContainerId, Option<Subject>)> =
            views.into_iter().map(|(id, view)| (id, Subject::of(&view, &layout))).collect();
        let read = threads.run(move |on| {
            let system = System::read(on);
            let read = |(id, subject): (_, Option<Subject>)| {
                (id, subject.and_then(|subject| subject.read(&system, on)).map(Arc::new))
            };
            Ok(subjects.into_iter().map(read).collect())
        });
        match read.await {
            Ok(readings) => shared.publish(readings),
            Err(error) => tracing::error!(error = error.message(), "containers cannot be measured"),
        }
    }
}

#[cfg(test)]
mod tests {
    use blocking::Work;
    use model::lifecycle::State;

    use super::*;

    /// A container that does not run, and what keeps it there.
    fn container(n: u8) -> (ContainerId, watch::Sender<Arc<ContainerView>>) {
        let row = crate::container::row::sample(n, State::Exited);
        let (exec_ids, removal_error) = (Vec::new(), None);
        let view = ContainerView { row, pid: 0, init: None, exec_ids, exits: 0, removed: false, removal_error };
        let id = view.row.id.clone();
        (id, watch::Sender::new(Arc::new(view)))
    }

    fn sampler(period: Duration) -> (Sampler, Class) {
        let machine = Machine { cgroups: Layout::detect().unwrap(), memory: 0 };
        (Sampler { period, ..Sampler::new(machine) }, Class::new(Work::Processes))
    }

    /// Readers share the newest reading; whoever comes later has it at once, and a new container is read at once.
    #[tokio::test]
    async fn readers_share_their_readings() {
        let (sampler, threads) = sampler(Duration::from_secs(3600));
        let (first, second) = (container(1), container(2));
        let mut readings = sampler.subscribe(&first.0, first.1.subscribe(), &threads);
        readings.wait_for(Option::is_some).await.unwrap();
        let mut other = sampler.subscribe(&first.0, first.1.subscribe(), &threads);
        assert!(other.has_changed().unwrap() && other.borrow_and_update().is_some());
        let mut new = sampler.subscribe(&second.0, second.1.subscribe(), &threads);
        new.wait_for(Option::is_some).await.unwrap();
        assert_eq!(sampler.watched(), 2);
        assert!(!other.has_changed().unwrap(), "only the new one was read");
    }

    /// Without readers the loop ends; it begins again with the next one.
    #[tokio::test]
    async fn the_loop_lives_as_long_as_somebody_looks() {
        let (sampler, threads) = sampler(Duration::from_millis(5));
        let container = container(1);
        for _ in 0..3 {
            let mut readings = sampler.subscribe(&container.0, container.1.subscribe(), &threads);
            for _ in 0..3 {
                readings.changed().await.unwrap();
            }
            drop(readings);
            while sampler.shared.lock().loop_runs {
                tokio::task::yield_now().await;
            }
            assert_eq!(sampler.watched(), 0);
        }
    }

    /// A container that is gone ends the readings of those who look at it.
    #[tokio::test]
    async fn removal_ends_the_readings() {
        let (sampler, threads) = sampler(Duration::from_millis(5));
        let (id, views) = container(1);
        let mut readings = sampler.subscribe(&id, views.subscribe(), &threads);
        views.send_modify(|view| Arc::make_mut(view).removed = true);
        while readings.changed().await.is_ok() {}
        assert_eq!(sampler.watched(), 0);
    }
}
