//! The distribution protocol: resolve, fetch, push, auth. Registry API v2 as Docker and OCI have it.
//!
//! Invariants:
//! - nothing here knows images: documents are bytes with a media type, the caller verifies digests and gives meaning;
//! - credentials reach the registry they are for, and the token server it names; never where a redirect leads;
//! - only `http` and `https` exist; every wait, size, list and number of attempts has a bound;
//! - a session's sockets end with it; names are looked up without glibc's plug-ins.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod certs;
pub mod challenge;
mod coding;
mod connect;
mod credentials;
pub mod dns;
mod endpoint;
mod exchange;
mod failure;
mod fetch;
pub mod hosts_toml;
mod insecure;
mod login;
mod proxy;
mod push;
mod resolver;
mod search;
mod session;
mod settings;
mod socks;
mod token;
pub mod url;
mod web;

use std::sync::Arc;

use model::Result;
use model::lock::RwLock;
use model::reference::ImageRef;

pub use credentials::{Credentials, Delegate, FetchedToken, Tokens, WantedToken};
pub use failure::{Fault, Reason, Result as Outcome, Retry};
pub use fetch::{Blob, Document, MANIFEST_BYTES, Resolved};
pub use login::login;
pub use push::{Begun, CHUNK, Source, Upload};
pub use search::{Hit, search};
pub use session::{Access, Pauses, Repository};
pub use settings::{Proxies, Settings, Timeouts};
pub use web::{Download, WebRequest, ask, download};

/// All registries, as the configuration has them.
pub struct Registries {
    settings: RwLock<Arc<Settings>>,
    roots: Arc<certs::SystemRoots>,
}

impl Registries {
    /// With this configuration.
    pub fn new(settings: Settings) -> Registries {
        Registries { settings: RwLock::new(Arc::new(settings)), roots: Arc::default() }
    }

    /// The configuration in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }

    /// Puts a reloaded configuration in force, for sessions that begin from now on.
    pub fn replace_settings(&self, settings: Settings) {
        let mut current = self.settings.write();
        // The threads are those of the daemon, whatever it is told to read.
        *current = Arc::new(Settings { files: current.files.clone(), ..settings });
    }

    /// Begins a session with the repository of a reference.
    pub async fn repository(
        &self,
        reference: &ImageRef,
        credentials: Credentials,
        access: Access,
    ) -> Result<Arc<Repository>> {
        let session = Repository::open(self.settings(), self.roots.clone(), reference, credentials, access);
        Ok(Arc::new(session.await?))
    }

    /// The same for a client that says that the registry need not have verified TLS.
    pub async fn insecure_repository(
        &self,
        reference: &ImageRef,
        credentials: Credentials,
        access: Access,
    ) -> Result<Arc<Repository>> {
        let mut settings = Settings::clone(&self.settings());
        settings.insecure.push(reference.domain.clone());
        let session = Repository::open(Arc::new(settings), self.roots.clone(), reference, credentials, access);
        Ok(Arc::new(session.await?))
    }
}
