//! The record of services that everything above is given.

use std::sync::Arc;

use events::Events;
use image::Images;

use model::lock::RwLock;

use crate::container::Containers;
use crate::container::read::stats::sampler::Sampler;
use crate::disk::Disk;
use crate::host::Host;
use crate::settings::Settings;

/// The services of one daemon.
pub struct Engine {
    /// All containers and their exec sessions.
    pub containers: Containers,
    /// Builds of images, and what they keep.
    pub builder: Arc<build::Builder>,
    /// Images, their content, and where they come from and go to.
    pub images: Arc<Images>,
    /// Networks.
    pub networks: Arc<network::Networks>,
    /// Volumes.
    pub volumes: volume::Volumes,
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
    pub(crate) settings: RwLock<Arc<Settings>>,
}

impl Engine {
    /// The configuration in force now; an operation takes it once.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }

    /// Puts a reloaded configuration in force.
    pub fn replace_settings(&self, settings: Settings) {
        self.images.registries.replace_settings(settings.services.registries.clone());
        self.images.replace_policy(settings.services.signature_policy.clone());
        self.images.replace_rules(settings.services.image_gc.clone());
        self.builder.replace_settings(settings.services.builds.clone());
        *self.settings.write() = Arc::new(settings);
    }
}
