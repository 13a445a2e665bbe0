//! Monitors that stand still. Nothing of a container can be seen or changed while its monitor does not run, and its output stops
//! when the pipe is full; so the daemon looks at their states from time to time, which costs them nothing.
//!
//! One that a signal has stopped (a program in a container with the host's PID namespace may send it, a user by mistake) is let
//! go on. One that is traced, or waits for the kernel for long (a disk that does not answer), is told of, once.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Weak};
use std::time::Duration;

use model::id::ContainerId;
use run::link;
use rustix::process::Signal;

use crate::Engine;
use crate::container::Containers;

/// The pause between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// Looks at a monitor in the same uninterruptible wait before that is told: half a minute.
const STUCK: u32 = 6;

/// What was wrong with a monitor at the last looks, and at how many.
type Wrongs = HashMap<ContainerId, (char, u32)>;

/// Watches until the engine is gone.
pub fn start(engine: &Arc<Engine>) {
    let engine = Arc::downgrade(engine);
    tokio::spawn(async move { watch(engine).await });
}

async fn watch(engine: Weak<Engine>) {
    let mut wrongs = Wrongs::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(engine) = engine.upgrade() else { return };
        let threads = engine.containers.threads.background.clone();
        let looked = threads.run(move |_| {
            look(&engine.containers, &mut wrongs);
            Ok(wrongs)
        });
        let Ok(found) = looked.await else { return };
        wrongs = found;
    }
}

fn look(containers: &Containers, wrongs: &mut Wrongs) {
    let before = std::mem::take(wrongs);
    for handle in containers.all() {
        let view = handle.view();
        if view.pid == 0 {
            continue;
        }
        // The monitor is the parent of the container's first process.
        let Some((_, monitor)) = stat(view.pid) else { continue };
        let Some((state, _)) = stat(monitor) else { continue };
        let (id, last) = (&view.row.id, before.get(&view.row.id));
        let times = last.filter(|(last, _)| *last == state).map_or(1, |(_, times)| times + 1);
        let container = id.short();
        match (state, times) {
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
            ('T' | 't' | 'D', _) => {}
            _ => {
                if last.is_some_and(|(last, times)| *last == 't' || *times >= STUCK) {
                    tracing::info!(container, "the container's monitor goes on");
                }
                continue;
            }
        }
        wrongs.insert(id.clone(), (state, times));
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
