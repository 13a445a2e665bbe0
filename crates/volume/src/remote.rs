//! Volumes of a plugin: `VolumeDriver.*`. The plugin mounts where the host sees it; what it mounts is its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{Error, Result};
use plugin::{Call, Failure, Patience, Plugin, Plugins};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::driver::{Catalogue, Found, Others, VolumeDriver};
use crate::mounted::Mounted;
use crate::row::Volume;
use crate::scope::Scope;

/// What a plugin says that it implements.
const KIND: &str = "VolumeDriver";
/// How long a call may take that makes or mounts something.
const LONG: Duration = Duration::from_secs(120);
/// How long any other may take.
const SHORT: Duration = Duration::from_secs(60);
/// How long a plugin is waited for when somebody looks at its volumes.
const LOOK: Duration = Duration::from_secs(10);
/// The same of a list, which all plugins are asked for.
const LIST: Duration = Duration::from_secs(3);
/// Volumes that one plugin may have.
const MAX_VOLUMES: usize = 10_000;

/// A driver that is a plugin.
pub struct Remote {
    plugin: Arc<Plugin>,
    scope: Scope,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Named<'a> {
    name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Creation<'a> {
    name: &'a str,
    opts: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Usage<'a> {
    #[serde(rename = "Name")]
    name: &'a str,
    #[serde(rename = "ID")]
    id: &'a str,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Answer {
    err: String,
    mountpoint: String,
    volume: Option<Described>,
    volumes: Option<Vec<Described>>,
    capabilities: Option<Capabilities>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Described {
    name: String,
    mountpoint: String,
    created_at: String,
    status: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Capabilities {
    scope: String,
}

impl From<Described> for Found {
    fn from(described: Described) -> Found {
        let Described { name, mountpoint, created_at, status } = described;
        Found { name, mountpoint: mountpoint.into(), created_at, status: status.unwrap_or_default() }
    }
}

impl Remote {
    /// The driver that the plugin of this name is.
    ///
    /// Errors: `NotFound` when there is none, else `System`; in the reference's words.
    pub(crate) fn find(plugins: &Plugins, name: &str, patience: Patience) -> Result<Remote> {
        let failed = |failure: Failure| Error::from(failure).prefix(format!("error looking up volume plugin {name}"));
        let plugin = plugins.get(name, KIND, patience).map_err(failed)?;
        let call = Call { method: "VolumeDriver.Capabilities", limit: LOOK, patience: Patience::None };
        // A plugin need not tell.
        let scope = match plugin.call::<Answer>(&call, &BTreeMap::<String, String>::new()) {
            Ok(answer) => answer.capabilities.unwrap_or_default().scope.to_lowercase(),
            Err(_) => String::new(),
        };
        let scope = if scope == Scope::Global.as_str() { Scope::Global } else { Scope::Local };
        Ok(Remote { plugin, scope })
    }

    fn ask(&self, method: &str, limit: Duration, arguments: &impl Serialize) -> Result<Answer, Failure> {
        let method = format!("{KIND}.{method}");
        self.send(&Call { method: &method, limit, patience: Patience::Retry }, arguments)
    }

    fn send(&self, call: &Call<'_>, arguments: &impl Serialize) -> Result<Answer, Failure> {
        let answer: Answer = self.decoded(call, arguments)?;
        match answer.err.is_empty() {
            true => Ok(answer),
            false => Err(Failure::Refused(answer.err)),
        }
    }

    fn decoded<T: DeserializeOwned>(&self, call: &Call<'_>, arguments: &impl Serialize) -> Result<T, Failure> {
        self.plugin.call(call, arguments)
    }
}

impl VolumeDriver for Remote {
    fn name(&self) -> &str {
        self.plugin.name()
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn create(&self, name: &str, options: &BTreeMap<String, String>) -> Result<()> {
        // One that it has is taken as it is.
        if let Ok(Some(_)) = self.get(name) {
            return Ok(());
        }
        Ok(self.ask("Create", LONG, &Creation { name, opts: options }).map(drop)?)
    }

    fn mountpoint(&self, name: &str) -> Result<PathBuf> {
        Ok(self.ask("Path", SHORT, &Named { name })?.mountpoint.into())
    }

    fn is_mounted_for_use(&self, _volume: &Volume) -> bool {
        true
    }

    fn mount(&self, volume: &Volume, user: &str) -> Result<Mounted> {
        let answer = self.ask("Mount", LONG, &Usage { name: &volume.name, id: user })?;
        let path = PathBuf::from(answer.mountpoint);
        if !path.is_absolute() {
            // It says that it has mounted something.
            if let Err(error) = self.unmount(volume, user, Others::Remain) {
                tracing::debug!(volume = volume.name, %error, "unmounting what was mounted nowhere");
            }
            let text = format!("volume plugin {} has mounted volume {} at {path:?}", self.name(), volume.name);
            return Err(Error::system(format!("{text}, which is no absolute path")));
        }
        Ok(Mounted::Directory(path))
    }

    fn unmount(&self, volume: &Volume, user: &str, _others: Others) -> Result<()> {
        Ok(self.ask("Unmount", SHORT, &Usage { name: &volume.name, id: user }).map(drop)?)
    }

    fn remove(&self, name: &str) -> Result<()> {
        Ok(self.ask("Remove", SHORT, &Named { name }).map(drop)?)
    }

    fn catalogue(&self) -> Option<&dyn Catalogue> {
        Some(self)
    }
}

impl Catalogue for Remote {
    fn get(&self, name: &str) -> Result<Option<Found>> {
        match self.ask("Get", LOOK, &Named { name }) {
            Ok(answer) => Ok(answer.volume.map(Found::from).map(|found| Found { name: name.to_owned(), ..found })),
            // It knows no such volume, or says so in its own words.
            Err(Failure::Refused(why) | Failure::Unknown(why)) => {
                tracing::debug!(plugin = self.name(), volume = name, why, "a plugin does not know a volume");
                Ok(None)
            }
            Err(failure) => Err(failure.into()),
        }
    }

    fn list(&self) -> Result<Vec<Found>> {
        let call = Call { method: "VolumeDriver.List", limit: LIST, patience: Patience::None };
        let answer = self.send(&call, &BTreeMap::<String, String>::new())?;
        let volumes = answer.volumes.unwrap_or_default().into_iter().take(MAX_VOLUMES);
        Ok(volumes.map(Found::from).filter(|found| !found.name.is_empty()).collect())
    }
}
