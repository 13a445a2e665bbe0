//! From a name to what has to be fetched: index, manifest, configuration, each verified and bounded.

use std::collections::VecDeque;
use std::sync::Arc;

use api::oci::Descriptor;
use bytes::Bytes;
use model::digest::Digest;
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Error, Result};
use registry::{MANIFEST_BYTES, Repository};
use serde::Deserialize;
use signature::Signature;
use store::Lease;

use super::blob::small_blob;
use crate::images::Images;
use crate::oci::{self, Document, Manifest};
use crate::row::Content;

/// The documents of an image that is to be pulled, as far as they tell of its platform.
pub struct Chosen {
    /// See [`Plan::target`].
    pub target: Descriptor,
    manifest: Descriptor,
    bytes: Bytes,
}

/// An image that is to be pulled.
pub struct Plan {
    /// The index or manifest that the name means.
    pub target: Descriptor,
    /// The manifest that was chosen.
    pub manifest: Digest,
    /// Its layers, bottom first, with their digests when uncompressed.
    pub layers: Vec<(Content, Digest)>,
    /// What lets it in, where that is asked for.
    pub signatures: Vec<Signature>,
    /// What clients are told of its platform when another one was asked for.
    pub warning: Option<String>,
}

/// Where documents come from and go to.
pub struct PullContext<'a> {
    /// All images that are here.
    pub images: &'a Arc<Images>,
    /// The registry.
    pub repository: &'a Repository,
    /// Keeps what was written.
    pub lease: &'a Arc<Lease>,
}

/// A document whose bytes are what they should be.
struct Read {
    descriptor: Descriptor,
    bytes: Bytes,
}

/// What the name means: the digest, and the document if it had to be read to know.
pub async fn resolve(context: &PullContext<'_>) -> Result<(Digest, Option<registry::Document>)> {
    let reference = context.repository.reference();
    if let Some(digest) = &reference.digest {
        return Ok((digest.clone(), None));
    }
    let tag = reference.tag.as_deref().unwrap_or("latest");
    if let Some(resolved) = context.repository.resolve(tag).await.map_err(|fault| fault.of_pull(reference))? {
        refuse_schema1(&resolved.media_type, reference)?;
        return Ok((resolved.digest, None));
    }
    let document = context.repository.manifest(tag).await.map_err(|fault| fault.of_pull(reference))?;
    Ok((oci::digest_of(&document.bytes), Some(document)))
}

/// Reads index and manifest, and keeps them as blobs.
pub async fn manifest(
    context: &PullContext<'_>,
    digest: &Digest,
    known: Option<registry::Document>,
    platform: Option<&Platform>,
) -> Result<Chosen> {
    let target = read_manifest(context, digest, known).await?;
    if !oci::is_index(&target.descriptor.media_type) {
        return Ok(Chosen { target: target.descriptor.clone(), manifest: target.descriptor, bytes: target.bytes });
    }
    let chosen = choose(&within(context, oci::parse_index(&target.bytes)?).await?, platform)?;
    let digest = oci::digest(&chosen)?;
    let read = read_manifest(context, &digest, None).await?;
    if read.bytes.len() as i64 != chosen.size {
        return Err(mismatch("size", &digest));
    }
    if oci::is_index(&read.descriptor.media_type) {
        return Err(Error::invalid(format!("manifest {digest} is an index and is not listed as one")));
    }
    Ok(Chosen { target: target.descriptor, manifest: read.descriptor, bytes: read.bytes })
}

/// The index with what the indexes within it list instead of these; they are kept as blobs.
async fn within(context: &PullContext<'_>, index: oci::Index) -> Result<oci::Index> {
    let mut todo: VecDeque<(Descriptor, usize)> = index.manifests.into_iter().map(|listed| (listed, 0)).collect();
    let (mut manifests, mut indexes) = (Vec::new(), 0);
    while let Some((listed, depth)) = todo.pop_front() {
        if !oci::is_index(&listed.media_type) {
            manifests.push(listed);
            continue;
        }
        indexes += 1;
        if depth == oci::INDEX_DEPTH || indexes == oci::INDEXES {
            return Err(Error::invalid("invalid index: there are too many indexes within it"));
        }
        let digest = oci::digest(&listed)?;
        let read = read_manifest(context, &digest, None).await?;
        if read.bytes.len() as i64 != listed.size {
            return Err(mismatch("size", &digest));
        }
        for mut inner in oci::parse_index(&read.bytes)?.manifests {
            if inner.platform.is_none() {
                inner.platform.clone_from(&listed.platform);
            }
            todo.push_back((inner, depth + 1));
        }
    }
    Ok(oci::Index { manifests, ..oci::Index::default() })
}

impl Chosen {
    /// Whether the manifest is one of an AI model.
    pub fn is_model(&self) -> bool {
        let is_one = |media_type: &str| media_type.to_ascii_lowercase().starts_with("application/vnd.docker.ai.");
        let parts = |manifest: &Manifest| {
            is_one(&manifest.config.media_type) || manifest.layers.iter().any(|layer| is_one(&layer.media_type))
        };
        is_one(&self.manifest.artifact_type) || oci::parse_manifest(&self.bytes).is_ok_and(|manifest| parts(&manifest))
    }
}

/// Reads the configuration, and says what is left to be fetched.
pub async fn plan(context: &PullContext<'_>, chosen: Chosen, platform: Option<&Platform>) -> Result<Plan> {
    let parsed = oci::parse_manifest(&chosen.bytes)?;
    let (layers, warning) = layers(context, &parsed, (platform, context.repository.reference())).await?;
    let manifest = oci::digest(&chosen.manifest)?;
    Ok(Plan { target: chosen.target, manifest, layers, signatures: Vec::new(), warning })
}

/// What the name means, with its media type and digest; nothing is kept.
pub async fn document(repository: &Repository) -> Result<(String, Digest, Bytes)> {
    let reference = repository.reference();
    let document = match (&reference.digest, &reference.tag) {
        (Some(digest), _) => repository.manifest_by_digest(digest).await,
        (None, tag) => repository.manifest(tag.as_deref().unwrap_or("latest")).await,
    }?;
    let digest = match &reference.digest {
        Some(wanted) if !wanted.is_of(&document.bytes) => return Err(mismatch("digest", wanted)),
        Some(wanted) => wanted.clone(),
        None => oci::digest_of(&document.bytes),
    };
    let media_type = kind(&document.media_type, &document.bytes, reference)?;
    Ok((media_type, digest, document.bytes))
}

fn mismatch(what: &str, digest: &Digest) -> Error {
    Error::invalid(format!("manifest verification failed for digest {digest}: wrong {what}"))
}

/// The manifest of this digest: from here if it is here, else from the registry.
async fn read_manifest(context: &PullContext<'_>, digest: &Digest, known: Option<registry::Document>) -> Result<Read> {
    let reference = context.repository.reference();
    context.lease.pin(digest);
    let (images, wanted) = (context.images.clone(), digest.clone());
    let local = context.images.blocking(move || Ok(images.blobs.read_small(&wanted, oci::MANIFEST_BYTES).ok())).await?;
    let (media_type, bytes) = match (local, known) {
        (Some(bytes), _) => (String::new(), Bytes::from(bytes)),
        (None, Some(document)) => (document.media_type, document.bytes),
        (None, None) => {
            let document = context.repository.manifest_by_digest(digest).await;
            let document = document.map_err(|fault| fault.of_pull(reference))?;
            (document.media_type, document.bytes)
        }
    };
    if !digest.is_of(&bytes) {
        return Err(mismatch("digest", digest));
    }
    let media_type = kind(&media_type, &bytes, reference)?;
    let (images, lease, content, named) =
        (context.images.clone(), context.lease.clone(), bytes.clone(), digest.clone());
    context.images.blocking(move || images.blobs.keep(&named, &content, &lease)).await?;
    let (digest, size) = (digest.to_string(), bytes.len() as i64);
    Ok(Read { descriptor: Descriptor { media_type, digest, size, ..Descriptor::default() }, bytes })
}

/// The parts of a document that tell what it is.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    schema_version: Option<i64>,
    media_type: String,
    manifests: Option<serde_json::Value>,
    layers: Option<serde_json::Value>,
    config: Option<serde_json::Value>,
    fs_layers: Option<serde_json::Value>,
}

fn refuse_schema1(media_type: &str, reference: &ImageRef) -> Result<()> {
    let old = media_type.starts_with("application/vnd.docker.distribution.manifest.v1+");
    if !old {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. Suggest the \
         author of {reference} to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. More \
         information at https://docs.docker.com/go/deprecated-image-specs/"
    )))
}

/// What a document is: it has to agree with what it and the registry say of it.
pub fn kind(stated: &str, bytes: &[u8], reference: &ImageRef) -> Result<String> {
    refuse_schema1(stated, reference)?;
    let head: Head = oci::parse(bytes, "manifest")?;
    refuse_schema1(&head.media_type, reference)?;
    if head.schema_version == Some(1) || head.fs_layers.is_some() {
        refuse_schema1("application/vnd.docker.distribution.manifest.v1+json", reference)?;
    }
    let known = |media_type: &str| oci::is_index(media_type) || oci::is_manifest(media_type);
    let lists = head.manifests.is_some();
    let looks = match (lists, head.layers.is_some() || head.config.is_some()) {
        (true, true) => return Err(Error::invalid("invalid manifest: it is both an index and an image")),
        (true, false) => oci::INDEX,
        (false, true) => oci::MANIFEST,
        (false, false) => return Err(Error::invalid("unsupported manifest format")),
    };
    let found = match (head.media_type.as_str(), stated) {
        ("", stated) if known(stated) => stated,
        // Registries that call everything JSON or bytes say nothing.
        ("", _) => looks,
        (own, stated) if known(stated) && own != stated => {
            return Err(Error::invalid(format!("mediaType in manifest should be '{stated}' not '{own}'")));
        }
        (own, _) => own,
    };
    if !known(found) {
        return Err(Error::invalid(format!("unsupported media type {found}")));
    }
    if oci::is_index(found) != lists {
        return Err(Error::invalid(format!("invalid manifest: it is no {found}")));
    }
    Ok(found.to_owned())
}

/// The manifest for a platform: the wished one, else the host's; the nearest variant first.
fn choose(index: &oci::Index, wished: Option<&Platform>) -> Result<Descriptor> {
    let machine = oci::machine();
    let wanted = wished.unwrap_or(&machine);
    let distance = |descriptor: &&Descriptor| {
        let attested = descriptor.annotations.contains_key(oci::REFERENCE_TYPE);
        let platform = descriptor.platform.as_ref().filter(|_| !attested)?;
        wanted.suits(&oci::platform(platform))
    };
    let able = index.manifests.iter().filter(|descriptor| distance(descriptor).is_some());
    // One that does not say where it runs will do where none says it well: its configuration is asked later.
    let silent = |descriptor: &&Descriptor| {
        let (platform, media_type) = (&descriptor.platform, &descriptor.media_type);
        platform.is_none() && !descriptor.annotations.contains_key(oci::REFERENCE_TYPE) && oci::is_manifest(media_type)
    };
    let chosen = able.min_by_key(distance).or_else(|| index.manifests.iter().find(silent));
    chosen.cloned().ok_or_else(|| {
        let wanted = wished.cloned().unwrap_or_else(oci::host);
        Error::not_found(format!(
            "no matching manifest for {wanted} in the manifest list entries: no match for platform in manifest: not found"
        ))
    })
}

/// The layers of a manifest, with what its configuration says of them, and a warning if it is for another platform.
async fn layers(
    context: &PullContext<'_>,
    manifest: &Manifest,
    (platform, reference): (Option<&Platform>, &ImageRef),
) -> Result<(Vec<(Content, Digest)>, Option<String>)> {
    let media_type = manifest.config.media_type.as_str();
    if !matches!(media_type, oci::CONFIG | oci::DOCKER_CONFIG) {
        let what = if media_type.starts_with("application/vnd.docker.plugin") { "a plugin" } else { "an artifact" };
        return Err(Error::invalid(format!(
            "unsupported media type {media_type}: {} is {what}, not a container image",
            reference.familiar()
        )));
    }
    let config = content(&manifest.config)?;
    let bytes = read_config(context, &config).await?;
    let document: Document = oci::parse(&bytes, "image configuration")?;
    let runs = oci::platform(&document.platform);
    // An image without an index is the only one there is.
    let warning = platform.filter(|wished| !wished.runs(&runs)).map(|wished| {
        format!(
            "WARNING: Pulled image with specified platform ({wished}), but the resulting image's configured platform ({runs}) \
             does not match."
        )
    });
    if document.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(Error::invalid("mismatched image rootfs and manifest layers"));
    }
    let pair = |(layer, diff_id): (&Descriptor, &String)| {
        if !is_layer(&layer.media_type) {
            return Err(Error::invalid(format!("unsupported media type {} of a layer", layer.media_type)));
        }
        Ok((content(layer)?, Digest::parse(diff_id)?))
    };
    let layers: Result<Vec<_>> = manifest.layers.iter().zip(&document.rootfs.diff_ids).map(pair).collect();
    Ok((layers?, warning))
}

fn is_layer(media_type: &str) -> bool {
    let plain = media_type.split(['+']).next().unwrap_or_default();
    let dockers = [oci::DOCKER_LAYER, oci::DOCKER_FOREIGN_LAYER];
    let rest = dockers.iter().find_map(|prefix| media_type.strip_prefix(prefix));
    matches!(plain, oci::LAYER | oci::FOREIGN_LAYER) || rest.is_some_and(|rest| matches!(rest, "" | ".gzip" | ".zstd"))
}

fn content(descriptor: &Descriptor) -> Result<Content> {
    let size = u64::try_from(descriptor.size).map_err(|_| Error::invalid("descriptor with a negative size"))?;
    Ok(Content { media_type: descriptor.media_type.clone(), digest: oci::digest(descriptor)?, size })
}

/// The configuration: from here if it is here, else from the registry.
async fn read_config(context: &PullContext<'_>, config: &Content) -> Result<Bytes> {
    if config.size > oci::CONFIG_BYTES {
        return Err(Error::invalid(format!("the image configuration is larger than {} bytes", oci::CONFIG_BYTES)));
    }
    context.lease.pin(&config.digest);
    let (images, wanted) = (context.images.clone(), config.digest.clone());
    let local = context.images.blocking(move || Ok(images.blobs.read_small(&wanted, oci::CONFIG_BYTES).ok())).await?;
    if let Some(bytes) = local {
        return Ok(bytes.into());
    }
    let bytes = small_blob(context.repository, config).await?;
    let found = Digest::of(config.digest.algorithm(), &bytes);
    if found != config.digest {
        let text = format!("unexpected commit digest {found}, expected {}: failed precondition", config.digest);
        return Err(Error::data_loss(text));
    }
    let (images, lease, copy, named) =
        (context.images.clone(), context.lease.clone(), bytes.clone(), config.digest.clone());
    context.images.blocking(move || images.blobs.keep(&named, &copy, &lease)).await?;
    Ok(bytes)
}

const _: () = assert!(MANIFEST_BYTES as u64 == oci::MANIFEST_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(stated: &str, json: &str) -> String {
        let reference = ImageRef::parse_normalized("x:1").unwrap();
        kind(stated, json.as_bytes(), &reference).unwrap_or_else(|error| error.message().to_owned())
    }

    #[test]
    fn a_document_is_what_it_looks_like_and_is_called() {
        let (manifest, index) = (r#"{"schemaVersion":2,"config":{},"layers":[]}"#, r#"{"manifests":[]}"#);
        assert_eq!(kind_of("", manifest), oci::MANIFEST);
        assert_eq!(kind_of("application/octet-stream", index), oci::INDEX);
        assert_eq!(kind_of(oci::DOCKER_MANIFEST, manifest), oci::DOCKER_MANIFEST);
        assert_eq!(kind_of(oci::INDEX, manifest), format!("invalid manifest: it is no {}", oci::INDEX));
        assert_eq!(
            kind_of(oci::MANIFEST, &format!(r#"{{"mediaType":"{}","config":{{}}}}"#, oci::DOCKER_MANIFEST)),
            format!("mediaType in manifest should be '{}' not '{}'", oci::MANIFEST, oci::DOCKER_MANIFEST)
        );
        assert_eq!(
            kind_of("", r#"{"config":{},"manifests":[]}"#),
            "invalid manifest: it is both an index and an image"
        );
        assert_eq!(kind_of("", r#"{"mediaType":"a/b","config":{}}"#), "unsupported media type a/b");
        assert_eq!(kind_of("", "{}"), "unsupported manifest format");
    }

    /// B-im-5
    #[test]
    fn schema_1_is_refused() {
        for (stated, json) in [
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", "{}"),
            ("application/json", r#"{"schemaVersion":1,"fsLayers":[]}"#),
        ] {
            let text = kind_of(stated, json);
            assert!(
                text.starts_with("Docker Image Format v1 and Docker Image manifest version 2, schema 1 "),
                "{text}"
            );
            assert!(text.contains("docker.io/library/x:1"), "{text}");
        }
    }

    #[test]
    fn what_does_not_say_where_it_runs_is_the_last_choice() {
        let silent = |digest: &str, media_type: &str| Descriptor {
            digest: digest.into(),
            media_type: media_type.into(),
            ..Descriptor::default()
        };
        let mut attested = silent("attestation", oci::MANIFEST);
        attested.annotations.insert(oci::REFERENCE_TYPE.into(), "attestation-manifest".into());
        let mut other = silent("other", oci::MANIFEST);
        other.platform = Some(api::oci::Platform { os: "plan9".into(), ..Default::default() });
        let chosen = |manifests: &[&Descriptor], wished: Option<&Platform>| {
            let manifests = manifests.iter().copied().cloned().collect();
            choose(&oci::Index { manifests, ..oci::Index::default() }, wished).map(|d| d.digest).ok()
        };
        let (one, two) = (silent("one", oci::MANIFEST), silent("two", oci::DOCKER_MANIFEST));
        let artifact = silent("artifact", "application/x");
        assert_eq!(chosen(&[&artifact, &attested, &other, &one, &two], None).as_deref(), Some("one"));
        let host = oci::host();
        assert_eq!(chosen(&[&two, &one], Some(&host)).as_deref(), Some("two"));
        let mut fits = silent("fits", oci::MANIFEST);
        fits.platform = Some(api::oci::Platform {
            os: "linux".into(),
            architecture: host.architecture.clone(),
            ..Default::default()
        });
        assert_eq!(chosen(&[&one, &fits], None).as_deref(), Some("fits"));
        assert_eq!(chosen(&[&artifact, &attested, &other], None), None);
    }

    #[test]
    fn layers_have_many_media_types() {
        let dockers = "application/vnd.docker.image.rootfs";
        for good in [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            &format!("{dockers}.diff.tar.gzip"),
            &format!("{dockers}.foreign.diff.tar"),
            &format!("{dockers}.foreign.diff.tar.gzip"),
        ] {
            assert!(is_layer(good), "{good}");
        }
        for bad in ["", "text/html", &format!("{dockers}.diff.tar.exe"), &format!("{dockers}.alien.diff.tar.gzip")] {
            assert!(!is_layer(bad), "{bad}");
        }
    }

    #[test]
    fn the_platform_chooses() {
        let entry = |os: &str, architecture: &str, variant: &str, digest: &str| Descriptor {
            digest: digest.into(),
            platform: Some(api::oci::Platform {
                os: os.into(),
                architecture: architecture.into(),
                variant: variant.into(),
                ..Default::default()
            }),
            ..Descriptor::default()
        };
        let index = oci::Index {
            manifests: vec![
                entry("unknown", "unknown", "", "attestation"),
                entry("linux", "arm", "v6", "v6"),
                entry("linux", "arm", "v7", "v7"),
                entry("linux", "386", "", "386"),
                entry("linux", "amd64", "", "amd64"),
            ],
            ..oci::Index::default()
        };
        let chosen = |platform: &str| {
            let platform = Platform::parse(platform, &oci::host()).unwrap();
            choose(&index, Some(&platform)).map(|d| d.digest).map_err(|e| e.message().to_owned())
        };
        assert_eq!(chosen("linux/amd64").unwrap(), "amd64");
        assert_eq!(chosen("linux/amd64/v3").unwrap(), "amd64");
        assert_eq!(chosen("linux/386").unwrap(), "386");
        assert_eq!(chosen("linux/arm/v6").unwrap(), "v6");
        assert_eq!(chosen("linux/arm64").unwrap(), "v7");
        assert_eq!(
            chosen("linux/s390x").unwrap_err(),
            "no matching manifest for linux/s390x in the manifest list entries: no match for platform in manifest: not found"
        );
    }
}
