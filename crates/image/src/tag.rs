//! `docker tag`: one more name for an image. A name that led elsewhere moves; the other image stays (B-im-8).

use model::reference::ImageRef;
use model::{Error, Kind, Result};

use super::catalog::no_such;
use super::event::{draft, labels};
use super::images::Images;
use super::import::repository_tag;
use events::Events;

/// Gives the image that `text` leads to the name `repo:tag` (an empty tag is `latest`). Event: tag.
pub fn tag(images: &Images, events: &Events, text: &str, repo: &str, tag: &str) -> Result<()> {
    let reference = target(repo, tag)?;
    // Whatever is wrong with the text: the reference knows no such image.
    let image = images.catalog().find(text).map_err(|error| error.with_kind(Kind::NotFound))?.image;
    let id = image.target.digest.clone();
    let name = reference.canonical();
    let (told, text) = (draft("tag", &id, &reference.familiar(), &labels(&image)), text.to_owned());
    images.change_telling(events, move |catalog, edit| match catalog.images.contains_key(&id) {
        true => edit.put_name(&name, &id).map(|()| ((), vec![told])),
        // Removed since it was looked up.
        false => Err(no_such(&text)),
    })
}

fn target(repo: &str, tag: &str) -> Result<ImageRef> {
    let reference = repository_tag(repo, tag)?.ok_or_else(|| Error::invalid("invalid reference format"))?;
    // `sha256:abc` would be taken for the part of an id.
    if reference.familiar_name() == "sha256" {
        return Err(Error::invalid("refusing to create an ambiguous tag using digest algorithm as name"));
    }
    Ok(reference)
}
