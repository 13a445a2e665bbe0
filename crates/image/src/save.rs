//! `docker save`: images into one archive that is an OCI layout and a Docker archive at once (B-im-10).
//!
//! Blobs go out as they are, so every digest survives. All times are zero: the same images give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;

use api::oci::Descriptor;
use model::digest::{Algorithm, Digest};
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Error, Result};
use serde::Serialize;
use snapshot::archive::Writer;
use store::Lease;

use super::catalog::no_such;
use super::catalog::{Catalog, Matched, Wanted, parsed, select};
use super::event::{labels, publish};
use super::images::Images;
use super::row::{Content, ImageRow, ManifestKind, ManifestRow};
use super::{oci, signatures};
use events::Events;

/// One image to write, under one name or none.
struct Chosen {
    image: Arc<ImageRow>,
    name: Option<ImageRef>,
    /// A single manifest of it, when one platform was asked for.
    only: Option<Content>,
    /// Of several platforms: the index goes out as it is, with the content of these.
    platforms: Vec<Platform>,
}

/// An entry of Docker's `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    /// `null` when there are none.
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Writes the images that the texts lead to (a name without tag: all its tags). Events: save, one per image.
///
/// Errors before the first byte: `NotFound` for an image or platform that is not here. Later ones break the archive off.
pub fn save(
    images: &Images,
    events: &Events,
    texts: &[String],
    platforms: &[Platform],
    out: &mut dyn Write,
) -> Result<()> {
    // Keeps the blobs when an image is removed while it is being written.
    let lease = images.pins.lease();
    let catalog = images.catalog();
    let mut chosen = Vec::new();
    for text in texts {
        choose(&catalog, text, platforms, &mut chosen)?;
    }
    let mut blobs = blobs(images, &chosen, &lease)?;
    let about = signatures(&chosen, &mut blobs)?;
    write(images, (&chosen, &about), &blobs, out)?;
    for one in &chosen {
        let id = &one.target().digest;
        publish(events, "save", id, id.as_str(), &labels(&one.image));
    }
    Ok(())
}

fn choose(catalog: &Catalog, text: &str, platforms: &[Platform], chosen: &mut Vec<Chosen>) -> Result<()> {
    let mut push = |image: &Arc<ImageRow>, name: Option<ImageRef>| -> Result<()> {
        chosen.push(Chosen::new(image, name, platforms)?);
        Ok(())
    };
    let found = catalog.find(text);
    if let Ok(found) = &found
        && found.matched == Matched::Id
    {
        return push(&found.image, None);
    }
    let reference = match ImageRef::parse_normalized(text) {
        Ok(reference) => reference,
        // A whole id that leads to nothing is no bad name.
        Err(bad) => return Err(found.err().unwrap_or(bad)),
    };
    if reference.tag.is_some() || reference.digest.is_some() {
        let found = found?;
        let name = if reference.digest.is_some() { None } else { Some(reference) };
        return push(&found.image, name);
    }
    let mut any = false;
    for (name, row) in &catalog.names {
        let Some(name) = parsed(name).filter(|n| n.same_name(&reference) && n.tag.is_some()) else { continue };
        if let Some(image) = catalog.images.get(&row.image) {
            push(image, Some(name))?;
            any = true;
        }
    }
    if any { Ok(()) } else { Err(no_such(text)) }
}

impl Chosen {
    /// One platform: its manifest alone. Several: the index with their content.
    fn new(image: &Arc<ImageRow>, name: Option<ImageRef>, platforms: &[Platform]) -> Result<Chosen> {
        let mut one = Chosen { image: image.clone(), name, only: None, platforms: Vec::new() };
        match platforms {
            [] => {}
            [platform] => {
                let shown = one.name.as_ref().map_or_else(|| image.target.digest.to_string(), ImageRef::familiar);
                let found = select(image, Wanted::Exactly(platform), &shown);
                let found = found.map_err(|error| error.prefix("no suitable export target found"))?;
                one.only = Some(found.content.clone());
            }
            several if oci::is_index(&image.target.media_type) => {
                one.platforms = several.to_vec();
                if one.manifests().all(|m| oci::is_index(&m.content.media_type)) {
                    return Err(Error::not_found("no manifest found for platform: not found"));
                }
            }
            _ => {}
        }
        Ok(one)
    }

    fn target(&self) -> &Content {
        self.only.as_ref().unwrap_or(&self.image.target)
    }

    /// Its manifests whose content is here.
    fn manifests(&self) -> impl Iterator<Item = &ManifestRow> {
        let wanted = |m: &&ManifestRow| {
            let platform = oci::platform(&m.platform);
            let within = oci::is_index(&m.content.media_type);
            let asked = self.platforms.is_empty() || self.platforms.contains(&platform) || within;
            m.available && asked && self.only.as_ref().is_none_or(|only| m.content == *only)
        };
        self.image.manifests.iter().filter(wanted)
    }
}

/// Where the bytes of a blob come from.
enum Source {
    /// The store has so many.
    Stored(u64),
    /// They are made for the archive.
    Made(Vec<u8>),
}

/// All blobs to write, pinned, ordered by digest.
fn blobs(images: &Images, chosen: &[Chosen], lease: &Lease) -> Result<BTreeMap<Digest, Source>> {
    let mut digests = BTreeSet::new();
    for one in chosen {
        digests.insert(&one.target().digest);
        digests.extend(one.manifests().flat_map(ManifestRow::blobs).map(|blob| &blob.digest));
    }
    let stored = |digest: &Digest| {
        lease.pin(digest);
        // What a descriptor says of a loaded blob need not be true.
        Ok((digest.clone(), Source::Stored(images.blobs.size(digest)?)))
    };
    digests.into_iter().map(stored).collect()
}

/// Adds the signatures that are kept of whole images; the entries for them, as [`signatures::for_archive`] makes them.
fn signatures(chosen: &[Chosen], blobs: &mut BTreeMap<Digest, Source>) -> Result<Vec<Descriptor>> {
    let mut entries: Vec<Descriptor> = Vec::new();
    for one in chosen.iter().filter(|one| one.only.is_none()) {
        let Some((entry, documents)) = signatures::for_archive(&one.image)? else { continue };
        blobs.extend(documents.into_iter().map(|bytes| (oci::digest_of(&bytes), Source::Made(bytes))));
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

fn write(
    images: &Images,
    (chosen, about): (&[Chosen], &[Descriptor]),
    blobs: &BTreeMap<Digest, Source>,
    out: &mut dyn Write,
) -> Result<()> {
    let mut tar = Writer::new(out);
    tar.directory("blobs/", 0o755)?;
    let algorithms: BTreeSet<Algorithm> = blobs.keys().map(Digest::algorithm).chain([Algorithm::Sha256]).collect();
    for algorithm in algorithms {
        tar.directory(&format!("blobs/{algorithm}/"), 0o755)?;
    }
    for (digest, source) in blobs {
        let name = place(digest);
        match source {
            Source::Stored(size) => tar.file(&name, 0o444, *size, &mut images.blobs.open_blob(digest)?)?,
            Source::Made(bytes) => tar.file(&name, 0o444, bytes.len() as u64, &mut io::Cursor::new(bytes))?,
        }
    }
    let index = oci::Index {
        schema_version: 2,
        media_type: oci::INDEX.into(),
        manifests: chosen.iter().map(descriptor).chain(about.iter().cloned()).collect(),
        ..oci::Index::default()
    };
    document(&mut tar, ("index.json", 0o644), &index)?;
    document(&mut tar, ("manifest.json", 0o644), &docker_manifest(chosen))?;
    document(&mut tar, ("oci-layout", 0o444), &serde_json::json!({ "imageLayoutVersion": "1.0.0" }))?;
    tar.finish()?;
    Ok(())
}

/// Where a layout has a blob.
fn place(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn document(tar: &mut Writer<&mut dyn Write>, (name, mode): (&str, u32), value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::system(format!("encoding {name}: {e}")))?;
    tar.file(name, mode, bytes.len() as u64, &mut io::Cursor::new(bytes))?;
    Ok(())
}

fn descriptor(one: &Chosen) -> Descriptor {
    let mut descriptor = one.target().descriptor();
    if let Some(name) = &one.name {
        let tag = name.tag.clone().unwrap_or_default();
        descriptor.annotations.insert("io.containerd.image.name".into(), name.canonical());
        descriptor.annotations.insert("org.opencontainers.image.ref.name".into(), tag);
    }
    descriptor
}

/// Docker's list: the manifests that can be run here, one entry per image with all its names.
fn docker_manifest(chosen: &[Chosen]) -> Vec<DockerImage> {
    let path = |content: &Content| place(&content.digest);
    let mut entries: Vec<(Digest, DockerImage)> = Vec::new();
    let mut seen = BTreeSet::new();
    for one in chosen {
        let distance = |m: &&ManifestRow| Wanted::Any.distance(&oci::platform(&m.platform));
        let runnable = one.manifests().filter(|m| m.kind == ManifestKind::Image);
        let Some(manifest) = runnable.min_by_key(distance) else { continue };
        let Some(config) = &manifest.config else { continue };
        let digest = &manifest.content.digest;
        let at = entries.iter().position(|(known, _)| known == digest).unwrap_or_else(|| {
            let layers = manifest.layers.iter().map(path).collect();
            entries.push((digest.clone(), DockerImage { config: path(config), repo_tags: None, layers }));
            entries.len() - 1
        });
        let Some(tag) = one.name.as_ref().map(ImageRef::familiar) else { continue };
        if seen.insert(tag.clone()) {
            entries[at].1.repo_tags.get_or_insert_default().push(tag);
        }
    }
    entries.into_iter().map(|(_, entry)| entry).collect()
}
