//! Counting the lines of the program in a file's text.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How an entry that ends a line goes on after its text.
const LINE_END: &[u8] = b"\\n\",\"stream\":\"";
const BLOCK: usize = 64 * 1024;

/// Entries in the text that end a line.
pub fn lines(text: &[u8]) -> u64 {
    memchr::memmem::find_iter(text, LINE_END).count() as u64
}

/// The same of the first bytes of a file.
pub fn lines_of(file: &File, length: u64) -> io::Result<u64> {
    let mut buffer = vec![0; BLOCK + LINE_END.len()];
    let (mut at, mut kept, mut count) = (0, 0, 0);
    while at < length {
        let wanted = usize::try_from(length - at).unwrap_or(BLOCK).min(BLOCK);
        let n = file.read_at(&mut buffer[kept..kept + wanted], at)?;
        if n == 0 {
            break;
        }
        let filled = kept + n;
        count += lines(&buffer[..filled]);
        at += n as u64;
        // What may be the beginning of one that goes on in the next block; too short to be one itself.
        let rest = filled.min(LINE_END.len() - 1);
        buffer.copy_within(filled - rest..filled, 0);
        kept = rest;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_over_blocks() {
        let entry = |n: usize| format!("{{\"log\":\"{}\\n\",\"stream\":\"stdout\",\"time\":\"x\"}}\n", "y".repeat(n));
        let text: String =
            (0..3000).map(|n| entry(n % 97)).collect::<String>() + "{\"log\":\"no end\",\"stream\":\"stdout\"}\n";
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
        assert_eq!(lines(text.as_bytes()), 3000);
        assert_eq!(lines_of(&file, text.len() as u64).unwrap(), 3000);
        assert_eq!(lines_of(&file, entry(0).len() as u64).unwrap(), 1);
        assert_eq!(lines_of(&file, u64::MAX).unwrap(), 3000);
    }
}
