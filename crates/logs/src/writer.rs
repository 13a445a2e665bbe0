//! json-file writer.

use std::io;
use std::path::Path;

use crate::{Options, Stream};

/// An open log.
pub struct JsonFile {}

impl JsonFile {
    /// Opens or creates the log at `path`.
    pub fn open(path: &Path, options: Options) -> io::Result<JsonFile> {
        let _ = (path, options);
        todo!()
    }
    /// Takes output of the container; complete lines reach the file at the next [`JsonFile::flush`] at the latest.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let _ = (stream, bytes);
        todo!()
    }
}
