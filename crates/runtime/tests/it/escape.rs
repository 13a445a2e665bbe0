//! Regressions of known container escapes. Each case plays the malicious image or container.

use std::fs;
use std::os::unix::fs::symlink;

use runtime::{Stage, oci};

use crate::Case;
use crate::fixture::{Container, kill};

pub const CASES: &[Case] = &[
    ("escape::cve_2019_5736_program_of_the_monitor", cve_2019_5736),
    ("escape::cve_2024_21626_working_directory", cve_2024_21626),
    ("escape::cve_2025_31133_null_device", cve_2025_31133),
    ("escape::cve_2025_52565_console", cve_2025_52565),
    ("escape::cve_2025_52881_writes_to_proc", cve_2025_52881),
    ("escape::links_in_the_image", links_in_the_image),
    ("escape::links_in_a_volume", links_in_a_volume),
    ("escape::mounts_inside_proc", mounts_inside_proc),
    ("escape::proc_is_a_link", proc_is_a_link),
    ("escape::databases_that_block", databases_that_block),
    ("escape::exec_with_a_hostile_null_device", exec_with_a_hostile_null_device),
];

/// The program that enters a container lies on a read-only mount of its own. The attack: a link makes the entering
/// process execute itself inside the container, where it can be opened; when it has ended it is written to.
fn cve_2019_5736() {
    use std::os::fd::AsRawFd;
    const INNER: &str = "GANTRY_TEST_SEALED";
    if std::env::var_os(INNER).is_none() {
        let sealed = sys::exe::sealed().unwrap();
        let flags = rustix::fs::fstatvfs(&sealed).unwrap().f_flag;
        assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
        let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
        let status = std::process::Command::new(path)
            .args([cases::CASE, "escape::cve_2019_5736_program_of_the_monitor"])
            .env(INNER, "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let attack = "echo up; while :; do for p in /proc/[0-9]*; do e=$(readlink $p/exe); \
         if test -n \"$e\" && test \"$e\" != /bin/busybox; then exec 9<$p/exe; touch /tmp/opened; while test -d $p; do sleep 0.02; done; \
         (echo x >> /proc/self/fd/9) 2>&1; exit 3; fi; done; done";
    let container = Container::sh(attack);
    let (init, pipes) = super::execs::running(&container);
    let outcome = container.exec_args(&init, &["/proc/self/exe", crate::IDLE]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let outcome = pipes.finish(&init);
    assert_eq!(outcome.code, 3);
    // As long as any process runs the program, this hides that its mount is read-only.
    assert!(outcome.stdout.contains("Text file busy"), "{outcome:?}");
}

/// A working directory that leads through a descriptor of the host.
fn cve_2024_21626() {
    let host = fs::File::open("/").unwrap();
    let fd = rustix::io::dup(&host).unwrap();
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
    for n in 3..24 {
        let mut container = Container::sh("pwd; ls -d /work /lost+found 2>/dev/null; cat /etc/passwd | head -1");
        container.process().cwd = format!("/proc/self/fd/{n}");
        match container.start() {
            Err(_) => {}
            Ok((process, pipes)) => {
                let out = pipes.finish(&process).stdout;
                panic!("started in descriptor {n}: {out}");
            }
        }
    }
    // The program itself is named through a descriptor; close-on-exec takes effect after it has been found.
    for n in 3..100 {
        for up in ["", "../../../../../.."] {
            let mut container = Container::new(&["x"]);
            container.process().args = vec![format!("/proc/self/fd/{n}/{up}/bin/busybox"), "true".into()];
            let error = container.refused();
            assert!(matches!(error.stage, Stage::Exec { .. }), "{n}: {error:?}");
        }
    }
    let container = Container::sh(super::execs::IDLE);
    let (init, _pipes) = super::execs::running(&container);
    for n in 3..24 {
        let program = format!("/proc/self/fd/{n}/../../../../../bin/busybox");
        assert!(container.exec_args(&init, &[&program, "true"]).is_err(), "{n}");
        let process = oci::Process {
            args: vec!["pwd".into()],
            cwd: format!("/proc/self/fd/{n}"),
            ..container.bundle.spec.process.clone()
        };
        if let Ok(outcome) = container.exec(&init, &process) {
            assert!(outcome.stdout.starts_with("/proc/self/fd") || outcome.stdout == "/\n", "{n}: {outcome:?}");
        }
    }
    kill(&init);
}

/// `/dev/null` of the image is a link to a file of procfs that the mask would then bind writable.
fn cve_2025_31133() {
    let mut container = Container::sh("cat /proc/keys | wc -c");
    fs::create_dir_all(container.lower().join("dev")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", container.lower().join("dev/null")).unwrap();
    assert_eq!(container.output(), "0\n", "the tmpfs at /dev is ours");
    // Without one, the image's node counts, and it must be a null device.
    container = Container::sh("true");
    symlink("/proc/sys/kernel/core_pattern", container.lower().join("dev/null")).unwrap();
    container.bundle.spec.mounts.retain(|m| !m.destination.starts_with("/dev"));
    assert!(matches!(container.refused().stage, Stage::Protect { .. }));
    fs::remove_file(container.lower().join("dev/null")).unwrap();
    fs::write(container.lower().join("dev/null"), "").unwrap();
    assert!(matches!(container.refused().stage, Stage::Protect { .. }));
}

/// `/dev/console` of the image is a link into procfs.
fn cve_2025_52565() {
    let mut container = Container::sh("true");
    symlink("/proc/sys/kernel/core_pattern", container.lower().join("dev/console")).unwrap();
    container.process().terminal = true;
    let (process, _pipes) = container.start().unwrap();
    super::fixture::wait(&process);
    // Without a tmpfs at /dev the link is refused.
    let mut container = Container::sh("true");
    fs::create_dir_all(container.lower().join("dev/pts")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", container.lower().join("dev/console")).unwrap();
    container.bundle.spec.mounts.retain(|m| m.destination != "/dev");
    container.linux().masked_paths.clear();
    container.process().terminal = true;
    assert_eq!(container.refused().stage, Stage::Console);
}

/// A write to `/proc/sys/…` or `/proc/self/…` is redirected by mounting something else there.
fn cve_2025_52881() {
    let mut container = Container::sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    let fake = container.dir.path().join("fake");
    fs::write(&fake, "untouched").unwrap();
    container.linux().sysctl.insert("net.ipv4.ip_unprivileged_port_start".into(), "7".into());
    let target = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    container.mount("bind", fake.to_str().unwrap(), target, &["bind"]);
    let error = container.refused();
    assert!(matches!(error.stage, Stage::Mount { .. }), "{error:?}");
    // The few files that may be covered are no sysctls of a container.
    let mut container = Container::sh("true");
    container.mount("bind", fake.to_str().unwrap(), "/proc/sys/kernel/ns_last_pid", &["bind"]);
    container.linux().sysctl.insert("kernel.ns_last_pid".into(), "7".into());
    assert_eq!(container.refused().stage, Stage::Validation);
    assert_eq!(fs::read_to_string(&fake).unwrap(), "untouched");
    // The oom score is written through the host's /proc before anything of the image is there.
    let mut container = Container::sh("cat /proc/self/oom_score_adj");
    container.process().oom_score_adj = Some(55);
    assert_eq!(container.output(), "55\n");
}

/// Mount points that are links out of the root.
fn links_in_the_image() {
    let outside = tempfile::tempdir().unwrap();
    let mut container = Container::sh("cat /escape/f; ls /made");
    let up = "../".repeat(20);
    symlink(format!("{up}{}", outside.path().display()), container.lower().join("escape")).unwrap();
    symlink("/made/here", container.lower().join("dangling")).unwrap();
    let source = container.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("f"), "inside\n").unwrap();
    container.mount("bind", source.to_str().unwrap(), "/escape", &["rbind", "rprivate"]);
    container.mount("bind", source.to_str().unwrap(), "/dangling/sub", &["rbind", "rprivate"]);
    assert_eq!(container.output(), "inside\nhere\n");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// A part of a volume is mounted in which another container has put links.
fn links_in_a_volume() {
    let volume = tempfile::tempdir().unwrap();
    fs::create_dir(volume.path().join("real")).unwrap();
    fs::write(volume.path().join("real/f"), "inside\n").unwrap();
    symlink("real", volume.path().join("beside")).unwrap();
    symlink("/etc", volume.path().join("absolute")).unwrap();
    symlink("../".repeat(20) + "etc", volume.path().join("up")).unwrap();
    let with = |subpath: &str| {
        let mut container = Container::sh("cat /part/f");
        container.mount("bind", volume.path().to_str().unwrap(), "/part", &["rbind"]);
        container.bundle.spec.mounts.last_mut().unwrap().subpath = subpath.into();
        container
    };
    assert_eq!(with("beside").output(), "inside\n");
    for subpath in ["absolute", "up", "real/../.."] {
        let error = with(subpath).refused();
        assert!(matches!(error.stage, Stage::Mount { .. }), "{subpath}: {error:?}");
    }
}

fn mounts_inside_proc() {
    for target in ["/proc/self/attr", "/proc/1/fd", "/link"] {
        let mut container = Container::new(&["true"]);
        symlink("/proc/sys", container.lower().join("link")).unwrap();
        container.mount("tmpfs", "tmpfs", target, &[]);
        let error = container.refused();
        assert!(matches!(error.stage, Stage::Mount { .. }), "{target}: {error:?}");
    }
    let mut container = Container::sh("cat /proc/uptime");
    let fake = container.dir.path().join("uptime");
    fs::write(&fake, "fake\n").unwrap();
    container.mount("bind", fake.to_str().unwrap(), "/proc/uptime", &["bind"]);
    assert_eq!(container.output(), "fake\n");
}

fn proc_is_a_link() {
    let container = Container::new(&["true"]);
    fs::remove_dir(container.lower().join("proc")).unwrap();
    symlink("/srv", container.lower().join("proc")).unwrap();
    let error = container.refused();
    assert!(error.to_string().contains("must be mounted on ordinary directory"), "{error}");
}

/// A user database that is a FIFO must not hang the start.
fn databases_that_block() {
    let container = Container::sh("echo started");
    let passwd = container.lower().join("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, &passwd, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_eq!(container.output(), "started\n");
}

fn exec_with_a_hostile_null_device() {
    use runtime::Stdio;
    let container = Container::sh("umount /dev/shm; rm /dev/null; mkfifo /dev/null; echo up; exec sleep 1000");
    symlink("busybox", container.lower().join("bin/mkfifo")).unwrap();
    symlink("busybox", container.lower().join("bin/rm")).unwrap();
    let (init, _pipes) = super::execs::running(&container);
    let process = oci::Process { args: vec!["true".into()], ..container.bundle.spec.process.clone() };
    let error = container.enter(&init, &process, Stdio::default()).unwrap_err();
    assert!(error.to_string().contains("/dev/null is not the null device"), "{error}");
    kill(&init);
}
