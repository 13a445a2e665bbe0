//! `docker images`: summaries of all images with filters (B-im-14). Reads the catalog only.

use std::collections::{BTreeMap, HashMap, HashSet};

use api::ImageSummary;
use model::digest::Digest;
use model::filter::Filters;
use model::time::{self, Timestamp};
use model::{Error, Result};

use super::catalog::{Catalog, Wanted, select};
use super::collect::Part;
use super::event::labels;
use super::glob::name_matches;
use super::images::Images;
use super::inspect::summary;
use super::row::{ImageRow, ManifestKind};
use super::users::Users;
use events::now;

const KEYS: &[&str] = &["before", "dangling", "label", "label!", "reference", "since", "until"];

/// What list takes.
#[derive(Clone, Debug, Default)]
pub struct ListArgs {
    /// See [`KEYS`].
    pub filters: Filters,
    /// Show images without a name that others were committed from, too.
    pub all: bool,
    /// Compute `SharedSize`.
    pub shared_size: bool,
    /// Show each image's manifests.
    pub manifests: bool,
    /// The containers made of each image.
    pub containers: Users,
}

/// The filters, with the images they name looked up.
struct Selection<'f> {
    filters: &'f Filters,
    before: Vec<Timestamp>,
    since: Vec<Timestamp>,
    until: Option<Timestamp>,
    dangling: Option<bool>,
    references: Vec<&'f str>,
}

/// Summaries, newest first.
pub fn list(images: &Images, args: &ListArgs) -> Result<Vec<ImageSummary>> {
    let catalog = images.catalog();
    let selection = Selection::new(&catalog, &args.filters)?;
    let mut names: HashMap<&Digest, Vec<&str>> = HashMap::new();
    for (name, row) in &catalog.names {
        names.entry(&row.image).or_default().push(name);
    }
    let parents: HashSet<_> = catalog.images.values().filter_map(|image| image.parent.as_ref()).collect();
    let mut summaries = Vec::new();
    for (id, image) in &catalog.images {
        let all = names.remove(id).unwrap_or_default();
        if all.is_empty() && !args.all && parents.contains(id) {
            continue;
        }
        if let Some(shown) = selection.names_shown(image, &all) {
            let size = images.size(image)? as i64;
            summaries.push(ImageSummary { size, ..one(&catalog, image, &shown, args) });
        }
    }
    if args.shared_size {
        let shared = shared_sizes(images, &catalog)?;
        for summary in &mut summaries {
            summary.shared_size = shared.get(summary.id.as_str()).copied().unwrap_or(0) as i64;
        }
    }
    summaries.sort_by_key(|summary| std::cmp::Reverse(summary.created));
    Ok(summaries)
}

fn one(catalog: &Catalog, image: &ImageRow, names: &[&str], args: &ListArgs) -> ImageSummary {
    let id = &image.target.digest;
    let (repo_tags, repo_digests) = catalog.tags_and_digests(id, names.iter().copied());
    let holds_image = image.manifests.iter().any(|m| m.kind == ManifestKind::Image);
    ImageSummary {
        containers: if holds_image { args.containers.of(id).count() as i64 } else { -1 },
        created: created(image).map_or(0, Timestamp::unix_seconds),
        id: id.to_string(),
        labels: holds_image.then(|| labels(image)),
        parent_id: image.parent.as_ref().map(Digest::to_string).unwrap_or_default(),
        descriptor: Some(image.target.descriptor()),
        manifests: match args.manifests {
            true => {
                let users = |manifest| args.containers.of_manifest(id, manifest);
                image.manifests.iter().map(|m| summary(m, &users(&m.content.digest))).collect()
            }
            false => Vec::new(),
        },
        // What holds no image at all (an artifact, attestations alone) is shown by its digest only.
        repo_digests: if holds_image { repo_digests } else { vec![id.to_string()] },
        repo_tags,
        shared_size: -1,
        ..ImageSummary::default()
    }
}

/// When the image says it was made.
fn created(image: &ImageRow) -> Option<Timestamp> {
    let manifest = select(image, Wanted::Any, "").ok().or(image.manifests.first())?;
    time::parse_rfc3339(&manifest.document.as_ref()?.created).ok()
}

impl<'f> Selection<'f> {
    fn new(catalog: &Catalog, filters: &'f Filters) -> Result<Selection<'f>> {
        filters.validate(KEYS)?;
        let times = |key: &str| -> Result<Vec<Timestamp>> {
            let found = filters.get(key).map(|text| catalog.find(text));
            Ok(found.collect::<Result<Vec<_>>>()?.iter().filter_map(|found| created(&found.image)).collect())
        };
        // Unlike a prune's, there may be several: all hold.
        let until = filters.get("until").map(|value| time::parse(value, now()));
        let until = until.collect::<Result<Vec<_>>>().map_err(invalid_until)?;
        Ok(Selection {
            filters,
            before: times("before")?,
            since: times("since")?,
            until: until.into_iter().min(),
            dangling: if filters.contains("dangling") { Some(filters.flag("dangling", false)?) } else { None },
            references: filters.get("reference").collect(),
        })
    }

    /// The names to show of an image; `None`: it is not shown at all.
    fn names_shown<'n>(&self, image: &ImageRow, all: &[&'n str]) -> Option<Vec<&'n str>> {
        // Read only where a filter asks: most lists have none.
        let older = |than: &Timestamp| created(image).is_some_and(|time| time < *than);
        let newer = |than: &Timestamp| created(image).is_some_and(|time| time > *than);
        let labelled = self.filters.contains("label") || self.filters.contains("label!");
        let passes = self.before.iter().all(older)
            && self.since.iter().all(newer)
            && self.until.is_none_or(|until| image.created < until)
            && self.dangling.is_none_or(|dangling| dangling == all.is_empty())
            && (!labelled || labels_match(self.filters, image));
        if !passes {
            return None;
        }
        if self.references.is_empty() {
            return Some(all.to_vec());
        }
        let shown: Vec<_> = all.iter().copied().filter(|name| self.reference_matches(name)).collect();
        if shown.is_empty() { None } else { Some(shown) }
    }

    fn reference_matches(&self, name: &str) -> bool {
        self.references.iter().any(|pattern| name_matches(pattern, name))
    }
}

/// The refusal of an `until` that is no time.
pub(super) fn invalid_until(error: Error) -> Error {
    error.prefix("invalid value for 'until' filter")
}

/// Whether one of an image's manifests that are here has such labels.
pub(super) fn labels_match(filters: &Filters, image: &ImageRow) -> bool {
    let here = image.manifests.iter().filter(|manifest| manifest.kind == ManifestKind::Image);
    here.filter_map(|manifest| manifest.document.as_ref())
        .any(|document| label_filter(filters, &document.config.labels))
}

/// `label` and `label!`: all must hold; a `!` behind the key turns it round.
fn label_filter(filters: &Filters, labels: &BTreeMap<String, String>) -> bool {
    let holds = |text: &str, negated: bool| {
        let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)));
        let (key, negated) = key.strip_suffix('!').map_or((key, negated), |key| (key, !negated));
        let has = labels.get(key).is_some_and(|found| value.is_none_or(|value| found == value));
        has != negated
    };
    filters.get("label").all(|text| holds(text, false)) && filters.get("label!").all(|text| holds(text, true))
}

/// Bytes of blobs and layers that an image shares with another, by id.
fn shared_sizes(images: &Images, catalog: &Catalog) -> Result<HashMap<String, u64>> {
    let mut users: HashMap<Part, usize> = HashMap::new();
    let mut parts: Vec<(&Digest, BTreeMap<Part, u64>)> = Vec::new();
    for (id, image) in &catalog.images {
        let own = images.parts(image)?;
        own.keys().for_each(|part| *users.entry(part.clone()).or_insert(0) += 1);
        parts.push((id, own));
    }
    let shared =
        |own: &BTreeMap<Part, u64>| own.iter().filter(|(part, _)| users[*part] > 1).map(|(_, size)| size).sum();
    Ok(parts.iter().map(|(id, own)| (id.to_string(), shared(own))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_compared_and_turned_round() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let passes = |json: &str| label_filter(&Filters::parse(json).unwrap(), &labels);
        assert!(passes(r#"{"label":["a"]}"#) && passes(r#"{"label":["a=1"]}"#) && passes(r#"{"label!":["b"]}"#));
        assert!(!passes(r#"{"label":["a=2"]}"#) && !passes(r#"{"label!":["a"]}"#) && passes(r#"{"label!":["a=2"]}"#));
    }
}
