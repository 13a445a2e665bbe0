//! The engine: what the daemon can do, one verb a function.
//!
//! `Engine` is a record of services and has no verbs: a verb takes the services it uses. It never sees HTTP; it speaks
//! `api` types because inspect must echo them. Facts travel upward as published views and events, calls go downward only.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod abilities;
pub mod apparmor;
pub mod boot;
pub mod build;
#[allow(clippy::disallowed_methods, reason = "on the thread of the checks, or in a command")]
pub mod check;
pub mod container;
pub mod disk;
pub mod ending;
mod held;
pub mod network;
pub mod paths;
pub mod reach;
mod root;
pub mod settings;
pub mod system;
pub mod tables;
pub mod volume;

pub use ::{events, image};

use std::sync::{Arc, RwLock};

use crate::container::Containers;
use crate::container::read::stats::sampler::Sampler;
use crate::disk::Disk;
use crate::events::Events;
use crate::image::Images;
use crate::settings::Settings;
use crate::system::Host;

/// The services of one daemon.
pub struct Engine {
    /// All containers and their exec sessions.
    pub containers: Containers,
    /// Images, their content, and where they come from and go to.
    pub images: Arc<Images>,
    /// Networks.
    pub networks: Arc<::network::Networks>,
    /// Volumes.
    pub volumes: ::volume::Volumes,
    /// Reads what containers use.
    pub stats: Sampler,
    /// What happened.
    pub events: Events,
    /// Where containers' root file systems come from.
    pub snapshots: snapshot::Snapshots,
    /// Measuring and pruning.
    pub disk: Disk,
    /// The metadata.
    pub store: store::Store,
    /// Facts of the machine and of this daemon, read once.
    pub host: Host,
    /// The configuration in force.
    settings: RwLock<Arc<Settings>>,
}

impl Engine {
    /// The configuration in force now; an operation takes it once.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Puts a reloaded configuration in force.
    pub fn replace_settings(&self, settings: Settings) {
        self.images.registries.replace_settings(settings.services.registries.clone());
        self.images.replace_policy(settings.services.signature_policy.clone());
        self.images.replace_rules(settings.services.image_gc.clone());
        *self.settings.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(settings);
    }
}
