//! Measures unpacking: `unpack <data root> <layer.tar[.gz|.zst]>`. Compare with `tar x` of the same file.

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

fn main() {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (root, layer) = (args.next().expect("a directory"), args.next().expect("a layer"));
    let snapshots = snapshot::open(&root, "").expect("opening");
    let pins = store::Pins::default();
    let begun = Instant::now();
    let mut tar = snapshot::decompress(File::open(&layer).expect("the layer")).expect("decompressing");
    let info = snapshots.layers.apply_layer(None, &mut tar, &pins.lease()).expect("unpacking");
    println!("{} unpacked in {:?}, {} bytes on disk", info.diff_id, begun.elapsed(), info.size);
    let begun = Instant::now();
    snapshots.layers.sync().expect("syncing");
    println!("synced in {:?}", begun.elapsed());
    let begun = Instant::now();
    snapshots.roots.prepare("c", &[snapshot::LayerKey::from(&info.diff_id)]).expect("preparing");
    println!("prepared in {:?}", begun.elapsed());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
}
