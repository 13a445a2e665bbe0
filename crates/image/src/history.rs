//! `docker history`: the steps an image was made in, newest first (B-im-13).

use std::iter::successors;

use api::HistoryItem;
use model::platform::Platform;
use model::{Error, Result, time};

use super::catalog::{Wanted, select};
use super::images::Images;

/// The history of the image that `text` leads to.
pub fn history(images: &Images, text: &str, platform: Option<&Platform>) -> Result<Vec<HistoryItem>> {
    let catalog = images.catalog();
    let found = catalog.find(text)?;
    let wanted = platform.map_or(Wanted::Any, Wanted::For);
    let manifest = select(&found.image, wanted, &found.shown(&catalog))?;
    let image = &found.image;
    let mut sizes = Vec::with_capacity(manifest.diff_ids.len());
    for diff_id in &manifest.diff_ids {
        sizes.push(images.layers.layer(&diff_id.into())?.map_or(0, |layer| layer.size));
    }
    let mut sizes = sizes.into_iter();
    let mut items = Vec::new();
    for step in manifest.document.iter().flat_map(|document| &document.history) {
        let size = match step.empty_layer {
            true => 0,
            false => sizes.next().ok_or_else(|| Error::system("unable to find the size of the layer"))?,
        };
        items.push(HistoryItem {
            comment: step.comment.clone(),
            created: time::parse_rfc3339(&step.created).map_or(0, |t| t.unix_seconds()),
            created_by: step.created_by.clone(),
            id: "<missing>".into(),
            size: size as i64,
            tags: None,
        });
    }
    items.reverse();
    // The newest step made the image itself, the one before it its parent, as far as they are here.
    let lineage = successors(Some(image), |image| catalog.images.get(image.parent.as_ref()?));
    for (item, image) in items.iter_mut().zip(lineage) {
        let id = &image.target.digest;
        let (tags, _) = catalog.tags_and_digests(id, catalog.names_of(id));
        item.id = id.to_string();
        item.tags = if tags.is_empty() { None } else { Some(tags) };
    }
    Ok(items)
}
