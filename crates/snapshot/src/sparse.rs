//! Files with holes: where their data lies, and copies that keep the holes (lseek(2), `SEEK_DATA` and `SEEK_HOLE`).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use rustix::fs::SeekFrom as Place;
use rustix::io::Errno;

/// Bytes of holes from which on a file is written as a sparse one: readers without the format get more files whole.
const HOLES: u64 = 1 << 20;
/// Pieces of one file: what readers of the format take (Go's `archive/tar` takes a map of 1 MiB).
const PIECES: usize = 1 << 14;
/// Zeros that become a hole when a file is written.
const RUN: usize = 32 << 10;

/// The pieces of a file of `size` bytes that hold data, as offset and length, in order. `None`: it has no holes worth
/// speaking of, too many pieces, or a file system that does not tell.
pub(crate) fn pieces(file: &File, size: u64) -> io::Result<Option<Vec<(u64, u64)>>> {
    let (mut found, mut at, mut data) = (Vec::new(), 0, 0);
    while at < size {
        let start = match rustix::fs::seek(file, Place::Data(at)) {
            Ok(start) => start.min(size),
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY) => return rewound(file, None),
            Err(error) => return Err(error.into()),
        };
        let end = match rustix::fs::seek(file, Place::Hole(start)) {
            Ok(end) => end.min(size),
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        if end > start {
            found.push((start, end - start));
            data += end - start;
        }
        if found.len() > PIECES {
            return rewound(file, None);
        }
        at = end.max(at + 1);
    }
    // A hole at the end is a piece of nothing there: GNU tar goes by the pieces, not by the size.
    if found.last().is_none_or(|(offset, length)| offset + length < size) {
        found.push((size, 0));
    }
    let sparse = size - data >= HOLES;
    rewound(file, Some(found).filter(|_| sparse))
}

fn rewound<T>(mut file: &File, answer: T) -> io::Result<T> {
    file.seek(SeekFrom::Start(0))?;
    Ok(answer)
}

/// Copies a file to an empty one, its holes as holes.
pub(crate) fn copy(source: &mut File, target: &mut File) -> io::Result<()> {
    let size = source.metadata()?.len();
    let Some(pieces) = pieces(source, size)? else {
        // std copies within the kernel where it can.
        return io::copy(source, target).map(drop);
    };
    for (offset, length) in pieces {
        source.seek(SeekFrom::Start(offset))?;
        target.seek(SeekFrom::Start(offset))?;
        io::copy(&mut source.take(length), target)?;
    }
    target.set_len(size)
}

/// Writes bytes at the file's place; runs of zeros are passed over. The caller sets the length in the end.
pub(crate) fn write(file: &mut File, bytes: &[u8]) -> io::Result<u64> {
    let mut written = 0;
    let mut rest = bytes;
    while !rest.is_empty() {
        let zeros = |run: &[u8]| run.len() == RUN && run.iter().all(|byte| *byte == 0);
        let hole = rest.chunks(RUN).take_while(|run| zeros(run)).count() * RUN;
        if hole > 0 {
            file.seek(SeekFrom::Current(hole as i64))?;
            rest = &rest[hole..];
        }
        let data: usize = rest.chunks(RUN).take_while(|run| !zeros(run)).map(<[u8]>::len).sum();
        file.write_all(&rest[..data])?;
        written += data as u64;
        rest = &rest[data..];
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(pieces: &[(u64, &[u8])], size: u64) -> File {
        let mut file = tempfile::tempfile().unwrap();
        for (offset, bytes) in pieces {
            file.seek(SeekFrom::Start(*offset)).unwrap();
            file.write_all(bytes).unwrap();
        }
        file.set_len(size).unwrap();
        file
    }

    fn content(file: &mut File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn holes_are_found_and_copied_as_holes() {
        use std::os::unix::fs::MetadataExt;
        let mut sparse = file(&[(0, b"begin"), (3 << 20, &[7; 4096])], 8 << 20);
        let found = pieces(&sparse, 8 << 20).unwrap().unwrap();
        assert!(found.len() == 3 && found[2] == (8 << 20, 0) && found[0].0 == 0 && found[1].0 == 3 << 20, "{found:?}");
        let mut copied = tempfile::tempfile().unwrap();
        copy(&mut sparse, &mut copied).unwrap();
        assert_eq!(content(&mut copied), content(&mut sparse));
        assert!(copied.metadata().unwrap().blocks() * 512 < 1 << 20);
        let empty = file(&[], 4 << 20);
        assert_eq!(pieces(&empty, 4 << 20).unwrap(), Some(vec![(4 << 20, 0)]));
        let full = file(&[(0, &[1; 4096])], 4096);
        assert_eq!(pieces(&full, 4096).unwrap(), None);
        let small = file(&[], 4096);
        assert_eq!(pieces(&small, 4096).unwrap(), None);
    }

    #[test]
    fn runs_of_zeros_become_holes() {
        use std::os::unix::fs::MetadataExt;
        let mut bytes = vec![0; 4 << 20];
        for at in [0, RUN - 1, 5 * RUN, 9 * RUN + 5, (4 << 20) - 1] {
            bytes[at] = 1;
        }
        for chunk in [1000, RUN, 128 << 10, 4 << 20] {
            let mut target = tempfile::tempfile().unwrap();
            bytes.chunks(chunk).try_for_each(|part| write(&mut target, part).map(drop)).unwrap();
            target.set_len(bytes.len() as u64).unwrap();
            assert_eq!(content(&mut target), bytes, "{chunk}");
            assert!(chunk < RUN || target.metadata().unwrap().blocks() * 512 < 1 << 20, "{chunk}");
        }
    }
}
