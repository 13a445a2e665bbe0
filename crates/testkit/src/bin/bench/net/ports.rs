//! Containers with 16,384 published ports, contiguous and scattered: time of the start, memory of the engine and of the
//! kernel, and whether it is given back.

use std::time::{Duration, Instant};

use testkit::{Daemon, process};

use crate::engine::{Engine, micros};
use crate::figures::{Figures, Samples};
use crate::memory::mib;

const PORTS: u16 = 16_384;
/// Rounds of changes of one of them.
const CHANGES: usize = 5;
/// Twice as many ports from here on end below [`super::EPHEMERAL`].
const FIRST: u16 = 12_000;
/// MB that may stay in memory when all ports are gone.
const KEPT: f64 = 1.0;
/// The engine gives memory back some seconds after it was needed: how often it is looked at, how many looks find the same, and
/// how many there are.
const LOOK: Duration = Duration::from_millis(500);
const SAME: usize = 6;
const LOOKS: usize = 40;
/// MB that are the same.
const STEP: f64 = 0.2;

/// Memory in MB.
struct Memory {
    /// Of the daemon and its monitors, shared pages by parts.
    engine: f64,
    /// Slab of the whole machine.
    kernel: f64,
}

impl Memory {
    /// When it does not shrink any more.
    fn settled(daemon: &Daemon) -> Self {
        let (mut least, mut same) = (Self::now(daemon), 0);
        for _ in 0..LOOKS {
            std::thread::sleep(LOOK);
            let now = Self::now(daemon);
            same = if now.engine > least.engine - STEP { same + 1 } else { 0 };
            least = if now.engine < least.engine { now } else { least };
            if same == SAME {
                break;
            }
        }
        least
    }

    fn now(daemon: &Daemon) -> Self {
        let own = process::all().into_iter().filter(|pid| process::parent(*pid) == Some(daemon.pid()));
        let engine = own.chain([daemon.pid()]).map(|pid| mib(pid, "smaps_rollup", "Pss:")).sum();
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let slab = text.lines().find_map(|line| line.strip_prefix("Slab:")?.split_whitespace().next()?.parse().ok());
        Self { engine, kernel: slab.unwrap_or(0.0) / 1024.0 }
    }
}

pub fn run(daemon: &Daemon, engine: &Engine, figures: &mut Figures) {
    // What a first container brings with it is no port's.
    published(engine, &[FIRST], |_| ());
    let (before, mut one) = (Memory::settled(daemon), None);
    published(engine, &[FIRST], |_| one = Some(Memory::settled(daemon)));
    let one = one.expect("the container ran").engine - before.engine;
    figures.at_most("container with one port: PSS", one, "MB", None);
    let contiguous: Vec<u16> = (0..PORTS).map(|n| FIRST + n).collect();
    measure("contiguous", &contiguous, (daemon, engine), (200.0, Some(5.0)), figures);
    measure("contiguous, once more", &contiguous, (daemon, engine), (200.0, Some(5.0)), figures);
    change(&contiguous, engine, figures);
    let scattered: Vec<u16> = (0..PORTS).map(|n| FIRST + 2 * n).collect();
    measure("scattered", &scattered, (daemon, engine), (2000.0, None), figures);
}

/// One port in the middle of the range of a running container goes, and comes back.
fn change(ports: &[u16], engine: &Engine, figures: &mut Figures) {
    let (middle, mut took) = (ports[ports.len() / 2], Vec::new());
    published(engine, ports, |id| {
        for _ in 0..CHANGES {
            for what in ["Remove", "Add"] {
                let body = format!(r#"{{"{what}":{{"{middle}/tcp":[{{"HostPort":"{middle}"}}]}}}}"#);
                let begin = Instant::now();
                engine.connect().post(&format!("/containers/{id}/ports"), &body, 200);
                took.push(micros(begin));
            }
        }
    });
    figures.time(&format!("{} contiguous ports: change of one", ports.len()), &Samples::new(took));
}

/// Budgets in milliseconds and MB.
fn measure(
    what: &str,
    ports: &[u16],
    (daemon, engine): (&Daemon, &Engine),
    (time, memory): (f64, Option<f64>),
    figures: &mut Figures,
) {
    let before = Memory::settled(daemon);
    let (mut at_once, mut with) = (0.0, None);
    let took = published(engine, ports, |_| {
        at_once = Memory::now(daemon).engine;
        with = Some(Memory::settled(daemon));
    });
    let with = with.expect("the container ran");
    let after = Memory::settled(daemon);
    let name = format!("{} {what} ports", ports.len());
    figures.at_most(&format!("{name}: start"), took / 1000.0, "ms", Some(time));
    figures.at_most(&format!("{name}: PSS at once"), at_once - before.engine, "MB", None);
    figures.at_most(&format!("{name}: PSS"), with.engine - before.engine, "MB", memory);
    figures.at_most(&format!("{name}: slab of the kernel"), with.kernel - before.kernel, "MB", None);
    figures.at_most(&format!("{name}: PSS kept afterwards"), after.engine - before.engine, "MB", Some(KEPT));
}

/// Starts a container with these ports, calls `with` and removes it; microseconds of the start.
fn published(engine: &Engine, ports: &[u16], with: impl FnOnce(&str)) -> f64 {
    let bindings: Vec<String> = ports.iter().map(|port| format!(r#""{port}/tcp":[{{"HostPort":"{port}"}}]"#)).collect();
    let body = format!(
        r#"{{"Image":"probe","Cmd":["sleep","100000"],"HostConfig":{{"PortBindings":{{{}}}}}}}"#,
        bindings.join(",")
    );
    // The engine may end the connection of a long request.
    let answer = engine.connect().post("/v1.41/containers/create", &body, 201);
    let id = answer["Id"].as_str().expect("an id").to_string();
    let mut client = engine.connect();
    let begin = Instant::now();
    client.start(&id);
    let took = micros(begin);
    with(&id);
    client.remove(&id);
    took
}
