//! The errors of archives, in the words of Go's `archive/tar`.

use std::io;

/// A malformed archive.
pub(crate) fn bad(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("archive/tar: {text}"))
}

/// An archive that ends too early.
pub(super) fn eof() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected EOF")
}
