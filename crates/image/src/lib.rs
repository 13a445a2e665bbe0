//! Images: their rows, their content, and one file per verb.
//!
//! Invariants:
//! - an image's id is the digest of its manifest or index, as in the containerd image store (B-im-3);
//! - blobs and layers are durable before the one commit that makes image and name visible; the catalog in memory is
//!   replaced after it, so readers see only what is committed and never wait;
//! - nothing is removed by cascade: [`Images::sweep`] frees what neither an image, nor a container, nor a running
//!   operation's lease names.
//!
//! The verbs block (disk, hashing): call them off the async threads. Look-ups do not.
#![forbid(unsafe_code)]

mod attestations;
pub mod built;
mod catalog;
mod changes;
pub mod collect;
mod commit;
mod distribution;
mod event;
pub mod exported;
mod glob;
mod history;
mod images;
mod import;
mod inspect;
pub mod kept;
mod list;
mod load;
pub mod oci;
mod prune;
pub mod pull;
mod push;
mod remove;
pub mod row;
mod save;
mod signatures;
mod size;
mod tag;
mod threads;
mod transfers;
mod unpack;
mod users;
mod why;

pub use attestations::{AttestationArgs, attestations};
pub use catalog::{Catalog, Found, Matched, Wanted, no_platform, no_such, select};
pub use changes::apply as apply_changes;
pub use commit::{CommitImage, commit};
pub use distribution::distribution;
pub use history::history;
pub use images::{Images, PART_LIFE, ResolvedImage, use_by_container};
pub use import::{ImportArgs, import, repository_tag};
pub use inspect::inspect;
pub use list::{ListArgs, list};
pub use load::load;
pub use prune::prune;
pub use pull::{PullArgs, pull};
pub use push::{Load, PushArgs, push, push_load};
pub use remove::{RemoveArgs, remove};
pub use row::{FORMAT, add_kept};
pub use save::save;
pub use tag::tag;
pub use transfers::Transfers;
pub use unpack::describe_blobs;
pub use unpack::ensure_unpacked;
pub use users::{USERS, User, UserRow, Users, delete_user, put_user, repair_users, user_key};
pub use why::{Why, WhyImage, why};

/// The tables of images, and of who uses them.
pub fn tables() -> [&'static dyn store::AnyTable; 4] {
    [&row::IMAGES, &row::NAMES, &USERS, &kept::KEPT]
}

#[cfg(test)]
mod tests;
