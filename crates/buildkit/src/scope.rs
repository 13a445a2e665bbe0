//! What one front end has of a build: the results that it was given, the definitions that it starts from, and its own result.
//!
//! A client that drives its build has one, and so has every front end in a container: none finds results of another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::pb;
use model::lock::Mutex;
use model::{Error, Result};
use prost::Message;
use tokio::sync::{oneshot, watch};

use crate::containers::Containers;
use crate::error::Failed;
use crate::outcome::Outcome;

/// Results that a front end may ask for, and bytes of their definitions.
const REFS: usize = 10_000;
const REF_BYTES: usize = 128 << 20;

/// See the module.
pub(crate) struct Scope {
    /// What it starts from.
    pub(crate) inputs: HashMap<String, pb::Definition>,
    /// Front ends in containers that have asked for one another until this one.
    pub(crate) depth: usize,
    /// Those that it has made.
    pub(crate) containers: Containers,
    refs: Mutex<Refs>,
    returned: Mutex<Option<oneshot::Sender<Result<Outcome, Failed>>>>,
    /// Its calls that are not answered.
    open: watch::Sender<usize>,
}

/// What a front end returns, when it does.
pub(crate) type Returned = oneshot::Receiver<Result<Outcome, Failed>>;

#[derive(Default)]
struct Refs {
    all: HashMap<String, Option<pb::Definition>>,
    /// Of their definitions.
    bytes: usize,
}

impl Scope {
    /// Of a front end that has not called yet.
    pub(crate) fn new(inputs: HashMap<String, pb::Definition>, depth: usize) -> (Arc<Scope>, Returned) {
        let (sender, returned) = oneshot::channel();
        let scope = Scope {
            inputs,
            depth,
            containers: Containers::default(),
            refs: Mutex::default(),
            returned: Mutex::new(Some(sender)),
            open: watch::Sender::new(0),
        };
        (Arc::new(scope), returned)
    }

    /// Takes what the front end returns.
    ///
    /// Errors: `InvalidParameter` when it has returned something before.
    pub(crate) fn give(&self, outcome: Result<Outcome, Failed>) -> Result<()> {
        let refused = || Error::invalid("gateway result is already set");
        let sender = self.returned.lock().take().ok_or_else(refused)?;
        sender.send(outcome).map_err(|_| refused())
    }

    /// Notes a result for the front end; the id by which it asks for it.
    ///
    /// Errors: `InvalidParameter` when it has too many.
    pub(crate) fn keep(&self, definition: Option<pb::Definition>) -> Result<String> {
        let mut refs = self.refs.lock();
        let bytes = refs.bytes + definition.as_ref().map_or(0, Message::encoded_len);
        if refs.all.len() >= REFS || bytes > REF_BYTES {
            let text = format!("more than {REFS} results, or {REF_BYTES} bytes of definitions, of one front end");
            return Err(Error::invalid(text));
        }
        let id = model::id::ContainerId::from_bytes(sys::random::bytes32()).to_string();
        refs.all.insert(id.clone(), definition);
        refs.bytes = bytes;
        Ok(id)
    }

    /// The result of an id; an empty id is that of an empty root.
    ///
    /// Errors: `NotFound`.
    pub(crate) fn kept(&self, id: &str) -> Result<Option<pb::Definition>> {
        if id.is_empty() {
            return Ok(None);
        }
        let refs = self.refs.lock();
        refs.all.get(id).cloned().ok_or_else(|| Error::not_found(format!("no such ref: {id}")))
    }

    /// A call begins; it is answered when the value is dropped.
    pub(crate) fn call(self: &Arc<Scope>) -> Open {
        self.open.send_modify(|open| *open += 1);
        Open(self.clone())
    }

    /// Whether a call is not answered.
    pub(crate) fn is_open(&self) -> bool {
        *self.open.borrow() > 0
    }

    /// Returns when every call is answered.
    pub(crate) async fn answered(&self) {
        // The sender lives in `self`.
        drop(self.open.subscribe().wait_for(|open| *open == 0).await);
    }

    /// Returns when the front end has not called for so long, and waits for no answer.
    pub(crate) async fn silent(&self, limit: Duration) {
        let mut open = self.open.subscribe();
        loop {
            if *open.borrow_and_update() > 0 {
                // The sender lives in `self`.
                drop(open.wait_for(|open| *open == 0).await);
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(limit) => return,
                _ = open.changed() => {}
            }
        }
    }
}

/// A call that is not answered.
pub(crate) struct Open(Arc<Scope>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: usize) -> Option<pb::Definition> {
        Some(pb::Definition { def: vec![vec![0; bytes]], ..pb::Definition::default() })
    }

    #[test]
    fn results_are_bounded_and_belong_to_one_front_end() {
        let (scope, _returned) = Scope::new(HashMap::new(), 0);
        let (other, _returned) = Scope::new(HashMap::new(), 0);
        let id = scope.keep(of(1)).unwrap();
        assert_eq!(scope.kept(&id).unwrap(), of(1));
        assert_eq!(scope.kept("").unwrap(), None);
        assert_eq!(other.kept(&id).unwrap_err().message(), format!("no such ref: {id}"));
        assert!(scope.keep(of(REF_BYTES)).is_err());
        for _ in 1..REFS {
            scope.keep(None).unwrap();
        }
        assert!(scope.keep(None).is_err());
    }

    #[test]
    fn one_result_is_taken() {
        let (scope, mut returned) = Scope::new(HashMap::new(), 0);
        scope.give(Ok(Outcome::default())).unwrap();
        assert_eq!(scope.give(Ok(Outcome::default())).unwrap_err().message(), "gateway result is already set");
        assert!(returned.try_recv().unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_front_end_that_waits_for_an_answer_is_not_silent() {
        let limit = Duration::from_secs(10);
        let (scope, _returned) = Scope::new(HashMap::new(), 0);
        scope.silent(limit).await;
        let call = scope.call();
        let long = Duration::from_secs(1000);
        assert!(tokio::time::timeout(long, scope.silent(limit)).await.is_err());
        drop(call);
        scope.silent(limit).await;
    }
}
