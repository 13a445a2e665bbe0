//! Where a file of the chain stands in its log: how many lines were written before its first one, and until its last.
//!
//! The writer notes both as extended attributes (xattr(7)) when it rotates, so that a reader that goes from one file to another
//! knows how many lines lie between them. Where there are none (an older writer, a file system without them) it only knows
//! whether files are missing.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

/// Lines before the first one of the file.
const BEGIN: &str = "user.gantry.begin";
/// Lines before the first one of the next file.
const END: &str = "user.gantry.end";
/// How an entry that ends a line goes on after its text.
const LINE_END: &[u8] = b"\\n\",\"stream\":\"";
const BLOCK: usize = 64 * 1024;

/// The number of lines before the file; `None`: not noted.
pub fn begin(file: impl AsFd) -> Option<u64> {
    read(file, BEGIN)
}

/// The number of lines up to the file's end; `None`: not noted, perhaps since it still grows.
pub fn end(file: impl AsFd) -> Option<u64> {
    read(file, END)
}

fn read(file: impl AsFd, name: &str) -> Option<u64> {
    let mut text = [0; 20];
    let length = fgetxattr(file, name, &mut text[..]).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.parse().ok()
}

/// Notes that a file ends and the next one begins behind so many lines. Without extended attributes nothing is noted.
pub fn note(ended: impl AsFd, next: impl AsFd, lines: u64) {
    let text = lines.to_string();
    let _ = fsetxattr(ended, END, text.as_bytes(), XattrFlags::empty());
    let _ = fsetxattr(next, BEGIN, text.as_bytes(), XattrFlags::empty());
}

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

    #[test]
    fn what_is_noted_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (File::create(dir.path().join("1")).unwrap(), File::create(dir.path().join("2")).unwrap());
        assert_eq!((end(&one), begin(&two)), (None, None));
        note(&one, &two, 12_345);
        assert_eq!((end(&one), begin(&two)), (Some(12_345), Some(12_345)));
    }
}
