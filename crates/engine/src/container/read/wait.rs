//! `POST /containers/{id}/wait`: answers when a run ends or the container is gone (B-wt-1).
//!
//! A waiter registers before the caller answers its 200 header, and reads published views only: it never holds up the
//! container and a client may wait before the start.

use std::sync::Arc;

use model::{Error, Result};
use tokio::sync::watch;

use crate::container::Containers;
use crate::container::view::ContainerView;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It does not run (at once if it does not run now).
    NotRunning,
    /// The next end of a run.
    NextExit,
    /// The container is gone.
    Removed,
}

impl Condition {
    /// The query value; empty means `not-running`.
    pub fn parse(word: &str) -> Result<Condition> {
        match word {
            "" | "not-running" => Ok(Condition::NotRunning),
            "next-exit" => Ok(Condition::NextExit),
            "removed" => Ok(Condition::Removed),
            other => Err(Error::invalid(format!("invalid condition: {other:?}"))),
        }
    }
}

/// A registered wait.
pub struct Waiter {
    views: watch::Receiver<Arc<ContainerView>>,
    condition: Condition,
    exits: u64,
}

/// Registers a wait; it sees every end from now on.
pub fn wait(containers: &Containers, name: &str, condition: Condition) -> Result<Waiter> {
    let views = containers.find(name)?.watch();
    let view = views.borrow().clone();
    // An end that already happened satisfies `not-running` by being counted as new.
    let exits = match condition {
        Condition::NotRunning if !view.row.state.is_running() => view.exits.wrapping_sub(1),
        _ => view.exits,
    };
    Ok(Waiter { views, condition, exits })
}

impl Waiter {
    /// Answers when the condition is met.
    pub async fn finish(mut self) -> api::WaitResponse {
        loop {
            let view = self.views.borrow_and_update().clone();
            if self.is_met(&view) {
                // A container that could not be started says why to whoever waits for its end.
                let tells = view.row.run.start_failed && self.condition != Condition::Removed;
                return answer(&view, tells.then(|| view.row.run.error.clone()));
            }
            if self.condition == Condition::Removed && view.removal_error.is_some() {
                return answer(&view, view.removal_error.clone());
            }
            if self.views.changed().await.is_err() {
                // The actor is gone, and so is the container.
                return answer(&view, None);
            }
        }
    }

    fn is_met(&self, view: &ContainerView) -> bool {
        match self.condition {
            Condition::Removed => view.removed,
            Condition::NotRunning | Condition::NextExit => view.removed || view.exits != self.exits,
        }
    }
}

fn answer(view: &ContainerView, error: Option<String>) -> api::WaitResponse {
    api::WaitResponse {
        status_code: i64::from(view.row.run.exit_code),
        error: error.map(|message| api::WaitExitError { message }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference's text for an unknown condition.
    #[test]
    fn conditions_parse() {
        assert_eq!(Condition::parse("").expect("default"), Condition::NotRunning);
        assert_eq!(Condition::parse("removed").expect("removed"), Condition::Removed);
        assert_eq!(Condition::parse("foo").expect_err("unknown").message(), "invalid condition: \"foo\"");
    }
}
