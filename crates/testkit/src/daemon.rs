//! A daemon of its own for a test, and everything that a test does with it.
//!
//! - Its process is the daemon itself (the wrapper replaces itself), so signals and `/proc/<pid>` mean the daemon.
//! - The namespaces outlive it: after a crash the next one finds docker0, its rules and the running containers.
//! - `finish` (or dropping) removes all containers, takes the census, checks the store (`gantryd check`), stops the daemon
//!   and fails on anything left or wrong.
//! - When the test has failed, dropping only cleans up and prints the end of the daemon's log.

mod faults;
mod power;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::census::{self, Census, Subject};
use crate::command::{self, Output, PATIENCE, Running, eventually};
use crate::http::{Connection, Response};
use crate::namespaces::{Namespaces, remove_cgroups};
use crate::power::{Disk, FileSystem};
use crate::terminal::Terminal;
use crate::{images, places, process};

/// Longest time until the API answers.
const BOOT: Duration = Duration::from_secs(120);
/// Longest graceful stop.
const STOP: Duration = Duration::from_secs(120);
/// Lines of the daemon's log shown when a test fails.
const LOG_TAIL: usize = 60;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// How a daemon is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    args: Vec<String>,
    env: Vec<(String, String)>,
    config: String,
    disk: String,
    /// The program that makes a file system on it, with its options; empty: it lies in memory.
    mkfs: &'static [&'static str],
    /// How it is mounted, besides by a loop device.
    mount: &'static str,
    forgetful: Option<FileSystem>,
}

impl Options {
    /// The defaults: own roots, `--debug`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// More arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Its `daemon.json`.
    #[must_use]
    pub fn config(mut self, json: &str) -> Self {
        self.config = json.into();
        self
    }

    /// Gives the data root a disk of its own (in memory) of this size, such as `48m`.
    #[must_use]
    pub fn disk(mut self, size: &str) -> Self {
        self.disk = size.into();
        self
    }

    /// The same with a real file system, ext4 in a loop device.
    #[must_use]
    pub fn ext4(self, size: &str) -> Self {
        self.made(&["mkfs.ext4", "-q"], size)
    }

    /// The same with btrfs.
    #[must_use]
    pub fn btrfs(self, size: &str) -> Self {
        self.made(&["mkfs.btrfs", "-q"], size)
    }

    /// The same with XFS, whose files can share blocks.
    #[must_use]
    pub fn xfs(self, size: &str) -> Self {
        self.made(&["mkfs.xfs", "-q"], size)
    }

    /// ext4 that counts projects, where the kernel can.
    #[must_use]
    pub fn ext4_with_projects(mut self, size: &str) -> Self {
        self.mount = ",prjquota";
        self.made(&["mkfs.ext4", "-q", "-O", "quota,project"], size)
    }

    /// XFS that counts projects, where the kernel can.
    #[must_use]
    pub fn xfs_with_projects(mut self, size: &str) -> Self {
        self.mount = ",prjquota";
        self.xfs(size)
    }

    fn made(mut self, mkfs: &'static [&'static str], size: &str) -> Self {
        self.mkfs = mkfs;
        self.disk(size)
    }

    /// Gives the data root a disk that forgets what was not flushed when its power is cut.
    #[must_use]
    pub fn forgetful(mut self, kind: FileSystem) -> Self {
        self.forgetful = Some(kind);
        self
    }

    /// Starts the daemon; panics with its log when the API does not answer.
    #[track_caller]
    #[must_use]
    pub fn start(self) -> Daemon {
        let mut daemon = Daemon::prepare(self);
        if let Err(output) = daemon.boot() {
            panic!("the daemon did not start: {output:?}");
        }
        daemon
    }

    /// Starts a daemon that must refuse: gives its status and what it said.
    #[track_caller]
    #[must_use]
    pub fn refused(self) -> Output {
        let mut daemon = Daemon::prepare(self);
        daemon.boot().expect_err("the daemon should have refused to start")
    }
}

/// A running (or stopped) daemon with its surroundings.
pub struct Daemon {
    options: Options,
    namespaces: Namespaces,
    dir: tempfile::TempDir,
    data_root: PathBuf,
    exec_root: tempfile::TempDir,
    cgroup: String,
    process: Option<Child>,
    baseline: Census,
    /// One more holder for each open connection.
    connections: Arc<()>,
    finished: bool,
    /// Dropped behind the namespaces that use it.
    disk: Option<Disk>,
}

impl Daemon {
    /// Starts one with the defaults.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        Options::new().start()
    }

    fn prepare(options: Options) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // The path must stay short: unix socket paths end at 108 bytes and monitors put 80 after it.
        let dir = tempfile::Builder::new().prefix("gt-").rand_bytes(6).tempdir_in("/tmp").expect("a directory in /tmp");
        // In memory, as /run is.
        let memory = Path::new("/dev/shm");
        let memory = if memory.is_dir() { memory } else { dir.path() };
        let exec_root = tempfile::Builder::new().prefix("gt-").rand_bytes(6).tempdir_in(memory).expect("a directory");
        for sub in ["d", "cli"] {
            fs::create_dir(dir.path().join(sub)).expect("a fresh directory can be filled");
        }
        let config = if options.config.is_empty() { "{}" } else { &options.config };
        fs::write(dir.path().join("daemon.json"), config).expect("a fresh directory can be filled");
        let namespaces = Namespaces::new();
        if !options.disk.is_empty() {
            let place = dir.path().join("d").display().to_string();
            if !options.mkfs.is_empty() {
                // Freed by the kernel when the mount goes, at the latest with the namespace.
                let image = dir.path().join("disk").display().to_string();
                let _ = namespaces.run(&["truncate", "-s", &options.disk, &image]).ok();
                let _ = namespaces.run(&[options.mkfs, &[&image]].concat()).ok();
                let _ = namespaces.run(&["mount", "-o", &format!("loop{}", options.mount), &image, &place]).ok();
            } else {
                let size = format!("size={}", options.disk);
                let _ = namespaces.run(&["mount", "-t", "tmpfs", "-o", &size, "disk", &place]).ok();
            }
        }
        let disk = options.forgetful.map(|kind| power::plug_in(&namespaces, dir.path(), kind));
        Self {
            options,
            namespaces,
            data_root: dir.path().join("d"),
            exec_root,
            dir,
            cgroup: format!("gantry-test-{}-{number}", std::process::id()),
            process: None,
            baseline: Census::default(),
            connections: Arc::default(),
            finished: false,
            disk,
        }
    }

    fn command_line(&self) -> Command {
        let mut command = self.namespaces.command(places::gantryd());
        command
            .arg(format!("--host=unix://{}", self.socket().display()))
            .arg("--data-root")
            .arg(self.data_root())
            .arg("--exec-root")
            .arg(self.exec_root())
            .arg("--pidfile")
            .arg(self.path("pid"))
            .arg("--config-file")
            .arg(self.path("daemon.json"))
            .args(["--cgroup-parent", &format!("/{}", self.cgroup)])
            .args(&self.options.args)
            .env("RUST_BACKTRACE", "1")
            // The machine's own firewalld is not told of a test.
            .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", self.path("bus").display()))
            .envs(self.options.env.iter().map(|(k, v)| (k, v)));
        for name in ["DOCKER_HOST", "DOCKER_TMPDIR", "DOCKER_DRIVER", "DOCKER_MIN_API_VERSION", "NOTIFY_SOCKET"] {
            if !self.options.env.iter().any(|(k, _)| k == name) {
                command.env_remove(name);
            }
        }
        command
    }

    /// Starts the process and waits for `/_ping`. A first boot takes the baseline of the census.
    pub fn boot(&mut self) -> Result<(), Output> {
        assert!(self.process.is_none(), "the daemon runs already");
        let log = File::options().create(true).append(true).open(self.path("log")).expect("the log can be written");
        let seen = self.log().len();
        let copy = log.try_clone().expect("a descriptor can be copied");
        let child = self.command_line().stdin(Stdio::null()).stdout(copy).stderr(log).spawn().expect("nsenter starts");
        self.process = Some(child);
        let mut ended = None;
        let up = eventually(BOOT, || {
            ended = self.process.as_mut().and_then(|child| child.try_wait().ok().flatten());
            ended.is_some() || self.ping()
        });
        if let Some(status) = ended {
            self.process = None;
            let stderr = self.log()[seen..].to_string();
            return Err(Output { code: status.code().unwrap_or(-1), stdout: String::new(), stderr });
        }
        assert!(up, "no answer to /_ping within {BOOT:?}; log:\n{}", self.log());
        if self.baseline == Census::default() {
            self.baseline = Census::take(&self.subject());
        }
        Ok(())
    }

    fn ping(&self) -> bool {
        let answer = Connection::open(&self.socket()).and_then(|mut c| c.try_request("GET", "/_ping", ""));
        answer.is_ok_and(|response| response.status == 200)
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            namespaces: &self.namespaces,
            daemon: self.process.as_ref().map(Child::id),
            exec_root: self.exec_root.path(),
            data_root: &self.data_root,
            cgroup: &self.cgroup,
            connections: Arc::strong_count(&self.connections) - 1,
        }
    }

    /// A path in the daemon's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its API socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("s")
    }

    /// Its data root.
    #[must_use]
    pub fn data_root(&self) -> &Path {
        &self.data_root
    }

    /// Its exec root.
    #[must_use]
    pub fn exec_root(&self) -> &Path {
        self.exec_root.path()
    }

    /// Process id of the running daemon.
    #[track_caller]
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the daemon runs").id()
    }

    /// Name of the parent cgroup, without slashes.
    #[must_use]
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The namespaces that it runs in.
    #[must_use]
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Everything that it has said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.path("log")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The docker CLI, set up for this daemon alone.
    #[must_use]
    pub fn cli(&self, args: &[&str]) -> Command {
        let mut command = Command::new(places::docker());
        command
            .args(args)
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_CONFIG", self.path("cli"))
            .env("HOME", self.path("cli"))
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_API_VERSION")
            .env_remove("DOCKER_TLS_VERIFY");
        command
    }

    /// Runs the docker CLI to its end.
    #[track_caller]
    #[must_use]
    pub fn docker(&self, args: &[&str]) -> Output {
        command::run(&mut self.cli(args), b"")
    }

    /// Runs the docker CLI with `input` on its standard input.
    #[track_caller]
    #[must_use]
    pub fn docker_input(&self, args: &[&str], input: &[u8]) -> Output {
        command::run(&mut self.cli(args), input)
    }

    /// Starts the docker CLI beside the test.
    #[track_caller]
    #[must_use]
    pub fn spawn(&self, args: &[&str]) -> Running {
        Running::start(&mut self.cli(args))
    }

    /// Starts the docker CLI under a terminal.
    #[track_caller]
    #[must_use]
    pub fn pty(&self, args: &[&str]) -> Terminal {
        Terminal::start(&self.cli(args))
    }

    /// One request on a connection of its own.
    #[track_caller]
    #[must_use]
    pub fn http(&self, method: &str, path: &str, body: &str) -> Response {
        self.connection().request(method, path, body)
    }

    /// A connection for many requests.
    #[track_caller]
    #[must_use]
    pub fn connection(&self) -> Connection {
        Connection::open_counted(&self.socket(), &self.connections).expect("the daemon's socket accepts")
    }

    /// Runs a program in the daemon's namespaces.
    #[track_caller]
    #[must_use]
    pub fn exec_inside(&self, words: &[&str]) -> Output {
        self.namespaces.run(words)
    }

    /// Loads the image `busybox:latest`.
    #[track_caller]
    pub fn busybox(&self) {
        self.load(images::busybox_archive());
    }

    /// Loads the image `probe:latest`: nothing but the kit's own test program (`/probe`).
    #[track_caller]
    pub fn probe(&self) {
        self.load(images::probe_archive());
    }

    /// Loads an image archive over the API.
    #[track_caller]
    pub fn load(&self, archive: &[u8]) {
        let head = format!(
            "POST /images/load?quiet=1 HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
            archive.len()
        );
        let mut connection = self.connection();
        connection.send(head.as_bytes()).and_then(|()| connection.send(archive)).expect("the daemon takes the archive");
        let head = connection.head().expect("the daemon answers");
        let body = connection.body(&head).expect("the answer is whole");
        let text = String::from_utf8_lossy(&body);
        assert!(head.status == 200 && !text.contains("errorDetail"), "load: {} {text}", head.status);
    }

    /// A container's value by a template of `docker inspect`.
    #[track_caller]
    #[must_use]
    pub fn inspect(&self, name: &str, template: &str) -> String {
        self.docker(&["inspect", "-f", template, name]).text()
    }

    /// Waits until a template of `docker inspect` gives `wanted`.
    #[track_caller]
    pub fn until(&self, name: &str, template: &str, wanted: &str) {
        let mut last = String::new();
        let seen = eventually(PATIENCE, || {
            last = self.docker(&["inspect", "-f", template, name]).stdout.trim().to_string();
            last == wanted
        });
        assert!(seen, "{template} of {name} is {last:?}, not {wanted:?}");
    }

    /// Kills the daemon with SIGKILL.
    #[track_caller]
    pub fn kill9(&mut self) {
        let mut child = self.process.take().expect("the daemon runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// Sends a signal to the daemon.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        assert!(process::signal(self.pid(), signal), "the daemon is gone");
    }

    /// SIGTERM; gives the exit status.
    #[track_caller]
    pub fn stop(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.wait_end()
    }

    /// Waits for the daemon's end.
    #[track_caller]
    pub fn wait_end(&mut self) -> i32 {
        let mut child = self.process.take().expect("the daemon runs");
        let mut status = None;
        eventually(STOP, || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        });
        let Some(status) = status else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the daemon did not end within {STOP:?}; log:\n{}", self.log_tail());
        };
        status.code().unwrap_or(-1)
    }

    /// Starts it again after `kill9` or `stop`.
    #[track_caller]
    pub fn again(&mut self) {
        if let Err(output) = self.boot() {
            panic!("the daemon did not start again: {output:?}");
        }
    }

    /// The same with these options instead of those that it had.
    #[track_caller]
    pub fn again_with(&mut self, args: &[&str]) {
        self.options.args = args.iter().map(|&arg| arg.to_owned()).collect();
        self.again();
    }

    /// The next daemon, and what is asked of the data root until then, has it at `place`.
    pub fn take_root(&mut self, place: &Path) {
        place.clone_into(&mut self.data_root);
    }

    /// Graceful stop and start.
    #[track_caller]
    pub fn restart(&mut self) {
        assert_eq!(self.stop(), 0, "status of a graceful stop; log:\n{}", self.log_tail());
        self.again();
    }

    /// `kill -9` and start.
    #[track_caller]
    pub fn crash(&mut self) {
        self.kill9();
        self.again();
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }

    /// Removes every container, running or not.
    #[track_caller]
    pub fn remove_containers(&self) {
        let list = self.http("GET", "/containers/json?all=1", "").expect(200).json();
        for container in list.as_array().into_iter().flatten() {
            let id = container["Id"].as_str().unwrap_or_default();
            let answer = self.http("DELETE", &format!("/containers/{id}?force=1&v=1"), "");
            assert!(matches!(answer.status, 204 | 404 | 409), "removing {id}: {} {}", answer.status, answer.text());
        }
    }

    /// Removes every network that the test made. Containers on them are gone already.
    #[track_caller]
    pub fn remove_networks(&self) {
        let list = self.http("GET", "/networks?filters=%7B%22type%22%3A%5B%22custom%22%5D%7D", "").expect(200).json();
        for network in list.as_array().into_iter().flatten() {
            let id = network["Id"].as_str().unwrap_or_default();
            let answer = self.http("DELETE", &format!("/networks/{id}"), "");
            assert!(matches!(answer.status, 204 | 404), "removing {id}: {} {}", answer.status, answer.text());
        }
    }

    /// What stands that did not stand after boot, without removing anything first.
    #[must_use]
    pub fn leaks(&self) -> Vec<String> {
        census::leaks(&self.baseline, &self.subject())
    }

    /// The end of a test: containers removed, census empty, store whole, graceful stop, nothing left.
    #[track_caller]
    pub fn finish(mut self) {
        self.close();
    }

    #[track_caller]
    fn close(&mut self) {
        self.finished = true;
        if self.process.is_some() {
            self.remove_containers();
            self.remove_networks();
            let leaks = self.leaks();
            assert!(
                leaks.is_empty(),
                "left behind with the daemon running:\n  {}\nlog:\n{}",
                leaks.join("\n  "),
                self.log_tail()
            );
            assert_eq!(self.faults(), [""; 0], "faults of the store; log:\n{}", self.log_tail());
            let status = self.stop();
            assert_eq!(status, 0, "status of a graceful stop; log:\n{}", self.log_tail());
        }
        if self.baseline != Census::default() {
            let leaks = self.leaks();
            assert!(
                leaks.is_empty(),
                "left behind after the stop:\n  {}\nlog:\n{}",
                leaks.join("\n  "),
                self.log_tail()
            );
        }
    }

    fn clean_up(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for root in census::cgroup_roots(&self.cgroup) {
            remove_cgroups(&root);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            eprintln!("--- end of the daemon's log\n{}\n---", self.log_tail());
        } else if !self.finished {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.close()));
            self.clean_up();
            if let Err(panic) = result {
                std::panic::resume_unwind(panic);
            }
            return;
        }
        self.clean_up();
    }
}
