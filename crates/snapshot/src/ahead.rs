//! A reader that is read ahead on a thread of its own: decompressing on one processor, unpacking on another.
//!
//! What waits between the two is bounded: [`BUFFERS`] buffers of [`BUFFER`] bytes.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes handed over at once.
const BUFFER: usize = 256 << 10;
/// Buffers that may wait.
const BUFFERS: usize = 3;

/// Does `work` with what `reader` yields. The reader is not used any more afterwards, however the work ended.
pub fn ahead<T>(reader: impl Read + Send, work: impl FnOnce(&mut dyn Read) -> T) -> T {
    let (full, filled) = sync_channel(BUFFERS);
    // Used buffers come back, so that no more are made than may wait.
    let (used, empty) = sync_channel(BUFFERS + 2);
    std::thread::scope(|scope| {
        scope.spawn(move || produce(reader, &full, &empty));
        work(&mut Behind { filled, used, buffer: Vec::new(), at: 0, ended: false })
    })
}

fn produce(mut reader: impl Read, full: &SyncSender<io::Result<Vec<u8>>>, empty: &Receiver<Vec<u8>>) {
    loop {
        let mut buffer = empty.try_recv().unwrap_or_default();
        buffer.resize(BUFFER, 0);
        let filled = fill(&mut reader, &mut buffer);
        let last = !matches!(filled, Ok(BUFFER));
        let filled = filled.map(|n| {
            buffer.truncate(n);
            buffer
        });
        // Nobody reads any more, or there is no more.
        if full.send(filled).is_err() || last {
            return;
        }
    }
}

/// As much as fits, or as comes.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// The reader behind it.
struct Behind {
    filled: Receiver<io::Result<Vec<u8>>>,
    used: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Behind {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.buffer.len() && !self.ended {
            let used = std::mem::take(&mut self.buffer);
            self.at = 0;
            // Too many are let go of.
            let _ = self.used.try_send(used);
            match self.filled.recv() {
                Ok(filled) => self.buffer = filled.inspect_err(|_| self.ended = true)?,
                Err(_) => self.ended = true,
            }
        }
        let n = buffer.len().min(self.buffer.len() - self.at);
        buffer[..n].copy_from_slice(&self.buffer[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_through_in_order() {
        let bytes: Vec<u8> = (0..3 * BUFFER + 7).map(|n| (n % 251) as u8).collect();
        let mut found = Vec::new();
        ahead(&bytes[..], |reader| reader.read_to_end(&mut found)).unwrap();
        assert!(found == bytes);
        assert_eq!(ahead(&b""[..], |reader| reader.read(&mut [0; 4])).unwrap(), 0);
    }

    #[test]
    fn an_error_comes_through_and_an_early_end_stops_the_reader() {
        struct Failing(usize);
        impl Read for Failing {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::ConnectionAborted)?;
                buffer.fill(1);
                Ok(buffer.len())
            }
        }
        let failed = ahead(Failing(5), |reader| reader.read_to_end(&mut Vec::new())).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(ahead(io::repeat(1), |reader| reader.read(&mut [0; 4])).unwrap(), 4);
    }
}
