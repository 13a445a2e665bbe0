//! Where the time comes from: rules take it as a value, those who call them read it from a [`Clock`].

use std::sync::atomic::{AtomicI64, Ordering};

use crate::time::Timestamp;

/// A source of the wall time.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// A clock that stands until it is moved; for tests.
#[derive(Debug)]
pub struct Manual(AtomicI64);

impl Manual {
    /// A clock that stands at `at`.
    pub fn new(at: Timestamp) -> Manual {
        Manual(AtomicI64::new(at.unix_nanos()))
    }

    /// Moves the clock on.
    pub fn advance(&self, by: std::time::Duration) {
        self.0.fetch_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for Manual {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_nanos(self.0.load(Ordering::SeqCst))
    }
}
