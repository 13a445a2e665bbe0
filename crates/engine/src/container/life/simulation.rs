//! The actor against an environment of its own: no kernel, no root, no disk, and a clock that only moves when nothing else
//! does. Random commands meet monitors that answer late, wrongly or not at all, commits that fail and starts that hang.
//!
//! What must hold: commands are answered; the recorded states follow one another as `model::lifecycle` allows; what is shown
//! has the process that is recorded; one probe of its health is under way at a time; nobody is told of a start before it is recorded; a container that has ended leaves no
//! monitor behind. `GANTRY_SEED` repeats a life, `GANTRY_LIVES` says how many there are.

mod clock;
mod monitor;
mod slow;
mod world;

use std::sync::Arc;
use std::time::Duration;

use model::lifecycle::State;
use model::own_label::OnUnhealthy;
use model::{Kind, Result, signal};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use self::world::{Random, Sim};
use super::actor::Actor;
use crate::container::registry::arguments::RemoveArgs;
use crate::container::registry::arguments::StopPlan;
use crate::container::registry::command::{Command, Reply};
use crate::container::row::ContainerRow;
use crate::container::row::sample;

/// Lives of one test.
const LIVES: u64 = 100;
/// Commands of one life.
const COMMANDS: u64 = 40;
/// The clock moves by this at most.
const TICK: Duration = Duration::from_millis(100);
/// Longest wait for an answer, in the simulated time: a start that hangs is given up earlier, and so is a stop.
const PATIENCE: Duration = Duration::from_secs(3600);

/// See the head of this file.
#[test]
fn random_lives_keep_the_rules() {
    let fixed = std::env::var("GANTRY_SEED").ok().and_then(|seed| seed.parse().ok());
    let lives = std::env::var("GANTRY_LIVES").ok().and_then(|lives| lives.parse().ok()).unwrap_or(LIVES);
    let first = fixed.unwrap_or_else(|| u64::from(std::process::id()) << 20);
    for seed in first..first + if fixed.is_some() { 1 } else { lives } {
        println!("GANTRY_SEED={seed}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(live(seed));
    }
}

/// One life, from its creation until it is removed.
async fn live(seed: u64) {
    // The clock moves when nothing is to be done, messages that have just arrived apart: so it moves little by little.
    let tick = tokio::spawn(async {
        loop {
            sleep(TICK).await;
        }
    });
    let random = Random::new(seed);
    let mut row = sample(1, State::Created);
    row.run.started_at = model::time::Timestamp::ZERO;
    let definition = Arc::make_mut(&mut row.definition);
    definition.host_config.restart_policy.name =
        (*random.choose(&["no", "always", "unless-stopped", "on-failure"])).to_owned();
    definition.host_config.auto_remove = definition.host_config.restart_policy.name == "no" && random.one_in(4);
    if random.one_in(2) {
        definition.config.healthcheck = Some(health_check(&random));
        let limit = Some(3).filter(|_| random.one_in(2));
        definition.own_labels.restart = random.one_in(2).then_some(OnUnhealthy { limit });
    }
    let sim = Sim::new(random.fork(), row.clone());
    let (actor, commands) = Actor::new(&sim, row.clone());
    let handle = sim.0.containers.find(row.id.as_str()).unwrap();
    let life = tokio::spawn(actor.live(commands));
    let watcher = tokio::spawn(sim.clone().watch(handle.watch()));
    let mut asked = Vec::new();
    for _ in 0..COMMANDS {
        sleep(random.pause()).await;
        let (command, answer) = command(&random);
        let what = what(&command);
        sim.trace(|| format!("asked {what}"));
        if handle.send(command).await.is_err() {
            break;
        }
        let sim = sim.clone();
        asked.push(tokio::spawn(async move {
            let outcome = timeout(PATIENCE, answer).await.unwrap_or_else(|_| panic!("{what} is not answered"));
            // An actor that is gone answers nothing more: its container is.
            outcome
                .map_or_else(|_| assert!(sim.is_deleted(), "{what} is dropped"), |outcome| sim.check(what, &outcome));
        }));
        if random.one_in(3) {
            asked.swap_remove(0).await.unwrap();
        }
    }
    for one in asked {
        one.await.unwrap();
    }
    sim.heal();
    remove(&sim, &row, &handle).await;
    life.await.unwrap();
    watcher.await.unwrap();
    sim.check_end().await;
    tick.abort();
}

/// Often enough that lives see many probes.
fn health_check(random: &Random) -> api::HealthConfig {
    let millis = |limit: u64| 1_000_000 * i64::try_from(1 + random.below(limit)).unwrap_or(1);
    api::HealthConfig {
        test: vec!["CMD".into(), "x".into()],
        interval: millis(2000),
        timeout: millis(4000),
        start_period: if random.one_in(2) { millis(5000) } else { 0 },
        start_interval: millis(500),
        retries: i64::try_from(1 + random.below(3)).unwrap_or(1),
    }
}

/// In the end everything can be removed.
async fn remove(sim: &Sim, row: &ContainerRow, handle: &crate::container::Handle) {
    for _ in 0..20 {
        let args = RemoveArgs { force: true, ..RemoveArgs::default() };
        let removed = timeout(PATIENCE, handle.ask(|reply| Command::Remove { args, reply })).await.expect("an answer");
        match removed {
            Ok(()) => break,
            Err(error) if error.kind() == Kind::NotFound => break,
            Err(_) => sleep(Duration::from_secs(60)).await,
        }
    }
    assert!(sim.is_deleted(), "the container cannot be removed: {:?}", handle.view().row.state);
    assert!(sim.0.containers.find(row.id.as_str()).is_err());
}

fn command(random: &Random) -> (Command, oneshot::Receiver<Result<()>>) {
    let (reply, answer): (Reply, _) = oneshot::channel();
    let seconds = *random.choose(&[Some(0), Some(1), Some(10), None]);
    let plan = StopPlan { signal: *random.choose(&[signal::TERM, signal::KILL, 10]), seconds };
    let command = match random.below(14) {
        0..=3 => Command::Start { reply },
        // One that waits for ever for a container that does not heed its signal is answered when somebody kills it.
        4 | 5 => Command::Stop { plan: StopPlan { seconds: seconds.or(Some(20)), ..plan }, reply },
        6 => Command::Restart { plan: StopPlan { seconds: seconds.or(Some(20)), ..plan }, reply },
        7 | 8 => Command::Kill { signal: *random.choose(&[signal::KILL, signal::TERM, 10]), reply },
        9 => Command::Pause { passing: random.one_in(3), reply },
        10 | 11 => Command::Unpause { reply },
        12 if random.one_in(3) => {
            Command::Remove { args: RemoveArgs { force: random.one_in(2), ..Default::default() }, reply }
        }
        12 => Command::NoteWritten { reply },
        _ => Command::Drain { reply },
    };
    (command, answer)
}

fn what(command: &Command) -> &'static str {
    match command {
        Command::Start { .. } => "start",
        Command::Stop { .. } => "stop",
        Command::Restart { .. } => "restart",
        Command::Kill { signal: signal::KILL, .. } => "kill",
        Command::Remove { .. } => "remove",
        Command::Pause { .. } => "pause",
        Command::Unpause { .. } => "unpause",
        _ => "another command",
    }
}
