//! Standard input of a process: what clients have sent and the process has not read yet.
//!
//! Never blocks: what the pipe or terminal does not take waits here, and the clients are not read meanwhile, so that no more
//! than one read's worth is ever kept.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;

/// The write end of a pipe or a terminal's master, non-blocking.
#[derive(Debug, Default)]
pub struct Input {
    to: Option<Rc<OwnedFd>>,
    waiting: Vec<u8>,
    /// Close once nothing waits any more.
    ending: bool,
}

impl Input {
    /// `None`: the process has no input; everything is dropped.
    pub fn new(to: Option<Rc<OwnedFd>>) -> Input {
        Input { to, waiting: Vec::new(), ending: false }
    }

    pub fn is_open(&self) -> bool {
        self.to.is_some() && !self.ending
    }

    /// Clients must not be read now.
    pub fn is_blocked(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// To be polled for writing.
    pub fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.to.as_deref().filter(|_| self.is_blocked()).map(AsFd::as_fd)
    }

    /// Gives bytes to the process, now or when it reads.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.is_open() {
            return;
        }
        if self.is_blocked() {
            self.waiting.extend_from_slice(bytes);
            return;
        }
        let taken = self.write(bytes);
        if self.to.is_some() {
            self.waiting.extend_from_slice(&bytes[taken..]);
        }
    }

    /// The process reads again, perhaps.
    pub fn flush(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        let taken = self.write(&waiting);
        if self.to.is_some() && taken < waiting.len() {
            waiting.drain(..taken);
            self.waiting = waiting;
        } else if self.ending {
            self.to = None;
        }
    }

    /// The process reads what waits, then end of file.
    pub fn end(&mut self) {
        self.ending = true;
        if !self.is_blocked() {
            self.to = None;
        }
    }

    /// At once; what waits is lost.
    pub fn close(&mut self) {
        *self = Input::default();
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let (Some(to), true) = (&self.to, taken < bytes.len()) {
            match rustix::io::write(to, &bytes[taken..]) {
                Ok(n) => taken += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // The process has closed its input: the clients are not to notice.
                Err(_) => self.to = None,
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_full_pipe_blocks_and_nothing_is_lost() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let mut input = Input::new(Some(Rc::new(writer)));
        let data: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        input.push(&data);
        assert!(input.is_blocked());
        input.end();
        assert!(!input.is_open());
        let mut got = vec![0; 150_000];
        let mut filled = 0;
        while filled < got.len() {
            filled += reader.read(&mut got[filled..]).unwrap();
            input.flush();
        }
        let mut rest = Vec::new();
        input.flush();
        reader.read_to_end(&mut rest).unwrap();
        got.extend(rest);
        assert_eq!(got, data);
    }

    #[test]
    fn a_process_that_closes_its_input_is_no_error() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut input = Input::new(Some(Rc::new(writer.into())));
        input.push(b"x");
        assert!(!input.is_open() && !input.is_blocked());
    }
}
