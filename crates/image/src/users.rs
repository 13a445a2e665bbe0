//! Which containers are made of which image: an index in the store, kept by whoever owns the containers.
//!
//! - Table `image-users` has one row per container, keyed `<image id>/<container id>`. [`put_user`] and [`delete_user`]
//!   belong into the commits that make and remove the container's own row, so that the two never differ.
//! - A container keeps its layers after its image was removed: a sweep takes them from here.
//! - Data roots of older versions have no such table; [`repair_users`] makes it from the containers at every start.

use std::collections::{BTreeMap, HashMap};

use model::Result;
use model::digest::Digest;
use serde::{Deserialize, Serialize};
use store::{Row, Store, Table, WriteTx};

/// All containers by their images.
pub const USERS: Table<UserRow> = Table::new("image-users");

/// What a container has of its image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRow {
    /// The image as it was named when the container was made.
    pub reference: String,
    /// The manifest that was chosen for it; `None`: the image itself is the manifest.
    pub manifest: Option<Digest>,
    /// Diff ids of its layers, bottom first.
    pub layers: Vec<Digest>,
}

impl Row for UserRow {
    const VERSION: u32 = 1;
}

/// The key of a container in [`USERS`]; `container` is its full id.
pub fn user_key(image: &Digest, container: &str) -> String {
    format!("{image}/{container}")
}

/// Notes that a container is made of an image. What is noted already is not written again.
pub fn put_user(tx: &mut WriteTx<'_, '_>, image: &Digest, container: &str, row: &UserRow) -> Result<()> {
    let key = user_key(image, container);
    if tx.get(&USERS, &key)?.as_ref() == Some(row) { Ok(()) } else { tx.put(&USERS, &key, row) }
}

/// Notes that the container is gone.
pub fn delete_user(tx: &mut WriteTx<'_, '_>, image: &Digest, container: &str) -> Result<()> {
    tx.delete(&USERS, &user_key(image, container)).map(drop)
}

/// Makes the index what it has to be, by key, and tells how many rows were not so. Rows of containers that `spared` knows by
/// their full id stay as they are.
pub async fn repair_users(
    store: &Store,
    expected: BTreeMap<String, UserRow>,
    spared: impl Fn(&str) -> bool,
) -> Result<usize> {
    let found: BTreeMap<_, _> = store.read(|tx| tx.survey(&USERS))?.rows.into_iter().collect();
    let keys = store.read(|tx| tx.keys(&USERS))?;
    let gone: Vec<_> = keys
        .into_iter()
        .filter(|key| !expected.contains_key(key) && !split(key).is_some_and(|(_, container)| spared(container)))
        .collect();
    let missing: Vec<_> = expected.into_iter().filter(|(key, row)| found.get(key) != Some(row)).collect();
    let count = gone.len() + missing.len();
    if count > 0 {
        let change = move |tx: &mut WriteTx<'_, '_>| {
            gone.iter().try_for_each(|key| tx.delete(&USERS, key).map(drop))?;
            missing.iter().try_for_each(|(key, row)| tx.put(&USERS, key, row))
        };
        store.write(change).await?;
    }
    Ok(count)
}

/// Containers by the image that they are made of.
#[derive(Clone, Debug, Default)]
pub struct Users {
    by_image: HashMap<Digest, Vec<User>>,
}

/// One container.
#[derive(Clone, Debug)]
pub struct User {
    /// Its full id.
    pub id: String,
    /// As people are told of it: `web (1a2b3c4d5e6f, exited)`.
    pub shown: String,
    /// What it has of its image.
    pub row: UserRow,
}

/// The image and the container of a key.
pub fn split(key: &str) -> Option<(Digest, &str)> {
    let (image, container) = key.split_once('/')?;
    Some((Digest::parse(image).ok()?, container))
}

impl Users {
    /// One more container of an image.
    pub(crate) fn add(&mut self, image: &Digest, user: User) {
        self.by_image.entry(image.clone()).or_default().push(user);
    }

    /// The containers of an image.
    pub fn of(&self, image: &Digest) -> impl Iterator<Item = &User> {
        self.by_image.get(image).into_iter().flatten()
    }

    /// Every container with its image.
    pub fn all(&self) -> impl Iterator<Item = (&Digest, &User)> {
        self.by_image.iter().flat_map(|(image, users)| users.iter().map(move |user| (image, user)))
    }

    /// Ids of the containers of one manifest of an image. A container that knows of none was made of the image itself.
    pub fn of_manifest(&self, image: &Digest, manifest: &Digest) -> Vec<String> {
        let made = |user: &&User| user.row.manifest.as_ref().unwrap_or(image) == manifest;
        self.of(image).filter(made).map(|user| user.id.clone()).collect()
    }

    /// The layers of all containers; their images may be gone.
    pub fn layers(&self) -> impl Iterator<Item = Digest> {
        self.by_image.values().flatten().flat_map(|user| user.row.layers.iter().cloned())
    }

    /// One more container, for tests.
    #[cfg(test)]
    pub(crate) fn add_named(&mut self, image: &Digest, reference: &str) {
        let row = UserRow { reference: reference.into(), manifest: None, layers: Vec::new() };
        self.add(image, User { id: "0".repeat(64), shown: String::new(), row });
    }
}
