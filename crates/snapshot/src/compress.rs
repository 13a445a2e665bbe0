//! Compressing a layer that is made here.

use std::io::{self, Write};

/// Between speed and size.
const LEVEL: u32 = 4;

/// A gzip stream around `out`, without a time or a name in it: the same bytes give the same stream.
pub struct Gzip<W: Write> {
    encoder: flate2::write::GzEncoder<W>,
}

impl<W: Write> Gzip<W> {
    /// Begins the stream.
    pub fn new(out: W) -> Gzip<W> {
        Gzip { encoder: flate2::write::GzEncoder::new(out, flate2::Compression::new(LEVEL)) }
    }

    /// Ends the stream; what is below has everything then.
    pub fn finish(self) -> io::Result<W> {
        self.encoder.finish()
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoder.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}
