//! Priorities: work that nobody waits for gives way to work that somebody waits for.
//!
//! A nice value (sched(7)) belongs to a thread, is inherited by its children, and counts within a session where the kernel
//! groups sessions (autogroup). Such work still gets its share of busy processors: it may hold a lock of the kernel's.

use std::io;

use rustix::process::{Pid, getpriority_process, setpriority_process};

/// The nice value of work in the background: a tenth of what other work gets.
const BACKGROUND: i32 = 10;

/// Gives the process `pid`, which has one thread, the priority of this thread.
pub fn same_as_ours(pid: i32) -> io::Result<()> {
    Ok(setpriority_process(Pid::from_raw(pid), getpriority_process(None)?)?)
}

/// Lets this thread work in the background for the rest of its life.
pub fn go_to_the_background() -> io::Result<()> {
    Ok(setpriority_process(None, (getpriority_process(None)? + BACKGROUND).min(19))?)
}

/// Runs `work` on this thread in the background. Without `CAP_SYS_NICE` a thread cannot come back from there: then it runs as
/// any other work.
pub fn in_the_background<T>(work: impl FnOnce() -> T) -> T {
    let may = crate::capability::get().is_ok_and(|own| own.effective.names().any(|name| name == "CAP_SYS_NICE"));
    let before = getpriority_process(None).ok().filter(|_| may && go_to_the_background().is_ok());
    let result = work();
    if let Some(before) = before {
        // It was allowed a moment ago.
        let _ = setpriority_process(None, before);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        getpriority_process(None).unwrap()
    }

    #[test]
    fn work_in_the_background_is_nice_for_its_time_only() {
        let before = nice();
        let may = std::thread::spawn(move || {
            go_to_the_background().is_ok() && nice() > before && setpriority_process(None, before).is_ok()
        });
        let expected = if may.join().unwrap() { (before + BACKGROUND).min(19) } else { before };
        assert_eq!(in_the_background(nice), expected);
        assert_eq!(nice(), before);
        same_as_ours(0).unwrap();
    }
}
