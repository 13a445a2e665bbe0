//! The recorded exchanges, file by file.

use crate::{golden, with_busybox};

#[track_caller]
fn play(file: &str) {
    let d = with_busybox();
    golden::play(&d, file);
    d.finish();
}

#[test]
fn frame() {
    play(include_str!("golden/frame.txt"));
}

#[test]
fn containers() {
    play(include_str!("golden/containers.txt"));
}

#[test]
fn inspect() {
    play(include_str!("golden/inspect.txt"));
}

#[test]
fn exec() {
    play(include_str!("golden/exec.txt"));
}

#[test]
fn images() {
    play(include_str!("golden/images.txt"));
}

#[test]
fn networks_and_volumes() {
    play(include_str!("golden/networks.txt"));
}
