//! What BuildKit's API uses of the daemon.

use std::sync::Arc;

use build::Builder;
use build::job::{Answer, Event, Inputs, Job};
use events::Events;
use model::platform::Platform;
use tokio::sync::mpsc;

/// The daemon around the API. Implemented over the engine, and by tests that have none.
pub trait Daemon: Send + Sync {
    /// What its builds share.
    fn builder(&self) -> &Arc<Builder>;

    /// A build of a client.
    fn job(&self, inputs: Arc<dyn Inputs>, events: mpsc::Sender<Event>) -> Job;

    /// The end of a build: what it has made is durable, and what it leaves to nobody is removed.
    fn end(&self, job: Arc<Job>) -> Answer<'_, ()>;

    /// Its events.
    fn bus(&self) -> Events;

    /// Its id, which is that of its builder, too.
    fn id(&self) -> String;

    /// How it keeps layers, in the word that `docker info` has for it.
    fn snapshotter(&self) -> String;

    /// What programs it runs, its own platform first.
    fn platforms(&self) -> Vec<Platform>;

    /// The address by which programs of builds reach the host; empty: none.
    fn host_gateway(&self) -> String;
}
