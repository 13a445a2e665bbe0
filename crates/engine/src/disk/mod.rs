//! What lies on the disk and who may free it: `GET /system/df`, and the turns of the prunes.
//!
//! - Figures are bytes of content, so that totals, the sums of what the lists show and what a prune reports are one number;
//!   the blocks that a file system takes for them are `gantryd check --json`'s to tell. Of images they are those of the
//!   blobs and unpacked layers that are there, each once; of containers their writable layers; of volumes their data.
//! - What can be reclaimed is what a prune of the kind could free, so of images everything that neither an image in use
//!   nor a container needs.
//! - Parallel callers share one walk per kind ([`shared::Shared`]).

mod shared;
pub mod usage;

use api::{ContainerSummary, ImageSummary, Usage};
use blocking::{Class, Work};
use model::{Error, Result};
use tokio::sync::{Mutex, MutexGuard};

use self::shared::Shared;
use crate::paths::Paths;

/// What goes on with the disk as a whole.
pub struct Disk {
    /// Whose turn it is to prune.
    pub pruning: Turns,
    /// Paths of the host that users name.
    pub paths: Paths,
    /// Work as long as a tree is large.
    pub walks: Class,
    containers: Shared<Usage<ContainerSummary>>,
    images: Shared<Usage<ImageSummary>>,
    volumes: Shared<Usage<api::Volume>>,
}

impl Default for Disk {
    fn default() -> Disk {
        let (pruning, paths, containers, images, volumes) = Default::default();
        Disk { pruning, paths, walks: Class::new(Work::Walks), containers, images, volumes }
    }
}

/// One prune of a kind at a time.
#[derive(Default)]
pub struct Turns {
    /// Of containers.
    pub containers: Mutex<()>,
    /// Of networks.
    pub networks: Mutex<()>,
    /// Of volumes.
    pub volumes: Mutex<()>,
}

/// Takes a turn. `Conflict` while another has it.
pub fn turn(turn: &Mutex<()>) -> Result<MutexGuard<'_, ()>> {
    turn.try_lock().map_err(|_| Error::conflict("a prune operation is already running"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B-pr-1
    #[test]
    fn one_prune_of_a_kind_at_a_time() {
        let turns = Turns::default();
        let first = turn(&turns.volumes).unwrap();
        let refused = turn(&turns.volumes).unwrap_err();
        assert_eq!(refused.kind(), model::Kind::Conflict);
        assert_eq!(refused.message(), "a prune operation is already running");
        drop(turn(&turns.containers).unwrap());
        drop(first);
        drop(turn(&turns.volumes).unwrap());
    }
}
