//! What a procedure has done so far, to be taken back in the opposite order when a later step fails.
//!
//! Each action may be called more than once: what is not there any more is no error of its undoing. Tests with armed
//! faults call each twice, see [`model::fault`].

use model::Result;
use model::fault::Faults;

type Action<'a> = Box<dyn Fn() -> Result<()> + 'a>;

/// A stack of undo actions. Dropping it undoes nothing.
#[derive(Default)]
pub struct Undo<'a> {
    actions: Vec<(&'static str, Action<'a>)>,
}

impl<'a> Undo<'a> {
    /// Adds what takes the step just done back; `what` is for the daemon's log when that fails.
    pub fn push(&mut self, what: &'static str, action: impl Fn() -> Result<()> + 'a) {
        self.actions.push((what, Box::new(action)));
    }

    /// Takes everything back, the newest first, and goes on after an error, which is logged. What fails while descriptors are short
    /// is tried again ([`sys::descriptors`]). Blocks.
    pub fn unwind(self, faults: &Faults) {
        let rounds = if faults.is_armed() { 2 } else { 1 };
        for _ in 0..rounds {
            for (what, action) in self.actions.iter().rev() {
                if let Err(error) = sys::descriptors::persist(action) {
                    tracing::warn!(what, %error, "a failed procedure could not be taken back");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn the_newest_is_taken_back_first_and_an_error_stops_nothing() {
        let log = RefCell::new(Vec::new());
        let run = |faults: &Faults| {
            let mut undo = Undo::default();
            for step in ["a", "b", "c"] {
                let log = &log;
                undo.push(step, move || {
                    log.borrow_mut().push(step);
                    if step == "b" { Err(model::Error::system("no")) } else { Ok(()) }
                });
            }
            undo.unwind(faults);
            log.take()
        };
        assert_eq!(run(&Faults::default()), ["c", "b", "a"]);
        assert_eq!(run(&Faults::new(|_| false)), ["c", "b", "a", "c", "b", "a"]);
    }
}
