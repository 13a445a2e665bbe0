//! Finding the last lines of a file by reading it backwards.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::parse;
use crate::file::codec::MAX_ENTRY;

const BLOCK: usize = 64 * 1024;

/// Where the last `lines` complete lines before `end` begin, and how many there are. An unterminated end does not count.
pub fn start_of_last(file: &File, end: u64, lines: u64) -> io::Result<(u64, u64)> {
    let mut block = vec![0; BLOCK.min(usize::try_from(end).unwrap_or(BLOCK))];
    // The newline that ends the last line is the first one met; each further one begins a line.
    let (mut position, mut newlines) = (end, 0);
    while position > 0 {
        let length = block.len().min(usize::try_from(position).unwrap_or(BLOCK));
        position -= length as u64;
        let window = &mut block[..length];
        file.read_exact_at(window, position)?;
        for at in memchr::memrchr_iter(b'\n', window) {
            if newlines == lines {
                return Ok((position + at as u64 + 1, lines));
            }
            newlines += 1;
        }
    }
    Ok((0, newlines))
}

/// The number of complete lines that a reader gives.
pub fn count(reader: &mut dyn Read) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut lines = 0;
    loop {
        match reader.read(&mut block) {
            Ok(0) => return Ok(lines),
            Ok(n) => lines += memchr::memchr_iter(b'\n', &block[..n]).count() as u64,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The time text of the last entry; empty if it cannot be told.
pub fn last_time(file: &File) -> io::Result<String> {
    let end = file.metadata()?.len();
    let (start, lines) = start_of_last(file, end, 1)?;
    let length = usize::try_from(end - start).unwrap_or(usize::MAX);
    if lines == 0 || length > MAX_ENTRY {
        return Ok(String::new());
    }
    let mut line = vec![0; length];
    file.read_exact_at(&mut line, start)?;
    let line = line.split(|&b| b == b'\n').next().unwrap_or_default();
    let time = parse::own(line).map_or(&b""[..], |entry| entry.time);
    Ok(String::from_utf8_lossy(time).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(text: &str) -> (File, u64) {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        (file, text.len() as u64)
    }

    #[test]
    fn last_lines() {
        let (file, end) = file_of("a\nbb\nccc\n");
        assert_eq!(start_of_last(&file, end, 1).unwrap(), (5, 1));
        assert_eq!(start_of_last(&file, end, 2).unwrap(), (2, 2));
        assert_eq!(start_of_last(&file, end, 3).unwrap(), (0, 3));
        assert_eq!(start_of_last(&file, end, 9).unwrap(), (0, 3));
        assert_eq!(start_of_last(&file, 0, 9).unwrap(), (0, 0));
        let (file, end) = file_of("a\nbb\ntruncat");
        assert_eq!(start_of_last(&file, end, 1).unwrap(), (2, 1));
    }

    #[test]
    fn lines_across_blocks() {
        let text = "0123456789\n".repeat(20_000);
        let (file, end) = file_of(&text);
        for lines in [1, 100, 5958, 5959, 19_999] {
            assert_eq!(start_of_last(&file, end, lines).unwrap(), (end - lines * 11, lines));
        }
        assert_eq!(count(&mut &text.as_bytes()[..]).unwrap(), 20_000);
    }
}
