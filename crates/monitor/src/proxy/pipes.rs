//! Pipes through which bytes go from one socket to another without being copied (splice(2)).
//!
//! A pipe is lent to a direction of a connection for as long as bytes lie in it. Who gets none, because too many are lent or
//! no descriptor is free, copies its bytes.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Pipes that are lent at once.
pub(super) const MAX_LENT: usize = 256;
/// Size of a pipe, in bytes of pages of 4 KiB; a place in it holds up to 32 KiB of what a socket has received.
const SIZE: usize = 256 << 10;
/// Bytes of one splice.
const PART: usize = 1 << 20;

/// An empty pipe that waits, and the count of those that there are.
#[derive(Debug, Default)]
pub struct Pipes {
    spare: Option<Pipe>,
    count: Rc<()>,
}

/// A pipe and how many bytes lie in it.
#[derive(Debug)]
pub struct Pipe {
    output: OwnedFd,
    input: OwnedFd,
    held: usize,
    _counted: Rc<()>,
}

impl Pipes {
    /// Descriptors that all pipes take.
    pub fn descriptors(&self) -> usize {
        2 * (Rc::strong_count(&self.count) - 1)
    }

    /// An empty pipe; `None`: there are enough.
    pub fn lend(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.spare.take() {
            return Some(pipe);
        }
        if Rc::strong_count(&self.count) > MAX_LENT {
            return None;
        }
        let (output, input) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // A smaller one serves as well.
        let _ = fcntl_setpipe_size(&input, SIZE);
        Some(Pipe { output, input, held: 0, _counted: self.count.clone() })
    }

    /// Takes an empty pipe back; all but one are closed.
    pub fn take_back(&mut self, pipe: Pipe) {
        debug_assert_eq!(pipe.held, 0, "what lies in it would come to another connection");
        self.spare = Some(pipe);
    }
}

impl Pipe {
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes what a socket has received into the empty pipe; 0: the socket's end. `AGAIN`: nothing is there.
    pub fn fill(&mut self, from: &OwnedFd) -> rustix::io::Result<usize> {
        self.held = moved(from, &self.input, PART)?;
        Ok(self.held)
    }

    /// Gives what lies in it to a socket, as much as that takes.
    pub fn empty(&mut self, to: &OwnedFd) -> rustix::io::Result<()> {
        while self.held > 0 {
            match moved(&self.output, to, self.held) {
                Ok(0) => return Err(Errno::PIPE),
                Ok(sent) => self.held -= sent,
                Err(Errno::AGAIN) => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn moved(from: &OwnedFd, to: &OwnedFd, limit: usize) -> rustix::io::Result<usize> {
    loop {
        match splice(from, None, to, None, limit, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_bounded_and_counted() {
        let mut pipes = Pipes::default();
        let mut lent: Vec<Pipe> = (0..MAX_LENT).map_while(|_| pipes.lend()).collect();
        assert_eq!((lent.len(), pipes.descriptors()), (MAX_LENT, 2 * MAX_LENT));
        assert!(pipes.lend().is_none());
        for pipe in lent.drain(..2) {
            pipes.take_back(pipe);
        }
        assert_eq!(pipes.descriptors(), 2 * (MAX_LENT - 1), "one waits, the other is closed");
        drop(lent);
        assert!(pipes.lend().is_some());
    }
}
