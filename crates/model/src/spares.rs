//! Things made ahead, so that who needs one does not wait for its making.

use crate::lock::{Mutex, MutexGuard};

/// How many wait: one for the next that needs one, and one for another at the same time.
const SPARES: usize = 2;

/// A few things of a kind that nobody has yet. Making is slow, taking is not.
#[derive(Debug)]
pub struct Spares<T> {
    waiting: Mutex<Vec<T>>,
    /// Held while things are made: two that refill would make too many.
    refilling: Mutex<()>,
}

impl<T> Default for Spares<T> {
    fn default() -> Spares<T> {
        Spares { waiting: Mutex::default(), refilling: Mutex::default() }
    }
}

impl<T> Spares<T> {
    /// One that waits.
    pub fn take(&self) -> Option<T> {
        self.waiting().pop()
    }

    /// Whether one of them is such.
    pub fn any(&self, is_such: impl FnMut(&T) -> bool) -> bool {
        self.waiting().iter().any(is_such)
    }

    /// Those that are of no use any more.
    pub fn take_useless(&self, is_useless: impl FnMut(&mut T) -> bool) -> Vec<T> {
        self.waiting().extract_if(.., is_useless).collect()
    }

    /// One that was taken and is not needed, or one more.
    pub fn put(&self, spare: T) {
        self.waiting().push(spare);
    }

    /// Makes what is missing. Waits for others that do so.
    pub fn refill<E>(&self, mut make: impl FnMut() -> Result<T, E>) -> Result<(), E> {
        let _turn = self.refilling.lock();
        while self.waiting().len() < SPARES {
            let made = make()?;
            self.put(made);
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<T>> {
        self.waiting.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn many_that_refill_make_no_more_than_is_missing() {
        let (spares, made) = (Spares::default(), AtomicUsize::new(0));
        let make = || Ok::<_, Infallible>(made.fetch_add(1, Ordering::Relaxed));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| spares.refill(make));
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), SPARES);
        assert!(spares.take().is_some() && spares.take().is_some() && spares.take().is_none());
        spares.put(7);
        assert_eq!(spares.refill(|| Err("cannot be made")), Err("cannot be made"));
        assert!(spares.any(|spare| *spare == 7) && !spares.any(|spare| *spare == 8));
        assert!(spares.take_useless(|spare: &mut usize| *spare == 8).is_empty());
        assert_eq!((spares.take_useless(|spare: &mut usize| *spare == 7), spares.take()), (vec![7], None));
    }
}
