//! A monitor of the simulation, at the other end of the actor's own connection: it answers most of the time, ends when it
//! likes, and is killed now and then.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::signal;
use monitor::proto::{self, Event, Exit, Packet, Reason, Refusal, Request};
use run::link::register;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, sleep_until};

use super::world::Sim;

/// The signal that every container heeds at once.
pub const ENDS_AT_ONCE: i32 = 12;

/// Starts one.
pub fn run(sim: Sim, socket: OwnedFd) {
    sim.0.monitors.fetch_add(1, Ordering::Relaxed);
    rustix::io::ioctl_fionbio(&socket, true).unwrap();
    let socket = register(socket, Interest::READABLE).unwrap();
    tokio::spawn(async move {
        Monitor { sim: sim.clone(), socket, stands_still: false, ends_at: None, probe: None }.live().await;
        sim.0.monitors.fetch_sub(1, Ordering::Relaxed);
    });
}

struct Monitor {
    sim: Sim,
    socket: AsyncFd<OwnedFd>,
    /// It reads nothing and answers nothing, until somebody kills it.
    stands_still: bool,
    /// When its container ends, and how.
    ends_at: Option<(Instant, i32)>,
    /// The probe under way, and when it ends.
    probe: Option<(String, Instant)>,
}

impl Monitor {
    async fn live(mut self) {
        let random = self.sim.0.random.fork();
        if self.sim.fails(2) {
            self.ends_at = Some((Instant::now() + random.pause() * 4, *random.choose(&[0, 0, 1, 137])));
        }
        loop {
            let end = self.ends_at.map_or_else(|| Instant::now() + Duration::from_secs(1 << 20), |(at, _)| at);
            tokio::select! {
                request = receive(&self.socket), if !self.stands_still => match request {
                    Some(request) => if !self.obey(request) { return },
                    None => return,
                },
                () = sleep_until(end) => return self.end().await,
                () = sleep_until(self.probe.as_ref().map_or(end, |(_, at)| *at)), if self.probe.is_some() => self.probed(),
            }
            if self.sim.fails(60) {
                // Killed.
                return;
            }
            if self.sim.fails(60) {
                self.stands_still = true;
                sleep(Duration::from_secs(40)).await;
                return;
            }
        }
    }

    /// Whether it lives on.
    fn obey(&mut self, Packet { seq, body }: Packet<Request>) -> bool {
        let random = &self.sim.0.random;
        self.sim.trace(|| format!("monitor is asked {body:?}"));
        match body {
            Request::Release => return false,
            Request::Exec(exec) => self.begin_probe(seq, exec),
            Request::Signal { exec: Some(id), .. } => {
                self.probe.take_if(|(probe, _)| *probe == id);
                self.done(seq);
            }
            Request::Signal { signal: signal::KILL, .. } => {
                self.done(seq);
                // Some processes wait for a disk for longer than anybody does.
                let wait = if self.sim.fails(8) { Duration::from_secs(30) } else { random.pause() };
                self.ends_at = Some((Instant::now() + wait, 137));
            }
            Request::Signal { signal: ENDS_AT_ONCE, .. } => {
                self.done(seq);
                self.ends_at = Some((Instant::now(), 143));
            }
            Request::Signal { .. } => {
                self.done(seq);
                if random.one_in(2) {
                    self.ends_at = Some((Instant::now() + random.pause(), 143));
                }
            }
            Request::Freeze { .. } if self.sim.fails(10) => {
                self.tell(seq, Event::Done { refused: Some(Refusal { reason: Reason::Failed, message: "no".into() }) });
            }
            _ => self.done(seq),
        }
        true
    }

    /// Most begin; some say nothing for longer than anybody waits.
    fn begin_probe(&mut self, seq: u32, exec: proto::Exec) {
        let random = &self.sim.0.random;
        assert!(exec.probe != 0 && self.probe.is_none(), "a second probe at once");
        if self.sim.fails(10) {
            let error = runtime::StartError::new(runtime::Stage::Clone, 11, "no");
            return self.tell(seq, Event::Failed { exec: Some(exec.id), error });
        }
        let lasts = if self.sim.fails(10) { Duration::from_secs(1000) } else { random.pause() };
        self.tell(seq, Event::Started { exec: Some(exec.id.clone()), pid: 2, at: 1 });
        self.probe = Some((exec.id, Instant::now() + lasts));
    }

    fn probed(&mut self) {
        let Some((id, _)) = self.probe.take() else { return };
        let code = *self.sim.0.random.choose(&[0, 0, 1, -1]);
        let result = proto::Probed { id, code, is_late: code < 0, ended_at: 2, ..proto::Probed::default() };
        self.tell(0, Event::Probed(result));
    }

    /// The container ends: told at once, or when everything is removed, or not at all.
    async fn end(self) {
        let random = self.sim.0.random.fork();
        let code = self.ends_at.map_or(0, |(_, code)| code);
        let exit = Exit { code, at: 1, oom: random.one_in(10), ..Exit::default() };
        if exit.oom && random.one_in(2) {
            self.tell(0, Event::OutOfMemory);
        }
        if !random.one_in(5) {
            self.tell(0, Event::Died { exit: exit.clone() });
            sleep(random.pause() * 2).await;
        }
        if self.sim.fails(10) {
            return;
        }
        let error = if random.one_in(5) { "a log line was lost".to_owned() } else { String::new() };
        self.tell(0, Event::Exited { exec: None, exit: Exit { error, ..exit } });
        // Until it is let go, or its daemon is gone, as long as it waits for that.
        let released = async {
            while let Some(Packet { body, seq }) = receive(&self.socket).await {
                match body {
                    Request::Release => return,
                    _ => self.done(seq),
                }
            }
        };
        drop(tokio::time::timeout(Duration::from_secs(300), released).await);
    }

    fn done(&self, seq: u32) {
        self.tell(seq, Event::Done { refused: None });
    }

    fn tell(&self, seq: u32, event: Event) {
        self.sim.trace(|| format!("monitor tells {event:?}"));
        // The actor may be gone.
        drop(sys::fdpass::send(self.socket.get_ref(), &proto::encode(seq, event), &[]));
    }
}

async fn receive(socket: &AsyncFd<OwnedFd>) -> Option<Packet<Request>> {
    let read = |socket: &OwnedFd| {
        let mut buffer = vec![0; proto::MAX_PACKET];
        let (n, _) = sys::fdpass::receive(socket, &mut buffer)?;
        buffer.truncate(n);
        Ok(buffer)
    };
    let bytes = socket.async_io(Interest::READABLE, read).await.ok().filter(|bytes| !bytes.is_empty())?;
    proto::decode(&bytes).ok()
}
