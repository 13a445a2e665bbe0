//! Which containers are made of which image, as people are told of them.

use std::collections::HashSet;

use image::{Images, Users};
use model::Result;

use crate::container::Containers;

/// All containers by their images. One that is not loaded is shown by its id. Blocks.
pub fn users(images: &Images, containers: &Containers) -> Result<Users> {
    images.users(|id| {
        let short = id.get(..12).unwrap_or(id);
        match containers.find(id) {
            Ok(handle) => {
                let view = handle.view();
                format!("{} ({short}, {})", view.row.name, view.row.state.word())
            }
            Err(_) => short.to_owned(),
        }
    })
}

/// Full ids of the containers that run.
pub fn running(containers: &Containers) -> HashSet<String> {
    let all = containers.all().into_iter();
    all.filter(|handle| handle.view().row.state.is_running()).map(|handle| handle.id.as_str().to_owned()).collect()
}
