//! Command lines of processes (`/proc/PID/cmdline`, proc(5)), read within bounds: a container decides how long they are,
//! up to megabytes each (execve(2), limits on size), and how many processes it has.

use std::fs::File;
use std::io::{self, Read};

use blocking::Blocking;

/// Bytes that are read of one process's command line.
pub const PER_PROCESS: usize = 32 * 1024;
/// Bytes that are read of the command lines of all processes of one list, or of the output of a program that lists them.
pub const PER_LIST: usize = 8 * 1024 * 1024;

/// What one list of processes may still read.
#[derive(Debug)]
pub struct Budget(usize);

impl Default for Budget {
    fn default() -> Budget {
        Budget(PER_LIST)
    }
}

impl Budget {
    /// The arguments of a process with a blank between two, as far as the bounds allow; empty for a process without any
    /// (a kernel thread, a zombie), for one that has ended, and once the budget is used up.
    #[expect(clippy::disallowed_methods, reason = "on a thread of the processes")]
    pub fn read(&mut self, _on: &Blocking, pid: i32) -> String {
        let bytes = File::open(format!("/proc/{pid}/cmdline")).and_then(|file| self.take(file, PER_PROCESS));
        let words: Vec<_> =
            bytes.iter().flat_map(|bytes| bytes.split(|&b| b == 0)).map(String::from_utf8_lossy).collect();
        words.join(" ").trim_end().to_owned()
    }

    /// At most `limit` bytes of what is left of a stream, and of the budget.
    pub fn take(&mut self, stream: impl Read, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        stream.take(limit.min(self.0) as u64).read_to_end(&mut bytes)?;
        self.0 -= bytes.len();
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_its_words() {
        let shown = Budget::default().read(&Blocking::alone(), std::process::id() as i32);
        let own: Vec<_> = std::env::args().collect();
        assert_eq!(shown, own.join(" "));
        assert_eq!(Budget::default().read(&Blocking::alone(), -1), "");
    }

    #[test]
    fn neither_one_stream_nor_all_together_exceed_their_bounds() {
        let mut budget = Budget(10);
        assert_eq!(budget.take(io::repeat(b'x'), 7).unwrap().len(), 7);
        assert_eq!(budget.take(io::repeat(b'x'), 7).unwrap().len(), 3);
        assert_eq!(budget.take(io::repeat(b'x'), 7).unwrap().len(), 0);
    }
}
