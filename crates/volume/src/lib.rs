//! Volumes: directories that outlive containers, their drivers and their names.
//!
//! Invariants:
//! - **referent before referrer**: a volume's directory is made before its row is committed and removed after the row is
//!   gone; a directory without a row is swept at open only when it is empty of data, never otherwise;
//! - on the disk as well: a volume that nobody has used yet holds nothing, and is made again at open if a power cut has
//!   taken its directory; whoever commits its first use makes it durable before ([`Volumes::make_durable`]);
//! - a removal takes the data out of its place, durably, before the row goes: one that a crash cut short is undone at open
//!   while there is a row, and finished when there is none;
//! - where a volume lies follows from its name and the root in force; what rows say of it is not gone by;
//! - creating a volume that exists answers the one that is there (B-vol-9);
//! - who uses a volume is the engine's knowledge (its containers): [`Volumes::remove`] asks it while nobody else can work on
//!   the volume. A volume that is mounted ([`Volumes::mount`]) or claimed by what is being made ([`Claim`]) is never removed;
//! - who has a volume mounted that its driver mounts is recorded before the driver is asked and forgotten after it has let
//!   go ([`MOUNTS`]): a daemon that comes after one that was killed ends what nobody uses any more
//!   ([`Volumes::recover`]);
//! - what is copied or imported is filled apart, made durable, and then put in its place in one step; a snapshot is a directory
//!   of its own that no row speaks of and that no removal of a volume touches ([`Snapshot`]).
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod claim;
pub mod driver;
mod drivers;
#[allow(clippy::disallowed_methods, reason = "on threads of the drivers, and a process that serves nobody")]
pub mod keeper;
#[allow(clippy::disallowed_methods, reason = "a driver is called on the threads of its class")]
mod local;
#[allow(clippy::disallowed_methods, reason = "on threads of those who use it")]
mod mounted;
mod name;
#[allow(clippy::disallowed_methods, reason = "a driver is called on the threads of its class")]
mod remote;
mod row;
pub mod schedule;
mod scope;
mod service;

/// The version of the rows of volumes.
pub const FORMAT: u32 = <row::Volume as store::Row>::VERSION;

pub use claim::Claim;
pub use driver::VolumeDriver;
pub use keeper::Keeper;
pub use local::{Local, REMOVED};
pub use mounted::Mounted;
pub use row::{ANONYMOUS_LABEL, CreateVolume, LOCAL, MOUNTS, MountNote, VOLUMES, Volume, in_use, note_use};
pub use scope::Scope;
pub use service::{Hold, OpenSnapshot, SNAPSHOTS, STAGED, STAGING, Snapshot, Staged, Volumes};
