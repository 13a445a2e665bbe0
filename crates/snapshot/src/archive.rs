//! Reading a tar stream entry by entry, with bounded memory; [`Writer`] writes one.
//!
//! Headers are decoded by the `tar` crate; finding them, and everything an entry's meaning is spread over (GNU long
//! names, PAX records, the GNU sparse formats), happens here, because those parts are sized by the archive: each is
//! read only up to [`SPECIAL_BYTES`]. What Go's reader accepts (which wrote most layers there are) is accepted.

mod error;
mod time;
mod write;

use std::collections::BTreeMap;
use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use crate::pax::{self, Pax};
use error::eof;

pub(crate) use error::bad;
pub use time::Time;
pub use write::Writer;

const BLOCK: usize = 512;
/// Bound of a long name, a PAX header or a sparse map.
const SPECIAL_BYTES: u64 = 1 << 20;
/// Extended headers in front of one entry.
const SPECIALS: usize = 16;
/// Fragments of one sparse file.
const FRAGMENTS: usize = 1 << 16;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With data.
    File,
    /// To an earlier entry.
    HardLink,
    /// To any path.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
    /// A directory.
    Directory,
    /// Neither known nor harmful: read over.
    Other,
}

/// One member of the archive. Its data is read from the stream before the next entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// As in the archive.
    pub path: Vec<u8>,
    /// The target of a link, as in the archive.
    pub link: Vec<u8>,
    /// Bytes of the file when written out, holes included.
    pub size: u64,
    /// Permission bits with setuid, setgid, sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of the last modification.
    pub mtime: Time,
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// Extended attributes by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where the data belongs in the file, ascending (offset, length); `None`: all of it, from 0.
    pub sparse: Option<Vec<(u64, u64)>>,
}

/// A reader of entries.
pub struct Archive<R> {
    reader: R,
    /// Data of the current entry that has not been read.
    data: u64,
    /// Padding behind it.
    padding: u64,
}

impl<R: Read> Archive<R> {
    /// Reads from `reader`, which is uncompressed.
    pub fn new(reader: R) -> Archive<R> {
        Archive { reader, data: 0, padding: 0 }
    }

    /// The next entry; `None` at the end of the archive. What was left of the one before is skipped.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        self.skip(self.data)?;
        let padding = &mut [0; BLOCK][..self.padding as usize];
        (self.data, self.padding) = (0, 0);
        // Writers that end the archive behind the last byte of data leave it out.
        if fill(&mut self.reader, padding)? < padding.len() {
            return Ok(None);
        }
        let mut pax = Pax::default();
        let (mut long_path, mut long_link) = (None, None);
        for _ in 0..SPECIALS {
            let Some(header) = self.header()? else { return Ok(None) };
            match header.entry_type() {
                EntryType::XHeader => pax = pax::parse(&self.special(&header)?)?,
                EntryType::XGlobalHeader => drop(self.special(&header)?),
                EntryType::GNULongName => long_path = Some(c_string(self.special(&header)?)),
                EntryType::GNULongLink => long_link = Some(c_string(self.special(&header)?)),
                _ => {
                    pax.path = long_path.or(pax.path);
                    pax.link = long_link.or(pax.link);
                    return self.entry(&header, pax).map(Some);
                }
            }
        }
        Err(bad("too many extended headers"))
    }

    /// Reads data of the current entry; 0 at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let n = read_some(&mut self.reader, &mut buffer[..wanted])?;
        if n == 0 {
            return Err(eof());
        }
        self.data -= n as u64;
        Ok(n)
    }

    /// Reads the stream to its end, behind the end of the archive as well.
    pub fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * BLOCK];
        while read_some(&mut self.reader, &mut buffer)? > 0 {}
        Ok(())
    }

    /// A block; `None` where the stream ends.
    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        match fill(&mut self.reader, &mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(eof()),
        }
    }

    /// The next header that is not the end mark: two blocks of zeros. One of them, and then more, is malformed: some
    /// readers would stop there and others go on.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if is_zero(&block) {
            return match self.block()? {
                Some(second) if !is_zero(&second) => Err(bad("invalid tar header")),
                _ => Ok(None),
            };
        }
        let header = Header::from_byte_slice(&block).clone();
        let (unsigned, signed) = sums(&block);
        match numeric(&header.as_old().cksum) {
            Ok(sum) if sum == unsigned || sum == signed => Ok(Some(header)),
            _ => Err(bad("invalid tar header")),
        }
    }

    /// The data of an extended header.
    fn special(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let size = unsigned(&header.as_old().size)?;
        if size > SPECIAL_BYTES {
            return Err(bad("header field too long"));
        }
        let mut data = vec![0; size as usize];
        if fill(&mut self.reader, &mut data)? < data.len() {
            return Err(eof());
        }
        self.skip(padding(size))?;
        Ok(data)
    }

    fn entry(&mut self, header: &Header, pax: Pax) -> io::Result<Entry> {
        let old = header.as_old();
        let size = pax.size.map_or_else(|| unsigned(&old.size), Ok)?;
        let (major, minor) = devices(header)?;
        let path = pax.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = kind(header.entry_type(), &path);
        // A link or directory may carry a size; there is no data behind it.
        let has_data = matches!(kind, Kind::File | Kind::Other);
        (self.data, self.padding) = if has_data { (size, padding(size)) } else { (0, 0) };
        let mut entry = Entry {
            kind,
            path,
            link: pax.link.or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default(),
            size,
            mode: unsigned(&old.mode)? as u32 & 0o7777,
            uid: id(pax.uid.map_or_else(|| unsigned(&old.uid), Ok)?)?,
            gid: id(pax.gid.map_or_else(|| unsigned(&old.gid), Ok)?)?,
            mtime: match pax.mtime {
                Some(time) => time,
                None => Time { seconds: numeric(&old.mtime)?, nanos: 0 },
            },
            major,
            minor,
            xattrs: pax.xattrs,
            sparse: None,
        };
        if kind == Kind::File {
            self.sparse(header, pax.sparse, &mut entry)?;
        }
        Ok(entry)
    }

    /// Fills in where the data of a sparse file belongs.
    fn sparse(&mut self, header: &Header, records: pax::Sparse, entry: &mut Entry) -> io::Result<()> {
        let map = if header.entry_type() == EntryType::GNUSparse {
            let gnu = header.as_gnu().ok_or_else(|| bad("invalid tar header"))?;
            entry.size = unsigned(&gnu.realsize)?;
            self.old_gnu_map(gnu)?
        } else if let (Some(1), Some(0)) = (records.major, records.minor) {
            self.map_in_data()?
        } else if !records.map.is_empty() {
            pairs(&records.map)?
        } else {
            return Ok(());
        };
        if let Some(size) = records.real_size {
            entry.size = size;
        }
        if let Some(name) = records.name {
            entry.path = name;
        }
        let (mut end, mut sum) = (0_u64, 0_u64);
        for (offset, length) in &map {
            let next = offset.checked_add(*length).filter(|next| *next <= entry.size && *offset >= end);
            end = next.ok_or_else(|| bad("invalid sparse map"))?;
            sum += length;
        }
        if sum != self.data || map.len() > FRAGMENTS {
            return Err(bad("invalid sparse map"));
        }
        entry.sparse = Some(map);
        Ok(())
    }

    /// The map in the header and the blocks behind it, which the entry's size does not count.
    fn old_gnu_map(&mut self, gnu: &tar::GnuHeader) -> io::Result<Vec<(u64, u64)>> {
        let mut map = Vec::new();
        take(&gnu.sparse, &mut map)?;
        let mut extended = gnu.is_extended();
        while extended {
            let mut block = GnuExtSparseHeader::new();
            if fill(&mut self.reader, block.as_mut_bytes())? < BLOCK {
                return Err(eof());
            }
            take(block.sparse(), &mut map)?;
            if map.len() > FRAGMENTS {
                return Err(bad("invalid sparse map"));
            }
            extended = block.is_extended();
        }
        Ok(map)
    }

    /// Format 1.0: the map as decimal lines in front of the data, padded to whole blocks.
    fn map_in_data(&mut self) -> io::Result<Vec<(u64, u64)>> {
        let mut text = Vec::new();
        let mut numbers = Vec::new();
        let mut wanted = 1;
        loop {
            let mut block = [0; BLOCK];
            let mut filled = 0;
            while filled < BLOCK {
                match self.read(&mut block[filled..])? {
                    0 => return Err(bad("invalid sparse map")),
                    n => filled += n,
                }
            }
            text.extend_from_slice(&block);
            while numbers.len() < wanted
                && let Some(at) = text.iter().position(|b| *b == b'\n')
            {
                let line: Vec<u8> = text.drain(..=at).collect();
                let value = pax::number(&line[..at]).ok_or_else(|| bad("invalid sparse map"))?;
                if numbers.is_empty() {
                    let count = usize::try_from(value).ok().filter(|n| *n <= FRAGMENTS);
                    wanted = 1 + 2 * count.ok_or_else(|| bad("invalid sparse map"))?;
                }
                numbers.push(value);
            }
            if numbers.len() == wanted {
                return pairs(&numbers[1..]);
            }
            if text.len() > BLOCK {
                return Err(bad("invalid sparse map"));
            }
        }
    }

    fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        let mut buffer = [0; 16 * BLOCK];
        while bytes > 0 {
            let wanted = bytes.min(buffer.len() as u64) as usize;
            match read_some(&mut self.reader, &mut buffer[..wanted])? {
                0 => return Err(eof()),
                n => bytes -= n as u64,
            }
        }
        Ok(())
    }
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// The sum of a header's bytes, its own field taken as blanks; and the same of bytes with a sign, as old archivers had it.
fn sums(block: &[u8; BLOCK]) -> (i64, i64) {
    let bytes = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    bytes.fold((0, 0), |(unsigned, signed), byte| (unsigned + i64::from(byte), signed + i64::from(byte.cast_signed())))
}

fn kind(kind: EntryType, path: &[u8]) -> Kind {
    match kind {
        // Archives older than POSIX mark a directory by its name only.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Link => Kind::HardLink,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Char => Kind::Char,
        EntryType::Block => Kind::Block,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Directory => Kind::Directory,
        _ => Kind::Other,
    }
}

/// Device numbers; archives older than POSIX have none.
fn devices(header: &Header) -> io::Result<(u32, u32)> {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (_, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        _ => return Ok((0, 0)),
    };
    let number = |field| u32::try_from(unsigned(field)?).map_err(|_| bad("invalid device number"));
    Ok((number(major)?, number(minor)?))
}

fn unsigned(field: &[u8]) -> io::Result<u64> {
    u64::try_from(numeric(field)?).map_err(|_| bad("invalid tar header"))
}

/// A number of a header: octal digits between blanks (none: 0), or base 256 when the highest bit is set.
fn numeric(field: &[u8]) -> io::Result<i64> {
    if field[0] & 0x80 != 0 {
        // Two's complement over all bits but the marker.
        let negative = field[0] & 0x40 != 0;
        let first = if negative { field[0] } else { field[0] & 0x3f };
        let bytes = std::iter::once(first).chain(field[1..].iter().copied());
        let start = if negative { -1 } else { 0 };
        let value =
            bytes.fold(i128::from(start), |value, byte| (value << 8 | i128::from(byte)).clamp(-1 << 100, 1 << 100));
        return i64::try_from(value).map_err(|_| bad("invalid tar header"));
    }
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = field[start..].iter().take_while(|b| !blank(b));
    let value = digits.into_iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    });
    value.ok_or_else(|| bad("invalid tar header"))
}

fn id(id: u64) -> io::Result<u32> {
    u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| bad("invalid owner"))
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn pairs(numbers: &[u64]) -> io::Result<Vec<(u64, u64)>> {
    if !numbers.len().is_multiple_of(2) {
        return Err(bad("invalid sparse map"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

fn take(headers: &[GnuSparseHeader], map: &mut Vec<(u64, u64)>) -> io::Result<()> {
    for header in headers.iter().filter(|h| !h.is_empty()) {
        map.push((unsigned(&header.offset)?, unsigned(&header.numbytes)?));
    }
    Ok(())
}

fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Fills the buffer unless the stream ends; answers how far it came.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read_some(reader, &mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, data) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append_data(&mut header, path, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn names(bytes: &[u8]) -> io::Result<Vec<String>> {
        let mut archive = Archive::new(bytes);
        let mut names = Vec::new();
        while let Some(entry) = archive.next_entry()? {
            names.push(String::from_utf8(entry.path).unwrap());
        }
        archive.drain()?;
        Ok(names)
    }

    #[test]
    fn numbers_come_octal_or_binary() {
        assert_eq!(numeric(b"0000644\0").unwrap(), 0o644);
        assert_eq!(numeric(b"  12 \0").unwrap(), 0o12);
        assert_eq!(numeric(b"\0\0\0").unwrap(), 0);
        assert_eq!(numeric(b"\x80\0\x01\0").unwrap(), 256);
        assert_eq!(numeric(&[0xff; 12]).unwrap(), -1);
        assert_eq!(numeric(b"\xff\xff\xff\xfe").unwrap(), -2);
        for wrong in [&b"8"[..], b"12a", &[0xbf; 12], b"7777777777777777777777777"] {
            assert!(numeric(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn long_names_and_unread_data_are_passed() {
        let long = format!("d/{}", "x".repeat(300));
        let bytes = tar(&[("a", EntryType::Regular, b"12345"), (&long, EntryType::Regular, b"")]);
        assert_eq!(names(&bytes).unwrap(), ["a", long.as_str()]);
    }

    #[test]
    fn an_archive_may_end_without_its_mark_but_not_within_an_entry() {
        let bytes = tar(&[("a", EntryType::Regular, b"12345")]);
        assert_eq!(names(&bytes[..1024]).unwrap(), ["a"]);
        for end in [1, 511, 513, 516, 1025, 1600] {
            let error = names(&bytes[..end]).unwrap_err();
            assert_eq!(error.to_string(), "unexpected EOF", "{end}");
        }
        // Within what only fills the last block it may.
        for end in [517, 600, 1023, 1536] {
            assert_eq!(names(&bytes[..end]).unwrap(), ["a"], "{end}");
        }
        assert_eq!(names(b"garbage").unwrap_err().to_string(), "unexpected EOF");
        assert_eq!(names(&[b'x'; 600]).unwrap_err().to_string(), "archive/tar: invalid tar header");
    }

    #[test]
    fn one_block_of_zeros_is_no_end() {
        let (first, second) = (tar(&[("a", EntryType::Regular, b"1")]), tar(&[("b", EntryType::Regular, b"2")]));
        let with = |zeros: usize| [&first[..1024], &vec![0; zeros * BLOCK], &second].concat();
        assert_eq!(names(&with(1)).unwrap_err().to_string(), "archive/tar: invalid tar header");
        assert_eq!(names(&with(2)).unwrap(), ["a"]);
        assert_eq!(names(&[&first[..1024], &[0; BLOCK]].concat()).unwrap(), ["a"]);
    }

    #[test]
    fn a_header_may_be_summed_up_with_signs() {
        let mut bytes = tar(&[("aaaa", EntryType::Regular, b"")]);
        bytes[..4].copy_from_slice(b"caf\xe9");
        let header = |sum: i64| format!("{sum:06o}\0 ");
        let (unsigned, signed) = sums(bytes[..BLOCK].try_into().unwrap());
        assert_ne!(unsigned, signed);
        for (sum, good) in [(unsigned, true), (signed, true), (signed + 1, false)] {
            bytes[148..156].copy_from_slice(header(sum).as_bytes());
            let entry = Archive::new(&bytes[..]).next_entry();
            assert_eq!(entry.is_ok_and(|entry| entry.unwrap().path == b"caf\xe9"), good, "{sum}");
        }
    }

    #[test]
    fn a_long_name_of_gnu_goes_before_one_of_pax() {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("path", &b"pax"[..]), ("uid", b""), ("mtime", b"")]).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(1024);
        let long = "g".repeat(200);
        let named = |name: &str| [&bytes[..], &tar(&[(name, EntryType::Regular, b"")])].concat();
        assert_eq!(names(&named(&long)).unwrap(), [long.as_str()]);
        assert_eq!(names(&named("short")).unwrap(), ["pax"]);
    }

    #[test]
    fn a_special_header_larger_than_the_bound_is_refused() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(SPECIAL_BYTES + 1);
        header.set_cksum();
        assert!(names(header.as_bytes()).unwrap_err().to_string().ends_with("header field too long"));
    }

    #[test]
    fn gnu_sparse_1_0_takes_its_map_from_the_data() {
        let mut data = b"2\n0\n3\n1000\n2\n".to_vec();
        data.resize(512, 0);
        data.extend_from_slice(b"abcde");
        let mut builder = tar::Builder::new(Vec::new());
        let records: [(&str, &[u8]); 4] = [
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.realsize", b"2000"),
        ];
        builder.append_pax_extensions(records).unwrap();
        let mut header = Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append_data(&mut header, "GNUSparseFile.0/real", &data[..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        let mut archive = Archive::new(&bytes[..]);
        let entry = archive.next_entry().unwrap().unwrap();
        assert_eq!((entry.path.as_slice(), entry.size), (&b"real"[..], 2000));
        assert_eq!(entry.sparse.unwrap(), [(0, 3), (1000, 2)]);
        let mut rest = [0; 10];
        assert_eq!(archive.read(&mut rest).unwrap(), 5);
        assert_eq!(&rest[..5], b"abcde");
        assert!(archive.next_entry().unwrap().is_none());
    }
}
