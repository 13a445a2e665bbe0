//! Capabilities, seccomp, no_new_privs, masks, sysctls, descriptors, rlimits.

use runtime::oci::Rlimit;
use runtime::seccomp::Program;

use crate::Case;
use crate::fixture::{Container, kill};

pub const CASES: &[Case] = &[
    ("security::capabilities", capabilities),
    ("security::ambient", ambient),
    ("security::everything", everything),
    ("security::no_new_privs", no_new_privs),
    ("security::seccomp", seccomp),
    ("security::seccomp_without_privileges", seccomp_without_privileges),
    ("security::masks", masks),
    ("security::sysctls", sysctls),
    ("security::no_descriptor_leaks", no_descriptor_leaks),
    ("security::limits_of_the_process", limits_of_the_process),
    ("security::keyring", keyring),
    ("security::oom_score", oom_score),
    ("security::dies_with_the_monitor", dies_with_the_monitor),
];

const STATUS: &str = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status";

fn capabilities() {
    let out = Container::sh(STATUS).output();
    let expected = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t0\n";
    assert_eq!(out, expected);
}

fn ambient() {
    let mut container = Container::sh(STATUS);
    let net = vec!["CAP_NET_BIND_SERVICE".to_owned()];
    let caps = container.process().capabilities.as_mut().unwrap();
    caps.inheritable = net.clone();
    caps.ambient = net;
    container.process().user.username = Some("1000".into());
    let out = container.output();
    assert!(out.contains("CapEff:\t0000000000000400\n") && out.contains("CapAmb:\t0000000000000400\n"), "{out}");
}

fn everything() {
    let mut container = Container::sh(STATUS);
    let all: Vec<String> = sys::capability::get().unwrap().permitted.names().map(str::to_owned).collect();
    let caps = container.process().capabilities.as_mut().unwrap();
    caps.bounding = all.clone();
    caps.effective = all.clone();
    caps.permitted = all;
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|l| l.starts_with("CapEff")).unwrap();
    assert!(container.output().contains(own));
}

fn no_new_privs() {
    let mut container = Container::sh(STATUS);
    container.process().no_new_privileges = true;
    assert!(container.output().contains("NoNewPrivs:\t1\n"));
}

/// Refuses `mkdirat` and `mkdir` with errno 77, allows the rest. x86-64 and aarch64 only differ in numbers.
fn refuse_mkdir() -> Program {
    let numbers: &[u32] = if cfg!(target_arch = "x86_64") { &[83, 258] } else { &[34] };
    let mut program: Vec<(u16, u8, u8, u32)> = vec![(0x20, 0, 0, 0)];
    for (at, number) in numbers.iter().enumerate() {
        program.push((0x15, (numbers.len() - at) as u8, 0, *number));
    }
    program.push((0x06, 0, 0, 0x7fff_0000));
    program.push((0x06, 0, 0, 0x0005_0000 | 77));
    let instructions = program.iter().flat_map(|(code, jt, jf, k)| {
        let mut insn = code.to_ne_bytes().to_vec();
        insn.extend([*jt, *jf]);
        insn.extend(k.to_ne_bytes());
        insn
    });
    Program { instructions: instructions.collect(), flags: 0 }
}

fn seccomp() {
    for no_new_privileges in [false, true] {
        let mut container = Container::sh(&format!("mkdir /x 2>&1; {STATUS}"));
        container.bundle.seccomp = refuse_mkdir();
        container.process().no_new_privileges = no_new_privileges;
        let out = container.output();
        assert!(out.contains("File descriptor in bad state") && out.contains("Seccomp:\t2\n"), "{out}");
        assert!(out.contains("CapEff:\t00000000a80425fb\n"), "the filter's privilege is gone again: {out}");
    }
}

fn seccomp_without_privileges() {
    let mut container = Container::sh(&format!("mkdir /tmp/x 2>&1; {STATUS}; echo up; exec sleep 1000"));
    container.bundle.seccomp = refuse_mkdir();
    container.process().user.username = Some("web".into());
    let (init, pipes) = container.start().unwrap();
    let mut out = String::new();
    while !out.contains("up\n") {
        out += &pipes.line();
    }
    assert!(out.contains("bad state") && out.contains("CapPrm:\t0000000000000000\n"), "{out}");
    let exec = container.exec_args(&init, &["sh", "-c", STATUS]).unwrap().stdout;
    assert!(exec.contains("Seccomp:\t2\n") && exec.contains("CapPrm:\t0000000000000000\n"), "{exec}");
    kill(&init);
}

fn masks() {
    let out = Container::sh(
        "cat /proc/timer_list /proc/keys | wc -c; ls -A /proc/acpi /sys/firmware | grep -v : | wc -w; \
         echo x 2>/dev/null > /proc/sys/kernel/domainname || echo refused; \
         touch /sys/firmware/x 2>/dev/null || echo refused",
    )
    .output();
    assert_eq!(out, "0\n0\nrefused\nrefused\n");
}

fn sysctls() {
    let mut container = Container::sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax");
    container.linux().sysctl.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
    container.linux().sysctl.insert("kernel.shmmax".into(), "4096".into());
    assert_eq!(container.output(), "0\n4096\n");
    let mut unknown = Container::new(&["true"]);
    unknown.linux().sysctl.insert("net.no.such".into(), "0".into());
    let error = unknown.refused();
    assert_eq!(error.to_string(), "open /proc/sys/net/no/such: no such file or directory");
}

fn no_descriptor_leaks() {
    // A descriptor of the monitor that lacks close-on-exec.
    let leak = std::fs::File::open("/").unwrap();
    let leak = rustix::io::dup(&leak).unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    assert_eq!(Container::sh("ls /proc/self/fd").output(), "0\n1\n2\n3\n");
}

fn limits_of_the_process() {
    let mut container = Container::sh("ulimit -n; ulimit -c; umask");
    container.process().rlimits = vec![
        Rlimit { kind: "RLIMIT_NOFILE".into(), hard: 2048, soft: 1024 },
        Rlimit { kind: "RLIMIT_CORE".into(), hard: 0, soft: 0 },
    ];
    assert_eq!(container.output(), "1024\n0\n0022\n");
    container.process().rlimits[0].kind = "RLIMIT_NO".into();
    assert!(container.refused().to_string().contains("invalid type RLIMIT_NO"));
}

fn keyring() {
    let mut container = Container::sh("cat /proc/keys");
    container.linux().masked_paths.clear();
    // The kernel cuts descriptions.
    let own = format!("_ses.{}", &container.bundle.id[..8]);
    let out = container.output();
    assert!(out.contains(&own), "{out}");
}

fn oom_score() {
    let mut container = Container::sh("cat /proc/self/oom_score_adj");
    container.process().oom_score_adj = Some(123);
    assert_eq!(container.output(), "123\n");
}

/// A monitor that is killed takes its container along.
fn dies_with_the_monitor() {
    use std::os::fd::AsFd;
    use sys::clone::{Flags, Side, clone3};
    let container = Container::sh("echo up; exec sleep 1000");
    let (report, listen) = sys::fdpass::pair().unwrap();
    let Side::Parent { pidfd, .. } = (match clone3(Flags::default(), None).unwrap() {
        Side::Child => {
            let (process, _pipes) = container.start().unwrap();
            sys::fdpass::send(&report, b"p", &[process.pidfd.as_fd()]).unwrap();
            std::thread::sleep(std::time::Duration::from_secs(1000));
            sys::process::exit_now(0)
        }
        parent => parent,
    }) else {
        unreachable!()
    };
    let (_, fds) = sys::fdpass::receive(&listen, &mut [0]).unwrap();
    sys::process::signal(&pidfd, 9).unwrap();
    let mut poll = [rustix::event::PollFd::new(&fds[0], rustix::event::PollFlags::IN)];
    let limit = rustix::time::Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut poll, Some(&limit)).unwrap(), 1, "the container must end");
    sys::process::wait(pidfd.as_fd(), sys::process::Block::Yes).unwrap();
}
