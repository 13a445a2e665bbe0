//! What steps end with.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use model::Error;
use model::digest::Digest;
use tokio::sync::OwnedMutexGuard;

use crate::record::Chain;

/// The result of a vertex.
#[derive(Clone, Debug)]
pub struct Solved {
    /// What it counts as, for steps that use all of it.
    pub key: Digest,
    /// By output.
    pub outputs: BTreeMap<i64, Chain>,
    /// It was there already.
    pub cached: bool,
}

impl Solved {
    /// The layers of an output; one that was not made is empty.
    pub fn chain(&self, index: i64) -> Chain {
        self.outputs.get(&index).cloned().unwrap_or_default()
    }
}

/// Why a build failed.
#[derive(Debug)]
pub struct Failure {
    /// The vertex that failed first; `None`: before any ran.
    pub vertex: Option<Digest>,
    /// Why.
    pub error: Error,
    /// The code of a program that has ended with one that is not wanted.
    pub exit_code: Option<i32>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { vertex: None, error, exit_code: None }
    }
}

/// What a step ends with.
pub(crate) struct Made {
    /// By output.
    pub outputs: BTreeMap<i64, Chain>,
    /// Bytes of new layers.
    pub size: u64,
}

/// Why a step ends without a result.
pub(crate) struct Unmade {
    pub error: Error,
    pub exit_code: Option<i32>,
}

impl From<Error> for Unmade {
    fn from(error: Error) -> Unmade {
        Unmade { error, exit_code: None }
    }
}

/// Steps that run, by their keys: who wants one that runs waits for its end.
#[derive(Default)]
pub(crate) struct Locks(Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>);

impl Locks {
    pub(crate) async fn lock(&self, key: &Digest) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(key.clone()).or_default().clone()
        };
        lock.lock_owned().await
    }
}
