//! `docker rmi`: takes names away and, with the last one, the image (B-im-9).
//!
//! Conflicts: a running container refuses always; a stopped container, and an id with several names, refuse unless
//! forced. All is decided and done in one transaction, so a container being created meanwhile is either seen or its
//! commit is refused.

use std::collections::{BTreeMap, HashSet};

use api::ImageDeleteItem;
use model::digest::Digest;
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Error, Result};

use super::catalog::no_such;
use super::catalog::{Catalog, Matched, Wanted, parsed, select};
use super::event::draft;
use super::images::{Edit, Images};
use super::row::{ImageRow, ManifestRow};
use events::{Draft, Events};

/// What remove takes.
#[derive(Clone, Debug, Default)]
pub struct RemoveArgs {
    /// Soft conflicts do not count.
    pub force: bool,
    /// The nameless images that it was committed from go as well.
    pub prune: bool,
    /// Only the content for these platforms; the image and its names stay.
    pub platforms: Vec<Platform>,
    /// Full ids of the containers that run: what they are made of stays, forced or not.
    pub running: HashSet<String>,
}

/// What is to be done: decided over one catalog.
#[derive(Debug)]
struct Plan {
    id: Digest,
    names: Vec<String>,
    /// The image goes as well.
    delete: bool,
    /// The images below it that go with it, the nearest first.
    parents: Vec<Digest>,
}

/// Removes names and images; answers what was, in order. Events: untag, delete.
pub fn remove(images: &Images, events: &Events, text: &str, args: RemoveArgs) -> Result<Vec<ImageDeleteItem>> {
    if !args.platforms.is_empty() {
        return remove_platforms(images, text, args);
    }
    let wanted = text.to_owned();
    let (plan, items) = images.change_telling(events, move |catalog, edit| {
        let mut plan = plan(catalog, edit, &wanted, &args)?;
        if plan.delete && args.prune {
            plan.parents = unneeded_parents(catalog, edit, &plan.id)?;
        }
        apply(edit, &plan)?;
        let (items, drafts) = report(&plan);
        Ok(((plan, items), drafts))
    })?;
    if plan.delete {
        images.tidy_up();
    }
    Ok(items)
}

/// Removes the content of single platforms, from every image that has the very same manifest. Containers go on: their
/// layers stay as long as they do.
fn remove_platforms(images: &Images, text: &str, args: RemoveArgs) -> Result<Vec<ImageDeleteItem>> {
    if !args.force {
        return Err(Error::invalid(
            "Content will be removed from all images referencing this variant. Use \u{2014}-force to force delete.",
        ));
    }
    let text = text.to_owned();
    let removed = images.change(move |catalog, edit| {
        let found = catalog.find(&text)?;
        let mut removed = Vec::new();
        for platform in &args.platforms {
            let failed = |error: Error| {
                error.prefix(format!("failed to delete platform {platform} for image {}", found.image.target.digest))
            };
            let manifest = select(&found.image, Wanted::Exactly(platform), &found.shown(catalog)).map_err(failed)?;
            removed.push(manifest.content.digest.clone());
        }
        for image in catalog.images.values() {
            let mut row = ImageRow::clone(image);
            let gone = row.manifests.iter_mut().filter(|m| m.config.is_some() && removed.contains(&m.content.digest));
            if gone.map(ManifestRow::lose).count() > 0 {
                edit.put_image(&row)?;
            }
        }
        Ok(removed)
    })?;
    images.tidy_up();
    let item = |digest: Digest| ImageDeleteItem { deleted: digest.to_string(), ..ImageDeleteItem::default() };
    Ok(removed.into_iter().map(item).collect())
}

fn apply(edit: &mut Edit<'_, '_, '_>, plan: &Plan) -> Result<()> {
    plan.names.iter().try_for_each(|name| edit.delete_name(name))?;
    let image = Some(&plan.id).filter(|_| plan.delete);
    image.into_iter().chain(&plan.parents).try_for_each(|id| edit.delete_image(id))
}

/// What is answered and told of.
fn report(plan: &Plan) -> (Vec<ImageDeleteItem>, Vec<Draft>) {
    let names: Vec<_> = plan.names.iter().filter_map(|name| parsed(name)).map(|name| name.familiar()).collect();
    let untagged = names.iter().map(|name| report_untagged(&plan.id, name));
    let own = plan.delete.then(|| report_deleted(&plan.id, plan.id.as_str()));
    let parents = plan.parents.iter().map(|id| report_deleted(id, id.as_str()));
    untagged.chain(own).chain(parents).unzip()
}

/// A name that was taken, as users write it, in the answer and as an event.
pub(super) fn report_untagged(id: &Digest, name: &str) -> (ImageDeleteItem, Draft) {
    let item = ImageDeleteItem { untagged: name.to_owned(), ..ImageDeleteItem::default() };
    (item, draft("untag", id, name, &BTreeMap::new()))
}

/// The same for an image, called `name` in the event.
pub(super) fn report_deleted(id: &Digest, name: &str) -> (ImageDeleteItem, Draft) {
    let item = ImageDeleteItem { deleted: id.to_string(), ..ImageDeleteItem::default() };
    (item, draft("delete", id, name, &BTreeMap::new()))
}

fn plan(catalog: &Catalog, edit: &Edit<'_, '_, '_>, text: &str, args: &RemoveArgs) -> Result<Plan> {
    let found = catalog.find(text)?;
    let id = found.image.target.digest.clone();
    let all: Vec<String> = catalog.names_of(&id).map(str::to_owned).collect();
    let users = edit.users(&id)?;
    let untag = |names: Vec<String>| Ok(Plan { id: id.clone(), names, delete: false, parents: Vec::new() });
    let mut several_refuse = !args.force;
    match &found.matched {
        Matched::Id => {}
        Matched::Repository(reference) => {
            let same = match reference.tag {
                // The digest says which image, the tag which of its names.
                Some(_) => same_references(&ImageRef { digest: None, ..reference.clone() }.canonical(), &all),
                None => all.iter().filter(|n| parsed(n).is_some_and(|n| n.same_name(reference))).cloned().collect(),
            };
            if same.is_empty() {
                return Err(no_such(text));
            }
            if same.len() != all.len() {
                return untag(same);
            }
            several_refuse = false;
        }
        Matched::Name(name) => {
            let same = same_references(name, &all);
            if same.len() != all.len() {
                return untag(same);
            }
            several_refuse = false;
            if let Some(user) = users.first() {
                if !args.force {
                    return Err(used_by_name(name, user, &id));
                }
                // The image stays without a name as long as it is used.
                return untag(all);
            }
        }
    }
    refuse(&id, &users, args)?;
    if several_refuse && !is_one_reference(&all) {
        return Err(conflict(id.short(), "must be forced", "image is referenced in multiple repositories"));
    }
    Ok(Plan { id, names: all, delete: true, parents: Vec::new() })
}

/// The images without a name below one that goes, as far as nothing else needs them.
fn unneeded_parents(catalog: &Catalog, edit: &Edit<'_, '_, '_>, id: &Digest) -> Result<Vec<Digest>> {
    let mut going = vec![id.clone()];
    while let Some(parent) = catalog.images.get(&going[going.len() - 1]).and_then(|image| image.parent.as_ref()) {
        let is_here = catalog.images.contains_key(parent) && !going.contains(parent);
        let is_named = catalog.names_of(parent).next().is_some();
        let has_others = catalog
            .images
            .values()
            .any(|image| image.parent.as_ref() == Some(parent) && !going.contains(&image.target.digest));
        if !is_here || is_named || has_others || !edit.users(parent)?.is_empty() {
            break;
        }
        going.push(parent.clone());
    }
    Ok(going.split_off(1))
}

/// The name itself, and digest references of its repository when that has no other tag.
fn same_references(name: &str, all: &[String]) -> Vec<String> {
    let Some(wanted) = parsed(name) else { return vec![name.to_owned()] };
    let same_repository = |n: &ImageRef| n.same_name(&wanted);
    let other = |n: &ImageRef| same_repository(n) && n.digest.is_none() && n.tag != wanted.tag;
    let alone = !all.iter().filter_map(|n| parsed(n)).any(|n| other(&n));
    let same =
        |n: &String| n == name || (alone && parsed(n).is_some_and(|n| same_repository(&n) && n.digest.is_some()));
    all.iter().filter(|n| same(n)).cloned().collect()
}

/// Whether all names are of one repository, with one tag at most: digest references go with it.
fn is_one_reference(all: &[String]) -> bool {
    all.len() <= 1 || all.iter().any(|name| same_references(name, all).len() == all.len())
}

fn refuse(id: &Digest, users: &[String], args: &RemoveArgs) -> Result<()> {
    if let Some(user) = users.iter().find(|user| args.running.contains(*user)) {
        let why = format!("image is being used by running container {}", short(user));
        return Err(conflict(id.short(), "cannot be forced", &why));
    }
    match users.first() {
        Some(user) if !args.force => {
            let why = format!("image is being used by stopped container {}", short(user));
            Err(conflict(id.short(), "must be forced", &why))
        }
        _ => Ok(()),
    }
}

fn used_by_name(name: &str, user: &str, id: &Digest) -> Error {
    let shown = parsed(name).map_or_else(|| name.to_owned(), |name| name.familiar());
    let why = format!("container {} is using its referenced image {}", short(user), id.short());
    conflict(&shown, "must be forced", &why)
}

/// The first twelve digits of a container's id.
fn short(container: &str) -> &str {
    container.get(..12).unwrap_or(container)
}

fn conflict(what: &str, how: &str, why: &str) -> Error {
    Error::conflict(format!("conflict: unable to delete {what} ({how}) - {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_references_go_with_the_last_tag_of_their_repository() {
        let digest = format!("docker.io/library/a@sha256:{}", "0".repeat(64));
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let one = names(&["docker.io/library/a:1", &digest, "docker.io/library/b:1"]);
        assert_eq!(same_references("docker.io/library/a:1", &one), names(&["docker.io/library/a:1", &digest]));
        let two = names(&["docker.io/library/a:1", "docker.io/library/a:2", &digest]);
        assert_eq!(same_references("docker.io/library/a:1", &two), names(&["docker.io/library/a:1"]));
        assert_eq!(same_references("docker.io/library/a:9", &one), [""; 0]);
        let other = format!("docker.io/library/b@sha256:{}", "0".repeat(64));
        let second = format!("docker.io/library/a@sha256:{}", "1".repeat(64));
        for (all, is_one) in [
            (&["docker.io/library/a:1"][..], true),
            (&["docker.io/library/a:1", &digest], true),
            (&[&digest, &second], true),
            (&["docker.io/library/a:1", &digest, &second], true),
            (&[], true),
            (&["docker.io/library/a:1", "docker.io/library/a:2"], false),
            (&["docker.io/library/a:1", "docker.io/library/a:2", &digest], false),
            (&["docker.io/library/a:1", &other], false),
            (&["docker.io/library/a:1", "docker.io/library/b:1"], false),
        ] {
            assert_eq!(is_one_reference(&names(all)), is_one, "{all:?}");
        }
    }
}
