//! What a registry has under a name, without fetching it: descriptor and platforms.

use api::DistributionInspect;
use api::oci::{Descriptor, Platform};
use model::reference::ImageRef;
use model::{Error, Result};
use registry::{Access, Credentials, Registries, Repository};

use super::oci;
use super::pull::{document, small_blob};
use super::row::Content;

/// Asks the registry. Errors: what it answers, in its words.
pub async fn distribution(
    registries: &Registries,
    reference: &ImageRef,
    credentials: Credentials,
) -> Result<DistributionInspect> {
    let repository = registries.repository(reference, credentials, Access::Pull).await?;
    let (media_type, digest, bytes) = document(&repository).await?;
    let (digest, size) = (digest.to_string(), bytes.len() as i64);
    let descriptor = Descriptor { media_type, digest, size, ..Descriptor::default() };
    let platforms = if oci::is_index(&descriptor.media_type) {
        oci::parse_index(&bytes)?.manifests.into_iter().filter_map(|manifest| manifest.platform).collect()
    } else {
        of_config(&repository, &oci::parse_manifest(&bytes)?.config).await.into_iter().collect()
    };
    Ok(DistributionInspect { descriptor, platforms })
}

/// The platform in a configuration; one that cannot be read tells of none.
async fn of_config(repository: &Repository, config: &Descriptor) -> Option<Platform> {
    let size = u64::try_from(config.size).ok().filter(|size| *size <= oci::CONFIG_BYTES)?;
    let content = Content { media_type: config.media_type.clone(), digest: oci::digest(config).ok()?, size };
    let read = async {
        let bytes = small_blob(repository, &content).await?;
        oci::parse::<oci::Document>(&bytes, "image configuration")
    };
    let document = read.await.inspect_err(|error: &Error| tracing::debug!(%error, "no platform")).ok()?;
    Some(document.platform).filter(|p| !p.os.is_empty() || !p.architecture.is_empty())
}
