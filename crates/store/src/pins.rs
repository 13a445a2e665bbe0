//! Pins: what lies on the disk and is about to be named by a row, so a sweep must not take it.
//!
//! Blobs and layers are written first and named by a committed row afterwards. Between the two only the [`Lease`] of
//! the running operation speaks for them. A sweep begins with [`Pins::begin_sweep`], *then* collects the roots from the
//! rows, then removes what neither a root nor a pin names. What a lease lets go of while a sweep runs stays pinned until
//! the next sweep begins, because this one's roots may be older than the row that now names it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use model::digest::Digest;
use model::lock::{Mutex, MutexGuard};

/// The pins of one data root, shared by the services that write into it.
#[derive(Clone, Default)]
pub struct Pins {
    state: Arc<Mutex<Holds>>,
    sweeping: Arc<Mutex<()>>,
}

#[derive(Default)]
struct Holds {
    /// How many leases hold the key.
    held: HashMap<Digest, usize>,
    /// Let go of since the running (or last) sweep began.
    released: HashSet<Digest>,
}

impl Holds {
    fn hold(&mut self, key: &Digest) {
        *self.held.entry(key.clone()).or_insert(0) += 1;
    }

    fn release(&mut self, key: Digest) {
        if let Some(count) = self.held.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&key);
                self.released.insert(key);
            }
        }
    }

    fn names(&self, key: &Digest) -> bool {
        self.held.contains_key(key) || self.released.contains(key)
    }
}

impl Pins {
    /// A lease for one operation. Dropping it lets everything go that it pinned.
    pub fn lease(&self) -> Lease {
        Lease { pins: self.clone(), keys: Mutex::new(Vec::new()) }
    }

    /// Whether a running operation holds this digest.
    pub fn holds(&self, digest: &Digest) -> bool {
        self.state().held.contains_key(digest)
    }

    /// Whether an operation that goes on, or ended since the last sweep began, speaks for the digest.
    pub fn names(&self, digest: &Digest) -> bool {
        self.state().names(digest)
    }

    /// Begins a sweep; the roots must be collected after this. Waits for a running sweep.
    pub fn begin_sweep(&self) -> Sweep<'_> {
        let turn = self.sweeping.lock();
        self.state().released.clear();
        Sweep { pins: self, _turn: turn }
    }

    fn state(&self) -> MutexGuard<'_, Holds> {
        self.state.lock()
    }
}

/// Keeps what one operation wrote until its row is committed.
pub struct Lease {
    pins: Pins,
    keys: Mutex<Vec<Digest>>,
}

impl Lease {
    /// Pins a digest. To rely on something that exists already: pin first, look whether it is there second.
    pub fn pin(&self, digest: &Digest) {
        self.keys.lock().push(digest.clone());
        self.pins.state().hold(digest);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let keys = std::mem::take(self.keys.get_mut());
        let mut state = self.pins.state();
        for key in keys {
            state.release(key);
        }
    }
}

/// A sweep in progress; there is one at a time.
pub struct Sweep<'p> {
    pins: &'p Pins,
    _turn: MutexGuard<'p, ()>,
}

impl Sweep<'_> {
    /// Runs `remove` unless the digest is pinned; no lease can pin it meanwhile, so `remove` must be brief.
    pub fn unless_pinned<T>(&self, digest: &Digest, remove: impl FnOnce() -> T) -> Option<T> {
        let state = self.pins.state();
        if state.names(digest) { None } else { Some(remove()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_spares_what_is_held_and_what_was_let_go_since_it_began() {
        let digest = Digest::parse(&format!("sha256:{}", "a".repeat(64))).unwrap();
        let pins = Pins::default();
        let lease = pins.lease();
        lease.pin(&digest);
        assert!(pins.holds(&digest));
        let sweep = pins.begin_sweep();
        assert!(sweep.unless_pinned(&digest, || ()).is_none());
        drop(lease);
        assert!(!pins.holds(&digest));
        assert!(sweep.unless_pinned(&digest, || ()).is_none());
        drop(sweep);
        assert!(pins.begin_sweep().unless_pinned(&digest, || ()).is_some());
    }
}
