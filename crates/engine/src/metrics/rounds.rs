//! The loop that reads figures of all containers that run, as long as somebody asks for them now and then.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use blocking::{Class, Work};
use model::id::ContainerId;
use model::lock::Mutex;
use model::{Error, Result};
use monitor::counted::Logged;
use sys::cgroup::{Cgroup, Figures};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Engine;
use crate::container::read::stats::links_of;

/// Between two rounds: an answer has figures that are a second old at most.
const PERIOD: Duration = Duration::from_millis(900);
/// The loop ends when nobody has asked for so long: a few times the usual interval of Prometheus.
const IDLE: Duration = Duration::from_secs(150);

/// What a container used at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub figures: Figures,
    /// Bytes that came over its links, and that went.
    pub received: u64,
    pub sent: u64,
    /// What its monitor has counted of its log.
    pub logged: Logged,
}

/// All containers that ran at one time.
pub(super) type Round = HashMap<ContainerId, Usage>;

/// The newest round, for everybody.
#[derive(Default)]
pub struct Rounds(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None` while the loop does not run.
    newest: Option<watch::Receiver<Option<Arc<Round>>>>,
    asked: Arc<Mutex<Option<Instant>>>,
}

impl Rounds {
    /// The newest round; the first one after a while is waited for.
    pub(super) async fn newest(&self, engine: &Arc<Engine>) -> Result<Arc<Round>> {
        let mut rounds = {
            let mut state = self.0.lock();
            *state.asked.lock() = Some(Instant::now());
            match &state.newest {
                Some(rounds) if rounds.has_changed().is_ok() => rounds.clone(),
                _ => {
                    let (sender, rounds) = watch::channel(None);
                    tokio::spawn(run(Arc::downgrade(engine), sender, state.asked.clone()));
                    state.newest = Some(rounds.clone());
                    rounds
                }
            }
        };
        let round = rounds.wait_for(Option::is_some).await;
        let round = round.map_err(|_| Error::system("containers cannot be measured"))?;
        Ok(round.clone().unwrap_or_default())
    }
}

async fn run(engine: Weak<Engine>, rounds: watch::Sender<Option<Arc<Round>>>, asked: Arc<Mutex<Option<Instant>>>) {
    let threads = Class::new(Work::Processes);
    loop {
        let begun = Instant::now();
        let is_idle = asked.lock().is_none_or(|at| at + IDLE < begun);
        let Some(engine) = engine.upgrade().filter(|_| !is_idle) else { return };
        let subjects: Vec<Subject> = engine.containers.all().iter().filter_map(|h| Subject::of(&engine, h)).collect();
        drop(engine);
        let read = threads.run(move |_| Ok(subjects.iter().filter_map(Subject::read).collect::<Round>()));
        match read.await {
            Ok(round) => _ = rounds.send_replace(Some(Arc::new(round))),
            Err(error) => return tracing::error!(%error, "containers cannot be measured"),
        }
        tokio::time::sleep_until(begun + PERIOD).await;
    }
}

/// A container to be measured.
struct Subject {
    id: ContainerId,
    cgroup: Cgroup,
    pid: i32,
    init: Option<Arc<OwnedFd>>,
    /// It has links of its own.
    has_links: bool,
    /// Where its monitor counts.
    run_dir: PathBuf,
}

impl Subject {
    /// `None` for one that does not run.
    fn of(engine: &Engine, handle: &crate::container::Handle) -> Option<Subject> {
        let view = handle.view();
        let place = view.row.run.place.as_ref().filter(|_| view.pid > 0)?;
        let mode = view.row.host_config.network_mode.as_str();
        Some(Subject {
            id: handle.id.clone(),
            cgroup: place.cgroup(&engine.host.cgroups).ok()?,
            pid: view.pid,
            init: view.init.clone(),
            has_links: !matches!(mode, "host" | "none"),
            run_dir: place.dir.clone(),
        })
    }

    fn read(&self) -> Option<(ContainerId, Usage)> {
        let figures = self.cgroup.figures();
        let links = if self.has_links { links_of(self.pid) } else { Default::default() };
        // The number is another process's when the container has ended.
        let is_same = |init: &Arc<OwnedFd>| sys::process::number(init.as_fd()).is_ok_and(|number| number == self.pid);
        let (received, sent) = links.values().fold((0, 0), |(r, s), link| (r + link.rx_bytes, s + link.tx_bytes));
        let logged = monitor::counted::read(&self.run_dir);
        self.init.as_ref().is_none_or(is_same).then(|| (self.id.clone(), Usage { figures, received, sent, logged }))
    }
}
