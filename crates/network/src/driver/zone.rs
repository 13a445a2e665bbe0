//! Puts the bridges into firewalld's zone again when firewalld has read its configuration, or has started.

use std::os::fd::{AsFd, OwnedFd};

use dbus::Error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::bridges::Bridges;

/// Between two attempts to connect to the bus.
const AGAIN: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// Runs until `stop` can be read.
pub fn watch(bridges: &Bridges, stop: &OwnedFd) {
    while !listen(bridges, stop) {
        let mut fds = [PollFd::new(stop, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&AGAIN));
        if !fds[0].revents().is_empty() {
            return;
        }
    }
}

/// Whether the end has come; `false`: there is no bus, or no longer.
fn listen(bridges: &Bridges, stop: &OwnedFd) -> bool {
    let Ok(mut connection) = bridges.firewalld.listen() else { return false };
    // What was told before is not heard.
    bridges.keep_in_zone();
    loop {
        let mut fds = [PollFd::new(stop, PollFlags::IN), PollFd::from_borrowed_fd(connection.as_fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(_) => return false,
        }
        let [end, told] = fds.map(|fd| !fd.revents().is_empty());
        if end {
            return true;
        }
        if told && receive(bridges, &mut connection).is_err() {
            return false;
        }
    }
}

fn receive(bridges: &Bridges, connection: &mut dbus::Connection) -> Result<(), Error> {
    let Some(signal) = connection.read_signal()? else { return Ok(()) };
    if bridges.firewalld.handle_signal(&signal) {
        bridges.keep_passage();
        bridges.firewalld.put_back(sys::clock::System.unix_nanos());
    }
    Ok(())
}
