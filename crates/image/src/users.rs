//! Which containers are made of which image.

use std::collections::HashMap;

use model::digest::Digest;

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
    /// Its name.
    pub name: String,
    /// How it lives, in a word.
    pub state: &'static str,
    /// The image as it was named when the container was made.
    pub reference: String,
    /// The manifest that was chosen for it.
    pub manifest: Option<Digest>,
    /// Its layers.
    pub layers: Vec<Digest>,
}

impl User {
    /// As people are told of it: `web (1a2b3c4d5e6f, exited)`.
    pub fn words(&self) -> String {
        format!("{} ({}, {})", self.name, self.id.get(..12).unwrap_or(&self.id), self.state)
    }
}

impl Users {
    /// Adds a container of an image.
    pub fn add(&mut self, image: &Digest, user: User) {
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
        let made = |user: &&User| user.manifest.as_ref().unwrap_or(image) == manifest;
        self.of(image).filter(made).map(|user| user.id.clone()).collect()
    }

    /// The layers of all containers; their images may be gone.
    pub fn layers(&self) -> impl Iterator<Item = Digest> {
        self.by_image.values().flatten().flat_map(|user| user.layers.iter().cloned())
    }

    /// One more container, for tests.
    #[cfg(test)]
    pub(crate) fn add_named(&mut self, image: &Digest, reference: &str) {
        let user = User {
            id: "0".repeat(64),
            name: "web".into(),
            state: "exited",
            reference: reference.into(),
            manifest: None,
            layers: Vec::new(),
        };
        self.add(image, user);
    }
}
