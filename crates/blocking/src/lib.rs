//! Threads for work that blocks, in bounded classes, and the proof of running on one.
//!
//! Invariants:
//! - a worker of the async runtime never waits for a disk, a path or another program: what does so takes a [`Blocking`], which
//!   exists only inside of [`Class::run`] and cannot be kept across an `.await` of a spawned task (it is not `Send`);
//! - a class has so many threads and no more; the pool has room for all classes at their bounds ([`POOL`]), so that a class
//!   that is exhausted stops nobody outside of it;
//! - what waits for a thread waits in the order in which it came and without a thread.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use model::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// Proof that this thread may block.
#[derive(Debug)]
pub struct Blocking {
    /// Neither `Send` nor `Sync`.
    _thread: PhantomData<*const ()>,
}

impl Blocking {
    const fn new() -> Blocking {
        Blocking { _thread: PhantomData }
    }

    /// For a thread that serves nobody: the main thread before the API is up, a thread of its own, a command.
    pub const fn alone() -> Blocking {
        Blocking::new()
    }
}

/// What a class of threads is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Writable layers and rows of containers to come.
    Creates,
    /// Launches.
    Starts,
    /// What a launch has written to the disk beside its other work: as many as there are launches.
    Syncs,
    /// What is let go after a run, and cgroups that are cleared.
    Ends,
    /// Sandboxes that join and leave networks, ports that are published.
    Networks,
    /// Rows, layers and directories that go.
    Removals,
    /// Paths of the host that a user has named: they may lie on a file system that does not answer.
    Paths,
    /// Trees as large as a container has made them: sizes, changes, commits.
    Walks,
    /// Answers to clients that are read off the disk.
    Reads,
    /// Names and images that are given and taken.
    Changes,
    /// The store against the disk.
    Checks,
    /// What a container runs, read off `/proc`.
    Processes,
    /// Steps of the readers of logs.
    Logs,
    /// The journal of events: parts of it that are read again, and its syncs.
    Events,
    /// Documents and blobs of images, a piece at a time.
    Images,
    /// Layers that are unpacked while they arrive: as slow as their registry.
    Unpacks,
    /// What is configured for a registry, read off the disk when it is asked.
    Registries,
    /// The calls of one driver of volumes.
    Volumes,
    /// Networks of plugins that are made and removed.
    Plugins,
    /// The beginning of other programs.
    Programs,
    /// Files and layers of steps of builds.
    Builds,
    /// What is made ahead or cleared away while nobody waits for it.
    Background,
}

impl Work {
    /// All of them.
    pub const ALL: [Work; 22] = [
        Work::Creates,
        Work::Starts,
        Work::Syncs,
        Work::Ends,
        Work::Networks,
        Work::Removals,
        Work::Paths,
        Work::Walks,
        Work::Reads,
        Work::Changes,
        Work::Checks,
        Work::Processes,
        Work::Logs,
        Work::Events,
        Work::Images,
        Work::Unpacks,
        Work::Registries,
        Work::Volumes,
        Work::Plugins,
        Work::Programs,
        Work::Builds,
        Work::Background,
    ];

    /// Threads at most.
    pub const fn threads(self) -> usize {
        match self {
            Work::Starts | Work::Syncs | Work::Paths => 64,
            Work::Creates | Work::Ends | Work::Networks | Work::Removals | Work::Reads | Work::Images => 32,
            Work::Unpacks | Work::Volumes | Work::Plugins | Work::Changes | Work::Builds => 16,
            Work::Walks | Work::Processes | Work::Registries => 8,
            Work::Logs | Work::Events | Work::Programs | Work::Checks | Work::Background => 4,
        }
    }

    /// In messages.
    const fn name(self) -> &'static str {
        match self {
            Work::Creates => "creating a container",
            Work::Starts => "starting a container",
            Work::Syncs => "syncing a container's directories",
            Work::Ends => "ending a run",
            Work::Networks => "changing networks",
            Work::Removals => "removing a container",
            Work::Paths => "looking at a path",
            Work::Walks => "walking a tree",
            Work::Reads => "reading",
            Work::Changes => "changing images",
            Work::Checks => "the check",
            Work::Processes => "reading processes",
            Work::Logs => "reading a log",
            Work::Events => "the journal of events",
            Work::Images => "working on an image",
            Work::Unpacks => "unpacking a layer",
            Work::Registries => "reading what is configured for a registry",
            Work::Volumes => "working on a volume",
            Work::Plugins => "working on a network of a plugin",
            Work::Programs => "starting a program",
            Work::Builds => "working on a build",
            Work::Background => "working ahead",
        }
    }
}

/// Drivers of volumes, each with a class of its own.
pub const VOLUME_DRIVERS: usize = 16;
/// Threads that the async runtime takes for itself: looking up names, standard streams.
const RUNTIME: usize = 32;

/// Threads of the pool: every class at its bound.
pub const POOL: usize = {
    let (mut sum, mut n) = (RUNTIME + (VOLUME_DRIVERS - 1) * Work::Volumes.threads(), 0);
    while n < Work::ALL.len() {
        sum += Work::ALL[n].threads();
        n += 1;
    }
    sum
};

/// A bounded number of the pool's threads. Clones share them.
#[derive(Clone, Debug)]
pub struct Class {
    work: Work,
    places: Arc<Semaphore>,
}

impl Class {
    /// A class with all of its threads free.
    pub fn new(work: Work) -> Class {
        Class { work, places: Arc::new(Semaphore::new(work.threads())) }
    }

    /// Waits for a thread. A caller that leaves gives it up.
    pub async fn turn(&self) -> Turn {
        let free = self.places.clone().try_acquire_owned();
        let place = match free {
            Ok(place) => place,
            Err(_) => self.places.clone().acquire_owned().await.expect("the semaphore is never closed"),
        };
        Turn { work: self.work, place }
    }

    /// Runs `job` on a thread of this class when it is its turn. Once begun it goes on to its end, whoever leaves.
    ///
    /// Errors: those of `job`; `System` when it panicked.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce(&Blocking) -> Result<T> + Send + 'static) -> Result<T> {
        self.turn().await.run(job).await
    }

    /// Threads that are free.
    pub fn free(&self) -> usize {
        self.places.available_permits()
    }
}

/// The error of what did not answer in time.
pub fn unanswered(what: impl Display, limit: Duration) -> Error {
    Error::system(format!("{what} has not answered for {limit:?}"))
}

/// The right to a thread of a class.
#[derive(Debug)]
pub struct Turn {
    work: Work,
    place: OwnedSemaphorePermit,
}

impl Turn {
    /// Runs the job; see [`Class::run`].
    pub async fn run<T: Send + 'static>(self, job: impl FnOnce(&Blocking) -> Result<T> + Send + 'static) -> Result<T> {
        let work = self.work;
        let ended = self.begin(job).await;
        ended.unwrap_or_else(|failed| {
            Err(Error::system(format!("internal error: {} failed", work.name())).with_source(failed))
        })
    }

    /// Begins the job, whose outcome nobody has to wait for.
    pub fn begin<T: Send + 'static>(self, job: impl FnOnce(&Blocking) -> T + Send + 'static) -> JoinHandle<T> {
        #[expect(clippy::disallowed_methods, reason = "the one place that takes threads from the pool")]
        tokio::task::spawn_blocking(move || {
            let _place = self.place;
            job(&Blocking::new())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    #[tokio::test]
    async fn no_more_of_a_class_run_than_it_has_threads() {
        let class = Class::new(Work::Walks);
        let bound = Work::Walks.threads();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all: Vec<_> = (0..bound * 4)
            .map(|_| {
                let (class, now, most) = (class.clone(), now.clone(), most.clone());
                tokio::spawn(async move {
                    let job = move |_: &Blocking| {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                        Ok(())
                    };
                    class.run(job).await
                })
            })
            .collect();
        for one in all {
            one.await.unwrap().unwrap();
        }
        assert!((1..=bound).contains(&most.load(Ordering::SeqCst)));
        assert_eq!(class.free(), bound);
    }

    #[tokio::test]
    async fn a_class_that_is_exhausted_stops_no_other() {
        let (full, other) = (Class::new(Work::Paths), Class::new(Work::Starts));
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(model::lock::Mutex::new(held));
        let stuck: Vec<_> = (0..Work::Paths.threads())
            .map(|_| {
                let held = held.clone();
                full.places
                    .clone()
                    .try_acquire_owned()
                    .map(|place| Turn { work: Work::Paths, place }.begin(move |_| assert!(held.lock().recv().is_err())))
            })
            .collect();
        let late = tokio::time::timeout(Duration::from_millis(10), full.run(|_| Ok(())));
        assert!(late.await.is_err());
        assert_eq!(
            unanswered("the path /p", Duration::from_secs(10)).message(),
            "the path /p has not answered for 10s"
        );
        assert_eq!(other.run(|_| Ok(7)).await.unwrap(), 7);
        drop(release);
        for one in stuck {
            one.unwrap().await.unwrap();
        }
        assert_eq!(full.run(|_| Ok(1)).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_job_that_panics_gives_its_thread_back() {
        let class = Class::new(Work::Reads);
        let failed = class.run(|_| -> Result<()> { panic!("as it should") }).await.unwrap_err();
        assert_eq!(failed.message(), "internal error: reading failed");
        assert_eq!(class.free(), Work::Reads.threads());
    }

    #[test]
    fn the_pool_has_room_for_all_classes() {
        let sum: usize = Work::ALL.iter().map(|work| work.threads()).sum();
        assert!(POOL > sum);
    }
}
