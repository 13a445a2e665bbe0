//! Content codings of answers (RFC 9110, 8.4). Requests ask for `identity`; what a front end compresses all the same is
//! decompressed, for digests are of the bytes as they are kept.
//!
//! Invariant: a piece of output is at most [`PIECE`] bytes, however small the input that makes it.

use std::io;

use bytes::{Buf, Bytes};
use flate2::{Decompress, FlushDecompress, Status};

/// Bytes that come out at once.
const PIECE: usize = 64 << 10;
/// Largest window of deflate, in powers of two.
const WINDOW: u8 = 15;

/// Decompresses gzip (RFC 1952) piece by piece.
pub struct Gunzip {
    raw: Decompress,
    input: Bytes,
    ended: bool,
}

impl Gunzip {
    /// Of nothing yet.
    pub fn new() -> Gunzip {
        Gunzip { raw: Decompress::new_gzip(WINDOW), input: Bytes::new(), ended: false }
    }

    /// More input; what was given before has been used up.
    pub fn push(&mut self, input: Bytes) {
        self.input = input;
    }

    /// What comes next; `None`: it takes more input.
    pub fn pull(&mut self) -> io::Result<Option<Bytes>> {
        if self.ended || self.input.is_empty() {
            return Ok(None);
        }
        let mut piece = Vec::with_capacity(PIECE);
        let before = self.raw.total_in();
        let status = self.raw.decompress_vec(&self.input, &mut piece, FlushDecompress::None);
        self.input.advance((self.raw.total_in() - before) as usize);
        self.ended = status.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))? == Status::StreamEnd;
        match (piece.is_empty(), self.input.is_empty() || self.ended) {
            (true, true) => Ok(None),
            (true, false) => Err(io::Error::new(io::ErrorKind::InvalidData, "gzip: invalid data")),
            (false, _) => Ok(Some(piece.into())),
        }
    }

    /// Whether all of it came: an answer that ends before is cut off.
    pub fn has_ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use proptest::prelude::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(pieces: &[&[u8]]) -> io::Result<(Vec<u8>, bool)> {
        let (mut gunzip, mut out) = (Gunzip::new(), Vec::new());
        for piece in pieces {
            gunzip.push(Bytes::copy_from_slice(piece));
            while let Some(bytes) = gunzip.pull()? {
                assert!(bytes.len() <= PIECE);
                out.extend_from_slice(&bytes);
            }
        }
        Ok((out, gunzip.has_ended()))
    }

    #[test]
    fn a_bomb_comes_in_small_pieces_and_a_cut_is_seen() {
        let bytes = vec![7; 9 << 20];
        let packed = gzip(&bytes);
        assert_eq!(decoded(&[&packed]).unwrap(), (bytes, true));
        assert!(!decoded(&[&packed[..packed.len() - 1]]).unwrap().1);
        assert!(decoded(&[b"no gzip at all"]).is_err());
        let mut spoiled = packed;
        let last = spoiled.len() - 6;
        spoiled[last] ^= 1;
        assert!(decoded(&[&spoiled]).is_err());
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same(bytes in prop::collection::vec(any::<u8>(), 0..5000), size in 1_usize..300) {
            let packed = gzip(&bytes);
            let pieces: Vec<&[u8]> = packed.chunks(size).collect();
            prop_assert_eq!(decoded(&pieces).unwrap(), (bytes, true));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            drop(decoded(&[&bytes]));
            drop(decoded(&[&[&[0x1f, 0x8b, 8, 0], &bytes[..]].concat()]));
        }
    }
}
