//! Logs in files: rotated, compressed in idle time, read beside their writer. What a driver adds is the form of the entries
//! ([`codec::Codec`]).

pub mod chain;
pub mod codec;
mod compress;
mod follow;
mod lines;
mod ordinal;
mod reader;
pub mod writer;

use std::io;
use std::path::Path;

use self::codec::Codec;
use self::reader::Reader;
use self::writer::{FileSink, Rotation};
use crate::seam::{ReadOptions, Sink, Source};

/// Opens a log in files for writing.
pub fn open<C: Codec>(
    path: &Path,
    rotation: model::Result<Rotation>,
    attrs: &str,
) -> io::Result<Option<Box<dyn Sink>>> {
    let rotation = rotation.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.message().to_owned()))?;
    Ok(Some(Box::new(FileSink::<C>::open(path, rotation, attrs)?)))
}

/// Opens a log in files for reading.
pub fn read<C: Codec>(path: &Path, options: ReadOptions) -> Option<io::Result<Box<dyn Source>>> {
    let reader = Reader::<C>::open(path, options);
    Some(reader.map(|reader| Box::new(reader) as Box<dyn Source>))
}
