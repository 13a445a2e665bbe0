//! Places in a file.

use bollard_buildkit_proto::pb;

/// Lines of a file, counted from 1; both ends belong to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lines {
    /// The first one; 0 before anything was read.
    pub first: u32,
    /// The last one, never before the first.
    pub last: u32,
}

impl Lines {
    /// From the first to the last; an end before the start is the start.
    pub fn new(first: u32, last: u32) -> Lines {
        Lines { first, last: last.max(first) }
    }

    /// As the protocol says them: a range for each line, without columns.
    pub fn ranges(self) -> Vec<pb::Range> {
        let position = |line: u32| Some(pb::Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 });
        (self.first..=self.last).map(|line| pb::Range { start: position(line), end: position(line) }).collect()
    }
}
