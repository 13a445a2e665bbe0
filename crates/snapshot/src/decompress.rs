//! Compressed streams, told apart by their first bytes.
//!
//! Layers are plain, gzip (several members too) or zstd (several frames). Archives that hold layers, or become one, may
//! be bzip2 or xz as well. Memory is bounded: a zstd window or an xz dictionary above [`WINDOW_LOG`] is an error, and
//! bzip2 has blocks of 900 kB.

use std::io::{self, Cursor, Read};

use model::{Error, Result};

/// Largest window or dictionary accepted, as a power of two: 128 MiB, what `zstd --ultra` reaches without `--long`, and
/// twice what `xz -9` takes.
const WINDOW_LOG: u32 = 27;
/// What the xz decoder takes beside the dictionary, by its own account, and some room; in KiB.
const XZ_OVERHEAD: u32 = 256;
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
    /// Not for layers.
    Bzip2,
    /// Not for layers.
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

/// The uncompressed stream of a layer.
pub fn decompress<'r>(reader: impl Read + Send + 'r) -> Result<Box<dyn Read + Send + 'r>> {
    let (compression, whole) = recognise(reader)?;
    match compression {
        Compression::Plain => Ok(Box::new(whole)),
        Compression::Gzip => Ok(Box::new(Plainly(flate2::bufread::MultiGzDecoder::new(buffered(whole))))),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(whole)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Ok(Box::new(Plainly(decoder)))
        }
        Compression::Bzip2 => Err(Error::not_implemented("bzip2 compressed layers are not supported")),
        Compression::Xz => Err(Error::not_implemented("xz compressed layers are not supported")),
    }
}

/// A stream that [`decompress`] reads: out of a compression that layers cannot have, else as it is.
pub fn to_layer<'r>(reader: impl Read + Send + 'r) -> Result<Box<dyn Read + Send + 'r>> {
    let (compression, whole) = recognise(reader)?;
    match compression {
        Compression::Plain | Compression::Gzip | Compression::Zstd => Ok(Box::new(whole)),
        Compression::Bzip2 => Ok(Box::new(Plainly(bzip2::bufread::MultiBzDecoder::new(buffered(whole))))),
        Compression::Xz => {
            let limit = (1 << (WINDOW_LOG - 10)) + XZ_OVERHEAD;
            Ok(Box::new(Plainly(lzma_rust2::XzReader::new_mem_limit(buffered(whole), true, limit))))
        }
    }
}

fn buffered<R: Read>(reader: R) -> io::BufReader<R> {
    io::BufReader::with_capacity(BUFFER, reader)
}

/// The bytes that were looked at, and what follows.
type Whole<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// A stream's compression, and the stream from its beginning.
fn recognise<R: Read>(mut reader: R) -> Result<(Compression, Whole<R>)> {
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
    Ok((Compression::of(&head[..filled]), Cursor::new(head[..filled].to_vec()).chain(reader)))
}

/// A decoder that says of a stream cut short or spoilt what the reference says, whatever the compression.
struct Plainly<R>(R);

impl<R: Read> Read for Plainly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // To the decoder of xz nothing read is the end.
        if buffer.is_empty() {
            return Ok(0);
        }
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected EOF"),
            io::ErrorKind::OutOfMemory => io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!("the archive needs more than {} MiB of memory to be decompressed", 1 << (WINDOW_LOG - 20)),
            ),
            _ => match plain_text(&error.to_string()) {
                Some(text) => io::Error::new(io::ErrorKind::InvalidData, text),
                None => error,
            },
        })
    }
}

/// The reference's words for what a decoder says of a stream that is none. Any other error may be the reader's below.
fn plain_text(said: &str) -> Option<&'static str> {
    Some(match said {
        "invalid gzip header" => "gzip: invalid header",
        "corrupt gzip stream does not have a matching checksum" => "gzip: invalid checksum",
        "corrupt deflate stream" => "flate: corrupt input",
        "Unknown frame descriptor" => "invalid input: magic number mismatch",
        "Frame requires too much memory for decoding" => "window size exceeded",
        "Restored data doesn't match checksum" => "crc mismatch",
        "Data corruption detected" => "zstd: corrupt input",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// "hello " and "world", each a stream of its own.
    const XZ: &[u8] = b"\xfd7zXZ\0\0\x0a\xe1\xfb\x0c\xa1\x02\0\x21\x01\x16\0\0\0\x74\x2f\xe5\xa3\x01\0\x05hello \
        \0\0\0\x5e\x32\x35\xa8\x34\x6e\x5a\x45\x85\xf8\xc5\x85\x62\xf5\x05\x2b\x8f\xe2\x6a\x3b\xb1\x22\xe1\xe9\x6c\x76\x78\
        \x49\x64\xdf\xc4\x61\0\x01\x36\x06\x6b\x81\xf9\x40\x18\x9b\x4b\x9a\x01\0\0\0\0\x0aYZ\xfd7zXZ\0\0\x01\x69\x22\xde\x36\
        \x02\0\x21\x01\x16\0\0\0\x74\x2f\xe5\xa3\x01\0\x04world\0\0\0\0\x43\x11\x77\x3a\0\x01\x19\x05\xbc\xe8\xec\xcb\x90\x42\
        \x99\x0d\x01\0\0\0\0\x01YZ";
    /// A dictionary of 192 MiB.
    const LARGE_XZ: &[u8] = b"\xfd7zXZ\0\0\x0a\xe1\xfb\x0c\xa1\x02\0\x21\x01\x1f\0\0\0\xfe\x60\xed\xde\x01\0\x05hello ";
    const BZIP2: &[u8] = b"BZh91AY&SYv\x69\xe0\xd4\0\0\x01\x11\0\x40\0\x02\x44\xa0\0\x30\xcd\0\xc3\x46\x29\x97\x17\x72\x45\x38\x50\
        \x90\x76\x69\xe0\xd4BZh91AY&SY\x59\xce\x7b\xcb\0\0\x02\x01\x80\x04\x04\x90\x80\x20\0\x30\xcd\0\xc1\xa4\xc0\x71\x77\x24\
        \x53\x85\x09\x05\x9c\xe7\xbc\xb0";

    fn text(bytes: &[u8]) -> String {
        let mut out = String::new();
        decompress(to_layer(bytes).unwrap()).unwrap().read_to_string(&mut out).unwrap();
        out
    }

    fn refused(bytes: &[u8]) -> io::Error {
        to_layer(bytes).unwrap().read_to_end(&mut Vec::new()).unwrap_err()
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
        for bytes in [&gzip[..], &zstd, XZ, BZIP2, b"hello world"] {
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
        for whole in [XZ, BZIP2] {
            let second = whole.windows(3).rposition(|three| three == &whole[..3]).unwrap();
            assert_eq!(refused(&whole[..whole.len() - 5]).to_string(), "unexpected EOF");
            for end in (6..whole.len()).filter(|&end| end != second) {
                refused(&whole[..end]);
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_stream_is_the_archives_fault_in_the_references_words() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&[7; 1000]).unwrap();
        let gzip = encoder.finish().unwrap();
        let spoilt = |at: usize| {
            let mut spoilt = gzip.clone();
            spoilt[at] ^= 1;
            spoilt
        };
        let frame = zstd::encode_all(&[7; 1000][..], 1).unwrap();
        let mut wide = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        wide.window_log(WINDOW_LOG + 1).unwrap();
        wide.write_all(&[7; 1000]).unwrap();
        for (bytes, text) in [
            ([&gzip[..], b"more than a header"].concat(), "gzip: invalid header"),
            ([&gzip[..], &[0; 512]].concat(), "gzip: invalid header"),
            (spoilt(gzip.len() - 8), "gzip: invalid checksum"),
            ([&frame[..], b"more more"].concat(), "invalid input: magic number mismatch"),
            (wide.finish().unwrap(), "window size exceeded"),
        ] {
            let error = decompress(&bytes[..]).unwrap().read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::InvalidData, text));
        }
    }

    #[test]
    fn spoilt_streams_are_refused() {
        for (whole, at) in [(XZ, 30), (XZ, 40), (BZIP2, 30), (BZIP2, 12)] {
            let mut spoilt = whole.to_vec();
            spoilt[at] ^= 1;
            assert_eq!(to_layer(&spoilt[..]).unwrap().read_to_end(&mut Vec::new()).ok(), None, "{at}");
            refused(&[whole, b"more"].concat());
        }
    }

    #[test]
    fn memory_is_bounded() {
        let error = refused(LARGE_XZ);
        assert_eq!(error.to_string(), "the archive needs more than 128 MiB of memory to be decompressed");
    }

    #[test]
    fn layers_are_neither_bzip2_nor_xz() {
        let Err(error) = decompress(BZIP2) else { panic!("accepted") };
        assert_eq!(error.message(), "bzip2 compressed layers are not supported");
        assert!(decompress(XZ).is_err());
    }
}
