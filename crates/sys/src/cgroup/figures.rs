//! The few figures of a cgroup that are read once a second for every container: a file each, and nothing is collected.
//!
//! Missing files mean a missing controller: those figures stay zero. Times are nanoseconds, sizes bytes.

use std::fs::File;
use std::io::Read;

use super::{Cgroup, Version};

/// Bytes of a file that are read: one line for each block device.
const MOST: usize = 4096;
const NANOS_PER_MICRO: u64 = 1_000;

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Processor time since it was made.
    pub cpu: u64,
    /// Memory in use, caches included.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Read from block devices.
    pub io_read: u64,
    /// Written to block devices.
    pub io_written: u64,
}

impl Cgroup {
    /// Reads them now.
    pub fn figures(&self) -> Figures {
        let mut buffer = [0; MOST];
        match self.version {
            Version::V1 => {
                let cpu = number(self.line("cpuacct", "cpuacct.usage", &mut buffer));
                let memory = number(self.line("memory", "memory.usage_in_bytes", &mut buffer));
                let pids = number(self.line("pids", "pids.current", &mut buffer));
                let io = self.line("blkio", "blkio.throttle.io_service_bytes", &mut buffer);
                let sum = |op: &str| io.lines().filter_map(|line| value_of(line, op)).sum();
                Figures { cpu, memory, pids, io_read: sum("Read"), io_written: sum("Write") }
            }
            Version::V2 => {
                let cpu = self.line("cpu", "cpu.stat", &mut buffer);
                let micros = cpu.lines().find_map(|line| line.strip_prefix("usage_usec ")).map_or(0, number);
                let memory = number(self.line("memory", "memory.current", &mut buffer));
                let pids = number(self.line("pids", "pids.current", &mut buffer));
                let io = self.line("io", "io.stat", &mut buffer);
                let sum = |key: &str| io.split_whitespace().filter_map(|word| word.strip_prefix(key)).map(number).sum();
                let cpu = micros.saturating_mul(NANOS_PER_MICRO);
                Figures { cpu, memory, pids, io_read: sum("rbytes="), io_written: sum("wbytes=") }
            }
        }
    }

    fn line<'b>(&self, controller: &str, file: &str, buffer: &'b mut [u8; MOST]) -> &'b str {
        let read = self.dir_of(controller).and_then(|dir| File::open(dir.path.join(file)).ok()?.read(buffer).ok());
        std::str::from_utf8(&buffer[..read.unwrap_or(0)]).unwrap_or_default()
    }
}

/// Not a number = 0.
fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// The number of a line `8:0 Read 4096`, if it is of this operation.
fn value_of(line: &str, op: &str) -> Option<u64> {
    let mut words = line.split(' ').skip(1);
    (words.next()? == op).then(|| words.next().map(number))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_block_devices() {
        let text = "8:0 Read 4096\n8:0 Write 1\n8:16 Read 4\n8:0 Total 4097\nTotal 4101\n";
        let sum = |op: &str| text.lines().filter_map(|line| value_of(line, op)).sum::<u64>();
        assert_eq!((sum("Read"), sum("Write"), sum("Sync")), (4100, 1, 0));
    }
}
