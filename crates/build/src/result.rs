//! What steps end with.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::digest::Digest;
use model::lock::Mutex;
use model::{Error, Result};
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

/// The files that a definition is of.
#[derive(Clone, Debug)]
pub struct Files {
    /// The result of its vertex.
    pub solved: Arc<Solved>,
    /// Which of its outputs.
    pub index: i64,
}

impl Files {
    /// Their layers.
    pub fn chain(&self) -> Chain {
        self.solved.chain(self.index)
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
            let mut locks = self.0.lock();
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(key.clone()).or_default().clone()
        };
        lock.lock_owned().await
    }
}

/// Results of the vertices of one build, which its graphs share: each vertex is solved, and told of, once.
#[derive(Default)]
pub(crate) struct Memo(Mutex<HashMap<Digest, Slot>>);

/// The result of a vertex, held by whoever solves it.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Solved>>>>;

/// Vertices of one build, over all of its graphs.
const VERTICES: usize = 100_000;

impl Memo {
    /// Waits for whoever solves the vertex.
    ///
    /// Errors: `InvalidParameter` for a build with too many vertices.
    pub(crate) async fn slot(&self, vertex: &Digest) -> Result<OwnedMutexGuard<Option<Arc<Solved>>>> {
        let slot = {
            let mut slots = self.0.lock();
            if slots.len() >= VERTICES && !slots.contains_key(vertex) {
                return Err(Error::invalid(format!("a build of more than {VERTICES} operations")));
            }
            slots.entry(vertex.clone()).or_default().clone()
        };
        Ok(slot.lock_owned().await)
    }

    /// The result of a vertex, if it is solved and nobody works on it.
    pub(crate) fn solved(&self, vertex: &Digest) -> Option<Arc<Solved>> {
        let slot = self.0.lock().get(vertex).cloned()?;
        let solved = slot.try_lock().ok()?;
        solved.clone()
    }
}
