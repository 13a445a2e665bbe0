//! Threads for what blocks while images come and go (`docs/design/0021-blocking.md`).

use blocking::{Class, Work};

/// The classes.
#[derive(Clone, Debug)]
pub struct Threads {
    /// Short pieces of work: documents, parts of blobs, commits.
    pub documents: Class,
    /// Layers that are unpacked while they arrive.
    pub unpacks: Class,
}

impl Default for Threads {
    fn default() -> Threads {
        Threads { documents: Class::new(Work::Images), unpacks: Class::new(Work::Unpacks) }
    }
}
