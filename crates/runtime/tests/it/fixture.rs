//! A root file system of static busybox, a specification like `docker run`'s, and running it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime::builtin::Builtin;
use runtime::oci::{self, NamespaceKind};
use runtime::{Bundle, Process, Rootfs, Runtime, StartError, Stdio, pending};
use rustix::pipe::{PipeFlags, pipe_with};
use sys::clone::Flags;
use sys::process::Block;

const APPLETS: [&str; 30] = [
    "sh", "cat", "echo", "true", "false", "ls", "id", "sleep", "mount", "umount", "grep", "stat", "touch", "mknod",
    "dd", "hostname", "env", "pwd", "readlink", "ps", "kill", "test", "chmod", "mkdir", "tty", "stty", "seq", "ln",
    "wc", "find",
];

/// The default capabilities of a container.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// The case's own mount and network namespace.
pub fn private_namespaces() {
    sys::ns::unshare(Flags::NEWNS | Flags::NEWNET).expect("unshare");
    sys::mount::set_root_propagation(sys::mount::Reach::Tree, sys::mount::Propagation::Private).expect("private");
    sys::ns::loopback_up().expect("lo");
}

/// A container to be.
pub struct Container {
    pub dir: tempfile::TempDir,
    pub bundle: Bundle,
    pub runtime: Builtin,
}

/// What a finished container left.
#[derive(Debug)]
pub struct Outcome {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
}

impl Container {
    pub fn new(args: &[&str]) -> Container {
        let dir = tempfile::tempdir().expect("temporary directory");
        let [lower, upper, work] = ["lower", "upper", "work"].map(|n| dir.path().join(n));
        for d in [&upper, &work] {
            std::fs::create_dir(d).expect("mkdir");
        }
        image(&lower);
        let id = format!("{:064x}", std::process::id());
        let bundle = Bundle {
            spec: spec(args, &format!("/gantry-test-{}/{id}", std::process::id())),
            id,
            rootfs: Rootfs::Overlay { lower: vec![lower], upper, work },
            seccomp: Default::default(),
            state_dir: dir.path().to_owned(),
        };
        Container { dir, bundle, runtime: Builtin::default() }
    }

    pub fn sh(script: &str) -> Container {
        Container::new(&["sh", "-c", script])
    }

    pub fn process(&mut self) -> &mut oci::Process {
        &mut self.bundle.spec.process
    }

    pub fn linux(&mut self) -> &mut oci::Linux {
        &mut self.bundle.spec.linux
    }

    /// The lowest layer of the image.
    pub fn lower(&self) -> PathBuf {
        self.dir.path().join("lower")
    }

    pub fn drop_namespace(&mut self, kind: NamespaceKind) {
        self.linux().namespaces.retain(|n| n.kind != kind);
    }

    pub fn mount(&mut self, kind: &str, source: &str, target: &str, options: &[&str]) {
        self.bundle.spec.mounts.push(mount(kind, source, target, options));
    }

    /// Starts it with pipes; the read ends of stdout and stderr come back.
    pub fn start(&self) -> Result<(Process, Pipes), StartError> {
        let (io, pipes) = Pipes::new();
        self.launch(io).map(|p| (p, pipes))
    }

    /// Starts, reads all output, waits, cleans up.
    pub fn run(&self) -> Outcome {
        let (process, pipes) = self.start().expect("start");
        let outcome = pipes.finish(&process);
        self.runtime.cleanup(&self.bundle).expect("cleanup");
        outcome
    }

    /// Standard output of a run that must succeed.
    pub fn output(&self) -> String {
        let outcome = self.run();
        assert_eq!(outcome.code, 0, "{outcome:?}");
        outcome.stdout
    }

    pub fn refused(&self) -> StartError {
        let error = self.start().expect_err("the start must fail");
        let cgroup = runtime::builtin::cgroup(&self.bundle).expect("cgroup");
        assert!(!cgroup.exists(), "a failed start leaves no cgroup");
        error
    }

    pub fn exec(&self, init: &Process, process: &oci::Process) -> Result<Outcome, StartError> {
        let (io, pipes) = Pipes::new();
        let p = self.enter(init, process, io)?;
        Ok(pipes.finish(&p))
    }

    /// Starts it with these streams.
    pub fn launch(&self, io: Stdio) -> Result<Process, StartError> {
        let started = self.runtime.start(&self.bundle, io, None);
        let started = started.and_then(|pending| pending::finish(pending, &mut |_| Ok(())));
        started.inspect_err(|_| self.runtime.cleanup(&self.bundle).expect("cleanup"))
    }

    /// Begins an exec with these streams.
    pub fn enter(&self, init: &Process, process: &oci::Process, io: Stdio) -> Result<Process, StartError> {
        let pending = self.runtime.exec(&self.bundle, init, process, io)?;
        pending::finish(pending, &mut |_| Ok(()))
    }

    /// An exec of `args` as the container's own process would run.
    pub fn exec_args(&self, init: &Process, args: &[&str]) -> Result<Outcome, StartError> {
        let process = oci::Process {
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            terminal: false,
            ..self.bundle.spec.process.clone()
        };
        self.exec(init, &process)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.runtime.cleanup(&self.bundle);
        if let Ok(layout) = sys::cgroup::Layout::detect() {
            let parent = layout.at(&format!("/gantry-test-{}", std::process::id()));
            let _ = parent.and_then(|p| p.remove());
        }
    }
}

#[derive(Debug)]
/// The parent's ends of a process's streams.
pub struct Pipes {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Pipes {
    pub fn new() -> (Stdio, Pipes) {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        let ((in_r, in_w), (out_r, out_w), (err_r, err_w)) = (pipe(), pipe(), pipe());
        let io = Stdio { stdin: Some(in_r), stdout: Some(out_w), stderr: Some(err_w) };
        (io, Pipes { stdin: Some(in_w), stdout: out_r, stderr: err_r })
    }

    pub fn write(&mut self, text: &str) {
        let fd = self.stdin.take().expect("stdin is open");
        File::from(fd).write_all(text.as_bytes()).expect("write");
    }

    /// One chunk of standard output.
    pub fn line(&self) -> String {
        let mut buffer = [0; 4096];
        let n = rustix::io::read(&self.stdout, &mut buffer).expect("read");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }

    pub fn finish(mut self, process: &Process) -> Outcome {
        drop(self.stdin.take());
        let read = |fd: OwnedFd| {
            let mut out = Vec::new();
            File::from(fd).read_to_end(&mut out).expect("read");
            String::from_utf8_lossy(&out).into_owned()
        };
        let (stdout, stderr) = (read(self.stdout), read(self.stderr));
        Outcome { stdout, stderr, code: wait(process) }
    }
}

pub fn wait(process: &Process) -> i32 {
    sys::process::wait(process.pidfd.as_fd(), Block::Yes).expect("wait").expect("blocking")
}

pub fn kill(process: &Process) {
    let _ = sys::process::signal(&process.pidfd, 9);
    wait(process);
}

/// A busybox image.
pub fn image(root: &Path) {
    for dir in ["bin", "etc", "dev", "proc", "sys", "tmp", "root", "srv"] {
        std::fs::create_dir_all(root.join(dir)).expect("mkdir");
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("symlink");
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/srv:/bin/sh\n").unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nwheel:x:10:root\nweb:x:1001:\nextra:x:1002:web\n").unwrap();
}

/// What `docker run` asks for by default, without a network.
fn spec(args: &[&str], cgroup: &str) -> oci::Spec {
    let owned = |list: &[&str]| -> Vec<String> { list.iter().map(|s| (*s).to_owned()).collect() };
    let caps = owned(&CAPABILITIES);
    let namespaces = [
        NamespaceKind::Mount,
        NamespaceKind::Network,
        NamespaceKind::Uts,
        NamespaceKind::Pid,
        NamespaceKind::Ipc,
        NamespaceKind::Cgroup,
        NamespaceKind::Time,
    ];
    oci::Spec {
        oci_version: oci::VERSION.into(),
        process: oci::Process {
            user: oci::User { username: Some(String::new()), ..Default::default() },
            args: owned(args),
            env: owned(&["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=box"]),
            cwd: "/".into(),
            capabilities: Some(oci::Capabilities {
                bounding: caps.clone(),
                effective: caps.clone(),
                permitted: caps,
                ..Default::default()
            }),
            oom_score_adj: Some(0),
            ..Default::default()
        },
        hostname: "box".into(),
        mounts: mounts(),
        linux: oci::Linux {
            cgroups_path: cgroup.into(),
            namespaces: namespaces.map(|kind| oci::Namespace { kind, path: None }).to_vec(),
            resources: oci::Resources { devices: device_rules(), ..Default::default() },
            masked_paths: owned(&[
                "/proc/acpi",
                "/proc/asound",
                "/proc/interrupts",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/sched_debug",
                "/proc/scsi",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/sys/devices/virtual/powercap",
                "/sys/firmware",
            ]),
            readonly_paths: owned(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
            ..Default::default()
        },
        ..Default::default()
    }
}

pub fn mount(kind: &str, source: &str, target: &str, options: &[&str]) -> oci::Mount {
    oci::Mount {
        destination: target.into(),
        kind: kind.into(),
        source: source.into(),
        options: options.iter().map(|s| (*s).to_owned()).collect(),
        ..Default::default()
    }
}

fn mounts() -> Vec<oci::Mount> {
    let dark = ["nosuid", "noexec", "nodev"];
    vec![
        mount("proc", "proc", "/proc", &dark),
        mount("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "devpts",
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
        mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        mount("mqueue", "mqueue", "/dev/mqueue", &dark),
        mount("tmpfs", "shm", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
    ]
}

fn device_rules() -> Vec<oci::DeviceRule> {
    let rule = |allow, kind: &str, major, minor, access: &str| oci::DeviceRule {
        allow,
        kind: Some(kind.into()),
        major,
        minor,
        access: access.into(),
    };
    let mut rules = vec![rule(false, "a", None, None, "rwm")];
    for (major, minor) in [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)] {
        rules.push(rule(true, "c", Some(major), Some(minor), "rwm"));
    }
    rules.push(rule(false, "c", Some(10), Some(229), "rwm"));
    rules
}

/// Runs a program of the host and returns its output.
pub fn host(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().expect("runs");
    String::from_utf8_lossy(&out.stdout).into_owned()
}
