//! Small files: read whole within a bound, written so that a power cut leaves the old one or the new one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// The content of a regular file of at most `max` bytes.
///
/// Errors: those of open(2) and read(2); `InvalidData` for anything but a regular file, which might never end or be waited
/// for without end, and for a larger one.
pub fn read_small(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidData, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("it is larger than {max} bytes")));
    }
    Ok(bytes)
}

/// The content of a file that the kernel makes while it is read (proc(5)). Such a file tells no size, so that [`fs::read`]
/// begins with a look at it and reads of 32 bytes: this takes a page at once.
pub fn read_made(path: &str) -> io::Result<Vec<u8>> {
    const PAGE: usize = 4096;
    let mut file = File::open(path)?;
    let (mut bytes, mut page) = (Vec::new(), [0; PAGE]);
    loop {
        match file.read(&mut page) {
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes.extend_from_slice(&page[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes a file of this mode in the place of what is there: synced under another name (`<path>.new`), renamed, and its
/// directory synced.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut new = OsString::from(path);
    new.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_dir(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Makes durable what a directory itself is, and which names it has.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_the_kernel_makes_is_read_whole() {
        // Longer than a page.
        assert!(read_made("/proc/self/smaps").unwrap().len() > 8192);
        assert_eq!(read_made("/proc/version").unwrap(), fs::read("/proc/version").unwrap());
        assert_eq!(read_made("/proc/absent").unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_small_file_is_read_whole_and_nothing_else_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert_eq!(read_small(&path, 9).unwrap_err().kind(), ErrorKind::NotFound);
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"another", 0o600).unwrap();
        assert_eq!(read_small(&path, 7).unwrap(), b"another");
        assert_eq!(read_small(&path, 6).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let pipe = dir.path().join("p");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for other in [pipe.as_path(), dir.path(), Path::new("/dev/zero")] {
            assert_eq!(read_small(other, 9).unwrap_err().kind(), ErrorKind::InvalidData, "{}", other.display());
        }
    }
}
