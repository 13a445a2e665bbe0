//! `docker image prune`: removes dangling images, or all that no container uses (B-pr-1).

use api::ImagePruneReport;
use model::filter::Filters;
use model::{Error, Result};

use super::list::label_filter;
use super::remove::remove_unused;
use super::{Images, labels, now};
use crate::events::{Draft, Events};

const KEYS: &[&str] = &["dangling", "label", "label!", "until"];

/// Removes images without names (with `dangling=false` also named ones) that no container uses. Event: prune.
pub fn prune(images: &Images, events: &Events, filters: &Filters) -> Result<ImagePruneReport> {
    filters.validate(KEYS)?;
    let only_dangling = filters.flag("dangling", true)?;
    let until = filters.until(now())?;
    let Ok(_turn) = images.pruning.try_lock() else {
        return Err(Error::conflict("a prune operation is already running"));
    };
    let catalog = images.catalog();
    let mut deleted = Vec::new();
    for (id, image) in &catalog.images {
        let chosen = (!only_dangling || catalog.names_of(id).next().is_none())
            && until.is_none_or(|until| image.created < until)
            && label_filter(filters, &labels(image));
        if chosen && let Some(items) = remove_unused(images, events, id)? {
            deleted.extend(items);
        }
    }
    let space_reclaimed = images.sweep()?;
    let attributes = [("reclaimed".to_owned(), space_reclaimed.to_string())].into();
    events.publish(Draft { kind: "image", action: "prune".into(), actor: String::new(), attributes });
    let images_deleted = if deleted.is_empty() { None } else { Some(deleted) };
    Ok(ImagePruneReport { images_deleted, space_reclaimed })
}
