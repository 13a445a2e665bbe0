//! `gantry-floor`: what the bare kernel takes to run one program in a container, the yardstick of the bench.
//!
//! One cycle: clone3 with six new namespaces (mount, network, uts, pid, ipc, cgroup), an overlay mount, pivot, exec of the
//! static test program, wait. Directories are made before the clock starts. One line per cycle: microseconds.
//!
//! usage: `gantry-floor CYCLES DIR PROGRAM`, as root; DIR must lie on a file system that can carry an overlay.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{chdir, pivot_root};
use sys::clone::{Flags, Side, clone3};
use sys::mount::{Propagation, Reach, set_root_propagation};
use sys::process::{Block, Image, exit_now, wait};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [cycles, dir, program] = words.as_slice() else {
        eprintln!("usage: gantry-floor CYCLES DIR PROGRAM");
        return ExitCode::from(64);
    };
    match measure(cycles.parse().unwrap_or(100), Path::new(dir), Path::new(program)) {
        Ok(times) => {
            times.iter().for_each(|time| println!("{}", time.as_micros()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("gantry-floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(cycles: usize, dir: &Path, program: &Path) -> io::Result<Vec<Duration>> {
    let lower = dir.join("lower");
    fs::create_dir_all(&lower)?;
    fs::copy(program, lower.join("probe"))?;
    let layers: Vec<PathBuf> = (0..cycles).map(|n| dir.join(format!("rw{n}"))).collect();
    for layer in &layers {
        for sub in ["upper", "work", "root"] {
            fs::create_dir_all(layer.join(sub))?;
        }
    }
    layers.iter().map(|layer| cycle(&lower, layer)).collect()
}

fn cycle(lower: &Path, layer: &Path) -> io::Result<Duration> {
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        layer.join("upper").display(),
        layer.join("work").display()
    );
    let root = layer.join("root");
    let image = Image::new(&["/probe", "true"], &["PATH=/", "HOSTNAME=floor"])?;
    let namespaces = Flags::NEWNS | Flags::NEWNET | Flags::NEWUTS | Flags::NEWPID | Flags::NEWIPC | Flags::NEWCGROUP;
    let begin = Instant::now();
    match clone3(namespaces, None)? {
        Side::Child => {
            let error = child(&root, &options, &image);
            eprintln!("gantry-floor: {error}");
            exit_now(70)
        }
        Side::Parent { pidfd, .. } => match wait(pidfd.as_fd(), Block::Yes)? {
            Some(0) => Ok(begin.elapsed()),
            status => Err(io::Error::other(format!("the program ended with {status:?}"))),
        },
    }
}

/// Comes back only with an error.
fn child(root: &Path, options: &str, image: &Image) -> io::Error {
    let options = std::ffi::CString::new(options).expect("paths hold no zero byte");
    let prepared = set_root_propagation(Reach::Tree, Propagation::Private)
        .and_then(|()| Ok(mount("overlay", root, "overlay", MountFlags::empty(), options.as_c_str())?))
        .and_then(|()| Ok(chdir(root)?))
        .and_then(|()| Ok(pivot_root(".", ".")?))
        .and_then(|()| Ok(unmount(".", UnmountFlags::DETACH)?))
        .and_then(|()| Ok(chdir("/")?));
    match prepared {
        Ok(()) => image.execute(c"/probe"),
        Err(error) => error,
    }
}
