//! Compressing rotated files in small steps, by the process that writes the log, while it has nothing else to do.
//!
//! At most one file is worked on; it may move to higher indices meanwhile, or fall off the chain. The uncompressed file is
//! removed only after the compressed one has its name, so a reader always finds one complete copy.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};

use super::chain::{self, Extra};
use super::codec::Codec;
use super::ordinal;

/// Bytes compressed in one step: well under a millisecond.
const STEP: u64 = 32 * 1024;
/// Log lines are so much alike that the fast level already gives most of what there is to gain.
const LEVEL: Compression = Compression::new(2);
const UNFINISHED: &str = ".gz.part";

/// Compression of one log's rotated files.
#[derive(Debug)]
pub struct Compressor {
    name: PathBuf,
    max_file: u32,
    /// There may be a file to compress.
    pending: bool,
    /// [`Codec::last_time`].
    last_time: fn(&File) -> io::Result<String>,
    job: Option<Job>,
}

#[derive(Debug)]
struct Job {
    source: File,
    index: u32,
    sink: GzEncoder<File>,
}

impl Compressor {
    /// `pending`: an earlier writer may have left something to do.
    pub fn new<C: Codec>(name: &Path, max_file: u32, pending: bool) -> Compressor {
        Compressor { name: name.to_owned(), max_file, pending, last_time: C::last_time, job: None }
    }

    /// Whether [`Compressor::step`] has anything to do.
    pub fn is_pending(&self) -> bool {
        self.pending || self.job.is_some()
    }

    /// The chain has been shifted by one.
    pub fn rotated(&mut self) {
        self.pending = true;
        if let Some(job) = &mut self.job {
            job.index += 1;
            if job.index >= self.max_file {
                self.abandon();
            }
        }
    }

    /// Does a little of the work. After an error (a full disk, mostly) it rests until the next rotation.
    pub fn step(&mut self) -> io::Result<()> {
        let done = match self.job.take() {
            None => self.begin(),
            Some(job) => self.go_on(job),
        };
        if done.is_err() {
            self.pending = false;
            self.abandon();
        }
        done
    }

    /// Starts with the newest uncompressed file: it stays longest.
    fn begin(&mut self) -> io::Result<()> {
        self.pending = false;
        for index in 1..self.max_file {
            let source = match File::open(chain::rotated(&self.name, index, false)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let extra = Extra {
                last_time: (self.last_time)(&source)?,
                inode: source.metadata()?.ino(),
                begin: ordinal::begin(&source),
                end: ordinal::end(&source),
            };
            let part = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(self.part())?;
            let sink = GzBuilder::new().extra(serde_json::to_vec(&extra)?).write(part, LEVEL);
            self.job = Some(Job { source, index, sink });
            break;
        }
        Ok(())
    }

    fn go_on(&mut self, mut job: Job) -> io::Result<()> {
        let copied = io::copy(&mut (&mut job.source).take(STEP), &mut job.sink)?;
        if copied > 0 {
            self.job = Some(job);
            return Ok(());
        }
        job.sink.flush()?;
        // Before the other copy goes: a power cut must not find the new name without its content.
        job.sink.finish()?.sync_data()?;
        fs::rename(self.part(), chain::rotated(&self.name, job.index, true))?;
        fs::remove_file(chain::rotated(&self.name, job.index, false))?;
        self.pending = true;
        Ok(())
    }

    fn abandon(&mut self) {
        self.job = None;
        // Best effort: the next job truncates it.
        let _ = fs::remove_file(self.part());
    }

    fn part(&self) -> PathBuf {
        chain::unfinished(&self.name, UNFINISHED)
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        if self.job.is_some() {
            self.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::json_file::Json;

    fn work_off(compressor: &mut Compressor) {
        while compressor.is_pending() {
            compressor.step().unwrap();
        }
    }

    fn unpacked(path: &Path) -> String {
        let mut text = String::new();
        chain::decompress(&File::open(path).unwrap()).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn all_rotated_files_are_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("l");
        let line = "{\"log\":\"x\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-23T17:37:59.5Z\"}\n";
        for index in 0..3 {
            fs::write(chain::rotated(&name, index, false), line.repeat(2000)).unwrap();
        }
        let inode = chain::inode_of(&chain::rotated(&name, 1, false)).unwrap().unwrap();
        work_off(&mut Compressor::new::<Json>(&name, 5, true));
        assert_eq!(unpacked(&chain::rotated(&name, 2, true)), line.repeat(2000));
        let extra = chain::Link::at(&name, 1).unwrap().unwrap().extra();
        assert_eq!((extra.inode, extra.last_time.as_str()), (inode, "2026-11-23T17:37:59.5Z"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn rotation_in_the_middle_moves_the_job_and_at_the_end_drops_it() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("l");
        fs::write(chain::rotated(&name, 1, false), "x".repeat(100_000)).unwrap();
        let mut compressor = Compressor::new::<Json>(&name, 3, true);
        compressor.step().unwrap();
        compressor.step().unwrap();
        chain::shift(&name, 3).unwrap();
        compressor.rotated();
        work_off(&mut compressor);
        assert_eq!(unpacked(&chain::rotated(&name, 2, true)).len(), 100_000);

        fs::write(chain::rotated(&name, 1, false), "y".repeat(100_000)).unwrap();
        let mut compressor = Compressor::new::<Json>(&name, 2, true);
        compressor.step().unwrap();
        chain::shift(&name, 2).unwrap();
        compressor.rotated();
        work_off(&mut compressor);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
