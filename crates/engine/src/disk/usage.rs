//! `GET /system/df`.

use std::sync::Arc;

use api::{ContainerSummary, DiskUsage, ImageSummary, Usage};
use model::Result;
use model::filter::Filters;

use crate::container::read::{list, users};
use crate::{Engine, volume};

/// Which kinds are asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Containers.
    pub containers: bool,
    /// Images.
    pub images: bool,
    /// Volumes.
    pub volumes: bool,
    /// The build cache.
    pub build_cache: bool,
}

impl Kinds {
    /// All of them.
    pub const ALL: Kinds = Kinds { containers: true, images: true, volumes: true, build_cache: true };
}

/// How much disk each kind takes, with every object in the lists.
pub async fn usage(engine: &Arc<Engine>, kinds: Kinds) -> Result<DiskUsage> {
    let disk = &engine.disk;
    let containers = asked(kinds.containers, || disk.containers.get(containers(engine.clone())));
    let images = asked(kinds.images, || disk.images.get(images(engine.clone())));
    let volumes = asked(kinds.volumes, || disk.volumes.get(volumes(engine.clone())));
    let (container_usage, image_usage, volume_usage) = tokio::try_join!(containers, images, volumes)?;
    let builder = engine.builder.clone();
    let measure = move |_: &_| Ok(crate::build::cache_usage(&builder));
    let build_cache_usage = match kinds.build_cache {
        true => Some(engine.builder.threads.run(measure).await?),
        false => None,
    };
    Ok(DiskUsage { image_usage, container_usage, volume_usage, build_cache_usage })
}

/// The outcome of a walk, if it is asked for.
async fn asked<T: Clone, W: Future<Output = Result<Arc<T>>>>(
    wanted: bool,
    walk: impl FnOnce() -> W,
) -> Result<Option<T>> {
    if wanted { walk().await.map(Arc::unwrap_or_clone).map(Some) } else { Ok(None) }
}

async fn containers(engine: Arc<Engine>) -> Result<Usage<ContainerSummary>> {
    let args = list::ListArgs { all: true, size: true, limit: 0, filters: Filters::default() };
    let mut usage = Usage { items: list::list(&engine, args).await?, ..Usage::default() };
    for container in &mut usage.items {
        container.image_manifest_descriptor = None;
        usage.total_count += 1;
        usage.total_size += container.size_rw;
        if matches!(container.state.as_str(), "running" | "paused" | "restarting") {
            usage.active_count += 1;
        } else {
            usage.reclaimable += container.size_rw;
        }
    }
    Ok(usage)
}

async fn images(engine: Arc<Engine>) -> Result<Usage<ImageSummary>> {
    let walks = engine.disk.walks.clone();
    let walk = walks.run(move |_| {
        let containers = users::users(&engine.images, &engine.containers)?;
        let bytes = engine.images.bytes(&containers)?;
        let items = image::list(
            &engine.images,
            &image::ListArgs { shared_size: true, containers, ..image::ListArgs::default() },
        )?;
        Ok(Usage {
            active_count: items.iter().filter(|image| image.containers > 0).count() as i64,
            total_count: items.len() as i64,
            total_size: bytes.total as i64,
            reclaimable: bytes.total.saturating_sub(bytes.needed) as i64,
            items,
        })
    });
    walk.await
}

async fn volumes(engine: Arc<Engine>) -> Result<Usage<api::Volume>> {
    let walks = engine.disk.walks.clone();
    let items = walks.run(move |on| volume::measured(on, &engine.volumes, &engine.containers)).await?;
    let mut usage = Usage { total_count: items.len() as i64, ..Usage::default() };
    for volume in items.iter().filter_map(|volume| volume.usage_data.as_ref()) {
        usage.total_size += volume.size.max(0);
        if volume.ref_count > 0 {
            usage.active_count += 1;
        } else {
            usage.reclaimable += volume.size.max(0);
        }
    }
    Ok(Usage { items, ..usage })
}
