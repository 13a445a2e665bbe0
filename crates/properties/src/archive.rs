//! Compressed archives.

use std::io::Read;

/// More than a seed has when it is decompressed.
const ENOUGH: u64 = 16 << 20;

/// Whatever it is compressed by, a stream is read or refused, and read again it is the same.
pub fn archive(bytes: &[u8]) {
    let read = || {
        let mut out = Vec::new();
        let stream = snapshot::to_layer(bytes).expect("telling the compression fails with the reader only");
        snapshot::decompress(stream).ok()?.take(ENOUGH).read_to_end(&mut out).ok()?;
        Some(out)
    };
    assert_eq!(read(), read());
}
