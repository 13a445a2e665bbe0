//! Container logs: drivers that write them, readers that give them back.
//!
//! [`JsonFile`] writes the reference engine's json-file format byte for byte and rotates; [`Reader`] reads such files,
//! rotated and compressed ones included, from any process at any time without the writer's knowledge. The monitor writes,
//! the daemon reads: files are all that they share.
#![forbid(unsafe_code)]

pub mod attrs;
mod chain;
mod compress;
mod encode;
mod follow;
mod lines;
pub mod options;
mod ordinal;
mod parse;
mod reader;
mod record;
mod shape;
mod split;
mod tail;
mod time;
mod watches;
mod writer;

pub use attrs::Subject;
pub use compress::all as compress_rotated;
pub use options::Options;
pub use reader::{Batch, Format, ReadOptions, Reader, Shape};
pub use record::write_error as write_json_error;
pub use watches::{Changed, Watch, Watches};
pub use writer::JsonFile;

/// Which of the container's outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// As written in the file.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }

    /// The first byte of a multiplexed frame.
    pub fn number(self) -> u8 {
        match self {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        }
    }
}

/// Stands in front of each record of a JSON sequence (RFC 7464).
pub const RECORD_SEPARATOR: u8 = 0x1e;

/// Length of a multiplexed frame's header.
pub const FRAME_HEADER: usize = 8;

/// The header of a multiplexed frame: stream, three zero bytes, length of the payload big-endian.
pub fn frame_header(stream: Stream, length: u32) -> [u8; FRAME_HEADER] {
    let [a, b, c, d] = length.to_be_bytes();
    [stream.number(), 0, 0, 0, a, b, c, d]
}
