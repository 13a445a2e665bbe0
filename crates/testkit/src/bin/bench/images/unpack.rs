//! Unpacking alone, hashing included, against `tar x` of the same decompressed layers on the same disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use model::digest::Digest;
use testkit::places;

use super::make::Store;
use crate::figures::{Figures, Samples};

/// Layers that are unpacked.
const LAYERS: usize = 3;

/// Bytes per second of both, and their ratio.
pub fn against_tar(rounds: usize, store: &Store, figures: &mut Figures) {
    let dir = tempfile::Builder::new().prefix("gt-unpack").tempdir_in("/tmp").expect("a directory in /tmp");
    let layers: Vec<PathBuf> =
        store.images[0].layers.iter().take(LAYERS).map(|hex| plain(store, hex, dir.path())).collect();
    let bytes: u64 = layers.iter().map(|file| fs::metadata(file).expect("just written").len()).sum();
    let (mut tar, mut own) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let place = |name: &str| {
            let place = dir.path().join(format!("{name}{round}"));
            fs::create_dir(&place).expect("a fresh directory can be filled");
            rustix::fs::sync();
            place
        };
        let (to, begun) = (place("tar"), Instant::now());
        layers.iter().for_each(|layer| with_tar(layer, &to));
        tar.push(begun.elapsed().as_secs_f64());
        let to = place("own");
        let snapshots = snapshot::open(&to, "copy").expect("a directory for layers");
        let (pins, begun) = (store::Pins::default(), Instant::now());
        for layer in &layers {
            let mut file = File::open(layer).expect("just written");
            let wanted: Option<&Digest> = None;
            snapshots.layers.apply_layer(wanted, &mut file, &pins.lease()).expect("the layer is whole");
        }
        own.push(begun.elapsed().as_secs_f64());
    }
    let rate = |seconds: Vec<f64>| bytes as f64 / 1e6 / Samples::new(seconds).percentile(50.0);
    let (tar, own) = (rate(tar), rate(own));
    figures.at_most("tar x", tar, "MB/s", None);
    figures.at_most("unpacking", own, "MB/s", None);
    figures.at_least("unpacking / tar x", own / tar, Some(0.7));
}

fn plain(store: &Store, hex: &str, dir: &Path) -> PathBuf {
    let path = dir.join(hex);
    let mut layer = flate2::read::GzDecoder::new(File::open(store.blob(hex)).expect("the layer is there"));
    let mut out = File::create(&path).expect("a fresh directory can be filled");
    std::io::copy(&mut layer, &mut out).expect("there is room for the layer");
    path
}

fn with_tar(layer: &Path, to: &Path) {
    let status =
        Command::new(places::find("tar")).arg("-xf").arg(layer).arg("-C").arg(to).status().expect("tar starts");
    assert!(status.success(), "tar failed");
}
