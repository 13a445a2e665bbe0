//! Builds without a daemon: layers that are made here, exported for clients that are made here. These need root (ownership, devices,
//! whiteouts, mounts).
#![allow(clippy::unwrap_used)]

mod archives;
mod attestations;
mod caches;
mod collection;
mod files;
mod images;
mod place;
