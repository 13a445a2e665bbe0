//! The tables of the store, all of them.

use store::AnyTable;

use crate::container::row::{CONTAINERS, RUNS};
use crate::ending;

/// Every table of the store but the store's own.
pub fn all() -> Vec<&'static dyn AnyTable> {
    let mut all = naming();
    all.extend(notes());
    all
}

/// Tables whose rows name what lies on the disk or in the kernel, or hold what users gave.
pub fn naming() -> Vec<&'static dyn AnyTable> {
    let mut all: Vec<&'static dyn AnyTable> =
        vec![&CONTAINERS, &RUNS, &::volume::VOLUMES, &::volume::MOUNTS, &network::row::NETWORKS];
    all.extend::<[&'static dyn AnyTable; 2]>([&secret::SECRETS, &secret::SEALS]);
    all.extend(image::tables());
    all
}

/// Tables of notes and caches: without a row less is known, or something is made again.
pub fn notes() -> Vec<&'static dyn AnyTable> {
    let mut all: Vec<&'static dyn AnyTable> =
        vec![ending::table(), &network::forwarding::FORWARDING, events::table(), image::collect::table()];
    all.extend(build::record::tables());
    all
}
