//! Cutting the power of a daemon whose data root lies on a disk that forgets.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use super::Daemon;
use crate::census;
use crate::command::{PATIENCE, eventually};
use crate::namespaces::{Namespaces, remove_cgroups};
use crate::power::{Disk, FileSystem, Keep};
use crate::process;

/// Makes the disk and mounts it as the data root below `dir`.
pub(super) fn plug_in(namespaces: &Namespaces, dir: &Path, kind: FileSystem) -> Disk {
    let place = dir.join("fuse");
    fs::create_dir(&place).expect("a fresh directory can be filled");
    let mut disk = Disk::make(namespaces, &place, kind);
    disk.mount(namespaces, &dir.join("d"));
    disk
}

impl Daemon {
    /// The disk of its data root.
    #[track_caller]
    #[must_use]
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("the daemon was given a disk that forgets")
    }

    /// What the machine does without power: processes end, memory is empty, and the disk has what it kept. The power is
    /// back then, the file system mounted, and no daemon runs.
    #[track_caller]
    pub fn cut_power(&mut self, keep: Keep) {
        self.disk().cut(keep);
        if let Some(mut daemon) = self.process.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for root in census::cgroup_roots(&self.cgroup) {
            remove_cgroups(&root);
        }
        let ended = eventually(PATIENCE, || {
            let left = self.namespaces.processes();
            left.iter().for_each(|left| _ = process::signal(left.pid, Signal::KILL));
            left.is_empty()
        });
        assert!(ended, "processes outlive the power: {:#?}", self.namespaces.processes());
        for entry in fs::read_dir(self.exec_root.path()).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
        let disk = self.disk.as_mut().expect("the daemon was given a disk that forgets");
        disk.unplug(&self.namespaces, &self.data_root);
        disk.restore();
        disk.mount(&self.namespaces, &self.data_root);
    }
}
