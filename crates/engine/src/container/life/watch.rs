//! Monitors that stand still. Nothing of a container can be seen or changed while its monitor does not run, and its output stops
//! when the pipe is full; so the daemon looks at their states from time to time, which costs them nothing.
//!
//! One that a signal has stopped (a program in a container with the host's PID namespace may send it, a user by mistake) is let
//! go on. One that is traced, or waits for the kernel for long (a disk that does not answer), is told of, once. One that runs
//! at every look (it copies output, or it is in a loop that does not end) is asked for a sign of life, which an idle one never
//! is; one that gives none is told of, once.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Weak};
use std::time::Duration;

use model::id::ContainerId;
use run::link;
use rustix::process::Signal;

use crate::Engine;
use crate::container::registry::command::Command;
use crate::container::{Containers, Handle};

/// The pause between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// Looks at a monitor in the same uninterruptible wait before that is told: half a minute.
const STUCK: u32 = 6;

/// Looks at a monitor that was running each time before it is asked for a sign of life.
const BUSY: u32 = 2;
/// How long a monitor may take for it: as long as a busy machine may keep it from running.
const SIGN: Duration = Duration::from_secs(5);
/// Monitors that are asked between two looks.
const ASKED: usize = 64;

/// What was seen of a monitor at the last looks.
#[derive(Clone, Copy)]
struct Seen {
    state: char,
    /// At how many looks in a row.
    times: u32,
    /// It was asked for a sign of life and gave none.
    silent: bool,
}

/// What is remembered of monitors that do not just wait for something to do.
type Remembered = HashMap<ContainerId, Seen>;

/// Watches until the engine is gone.
pub fn start(engine: &Arc<Engine>) {
    let engine = Arc::downgrade(engine);
    tokio::spawn(async move { watch(engine).await });
}

async fn watch(engine: Weak<Engine>) {
    let mut remembered = Remembered::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(engine) = engine.upgrade() else { return };
        let threads = engine.containers.threads.background.clone();
        let containers = engine.clone();
        let looked = threads.run(move |_| {
            look(&containers.containers, &mut remembered);
            Ok(remembered)
        });
        let Ok(found) = looked.await else { return };
        remembered = found;
        let busy = |seen: &Seen| seen.state == 'R' && seen.times == BUSY;
        let asked = remembered.iter().filter(|(_, seen)| busy(seen)).take(ASKED);
        let asked: Vec<_> = asked.filter_map(|(id, _)| engine.containers.find(id.as_str()).ok()).collect();
        drop(engine);
        for id in silent(asked).await {
            if let Some(seen) = remembered.get_mut(&id) {
                seen.silent = true;
            }
            tracing::warn!(
                container = id.short(),
                "the container's monitor runs all the time and answers nothing; killing the container ends it"
            );
        }
    }
}

/// Those that give no sign of life; all are asked at once.
async fn silent(asked: Vec<Handle>) -> Vec<ContainerId> {
    let mut signs = tokio::task::JoinSet::new();
    for handle in asked {
        signs.spawn(async move {
            let sign = handle.ask(|reply| Command::Ping { reply });
            tokio::time::timeout(SIGN, sign).await.is_err().then(|| handle.id.clone())
        });
    }
    signs.join_all().await.into_iter().flatten().collect()
}

fn look(containers: &Containers, remembered: &mut Remembered) {
    let before = std::mem::take(remembered);
    for handle in containers.all() {
        let view = handle.view();
        if view.pid == 0 {
            continue;
        }
        // The monitor is the parent of the container's first process.
        let Some((_, monitor)) = stat(view.pid) else { continue };
        let Some((state, _)) = stat(monitor) else { continue };
        let id = &view.row.id;
        let last = before.get(id);
        let same = last.filter(|last| last.state == state);
        let seen = Seen {
            state,
            times: same.map_or(1, |last| last.times.saturating_add(1)),
            silent: same.is_some_and(|last| last.silent),
        };
        let container = id.short();
        match (state, seen.times) {
            ('T', _) if link::signal_monitor(monitor, id.as_str(), Signal::CONT) => {
                tracing::warn!(container, "the container's monitor was stopped by a signal; it was let go on");
            }
            ('t', 1) => tracing::warn!(container, "the container's monitor is traced and may stand still"),
            ('D', STUCK) => {
                tracing::warn!(
                    container,
                    seconds = STUCK * 5,
                    "the container's monitor waits for the kernel, a disk perhaps"
                );
            }
            ('T' | 't' | 'D' | 'R', _) => {}
            _ => {
                if last.is_some_and(|last| last.state == 't' || last.state == 'D' && last.times >= STUCK || last.silent)
                {
                    tracing::info!(container, "the container's monitor goes on");
                }
                continue;
            }
        }
        remembered.insert(id.clone(), seen);
    }
}

/// State and parent of a process (proc_pid_stat(5)); its name may hold anything.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
fn stat(pid: i32) -> Option<(char, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_parents() {
        let own = std::process::id().cast_signed();
        let parent = rustix::process::getppid().expect("a parent").as_raw_pid();
        assert_eq!(stat(own).map(|(_, parent)| parent), Some(parent));
        assert_eq!(stat(i32::MAX), None);
    }
}
