//! Reading a log in files back: tail, since, until, follow; rotated and compressed files included.
//!
//! The reader shares nothing with the writer but the files. Opening takes all files of the log as they stand at one
//! moment; following goes on from there and across any number of rotations (see [`chain`]).

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use super::chain::{self, Held, Link, Successor};
use super::codec::Codec;
use super::follow::{Follower, Next};
use super::lines::Lines;
use crate::seam::{Batch, ReadOptions, Source};
use crate::shape::{Shaper, Verdict};
use crate::time;

/// Bytes after which a batch is complete.
const BATCH: usize = 64 * 1024;
/// Bytes of the log after which a batch is complete although hardly anything of them was wanted.
const LOOK: usize = 1024 * 1024;

/// Reads a log in steps, each of which blocks for the disk only and is short.
pub struct Reader<C> {
    /// The files after the present one, oldest first.
    waiting: VecDeque<Lines<C>>,
    present: Option<Lines<C>>,
    shaper: Shaper,
    follower: Option<Follower>,
    until: Option<i64>,
    /// Later entries are not wanted.
    past: bool,
}

impl<C: Codec> Reader<C> {
    /// Opens the log at `path` and all its rotated files. A log that does not exist is empty.
    pub fn open(path: &Path, options: ReadOptions) -> io::Result<Reader<C>> {
        let links = chain::snapshot(path)?;
        let newest = links.first().filter(|link| !link.gzip).map(Held::from);
        let follower = newest.filter(|_| options.follow).map(|held| Follower::new(path, held));
        let mut waiting = choose(links, &options)?;
        if let (Some(_), Some(last)) = (&follower, waiting.back_mut()) {
            last.grow();
        }
        Ok(Reader {
            present: waiting.pop_front(),
            waiting,
            shaper: Shaper::new(&options),
            follower,
            until: options.until,
            past: false,
        })
    }

    /// Appends entries of the present file; true = `limit` is reached or as much as `look` was read, false = it has no more.
    fn take(&mut self, limit: usize, look: &mut usize, out: &mut Vec<u8>) -> io::Result<bool> {
        let Some(lines) = &mut self.present else { return Ok(false) };
        while out.len() < limit && *look > 0 {
            let Some(line) = lines.next()? else { return Ok(false) };
            *look = look.saturating_sub(line.len());
            let shaper = &mut self.shaper;
            if C::decode(line, |entry| shaper.entry(entry, out)) == Some(Verdict::Past) {
                self.past = true;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Goes on with another file, and tells of what was lost before it. `gap`: files between the two may be missing.
    fn enter(&mut self, next: Lines<C>, gap: bool, out: &mut Vec<u8>) {
        let left = self.present.as_ref().and_then(Lines::end);
        match (left, next.begin()) {
            (Some(end), Some(begin)) if begin > end => self.shaper.lost(Some(begin - end), out),
            (Some(_), Some(_)) => {}
            _ if gap => self.shaper.lost(None, out),
            _ => {}
        }
        self.present = Some(next);
    }
}

impl<C: Codec> Source for Reader<C> {
    fn finish(&mut self) {
        if let Some(follower) = &mut self.follower {
            follower.finish();
        }
    }

    fn next_batch(&mut self, out: &mut Vec<u8>) -> io::Result<Batch> {
        let begin = out.len();
        let mut look = LOOK;
        loop {
            if self.take(begin + BATCH, &mut look, out)? {
                return Ok(Batch::More);
            }
            if self.past {
                return Ok(Batch::End);
            }
            if let Some(next) = self.waiting.pop_front() {
                self.enter(next, false, out);
                continue;
            }
            let present = &self.present;
            let Some(follower) = &mut self.follower else { return Ok(Batch::End) };
            if out.len() > begin {
                return Ok(Batch::More);
            }
            match follower.next(self.until, || present.as_ref().and_then(Lines::end))? {
                Next::Again => {}
                Next::File(Successor { link, gap }) => {
                    let (mut lines, _) = Lines::last(link, None)?;
                    lines.grow();
                    self.enter(lines, gap, out);
                }
                Next::Wait => {
                    self.present.iter_mut().for_each(Lines::rest);
                    return Ok(Batch::Waiting);
                }
                Next::End => return Ok(Batch::End),
            }
        }
    }
}

/// The files to read, oldest first, each from where the tail begins in it.
fn choose<C: Codec>(links: Vec<Link>, options: &ReadOptions) -> io::Result<VecDeque<Lines<C>>> {
    let mut chosen = VecDeque::new();
    let mut wanted = options.tail;
    for (age, link) in links.into_iter().enumerate() {
        if age > 0 && wanted == Some(0) {
            break;
        }
        if link.gzip && is_before(&link, options.since) {
            continue;
        }
        match Lines::last(link, wanted) {
            Ok((lines, count)) => {
                wanted = wanted.map(|wanted| wanted - count);
                chosen.push_front(lines);
            }
            // A rotated file that cannot be read must not hide the others.
            Err(_) if age > 0 => {}
            Err(e) => return Err(e),
        }
    }
    Ok(chosen)
}

/// All of the compressed file is before `since`.
fn is_before(link: &Link, since: Option<i64>) -> bool {
    let Some(since) = since else { return false };
    time::parse(link.extra().last_time.as_bytes()).is_some_and(|last| last < since)
}
