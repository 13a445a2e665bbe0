//! Plugins that run on the host (the first protocol version): found by a socket or a file, asked over HTTP.
//!
//! Invariants:
//! - a plugin is a stranger: what it sends is bounded, every call has a limit of time, and one that does not answer holds
//!   up nobody but its caller;
//! - where a plugin is is looked up for each attempt: one that was started anew, elsewhere perhaps, is found;
//! - calls block: they are made on threads of whoever makes them, never on a worker of the async runtime.
#![forbid(unsafe_code)]

mod call;
mod discovery;
mod failure;
mod tls;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::lock::{Mutex, MutexGuard};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

pub use discovery::{Address, Places};
pub use failure::{Failure, Result};

/// How long a plugin may take to tell what it implements.
const ACTIVATE_LIMIT: Duration = Duration::from_secs(10);
/// How long a plugin is tried again that cannot be reached.
pub const RETRY_LIMIT: Duration = Duration::from_secs(10);
/// Pauses between the attempts: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Plugins that are remembered.
const MAX_PLUGINS: usize = 64;

/// All plugins of this host. Clones share them.
#[derive(Clone)]
pub struct Plugins {
    inner: Arc<Inner>,
}

struct Inner {
    places: Places,
    runtime: Handle,
    known: Mutex<HashMap<String, Arc<Plugin>>>,
}

/// A plugin that has told what it implements.
#[derive(Debug)]
pub struct Plugin {
    name: String,
    places: Places,
    runtime: Handle,
    implements: Vec<String>,
}

/// Whether a plugin that cannot be reached is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Up to [`RETRY_LIMIT`].
    Retry,
    /// Not at all.
    None,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Manifest {
    implements: Option<Vec<String>>,
}

impl Plugins {
    /// Those of these places; `runtime` drives the connections.
    pub fn new(places: Places, runtime: Handle) -> Plugins {
        Plugins { inner: Arc::new(Inner { places, runtime, known: Mutex::default() }) }
    }

    /// The plugin of this name. Blocks.
    ///
    /// Errors: [`Failure::Absent`]; [`Failure::Unreachable`]; [`Failure::Refused`] when it does not implement `kind`.
    pub fn get(&self, name: &str, kind: &str, patience: Patience) -> Result<Arc<Plugin>> {
        let known = self.known().get(name).cloned();
        let plugin = match known {
            Some(plugin) => plugin,
            None => self.activate(name, patience)?,
        };
        match plugin.implements(kind) {
            true => Ok(plugin),
            false => Err(Failure::Refused(format!(
                "Plugin does not implement the requested driver: plugin={name:?}, requested implementation={kind:?}"
            ))),
        }
    }

    /// The names that something stands for, a plugin or not. Blocks.
    pub fn names(&self) -> Vec<String> {
        self.inner.places.scan()
    }

    fn activate(&self, name: &str, patience: Patience) -> Result<Arc<Plugin>> {
        let Inner { places, runtime, .. } = &*self.inner;
        let mut plugin =
            Plugin { name: name.to_owned(), places: places.clone(), runtime: runtime.clone(), implements: Vec::new() };
        let call = Call { method: "Plugin.Activate", limit: ACTIVATE_LIMIT, patience };
        let manifest: Manifest = plugin.send(&call, Vec::new())?;
        plugin.implements = manifest.implements.unwrap_or_default();
        let plugin = Arc::new(plugin);
        let mut known = self.known();
        if known.len() >= MAX_PLUGINS && !known.contains_key(name) {
            return Err(Failure::Refused(format!("more than {MAX_PLUGINS} plugins")));
        }
        known.insert(name.to_owned(), plugin.clone());
        Ok(plugin)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Arc<Plugin>>> {
        self.inner.known.lock()
    }
}

/// What is asked of a plugin, and how long for.
#[derive(Clone, Copy, Debug)]
pub struct Call<'c> {
    /// `VolumeDriver.Create`
    pub method: &'c str,
    /// How long one attempt may take.
    pub limit: Duration,
    /// Whether there are others.
    pub patience: Patience,
}

impl Plugin {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it says that it implements this.
    pub fn implements(&self, kind: &str) -> bool {
        self.implements.iter().any(|own| own == kind)
    }

    /// Calls a method with arguments. Blocks, for `call.limit` after the connection is made, and [`RETRY_LIMIT`] before.
    pub fn call<T: DeserializeOwned>(&self, call: &Call<'_>, arguments: &impl Serialize) -> Result<T> {
        let body = serde_json::to_vec(arguments).map_err(|e| Failure::Refused(e.to_string()))?;
        self.send(call, body)
    }

    fn send<T: DeserializeOwned>(&self, call: &Call<'_>, body: Vec<u8>) -> Result<T> {
        let (begun, mut pause) = (Instant::now(), PAUSE.0);
        loop {
            let attempt = self.places.find(&self.name).and_then(|address| {
                let exchange = call::exchange(&address, call.method, body.clone());
                let limited = async { tokio::time::timeout(call.limit, exchange).await };
                self.runtime.block_on(limited).unwrap_or_else(|_| Err(call::too_late(call.method)))
            });
            match attempt {
                Err(Failure::Unreachable(why))
                    if call.patience == Patience::Retry && begun.elapsed() + pause < RETRY_LIMIT =>
                {
                    tracing::debug!(plugin = self.name, why, "a plugin is tried again");
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE.1);
                }
                Ok(answer) => return call::decode(call.method, &answer),
                Err(failure) => return Err(failure),
            }
        }
    }
}
