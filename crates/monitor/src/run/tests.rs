//! The whole monitor in a thread, around host programs instead of containers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as CommandStdio};
use std::thread;
use std::time::{Duration, Instant};

use runtime::{
    Action, Begun, Bundle, Pending, Process, Progress, Rootfs, Runtime, Scope, Stage, StartError, Stdio, oci,
};

use super::{Monitor, SIGKILL};
use crate as api;
use crate::proto::{Attach, Event, Exec, Request, RuntimeChoice, StartSpec};
use crate::session::DRAIN;

mod lives;
mod probes;

#[path = "../../tests/it/daemon.rs"]
mod daemon;
use daemon::{Daemon, LIMIT, all_streams, log, log_text, pair, read_all, read_until, unframe, write};

/// Runs programs of the host. What is done to them is over once the file is there, if one is named.
#[derive(Default)]
struct Fake {
    held: Option<PathBuf>,
}

/// Over once the file is there.
struct Held(PathBuf);

impl Action for Held {
    fn awaited(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn next(&self) -> Instant {
        Instant::now() + Duration::from_millis(10)
    }
    fn look(&mut self) -> Option<model::Result<()>> {
        self.0.exists().then_some(Ok(()))
    }
}

impl Fake {
    fn begun(&self) -> Begun {
        Ok(self.held.clone().map(|file| Box::new(Held(file)) as Box<dyn Action>))
    }

    fn spawn(process: &oci::Process, io: Stdio) -> Result<Process, StartError> {
        let failed = |e: std::io::Error| {
            let stage = Stage::Exec { argv0: process.args[0].clone(), lookup: true };
            StartError::new(stage, e.raw_os_error().unwrap_or(0), "")
        };
        let stdio = |fd: Option<OwnedFd>| fd.map_or_else(CommandStdio::null, CommandStdio::from);
        let mut command = Command::new(if process.terminal { "setsid" } else { &process.args[0] });
        let mut console = None;
        if process.terminal {
            let devpts = std::fs::File::open("/dev/pts").map_err(failed)?;
            let terminal = sys::pty::open_in(devpts.as_fd()).map_err(failed)?;
            let copy = || terminal.peer.try_clone().map(CommandStdio::from).map_err(failed);
            command.arg("--ctty").arg("--wait").args(&process.args);
            command.stdin(copy()?).stdout(copy()?).stderr(copy()?);
            console = Some(terminal.master);
        } else {
            command.args(&process.args[1..]);
            command.stdin(stdio(io.stdin)).stdout(stdio(io.stdout)).stderr(stdio(io.stderr));
        }
        let child = command.spawn().map_err(failed)?;
        let pid = child.id() as i32;
        let pidfd = rustix::process::pidfd_open(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::PidfdFlags::empty(),
        );
        Ok(Process::new(pid, pidfd.unwrap(), console))
    }
}

/// Runs already.
struct There {
    process: Option<Process>,
    born: bool,
    pidfd: OwnedFd,
}

impl There {
    fn boxed(process: Process) -> Box<dyn Pending> {
        let pidfd = process.pidfd.try_clone().unwrap();
        Box::new(There { process: Some(process), born: false, pidfd })
    }
}

impl Pending for There {
    fn awaited(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
    fn deadline(&self) -> Instant {
        Instant::now() + LIMIT
    }
    fn advance(&mut self) -> Result<Progress, StartError> {
        match &self.process {
            Some(process) if !std::mem::replace(&mut self.born, true) => Ok(Progress::Born(process.pid)),
            _ => Ok(self.process.take().map_or(Progress::Waiting, Progress::Running)),
        }
    }
    fn processes(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
    fn leftovers(self: Box<Self>) -> Vec<OwnedFd> {
        Vec::new()
    }
}

impl Runtime for Fake {
    fn start(&self, bundle: &Bundle, io: Stdio, _: Option<BorrowedFd<'_>>) -> Result<Box<dyn Pending>, StartError> {
        Fake::spawn(&bundle.spec.process, io).map(There::boxed)
    }
    fn exec(&self, _: &Bundle, _: &Process, process: &oci::Process, io: Stdio) -> Result<Box<dyn Pending>, StartError> {
        Fake::spawn(process, io).map(There::boxed)
    }
    fn begin_kill(&self, _: &Bundle, process: &Process, signal: i32, _: Scope) -> Begun {
        sys::process::signal(&process.pidfd, signal)?;
        self.begun()
    }
    fn begin_pause(&self, _: &Bundle) -> Begun {
        self.begun()
    }
    fn begin_resume(&self, _: &Bundle) -> Begun {
        self.begun()
    }
    fn begin_cleanup(&self, _: &Bundle) -> Begun {
        self.begun()
    }
    fn update(&self, _: &Bundle, _: &oci::Resources) -> model::Result<()> {
        Ok(())
    }
}

fn process(script: &str) -> oci::Process {
    oci::Process { args: ["sh", "-c", script].map(String::from).to_vec(), ..Default::default() }
}

fn spec(dir: &Path, script: &str) -> StartSpec {
    let bundle = Bundle {
        id: "c".repeat(64),
        spec: oci::Spec { process: process(script), ..Default::default() },
        rootfs: Rootfs::Dir("/".into()),
        seccomp: Default::default(),
        state_dir: dir.to_owned(),
    };
    daemon::spec(dir, bundle)
}

fn fake(_: &RuntimeChoice) -> Box<dyn Runtime> {
    Box::new(Fake::default())
}

/// A part of a script that waits until [`let_go`].
fn held(dir: &Path) -> String {
    let dir = dir.display();
    format!("until [ -e {dir}/go ] || [ ! -d {dir} ]; do sleep 0.01; done")
}

fn let_go(dir: &Path) {
    std::fs::write(dir.join("go"), "").unwrap();
}

/// A monitor in a thread, and the daemon that started it.
fn monitor(dir: &Path) -> (Daemon, thread::JoinHandle<()>) {
    let (client, control) = daemon::sockets();
    let run = thread::spawn(move || Monitor::new(control, Box::new(fake)).run());
    (Daemon::of(client, dir), run)
}

#[test]
fn output_goes_to_the_log_and_to_clients_and_the_exit_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = monitor(dir.path());
    let (mut early, theirs) = pair();
    let spec =
        StartSpec { attach: vec![all_streams(false, true)], ..spec(dir.path(), "echo out; echo err >&2; exit 7") };
    let pid = daemon.started(&spec, &[&theirs]);
    drop(theirs);
    let Event::Died { exit: told } = daemon.event() else { panic!("not told at once") };
    let exit = daemon.exited(None);
    assert_eq!(told, exit);
    assert!(pid > 0 && exit.code == 7 && exit.signal.is_none() && exit.error.is_empty());
    assert_eq!(unframe(&read_all(&mut early)), ("out\n".into(), "err\n".into()));
    let log = log_text(dir.path());
    assert!(log == "out\nerr\n" || log == "err\nout\n");
    let record: crate::proto::Exit = serde_json::from_slice(&std::fs::read(dir.path().join("exit")).unwrap()).unwrap();
    assert_eq!(record, exit);
    assert!(
        daemon.request(&Request::Freeze { frozen: true, passing: false }, &[]).unwrap_err().contains("is not running")
    );
    daemon.release();
    run.join().unwrap();
}

/// A runtime that takes its time holds up the one who asked, and nobody else.
#[test]
fn what_takes_long_is_answered_when_it_is_done_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("done");
    let (client, control) = daemon::sockets();
    let until = Some(file.clone());
    let make = move |_: &RuntimeChoice| Box::new(Fake { held: until.clone() }) as Box<dyn Runtime>;
    let run = thread::spawn(move || Monitor::new(control, Box::new(make)).run());
    let mut daemon = Daemon::of(client, dir.path());
    let script = "trap 'echo caught; exit 3' TERM; read go; echo ready; while :; do sleep 0.01; done";
    daemon.started(&StartSpec { open_stdin: true, ..spec(dir.path(), script) }, &[]);
    let mut attached = daemon.attach(all_streams(true, true));
    write(&mut attached, b"go\n");
    read_until(&mut attached, "ready");
    let freeze = daemon.begin(&Request::Freeze { frozen: true, passing: false });
    let thaw = daemon.begin(&Request::Freeze { frozen: false, passing: false });
    let kill = daemon.begin(&Request::Signal { exec: None, signal: 15, scope: Scope::Process });
    // All else goes on: requests, output, the end of the process.
    assert_eq!(daemon.request(&Request::Ping, &[]), Ok(()));
    assert!(read_until(&mut attached, "caught").contains("caught"));
    let Event::Died { exit } = daemon.event() else { panic!("not told") };
    assert_eq!(exit.code, 3);
    assert_eq!(daemon.request(&Request::Ping, &[]), Ok(()));
    std::fs::write(&file, "").unwrap();
    assert_eq!(daemon.exited(None).code, 3);
    // What was under way when the container ended has become pointless: the end is the answer.
    assert!(freeze < thaw && thaw < kill);
    daemon.release();
    run.join().unwrap();
}

/// One freeze follows the other, each answered with its own outcome.
#[test]
fn freezes_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("done");
    let (client, control) = daemon::sockets();
    let until = Some(file.clone());
    let make = move |_: &RuntimeChoice| Box::new(Fake { held: until.clone() }) as Box<dyn Runtime>;
    let run = thread::spawn(move || Monitor::new(control, Box::new(make)).run());
    let mut daemon = Daemon::of(client, dir.path());
    daemon.started(&spec(dir.path(), &held(dir.path())), &[]);
    let asked: Vec<u32> =
        (0..4).map(|n| daemon.begin(&Request::Freeze { frozen: n % 2 == 0, passing: false })).collect();
    assert_eq!(daemon.request(&Request::Ping, &[]), Ok(()));
    std::fs::write(&file, "").unwrap();
    let answered: Vec<u32> = asked.iter().map(|_| daemon.done()).collect();
    assert_eq!(answered, asked);
    let many: Vec<_> = (0..10).map(|_| daemon.begin(&Request::Freeze { frozen: false, passing: false })).collect();
    assert_eq!(many.iter().map(|_| daemon.done()).collect::<Vec<_>>(), many);
    let_go(dir.path());
    daemon.exited(None);
    daemon.release();
    run.join().unwrap();
}

/// Frozen in passing it goes on when the daemon that asked is gone; frozen for good it stays so.
#[test]
fn what_is_frozen_in_passing_goes_on_without_its_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = monitor(dir.path());
    daemon.started(&spec(dir.path(), &held(dir.path())), &[]);
    let freeze = |frozen, passing| Request::Freeze { frozen, passing };
    for (asked, goes_on) in [
        (&[freeze(true, true)][..], true),
        (&[freeze(true, false)], false),
        (&[freeze(true, true), freeze(true, false)], false),
        (&[freeze(true, true), freeze(false, false), freeze(true, false)], false),
    ] {
        asked.iter().for_each(|request| daemon.request(request, &[]).unwrap());
        // A daemon beside it changes nothing.
        let (other, state) = Daemon::reconnect(dir.path());
        assert!(state.paused, "{asked:?}");
        drop(other);
        assert!(Daemon::reconnect(dir.path()).1.paused, "{asked:?}");
        drop(daemon);
        let began = Instant::now();
        let mut state;
        (daemon, state) = Daemon::reconnect(dir.path());
        while goes_on && state.paused && began.elapsed() < LIMIT {
            (daemon, state) = Daemon::reconnect(dir.path());
        }
        // Whoever was gone is noticed before a request that comes later.
        daemon.request(&Request::Ping, &[]).unwrap();
        assert_eq!(Daemon::reconnect(dir.path()).1.paused, !goes_on, "{asked:?}");
        daemon.request(&freeze(false, false), &[]).unwrap();
    }
    let_go(dir.path());
    daemon.exited(None);
    daemon.release();
    run.join().unwrap();
}

#[test]
fn half_close_of_the_first_client_ends_the_input_and_output_still_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = monitor(dir.path());
    let (mut client, theirs) = pair();
    let attach = Attach { prefix: b"pre".to_vec(), ..all_streams(true, true) };
    let spec = StartSpec {
        open_stdin: true,
        stdin_once: true,
        attach: vec![attach],
        ..spec(dir.path(), "cat; sleep 0.2; echo done >&2")
    };
    daemon.started(&spec, &[&theirs]);
    drop(theirs);
    let data = "0123456789\n".repeat(50_000);
    write(&mut client, data.as_bytes());
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(unframe(&read_all(&mut client)), (format!("pre{data}"), "done\n".into()));
    assert_eq!(daemon.exited(None).code, 0);
    daemon.release();
    run.join().unwrap();
}

#[test]
fn without_stdin_once_the_end_of_input_ends_the_attachment_only() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = monitor(dir.path());
    daemon
        .started(&StartSpec { open_stdin: true, ..spec(dir.path(), "read a; echo $a; read b; echo $b; exit 3") }, &[]);
    for word in ["one", "two"] {
        let mut client = daemon.attach(all_streams(true, false));
        write(&mut client, format!("{word}\n").as_bytes());
        read_until(&mut client, word);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut client), b"");
    }
    assert_eq!(daemon.exited(None).code, 3);
    daemon.release();
    run.join().unwrap();
}

#[test]
fn a_client_that_listens_only_may_half_close() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = monitor(dir.path());
    daemon.started(&spec(dir.path(), &format!("{}; echo late", held(dir.path()))), &[]);
    let mut client = daemon.attach(all_streams(true, false));
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let_go(dir.path());
    assert_eq!(read_all(&mut client), b"late\n");
    daemon.exited(None);
    daemon.release();
    run.join().unwrap();
}

#[test]
fn a_terminal_is_raw_resizes_and_detaches() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = monitor(dir.path());
    let mut spec = StartSpec {
        open_stdin: true,
        ..spec(dir.path(), "echo ready; read a; stty size; echo got $a; read b; exit 4")
    };
    spec.bundle.spec.process.terminal = true;
    daemon.started(&spec, &[]);
    let mut client = daemon.attach(all_streams(true, false));
    daemon.request(&Request::Resize { exec: None, rows: 33, columns: 111 }, &[]).unwrap();
    write(&mut client, b"hello\r");
    let seen = read_until(&mut client, "got hello");
    assert!(seen.contains("33 111") && !seen.contains('\u{1}'), "{seen:?}");
    write(&mut client, &[16, 17]);
    assert_eq!(daemon.event(), Event::Detached { exec: None });
    read_all(&mut client);
    let mut again = daemon.attach(Attach { detach_keys: b"x".to_vec(), ..all_streams(true, false) });
    write(&mut again, b"x");
    assert_eq!(daemon.event(), Event::Detached { exec: None });
    let mut last = daemon.attach(all_streams(true, false));
    write(&mut last, b"\r");
    assert_eq!(daemon.exited(None).code, 4);
    daemon.release();
    run.join().unwrap();
    assert!(log_text(dir.path()).contains("got hello\r\n"));
}

#[test]
fn several_execs_at_once_and_a_daemon_that_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = monitor(dir.path());
    daemon.started(&StartSpec { open_stdin: true, ..spec(dir.path(), "cat >/dev/null") }, &[]);
    let exec =
        |id: &str, stdin| Exec { id: id.into(), open_stdin: stdin, attach: Some(all_streams(stdin, true)), probe: 0 };
    let (mut first, theirs) = pair();
    assert!(matches!(daemon.exec(exec("e1", true), &process("cat; exit 5"), Some(&theirs)), Event::Started { .. }));
    drop(theirs);
    let (mut second, theirs) = pair();
    assert!(matches!(
        daemon.exec(exec("e2", false), &process("echo two; exit 6"), Some(&theirs)),
        Event::Started { .. }
    ));
    drop(theirs);
    assert_eq!(unframe(&read_all(&mut second)).0, "two\n");
    assert_eq!(daemon.exited(Some("e2")).code, 6);
    let missing = oci::Process { args: vec!["/nonexistent".into()], ..Default::default() };
    assert!(matches!(daemon.exec(exec("e3", false), &missing, None), Event::Failed { exec: Some(_), .. }));

    // The daemon dies; the next one finds everything as it was.
    drop(daemon);
    let (mut daemon, state) = Daemon::reconnect(dir.path());
    assert_eq!((state.id, state.paused, state.exit, state.execs.len()), ("c".repeat(64), false, None, 2));
    assert!(state.execs.iter().any(|e| e.id == "e1" && e.exit.is_none()));
    assert!(state.execs.iter().any(|e| e.id == "e2" && e.exit.as_ref().is_some_and(|x| x.code == 6)));
    write(&mut first, b"still there");
    first.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(unframe(&read_all(&mut first)).0, "still there");
    assert_eq!(daemon.exited(Some("e1")).code, 5);
    daemon.request(&Request::Signal { exec: None, signal: 9, scope: Scope::Process }, &[]).unwrap();
    let exit = daemon.exited(None);
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    daemon.release();
    run.join().unwrap();
}

/// A daemon that dies has asked for more than the monitor has read, and takes none of its answers.
#[test]
fn all_that_a_dead_daemon_has_asked_for_is_done() {
    const MANY: u16 = 40;
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = monitor(dir.path());
    daemon.started(&spec(dir.path(), "sleep 1000"), &[]);
    let deadline = Instant::now() + Duration::from_secs(60);
    for _ in 0..MANY {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port =
            crate::proto::Port { transport: crate::proto::Transport::Tcp, target: "127.0.0.1:9".parse().unwrap() };
        daemon.client.send_by(deadline, &Request::Ports(vec![port]), &[socket.as_fd()]).unwrap();
    }
    drop(daemon);
    let (daemon, state) = Daemon::reconnect(dir.path());
    assert_eq!(state.ports, u32::from(MANY));
    let kill = Request::Signal { exec: None, signal: SIGKILL, scope: Scope::All };
    daemon.client.send(1, &kill, &[]).unwrap();
    daemon.client.send(2, &Request::Release, &[]).unwrap();
    drop(daemon);
    run.join().unwrap();
}

#[test]
fn a_container_that_ends_while_no_daemon_is_there_leaves_its_record_and_log() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = monitor(dir.path());
    daemon.started(&spec(dir.path(), &format!("{}; echo bye; exit 9", held(dir.path()))), &[]);
    drop(daemon);
    let_go(dir.path());
    run.join().unwrap();
    let record: crate::proto::Exit = serde_json::from_slice(&std::fs::read(dir.path().join("exit")).unwrap()).unwrap();
    assert_eq!((record.code, log_text(dir.path()).as_str()), (9, "bye\n"));
}

#[test]
fn after_a_flood_all_of_it_is_in_the_log_and_what_was_rotated_is_compressed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = monitor(dir.path());
    let script = "head -c 1000000 /dev/zero | tr '\\0' x | fold -w 99; echo; echo last; read end";
    let log = log(dir.path(), "json-file", &[("max-size", "500000"), ("max-file", "10")]);
    daemon.started(&StartSpec { open_stdin: true, log, ..spec(dir.path(), script) }, &[]);
    let end = Instant::now() + Duration::from_secs(60);
    while dir.path().join("c-json.log.1").exists() || !dir.path().join("c-json.log.3.gz").exists() {
        assert!(Instant::now() < end, "not compressed");
        thread::sleep(Duration::from_millis(5));
    }
    while !log_text(dir.path()).ends_with("\nlast\n") {
        assert!(Instant::now() < end, "the log lacks its end");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(log_text(dir.path()).matches('x').count(), 1_000_000);
    let mut client = daemon.attach(all_streams(true, false));
    write(&mut client, b"end\n");
    daemon.exited(None);
    daemon.release();
    run.join().unwrap();
}

#[test]
fn a_failed_start_says_so_and_ends_the_monitor() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = monitor(dir.path());
    let mut spec = spec(dir.path(), "");
    spec.bundle.spec.process.args = vec!["/nonexistent".into()];
    let Event::Failed { exec: None, error } = daemon.start(&spec, &[]) else { panic!("started") };
    assert_eq!(error.errno, 2);
    run.join().unwrap();
    assert!(!dir.path().join("exit").exists());
}

#[test]
fn a_client_that_never_reads_does_not_stop_the_container_and_a_slow_one_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = monitor(dir.path());
    let script = format!("{}; head -c 30000000 /dev/zero; echo end >&2", held(dir.path()));
    let spec = StartSpec { log: log(dir.path(), "none", &[]), ..spec(dir.path(), &script) };
    daemon.started(&spec, &[]);
    let stuck = daemon.attach(all_streams(false, true));
    let mut slow = daemon.attach(Attach { stdout: true, ..Attach::default() });
    let_go(dir.path());
    assert_eq!(daemon.exited(None).code, 0);
    // Only now does it begin to read.
    assert_eq!(read_all(&mut slow).len(), 30_000_000);
    drop(stuck);
    daemon.release();
    run.join().unwrap();
}

#[test]
fn a_grandchild_that_holds_the_output_open_delays_the_end_by_the_drain_time_only() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = monitor(dir.path());
    let begun = Instant::now();
    daemon.started(&spec(dir.path(), &format!("({}) & echo started", held(dir.path()))), &[]);
    // The grandchild lives until it is let go.
    daemon.exited(None);
    let took = begun.elapsed();
    assert!(took >= DRAIN, "{took:?}");
    assert_eq!(log_text(dir.path()), "started\n");
    let_go(dir.path());
    daemon.release();
    run.join().unwrap();
}

#[test]
fn rubbish_is_answered_not_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, run) = monitor(dir.path());
    for packet in [&[7, 200, 1][..], &[0xff; 40], b"x"] {
        sys::fdpass::send(&daemon.client, packet, &[]).unwrap();
        assert!(matches!(daemon.receive(), Some(Event::Done { refused: Some(_) })));
    }
    assert!(daemon.request(&Request::Attach(Attach::default()), &[]).unwrap_err().contains("not running"));
    assert!(matches!(daemon.exec(Exec::default(), &process("true"), None), Event::Failed { .. }));
    drop(daemon);
    run.join().unwrap();
}
