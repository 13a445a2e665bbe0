//! What a run held is let go more slowly than anybody waits: everybody is told what is waited for, and it goes on.

use std::time::Duration;

use model::lifecycle::State;
use model::{Error, Result};
use tokio::time::{Instant, sleep};

use super::world::{Random, Sim};
use super::{TICK, sample};
use crate::container::Handle;
use crate::container::life::actor::Actor;
use crate::container::life::procedure::PATIENCE;
use crate::container::registry::arguments::{RemoveArgs, StopPlan};
use crate::container::registry::command::Command;

/// How long the release takes: a few times as long as anybody waits.
const TAKES: Duration = Duration::from_secs(1000);

async fn remove(handle: &Handle) -> Result<()> {
    let args = RemoveArgs { force: true, ..RemoveArgs::default() };
    handle.ask(|reply| Command::Remove { args, reply }).await
}

/// The refusal names what is waited for, and came in time.
fn is_told(begun: Instant, outcome: Result<()>) {
    let error: Error = outcome.expect_err("nobody waits for ever");
    let wanted = "waits for its networks and volumes to be let go, which takes longer than 150 seconds";
    assert!(error.message().ends_with(wanted), "{error:?}");
    // Up to a minute until the processes have ended.
    assert!(begun.elapsed() < PATIENCE + Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn whoever_waits_for_a_slow_release_is_told_for_what() {
    for seed in 0..20 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(stopped_and_removed(seed));
    }
}

async fn stopped_and_removed(seed: u64) {
    let tick = tokio::spawn(async {
        loop {
            sleep(TICK).await;
        }
    });
    let row = sample(1, State::Created);
    let sim = Sim::new(Random::new(seed), row.clone());
    sim.heal();
    sim.slow_down(TAKES);
    let (actor, commands) = Actor::new(&sim, row.clone());
    let handle = sim.0.containers.find(row.id.as_str()).unwrap();
    let life = tokio::spawn(actor.live(commands));
    handle.ask(|reply| Command::Start { reply }).await.unwrap();
    let (begun, plan) = (Instant::now(), StopPlan { signal: model::signal::TERM, seconds: Some(0) });
    is_told(begun, handle.ask(|reply| Command::Stop { plan, reply }).await);
    for _ in 0..2 {
        let begun = Instant::now();
        is_told(begun, remove(&handle).await);
    }
    // Others look on meanwhile.
    assert!(handle.view().row.state.is_running());
    while handle.view().row.state != State::Exited {
        sleep(Duration::from_secs(1)).await;
    }
    assert!(begun.elapsed() >= TAKES);
    remove(&handle).await.unwrap();
    life.await.unwrap();
    sim.check_end().await;
    tick.abort();
}
