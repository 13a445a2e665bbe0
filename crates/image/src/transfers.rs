//! How many transfers go on at one time.

/// Bounds on transfers; 0: no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfers {
    /// Over all pulls.
    pub downloads: usize,
    /// Of one push.
    pub uploads: usize,
}
