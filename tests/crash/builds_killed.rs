//! `kill -9` of the daemon at random moments of builds: the next build uses what was finished, `gantryd check` is clean, and
//! nothing of a step is left.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use testkit::command::{PATIENCE, eventually};
use testkit::images::Tar;
use testkit::{Connection, Daemon, soak};

use crate::ledger::{Answered, Dice};
use crate::with_busybox;

/// In `cargo xtask test` and in `cargo xtask soak`.
const ROUNDS: (usize, usize) = (5, 50);
const CLIENTS: u64 = 3;
/// Longest time that the daemon lives on in one round, in milliseconds.
const LONGEST_LIFE: u64 = 700;
/// Different builds of one client.
const BUILDS: u64 = 4;

/// A client that builds one thing after the other, and knows what was finished.
struct Client<'a> {
    number: u64,
    dice: Dice,
    finished: BTreeSet<u64>,
    answered: &'a Answered,
}

/// The Dockerfile of a build: files of the context, steps, a stage beside it, volumes.
fn dockerfile(client: u64, build: u64) -> String {
    format!(
        "FROM busybox AS a\nCOPY f /f\nRUN cat /f /f > /g && echo {client}-{build} >> /g\nFROM busybox\nVOLUME /v\n\
         COPY --from=a /g /g\nRUN mkdir /d && for i in 1 2 3 4; do cp /g /d/$i; done\nWORKDIR /w\nLABEL build={client}-{build}\n"
    )
}

/// Sends a build of this name; what the daemon said of it, or nothing when it died.
fn build(c: &mut Connection, (client, build): (u64, u64)) -> Option<String> {
    let context =
        Tar::new().file("Dockerfile", 0o644, dockerfile(client, build).as_bytes()).file("f", 0o644, &[b'x'; 50_000]);
    let body = context.bytes();
    let head = format!(
        "POST /build?t=b{client}:{build} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let sent = c.send(head.as_bytes()).and_then(|()| c.send(&body)).and_then(|()| c.head());
    let answer = sent.and_then(|head| Ok((head.status, c.body(&head)?))).ok()?;
    let text = String::from_utf8_lossy(&answer.1).into_owned();
    assert!(answer.0 == 200 && !text.contains("errorDetail"), "{} {text}", answer.0);
    // A stream that was cut off has no last line.
    text.contains("Successfully tagged").then_some(text)
}

impl Client<'_> {
    /// Builds until the daemon dies.
    fn work(&mut self, socket: &Path) {
        let Ok(mut connection) = Connection::open(socket) else { return };
        loop {
            let next = self.dice.below(BUILDS);
            let Some(_) = build(&mut connection, (self.number, next)) else { return };
            self.finished.insert(next);
            self.answered.add();
        }
    }

    /// What was told to be finished is here, and its steps are not run again.
    fn verify(&mut self, d: &Daemon) {
        for finished in std::mem::take(&mut self.finished) {
            let mut connection = d.connection();
            let text = build(&mut connection, (self.number, finished)).expect("the daemon lives");
            assert_eq!(text.matches("Using cache").count(), 7, "{}-{finished}: {text}", self.number);
            let name = format!("b{}:{finished}", self.number);
            let label = d.inspect(&name, "{{index .Config.Labels \"build\"}}");
            assert_eq!(label, format!("{}-{finished}", self.number));
        }
    }
}

#[test]
fn the_next_build_uses_what_was_finished() {
    let mut d = with_busybox();
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    eprintln!("seed {seed}");
    let (mut dice, answered) = (Dice::new(seed), Answered::default());
    let client = |number: u64| Client {
        number,
        dice: Dice::new(seed.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15))),
        finished: BTreeSet::new(),
        answered: &answered,
    };
    let mut clients: Vec<Client<'_>> = (0..CLIENTS).map(client).collect();
    for round in 0..soak::rounds(ROUNDS.0, ROUNDS.1) as u64 {
        let socket = d.socket();
        let worked = std::thread::scope(|scope| {
            for client in &mut clients {
                let socket = &socket;
                scope.spawn(move || client.work(socket));
            }
            let worked = answered.random_moment(round, CLIENTS, &mut dice, LONGEST_LIFE);
            d.kill9();
            worked
        });
        assert!(worked, "round {round}: only {} builds were finished", answered.count());
        d.again();
        clients.iter_mut().for_each(|client| client.verify(&d));
        let steps = || std::fs::read_dir(d.exec_root()).unwrap().flatten().any(|entry| entry.file_name().len() == 64);
        assert!(eventually(PATIENCE, || !steps()), "round {round}: a step is left");
        assert_eq!(d.faults(), Vec::<String>::new(), "round {round}");
        if round % 2 == 1 {
            let _ = d.http("POST", "/build/prune?all=1", "").expect(200);
            assert_eq!(d.faults(), Vec::<String>::new(), "round {round}: after a prune");
        }
    }
    d.finish();
}
