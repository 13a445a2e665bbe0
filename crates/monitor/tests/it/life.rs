//! The cases.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use monitor::client::{self, Spawned};
use monitor::proto::{Attach, Event, Exec, Exit, Port, Request, StartSpec, Transport};
use runtime::{Scope, oci};

use super::daemon::{Daemon, LIMIT, all_streams, log_text, pair, read_all, read_until, spec, unframe, write};
use super::fixture::Container;

pub const CASES: &[cases::Case] = &[
    ("attached_before_the_start", attached_before_the_start),
    ("half_close_reaches_the_container", half_close_reaches_the_container),
    ("terminal_resize_detach_and_back", terminal_resize_detach_and_back),
    ("execs_with_and_without_terminal", execs_with_and_without_terminal),
    ("a_missing_program_is_typed", a_missing_program_is_typed),
    ("the_daemon_is_killed_and_comes_back", the_daemon_is_killed_and_comes_back),
    ("the_container_dies_with_its_monitor", the_container_dies_with_its_monitor),
    ("a_flood_and_a_container_that_ignores_signals", a_flood_and_a_container_that_ignores_signals),
    ("paused_and_resumed", paused_and_resumed),
    ("out_of_memory_is_told", out_of_memory_is_told),
    ("published_port_to_the_container", published_port_to_the_container),
    ("private_memory_is_small", private_memory_is_small),
    ("a_hundred_megabytes_are_logged", a_hundred_megabytes_are_logged),
];

/// A monitor of a container that runs `script`, not started yet.
fn monitor(container: &Container) -> (Daemon, OwnedFd, i32) {
    let Spawned { client, pid, pidfd } = spawn();
    (Daemon::of(client, container.dir.path()), pidfd, pid)
}

fn spawn() -> Spawned {
    let program = std::env::var_os("GANTRY_TEST_MONITOR")
        .map_or(env!("CARGO_BIN_EXE_gantry-monitor-alone").into(), PathBuf::from);
    let program = fs::File::open(program).unwrap();
    client::spawn(program.as_fd()).unwrap()
}

fn specification(container: &Container) -> StartSpec {
    spec(container.dir.path(), container.bundle.clone())
}

/// Releases the monitor; it must end, and leave nothing of the container behind.
fn finish(container: &Container, daemon: Daemon, pidfd: &OwnedFd) {
    daemon.release();
    let status =
        rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), rustix::process::WaitIdOptions::EXITED);
    assert_eq!(status.unwrap().unwrap().exit_status(), Some(0));
    assert!(!runtime::builtin::cgroup(&container.bundle).unwrap().exists());
}

/// Whether this holds in time.
fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        if condition() {
            return true;
        }
        sleep(Duration::from_millis(10));
    }
    false
}

fn process(container: &Container, script: &str) -> oci::Process {
    let args = ["sh", "-c", script].map(String::from).to_vec();
    oci::Process { args, ..container.bundle.spec.process.clone() }
}

fn attached_before_the_start() {
    let container = Container::sh("echo out; echo err >&2; exit 42");
    let (mut daemon, pidfd, _) = monitor(&container);
    let (mut client, theirs) = pair();
    let spec = StartSpec { attach: vec![all_streams(false, true)], ..specification(&container) };
    daemon.started(&spec, &[&theirs]);
    drop(theirs);
    let exit = daemon.exited(None);
    assert_eq!((exit.code, exit.error.as_str(), exit.oom), (42, "", false));
    assert_eq!(unframe(&read_all(&mut client)), ("out\n".into(), "err\n".into()));
    assert_eq!(log_text(container.dir.path()).len(), 8);
    let record: Exit = serde_json::from_slice(&fs::read(container.dir.path().join("exit")).unwrap()).unwrap();
    assert_eq!(record, exit);
    finish(&container, daemon, &pidfd);
}

fn half_close_reaches_the_container() {
    let container = Container::sh("cat; echo done >&2");
    let (mut daemon, pidfd, _) = monitor(&container);
    let (mut client, theirs) = pair();
    let spec = StartSpec {
        open_stdin: true,
        stdin_once: true,
        attach: vec![all_streams(true, true)],
        ..specification(&container)
    };
    daemon.started(&spec, &[&theirs]);
    drop(theirs);
    let data = "some data\n".repeat(100_000);
    write(&mut client, data.as_bytes());
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(unframe(&read_all(&mut client)) == (data, "done\n".into()));
    assert_eq!(daemon.exited(None).code, 0);
    finish(&container, daemon, &pidfd);
}

fn terminal_resize_detach_and_back() {
    let mut container = Container::sh("read a; stty size; tty; echo got $a; read b; exit 3");
    container.process().terminal = true;
    let (mut daemon, pidfd, _) = monitor(&container);
    daemon.started(&StartSpec { open_stdin: true, ..specification(&container) }, &[]);
    let mut client = daemon.attach(all_streams(true, true));
    daemon.request(&Request::Resize { exec: None, rows: 40, columns: 120 }, &[]).unwrap();
    write(&mut client, b"text\r");
    let seen = read_until(&mut client, "got text\r\n");
    assert!(seen.contains("40 120") && seen.contains("/dev/pts/0"), "{seen:?}");
    write(&mut client, &[16]);
    write(&mut client, &[17]);
    assert_eq!(daemon.event(), Event::Detached { exec: None });
    assert_eq!(read_all(&mut client), b"");
    let mut again = daemon.attach(all_streams(true, false));
    write(&mut again, b"\r");
    assert_eq!(daemon.exited(None).code, 3);
    finish(&container, daemon, &pidfd);
}

fn execs_with_and_without_terminal() {
    let container = Container::sh("read line; exit 0");
    let (mut daemon, pidfd, _) = monitor(&container);
    daemon.started(&StartSpec { open_stdin: true, ..specification(&container) }, &[]);
    let exec = |id: &str, attach| Exec { id: id.into(), open_stdin: true, attach, probe: 0 };

    let (mut first, theirs) = pair();
    let answer =
        daemon.exec(exec("cat", Some(all_streams(true, true))), &process(&container, "cat; exit 7"), Some(&theirs));
    assert!(matches!(answer, Event::Started { exec: Some(_), .. }), "{answer:?}");
    drop(theirs);

    let (mut second, theirs) = pair();
    let terminal = oci::Process { terminal: true, ..process(&container, "read x; stty size; exit 8") };
    let answer = daemon.exec(exec("tty", Some(all_streams(true, false))), &terminal, Some(&theirs));
    assert!(matches!(answer, Event::Started { .. }), "{answer:?}");
    drop(theirs);

    let touch = process(&container, "touch /made; exit 9");
    let answer = daemon.exec(exec("detached", None), &touch, None);
    assert!(matches!(answer, Event::Started { .. }), "{answer:?}");
    assert_eq!(daemon.exited(Some("detached")).code, 9);

    write(&mut first, b"through cat");
    first.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(unframe(&read_all(&mut first)).0, "through cat");
    assert_eq!(daemon.exited(Some("cat")).code, 7);

    daemon.request(&Request::Resize { exec: Some("tty".into()), rows: 20, columns: 60 }, &[]).unwrap();
    write(&mut second, b"\r");
    read_until(&mut second, "20 60");
    assert_eq!(daemon.exited(Some("tty")).code, 8);

    let missing = oci::Process { args: vec!["/nope".into()], ..process(&container, "") };
    let answer = daemon.exec(exec("missing", None), &missing, None);
    assert!(matches!(answer, Event::Failed { .. }), "{answer:?}");

    // An exec that is still there when the container ends goes with it.
    let answer = daemon.exec(exec("left", None), &process(&container, "sleep 100"), None);
    assert!(matches!(answer, Event::Started { .. }), "{answer:?}");
    let mut client = daemon.attach(all_streams(true, false));
    write(&mut client, b"\n");
    assert_eq!(daemon.exited(Some("left")).code, 137);
    assert_eq!(daemon.exited(None).code, 0);
    finish(&container, daemon, &pidfd);
}

fn a_missing_program_is_typed() {
    let container = Container::new(&["/nope"]);
    let (mut daemon, _pidfd, _) = monitor(&container);
    let Event::Failed { exec: None, error } = daemon.start(&specification(&container), &[]) else { panic!("started") };
    assert_eq!(error.to_error(runtime::What::Create).1, 127);
    assert!(daemon.receive().is_none());
    assert!(!runtime::builtin::cgroup(&container.bundle).unwrap().exists());
}

/// Starts a monitor and its container for a daemon that will be killed.
pub fn doomed_daemon(dir: &Path) -> ! {
    let spec: StartSpec = serde_json::from_slice(&fs::read(dir.join("spec.json")).unwrap()).unwrap();
    let mut daemon = Daemon::of(spawn().client, dir);
    daemon.started(&spec, &[]);
    println!("started");
    loop {
        sleep(Duration::from_secs(1));
    }
}

fn the_daemon_is_killed_and_comes_back() {
    let script =
        "n=0; while read -t 1 line || [ $n -lt 1000 ]; do echo line $n; n=$((n+1)); test \"$line\" && exit 5; done";
    let container = Container::sh(script);
    let dir = container.dir.path();
    let spec = StartSpec { open_stdin: true, ..specification(&container) };
    fs::write(dir.join("spec.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    let mut command = Command::new("/proc/self/exe");
    let mut doomed = command.args(["--daemon".as_ref(), dir.as_os_str()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 8];
    doomed.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    doomed.kill().unwrap();
    doomed.wait().unwrap();

    let (mut daemon, state) = Daemon::reconnect(dir);
    assert!(state.pid > 0 && state.started_at > 0 && state.exit.is_none() && state.id == container.bundle.id);
    let mut client = daemon.attach(all_streams(true, false));
    read_until(&mut client, "line");
    write(&mut client, b"end\n");
    assert_eq!(daemon.exited(None).code, 5);
    let log = log_text(dir);
    let expected: String = (0..log.lines().count()).map(|n| format!("line {n}\n")).collect();
    assert_eq!(log, expected);
    daemon.release();
}

fn the_container_dies_with_its_monitor() {
    let container = Container::sh("sleep 1000");
    let (mut daemon, pidfd, _) = monitor(&container);
    let pid = daemon.started(&specification(&container), &[]);
    sys::process::signal(&pidfd, 9).unwrap();
    assert!(daemon.receive().is_none());
    let started = Instant::now();
    // Its parent is gone: it becomes a zombie of the system's init, or disappears.
    while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z ")) {
        assert!(started.elapsed() < LIMIT);
        sleep(Duration::from_millis(10));
    }
    assert!(!container.dir.path().join("exit").exists());
}

fn a_flood_and_a_container_that_ignores_signals() {
    let container =
        Container::sh("trap '' TERM; while :; do echo a line of the flood, of some length, again and again; done");
    let (mut daemon, pidfd, _) = monitor(&container);
    daemon.started(&specification(&container), &[]);
    let _never_read = daemon.attach(all_streams(false, true));
    for _ in 0..50 {
        // The flood has no end: that it is answered at all proves that neither it nor the client is waited for.
        daemon.request(&Request::Signal { exec: None, signal: 15, scope: Scope::Process }, &[]).unwrap();
        sleep(Duration::from_millis(10));
    }
    daemon.request(&Request::Signal { exec: None, signal: 9, scope: Scope::All }, &[]).unwrap();
    assert_eq!(daemon.exited(None).code, 137);
    drop(_never_read);
    finish(&container, daemon, &pidfd);
}

fn paused_and_resumed() {
    let container = Container::sh("while :; do echo tick; sleep 0.05; done");
    let (mut daemon, pidfd, _) = monitor(&container);
    daemon.started(&specification(&container), &[]);
    let length = || log_text(container.dir.path()).len();
    assert!(eventually(|| length() > 0));
    daemon.request(&Request::Freeze { frozen: true, passing: false }, &[]).unwrap();
    // What it wrote before is still read.
    let mut before = 0;
    assert!(eventually(|| {
        before = length();
        sleep(Duration::from_millis(300));
        length() == before
    }));
    let exec = Exec { id: "e".into(), ..Exec::default() };
    let answer = daemon.exec(exec, &process(&container, "true"), None);
    assert!(matches!(answer, Event::Failed { .. }), "{answer:?}");
    let (_second, state) = Daemon::reconnect(container.dir.path());
    assert!(state.paused);
    drop(_second);
    daemon.request(&Request::Freeze { frozen: false, passing: false }, &[]).unwrap();
    assert!(eventually(|| length() > before));
    daemon.request(&Request::Signal { exec: None, signal: 9, scope: Scope::Process }, &[]).unwrap();
    assert_eq!(daemon.exited(None).signal, Some(9));
    finish(&container, daemon, &pidfd);
}

fn out_of_memory_is_told() {
    let mut container = Container::sh("dd if=/dev/zero of=/dev/null bs=200M count=1");
    let limit = Some(16 << 20);
    container.linux().resources.memory = Some(oci::Memory { limit, swap: limit, ..Default::default() });
    let (mut daemon, pidfd, _) = monitor(&container);
    daemon.started(&specification(&container), &[]);
    let exit = daemon.exited(None);
    assert!(exit.oom && exit.code != 0, "{exit:?}");
    finish(&container, daemon, &pidfd);
}

fn published_port_to_the_container() {
    let container = Container::sh("sleep 100");
    let (mut daemon, pidfd, _) = monitor(&container);
    daemon.started(&specification(&container), &[]);
    // The container's side is played by a server of this namespace.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = front.local_addr().unwrap();
    let ports = vec![Port { transport: Transport::Tcp, target: server.local_addr().unwrap() }];
    daemon.client.send(77, &Request::Ports(ports), &[front.as_fd()]).unwrap();
    assert_eq!(daemon.receive(), Some(Event::Done { refused: None }));
    drop(front);
    let answering = std::thread::spawn(move || std::io::Write::write_all(&mut server.accept().unwrap().0, b"hello"));
    let mut text = String::new();
    TcpStream::connect(address).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    answering.join().unwrap().unwrap();
    daemon.request(&Request::Signal { exec: None, signal: 9, scope: Scope::Process }, &[]).unwrap();
    daemon.exited(None);
    assert!(TcpStream::connect(address).is_err(), "the port is free again");
    finish(&container, daemon, &pidfd);
}

/// Kilobytes of one line of `/proc/<pid>/smaps_rollup`.
fn memory(pid: i32, line: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let found =
        text.lines().filter(|l| l.starts_with(line)).filter_map(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
    found.sum()
}

fn private_memory_is_small() {
    let container = Container::sh("seq 1 200000; read x");
    let (mut daemon, pidfd, pid) = monitor(&container);
    let spec = StartSpec { open_stdin: true, ..specification(&container) };
    daemon.started(&spec, &[]);
    let mut client = daemon.attach(Attach { stdin: true, ..Attach::default() });
    let log = container.dir.path().join("c-json.log");
    assert!(eventually(|| fs::read_to_string(&log).unwrap().contains(r#""log":"200000\n""#)));
    // The pages of the program itself are shared with the daemon and all other monitors.
    let (private, pss) = (memory(pid, "Private_Dirty"), memory(pid, "Pss:"));
    println!("private {private} kB, pss {pss} kB with the program's pages");
    assert!(private <= 1024, "{private} kB of private memory");
    write(&mut client, b"\n");
    daemon.exited(None);
    finish(&container, daemon, &pidfd);
}

/// The budget is checked by the benchmark, with an optimised build; here every line must be there, and the time is shown.
fn a_hundred_megabytes_are_logged() {
    const LINES: u64 = 1_000_000;
    let line = "this is a line of one hundred bytes with nothing special in it, as programs write them all the day";
    let container = Container::sh(&format!("yes '{line}' | busybox head -n {LINES}"));
    std::os::unix::fs::symlink("busybox", container.lower().join("bin/yes")).unwrap();
    let (mut daemon, pidfd, _) = monitor(&container);
    let started = Instant::now();
    daemon.started(&specification(&container), &[]);
    assert_eq!(daemon.exited(None).code, 0);
    let logged = started.elapsed();
    // It does not wait for ever to be released.
    finish(&container, daemon, &pidfd);
    let copied = Instant::now();
    let target = container.dir.path().join("copy");
    let script = format!("busybox yes '{line}' | busybox head -n {LINES} | cat >{}", target.display());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    println!("logged in {logged:?}, copied by cat in {:?}", copied.elapsed());
    let kept = log_text(container.dir.path());
    assert!(kept.lines().all(|l| l == line) && kept.lines().count() as u64 > LINES / 4);
}
