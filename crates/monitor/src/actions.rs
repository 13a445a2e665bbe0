//! What is being done to the container at a request: signals, freezing, letting go on. A program on the command line may take
//! minutes for it, and a cgroup seconds: all of it is polled like everything else.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use runtime::Action;

use crate::births::Asked;
use crate::proto::{Reason, Refusal};

/// Actions at once, and those that wait for their turn.
const MAX_ACTIONS: usize = 64;

/// What an action does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sends this signal.
    Signal(i32),
    /// Pauses or resumes.
    Freeze { frozen: bool },
}

/// An action that has begun.
struct Underway {
    kind: Kind,
    asked: Asked,
    action: Box<dyn Action>,
}

/// Those that have begun, and freezes that wait: one follows the other, while signals never wait.
#[derive(Default)]
pub struct Actions {
    underway: Vec<Underway>,
    waiting: VecDeque<(bool, Asked)>,
}

impl Actions {
    pub fn is_empty(&self) -> bool {
        self.underway.is_empty()
    }

    /// Takes care of an action until its outcome.
    pub fn add(&mut self, kind: Kind, asked: Asked, action: Box<dyn Action>) {
        self.underway.push(Underway { kind, asked, action });
    }

    /// Whether there is room for one more.
    pub fn admit(&self) -> Result<(), Refusal> {
        if self.underway.len() + self.waiting.len() < MAX_ACTIONS {
            return Ok(());
        }
        Err(Refusal::new(Reason::Failed, "too much is being done to the container at once"))
    }

    /// A freeze that has to wait for another one; `None`: its turn is now.
    pub fn defer(&mut self, frozen: bool, asked: Asked) -> bool {
        let busy = self.underway.iter().any(|underway| matches!(underway.kind, Kind::Freeze { .. }));
        if busy || !self.waiting.is_empty() {
            self.waiting.push_back((frozen, asked));
            return true;
        }
        false
    }

    /// The next freeze whose turn it is.
    pub fn next_freeze(&mut self) -> Option<(bool, Asked)> {
        let busy = self.underway.iter().any(|underway| matches!(underway.kind, Kind::Freeze { .. }));
        if busy { None } else { self.waiting.pop_front() }
    }

    /// What to poll for input.
    pub fn awaited(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.underway.iter().filter_map(|underway| underway.action.awaited())
    }

    /// When to look at them at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.underway.iter().map(|underway| underway.action.next()).min()
    }

    /// Those that are over, with their outcomes.
    pub fn take_finished(&mut self) -> Vec<(Kind, Asked, model::Result<()>)> {
        let mut over = Vec::new();
        self.underway.retain_mut(|underway| match underway.action.look() {
            None => true,
            Some(outcome) => {
                over.push((underway.kind, underway.asked, outcome));
                false
            }
        });
        over
    }
}
