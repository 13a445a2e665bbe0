//! Compressed streams, told apart by their first bytes.
//!
//! gzip (several members too), zstd (several frames) and plain data are read; bzip2 and xz are recognised and refused
//! by name. Memory is bounded: a zstd window above [`WINDOW_LOG`] is an error.

use std::io::{self, Cursor, Read};

use model::{Error, Result};

/// Largest zstd window accepted, as a power of two: 128 MiB, what `zstd --ultra` reaches without `--long`.
const WINDOW_LOG: u32 = 27;
/// Size of the input buffer in front of the decoder.
const BUFFER: usize = 64 << 10;

/// A stream's compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// None.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// Known, not supported.
    Bzip2,
    /// Known, not supported.
    Xz,
}

impl Compression {
    /// By the magic number; fewer than 6 bytes are compared as far as they go.
    pub fn of(head: &[u8]) -> Compression {
        if head.starts_with(&[0x1f, 0x8b, 0x08]) {
            Compression::Gzip
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Compression::Zstd
        } else if head.starts_with(b"BZh") {
            Compression::Bzip2
        } else if head.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            Compression::Xz
        } else if head.len() >= 4 && (0x50..=0x5f).contains(&head[0]) && head[1..4] == [0x2a, 0x4d, 0x18] {
            // A skippable frame in front, as pzstd and zstd:chunked write.
            Compression::Zstd
        } else {
            Compression::Plain
        }
    }
}

/// The uncompressed stream behind `reader`.
pub fn decompress<'r>(mut reader: impl Read + Send + 'r) -> Result<Box<dyn Read + Send + 'r>> {
    let mut head = [0; 6];
    let mut filled = 0;
    while filled < head.len() {
        match reader.read(&mut head[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let whole = Cursor::new(head[..filled].to_vec()).chain(reader);
    match Compression::of(&head[..filled]) {
        Compression::Plain => Ok(Box::new(whole)),
        Compression::Gzip => {
            let buffered = io::BufReader::with_capacity(BUFFER, whole);
            Ok(Box::new(Plainly(flate2::bufread::MultiGzDecoder::new(buffered))))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(whole)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Ok(Box::new(Plainly(decoder)))
        }
        Compression::Bzip2 => Err(Error::not_implemented("bzip2 compressed archives are not supported")),
        Compression::Xz => Err(Error::not_implemented("xz compressed archives are not supported")),
    }
}

/// A decoder that says of a stream cut short what the reference says, whatever the compression.
struct Plainly<R>(R);

impl<R: Read> Read for Plainly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected EOF"),
            _ => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn text(bytes: &[u8]) -> String {
        let mut out = String::new();
        decompress(bytes).unwrap().read_to_string(&mut out).unwrap();
        out
    }

    #[test]
    fn each_format_is_read_by_its_magic() {
        let mut gzip = Vec::new();
        for part in ["hello ", "world"] {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(part.as_bytes()).unwrap();
            gzip.extend(encoder.finish().unwrap());
        }
        let zstd = zstd::encode_all(&b"hello world"[..], 1).unwrap();
        for bytes in [&gzip[..], &zstd, b"hello world"] {
            assert_eq!(text(bytes), "hello world");
        }
        assert_eq!(text(b""), "");
        assert_eq!(text(b"hi"), "hi");
    }

    #[test]
    fn a_stream_cut_short_ends_unexpectedly() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&[7; 1000]).unwrap();
        for mut bytes in [encoder.finish().unwrap(), zstd::encode_all(&[7; 1000][..], 1).unwrap()] {
            bytes.truncate(bytes.len() - 5);
            let error = decompress(&bytes[..]).unwrap().read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::UnexpectedEof, "unexpected EOF"));
        }
    }

    #[test]
    fn what_is_known_but_not_read_is_named() {
        let Err(error) = decompress(&b"BZh91AY"[..]) else { panic!("accepted") };
        assert_eq!(error.message(), "bzip2 compressed archives are not supported");
        assert!(decompress(&b"\xfd7zXZ\0\0"[..]).is_err());
    }
}
