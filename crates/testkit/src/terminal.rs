//! A program under a pseudo terminal: type keys, read the screen, change the window.
//!
//! The program becomes the leader of its own session with the terminal as its controlling one (`setsid --ctty`), as in a
//! real shell, so that window changes reach it as signals.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::lock::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::command::{self, PATIENCE};
use crate::places;

/// A program and its terminal. The program is killed when dropped.
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts `command` under a terminal of 80 columns and 24 rows.
    #[track_caller]
    #[must_use]
    pub fn start(command: &Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("the terminal can be used");
        let name = ptsname(&master, Vec::new()).expect("the terminal has a name");
        tcsetwinsize(&master, size(24, 80)).expect("the terminal has a size");
        let open = || rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
        let slave: OwnedFd = open().expect("the terminal opens");
        let copy = || Stdio::from(slave.try_clone().expect("a descriptor can be copied"));
        let mut outer = Command::new(places::find("setsid"));
        outer.arg("--ctty").arg("--wait").arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => outer.env(key, value),
                None => outer.env_remove(key),
            };
        }
        outer.env("TERM", "xterm");
        let child = outer.stdin(copy()).stdout(copy()).stderr(copy()).spawn().expect("setsid starts");
        drop(slave);
        let keyboard = File::from(master);
        let screen = Arc::default();
        watch(keyboard.try_clone().expect("a descriptor can be copied"), Arc::clone(&screen));
        Self { child, keyboard, screen }
    }

    /// Types.
    #[track_caller]
    pub fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Everything that was on the screen so far, control sequences included.
    #[must_use]
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock()).into_owned()
    }

    /// Waits until `wanted` has been on the screen.
    #[track_caller]
    pub fn expect(&self, wanted: &str) {
        let seen = command::eventually(PATIENCE, || self.screen().contains(wanted));
        assert!(seen, "{wanted:?} did not appear on the screen: {:?}", self.screen());
    }

    /// Forgets what was on the screen.
    pub fn clear(&self) {
        self.screen.lock().clear();
    }

    /// Changes the window's size.
    pub fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.keyboard, size(rows, columns)).expect("the terminal has a size");
    }

    /// Waits for the program's end and gives its status.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "the program did not end; screen: {:?}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn watch(mut master: File, screen: Arc<Mutex<Vec<u8>>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = master.read(&mut buffer) {
            screen.lock().extend_from_slice(&buffer[..n]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_sees_a_terminal_and_its_size() {
        let mut command = Command::new("sh");
        command.args(["-c", "tty; stty size; read x; stty size; exit 3"]);
        let mut terminal = Terminal::start(&command);
        terminal.expect("24 80");
        assert!(terminal.screen().contains("/dev/pts/"));
        terminal.resize(50, 100);
        terminal.type_keys("\r");
        terminal.expect("50 100");
        assert_eq!(terminal.end(), 3);
    }
}
