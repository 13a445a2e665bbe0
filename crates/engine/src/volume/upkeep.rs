//! What is done for volumes while nobody asks: snapshots by schedule, and a look at their sizes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::volume::schedule::{Alarms, Schedule};
use model::Result;
use model::time::Timestamp;
use tokio::time::Instant;

use super::copies::{self, SnapshotArgs};
use crate::Engine;

/// Time between two looks at what is due, at most.
const LOOK: Duration = Duration::from_secs(10);
/// How long a snapshot that failed is not tried again, at most.
const AGAIN: Duration = Duration::from_secs(300);
/// Bytes of a volume's name in that of a snapshot.
const NAME: usize = 180;

/// Works for as long as the engine is there.
pub fn start(engine: &Arc<Engine>) {
    tokio::spawn(run(Arc::downgrade(engine)));
}

#[derive(Default)]
struct Upkeep {
    /// Until when a schedule leaves a volume alone whose snapshot has failed.
    failed: HashMap<(String, String), Instant>,
    measured: Option<Instant>,
    /// Volumes that are too large, as far as somebody was told.
    alarmed: HashSet<String>,
}

async fn run(engine: Weak<Engine>) {
    let mut upkeep = Upkeep::default();
    loop {
        let Some(settings) = engine.upgrade().map(|engine| engine.settings()) else { return };
        let services = &settings.services;
        let shortest = services.volume_schedules.iter().map(|schedule| schedule.every).min().unwrap_or(LOOK);
        let interval = services.volume_alarms.as_ref().map_or(LOOK, |alarms| alarms.interval);
        tokio::time::sleep(LOOK.min(shortest).min(interval)).await;
        let Some(engine) = engine.upgrade() else { return };
        if let Err(error) = upkeep.snapshots(&engine, &services.volume_schedules).await {
            tracing::warn!(%error, "no snapshots are taken by schedule");
        }
        if let Some(alarms) = &services.volume_alarms
            && let Err(error) = upkeep.sizes(&engine, alarms).await
        {
            tracing::warn!(%error, "volumes are not measured");
        }
    }
}

impl Upkeep {
    async fn snapshots(&mut self, engine: &Arc<Engine>, schedules: &[Schedule]) -> Result<()> {
        if schedules.is_empty() {
            return Ok(());
        }
        let volumes = engine.volumes.clone();
        let (all, taken) = engine.disk.walks.run(move |_| Ok((volumes.list()?, volumes.snapshots()?))).await?;
        self.failed.retain(|_, until| *until > Instant::now());
        for schedule in schedules {
            for volume in all.iter().filter(|volume| schedule.covers(&volume.name)) {
                let key = (schedule.name.clone(), volume.name.clone());
                let now = Timestamp::from_unix_nanos(sys::clock::System.unix_nanos());
                if self.failed.contains_key(&key) || !schedule.is_due(&volume.name, &taken, now) {
                    continue;
                }
                if let Err(error) = take(engine, schedule, &volume.name, now).await {
                    tracing::warn!(volume = volume.name, schedule = schedule.name, %error, "no snapshot is taken");
                    self.failed.insert(key, Instant::now() + schedule.every.min(AGAIN));
                }
            }
        }
        Ok(())
    }

    /// Tells of volumes that have become too large, or are no longer. Events: size-alarm, size-alarm-over.
    async fn sizes(&mut self, engine: &Arc<Engine>, alarms: &Alarms) -> Result<()> {
        if self.measured.is_some_and(|at| at.elapsed() < alarms.interval) {
            return Ok(());
        }
        self.measured = Some(Instant::now());
        let (volumes, limits) = (engine.volumes.clone(), alarms.clone());
        let measure = move |_: &blocking::Blocking| {
            let local = volumes.list()?.into_iter().filter(|volume| volume.driver == ::volume::LOCAL);
            let sizes = local.filter_map(|volume| {
                let limit = limits.limit(&volume.name)?;
                Some((volumes.usage(&volume.name).ok()?, limit, volume.name))
            });
            Ok(sizes.collect::<Vec<_>>())
        };
        let sizes = engine.disk.walks.run(measure).await?;
        let known: HashSet<_> = sizes.iter().map(|(_, _, name)| name.clone()).collect();
        self.alarmed.retain(|name| known.contains(name));
        for (size, limit, name) in sizes {
            let action = match size > limit {
                true if self.alarmed.insert(name.clone()) => "size-alarm",
                false if self.alarmed.remove(&name) => "size-alarm-over",
                _ => continue,
            };
            let attributes =
                [("driver", ::volume::LOCAL.to_owned()), ("size", size.to_string()), ("limit", limit.to_string())];
            engine.events.publish("volume", action, &name, attributes);
        }
        Ok(())
    }
}

/// Takes one, and removes those that are too many now.
async fn take(engine: &Arc<Engine>, schedule: &Schedule, volume: &str, now: Timestamp) -> Result<()> {
    // 2026-01-02T03:04:05Z without what names cannot have.
    let time: String = now.rfc3339().chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let shown: String = volume.chars().filter(char::is_ascii).take(NAME).collect();
    let args = SnapshotArgs {
        name: format!("{shown}-{}-{time}", schedule.name),
        volume: volume.to_owned(),
        freeze: schedule.freeze,
        schedule: schedule.name.clone(),
        ..SnapshotArgs::default()
    };
    copies::take(engine, args).await?;
    let volumes = engine.volumes.clone();
    let all = engine.disk.walks.run(move |_| volumes.snapshots()).await?;
    for name in schedule.expired(volume, &all) {
        if let Err(error) = copies::remove(&engine.volumes, &engine.disk, &engine.events, &name).await {
            // The next one tries again.
            tracing::debug!(snapshot = name, %error, "a snapshot stays beyond its time");
        }
    }
    Ok(())
}
