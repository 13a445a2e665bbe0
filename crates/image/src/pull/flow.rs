//! The joint between a download and what reads it: a reader of the part that waits where the download has not come yet.
//!
//! The download goes to the disk and never waits for the reader, the reader never waits for the disk's cache: neither
//! holds more than a buffer in memory.

use std::io::{self, Read};
use std::sync::Arc;

use content::PartReader;
use model::lock::{Condvar, Mutex, MutexGuard};

#[derive(Default)]
struct Written {
    written: u64,
    ended: Option<Result<(), String>>,
}

/// Notes how far the download is.
pub struct Flow {
    state: Arc<(Mutex<Written>, Condvar)>,
}

/// Reads behind it.
pub struct Follow {
    state: Arc<(Mutex<Written>, Condvar)>,
    part: PartReader,
    read: u64,
}

fn lock(state: &Mutex<Written>) -> MutexGuard<'_, Written> {
    state.lock()
}

impl Flow {
    /// A download that has this much already.
    pub fn new(written: u64) -> Flow {
        Flow { state: Arc::new((Mutex::new(Written { written, ended: None }), Condvar::new())) }
    }

    /// A reader of its part.
    pub fn follow(&self, part: PartReader) -> Follow {
        Follow { state: self.state.clone(), part, read: 0 }
    }

    /// So much is in the part.
    pub fn advance(&self, written: u64) {
        lock(&self.state.0).written = written;
        self.state.1.notify_all();
    }

    /// Nothing more will come, for this reason if not for its end.
    pub fn end(&self, outcome: Result<(), String>) {
        lock(&self.state.0).ended.get_or_insert(outcome);
        self.state.1.notify_all();
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.end(Err("the download was given up".into()));
    }
}

impl Follow {
    /// The part's reader, with what it has hashed.
    pub fn into_part(self) -> PartReader {
        self.part
    }
}

impl Read for Follow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = {
            let mut state = lock(&self.state.0);
            loop {
                match (&state.ended, state.written - self.read) {
                    (None, 0) => state = self.state.1.wait(state),
                    // A failed download makes what is here worthless for now.
                    (Some(Err(why)), _) => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why.clone())),
                    (Some(Ok(())), 0) => return Ok(0),
                    (_, available) => break available,
                }
            }
        };
        let wanted = usize::try_from(available).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.part.read(&mut buffer[..wanted])?;
        self.read += n as u64;
        if n == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::digest::Digest;

    #[test]
    fn a_reader_waits_for_the_download_and_learns_of_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = content::Blobs::open(dir.path()).unwrap();
        let digest = Digest::from_sha256(&[1; 32]);
        let mut part = blobs.part(&digest).unwrap();
        let flow = Flow::new(0);
        let mut reader = flow.follow(part.reader().unwrap());
        let reading = std::thread::spawn(move || {
            let mut all = String::new();
            let outcome = reader.read_to_string(&mut all);
            (all, outcome.map_err(|e| e.to_string()))
        });
        for bytes in [b"ab", b"cd"] {
            part.append(bytes).unwrap();
            flow.advance(part.length());
        }
        flow.end(Ok(()));
        assert_eq!(reading.join().unwrap(), ("abcd".into(), Ok(4)));
        let flow = Flow::new(part.length());
        let mut reader = flow.follow(part.reader().unwrap());
        drop(flow);
        assert_eq!(reader.read(&mut [0; 2]).unwrap_err().to_string(), "the download was given up");
    }
}
