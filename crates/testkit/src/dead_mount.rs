//! A file system that does not answer: FUSE whose server never reads a request. Whoever looks into it waits until it is killed or the
//! file system ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::command::{PATIENCE, eventually};
use crate::namespaces::Namespaces;

/// The mount. Those who wait for it get an error when it is dropped; [`DeadMount::end`] takes it away, too.
pub struct DeadMount {
    place: PathBuf,
    /// The server's end.
    server: Option<File>,
}

impl DeadMount {
    /// Mounts it on a directory, inside the namespaces.
    #[track_caller]
    #[must_use]
    pub fn make(namespaces: &Namespaces, place: &Path) -> DeadMount {
        let server = File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse can be opened");
        // The kernel takes the connection from the descriptor that mount(8) has as its input.
        let copy = server.try_clone().expect("a descriptor can be copied");
        let mut mount = namespaces.command("mount");
        mount.args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0", "dead"]).arg(place);
        let status = mount.stdin(Stdio::from(copy)).status().expect("mount starts");
        assert!(status.success(), "a file system that does not answer cannot be mounted: {status}");
        DeadMount { place: place.to_owned(), server: Some(server) }
    }

    /// Ends it: everybody who waits for it gets an error.
    #[track_caller]
    pub fn end(mut self, namespaces: &Namespaces) {
        self.server = None;
        let place = self.place.display().to_string();
        let unmounted = eventually(PATIENCE, || namespaces.run(&["umount", "-i", "-l", &place]).code == 0);
        assert!(unmounted, "{place} stays mounted");
    }
}
