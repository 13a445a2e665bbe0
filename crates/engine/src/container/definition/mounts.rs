//! Entries of `Mounts` in the terms of the rules about them.

use model::{Result, mount};
use runtime::spec::TmpfsOptions;

/// The part of a `Mounts` entry that the rules check.
pub(in crate::container) fn spec_of(entry: &api::Mount) -> mount::MountSpec {
    let volume =
        entry.volume_options.as_ref().map(|v| mount::VolumeOptions { no_copy: v.no_copy, subpath: v.subpath.clone() });
    let bind = entry
        .bind_options
        .as_ref()
        .map(|b| mount::BindOptions { propagation: b.propagation.clone(), create_mountpoint: b.create_mountpoint });
    mount::MountSpec {
        kind: mount::MountKind::parse(&entry.kind),
        source: entry.source.clone(),
        target: entry.target.clone(),
        read_only: entry.read_only,
        bind,
        volume,
        tmpfs: tmpfs_of(entry),
        image_subpath: entry.image_options.as_ref().map(|i| i.subpath.clone()),
        has_cluster_options: entry.cluster_options.is_some(),
    }
}

/// The options of the tmpfs of a `Mounts` entry.
///
/// Errors: those of [`mount::tmpfs_options`] and [`TmpfsOptions::parse`].
pub(in crate::container) fn tmpfs_options(entry: Option<&api::Mount>) -> Result<TmpfsOptions> {
    let text =
        entry.map(|entry| mount::tmpfs_options(&tmpfs_of(entry).unwrap_or_default(), entry.read_only)).transpose()?;
    TmpfsOptions::parse(&text.unwrap_or_default())
}

/// The entry's tmpfs options in the rules' shape.
fn tmpfs_of(entry: &api::Mount) -> Option<mount::TmpfsOptions> {
    let options = entry.tmpfs_options.as_ref()?;
    Some(mount::TmpfsOptions { size: options.size_bytes, mode: options.mode, options: options.options.clone() })
}
