//! Both snapshotters on the real kernel. Needs root: ownership, devices, overlay (mounted detached, attached nowhere).
#![allow(clippy::unwrap_used)]

mod conformance;
mod layer;
mod packing;
mod survey;

use conformance::*;
use packing::*;
use survey::*;

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};
use snapshot::{Copy, Overlay, Rootfs, Roots, Snapshots};

/// A root file system put together: alive as long as this is.
pub struct Mounted {
    path: PathBuf,
    _mount: Option<OwnedFd>,
}

impl Mounted {
    /// Mounts what a snapshotter answered.
    pub fn new(rootfs: &Rootfs) -> Mounted {
        match rootfs {
            Rootfs::Dir(path) => Mounted { path: path.clone(), _mount: None },
            Rootfs::Overlay { lower, upper, work } => {
                let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
                for dir in lower {
                    fsconfig_set_string(&context, "lowerdir+", dir.as_path()).unwrap();
                }
                fsconfig_set_string(&context, "upperdir", upper.as_path()).unwrap();
                fsconfig_set_string(&context, "workdir", work.as_path()).unwrap();
                fsconfig_create(&context).unwrap();
                let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
                let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
                Mounted { path, _mount: Some(mount) }
            }
        }
    }

    /// A path in it.
    pub fn at(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }
}

/// A snapshotter on a data root of its own.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub make: fn(Roots) -> Snapshots,
    pub snapshots: Snapshots,
    pub pins: store::Pins,
}

impl Place {
    fn new(make: fn(Roots) -> Snapshots) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = make(roots(&dir));
        Place { dir, make, snapshots, pins: store::Pins::default() }
    }

    /// As after a restart of the daemon.
    pub fn reopen(&mut self) {
        self.snapshots = (self.make)(roots(&self.dir));
    }
}

fn roots(dir: &tempfile::TempDir) -> Roots {
    Roots { layers: dir.path().join("snapshots"), containers: dir.path().join("containers") }
}

fn overlay() -> Place {
    Place::new(|roots| Overlay::open(roots).unwrap())
}

fn copy() -> Place {
    Place::new(|roots| Copy::open(roots).unwrap())
}

macro_rules! both {
    ($($name:ident),* $(,)?) => {
        mod overlay_driver { $(#[test] fn $name() { crate::$name(crate::overlay()); })* }
        mod copy_driver { $(#[test] fn $name() { crate::$name(crate::copy()); })* }
    };
}

both!(
    layers_are_merged_top_over_bottom,
    a_directory_is_copied_out,
    a_deep_directory_is_copied_out,
    attributes_survive,
    directories_without_an_entry_keep_what_is_below,
    containers_do_not_see_each_other,
    a_bad_layer_leaves_nothing,
    one_layer_applied_by_many_is_one_layer,
    a_sweep_takes_what_nothing_names,
    a_root_becomes_a_layer_before_its_diff_id_is_known,
    changes_are_told,
    a_restart_keeps_layers_and_containers,
    what_holds_nothing_yet_is_made_again,
    an_image_may_have_many_layers_or_none,
    a_layer_that_is_named_twice_counts_where_it_is_topmost,
    a_container_over_equal_layers_is_packed_and_exported,
    missing_things_are_named,
    a_layer_is_like_its_archive,
    each_change_of_a_layer_is_seen_and_put_right,
    what_lies_beside_the_layers_is_named,
    empty_places_of_mounts_are_no_changes,
    a_file_whose_time_was_set_back_is_packed,
    a_packed_layer_gives_the_same_tree,
    names_of_one_file_stay_one_file,
    an_export_is_the_whole_tree,
    a_tree_in_flux_is_read_to_its_end,
    a_removed_container_is_no_whole_export,
    depth_has_no_price,
    a_layers_depth_has_no_price,
    capabilities_are_kept,
);

#[test]
fn places_of_mounts_lie_below_the_image() {
    conformance::places_of_mounts_lie_below_the_image(overlay());
}

#[test]
fn the_longest_chain_has_no_room_for_places() {
    conformance::the_longest_chain_has_no_room_for_places(overlay());
}

#[test]
fn writable_layers_made_ahead_are_like_others() {
    conformance::writable_layers_made_ahead_are_like_others(overlay());
}

/// Overlay in overlay cannot have a writable directory: the probe says so and the copy is chosen.
#[test]
fn the_driver_is_chosen_by_trying() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(snapshot::open(dir.path(), "").unwrap().roots.name(), "overlayfs");
    assert_eq!(snapshot::open(dir.path(), "vfs").unwrap().roots.name(), "native");
    let Err(error) = snapshot::open(dir.path(), "aufs") else { panic!("opened aufs") };
    assert_eq!(error.message(), "unknown storage driver: aufs");
    assert!(!dir.path().join("snapshots/probe").exists());
    let place = overlay();
    place.snapshots.roots.prepare("outer", &[]).unwrap();
    let outer = Mounted::new(&place.snapshots.roots.rootfs("outer", &[]).unwrap());
    std::fs::create_dir(outer.at("root")).unwrap();
    assert_eq!(snapshot::open(&outer.at("root"), "").unwrap().roots.name(), "native");
    assert!(snapshot::open(&outer.at("root"), "overlay2").is_err());
    drop(File::open(outer.at("root")).unwrap());
}
