//! The wall clock is set while a container runs: what its runs are worth to the restart policy is measured by another. In the
//! simulation every run ends in 1970 by the wall clock, long before it began.

use std::sync::Arc;
use std::time::Duration;

use model::lifecycle::State;
use model::restart::{FIRST_DELAY, GOOD_RUN};
use tokio::time::{Instant, sleep};

use super::monitor::ENDS_AT_ONCE;
use super::world::{Random, Sim};
use super::{TICK, sample};
use crate::container::Handle;
use crate::container::life::actor::Actor;
use crate::container::registry::arguments::RemoveArgs;
use crate::container::registry::command::Command;

/// Ends the run; the pause until the next launch begins.
async fn pause_after_end(sim: &Sim, handle: &Handle) -> Duration {
    let launches = || sim.0.launches.lock().clone();
    let (before, mut views) = (launches().len(), handle.watch());
    handle.ask(|reply| Command::Kill { signal: ENDS_AT_ONCE, reply }).await.unwrap();
    views.wait_for(|view| view.row.state == State::Restarting).await.unwrap();
    let ended = Instant::now();
    while launches().len() == before {
        sleep(Duration::from_millis(5)).await;
    }
    launches()[before].saturating_duration_since(ended)
}

#[test]
fn a_wall_clock_that_is_set_makes_no_run_shorter() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let mut row = sample(1, State::Created);
        let definition = Arc::make_mut(&mut row.definition);
        definition.host_config.restart_policy.name = "always".into();
        // Another signal than that is no stop.
        definition.config.stop_signal = "TERM".into();
        let sim = Sim::new(Random::new(7), row.clone());
        sim.heal();
        let (actor, commands) = Actor::new(&sim, row.clone());
        let handle = sim.0.containers.find(row.id.as_str()).unwrap();
        let life = tokio::spawn(actor.live(commands));
        handle.ask(|reply| Command::Start { reply }).await.unwrap();
        let runs = async || {
            let mut views = handle.watch();
            views.wait_for(|view| view.row.state.pid().is_some()).await.unwrap();
        };
        let mut wanted = FIRST_DELAY;
        for _ in 0..5 {
            runs().await;
            let pause = pause_after_end(&sim, &handle).await;
            assert!(pause + TICK >= wanted && pause < wanted + 2 * TICK, "{pause:?}, not {wanted:?}");
            wanted *= 2;
        }
        runs().await;
        sleep(GOOD_RUN).await;
        let pause = pause_after_end(&sim, &handle).await;
        assert!(pause < 3 * TICK, "{pause:?} after a good run");
        runs().await;
        let args = RemoveArgs { force: true, ..RemoveArgs::default() };
        handle.ask(|reply| Command::Remove { args, reply }).await.unwrap();
        life.await.unwrap();
    });
}
