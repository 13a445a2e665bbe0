//! Links that should have died with their namespace.
//!
//! The kernel deletes a pair when its namespace ends, in the background and many at once; deleting one by request takes
//! ten times longer than making it (RCU grace periods under the global lock). So a released link is left to its
//! namespace, and only when it is still there after a while (something else holds the namespace) it is deleted here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::lock::{Mutex, MutexGuard};
use sys::netlink::{Batch, Socket, link};

/// How long a namespace may take to end before its link is deleted.
const PATIENCE: Duration = Duration::from_secs(2);

/// Links of released endpoints, swept by a thread that exists only while there are any.
#[derive(Clone, Debug, Default)]
pub struct Lingering {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Released since the sweep began; they get their full patience.
    fresh: BTreeSet<String>,
    sweeping: bool,
}

impl Lingering {
    /// Looks after a link from now on. `socket` belongs to the namespace that the link is in.
    pub fn watch(&self, link: String, socket: impl FnOnce() -> std::io::Result<Socket>) {
        let mut state = self.lock();
        state.fresh.insert(link);
        if state.sweeping {
            return;
        }
        let mine = self.clone();
        let thread = socket().and_then(|socket| {
            std::thread::Builder::new()
                .name("links".to_owned())
                .stack_size(128 * 1024)
                .spawn(move || mine.sweep(socket))
        });
        match thread {
            Ok(_) => state.sweeping = true,
            Err(error) => tracing::warn!(%error, "cannot look after released links"),
        }
    }

    /// How many links were released since the sweep began.
    pub fn count(&self) -> usize {
        self.lock().fresh.len()
    }

    fn sweep(&self, mut socket: Socket) {
        let mut waited = BTreeSet::new();
        loop {
            std::thread::sleep(PATIENCE);
            delete_present(&mut socket, &waited);
            let mut state = self.lock();
            waited = std::mem::take(&mut state.fresh);
            if waited.is_empty() {
                state.sweeping = false;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Both fields are right after every statement: a panic elsewhere leaves them so.
        self.state.lock()
    }
}

/// Deletes those of the links that exist.
pub fn delete_present(socket: &mut Socket, names: &BTreeSet<String>) {
    if names.is_empty() {
        return;
    }
    let present = match link::list(socket) {
        Ok(links) => links,
        Err(error) => return tracing::warn!(%error, "cannot list links"),
    };
    for found in present.iter().filter(|l| l.kind == "veth" && names.contains(&l.name)) {
        let mut batch = Batch::new();
        link::delete(&mut batch, &found.name);
        match socket.request(&mut batch) {
            Ok(()) => (),
            Err(error) if error.errno == rustix::io::Errno::NODEV => (),
            Err(error) => tracing::warn!(%error, link = %found.name, "cannot delete link"),
        }
    }
}
