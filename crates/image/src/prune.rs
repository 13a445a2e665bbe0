//! `docker image prune`: takes dangling images, or all names and images that no container needs (B-pr-1).
//!
//! Names are taken one by one, as the reference does: the name that a container was made by stays, another of the same
//! image may go, and of an image that a container was made of by its id one name stays.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use api::{ImageDeleteItem, ImagePruneReport};
use model::digest::Digest;
use model::filter::Filters;
use model::reference::ImageRef;
use model::{Error, Result};

use super::catalog::{Catalog, digits, parsed};
use super::images::Images;
use super::list::{invalid_until, labels_match};
use super::remove::{report_deleted, report_untagged};
use super::row::{ImageRow, NAMES};
use super::users::Users;
use events::{Draft, Events, now};

/// Names taken in one commit; other writers wait meanwhile.
pub(super) const BATCH: usize = 256;
const KEYS: &[&str] = &["dangling", "label", "label!", "until"];

/// What may be taken: a name, or an image that has none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    name: Option<String>,
    image: Digest,
}

/// Takes images without names (with `dangling=false` also names) that no container needs. Event: prune.
pub fn prune(images: &Images, events: &Events, users: &Users, filters: &Filters) -> Result<ImagePruneReport> {
    let Some(_turn) = images.pruning.try_lock() else {
        return Err(Error::conflict("a prune operation is already running"));
    };
    filters.validate(KEYS)?;
    let only_dangling = filters.flag("dangling", true)?;
    let until = filters.until(now()).map_err(invalid_until)?;
    let labelled = filters.contains("label") || filters.contains("label!");
    let catalog = images.catalog();
    let passes = |entry: &Entry, image: &ImageRow| {
        let made = entry.name.as_ref().and_then(|name| catalog.names.get(name)).map_or(image.created, |row| row.tagged);
        until.is_none_or(|until| made < until) && (!labelled || labels_match(filters, image))
    };
    let mut deleted = Vec::new();
    let mut chosen = chosen(&catalog, users, only_dangling, passes);
    if !images.store.read(|tx| tx.is_whole(&NAMES))? {
        // Who has no name may have one that cannot be read.
        chosen.retain(|entry| entry.name.is_some());
    }
    for entries in chosen.chunks(BATCH) {
        deleted.extend(take(images, events, entries.to_vec())?);
    }
    // What is left of pulls that broke off goes too, unless one goes on with it.
    let space_reclaimed = images.blobs.expire_parts(Duration::ZERO)? + images.sweep()?;
    events.publish("image", "prune", "", [("reclaimed", space_reclaimed.to_string())]);
    let images_deleted = if deleted.is_empty() { None } else { Some(deleted) };
    Ok(ImagePruneReport { images_deleted, space_reclaimed })
}

/// What to take, in order. Pure.
fn chosen(
    catalog: &Catalog,
    users: &Users,
    only_dangling: bool,
    passes: impl Fn(&Entry, &ImageRow) -> bool,
) -> Vec<Entry> {
    let mut entries = BTreeSet::new();
    let mut left: HashMap<Digest, usize> = HashMap::new();
    let names = catalog.names_by_image();
    for (id, image) in &catalog.images {
        let names: Vec<_> = names.get(id).into_iter().flatten().map(|name| Some((*name).to_owned())).collect();
        left.insert(id.clone(), names.len().max(1));
        let considered = match names.is_empty() {
            true => vec![None],
            false if only_dangling => Vec::new(),
            false => names,
        };
        let considered = considered.into_iter().map(|name| Entry { name, image: id.clone() });
        entries.extend(considered.filter(|entry| passes(entry, image)));
    }
    let needed = Needed::by(users);
    entries.retain(|entry| match &entry.name {
        Some(name) => !needed.names.contains(name),
        None => users.of(&entry.image).next().is_none(),
    });
    entries.retain(|entry| {
        let count = left.entry(entry.image.clone()).or_default();
        if *count > 1 {
            *count -= 1;
            return true;
        }
        !needed.images.contains(&entry.image)
    });
    entries.into_iter().collect()
}

/// What containers were made by.
#[derive(Default)]
struct Needed {
    /// Full names.
    names: HashSet<String>,
    /// Images that were named by their ids.
    images: HashSet<Digest>,
}

impl Needed {
    fn by(users: &Users) -> Needed {
        let mut needed = Needed::default();
        for (image, user) in users.all() {
            let given = user.row.reference.as_str();
            let by_id = image.hex().starts_with(digits(given));
            if by_id || given.ends_with(&format!("@{image}")) {
                needed.images.insert(image.clone());
            }
            if let Ok(reference) = ImageRef::parse_normalized(given) {
                let tagged = ImageRef { digest: None, ..reference.clone() };
                needed.names.insert(reference.with_default_tag().canonical());
                if tagged.tag.is_some() {
                    needed.names.insert(tagged.canonical());
                }
            }
        }
        needed
    }
}

/// Takes names, and images with their last one, in one commit. What changed meanwhile is left.
fn take(images: &Images, events: &Events, entries: Vec<Entry>) -> Result<Vec<ImageDeleteItem>> {
    images.change_telling(events, move |catalog, edit| {
        let in_use = edit.images_in_use()?;
        let mut names = catalog.names_by_image();
        let mut taken = Vec::new();
        for entry in entries {
            let Some((id, _)) = catalog.images.get_key_value(&entry.image) else { continue };
            let left = names.entry(id).or_default();
            let is_as_before = match &entry.name {
                Some(name) => left.remove(name.as_str()),
                None => left.is_empty() && !in_use.contains(id),
            };
            if !is_as_before {
                continue;
            }
            entry.name.iter().try_for_each(|name| edit.delete_name(name))?;
            let is_last = left.is_empty() && !in_use.contains(id);
            if is_last {
                edit.delete_image(id)?;
            }
            taken.push((entry, is_last));
        }
        let gone = |(entry, is_last): (Entry, bool)| {
            let image = catalog.images.get(&entry.image).filter(|_| is_last);
            let parts = image.map(|image| gone_with(image, &edit.after)).unwrap_or_default();
            (entry, is_last, parts)
        };
        let (mut items, mut drafts) = (Vec::new(), Vec::new());
        for (told, parts) in taken.into_iter().map(gone).map(report) {
            for (item, draft) in told {
                items.push(item);
                drafts.push(draft);
            }
            items.extend(parts);
        }
        Ok((items, drafts))
    })
}

/// A name or an image that was taken, in the answer and as events; and what went with it.
fn report(
    (entry, is_last, parts): (Entry, bool, Vec<Digest>),
) -> (Vec<(ImageDeleteItem, Draft)>, Vec<ImageDeleteItem>) {
    let shown = match &entry.name {
        Some(name) => parsed(name).map_or_else(|| name.clone(), |name| name.familiar()),
        None => entry.image.to_string(),
    };
    let parts = parts.into_iter().map(|part| ImageDeleteItem { deleted: part.to_string(), ..Default::default() });
    let mut told = vec![report_untagged(&entry.image, &shown)];
    if is_last {
        // Of a prune, the deletion too is told by the name.
        told.push(report_deleted(&entry.image, &shown));
    }
    (told, parts.collect())
}

/// The manifests that were here and go with an image: those that no image of `after` has. A prune lists them.
fn gone_with(image: &ImageRow, after: &Catalog) -> Vec<Digest> {
    let is_part = |other: &ImageRow, digest: &Digest| {
        other.target.digest == *digest || other.manifests.iter().any(|manifest| manifest.content.digest == *digest)
    };
    let here = image.manifests.iter().filter(|manifest| manifest.available).map(|manifest| &manifest.content.digest);
    let parts = here.filter(|digest| **digest != image.target.digest);
    parts.filter(|digest| !after.images.values().any(|other| is_part(other, digest))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::time::Timestamp;

    use super::*;
    use crate::row::{Content, ManifestKind, ManifestRow, NameRow};

    fn id(digit: char) -> Digest {
        Digest::parse(&format!("sha256:{}", String::from(digit).repeat(64))).unwrap()
    }

    /// Images `a` with names x:1 and y:1, `b` with name z:1, `c` without a name.
    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        for (digit, names) in [('a', &["x:1", "y:1"][..]), ('b', &["z:1"]), ('c', &[])] {
            let target = Content { media_type: String::new(), digest: id(digit), size: 1 };
            let row = ImageRow::new(target, Timestamp::ZERO, Vec::new());
            catalog.images.insert(id(digit), Arc::new(row));
            for name in names {
                let row = NameRow { image: id(digit), tagged: Timestamp::ZERO };
                catalog.names.insert(format!("docker.io/library/{name}"), row);
            }
        }
        catalog
    }

    fn taken(containers: &[(char, &str)], only_dangling: bool) -> Vec<String> {
        let mut users = Users::default();
        containers.iter().for_each(|(image, reference)| users.add_named(&id(*image), reference));
        let shown = |entry: Entry| match entry.name {
            Some(name) => name.trim_start_matches("docker.io/library/").to_owned(),
            None => entry.image.hex()[..1].to_owned(),
        };
        chosen(&catalog(), &users, only_dangling, |_, _| true).into_iter().map(shown).collect()
    }

    #[test]
    fn dangling_images_alone_or_everything() {
        assert_eq!(taken(&[], true), ["c"]);
        assert_eq!(taken(&[], false), ["c", "x:1", "y:1", "z:1"]);
        assert_eq!(taken(&[('c', "c:1")], true), [""; 0]);
    }

    #[test]
    fn the_name_that_a_container_was_made_by_stays() {
        assert_eq!(taken(&[('a', "x:1")], false), ["c", "y:1", "z:1"]);
        assert_eq!(taken(&[('a', "docker.io/library/x:1")], false), ["c", "y:1", "z:1"]);
        let digested = format!("x:1@{}", id('a'));
        assert_eq!(taken(&[('a', &digested)], false), ["c", "y:1", "z:1"]);
    }

    #[test]
    fn of_an_image_used_by_its_id_one_name_stays() {
        assert_eq!(taken(&[('a', &"a".repeat(12))], false), ["c", "x:1", "z:1"]);
        assert_eq!(taken(&[('b', id('b').as_str())], false), ["c", "x:1", "y:1"]);
    }

    #[test]
    fn manifests_go_with_the_last_image_that_has_them() {
        let manifest = |digit: char, available: bool| ManifestRow {
            content: Content { media_type: String::new(), digest: id(digit), size: 1 },
            kind: ManifestKind::Image,
            platform: Default::default(),
            annotations: Default::default(),
            available,
            config: None,
            layers: Vec::new(),
            diff_ids: Vec::new(),
            unpacked: None,
            document: None,
        };
        let mut catalog = catalog();
        let row = |catalog: &Catalog, digit: char| ImageRow::clone(&catalog.images[&id(digit)]);
        let mut index = row(&catalog, 'c');
        index.manifests = vec![manifest('d', true), manifest('e', true), manifest('f', false), manifest('b', true)];
        let mut other = row(&catalog, 'a');
        other.manifests = vec![manifest('e', true)];
        catalog.images.remove(&id('c'));
        catalog.images.insert(id('a'), Arc::new(other));
        assert_eq!(gone_with(&index, &catalog), [id('d')]);
    }
}
