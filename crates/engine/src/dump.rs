//! What the daemon is doing, for people who look for what hangs: its threads, its containers, the sizes of its tables.

use std::fmt::Write;
use std::fs;

use blocking::Blocking;

use crate::Engine;
use crate::tables;

/// Threads and containers that are shown at most.
const MOST: usize = 10_000;

/// All of it, as text.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
pub fn text(engine: &Engine, _on: &Blocking) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for thread in fs::read_dir("/proc/self/task").into_iter().flatten().flatten().take(MOST) {
        let read = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let state = read("status").lines().find_map(|line| line.strip_prefix("State:\t").map(str::to_owned));
        let (name, place) = (read("comm"), read("wchan"));
        let (number, state) = (thread.file_name(), state.unwrap_or_default());
        _ = writeln!(text, "thread {} {} [{state}] waits in {place}", number.display(), name.trim());
        read("stack").lines().for_each(|line| _ = writeln!(text, "    {line}"));
    }
    text.push('\n');
    for (name, size) in tables::sizes(engine) {
        _ = writeln!(text, "table {name}: {size}");
    }
    _ = writeln!(text, "events: {} so far, {} readers", engine.events.newest(), engine.events.listeners());
    let runtime = tokio::runtime::Handle::try_current().map(|handle| handle.metrics());
    if let Ok(runtime) = runtime {
        let (tasks, waiting) = (runtime.num_alive_tasks(), runtime.global_queue_depth());
        _ = writeln!(text, "tasks: {tasks}, {waiting} of them wait for a worker");
    }
    text.push('\n');
    for handle in engine.containers.all().into_iter().take(MOST) {
        let view = handle.view();
        let (id, queue) = (view.row.id.short(), handle.waiting());
        let execs = view.exec_ids.len();
        _ = writeln!(
            text,
            "container {id} {} [{:?}] process {}, execs {execs}, commands that wait {queue}, restarts {}",
            view.row.name, view.row.state, view.pid, view.row.run.restart_count
        );
    }
    text
}
