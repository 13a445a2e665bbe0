//! Drivers of logs. A driver is a file or folder beside this one and a line in [`DRIVERS`].

pub mod json_file;
mod local;
mod none;
mod options;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use model::Error;
use serde::{Deserialize, Serialize};

use crate::file::reader::{Batch, ReadOptions};
use crate::{Stream, file};

/// All there are, sorted by name.
const DRIVERS: [&dyn Driver; 3] = [&json_file::JsonFile, &local::Local, &none::None];
/// The driver of a configuration that names none.
const DEFAULT: &str = "json-file";

/// `--log-opt`.
pub type Options = BTreeMap<String, String>;

/// Where the log of a container belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The container's own directory.
    pub dir: PathBuf,
    /// The container's id.
    pub id: String,
}

/// The log of a container, as the daemon describes it to the process that writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub driver: String,
    /// Checked by [`Driver::check`].
    pub options: Options,
    /// A JSON object of strings that every entry carries ([`crate::attrs::build`]); empty = none.
    pub attrs: String,
    pub place: Place,
}

impl Spec {
    /// Opens the log for writing; `None`: nothing is kept.
    ///
    /// # Errors
    /// Those of opening files, [`io::ErrorKind::InvalidInput`] for a driver or options that this version does not know.
    pub fn open(&self) -> io::Result<Option<Box<dyn Sink>>> {
        let invalid = |error: Error| io::Error::new(io::ErrorKind::InvalidInput, error.message().to_owned());
        find(&self.driver).map_err(invalid)?.open(self)
    }
}

/// Where output goes to. Nothing that a sink does waits for anything but the disk.
pub trait Sink: Debug + Send {
    /// Takes output of the container as one read gave it.
    fn write(&mut self, stream: Stream, bytes: &[u8]);

    /// A stream has ended: what it left without a newline becomes an entry without one.
    fn finish(&mut self, stream: Stream);

    /// Writes everything that has been taken.
    fn flush(&mut self);

    /// Whether [`Sink::flush`] has anything to do.
    fn is_behind(&self) -> bool;

    /// Whether [`Sink::idle`] has anything to do.
    fn has_idle_work(&self) -> bool;

    /// Does a little of what can wait, below a millisecond; for times when nothing else is to be done.
    fn idle(&mut self);

    /// The last trouble, once, for the daemon's log.
    fn take_report(&mut self) -> Option<String>;
}

/// A log being read, in steps each of which blocks for the disk only and is short.
pub trait Source: Send {
    /// Appends entries in the chosen format, about 64 KiB at a time. Never waits for more of the log.
    ///
    /// # Errors
    /// Those of reading files; there is nothing more after one.
    fn next_batch(&mut self, out: &mut Vec<u8>) -> io::Result<Batch>;

    /// The writer has finished: a follower ends after the last entry.
    fn finish(&mut self);
}

/// A kind of log. Texts of errors are the reference's.
pub trait Driver: Sync {
    /// As in `--log-driver`.
    fn name(&self) -> &'static str;

    /// Checks the names of options, as a create does; those of every driver are checked before.
    ///
    /// # Errors
    /// `unknown log opt …`.
    fn validate(&self, options: &Options) -> model::Result<()>;

    /// Checks the values of options, as a start does.
    ///
    /// # Errors
    /// What is wrong with the first bad one.
    fn check(&self, options: &Options) -> model::Result<()>;

    /// Opens the log for writing and goes on behind what is there; `None`: nothing is kept.
    ///
    /// # Errors
    /// Those of opening files and of [`Driver::check`].
    fn open(&self, spec: &Spec) -> io::Result<Option<Box<dyn Sink>>>;

    /// Opens the log for reading; one that does not exist is empty. `None`: such logs cannot be read.
    fn read(&self, place: &Place, options: ReadOptions) -> Option<io::Result<Box<dyn Source>>>;

    /// The file that is written; rotated ones lie beside it. `None`: there is none.
    fn path(&self, place: &Place) -> Option<PathBuf>;

    /// The file, if its format is one that clients may rely on (`LogPath`).
    fn public_path(&self, place: &Place) -> Option<PathBuf>;
}

/// The driver of this name; an empty one means the default.
///
/// # Errors
/// `logger: no log driver named '…' is registered`.
pub fn find(name: &str) -> model::Result<&'static dyn Driver> {
    let wanted = if name.is_empty() { DEFAULT } else { name };
    let found = DRIVERS.into_iter().find(|driver| driver.name() == wanted);
    found.ok_or_else(|| Error::invalid(format!("logger: no log driver named '{name}' is registered")))
}

/// The names of all drivers, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    DRIVERS.into_iter().map(Driver::name)
}

/// Checks a log's configuration as a create does: the driver, the options of every driver, and the names of its own.
///
/// # Errors
/// The reference's texts.
pub fn validate(driver: &str, options: &Options) -> model::Result<()> {
    if driver == none::NAME {
        return Ok(());
    }
    options::validate_delivery(options)?;
    find(driver)?.validate(options)
}

/// Opens a log in files for writing, making its directory's last part (0700).
fn open_files<C: file::codec::Codec>(
    path: &Path,
    rotation: model::Result<file::writer::Rotation>,
    attrs: &str,
) -> io::Result<Option<Box<dyn Sink>>> {
    let rotation = rotation.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.message().to_owned()))?;
    Ok(Some(Box::new(file::writer::FileSink::<C>::open(path, rotation, attrs)?)))
}

/// Opens a log in files for reading.
fn read_files<C: file::codec::Codec>(path: &Path, options: ReadOptions) -> Option<io::Result<Box<dyn Source>>> {
    let reader = file::reader::Reader::<C>::open(path, options);
    Some(reader.map(|reader| Box::new(reader) as Box<dyn Source>))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn drivers_are_sorted_and_found_by_name() {
        assert!(DRIVERS.is_sorted_by_key(|driver| driver.name()));
        for name in names() {
            assert_eq!(find(name).unwrap().name(), name);
        }
        assert_eq!(find("").unwrap().name(), DEFAULT);
    }

    #[test]
    fn a_configuration_is_refused_as_the_reference_does() {
        let refused = |driver, pairs| validate(driver, &options(pairs)).unwrap_err().message().to_owned();
        assert_eq!(refused("json-file", &[("foo", "1")]), "unknown log opt 'foo' for json-file log driver");
        assert_eq!(refused("local", &[("foo", "1")]), "unknown log opt 'foo' for log driver local");
        assert_eq!(refused("nosuch", &[]), "logger: no log driver named 'nosuch' is registered");
        for driver in ["json-file", "local"] {
            validate(driver, &options(&[("cache-disabled", "true"), ("cache-max-size", "1m")])).unwrap();
        }
        validate("none", &options(&[("whatever", "1")])).unwrap();
    }
}
