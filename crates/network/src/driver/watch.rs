//! Puts back what others take away while the daemon runs: the table of rules, at once, the settings of bridge devices, and
//! their places in a zone of firewalld (`zone`).
//!
//! One thread reads the kernel's notices of nf_tables and of links. A change of our table by another sender, or notices
//! that were lost, make it write the table again. Somebody who takes it away again and again is not followed without end:
//! the pause between two writes grows to `LONGEST_PAUSE`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use sys::netlink::wire::Message;
use sys::netlink::{Delivery, Notices, address, link};
use sys::nft;

use super::bridges::Bridges;
use super::{legacy, zone};
use crate::plan;

/// Pauses between two writes of the table while it is taken away again and again.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// After this long without a write the next is made at once.
const CALM: Duration = Duration::from_secs(10);
/// From the first notice of a change of another's table to a look at it: a firewall's reload is many changes.
const FOREIGN_SETTLING: Duration = Duration::from_millis(200);
/// How often tables of the old kind are looked at, whose changes nobody tells.
const LEGACY_LOOK: Duration = Duration::from_secs(10);
/// From the first notice of a device's change to its mending: whoever makes a device anew does so in several steps, and
/// must not find them done.
const SETTLING: Duration = Duration::from_millis(500);
const STACK: usize = 256 * 1024;

/// The threads; they end when this is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Watches the calling thread's namespace. What is missing already is put back first.
    pub fn start(bridges: Arc<Bridges>) -> io::Result<Watch> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let rules = match bridges.rules.port() {
            Some(port) => Some((Notices::nf_tables()?, port)),
            None => None,
        };
        let mut watcher = Watcher {
            links: Notices::links()?,
            rules,
            pace: Pace::default(),
            table_is_lost: false,
            mend_at: None,
            look_at: None,
            stop: stop.clone(),
            bridges,
        };
        watcher.first_look();
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
        let mut watch = Watch { stop: stop.clone(), threads: Vec::new() };
        let bridges = watcher.bridges.clone();
        watch.threads.push(thread("network-watch").spawn(move || watcher.run())?);
        if bridges.firewalld.has_bus() {
            watch.threads.push(thread("firewalld-watch").spawn(move || zone::watch(&bridges, &stop))?);
        }
        Ok(watch)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Nobody reads it: every thread sees it.
        if rustix::io::write(&*self.stop, &1u64.to_ne_bytes()).is_ok() {
            self.threads.drain(..).for_each(|thread| drop(thread.join()));
        }
    }
}

struct Watcher {
    bridges: Arc<Bridges>,
    links: Notices,
    /// With the sender of our own changes; `None` when no rules are kept.
    rules: Option<(Notices, u32)>,
    pace: Pace,
    table_is_lost: bool,
    mend_at: Option<Instant>,
    /// When tables of others are looked at.
    look_at: Option<Instant>,
    stop: Arc<OwnedFd>,
}

impl Watcher {
    /// Finds what changed between the making of rules and devices and the first notice.
    fn first_look(&mut self) {
        if let Err(error) = self.bridges.rules.verify() {
            tracing::warn!(%error, "cannot verify the firewall rules");
        }
        self.mend_at = Some(Instant::now());
        self.look_at = self.rules.is_some().then(Instant::now);
    }

    /// Lets the traffic of our bridges pass the chains of others, as these are now.
    fn look_at_others(&mut self, now: Instant) {
        self.look_at = legacy::stands().then(|| now + LEGACY_LOOK);
        if let Err(error) = self.bridges.rules.keep_jumps() {
            tracing::warn!(%error, "the host's own firewall may drop what is forwarded for containers");
        }
    }

    fn run(mut self) {
        loop {
            let now = Instant::now();
            if self.table_is_lost && self.pace.allows(now) {
                self.restore_table(now);
            }
            if self.mend_at.is_some_and(|at| at <= now) {
                self.mend_at = None;
                if let Err(error) = self.bridges.mend_present() {
                    tracing::warn!(%error, "cannot bring a bridge back");
                }
            }
            if self.look_at.is_some_and(|at| at <= now) {
                self.look_at_others(now);
            }
            match self.wait() {
                Ok(true) => (),
                Ok(false) => return,
                Err(error) => return tracing::error!(%error, "rules and bridges are watched no longer"),
            }
        }
    }

    /// Waits for notices or the next deadline; `false` = the end. What has to wait for a deadline is not listened for.
    fn wait(&mut self) -> io::Result<bool> {
        let write_at = self.table_is_lost.then_some(self.pace.next);
        let deadline = [write_at, self.mend_at, self.look_at].into_iter().flatten().min();
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|left| Timespec::try_from(left + Duration::from_millis(1)).ok());
        let mut fds = vec![PollFd::new(&*self.stop, PollFlags::IN)];
        let rules = self.rules.as_ref().filter(|_| !self.table_is_lost).map(|(notices, _)| notices.as_fd());
        let links = Some(self.links.as_fd()).filter(|_| self.mend_at.is_none());
        fds.extend(rules.into_iter().chain(links).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(errno) => return Err(errno.into()),
        }
        if !fds[0].revents().is_empty() {
            return Ok(false);
        }
        self.receive().map(|()| true)
    }

    fn receive(&mut self) -> io::Result<()> {
        if let Some((notices, own)) = &mut self.rules
            && !self.table_is_lost
        {
            let foreign = |message: &Message<'_>| message.sender != *own;
            let ours = |message: &Message<'_>| nft::is_about(message, plan::TABLE_FAMILY, plan::TABLE);
            let (mut lost, mut others) = (false, false);
            let delivery = notices.read(|message| {
                lost |= foreign(&message) && ours(&message);
                others |= foreign(&message) && !ours(&message);
            })?;
            self.table_is_lost = lost || delivery == Delivery::Part;
            if others || delivery == Delivery::Part {
                let soon = Instant::now() + FOREIGN_SETTLING;
                self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
            }
        }
        if self.mend_at.is_none() {
            let bridges = &self.bridges;
            let mut changed = false;
            let delivery = self.links.read(|message| changed |= concerns(bridges, &message))?;
            self.mend_at = (changed || delivery == Delivery::Part).then(|| Instant::now() + SETTLING);
        }
        Ok(())
    }

    fn restore_table(&mut self, now: Instant) {
        // Before the write: what is told of afterwards is another loss.
        self.table_is_lost = false;
        if let Some((notices, _)) = &mut self.rules {
            let _ = notices.read(|_| ());
            self.look_at = Some(now + FOREIGN_SETTLING);
        }
        match self.bridges.rules.restore() {
            Ok(()) => tracing::warn!("the firewall rules were changed by others and are written again"),
            Err(error) => {
                self.table_is_lost = true;
                tracing::error!(%error, "cannot write the firewall rules that others changed");
            }
        }
        self.pace.spent(now);
    }
}

/// Whether a notice tells of a change of one of our devices, or of an address that one lost.
fn concerns(bridges: &Bridges, message: &Message<'_>) -> bool {
    if let Some(link) = link::changed(message) {
        return bridges.is_ours(Some(&link.name), link.index);
    }
    address::removed(message).is_some_and(|address| bridges.is_ours(None, address.link))
}

/// When the table may be written next.
#[derive(Debug)]
struct Pace {
    pause: Duration,
    last: Option<Instant>,
    next: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { pause: FIRST_PAUSE, last: None, next: Instant::now() }
    }
}

impl Pace {
    fn allows(&self, now: Instant) -> bool {
        self.next <= now
    }

    fn spent(&mut self, now: Instant) {
        let calm = self.last.is_none_or(|last| now.duration_since(last) >= CALM);
        self.pause = if calm { FIRST_PAUSE } else { (2 * self.pause).min(LONGEST_PAUSE) };
        self.last = Some(now);
        self.next = now + self.pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fight_slows_down_and_calm_ends_it() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let mut now = start;
        let mut writes = 0;
        while now < start + Duration::from_secs(20) {
            assert!(pace.allows(now));
            pace.spent(now);
            writes += 1;
            now = pace.next;
        }
        assert!(writes < 30, "{writes} writes in 20 s");
        now += CALM;
        pace.spent(now);
        assert!(pace.allows(now + FIRST_PAUSE));
    }
}
