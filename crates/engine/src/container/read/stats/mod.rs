//! `GET /containers/{id}/stats`: what a container uses (B-ss-1 to B-ss-4).
//!
//! One [`Sampler`] reads for all clients, once a second for each container that somebody looks at, and ends when nobody
//! does. A client gets the newest sample: one that reads slowly skips some and holds up nobody.

mod sample;
pub mod sampler;

use std::sync::Arc;

use model::Result;
use tokio::sync::watch;

pub(crate) use self::sample::links_of;
use self::sample::{Reading, Subject, System};
use self::sampler::Sampler;
use crate::container::view::ContainerView;
use crate::container::{Containers, Handle};

/// What the client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Samples until the container is gone.
    Stream,
    /// One, with the processor figures of the one before.
    Pair,
    /// One, at once.
    Single,
}

/// Samples of one container.
pub struct Samples {
    handle: Handle,
    /// Bytes of the machine's memory.
    memory: u64,
    before: Reading,
    source: Source,
}

enum Source {
    /// Nothing more.
    Ended,
    Single(Reading),
    Shared {
        /// `None` until the first reading.
        readings: watch::Receiver<Option<Reading>>,
        views: watch::Receiver<Arc<ContainerView>>,
        shape: Shape,
    },
}

/// Begins to look at a container. Errors: `NotFound`.
pub async fn stats(containers: &Containers, sampler: &Sampler, name: &str, shape: Shape) -> Result<Samples> {
    let handle = containers.find(name)?;
    let (view, processes) = (handle.view(), &containers.threads.processes);
    let runs = view.row.state.is_running() && !view.row.state.is_restarting();
    let source = match shape {
        Shape::Pair | Shape::Single if !runs => Source::Single(None),
        Shape::Single => {
            let subject = Subject::of(&view, &sampler.machine.cgroups);
            let read = move |on: &_| Ok(subject.and_then(|subject| subject.read(&System::read(on), on)).map(Arc::new));
            Source::Single(processes.run(read).await?)
        }
        Shape::Pair | Shape::Stream => {
            let readings = sampler.subscribe(&handle.id, handle.watch(), processes);
            Source::Shared { readings, views: handle.watch(), shape }
        }
    };
    Ok(Samples { handle, memory: sampler.machine.memory, before: None, source })
}

impl Samples {
    /// Waits for the next one; `None` after the last.
    pub async fn next(&mut self) -> Option<api::StatsResponse> {
        let reading = match &mut self.source {
            Source::Ended => return None,
            Source::Single(reading) => {
                let reading = reading.take();
                self.source = Source::Ended;
                reading
            }
            Source::Shared { readings, views, shape } => {
                if *shape == Shape::Pair {
                    self.before = newer(readings, views).await?;
                }
                let reading = newer(readings, views).await?;
                if *shape == Shape::Pair {
                    self.source = Source::Ended;
                }
                reading
            }
        };
        let before = std::mem::replace(&mut self.before, reading.clone());
        Some(sample::response(&self.handle.view(), reading.as_deref(), before.as_deref(), self.memory))
    }
}

/// The first reading, or the next one after those that were seen; `None` when the container is gone.
async fn newer(
    readings: &mut watch::Receiver<Option<Reading>>,
    views: &mut watch::Receiver<Arc<ContainerView>>,
) -> Option<Reading> {
    let newer = async {
        if !readings.has_changed().ok()? && readings.borrow().is_some() {
            readings.changed().await.ok()?;
        }
        readings.wait_for(Option::is_some).await.ok()?.clone()
    };
    tokio::select! {
        reading = newer => reading,
        _ = views.wait_for(|view| view.removed) => None,
    }
}
