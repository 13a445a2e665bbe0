//! Where a file of the chain stands in its log: how many lines were written before its first one, and until its last.
//!
//! The writer notes both as extended attributes (xattr(7)) when it rotates, so that a reader that goes from one file to another
//! knows how many lines lie between them. Where there are none (an older writer, a file system without them) it only knows
//! whether files are missing.

use std::os::fd::AsFd;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

/// Lines before the first one of the file.
const BEGIN: &str = "user.gantry.begin";
/// Lines before the first one of the next file.
const END: &str = "user.gantry.end";

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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_is_noted_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (File::create(dir.path().join("1")).unwrap(), File::create(dir.path().join("2")).unwrap());
        assert_eq!((end(&one), begin(&two)), (None, None));
        note(&one, &two, 12_345);
        assert_eq!((end(&one), begin(&two)), (Some(12_345), Some(12_345)));
    }
}
