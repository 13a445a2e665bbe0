//! Opening a journal: what the last daemon, or a power cut, left of it.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::Arc;

use blocking::Blocking;
use model::{Context, Result};

use super::files::{self, Content, Segment};
use super::line::{self, Line};
use super::{Journal, Place};

/// Numbers that are left out after a power cut: more than could have been given in the second before it.
const JUMP: u64 = 1 << 20;
/// Files at the end that are read when the journal is opened: one may have been full a moment ago.
const READ: usize = 2;

/// A journal that is open.
pub(crate) struct Opened {
    pub journal: Journal,
    /// The last number that may have been given.
    pub last: u64,
    /// Tokens of events that rode in a commit, as far as the journal's end tells.
    pub tokens: HashSet<u64>,
    /// What is wrong.
    pub warnings: Vec<String>,
}

/// Opens the journal, or begins one.
///
/// Errors: `DataLoss` when a newer version wrote it; those of the disk.
pub(crate) fn open(place: &Place, on: &Blocking) -> Result<Opened> {
    let dir = &place.dir;
    DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| format!("creating {}", dir.display()))?;
    let mut segments = VecDeque::new();
    for first in files::list(dir, on)? {
        segments.push_back(files::survey(dir, first, on)?);
    }
    let mut found = Found::default();
    let read_from = segments.len().saturating_sub(READ);
    for segment in segments.iter_mut().skip(read_from) {
        found.take(place, segment, on)?;
    }
    let last = if segments.is_empty() { 0 } else { found.last_given(&session_of(&place.session)) };
    let begun = |error| model::Error::from(error).prefix(format!("writing the journal of events in {}", dir.display()));
    let (file, is_new) = match segments.back() {
        Some(newest) => (files::reopen(dir, newest, on).map_err(begun)?, false),
        None => {
            let (file, segment) = files::begin(dir, last + 1, i64::MIN).map_err(begun)?;
            segments.push_back(segment);
            (file, true)
        }
    };
    let file = Arc::new(file);
    let mut journal = Journal {
        place: place.clone(),
        unsynced: vec![file.clone()],
        file,
        segments,
        high: found.high,
        is_dir_unsynced: is_new,
        dropped: Vec::new(),
        is_failing: false,
    };
    begin_session(&mut journal, place);
    Ok(Opened { journal, last, tokens: found.tokens, warnings: found.warnings })
}

/// What the file in memory tells: who wrote last, and the last number, if all of them are written.
fn session_of(path: &Path) -> (Option<String>, Option<u64>) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let (id, last) = text.split_once(' ').unwrap_or((&text, ""));
    (Some(id.to_owned()).filter(|id| !id.is_empty()), last.trim().parse().ok())
}

/// Notes in memory that all events up to this one are written.
pub(crate) fn note_end(place: &Place, last: u64, _on: &Blocking) {
    let (Some(id), _) = session_of(&place.session) else { return };
    if let Err(error) = fs::write(&place.session, format!("{id} {last}")) {
        tracing::warn!(%error, "{} does not tell of the daemon's end", place.session.display());
    }
}

/// This daemon writes from now on. On a full disk it goes without; the next one then takes its end for the machine's.
fn begin_session(journal: &mut Journal, place: &Place) {
    let id: String = sys::random::bytes32().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let mut bytes = Vec::new();
    line::encode(&Line::Session(id.clone()), &mut bytes);
    let begun = journal.write(&bytes).and_then(|()| fs::write(&place.session, id));
    if let Err(error) = begun {
        tracing::warn!(%error, "the journal of events does not tell of this daemon");
    }
}

/// What the last files tell.
struct Found {
    last: u64,
    high: i64,
    session: Option<String>,
    closed: bool,
    tokens: HashSet<u64>,
    warnings: Vec<String>,
}

impl Default for Found {
    fn default() -> Found {
        Found { last: 0, high: i64::MIN, session: None, closed: false, tokens: HashSet::new(), warnings: Vec::new() }
    }
}

impl Found {
    /// The last number that may have been given, by what is there and by the file in memory.
    fn last_given(&mut self, (session, noted): &(Option<String>, Option<u64>)) -> u64 {
        let is_same_boot = session.is_some() && *session == self.session;
        if let Some(noted) = noted.filter(|noted| is_same_boot && *noted > self.last) {
            let text = format!("the journal of events was cut short: it ends with {} instead of {noted}", self.last);
            self.warnings.push(text);
            return noted;
        }
        if self.warnings.is_empty() && (self.closed || is_same_boot) {
            return self.last;
        }
        tracing::warn!("events may be missing: the machine ended without a word, or the journal was damaged");
        self.last.saturating_add(JUMP)
    }

    fn take(&mut self, place: &Place, segment: &mut Segment, on: &Blocking) -> Result<()> {
        let content = files::read(&segment.path(&place.dir), on)?;
        self.warnings.extend(mend(place, segment, &content, on)?);
        self.last = self.last.max(segment.first.saturating_sub(1));
        self.high = self.high.max(Some(segment.high).filter(|high| *high != i64::MAX).unwrap_or(i64::MIN));
        for record in &content.records {
            self.last = self.last.max(record.n);
            self.high = self.high.max(record.t);
            self.tokens.extend(record.c);
        }
        self.session = content.session.or(self.session.take());
        self.closed = content.closed;
        Ok(())
    }
}

/// Brings a file into a form that can be read on and written on; what is wrong with it.
fn mend(place: &Place, segment: &mut Segment, content: &Content, on: &Blocking) -> Result<Option<String>> {
    let good = content.good.len() as u64;
    if good == content.len && content.head.is_some() {
        segment.len = content.len;
        return Ok(None);
    }
    if content.bad == 0 && content.head.is_some() && is_prefix(place, segment, good) {
        // Blocks that were reserved, or reached the disk before their content.
        let file = files::reopen(&place.dir, segment, on).and_then(|file| file.set_len(good));
        file.with_context(|| format!("shortening {}", segment.path(&place.dir).display()))?;
        segment.len = good;
        return Ok(None);
    }
    let aside = files::set_aside(&place.dir, segment, &place.quarantine, on)?;
    segment.len = files::rewrite(&place.dir, segment, content, on)?;
    let (path, aside) = (segment.path(&place.dir), aside.display().to_string());
    let what = match content.len - good {
        0 => "has lost its beginning".to_owned(),
        bad => format!("holds {bad} bytes that cannot be read"),
    };
    Ok(Some(format!("the journal of events was damaged: {} {what}; a copy is {aside}", path.display())))
}

/// Whether what is whole comes before all that is not.
fn is_prefix(place: &Place, segment: &Segment, good: u64) -> bool {
    let mut byte = [0];
    let read = File::open(segment.path(&place.dir)).and_then(|file| file.read_at(&mut byte, good));
    read.is_ok() && byte == [0]
}

/// Looks the older files over; what is wrong with them, and those that were replaced by what is whole of them.
pub(crate) fn verify(place: &Place, segments: &[Segment], on: &Blocking) -> (Vec<String>, Vec<Segment>) {
    let (mut warnings, mut mended) = (Vec::new(), Vec::new());
    for old in segments.iter().rev().skip(READ) {
        let mut segment = old.clone();
        let looked = files::read(&old.path(&place.dir), on).and_then(|content| mend(place, &mut segment, &content, on));
        match looked {
            Ok(warning) => warnings.extend(warning),
            // It is over the bound by now.
            Err(_) if is_gone(&old.path(&place.dir)) => continue,
            Err(error) => warnings.push(format!("the journal of events: {error}")),
        }
        if segment != *old {
            mended.push(segment);
        }
    }
    (warnings, mended)
}

fn is_gone(path: &Path) -> bool {
    !path.exists()
}
