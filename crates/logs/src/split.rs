//! Output into log entries: lines, and chunks of lines that are too long.
//!
//! A line of more than [`CHUNK`] bytes becomes several entries, all but the last without a newline, all with the time of
//! the first, so that reading them one after the other gives the line back. A chunk never ends inside a UTF-8 character.

/// The longest entry, as in the reference engine.
pub const CHUNK: usize = 16 * 1024;

/// What is left of one stream's output between two reads.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The beginning of a line, less than [`CHUNK`] bytes.
    pending: Vec<u8>,
    /// The time of the first entry of a line of which entries have been made already.
    continued: Option<i64>,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Without the newline.
    pub text: &'a [u8],
    /// It ends the line.
    pub ends_line: bool,
    /// Unix nanoseconds; `None` = now.
    pub time: Option<i64>,
}

impl Splitter {
    /// Passes every entry that `bytes` completes to `emit`, which returns the time that it gave the entry.
    pub fn push(&mut self, mut bytes: &[u8], mut emit: impl FnMut(Piece<'_>) -> i64) {
        while !self.pending.is_empty() && !bytes.is_empty() {
            let window = &bytes[..bytes.len().min(CHUNK - self.pending.len())];
            let (taken, newline) = match memchr::memchr(b'\n', window) {
                Some(at) => (at, true),
                None => (window.len(), false),
            };
            self.pending.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken + usize::from(newline)..];
            if !newline && self.pending.len() < CHUNK {
                return;
            }
            let mut pending = std::mem::take(&mut self.pending);
            let end = if newline { pending.len() } else { whole_characters(&pending) };
            self.piece(&pending[..end], newline, &mut emit);
            pending.drain(..end);
            self.pending = pending;
        }
        self.push_direct(bytes, &mut emit);
    }

    /// With nothing pending: entries are taken from `bytes` without copying.
    fn push_direct(&mut self, mut bytes: &[u8], emit: &mut impl FnMut(Piece<'_>) -> i64) {
        while !bytes.is_empty() {
            let window = &bytes[..bytes.len().min(CHUNK)];
            if let Some(at) = memchr::memchr(b'\n', window) {
                self.piece(&bytes[..at], true, emit);
                bytes = &bytes[at + 1..];
            } else if window.len() == CHUNK {
                let end = whole_characters(window);
                self.piece(&window[..end], false, emit);
                bytes = &bytes[end..];
            } else {
                self.pending.extend_from_slice(bytes);
                return;
            }
        }
    }

    /// The stream has ended: what is left is an entry without a newline.
    pub fn finish(&mut self, mut emit: impl FnMut(Piece<'_>) -> i64) {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            self.piece(&pending, false, &mut emit);
        }
        self.continued = None;
    }

    fn piece(&mut self, text: &[u8], ends_line: bool, emit: &mut impl FnMut(Piece<'_>) -> i64) {
        let time = emit(Piece { text, ends_line, time: self.continued });
        self.continued = if ends_line { None } else { Some(time) };
    }
}

/// The length of `text` without a character that is cut off at its end.
fn whole_characters(text: &[u8]) -> usize {
    let tail = text.len().saturating_sub(3);
    let Some(lead) = text[tail..].iter().rposition(|&b| b >= 0xc0) else { return text.len() };
    let lead = tail + lead;
    let wanted = match text[lead] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    if text.len() - lead < wanted { lead } else { text.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries made of `parts`, each part given in one piece; `true` = with newline.
    fn split(parts: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let mut splitter = Splitter::default();
        let mut entries = Vec::new();
        for part in parts {
            splitter.push(part, |p| {
                entries.push((p.text.to_vec(), p.ends_line));
                1
            });
        }
        splitter.finish(|p| {
            entries.push((p.text.to_vec(), p.ends_line));
            1
        });
        entries
    }

    #[test]
    fn lines_across_reads() {
        let expected =
            [(b"one".to_vec(), true), (b"two".to_vec(), true), (b"".to_vec(), true), (b"end".to_vec(), false)];
        assert_eq!(split(&[b"one\ntwo\n\nend"]), expected);
        assert_eq!(split(&[b"o", b"ne", b"\nt", b"wo\n", b"\n", b"e", b"nd"]), expected);
    }

    #[test]
    fn a_line_of_exactly_one_chunk() {
        let line = vec![b'x'; CHUNK];
        let expected = [(line.clone(), false), (b"".to_vec(), true)];
        assert_eq!(split(&[&line, b"\n"]), expected);
        assert_eq!(split(&[&[line.as_slice(), b"\n"].concat()]), expected);
        assert_eq!(split(&[&line[..5], &[&line[5..], b"\n"].concat()]), expected);
    }

    #[test]
    fn chunks_keep_characters_whole_however_they_arrive() {
        let text = format!("a{}\nz", "é漢😀".repeat(6000)).into_bytes();
        let expected = split(&[&text]);
        assert!(expected.len() > 3);
        assert!(expected.iter().all(|(t, _)| std::str::from_utf8(t).is_ok() && t.len() <= CHUNK));
        for step in [1, 7, 4096, CHUNK - 1, CHUNK + 1] {
            assert_eq!(split(&text.chunks(step).collect::<Vec<_>>()), expected, "in steps of {step}");
        }
    }

    #[test]
    fn chunks_of_a_line_share_a_time() {
        let mut splitter = Splitter::default();
        let mut clock = 0;
        let mut times = Vec::new();
        splitter.push(&[vec![b'x'; 2 * CHUNK + 1], b"\ny\n".to_vec()].concat(), |p| {
            clock += 1;
            times.push(p.time.unwrap_or(clock));
            p.time.unwrap_or(clock)
        });
        assert_eq!(times, [1, 1, 1, 4]);
    }

    #[test]
    fn bytes_that_are_no_text_are_cut_anywhere() {
        assert_eq!(split(&[&[0xff; CHUNK + 2]]), [(vec![0xff; CHUNK], false), (vec![0xff; 2], false)]);
    }
}
