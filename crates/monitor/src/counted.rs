//! What a monitor counts of its container's log, in a file of the run's directory: daemons come and go, and whoever measures
//! reads it when he likes without waking the monitor. It is written when something has changed, once a second at most.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The file's name.
const FILE: &str = "logged";
/// Bytes of the file that are read: two numbers of 64 bits in decimal, a blank and a newline.
const LONGEST: usize = 42;
/// Between two writes.
const PAUSE: Duration = Duration::from_secs(1);

/// Figures of the log of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logged {
    /// Bytes of output that were given to the log.
    pub bytes: u64,
    /// Lines that the log could not take.
    pub dropped: u64,
}

/// Reads the figures in the run's directory; zero where there are none.
#[expect(clippy::disallowed_methods, reason = "the exec root is in memory")]
pub fn read(run_dir: &Path) -> Logged {
    fs::read(run_dir.join(FILE)).ok().and_then(|bytes| parse(&bytes)).unwrap_or_default()
}

/// `BYTES DROPPED`, in decimal, and a newline.
fn parse(file: &[u8]) -> Option<Logged> {
    let text = std::str::from_utf8(file.get(..file.len().min(LONGEST))?).ok()?;
    let (bytes, dropped) = text.strip_suffix('\n')?.split_once(' ')?;
    Some(Logged { bytes: bytes.parse().ok()?, dropped: dropped.parse().ok()? })
}

/// The writer.
#[derive(Debug)]
pub struct Counter {
    path: PathBuf,
    written: Logged,
    /// When it may write again.
    next: Option<Instant>,
}

impl Counter {
    /// In the directory of a run.
    pub fn new(run_dir: &Path) -> Counter {
        Counter { path: run_dir.join(FILE), written: Logged::default(), next: None }
    }

    /// Writes if the figures are others than those in the file, and that was written long enough ago.
    pub fn note(&mut self, now: Instant, logged: Logged) {
        if logged != self.written && self.next.is_none_or(|next| next <= now) {
            self.next = Some(now + PAUSE);
            self.written = logged;
            // Nobody measures where there is no place for so little; the next time is the next chance.
            let _ = self.write();
        }
    }

    /// When [`Counter::note`] has something to write.
    pub fn deadline(&self, logged: Logged) -> Option<Instant> {
        self.next.filter(|_| logged != self.written)
    }

    /// Complete or not there at all.
    fn write(&self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        fs::write(&new, format!("{} {}\n", self.written.bytes, self.written.dropped))?;
        fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn changes_are_written_once_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let mut counter = Counter::new(dir.path());
        let begun = Instant::now();
        let logged = |bytes: u64| Logged { bytes, dropped: 1 };
        assert_eq!((read(dir.path()), counter.deadline(Logged::default())), (Logged::default(), None));
        counter.note(begun, Logged::default());
        counter.note(begun, logged(5));
        assert_eq!((read(dir.path()), counter.deadline(logged(5))), (logged(5), None));
        counter.note(begun + PAUSE / 2, logged(6));
        assert_eq!((read(dir.path()), counter.deadline(logged(6))), (logged(5), Some(begun + PAUSE)));
        counter.note(begun + PAUSE, logged(u64::MAX));
        assert_eq!(read(dir.path()), logged(u64::MAX));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        for wrong in ["", "1", "1 2", "1 2 3\n", "a 2\n", "1 -2\n", "99999999999999999999 1\n"] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_file_is_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&bytes);
        }
    }
}
