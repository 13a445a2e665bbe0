//! What all readers of logs share.

mod changes;
mod followers;

use blocking::{Class, Work};

pub use self::changes::{Changes, Wake};
pub use self::followers::{Follower, Followers};

/// What all readers of logs share.
pub struct Readers {
    /// Their steps.
    pub steps: Class,
    /// What wakes those who follow.
    pub changes: Changes,
    /// Those who follow.
    pub followers: Followers,
}

impl Readers {
    /// To be called on the runtime.
    pub fn start() -> Readers {
        Readers { steps: Class::new(Work::Logs), changes: Changes::start(), followers: Followers::default() }
    }
}
