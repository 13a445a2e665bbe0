//! Writing a tar: POSIX headers, with PAX records for what does not fit them.
//!
//! Nothing is buffered and nothing is added: the same entries give the same bytes. Numbers that have no room, names
//! that are long or not ASCII, and extended attributes go into PAX records, as every reader of layers understands them.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::{BLOCK, Entry, Kind, Time, eof, padding, read_some};

/// Bytes of a file copied at once: what an answer sends at once, so that what waits for a slow client keeps its bound.
const CHUNK: usize = 64 << 10;
/// Longest name in a header.
const NAME: usize = 100;
/// Largest number in seven octal digits: owners, device numbers.
const SMALL: u64 = 0o7_777_777;
/// Largest number in eleven octal digits: sizes, times.
const LARGE: u64 = 0o77_777_777_777;

/// A writer of entries.
pub struct Writer<W> {
    writer: W,
}

impl<W: Write> Writer<W> {
    /// Writes to `writer`; nothing is buffered here.
    pub fn new(writer: W) -> Writer<W> {
        Writer { writer }
    }

    /// A directory of root without a time.
    pub fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.entry(&plain(path, Kind::Directory, mode, 0))
    }

    /// A file of root without a time, of exactly `size` bytes out of `data`. `UnexpectedEof` when there are fewer.
    pub fn file(&mut self, path: &str, mode: u32, size: u64, data: &mut impl Read) -> io::Result<()> {
        self.entry(&plain(path, Kind::File, mode, size))?;
        // Not `io::copy`, whose 8 KiB become as many chunks of an answer.
        let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
        let mut left = size;
        while left > 0 {
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(CHUNK));
            match read_some(data, &mut buffer[..wanted])? {
                0 => return Err(eof()),
                n => (self.writer.write_all(&buffer[..n])?, left -= n as u64),
            };
        }
        self.pad(size)
    }

    /// The head of an entry. What a file's `size` announces has to follow by [`Writer::data`] and [`Writer::pad`]; of a file
    /// with a `sparse` map its pieces only, one behind the other, and [`Writer::pad`] once with their sum.
    ///
    /// Such a file is written in the PAX form that GNU tar calls 1.0: its map is the beginning of its data.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let mut path = entry.path.clone();
        if entry.kind == Kind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let records = records(entry, &path);
        if !records.is_empty() {
            let base = path.split(|b| *b == b'/').rfind(|part| !part.is_empty()).unwrap_or_default();
            let name = [b"PaxHeaders.0/", base].concat();
            let size = records.len() as u64;
            let head = Entry { mode: 0o644, ..plain("", Kind::File, 0, size) };
            self.writer.write_all(header(&head, &name, EntryType::XHeader).as_bytes())?;
            self.writer.write_all(&records)?;
            self.pad(size)?;
        }
        let Some(pieces) = &entry.sparse else {
            return self.writer.write_all(header(entry, &path, entry_type(entry.kind)).as_bytes());
        };
        let map = sparse_map(pieces);
        let size = map.len() as u64 + data_size(pieces);
        let base = path.split(|b| *b == b'/').rfind(|part| !part.is_empty()).unwrap_or_default();
        let name = [b"GNUSparseFile.0/", base].concat();
        let head = Entry { size, sparse: None, ..entry.clone() };
        self.writer.write_all(header(&head, &name, EntryType::Regular).as_bytes())?;
        self.writer.write_all(&map)
    }

    /// Some of a file's bytes.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }

    /// What stands behind a file of this size.
    pub fn pad(&mut self, size: u64) -> io::Result<()> {
        self.writer.write_all(&[0; BLOCK][..padding(size) as usize])
    }

    /// The end mark.
    pub fn finish(mut self) -> io::Result<W> {
        self.writer.write_all(&[0; 2 * BLOCK])?;
        self.writer.flush()?;
        Ok(self.writer)
    }
}

fn plain(path: &str, kind: Kind, mode: u32, size: u64) -> Entry {
    Entry {
        kind,
        path: path.into(),
        link: Vec::new(),
        size,
        mode,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        major: 0,
        minor: 0,
        xattrs: Default::default(),
        sparse: None,
    }
}

/// Bytes of all pieces of a sparse file.
pub(crate) fn data_size(pieces: &[(u64, u64)]) -> u64 {
    pieces.iter().map(|(_, length)| length).sum()
}

/// The map of a sparse file: how many pieces, then offset and length of each, in lines, in whole blocks.
pub(crate) fn sparse_map(pieces: &[(u64, u64)]) -> Vec<u8> {
    let mut map = format!("{}\n", pieces.len()).into_bytes();
    for (offset, length) in pieces {
        map.extend(format!("{offset}\n{length}\n").bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

fn entry_type(kind: Kind) -> EntryType {
    match kind {
        Kind::File | Kind::Other => EntryType::Regular,
        Kind::HardLink => EntryType::Link,
        Kind::Symlink => EntryType::Symlink,
        Kind::Char => EntryType::Char,
        Kind::Block => EntryType::Block,
        Kind::Fifo => EntryType::Fifo,
        Kind::Directory => EntryType::Directory,
    }
}

fn header(entry: &Entry, path: &[u8], kind: EntryType) -> Header {
    let mut header = Header::new_ustar();
    let old = header.as_old_mut();
    let cut = |text: &[u8], field: &mut [u8; NAME]| {
        let length = text.len().min(NAME);
        field[..length].copy_from_slice(&text[..length]);
    };
    cut(path, &mut old.name);
    cut(&entry.link, &mut old.linkname);
    header.set_entry_type(kind);
    header.set_mode(entry.mode);
    let fits = |number: u64, most: u64| if number <= most { number } else { 0 };
    header.set_uid(fits(entry.uid.into(), SMALL));
    header.set_gid(fits(entry.gid.into(), SMALL));
    header.set_size(fits(entry.size, LARGE));
    header.set_mtime(fits(u64::try_from(entry.mtime.seconds).unwrap_or(u64::MAX), LARGE));
    if let Some(ustar) = header.as_ustar_mut() {
        // The kernel's numbers have 12 and 20 bits.
        ustar.set_device_major(entry.major);
        ustar.set_device_minor(entry.minor);
    }
    header.set_cksum();
    // As old tars and Go write it: what the reference saves of the same images has these very bytes.
    if let Ok(sum) = header.cksum() {
        header.as_old_mut().cksum.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    header
}

/// The PAX records an entry needs, by name as Go writes them.
fn records(entry: &Entry, path: &[u8]) -> Vec<u8> {
    let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut number = |key: &str, value: u64, most: u64| {
        if value > most {
            found.push((key.into(), value.to_string().into_bytes()));
        }
    };
    number("gid", entry.gid.into(), SMALL);
    number("uid", entry.uid.into(), SMALL);
    let stored = entry.sparse.as_ref().map(|pieces| sparse_map(pieces).len() as u64 + data_size(pieces));
    number("size", stored.unwrap_or(entry.size), LARGE);
    if stored.is_some() {
        let sparse = [("major", "1"), ("minor", "0"), ("realsize", &*entry.size.to_string())];
        found.extend(sparse.map(|(key, value)| (format!("GNU.sparse.{key}").into(), value.into())));
        found.push((b"GNU.sparse.name".into(), path.to_vec()));
    }
    if entry.mtime.nanos != 0 || u64::try_from(entry.mtime.seconds).map_or(true, |seconds| seconds > LARGE) {
        found.push((b"mtime".into(), time(entry.mtime).into_bytes()));
    }
    let fits = |text: &[u8]| text.len() <= NAME && text.is_ascii();
    if !fits(path) && entry.sparse.is_none() {
        found.push((b"path".into(), path.to_vec()));
    }
    if !fits(&entry.link) {
        found.push((b"linkpath".into(), entry.link.clone()));
    }
    found.extend(entry.xattrs.iter().map(|(key, value)| ([b"SCHILY.xattr.", &key[..]].concat(), value.clone())));
    found.sort();
    found.iter().flat_map(|(key, value)| record(key, value)).collect()
}

/// Seconds and, if there are any, nanoseconds behind a point. Below zero both count backwards.
fn time(time: Time) -> String {
    match time {
        Time { seconds, nanos: 0 } => seconds.to_string(),
        Time { seconds, nanos } if seconds >= 0 => format!("{seconds}.{nanos:09}"),
        Time { seconds, nanos } => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key, b"=", value, b"\n"].concat();
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    [length.to_string().as_bytes(), &rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Archive;

    fn written(entry: &Entry) -> (Vec<u8>, Entry) {
        let mut writer = Writer::new(Vec::new());
        writer.entry(entry).unwrap();
        let bytes = writer.finish().unwrap();
        let read = Archive::new(&bytes[..]).next_entry().unwrap().unwrap();
        (bytes, read)
    }

    #[test]
    fn what_fits_is_a_plain_header() {
        let entry = Entry {
            uid: 7,
            mtime: Time { seconds: 1_600_000_000, nanos: 0 },
            ..plain("bin/sh", Kind::Fifo, 0o4755, 0)
        };
        let (bytes, read) = written(&entry);
        assert_eq!((bytes.len(), format!("{read:?}")), (3 * BLOCK, format!("{entry:?}")));
        assert_eq!(&bytes[154..156], b"\0 ");
    }

    #[test]
    fn what_does_not_fit_comes_back_as_well() {
        let long = format!("{}/\u{e9}", "d".repeat(300));
        let entry = Entry {
            uid: 3_000_000_000,
            gid: 2_097_152,
            link: "t".repeat(101).into(),
            mtime: Time { seconds: -1, nanos: 0 },
            xattrs: [(b"security.capability".to_vec(), vec![1, 0, b'\n', 2])].into(),
            ..plain(&long, Kind::Symlink, 0o777, 0)
        };
        let (_, read) = written(&entry);
        assert_eq!(format!("{read:?}"), format!("{entry:?}"));
        let (_, read) = written(&plain(&"x".repeat(120), Kind::Directory, 0o1777, 0));
        assert_eq!(read.path, [&[b'x'; 120][..], b"/"].concat());
        let (_, read) = written(&plain("huge", Kind::File, 0o600, 9 << 30));
        assert_eq!(read.size, 9 << 30);
    }

    #[test]
    fn times_come_back_to_the_nanosecond() {
        for (seconds, nanos) in [(1_600_000_000, 5), (0, 999_999_999), (-1, 1), (-7, 250_000_000), (3, 0)] {
            let mtime = Time { seconds, nanos };
            assert_eq!(written(&Entry { mtime, ..plain("f", Kind::File, 0o600, 0) }).1.mtime, mtime);
        }
    }

    #[test]
    fn a_record_counts_its_own_digits() {
        for length in 0..200 {
            let record = record(b"k", &vec![b'v'; length]);
            let digits = record.split(|b| *b == b' ').next().unwrap();
            assert_eq!(std::str::from_utf8(digits).unwrap().parse::<usize>().unwrap(), record.len());
        }
    }
}
