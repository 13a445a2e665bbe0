//! Container logs: drivers that write them, readers that give them back.
//!
//! A [`Driver`] opens a [`Sink`] for the process that writes, which is the monitor, and a [`Source`] for those who read, in
//! the daemon, at any time and without the writer's knowledge: files are all that they share. Drivers that write files differ
//! in the form of the entries only (`file::codec::Codec`).
#![forbid(unsafe_code)]

pub mod attrs;
mod driver;
mod encode;
mod file;
mod record;
mod seam;
mod shape;
mod split;
mod time;
mod watches;

pub use attrs::{Attributes, Subject};
pub use driver::{find, names, open, validate};
pub use record::write_error as write_json_error;
pub use seam::{Batch, Driver, Format, Options, Place, ReadOptions, Shape, Sink, Source, Spec};
pub use watches::{Changed, Watch, Watches};

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
