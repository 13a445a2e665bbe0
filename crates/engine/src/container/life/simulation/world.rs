//! The environment: a store, networks, control groups and starts that work most of the time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use events::{Draft, Events, Rows};
use model::fault::Faults;
use model::lifecycle::{self, Input, Outcome, State};
use model::lock::Mutex;
use model::{Error, Result, signal};
use run::start::Process;
use run::{Failed, Place, Progress, Running, Step};
use runtime::oci;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::monitor;
use crate::container::Containers;
use crate::container::life::actor::{Actor, Done};
use crate::container::life::clients::Clients;
use crate::container::life::environment::Environment;
use crate::container::life::launch::{self, Launched};
use crate::container::life::{drafts, procedure};
use crate::container::registry::arguments::{RemoveArgs, StopPlan};
use crate::container::registry::command::Command;
use crate::container::row::ContainerRow;
use crate::container::view::ContainerView;

/// A sequence of numbers that its seed decides (xorshift64*).
#[derive(Debug)]
pub struct Random(AtomicU64);

impl Random {
    pub fn new(seed: u64) -> Random {
        let random = Random(AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1));
        (0..4).for_each(|_| _ = random.next());
        random
    }

    pub fn fork(&self) -> Random {
        Random::new(self.next())
    }

    fn next(&self) -> u64 {
        let mut x = self.0.load(Ordering::Relaxed);
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0.store(x, Ordering::Relaxed);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub fn below(&self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn choose<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// None, some milliseconds, or some seconds.
    pub fn pause(&self) -> Duration {
        match self.below(4) {
            0 => Duration::ZERO,
            1 | 2 => Duration::from_millis(self.below(200)),
            _ => Duration::from_millis(self.below(8000)),
        }
    }
}

/// What there is besides the actor.
pub struct World {
    pub containers: Containers,
    pub random: Random,
    /// Monitors that live.
    pub monitors: AtomicUsize,
    /// When each launch began.
    pub launches: Mutex<Vec<Instant>>,
    events: Events,
    faults: Faults,
    dir: tempfile::TempDir,
    store: Mutex<Stored>,
    pids: AtomicU64,
    begun: Instant,
    /// Every step is printed.
    is_traced: bool,
    /// Nothing fails any more.
    healed: std::sync::atomic::AtomicBool,
    /// How long networks and volumes take to be let go; `None`: as it happens.
    release_takes: Mutex<Option<Duration>>,
}

/// What the store has.
struct Stored {
    row: ContainerRow,
    deleted: bool,
    /// Until then every commit fails.
    broken: Instant,
}

/// The environment of one simulated container.
#[derive(Clone)]
pub struct Sim(pub Arc<World>);

impl Sim {
    pub fn new(random: Random, row: ContainerRow) -> Sim {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("trash")).unwrap();
        let trash = snapshot::Trash::open(&dir.path().join("trash")).unwrap();
        let executable = Arc::new(std::fs::File::open("/dev/null").unwrap().into());
        Sim(Arc::new(World {
            containers: Containers::new(trash, ::monitor::Spares::new(executable), Vec::new()),
            random,
            monitors: AtomicUsize::new(0),
            launches: Mutex::default(),
            events: Events::default(),
            faults: Faults::default(),
            dir,
            store: Mutex::new(Stored { row, deleted: false, broken: Instant::now() }),
            pids: AtomicU64::new(100),
            begun: Instant::now(),
            is_traced: std::env::var_os("GANTRY_SEED").is_some(),
            healed: false.into(),
            release_takes: Mutex::default(),
        }))
    }

    pub fn is_deleted(&self) -> bool {
        self.0.store.lock().deleted
    }

    /// Prints a step of a life that is repeated.
    pub fn trace(&self, what: impl FnOnce() -> String) {
        if self.0.is_traced {
            println!("{:9.3} {}", self.0.begun.elapsed().as_secs_f64(), what());
        }
    }

    pub fn heal(&self) {
        self.0.healed.store(true, Ordering::Relaxed);
    }

    /// Every release takes so long from now on.
    pub fn slow_down(&self, takes: Duration) {
        *self.0.release_takes.lock() = Some(takes);
    }

    pub fn fails(&self, one_in: u64) -> bool {
        !self.0.healed.load(Ordering::Relaxed) && self.0.random.one_in(one_in)
    }

    /// What an answer says has to be on the disk.
    pub fn check(&self, what: &str, outcome: &Result<()>) {
        let store = self.0.store.lock();
        self.trace(|| format!("answered {what}: {outcome:?}"));
        if outcome.is_ok() && matches!(what, "start" | "restart") && !store.deleted {
            assert!(store.row.run.was_started, "{what} is answered, and no run recorded");
        }
        if outcome.is_ok() && what == "remove" {
            assert!(store.deleted, "answered, and not removed");
        }
    }

    /// Looks at all that is shown.
    pub async fn watch(self, mut views: watch::Receiver<Arc<ContainerView>>) {
        let mut before = views.borrow_and_update().row.state;
        while views.changed().await.is_ok() {
            let view = views.borrow_and_update().clone();
            let state = view.row.state;
            self.trace(|| format!("shown {state:?}"));
            assert!(follows(before, state, UNSEEN), "{before:?} is followed by {state:?}");
            assert_eq!(view.pid, state.pid().unwrap_or(0));
            let store = self.0.store.lock();
            if Instant::now() > store.broken + RETRIED && !store.deleted {
                assert_eq!(store.row.state.pid(), state.pid(), "shown, and not recorded");
            }
            before = state;
        }
    }

    /// Nothing is left.
    pub async fn check_end(&self) {
        sleep(Duration::from_secs(600)).await;
        assert_eq!(self.0.monitors.load(Ordering::Relaxed), 0, "monitors are left");
    }

    fn write(&self, row: ContainerRow) -> Result<()> {
        let mut store = self.0.store.lock();
        if Instant::now() <= store.broken && !self.0.healed.load(Ordering::Relaxed) {
            self.trace(|| format!("not recorded {:?}", row.state));
            return Err(Error::system("no space left on device"));
        }
        assert!(!store.deleted || row.state.is_dead(), "a container that is deleted is recorded again");
        let (before, next) = (store.row.state, row.state.at_rest());
        self.trace(|| format!("recorded {next:?}"));
        assert!(follows(before, next, UNRECORDED), "{before:?} is recorded, and then {next:?}");
        store.row = ContainerRow { state: next, ..row };
        Ok(())
    }

    fn break_now_and_then(&self) {
        if self.fails(40) {
            let until = Instant::now() + self.0.random.pause();
            self.0.store.lock().broken = until;
        }
    }
}

/// Steps that may lie between two states that are shown: a reader sees the newest only.
const UNSEEN: usize = 12;
/// Steps that may lie between two states that are recorded: not all are, and some commits fail.
const UNRECORDED: usize = 5;
/// By then a commit that failed was tried again.
const RETRIED: Duration = Duration::from_secs(3);

/// Whether the rules lead from one state to the other in so many steps.
fn follows(from: State, to: State, steps: usize) -> bool {
    let pid = to.pid().unwrap_or(1);
    let inputs = [
        Input::Start,
        Input::Stop,
        Input::Kill { signal: 9, ends: true },
        Input::Pause,
        Input::Unpause,
        Input::Remove { force: true },
        Input::Launched { pid },
        Input::LaunchFailed { restart: true },
        Input::LaunchFailed { restart: false },
        Input::Ended { restart: true },
        Input::Ended { restart: false },
        Input::BackoffOver,
        Input::RemovalFailed,
    ];
    let mut seen = vec![from];
    for _ in 0..steps {
        for state in seen.clone() {
            for input in inputs {
                let Outcome::Accept(next, _) = lifecycle::step(state, input) else { continue };
                if !seen.contains(&next) {
                    seen.push(next);
                }
            }
        }
    }
    seen.iter().any(|state| *state == to || state.at_rest() == to)
}

impl Environment for Sim {
    fn containers(&self) -> &Containers {
        &self.0.containers
    }

    fn events(&self) -> &Events {
        &self.0.events
    }

    fn faults(&self) -> &Faults {
        &self.0.faults
    }

    fn patience(&self) -> Duration {
        procedure::PATIENCE
    }

    fn network_draft(&self, _row: &ContainerRow, _action: &str, _endpoint: &network::Endpoint) -> Option<Draft> {
        None
    }

    fn run_dir(&self, _row: &ContainerRow) -> PathBuf {
        self.0.dir.path().join("run")
    }

    async fn commit(&self, row: ContainerRow, _told: Rows) -> Result<()> {
        self.break_now_and_then();
        // At least a moment, in which those who read see what was shown before.
        sleep(Duration::from_millis(1 + self.0.random.below(20))).await;
        self.write(row)
    }

    fn launch(
        &self,
        row: ContainerRow,
        _clients: Clients,
        progress: Arc<Progress>,
    ) -> impl Future<Output = Result<Launched, Failed>> + Send + 'static {
        self.0.launches.lock().push(Instant::now());
        let sim = self.clone();
        async move { sim.start(row, &progress).await }
    }

    fn release(&self, _row: &ContainerRow) -> Option<impl Future<Output = ()> + Send + 'static> {
        if let Some(takes) = *self.0.release_takes.lock() {
            return Some(sleep(takes));
        }
        let pause = self.0.random.pause();
        (!self.0.random.one_in(2)).then(|| sleep(pause))
    }

    async fn clear_cgroup(&self, _row: &ContainerRow) {
        sleep(Duration::from_millis(self.0.random.below(50))).await;
    }

    async fn why_alive(&self, _row: &ContainerRow) -> String {
        String::new()
    }

    fn delete(
        &self,
        _row: ContainerRow,
        _args: RemoveArgs,
        _told: Rows,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        let sim = self.clone();
        async move {
            sleep(sim.0.random.pause()).await;
            if sim.fails(3) {
                return Err(Error::system("a directory could not be removed"));
            }
            sim.0.store.lock().deleted = true;
            Ok(())
        }
    }

    fn probe_process(&self, _row: &ContainerRow, _command: &api::ExecConfig) -> Result<oci::Process> {
        Ok(oci::Process::default())
    }

    fn stop_plan(&self, _row: &ContainerRow) -> StopPlan {
        StopPlan { signal: signal::TERM, seconds: Some(self.0.random.below(20)) }
    }

    async fn execute(_actor: &mut Actor<Self>, _command: Command) {}

    fn replenish(&self) {}

    async fn finish(_actor: &mut Actor<Self>, _done: Done) {}
}

impl Sim {
    /// A start: quick, slow, failing, or hanging for longer than anybody waits.
    async fn start(&self, row: ContainerRow, progress: &Progress) -> Result<Launched, Failed> {
        progress.enter(Step::Network)?;
        sleep(self.0.random.pause()).await;
        if self.fails(12) {
            sleep(Duration::from_secs(self.0.random.below(400))).await;
        }
        progress.enter(Step::Process)?;
        if self.fails(6) {
            return Err(Failed { error: Error::system("no such program"), exit_code: 127, ran: false });
        }
        let pid = i32::try_from(self.0.pids.fetch_add(1, Ordering::Relaxed)).unwrap();
        let process = Process { pid, started_at: i64::from(pid), endpoints: Vec::new() };
        let place = Place { dir: self.run_dir(&row), cgroup: String::new(), cgroup_origin: String::new() };
        progress.record()?;
        let mut recorded = row.clone();
        launch::note_run(&mut recorded, &process, place.clone());
        self.break_now_and_then();
        sleep(Duration::from_millis(1 + self.0.random.below(20))).await;
        self.write(recorded).map_err(|error| Failed { ran: self.0.random.one_in(2), ..Failed::from(error) })?;
        let (ours, theirs) = sys::fdpass::pair().map_err(Error::from)?;
        let client = ::monitor::client::Client::new(ours).map_err(Error::from)?;
        let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
        monitor::run(self.clone(), theirs);
        sleep(self.0.random.pause()).await;
        if let Err(error) = progress.finish() {
            // It was given up meanwhile, and is taken back: its record was never shown.
            self.0.store.lock().row.state = row.state.at_rest();
            return Err(Failed { ran: true, ..Failed::from(error) });
        }
        let monitor = own.map_err(std::io::Error::from).map_err(Error::from)?;
        let told = self.0.events.ride(drafts::started(self, &row));
        Ok((Running { client, monitor, process }, place, told))
    }
}
