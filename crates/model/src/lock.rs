//! Locks of threads that are taken whatever became of an earlier holder.
//!
//! A panic ends the request that raised it, never the daemon (a release build ends as a whole), and what a lock protects
//! is changed in one step or made anew from the store: the poison of the standard library's locks has no use here. These
//! are its locks without it; `clippy.toml` forbids the others everywhere else.
#![allow(clippy::disallowed_types)]

use std::sync::{self, LockResult, PoisonError, TryLockError, TryLockResult};
use std::time::Duration;

pub use std::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

fn sound<G>(result: LockResult<G>) -> G {
    result.unwrap_or_else(PoisonError::into_inner)
}

fn free<G>(result: TryLockResult<G>) -> Option<G> {
    match result {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Mutual exclusion (`std::sync::Mutex`).
#[derive(Debug, Default)]
pub struct Mutex<T: ?Sized>(sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A lock that nobody holds.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(sync::Mutex::new(value))
    }

    /// What it protects.
    pub fn into_inner(self) -> T {
        sound(self.0.into_inner())
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        sound(self.0.lock())
    }

    /// The lock, unless somebody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        free(self.0.try_lock())
    }

    /// What it protects; the exclusive reference proves that nobody holds the lock.
    pub fn get_mut(&mut self) -> &mut T {
        sound(self.0.get_mut())
    }
}

/// Many readers or one writer (`std::sync::RwLock`).
#[derive(Debug, Default)]
pub struct RwLock<T: ?Sized>(sync::RwLock<T>);

impl<T> RwLock<T> {
    /// A lock that nobody holds.
    pub const fn new(value: T) -> RwLock<T> {
        RwLock(sync::RwLock::new(value))
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until nobody writes.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        sound(self.0.read())
    }

    /// Waits until nobody reads or writes.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        sound(self.0.write())
    }

    /// The lock to write, unless somebody reads or writes.
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        free(self.0.try_write())
    }
}

/// Waits for a change of what a [`Mutex`] protects (`std::sync::Condvar`).
#[derive(Debug, Default)]
pub struct Condvar(sync::Condvar);

impl Condvar {
    /// One that nobody waits for.
    pub const fn new() -> Condvar {
        Condvar(sync::Condvar::new())
    }

    /// Frees the lock until it is notified, or for no reason.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        sound(self.0.wait(guard))
    }

    /// Frees the lock while `condition` holds, `longest` at most.
    pub fn wait_timeout_while<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        longest: Duration,
        condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        sound(self.0.wait_timeout_while(guard, longest, condition)).0
    }

    /// Wakes one that waits.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all that wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn a_lock_whose_holder_panicked_is_taken() {
        let both = Arc::new((Mutex::new(1), RwLock::new(1)));
        let holder = both.clone();
        let panicked = thread::spawn(move || {
            let (mut mutex, mut rwlock) = (holder.0.lock(), holder.1.write());
            (*mutex, *rwlock) = (2, 2);
            panic!("while both are held");
        });
        assert!(panicked.join().is_err());
        assert_eq!((*both.0.lock(), *both.1.read()), (2, 2));
        assert_eq!(*both.1.write(), 2);
        assert_eq!((both.0.try_lock().map(|guard| *guard), both.1.try_write().map(|guard| *guard)), (Some(2), Some(2)));
        let mut mutex = Arc::into_inner(both).expect("nobody else has it").0;
        *mutex.get_mut() += 1;
        assert_eq!(mutex.into_inner(), 3);
    }

    #[test]
    fn a_change_is_waited_for() {
        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let held = pair.0.lock();
        assert!(pair.0.try_lock().is_none());
        let changer = pair.clone();
        let thread = thread::spawn(move || {
            *changer.0.lock() = true;
            changer.1.notify_all();
        });
        let mut held = held;
        while !*held {
            held = pair.1.wait(held);
        }
        let held = pair.1.wait_timeout_while(held, Duration::from_secs(60), |changed| !*changed);
        assert!(*held);
        drop(held);
        thread.join().expect("it ended");
        let timed_out = pair.1.wait_timeout_while(pair.0.lock(), Duration::from_millis(1), |changed| *changed);
        assert!(*timed_out);
    }
}
