//! The daemon's part in a test: requests, events with a time limit, attached clients.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::api::client::{Client, StartFds, listen};
use super::api::proto::{Attach, Event, Exec, Exit, Request, RuntimeChoice, StartSpec, State};

pub const LIMIT: Duration = Duration::from_secs(120);

/// One control connection.
pub struct Daemon {
    pub client: Client,
    /// Goes to the monitor with the start.
    listener: Option<OwnedFd>,
    seq: u32,
    /// Events that came while an answer was awaited.
    early: Vec<Event>,
}

impl Daemon {
    pub fn new(client: Client) -> Daemon {
        Daemon { client, listener: None, seq: 0, early: Vec::new() }
    }

    /// That of a monitor which is to listen in `dir`.
    pub fn of(client: Client, dir: &Path) -> Daemon {
        Daemon { listener: Some(listen(dir).unwrap()), ..Daemon::new(client) }
    }

    /// Connects to a monitor that runs already.
    pub fn reconnect(dir: &Path) -> (Daemon, State) {
        let mut daemon = Daemon::new(Client::connect(dir).unwrap());
        let Some(Event::Hello(state)) = daemon.receive() else { panic!("no hello") };
        (daemon, state)
    }

    /// The next message; `None` when the monitor has closed.
    pub fn receive(&mut self) -> Option<Event> {
        let started = Instant::now();
        loop {
            match self.client.receive() {
                Ok(packet) => return packet.map(|packet| packet.body),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => panic!("{e}"),
            }
            assert!(started.elapsed() < LIMIT, "no event in time");
            let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
            poll(&mut [PollFd::new(&self.client, PollFlags::IN)], Some(&timeout)).unwrap();
        }
    }

    /// The next event that answers nothing.
    pub fn event(&mut self) -> Event {
        if self.early.is_empty() { self.receive().expect("the monitor is gone") } else { self.early.remove(0) }
    }

    fn answer(&mut self) -> Event {
        loop {
            match self.receive().expect("the monitor is gone") {
                event @ (Event::Died { .. } | Event::Exited { .. } | Event::Detached { .. } | Event::Probed(_)) => {
                    self.early.push(event);
                }
                Event::Born { .. } => {}
                answer => return answer,
            }
        }
    }

    pub fn start(&mut self, spec: &StartSpec, sockets: &[&UnixStream]) -> Event {
        self.seq += 1;
        let listener = self.listener.take().expect("started once");
        let clients = sockets.iter().map(|socket| socket.as_fd()).collect();
        let fds = StartFds { listener: listener.as_fd(), netns: None, joined: Vec::new(), trees: Vec::new(), clients };
        self.client.start(self.seq, spec, &fds).unwrap();
        self.answer()
    }

    pub fn started(&mut self, spec: &StartSpec, sockets: &[&UnixStream]) -> i32 {
        match self.start(spec, sockets) {
            Event::Started { exec: None, pid, .. } => pid,
            other => panic!("not started: {other:?}"),
        }
    }

    pub fn exec(&mut self, exec: Exec, process: &runtime::oci::Process, socket: Option<&UnixStream>) -> Event {
        self.seq += 1;
        self.client.exec(self.seq, exec, process, socket.map(AsFd::as_fd)).unwrap();
        self.answer()
    }

    /// Sends a request, whose number comes back from [`Daemon::done`].
    #[allow(dead_code, reason = "not every test program uses it")]
    pub fn begin(&mut self, request: &Request) -> u32 {
        self.seq += 1;
        self.client.send(self.seq, request, &[]).unwrap();
        self.seq
    }

    /// The number of the next request that is done.
    #[allow(dead_code, reason = "not every test program uses it")]
    pub fn done(&mut self) -> u32 {
        let packet = loop {
            match self.client.receive() {
                Ok(packet) => break packet.expect("the monitor is gone"),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => panic!("{e}"),
            }
            let timeout = Timespec { tv_sec: LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(&self.client, PollFlags::IN)], Some(&timeout)).unwrap();
            assert!(ready > 0, "no answer in time");
        };
        assert_eq!(packet.body, Event::Done { refused: None });
        packet.seq
    }

    /// A request that is answered by `Done`; the refusal's text.
    pub fn request(&mut self, request: &Request, fds: &[&UnixStream]) -> Result<(), String> {
        self.seq += 1;
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        self.client.send(self.seq, request, &fds).unwrap();
        match self.answer() {
            Event::Done { refused } => refused.map_or(Ok(()), |refusal| Err(refusal.message)),
            other => panic!("{other:?}"),
        }
    }

    /// A further client of the container.
    pub fn attach(&mut self, attach: Attach) -> UnixStream {
        let (ours, theirs) = pair();
        self.request(&Request::Attach(attach), &[&theirs]).unwrap();
        ours
    }

    /// Waits for the end of the container or an exec.
    pub fn exited(&mut self, id: Option<&str>) -> Exit {
        loop {
            if let Event::Exited { exec, exit } = self.event()
                && exec.as_deref() == id
            {
                return exit;
            }
        }
    }

    /// Releases the monitor and waits until it is gone.
    pub fn release(mut self) {
        self.client.send(0, &Request::Release, &[]).unwrap();
        while self.receive().is_some() {}
    }
}

/// A client's connection: its end, and the one that the daemon hands over.
pub fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(LIMIT)).unwrap();
    (ours, theirs)
}

pub fn all_streams(stdin: bool, multiplex: bool) -> Attach {
    Attach { stdin, stdout: true, stderr: true, multiplex, ..Attach::default() }
}

/// Everything until the monitor closes its side.
pub fn read_all(socket: &mut UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    socket.read_to_end(&mut all).unwrap();
    all
}

/// Reads until the text has come by; everything that was read.
pub fn read_until(socket: &mut UnixStream, text: &str) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&all).contains(text) {
        let n = socket.read(&mut buffer).unwrap();
        assert!(n > 0, "closed before {text:?}: {:?}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

pub fn write(socket: &mut UnixStream, bytes: &[u8]) {
    socket.write_all(bytes).unwrap();
}

/// The payloads of frames, by stream: stdout, stderr.
pub fn unframe(mut bytes: &[u8]) -> (String, String) {
    let mut streams = [String::new(), String::new(), String::new()];
    while let Some((header, rest)) = bytes.split_at_checked(8) {
        let length = u32::from_be_bytes(header[4..].try_into().unwrap()) as usize;
        streams[usize::from(header[0])].push_str(std::str::from_utf8(&rest[..length]).unwrap());
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "half a frame");
    let [_, stdout, stderr] = streams;
    (stdout, stderr)
}

/// A specification around `bundle` with a log; all files in `dir`.
pub fn spec(dir: &Path, bundle: runtime::Bundle) -> StartSpec {
    StartSpec {
        bundle,
        runtime: RuntimeChoice::Builtin,
        open_stdin: false,
        stdin_once: false,
        log: log(dir, "json-file", &[]),
        exit_path: dir.join("exit"),
        spill_dir: dir.to_owned(),
        netns: false,
        joined: Vec::new(),
        trees: 0,
        attach: Vec::new(),
        resolver: None,
    }
}

/// A log in `dir`.
pub fn log(dir: &Path, driver: &str, options: &[(&str, &str)]) -> logs::Spec {
    let options = options.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    let place = logs::Place { dir: dir.to_owned(), id: "c".into() };
    logs::Spec { driver: driver.into(), options, attrs: String::new(), place }
}

/// The log's text of both streams.
pub fn log_text(dir: &Path) -> String {
    let options = logs::ReadOptions { stdout: true, stderr: true, ..Default::default() };
    let log = self::log(dir, "json-file", &[]);
    let mut reader = logs::find(&log.driver).unwrap().read(&log.place, options).unwrap().unwrap();
    let mut out = Vec::new();
    while reader.next_batch(&mut out).unwrap() == logs::Batch::More {}
    String::from_utf8(out).unwrap()
}

/// Both ends of a control connection.
#[allow(dead_code)]
pub fn sockets() -> (Client, OwnedFd) {
    let (ours, theirs) = sys::fdpass::pair().unwrap();
    (Client::new(ours).unwrap(), theirs)
}
