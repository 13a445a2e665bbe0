//! How many descriptors this process may still open (`RLIMIT_NOFILE`, getrlimit(2)), and the reserve for taking back and removing.
//!
//! Who begins something asks first ([`are_short`]), and is refused or waits while few are left; who takes something back or
//! removes it does not ask. So what a shortage makes fail half way can be undone.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// Left for clients and what they ask for when creates, starts and execs have taken the others: these are refused from then on.
pub const KEPT_FROM_STARTS: u64 = 64;
/// Left for undoing and removing when new clients have taken the others, too: they wait from then on.
pub const KEPT_FROM_CLIENTS: u64 = 32;
/// How often an undoing that failed is tried again while they are short: others are taking back what they have, too.
pub const RETRIES: usize = 50;
/// Between two of these.
pub const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Whether no more than `kept` can be opened.
pub fn are_short(kept: u64) -> bool {
    free().is_some_and(|free| free <= kept)
}

/// How many this process may still open. `None`: there is no limit, or nobody tells the number.
pub fn free() -> Option<u64> {
    Some(getrlimit(Resource::Nofile).current?.saturating_sub(open()?))
}

/// How many are open: since Linux 6.2 the size of the directory says so (proc_pid_fd(5)), before they are counted.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
fn open() -> Option<u64> {
    let dir = Path::new("/proc/self/fd");
    match rustix::fs::stat(dir).ok()?.st_size {
        0 => u64::try_from(std::fs::read_dir(dir).ok()?.count()).ok(),
        open => u64::try_from(open).ok(),
    }
}

/// Calls `attempt` until it succeeds, at most [`RETRIES`] times more, as long as it fails while descriptors are short. Blocks.
pub fn persist<E>(mut attempt: impl FnMut() -> Result<(), E>) -> Result<(), E> {
    for _ in 0..RETRIES {
        match attempt() {
            Err(_) if are_short(KEPT_FROM_CLIENTS) => std::thread::sleep(RETRY_PAUSE),
            outcome => return outcome,
        }
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_counted() {
        let held: Vec<_> = (0..100).filter_map(|_| std::fs::File::open("/dev/null").ok()).collect();
        let now = open().unwrap();
        assert!(now >= held.len() as u64 + 3, "{now}");
        let limit = getrlimit(Resource::Nofile).current.unwrap();
        assert!(are_short(limit) && !are_short(0));
    }

    #[test]
    fn an_error_for_another_reason_is_told_at_once() {
        let mut attempts = 0;
        let outcome = persist(|| {
            attempts += 1;
            Err::<(), _>("no")
        });
        assert_eq!((outcome, attempts), (Err("no"), 1));
    }
}
