//! Plugins that are asked about networks and addresses. One that hangs holds up its callers for a bounded time and takes a
//! bounded number of threads; nobody else waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::lock::{Condvar, Mutex};
use model::{Error, Result};
use plugin::{Call, Failure, Patience, Plugin};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a call may take that makes or removes something.
const LIMIT: Duration = Duration::from_secs(60);
/// The same of a plugin that has not answered the last call in time.
const LIMIT_OF_SILENT: Duration = Duration::from_secs(5);
/// Calls of one plugin under way: fewer than there are threads that end runs of containers.
const MAX_CALLS: usize = 24;
/// How long a call waits for one that is under way.
const WAIT: Duration = Duration::from_secs(10);

/// What a plugin answers; it may be a refusal.
pub trait Answer: DeserializeOwned {
    /// Why it refuses; empty when it does not.
    fn refusal(&self) -> &str;
}

/// A plugin, and how it behaves.
pub struct Asked {
    plugin: Arc<Plugin>,
    /// `NetworkDriver` or `IpamDriver`.
    kind: &'static str,
    under_way: Mutex<usize>,
    ended: Condvar,
    /// It has not answered the last call in time.
    silent: AtomicBool,
}

impl Asked {
    /// A plugin that answers so far.
    pub fn new(plugin: Arc<Plugin>, kind: &'static str) -> Asked {
        Asked { plugin, kind, under_way: Mutex::default(), ended: Condvar::new(), silent: AtomicBool::new(false) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.plugin.name()
    }

    /// Calls a method. Blocks, for [`WAIT`] and [`LIMIT`] at most.
    ///
    /// Errors: `System`, in the reference's words.
    pub fn ask<A: Answer>(&self, method: &str, arguments: &impl Serialize) -> Result<A> {
        let answer: A = self.call(method, arguments)?;
        match answer.refusal() {
            "" => Ok(answer),
            why => Err(Error::system(format!("remote: {why}"))),
        }
    }

    /// As [`Asked::ask`], for a method that a plugin need not have; `None`: it has not.
    pub fn ask_if_known<A: Answer>(&self, method: &str, arguments: &impl Serialize) -> Result<Option<A>> {
        match self.call::<A>(method, arguments) {
            Err(Failure::Unknown(_)) => Ok(None),
            Err(failure) => Err(failure.into()),
            Ok(answer) if answer.refusal().is_empty() => Ok(Some(answer)),
            Ok(answer) => Err(Error::system(format!("remote: {}", answer.refusal()))),
        }
    }

    fn call<A: Answer>(&self, method: &str, arguments: &impl Serialize) -> Result<A, Failure> {
        let _turn = self.turn()?;
        let silent = self.silent.load(Ordering::Relaxed);
        let method = format!("{}.{method}", self.kind);
        let (limit, patience) = if silent { (LIMIT_OF_SILENT, Patience::None) } else { (LIMIT, Patience::Retry) };
        let answer = self.plugin.call(&Call { method: &method, limit, patience }, arguments);
        self.silent.store(matches!(answer, Err(Failure::TimedOut(_))), Ordering::Relaxed);
        answer
    }

    fn turn(&self) -> Result<Turn<'_>, Failure> {
        let calls = self.under_way.lock();
        let mut calls = self.ended.wait_timeout_while(calls, WAIT, |calls| *calls >= MAX_CALLS);
        if *calls >= MAX_CALLS {
            let text = format!("plugin {:?} has not answered {MAX_CALLS} calls that are under way", self.name());
            return Err(Failure::TimedOut(text));
        }
        *calls += 1;
        Ok(Turn(self))
    }
}

/// A call under way.
struct Turn<'a>(&'a Asked);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.under_way.lock() -= 1;
        self.0.ended.notify_one();
    }
}
