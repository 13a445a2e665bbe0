//! The mask of files that the process makes.

/// Whatever mask was inherited, what is made without a mode is the owner's alone to write: sources of binds, the files a
/// container gets. A place that wants more says so.
pub fn set() {
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
}
