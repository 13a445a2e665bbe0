//! Changing one's own arguments, which ps(1) shows: for a process that learns its purpose after its execve.
//!
//! The kernel shows the memory between `arg_start` and `arg_end` (proc_pid_stat(5), fields 48 and 49). A new text takes
//! the place of an old one of the same length, so nothing else of the process is touched.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use crate::file::read_made;

/// Field 48 of `/proc/self/stat`, counted from the one behind the command's name (field 3).
const ARG_START: usize = 48 - 3;

/// One argument of this process, found in its memory.
#[derive(Debug)]
pub struct Argument {
    memory: File,
    at: u64,
    length: usize,
}

impl Argument {
    /// Finds argument number `index`; 0 is the program's name.
    pub fn find(index: usize) -> io::Result<Argument> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let line = read_made("/proc/self/cmdline")?;
        let before: usize = line.split(|byte| *byte == 0).take(index).map(|argument| argument.len() + 1).sum();
        let length = line.split(|byte| *byte == 0).nth(index).ok_or_else(invalid)?.len();
        let stat = read_made("/proc/self/stat")?;
        let stat = String::from_utf8_lossy(&stat);
        // The name may hold spaces and parentheses; it ends at the last one.
        let (_, fields) = stat.rsplit_once(") ").ok_or_else(invalid)?;
        let start = fields.split(' ').nth(ARG_START).and_then(|field| field.parse::<u64>().ok()).ok_or_else(invalid)?;
        let memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
        Ok(Argument { memory, at: start + before as u64, length })
    }

    /// Puts another text of the same length in its place.
    pub fn set(&self, text: &str) -> io::Result<()> {
        if text.len() != self.length {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.memory.write_all_at(text.as_bytes(), self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_argument_changes_and_the_others_do_not() {
        let line = || read_made("/proc/self/cmdline").unwrap();
        let before = line();
        let length = before.iter().position(|byte| *byte == 0).unwrap();
        let argument = Argument::find(0).unwrap();
        assert!(argument.set("short").is_err());
        argument.set(&"x".repeat(length)).unwrap();
        let changed = line();
        argument.set(std::str::from_utf8(&before[..length]).unwrap()).unwrap();
        assert_eq!(changed[..length], vec![b'x'; length]);
        assert_eq!(changed[length..], before[length..]);
        assert_eq!(line(), before);
    }
}
