//! Which containers are made of which image, read off their published views.

use image::{User, Users};

use crate::container::Containers;

/// All containers, now.
pub fn users(containers: &Containers) -> Users {
    let mut users = Users::default();
    for handle in containers.all() {
        let view = handle.view();
        let image = &view.row.image;
        let user = User {
            id: handle.id.as_str().to_owned(),
            name: view.row.name.clone(),
            state: view.row.state.word(),
            reference: image.reference.clone(),
            manifest: image.manifest.as_ref().map(|(_, digest, _)| digest.clone()),
            layers: image.layers.clone(),
        };
        users.add(&image.id, user);
    }
    users
}
