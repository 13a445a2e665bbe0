//! What exports of one build use.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::image::Transfers;
use events::Events;
use store::Lease;

use super::client::Client;
use crate::builder::Builder;
use crate::cancel::Cancel;

/// What an exporter answers, by name: `containerimage.digest` and so on.
pub type Response = BTreeMap<String, String>;

/// What exports of one build use.
#[derive(Clone)]
pub struct Context {
    /// The daemon's builds.
    pub builder: Arc<Builder>,
    /// Keeps what is made until the build ends.
    pub lease: Arc<Lease>,
    /// Ends the export early.
    pub cancel: Cancel,
    /// Events of the engine.
    pub bus: Events,
    /// Uploads at one time.
    pub transfers: Transfers,
    /// Whoever asked for the build.
    pub client: Arc<dyn Client>,
}
