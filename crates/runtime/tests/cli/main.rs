//! Containers by real command-line runtimes: `runc` and `crun` from `PATH`, a busybox root.
//!
//! Every case is a process with one thread (as a monitor is), in its own mount and network namespace and its own cgroups.
//! Needs root.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use runtime::cli::Cli;
use runtime::error::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND};
use runtime::spec::{ContainerSpec, HostFeatures, Mounts, ProcessSpec, Security, build};
use runtime::{Bundle, Process, Rootfs, Runtime, Scope, StartError, Stdio, What, oci, pending};
use sys::clone::Flags;
use sys::process::Block;

const CASES: &[cases::Case] = &[
    ("output_and_exit_code", output_and_exit_code),
    ("host_mounts_stay_as_they_are", host_mounts_stay_as_they_are),
    ("terminal", terminal),
    ("execs", execs),
    ("programs_that_cannot_be_executed", programs_that_cannot_be_executed),
    ("users_by_name", users_by_name),
    ("signals_pause_and_limits", signals_pause_and_limits),
    ("prepared_network", prepared_network),
    ("filter_of_system_calls", filter_of_system_calls),
    ("crun_instead", crun_instead),
];
/// One case.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    cases::run(CASES, enter_own_namespaces)
}

fn enter_own_namespaces() {
    sys::ns::unshare(Flags::NEWNS | Flags::NEWNET).expect("needs root");
    sys::mount::set_root_propagation(sys::mount::Reach::Tree, sys::mount::Propagation::Private)
        .expect("private mounts");
}

/// A container of the runtime program `program`, with all that it leaves behind.
struct Fixture {
    dir: tempfile::TempDir,
    cli: Cli,
    bundle: Bundle,
}

impl Fixture {
    fn new(program: &str, args: &[&str]) -> Fixture {
        Fixture::with(program, args, |_| ())
    }

    fn with(program: &str, args: &[&str], change: impl FnOnce(&mut ContainerSpec)) -> Fixture {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).expect("a directory");
            path
        };
        for name in ["base/bin", "base/etc", "base/proc", "base/dev", "base/sys", "top/data"] {
            at(name);
        }
        let busybox = dir.path().join("base/bin/busybox");
        std::fs::copy("/bin/busybox", &busybox).expect("needs a static /bin/busybox");
        for applet in ["sh", "cat", "echo", "id", "sleep", "stty", "unshare", "ip", "kill", "true", "mount", "chmod"] {
            std::os::unix::fs::symlink("busybox", dir.path().join("base/bin").join(applet)).expect("an applet");
        }
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("a file");
        write("base/etc/passwd", "root:x:0:0::/root:/bin/sh\nwho:x:1000:1001::/home/who:/bin/sh\n");
        write("base/etc/group", "root:x:0:\nwhose:x:1001:\naudio:x:29:who\n");
        write("top/data/file", "from the top layer\n");
        let id = format!("{:064x}", std::process::id());
        let mut container = ContainerSpec {
            process: ProcessSpec { args: args.iter().map(|a| (*a).to_owned()).collect(), ..Default::default() },
            hostname: "box".into(),
            mounts: Mounts::default(),
            security: Security {
                capabilities: ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"].map(str::to_owned).to_vec(),
                ..Default::default()
            },
            cgroups_path: format!("/{}/{id}", cgroup_name()),
            ..Default::default()
        };
        change(&mut container);
        let spec = build(&container, &HostFeatures::probe()).expect("a valid container");
        let lower = vec![dir.path().join("top"), dir.path().join("base")];
        let rootfs = Rootfs::Overlay { lower, upper: at("upper"), work: at("work") };
        let bundle = Bundle { id, spec, rootfs, seccomp: Default::default(), state_dir: at("state") };
        Fixture { dir, cli: Cli { path: program.into(), args: Vec::new() }, bundle }
    }

    fn launch(&self, io: Stdio, netns: Option<BorrowedFd<'_>>) -> Result<Process, StartError> {
        let started = self.cli.start(&self.bundle, io, netns);
        let started = started.and_then(|pending| pending::finish(pending, &mut |_| Ok(())));
        started.inspect_err(|_| drop(self.cli.cleanup(&self.bundle)))
    }

    fn enter(&self, init: &Process, process: &oci::Process, io: Stdio) -> Result<Process, StartError> {
        let pending = self.cli.exec(&self.bundle, init, process, io)?;
        pending::finish(pending, &mut |_| Ok(()))
    }

    fn start(&self) -> Started {
        let (io, out) = pipes();
        let process = self.launch(io, None).expect("the container starts");
        Started { process, out }
    }

    fn exec(&self, init: &Process, args: &[&str], change: impl FnOnce(&mut oci::Process)) -> Started {
        let mut process = self.bundle.spec.process.clone();
        process.args = args.iter().map(|a| (*a).to_owned()).collect();
        change(&mut process);
        let (io, out) = pipes();
        let process = self.enter(init, &process, io).expect("the exec starts");
        Started { process, out }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let cleaned = self.cli.cleanup(&self.bundle);
        for hierarchy in hierarchies() {
            let cgroup = hierarchy.join(cgroup_name());
            let _ = match hierarchy.join("cgroup.procs").exists() {
                true => std::fs::remove_dir(cgroup),
                // crun takes an empty mount point for a hierarchy.
                false => std::fs::remove_dir_all(cgroup),
            };
        }
        if !std::thread::panicking() {
            cleaned.expect("cleanup");
            let left = hierarchies().into_iter().find(|h| h.join(cgroup_name()).exists());
            assert_eq!(left, None, "cgroups are left behind");
            assert_eq!(std::fs::read_dir(self.dir.path().join("state")).expect("state").count(), 0);
        }
    }
}

fn cgroup_name() -> String {
    format!("gantry-test-{}", std::process::id())
}

fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let below = std::fs::read_dir(root).expect("cgroups").flatten().map(|e| e.path());
    below.chain([root.to_owned()]).filter(|p| p.is_dir()).collect()
}

/// A process and the reading end of its output.
struct Started {
    process: Process,
    out: std::fs::File,
}

impl Started {
    /// Everything that it writes, and its exit code.
    fn finish(mut self) -> (String, i32) {
        let mut text = String::new();
        self.out.read_to_string(&mut text).expect("output");
        (text, self.code())
    }

    fn code(&self) -> i32 {
        let until = Instant::now() + LIMIT;
        loop {
            let code = sys::process::wait(self.process.pidfd.as_fd(), Block::No).expect("our child");
            if let Some(code) = code {
                return code;
            }
            assert!(Instant::now() < until, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Reads until `text` has come.
    fn expect(&mut self, text: &str) {
        let mut seen = String::new();
        while !seen.contains(text) {
            let mut buffer = [0; 256];
            let n = self.out.read(&mut buffer).expect("output");
            assert!(n > 0, "ended after {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }
}

/// Output and errors in one pipe, no input.
fn pipes() -> (Stdio, std::fs::File) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let second: OwnedFd = write.try_clone().expect("a descriptor");
    (Stdio { stdin: None, stdout: Some(write), stderr: Some(second) }, read.into())
}

fn output_and_exit_code() {
    let fixture = Fixture::new("runc", &["sh", "-c", "cat /data/file; echo $HOSTNAME $HOME $$; echo x >/new; exit 7"]);
    assert_eq!(fixture.start().finish(), ("from the top layer\nbox /root 1\n".into(), 7));
    assert!(fixture.dir.path().join("upper/new").exists());
}

fn host_mounts_stay_as_they_are() {
    // Seen from a process that was here before the monitor left for its own namespace.
    let mut observer = Command::new("sleep").arg("60").spawn().expect("an observer");
    let table = format!("/proc/{}/mountinfo", observer.id());
    let before = std::fs::read_to_string(&table).expect("mountinfo");
    let fixture = Fixture::new("runc", &["sh", "-c", "echo up; sleep 60"]);
    let mut started = fixture.start();
    started.expect("up");
    assert_eq!(std::fs::read_to_string(&table).expect("mountinfo"), before);
    fixture.cli.kill(&fixture.bundle, &started.process, 9, Scope::Process).expect("kill");
    assert_eq!(started.code(), 137);
    drop(fixture);
    observer.kill().expect("the observer ends");
    observer.wait().expect("our child");
}

fn terminal() {
    let script = "stty size; read line; echo got $line; exit 3";
    let fixture = Fixture::with("runc", &["sh", "-c", script], |c| {
        c.process.terminal = true;
        c.process.console_size = Some(oci::ConsoleSize { height: 33, width: 99 });
    });
    let process = fixture.launch(Stdio::default(), None).expect("the container starts");
    let master = process.console.as_ref().expect("a terminal").try_clone().expect("a descriptor");
    let mut started = Started { process, out: master.into() };
    started.expect("33 99");
    started.out.write_all(b"hello\n").expect("input");
    started.expect("got hello");
    assert_eq!(started.code(), 3);
}

fn execs() {
    let fixture = Fixture::new("runc", &["sleep", "60"]);
    let init = fixture.start();
    let (text, code) = fixture
        .exec(&init.process, &["sh", "-c", "echo $HOSTNAME $A; exit 4"], |p| {
            p.env.push("A=b".into());
        })
        .finish();
    assert_eq!((text.as_str(), code), ("box b\n", 4));
    let user = fixture.exec(&init.process, &["id"], |p| p.user.username = Some("who".into())).finish();
    assert_eq!(user.0, "uid=1000(who) gid=1001(whose) groups=29(audio),1001(whose)\n");

    let mut process = fixture.bundle.spec.process.clone();
    process.terminal = true;
    process.args = ["sh", "-c", "echo at $(stty size)"].map(str::to_owned).to_vec();
    process.console_size = Some(oci::ConsoleSize { height: 5, width: 6 });
    let process = fixture.enter(&init.process, &process, Stdio::default()).expect("exec");
    let master = process.console.as_ref().expect("a terminal").try_clone().expect("a descriptor");
    let mut started = Started { process, out: master.into() };
    started.expect("at 5 6");
    assert_eq!(started.code(), 0);

    process_ends_by_its_own_signal(&fixture, &init.process);
    let mut missing = fixture.bundle.spec.process.clone();
    missing.args = vec!["no-such".into()];
    let error = fixture.enter(&init.process, &missing, Stdio::default()).expect_err("no program");
    let (error, code) = error.to_error(What::Exec);
    assert_eq!(code, EXIT_NOT_FOUND);
    assert_eq!(
        error.message(),
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"no-such\": \
         executable file not found in $PATH: unknown"
    );
    fixture.cli.kill(&fixture.bundle, &init.process, 9, Scope::Process).expect("kill");
    assert_eq!(init.code(), 137);
}

fn process_ends_by_its_own_signal(fixture: &Fixture, init: &Process) {
    let exec = fixture.exec(init, &["sleep", "60"], |_| ());
    fixture.cli.kill(&fixture.bundle, &exec.process, 15, Scope::Process).expect("kill");
    assert_eq!(exec.code(), 143);
    let gone = fixture.cli.kill(&fixture.bundle, &exec.process, 15, Scope::Process).expect_err("it has ended");
    assert_eq!(gone.kind(), model::Kind::NotFound);
}

fn programs_that_cannot_be_executed() {
    let fails = |args: &[&str]| {
        let fixture = Fixture::new("runc", args);
        let (io, _out) = pipes();
        let error = fixture.launch(io, None).expect_err("no such program");
        let (error, code) = error.to_error(What::Create);
        (error.message().to_owned(), code)
    };
    let prefix = "failed to create task for container: failed to create shim task: OCI runtime create failed: runc \
                  create failed: unable to start container process: exec: ";
    assert_eq!(
        fails(&["no-such"]),
        (format!("{prefix}\"no-such\": executable file not found in $PATH: unknown"), EXIT_NOT_FOUND)
    );
    assert_eq!(
        fails(&["/no/such"]),
        (format!("{prefix}\"/no/such\": stat /no/such: no such file or directory: unknown"), EXIT_NOT_FOUND)
    );
    assert_eq!(
        fails(&["/data/file"]),
        (format!("{prefix}\"/data/file\": permission denied: unknown"), EXIT_NOT_EXECUTABLE)
    );
    let fixture = Fixture::with("no-such-runtime", &["true"], |_| ());
    let error = fixture.launch(Stdio::default(), None).expect_err("no runtime");
    let text = "exec: \"no-such-runtime\": executable file not found in $PATH";
    assert!(error.to_string().contains(text), "{error}");
    std::fs::remove_dir_all(fixture.dir.path().join("state")).expect("state");
    std::fs::create_dir(fixture.dir.path().join("state")).expect("state");
}

fn users_by_name() {
    let fixture = Fixture::with("runc", &["id"], |c| {
        c.process.user = "who".into();
        c.process.groups = vec!["777".into()];
    });
    let (text, _) = fixture.start().finish();
    assert_eq!(text, "uid=1000(who) gid=1001(whose) groups=29(audio),777,1001(whose)\n");
    drop(fixture);
    let fixture = Fixture::with("runc", &["id"], |c| c.process.user = "nobody-here".into());
    let error = fixture.launch(Stdio::default(), None).expect_err("no such user");
    assert!(error.to_string().contains("unable to find user nobody-here"), "{error}");
}

fn signals_pause_and_limits() {
    let script = "trap 'echo caught; exit 5' USR1; echo up; while :; do sleep 0.05; done";
    let fixture = Fixture::with("runc", &["sh", "-c", script], |c| c.resources.memory = 64 << 20);
    let mut started = fixture.start();
    started.expect("up");
    let (hierarchy, file) = match Path::new("/sys/fs/cgroup/memory").exists() {
        true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        false => ("/sys/fs/cgroup", "memory.max"),
    };
    let cgroup = Path::new(hierarchy).join(fixture.bundle.spec.linux.cgroups_path.trim_start_matches('/'));
    let limit = || std::fs::read_to_string(cgroup.join(file)).expect("a memory cgroup");
    assert_eq!(limit().trim(), (64 << 20).to_string());
    let memory = Some(oci::Memory { limit: Some(32 << 20), ..Default::default() });
    fixture.cli.update(&fixture.bundle, &oci::Resources { memory, ..Default::default() }).expect("update");
    assert_eq!(limit().trim(), (32 << 20).to_string());

    fixture.cli.pause(&fixture.bundle).expect("pause");
    fixture.cli.kill(&fixture.bundle, &started.process, 10, Scope::Process).expect("kill");
    std::thread::sleep(Duration::from_millis(200));
    let running = sys::process::wait(started.process.pidfd.as_fd(), Block::No).expect("our child");
    assert_eq!(running, None, "frozen");
    fixture.cli.resume(&fixture.bundle).expect("resume");
    assert_eq!(started.finish(), ("caught\n".into(), 5));
}

fn prepared_network() {
    // The namespace of this case is the prepared one; a link in it can be seen in the container.
    assert!(
        Command::new("ip")
            .args(["link", "add", "here0", "type", "veth", "peer", "name", "here1"])
            .status()
            .expect("ip")
            .success()
    );
    let prepared = std::fs::File::open("/proc/self/ns/net").expect("a namespace");
    sys::ns::unshare(Flags::NEWNET).expect("another namespace");
    let fixture = Fixture::new("runc", &["ip", "-o", "link", "show"]);
    let (io, out) = pipes();
    let process = fixture.launch(io, Some(prepared.as_fd())).expect("the container starts");
    let (text, code) = Started { process, out }.finish();
    assert!(text.contains("here0"), "{text}");
    assert_eq!(code, 0);
}

fn filter_of_system_calls() {
    let script = "while read key value; do case $key in Seccomp:) echo $value;; esac; done </proc/self/status; \
                  unshare -U true 2>&1; echo $?";
    let fixture = Fixture::new("runc", &["sh", "-c", script]);
    let (text, _) = fixture.start().finish();
    assert!(text.starts_with("2\n") && text.contains("Operation not permitted") && text.ends_with("1\n"), "{text}");
}

fn crun_instead() {
    // crun does not know a machine with both cgroup versions mounted.
    let unified = "/sys/fs/cgroup/unified";
    if Path::new(unified).exists() {
        rustix::mount::unmount(unified, rustix::mount::UnmountFlags::DETACH).expect("a mount of this namespace");
    }
    let fixture = Fixture::new("crun", &["sh", "-c", "echo hello; exit 9"]);
    assert_eq!(fixture.start().finish(), ("hello\n".into(), 9));
    drop(fixture);
    let fixture = Fixture::new("crun", &["no-such"]);
    let error = fixture.launch(Stdio::default(), None).expect_err("no such program");
    let (error, code) = error.to_error(What::Create);
    assert_eq!(code, EXIT_NOT_FOUND, "{}", error.message());
}
