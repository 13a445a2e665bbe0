//! `user[:group]` against the container's own `/etc/passwd` and `/etc/group`, with the reference's rules and texts.

/// Numbers of a resolved user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the primary one first.
    pub groups: Vec<u32>,
    /// Home directory, `/` if the database has none.
    pub home: String,
}
