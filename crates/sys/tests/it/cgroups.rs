//! Cgroups: made in every hierarchy, entered, limited, frozen, killed, removed.

use std::os::fd::AsFd;
use std::time::Duration;

use sys::cgroup::{Cgroup, DeviceKind, DeviceRule, Layout, Resources, Version};
use sys::clone::{Flags, Side, clone3};
use sys::process::{Block, exit_now, wait};

use crate::Case;

pub const CASES: &[Case] = &[
    ("cgroups::life", life),
    ("cgroups::parents_inherit", parents_inherit),
    ("cgroups::neighbours_make_and_remove_a_parent", neighbours_make_and_remove_a_parent),
    ("cgroups::kill_with_forks", kill_with_forks),
    ("cgroups::only_members_are_signalled", only_members_are_signalled),
    ("cgroups::steps_do_not_sleep", steps_do_not_sleep),
    ("cgroups::device_program", device_program),
    ("cgroups::oom_watch", oom_watch),
    ("cgroups::unknown_is_empty", unknown_is_empty),
];

struct Own(Layout, Cgroup, String);

impl Own {
    fn new() -> Own {
        let layout = Layout::detect().unwrap();
        let parent = format!("/gantry-test-{}", std::process::id());
        let cgroup = layout.create(&format!("{parent}/c")).unwrap();
        Own(layout, cgroup, parent)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.1.remove().unwrap();
        self.0.at(&self.2).unwrap().remove().unwrap();
        assert!(!self.1.exists());
    }
}

/// A child in the cgroup that runs `body`.
fn child(cgroup: &Cgroup, body: impl FnOnce()) -> std::os::fd::OwnedFd {
    let birthplace = cgroup.birthplace().unwrap();
    match clone3(Flags::default(), birthplace.as_ref().map(AsFd::as_fd)).unwrap() {
        Side::Child => {
            cgroup.enter_v1().unwrap();
            body();
            exit_now(0)
        }
        Side::Parent { pidfd, .. } => pidfd,
    }
}

fn sleeper(cgroup: &Cgroup) -> std::os::fd::OwnedFd {
    let child = child(cgroup, || std::thread::sleep(Duration::from_secs(1000)));
    while cgroup.processes().unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

fn life() {
    let own = Own::new();
    let child = sleeper(&own.1);
    assert_eq!(own.1.processes().unwrap().len(), 1);
    own.1.freeze().unwrap();
    assert!(own.1.is_frozen());
    own.1.thaw().unwrap();
    assert!(!own.1.is_frozen());
    own.1.kill_all().unwrap();
    assert_eq!(wait(child.as_fd(), Block::Yes).unwrap(), Some(128 + 9));
    own.1.remove().unwrap();
    own.1.remove().unwrap();
}

fn parents_inherit() {
    let own = Own::new();
    let deeper = own.0.create(&format!("{}/a/b/c", own.2)).unwrap();
    let resources = Resources { pids: Some(10), ..Resources::default() };
    match deeper.apply(&resources) {
        Ok(()) => assert_eq!(deeper.stats().pids.limit, 10),
        Err(e) => assert!(e.to_string().contains("controller is not available"), "{e}"),
    }
    let child = sleeper(&deeper);
    own.0.at(&format!("{}/a", own.2)).unwrap().remove().unwrap();
    assert_eq!(wait(child.as_fd(), Block::Yes).unwrap(), Some(128 + 9));
}

/// Several processes make cgroups below a parent that is not there, enter them, and remove the parent whenever it is empty:
/// each must get one that takes a process, whoever has made what of it.
fn neighbours_make_and_remove_a_parent() {
    const WORKERS: usize = 6;
    const ROUNDS: usize = 300;
    let layout = Layout::detect().unwrap();
    let parent = format!("/gantry-test-{}", std::process::id());
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| match clone3(Flags::default(), None).unwrap() {
            Side::Child => exit_now((0..ROUNDS).find_map(|_| enters(&layout, &parent, worker).err()).unwrap_or(0)),
            Side::Parent { pidfd, .. } => pidfd,
        })
        .collect();
    let codes: Vec<_> = workers.iter().map(|worker| wait(worker.as_fd(), Block::Yes).unwrap()).collect();
    for path in [format!("{parent}/below"), parent] {
        layout.at(&path).unwrap().remove().unwrap();
    }
    assert_eq!(codes, [Some(0); WORKERS], "errno of the first failure in each");
}

/// One life of a cgroup; an error is an errno, or 1 where there is none.
fn enters(layout: &Layout, parent: &str, worker: usize) -> Result<(), i32> {
    let errno = |error: std::io::Error| {
        eprintln!("worker {worker}: {error}");
        error.raw_os_error().unwrap_or(1)
    };
    let cgroup = layout.create(&format!("{parent}/below/{worker}")).map_err(errno)?;
    let birthplace = cgroup.birthplace().map_err(errno)?;
    match clone3(Flags::default(), birthplace.as_ref().map(AsFd::as_fd)).map_err(errno)? {
        Side::Child => exit_now(cgroup.enter_v1().map_err(errno).err().unwrap_or(0)),
        Side::Parent { pidfd, .. } => match wait(pidfd.as_fd(), Block::Yes).map_err(errno)? {
            Some(0) => {}
            code => return Err(code.unwrap_or(1)),
        },
    }
    cgroup.remove().map_err(errno)?;
    for path in [format!("{parent}/below"), parent.to_owned()] {
        for view in layout.at(&path).map_err(errno)?.views() {
            // Not while a neighbour has something in it.
            drop(std::fs::remove_dir(view.path));
        }
    }
    Ok(())
}

fn kill_with_forks() {
    let own = Own::new();
    let bomb = child(&own.1, || {
        // Forks and dies for ever.
        loop {
            if matches!(clone3(Flags::default(), None), Ok(Side::Parent { .. })) {
                exit_now(0);
            }
        }
    });
    wait(bomb.as_fd(), Block::Yes).unwrap();
    own.1.kill_all().unwrap();
    assert!(own.1.processes().unwrap().is_empty());
}

/// A number that has gone to a process elsewhere since it was listed is passed over.
fn only_members_are_signalled() {
    let own = Own::new();
    let (inside, outside) = (sleeper(&own.1), child_outside());
    let number = |fd: &std::os::fd::OwnedFd| sys::process::number(fd.as_fd()).unwrap();
    let listed = [number(&inside), number(&outside), i32::MAX];
    assert_eq!(own.1.signal_listed(15, &listed).unwrap(), [number(&inside)]);
    assert_eq!(wait(inside.as_fd(), Block::Yes).unwrap(), Some(128 + 15));
    assert_eq!(wait(outside.as_fd(), Block::No).unwrap(), None);
    sys::process::signal(&outside, 9).unwrap();
    wait(outside.as_fd(), Block::Yes).unwrap();
    // Whoever is a member, by either way.
    for signal in [15, 9] {
        let members = [sleeper(&own.1), child(&own.1, || std::thread::sleep(Duration::from_secs(1000)))];
        while own.1.processes().unwrap().len() < members.len() {
            std::thread::sleep(Duration::from_millis(1));
        }
        own.1.signal_all(signal).unwrap();
        for member in members {
            assert_eq!(wait(member.as_fd(), Block::Yes).unwrap(), Some(128 + signal));
        }
    }
}

fn child_outside() -> std::os::fd::OwnedFd {
    match clone3(Flags::default(), None).unwrap() {
        Side::Child => {
            std::thread::sleep(Duration::from_secs(1000));
            exit_now(0)
        }
        Side::Parent { pidfd, .. } => pidfd,
    }
}

/// A caller with others to look after is never held up.
fn steps_do_not_sleep() {
    let own = Own::new();
    let members = [sleeper(&own.1), child(&own.1, || std::thread::sleep(Duration::from_secs(1000)))];
    let mut freeze = own.1.begin_freeze().unwrap();
    while !freeze.look().unwrap() {
        std::thread::sleep(freeze.pause());
    }
    assert!(own.1.is_frozen());
    let mut removal = own.1.begin_removal().unwrap().expect("there are processes in it");
    while !removal.look().unwrap() {
        std::thread::sleep(removal.pause());
    }
    assert!(!own.1.exists());
    for member in members {
        assert_eq!(wait(member.as_fd(), Block::Yes).unwrap(), Some(128 + 9));
    }
    assert!(own.1.begin_removal().unwrap().is_none());
}

fn device_program() {
    let own = Own::new();
    let rule = |allow, kind, major, minor| DeviceRule { allow, kind, major, minor, access: String::new() };
    let rules = [
        rule(false, DeviceKind::All, None, None),
        rule(true, DeviceKind::Char, Some(1), Some(3)),
        rule(true, DeviceKind::Char, Some(1), Some(9)),
        rule(true, DeviceKind::Char, Some(1), Some(5)),
        // v1 takes back only what was given in the same words.
        rule(false, DeviceKind::Char, Some(1), Some(5)),
    ];
    own.1.set_devices(&rules).unwrap();
    let child = child(&own.1, || {
        let open = |path| std::fs::File::open(path).is_ok();
        let seen = [open("/dev/null"), open("/dev/urandom"), open("/dev/zero"), open("/dev/tty0")];
        exit_now(seen.iter().fold(0, |bits, ok| bits << 1 | i32::from(*ok)));
    });
    assert_eq!(wait(child.as_fd(), Block::Yes).unwrap(), Some(0b1100));
}

fn oom_watch() {
    let own = Own::new();
    if own.1.version() == Version::V2 && !own.0.controllers().iter().any(|c| c == "memory") {
        return assert!(own.1.oom_watch().is_err());
    }
    let limit = Some(8 << 20);
    own.1.apply(&Resources { memory: limit, memory_swap: limit, ..Resources::default() }).unwrap();
    let watch = own.1.oom_watch().unwrap();
    let signalled = |seconds| {
        let mut poll = [rustix::event::PollFd::new(&watch.fd, watch.events())];
        let limit = rustix::time::Timespec { tv_sec: seconds, tv_nsec: 0 };
        rustix::event::poll(&mut poll, Some(&limit)).unwrap()
    };
    assert_eq!((own.1.oom_kills().unwrap(), signalled(0)), (0, 0));
    let child = child(&own.1, || {
        let hog = vec![1_u8; 64 << 20];
        assert_eq!(hog[12345], 1);
    });
    assert_eq!(wait(child.as_fd(), Block::Yes).unwrap(), Some(128 + 9));
    assert_eq!(signalled(60), 1);
    watch.rearm().unwrap();
    assert!(own.1.oom_kills().unwrap() >= 1);
}

fn unknown_is_empty() {
    let layout = Layout::detect().unwrap();
    let cgroup = layout.at("/gantry-test-no-such").unwrap();
    assert!(!cgroup.exists());
    assert!(cgroup.processes().unwrap().is_empty());
    cgroup.remove().unwrap();
}
