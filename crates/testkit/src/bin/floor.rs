//! `gantry-floor`: what the bare kernel takes to run one program in a container, the yardstick of the bench.
//!
//! One cycle: clone3 with six new namespaces (mount, network, uts, pid, ipc, cgroup), an overlay mount, pivot, exec of the
//! static test program, wait. Directories are made before the clock starts. One line per cycle: microseconds.
//!
//! The same for a further program in a container that runs: a process that joins its control groups and all its namespaces, and in
//! there another (two clones: who joins a PID namespace is not in it itself), which executes the program. The last line is the
//! processor time of all cycles in microseconds.
//!
//! usage: `gantry-floor CYCLES DIR PROGRAM`, as root; DIR must lie on a file system that can carry an overlay.
//!        `gantry-floor exec CYCLES PID PROGRAM`; PID is the container's first process, PROGRAM a path in there.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, PidfdFlags, chdir, pidfd_open, pivot_root};
use rustix::time::{ClockId, clock_gettime};
use sys::cgroup::{Cgroup, Layout};
use sys::clone::{Flags, Side, clone3};
use sys::mount::{Propagation, Reach, set_root_propagation};
use sys::ns;
use sys::process::{Block, Image, exit_now, wait};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let cycles = |text: &String| text.parse().unwrap_or(100);
    let measured = match words.as_slice() {
        [exec, rounds, pid, program] if exec == "exec" => measure_execs(cycles(rounds), pid, program),
        [rounds, dir, program] => measure(cycles(rounds), Path::new(dir), Path::new(program)),
        _ => {
            eprintln!("usage: gantry-floor CYCLES DIR PROGRAM\n       gantry-floor exec CYCLES PID PROGRAM");
            return ExitCode::from(64);
        }
    };
    match measured {
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

fn measure_execs(cycles: usize, pid: &str, program: &str) -> io::Result<Vec<Duration>> {
    let number: i32 = pid.parse().map_err(io::Error::other)?;
    let number = Pid::from_raw(number).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = pidfd_open(number, PidfdFlags::empty())?;
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    // The longest is the container's own; controllers that nobody uses are at the top.
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let cgroup = Layout::detect()?.at(paths.max_by_key(|path| path.len()).unwrap_or("/"))?;
    let program = std::ffi::CString::new(program).map_err(io::Error::other)?;
    let before = clock_gettime(ClockId::ProcessCPUTime);
    let (used, children) = (seconds(before), children_used());
    let mut times = Vec::new();
    for _ in 0..cycles {
        times.push(exec_cycle(pidfd.as_fd(), &cgroup, &program)?);
    }
    let all = seconds(clock_gettime(ClockId::ProcessCPUTime)) - used + children_used() - children;
    times.push(Duration::from_secs_f64(all));
    Ok(times)
}

fn seconds(time: rustix::time::Timespec) -> f64 {
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Processor time of the children that were waited for, in seconds (proc_pid_stat(5)).
fn children_used() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn exec_cycle(container: BorrowedFd<'_>, cgroup: &Cgroup, program: &std::ffi::CStr) -> io::Result<Duration> {
    let image = Image::new(&["/probe", "true"], &["PATH=/", "HOSTNAME=floor"])?;
    let place = cgroup.birthplace()?;
    let begin = Instant::now();
    match clone3(Flags::default(), None)? {
        Side::Child => {
            let error = enter(container, cgroup, place.as_ref().map(|place| place.as_fd()), || image.execute(program));
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
fn enter(
    container: BorrowedFd<'_>,
    cgroup: &Cgroup,
    place: Option<BorrowedFd<'_>>,
    execute: impl FnOnce() -> io::Error,
) -> io::Error {
    let namespaces = Flags::NEWNS | Flags::NEWNET | Flags::NEWUTS | Flags::NEWPID | Flags::NEWIPC | Flags::NEWCGROUP;
    let made =
        cgroup.enter_v1().and_then(|()| ns::join(container, namespaces)).and_then(|()| clone3(Flags::default(), place));
    match made {
        Err(error) => error,
        Ok(Side::Child) => execute(),
        Ok(Side::Parent { pidfd, .. }) => match wait(pidfd.as_fd(), Block::Yes) {
            Ok(status) => exit_now(status.unwrap_or(70)),
            Err(error) => error,
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
