//! `docker load`: images out of an archive (B-im-10).
//!
//! The archive is read once, as a stream: everything of size goes straight into the blob store under its digest, small
//! documents into memory, and what it all means is decided at the end: an OCI layout when there is one, else Docker's
//! `manifest.json`. What no image turned out to need is swept.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};

use api::ProgressMessage;
use api::oci::Descriptor;
use model::digest::{Algorithm, Digest};
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Error, Kind as ErrorKind, Result};
use serde::Deserialize;
use signature::Signature;
use snapshot::Compression;
use snapshot::archive::{Archive, Entry, Kind};
use store::Lease;

use super::event::{labels, publish};
use super::images::Images;
use super::import::put_json;
use super::oci::{self, Document};
use super::row::{ImageRow, ManifestRow};
use super::{signatures, unpack};
use events::Events;

/// Documents of an archive kept in memory, each, and all together with the names of its members.
const DOCUMENT_BYTES: u64 = 8 << 20;
const DOCUMENTS_BYTES: u64 = 64 << 20;
/// Members of an archive.
const MEMBERS: usize = 100_000;
/// Images of an archive.
const IMAGES: usize = 1000;
/// The version of OCI layouts.
const LAYOUT: &str = "1.0.0";
/// Links followed from one member to another.
const LINKS: usize = 16;

/// What the archive's members turned into, by their cleaned names.
#[derive(Default)]
struct Members {
    documents: HashMap<String, Vec<u8>>,
    blobs: HashMap<String, (Digest, u64)>,
    links: HashMap<String, String>,
}

/// An entry of Docker's `manifest.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DockerImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// An image to be made visible.
struct Loaded {
    target: Descriptor,
    name: Option<ImageRef>,
    signatures: Vec<Signature>,
}

/// Loads all images of the archive; `progress` gets the lines of the answer. Events: load, one per image.
///
/// With `platforms` each image must have one of them, and those are unpacked instead of the host's.
pub fn load(
    images: &Images,
    events: &Events,
    body: impl Read + Send,
    platforms: &[Platform],
    progress: &mut dyn FnMut(ProgressMessage),
) -> Result<()> {
    let lease = images.pins.lease();
    let result = read(images, body, &lease).and_then(|members| {
        show(images, &interpret(images, &members, &lease)?, platforms, &lease, |loaded, (row, failed)| {
            let id = &row.target.digest;
            progress(ProgressMessage::stream(match &loaded.name {
                Some(name) => format!("Loaded image: {}\n", name.familiar()),
                None => format!("Loaded image ID: {id}\n"),
            }));
            publish(events, "load", id, id.as_str(), &labels(row));
            if let Some(error) = failed {
                let name = loaded.name.as_ref().map_or_else(|| id.to_string(), ImageRef::familiar);
                progress(ProgressMessage::stream(format!("Error unpacking image {name}: {error}\n")));
            }
        })
    });
    drop(lease);
    images.tidy_up();
    result
}

/// What the members mean.
fn interpret(images: &Images, members: &Members, lease: &Lease) -> Result<Vec<Loaded>> {
    let version = layout_version(members)?;
    let found = match (version.as_str(), members.get("index.json"), members.get("manifest.json")) {
        (LAYOUT, Some(index), _) => layout(images, index, lease)?,
        // Docker's own archives had the file when they were no layouts yet.
        ("" | LAYOUT, _, Some(manifest)) => docker(images, members, manifest, lease)?,
        ("", ..) => return Err(Error::invalid("unrecognized image format")),
        (LAYOUT, ..) => return Err(Error::invalid(format!("missing index.json in OCI layout {LAYOUT}"))),
        (version, ..) => return Err(Error::invalid(format!("unsupported OCI version {version}"))),
    };
    if found.is_empty() {
        return Err(Error::invalid("image might be filtered out"));
    }
    Ok(found)
}

/// The version of the OCI layout; empty if it is none.
fn layout_version(members: &Members) -> Result<String> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Mark {
        image_layout_version: String,
    }
    let mark = members.get("oci-layout").map(|bytes| oci::parse::<Mark>(bytes, "oci-layout"));
    Ok(mark.transpose()?.unwrap_or_default().image_layout_version)
}

/// An image's row, and why its layers cannot be unpacked if they cannot.
type Unpacked = (ImageRow, Option<Error>);

/// Unpacks images and makes them visible in one commit: those before one that fails as well.
fn show(
    images: &Images,
    all: &[Loaded],
    platforms: &[Platform],
    lease: &Lease,
    mut shown: impl FnMut(&Loaded, &Unpacked),
) -> Result<()> {
    let (mut found, mut outcome): (Vec<Unpacked>, _) = (Vec::new(), Ok(()));
    for loaded in all {
        match unpacked(images, loaded, platforms, lease) {
            Ok(row) => found.push(row),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    if !found.is_empty() {
        let names = all.iter().map(|loaded| loaded.name.iter().map(ImageRef::canonical).collect());
        images.publish_all(found.iter().map(|(row, _)| row.clone()).zip(names).collect())?;
    }
    all.iter().zip(&found).for_each(|(loaded, unpacked)| shown(loaded, unpacked));
    outcome
}

/// The image's row, with the layers of the wanted platforms unpacked. What cannot be unpacked because of what it is comes in
/// all the same: it can be saved and pushed.
fn unpacked(images: &Images, loaded: &Loaded, platforms: &[Platform], lease: &Lease) -> Result<Unpacked> {
    let mut row = unpack::describe(images, &loaded.target)?;
    row.signatures.clone_from(&loaded.signatures);
    if let Some(name) = &loaded.name {
        signatures::admit_loaded(images, name, &row)?;
    }
    let here = |m: &ManifestRow| m.available && oci::machine().runs(&oci::platform(&m.platform));
    let asked = |m: &ManifestRow| m.available && platforms.contains(&oci::platform(&m.platform));
    if !platforms.is_empty() {
        if !row.manifests.iter().any(asked) {
            let shown = loaded.name.as_ref().map_or_else(|| row.target.digest.to_string(), ImageRef::familiar);
            let wanted: Vec<_> = platforms.iter().map(Platform::to_string).collect();
            return Err(Error::not_found(format!(
                "image {shown} was loaded, but doesn't provide the requested platform ([{}])",
                wanted.join(" ")
            )));
        }
        let failed = refused(unpack::unpack(images, &mut row, asked, lease))?;
        return Ok((row, failed));
    }
    // An image for other machines only is unpacked whole: a container of it can be made when asked for by platform.
    let native = row.manifests.iter().any(here);
    let failed = refused(unpack::unpack(images, &mut row, |m| !native || here(m), lease))?;
    Ok((row, failed))
}

/// An archive that is wrong is told of; a disk that refuses ends the load.
fn refused(unpacked: Result<()>) -> Result<Option<Error>> {
    match unpacked {
        Err(error) if error.kind() == ErrorKind::InvalidParameter => Ok(Some(error)),
        outcome => outcome.map(|()| None),
    }
}

/// Reads the whole archive.
fn read(images: &Images, body: impl Read + Send, lease: &Lease) -> Result<Members> {
    let mut archive = Archive::new(snapshot::decompress(snapshot::to_layer(body)?)?);
    let mut members = Members::default();
    let mut kept = 0;
    let mut count = 0;
    while let Some(entry) = archive.next_entry().map_err(malformed)? {
        count += 1;
        if count > MEMBERS {
            return Err(Error::invalid("the archive has too many members"));
        }
        let Some(name) = cleaned("", &String::from_utf8_lossy(&entry.path)) else { continue };
        kept += (entry.path.len() + entry.link.len()) as u64;
        if kept > DOCUMENTS_BYTES {
            return Err(Error::invalid("the archive's documents are too large"));
        }
        match entry.kind {
            Kind::File if entry.sparse.is_none() => {
                kept += keep(images, &mut archive, (&entry, name), &mut members, lease)?;
            }
            Kind::Symlink | Kind::HardLink => {
                let link = String::from_utf8_lossy(&entry.link).into_owned();
                let base = if entry.kind == Kind::Symlink { parent(&name) } else { "" };
                if let Some(target) = cleaned(base, &link) {
                    members.links.insert(name, target);
                }
            }
            _ => {}
        }
    }
    // What follows is nobody's, be it the padding of a tape or garbage: it is read because the client sends it.
    if let Err(error) = archive.drain() {
        tracing::debug!(%error, "what follows an archive's end is no part of it");
    }
    Ok(members)
}

/// Keeps one file of the archive; answers the bytes of memory it takes.
fn keep<R: Read>(
    images: &Images,
    archive: &mut Archive<R>,
    entry: (&Entry, String),
    members: &mut Members,
    lease: &Lease,
) -> Result<u64> {
    let (entry, name) = entry;
    // What lies beside the blobs under another name is none.
    let expected = name.strip_prefix("blobs/").and_then(|path| Digest::parse(&path.replacen('/', ":", 1)).ok());
    let document =
        expected.is_none() && !name.ends_with("/layer.tar") && entry.size <= DOCUMENT_BYTES && is_text(&name);
    let mut data = Data { archive };
    if document {
        let mut bytes = Vec::new();
        data.read_to_end(&mut bytes).map_err(malformed)?;
        let size = bytes.len() as u64;
        members.documents.insert(name, bytes);
        return Ok(size);
    }
    let algorithm = expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
    let mut ingest = images.blobs.ingest_as(algorithm)?;
    copy(&mut data, &mut ingest)?;
    let blob = ingest.finish(expected.as_ref(), Some(entry.size), lease)?;
    members.blobs.insert(name, blob);
    Ok(0)
}

fn is_text(name: &str) -> bool {
    !name.contains('/') && (name.ends_with(".json") || name == "oci-layout" || name == "repositories")
}

/// Copies, telling what the archive lacks from what the disk refuses.
fn copy(data: &mut impl Read, blob: &mut impl Write) -> Result<()> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        let n = data.read(&mut buffer).map_err(malformed)?;
        if n == 0 {
            return Ok(());
        }
        blob.write_all(&buffer[..n])?;
    }
}

fn malformed(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
            Error::invalid(error.to_string())
        }
        _ => Error::from(error),
    }
}

/// The current entry's data.
struct Data<'a, R> {
    archive: &'a mut Archive<R>,
}

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.archive.read(buffer)
    }
}

/// A name within the archive; `None` when it leads out of it.
fn cleaned(base: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|p| !p.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    if parts.is_empty() { None } else { Some(parts.join("/")) }
}

fn parent(name: &str) -> &str {
    name.rfind('/').map_or("", |at| &name[..at])
}

impl Members {
    fn resolve<'m, T>(&'m self, name: &str, of: &'m HashMap<String, T>) -> Option<&'m T> {
        let mut name = cleaned("", name)?;
        for _ in 0..LINKS {
            if let Some(found) = of.get(&name) {
                return Some(found);
            }
            name.clone_from(self.links.get(&name)?);
        }
        None
    }

    /// A document in the archive's top directory.
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.resolve(name, &self.documents).map(Vec::as_slice)
    }
}

/// The images of an OCI layout.
fn layout(images: &Images, index: &[u8], lease: &Lease) -> Result<Vec<Loaded>> {
    let index = oci::parse_index(index)?;
    if index.manifests.len() > IMAGES {
        return Err(Error::invalid("the archive has too many images"));
    }
    let (about, entries): (Vec<_>, Vec<_>) = index.manifests.into_iter().partition(signatures::is_about);
    let signatures = signatures::of_archive(images, &about);
    let mut found = Vec::new();
    for mut target in entries {
        if !images.blobs.contains(&oci::digest(&target)?) {
            return Err(Error::invalid(format!("content {} is missing in the archive", target.digest)));
        }
        lease.pin(&oci::digest(&target)?);
        let name = name_of(&target.annotations).filter(|name| fits(name, &target.digest));
        // Names are of this archive, not of the image.
        target.annotations.clear();
        let own = signatures.iter().filter(|(digest, _)| digest.as_str() == target.digest);
        let signatures = own.map(|(_, signature)| signature.clone()).collect();
        found.push(Loaded { target, name, signatures });
    }
    Ok(found)
}

/// The name a layout gives an image: containerd's in full, OCI's only when it is more than a tag.
fn name_of(annotations: &BTreeMap<String, String>) -> Option<ImageRef> {
    let full = annotations.get("io.containerd.image.name");
    let short = annotations.get("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/']));
    let name = full.or(short)?;
    ImageRef::parse_normalized(name).ok().map(ImageRef::with_default_tag)
}

/// Whether an image of this digest may have the name: one by digest is for that digest.
fn fits(name: &ImageRef, digest: &str) -> bool {
    name.digest.as_ref().is_none_or(|named| named.as_str() == digest)
}

/// The images of a Docker archive: a manifest is made for each.
fn docker(images: &Images, members: &Members, manifest: &[u8], lease: &Lease) -> Result<Vec<Loaded>> {
    let entries: Vec<DockerImage> = oci::parse(manifest, "manifest.json")?;
    if entries.len() > IMAGES {
        return Err(Error::invalid("the archive has too many images"));
    }
    let mut found = Vec::new();
    for entry in &entries {
        let target = docker_manifest(images, members, entry, lease)?;
        if entry.repo_tags.is_empty() {
            found.push(Loaded { target: target.clone(), name: None, signatures: Vec::new() });
        }
        for tag in &entry.repo_tags {
            let name = ImageRef::parse_normalized(tag)
                .map_err(|error| error.prefix(format!("normalize image ref {tag:?}")))?
                .with_default_tag();
            let name = Some(name).filter(|name| fits(name, &target.digest));
            found.push(Loaded { target: target.clone(), name, signatures: Vec::new() });
        }
    }
    Ok(found)
}

fn docker_manifest(images: &Images, members: &Members, entry: &DockerImage, lease: &Lease) -> Result<Descriptor> {
    let bytes = match members.get(&entry.config) {
        Some(bytes) => bytes.to_vec(),
        None => {
            let (digest, _) = members
                .resolve(&entry.config, &members.blobs)
                .ok_or_else(|| Error::invalid(format!("image config {:?} not found", entry.config)))?;
            images.blobs.read_small(digest, oci::CONFIG_BYTES)?
        }
    };
    let document: Document = oci::parse(&bytes, "image configuration")?;
    if document.rootfs.diff_ids.len() != entry.layers.len() {
        return Err(Error::invalid(format!(
            "invalid manifest, layers length mismatch: expected {}, got {}",
            document.rootfs.diff_ids.len(),
            entry.layers.len()
        )));
    }
    let (digest, size) = images.blobs.put(&bytes, lease)?;
    let descriptor = |media_type: String, digest: &Digest, size: u64| Descriptor {
        media_type,
        digest: digest.to_string(),
        size: size as i64,
        ..Descriptor::default()
    };
    let mut manifest = oci::Manifest {
        schema_version: 2,
        media_type: oci::DOCKER_MANIFEST.into(),
        config: descriptor(oci::DOCKER_CONFIG.into(), &digest, size),
        ..oci::Manifest::default()
    };
    for layer in &entry.layers {
        let (digest, size) = members
            .resolve(layer, &members.blobs)
            .ok_or_else(|| Error::invalid(format!("failed to resolve layers: layer {layer:?} not found")))?;
        let mut head = [0; 8];
        let n = images.blobs.open_blob(digest)?.read(&mut head)?;
        let suffix = match Compression::of(&head[..n]) {
            Compression::Gzip => ".gzip",
            Compression::Zstd => ".zstd",
            _ => "",
        };
        manifest.layers.push(descriptor(format!("{}{suffix}", oci::DOCKER_LAYER), digest, *size));
    }
    put_json(images, oci::DOCKER_MANIFEST, &manifest, lease)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stay_in_the_archive_and_links_are_followed() {
        assert_eq!(cleaned("a/b", "../c/layer.tar").as_deref(), Some("a/c/layer.tar"));
        assert_eq!(cleaned("", "./x//y").as_deref(), Some("x/y"));
        assert_eq!(cleaned("a", "../../x"), None);
        let mut members = Members::default();
        members.documents.insert("real".into(), b"1".to_vec());
        members.links.insert("link".into(), "real".into());
        members.links.insert("loop".into(), "loop".into());
        assert_eq!(members.get("link"), Some(&b"1"[..]));
        assert_eq!(members.get("loop"), None);
    }

    #[test]
    fn a_layouts_tag_alone_is_no_name() {
        let of = |key: &str, value: &str| name_of(&[(key.to_owned(), value.to_owned())].into()).map(|n| n.familiar());
        assert_eq!(of("org.opencontainers.image.ref.name", "latest"), None);
        assert_eq!(of("org.opencontainers.image.ref.name", "docker.io/library/a:1").as_deref(), Some("a:1"));
        assert_eq!(of("io.containerd.image.name", "docker.io/library/a:2").as_deref(), Some("a:2"));
    }
}
