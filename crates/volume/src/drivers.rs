//! The drivers of a daemon: the built-in one, and plugins, which are found when they are named and whenever all are asked.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use blocking::{Class, VOLUME_DRIVERS, Work};
use model::lock::{Mutex, MutexGuard};
use model::{Error, Result};
use plugin::{Patience, Plugins};

use crate::driver::{Catalogue, VolumeDriver};
use crate::remote::Remote;
use crate::row::LOCAL;

/// How long all plugins together are waited for when somebody asks for all volumes.
const SURVEY_WAIT: Duration = Duration::from_secs(3);
/// Drivers besides the built-in one and the class of threads that looks for them.
const MAX_REMOTE: usize = VOLUME_DRIVERS - 2;

/// A driver, and threads for its calls: one that hangs holds up no other.
pub(crate) struct Driver {
    pub(crate) calls: Box<dyn VolumeDriver>,
    threads: Class,
}

impl Driver {
    pub(crate) fn new(calls: Box<dyn VolumeDriver>) -> Arc<Driver> {
        Arc::new(Driver { calls, threads: Class::new(Work::Volumes) })
    }

    /// Calls the driver on one of its threads.
    pub(crate) async fn call<T: Send + 'static>(
        self: &Arc<Driver>,
        call: impl FnOnce(&dyn VolumeDriver) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let driver = self.clone();
        self.threads.run(move |_| call(&*driver.calls)).await
    }
}

/// All of them. Clones share them.
#[derive(Clone)]
pub(crate) struct Drivers {
    inner: Arc<Inner>,
}

struct Inner {
    local: Arc<Driver>,
    plugins: Plugins,
    /// Threads that look for plugins.
    lookups: Class,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    remote: HashMap<String, Arc<Driver>>,
    /// Those that have not answered the last survey yet.
    slow: HashSet<String>,
}

impl Drivers {
    pub(crate) fn new(local: Arc<Driver>, plugins: Plugins) -> Drivers {
        let inner = Inner { local, plugins, lookups: Class::new(Work::Volumes), state: Mutex::default() };
        Drivers { inner: Arc::new(inner) }
    }

    /// The built-in one.
    pub(crate) fn local(&self) -> &Arc<Driver> {
        &self.inner.local
    }

    /// The driver of this name.
    ///
    /// Errors: `NotFound`; `System` for a plugin that does not answer or is no driver of volumes.
    pub(crate) async fn get(&self, name: &str, patience: Patience) -> Result<Arc<Driver>> {
        if name == LOCAL {
            return Ok(self.inner.local.clone());
        }
        if let Some(known) = self.state().remote.get(name) {
            return Ok(known.clone());
        }
        let (plugins, wanted) = (self.inner.plugins.clone(), name.to_owned());
        let found = self.inner.lookups.run(move |_| Remote::find(&plugins, &wanted, patience)).await?;
        if self.state().remote.len() >= MAX_REMOTE {
            let plugins = self.inner.plugins.clone();
            let names = self.inner.lookups.run(move |_| Ok(plugins.names())).await?;
            self.state().remote.retain(|name, _| names.contains(name));
        }
        let mut state = self.state();
        if state.remote.len() >= MAX_REMOTE && !state.remote.contains_key(name) {
            return Err(Error::system(format!("more than {MAX_REMOTE} volume plugins")));
        }
        Ok(state.remote.entry(name.to_owned()).or_insert_with(|| Driver::new(Box::new(found))).clone())
    }

    /// The names of the drivers that are in use.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.state().remote.keys().cloned().collect();
        names.push(LOCAL.to_owned());
        names.sort();
        names
    }

    /// Asks all plugins that there are, and those of these names, at once; what each says, or why it says nothing. One that
    /// has not answered an earlier survey yet is not asked again.
    pub(crate) async fn survey<T: Send + 'static>(
        &self,
        named: impl IntoIterator<Item = String>,
        ask: impl Fn(&dyn Catalogue) -> Result<T> + Clone + Send + Sync + 'static,
    ) -> Vec<(String, Result<T>)> {
        let plugins = self.inner.plugins.clone();
        let mut names: HashSet<String> = named.into_iter().filter(|name| name != LOCAL).collect();
        names.extend(self.state().remote.keys().cloned());
        names.extend(self.inner.lookups.run(move |_| Ok(plugins.names())).await.unwrap_or_default());
        let mut asked = Vec::new();
        for name in names {
            let late = || Error::system(format!("plugin {name} has not answered"));
            if !self.state().slow.insert(name.clone()) {
                asked.push((name.clone(), Err(late())));
                continue;
            }
            let (drivers, ask, wanted, late) = (self.clone(), ask.clone(), name.clone(), late());
            let answer = tokio::spawn(async move {
                let answer = drivers.ask(&wanted, ask).await;
                drivers.state().slow.remove(&wanted);
                answer
            });
            asked.push((name, Ok((answer, late))));
        }
        let deadline = tokio::time::Instant::now() + SURVEY_WAIT;
        let mut answers = Vec::new();
        for (name, asked) in asked {
            let answer = match asked {
                Err(late) => Err(late),
                Ok((answer, late)) => match tokio::time::timeout_at(deadline, answer).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(_)) | Err(_) => Err(late),
                },
            };
            answers.push((name, answer));
        }
        answers
    }

    async fn ask<T: Send + 'static>(
        &self,
        name: &str,
        ask: impl Fn(&dyn Catalogue) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let driver = self.get(name, Patience::None).await?;
        let elsewhere = || Error::system("no catalogue");
        driver.call(move |driver| ask(driver.catalogue().ok_or_else(elsewhere)?)).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock()
    }
}
