//! Compressing what is made here: layers, and exports of volumes.

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
        Gzip::with_level(out, LEVEL)
    }

    /// Begins the stream at a level from 0 (nothing is compressed) to 9.
    pub fn with_level(out: W, level: u32) -> Gzip<W> {
        Gzip { encoder: flate2::write::GzEncoder::new(out, flate2::Compression::new(level.min(9))) }
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

/// Between speed and size: zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// A zstd stream around `out` with a checksum in it: a part is never taken for the whole.
pub struct Zstd<W: Write> {
    encoder: zstd::stream::write::Encoder<'static, W>,
}

impl<W: Write> Zstd<W> {
    /// Begins the stream.
    pub fn new(out: W) -> io::Result<Zstd<W>> {
        Zstd::with_level(out, ZSTD_LEVEL)
    }

    /// Begins the stream at a level from 1 to 22.
    pub fn with_level(out: W, level: i32) -> io::Result<Zstd<W>> {
        let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
        encoder.include_checksum(true)?;
        Ok(Zstd { encoder })
    }

    /// Ends the stream; what is below has everything then.
    pub fn finish(self) -> io::Result<W> {
        self.encoder.finish()
    }
}

impl<W: Write> Write for Zstd<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoder.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}
