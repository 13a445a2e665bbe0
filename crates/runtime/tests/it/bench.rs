//! How much time a start costs, beside the bare kernel's price of the same thing.

use std::os::fd::AsFd;
use std::time::Instant;

use runtime::{Rootfs, Runtime};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use sys::clone::{Flags, Side, clone3};
use sys::process::{Block, Image, exit_now};

use crate::Case;
use crate::fixture::{Container, wait};

pub const CASES: &[Case] = &[("bench::starts", starts)];

const ROUNDS: usize = 100;

fn starts() {
    let container = Container::new(&["true"]);
    let mut times: [Vec<u128>; 6] = Default::default();
    for _ in 0..ROUNDS {
        let all = Instant::now();
        floor(&container);
        times[0].push(all.elapsed().as_micros());
        let all = Instant::now();
        let begin = Instant::now();
        let (process, _pipes) = container.start().expect("start");
        times[1].push(begin.elapsed().as_micros());
        let begin = Instant::now();
        wait(&process);
        times[2].push(begin.elapsed().as_micros());
        let begin = Instant::now();
        container.runtime.cleanup(&container.bundle).expect("cleanup");
        times[3].push(begin.elapsed().as_micros());
        times[4].push(all.elapsed().as_micros());
    }
    for (name, list) in ["floor", "start", "wait", "cleanup", "all"].iter().zip(&mut times) {
        list.sort_unstable();
        println!("{name}: p50 {} us, min {} us, max {} us", list[ROUNDS / 2], list[0], list[ROUNDS - 1]);
    }
}

/// One clone3 with six namespaces, an overlay, pivot, execve, wait.
fn floor(container: &Container) {
    let Rootfs::Overlay { lower, upper, work } = &container.bundle.rootfs else { unreachable!() };
    let options = format!("lowerdir={},upperdir={},workdir={}", lower[0].display(), upper.display(), work.display());
    let options = std::ffi::CString::new(options).unwrap();
    let image = Image::new(&["true"], &[]).unwrap();
    let flags = Flags::NEWNS | Flags::NEWPID | Flags::NEWNET | Flags::NEWIPC | Flags::NEWUTS | Flags::NEWCGROUP;
    match clone3(flags, None).unwrap() {
        Side::Child => {
            mount("overlay", upper, "overlay", MountFlags::empty(), options.as_c_str()).unwrap();
            rustix::process::chdir(upper).unwrap();
            rustix::process::pivot_root(".", ".").unwrap();
            unmount(".", UnmountFlags::DETACH).unwrap();
            image.execute(c"/bin/true");
            exit_now(1)
        }
        Side::Parent { pidfd, .. } => {
            assert_eq!(sys::process::wait(pidfd.as_fd(), Block::Yes).unwrap(), Some(0));
        }
    }
}
