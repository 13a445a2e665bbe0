//! An image whose documents and layers were written to the blobs by a build, for one platform or for several.

use api::oci::Descriptor;
use events::Events;
use model::digest::Digest;
use model::reference::ImageRef;
use model::{Error, Result};
use store::Lease;

use super::event::{draft, labels};
use super::images::Images;
use super::row::ManifestRow;
use super::{oci, unpack};

/// Which of its manifests are unpacked at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpacked {
    /// None: a container that is made of it unpacks what it needs.
    None,
    /// Those whose layers are here.
    Present,
    /// Those that run on this host, and those whose layers are here.
    Host,
}

/// What is kept as an image.
pub struct ExportedImage {
    /// The manifest or index; everything that it names is pinned.
    pub target: Descriptor,
    /// The names it gets.
    pub names: Vec<ImageRef>,
    /// What is unpacked.
    pub unpacked: Unpacked,
}

/// Makes the image and its names visible; answers its id. Events: create, tag for each name. Blocks.
///
/// Errors: `InvalidParameter` for documents that are no image's.
pub fn exported(images: &Images, events: &Events, wanted: ExportedImage, lease: &Lease) -> Result<Digest> {
    let mut row = unpack::describe(images, &wanted.target)?;
    if row.manifests.iter().any(|manifest| manifest.layers.len() > oci::LAYERS) {
        return Err(Error::invalid(format!("max depth exceeded: an image has at most {} layers", oci::LAYERS)));
    }
    let is_here = |manifest: &ManifestRow| {
        manifest.diff_ids.iter().all(|diff_id| {
            lease.pin(diff_id);
            images.layers.layer(&diff_id.into()).is_ok_and(|layer| layer.is_some())
        })
    };
    let runs = |manifest: &ManifestRow| oci::machine().runs(&oci::platform(&manifest.platform));
    let is_wanted = |manifest: &ManifestRow| match wanted.unpacked {
        Unpacked::None => false,
        Unpacked::Present => is_here(manifest),
        Unpacked::Host => runs(manifest) || is_here(manifest),
    };
    unpack::unpack(images, &mut row, is_wanted, lease)?;
    images.layers.sync()?;
    images.blobs.barrier()?;
    let (id, told) = (row.target.digest.clone(), labels(&row));
    let mut drafts = vec![draft("create", &id, id.as_str(), &told)];
    let names: Vec<String> = wanted.names.iter().map(ImageRef::canonical).collect();
    // A name with a digest is no tag.
    let tags = wanted.names.iter().filter(|name| name.digest.is_none());
    drafts.extend(tags.map(|name| draft("tag", &id, &name.familiar(), &told)));
    let own = id.clone();
    images.change_telling(events, move |_, edit| {
        edit.put_image(&row)?;
        names.iter().try_for_each(|name| edit.put_name(name, &own))?;
        Ok(((), drafts))
    })?;
    images.look_at_disk();
    Ok(id)
}
