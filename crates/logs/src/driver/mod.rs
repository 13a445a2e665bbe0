//! Drivers of logs. A driver is a file or folder beside this one and a line in [`DRIVERS`].

pub mod json_file;
mod local;
mod none;
mod options;

use std::io;

use model::Error;

use crate::seam::{Driver, Options, Sink, Spec};

/// All there are, sorted by name.
const DRIVERS: [&dyn Driver; 3] = [&json_file::JsonFile, &local::Local, &none::None];
/// The driver of a configuration that names none.
const DEFAULT: &str = "json-file";

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

/// Opens a log for writing; `None`: nothing is kept.
///
/// # Errors
/// Those of opening files, [`io::ErrorKind::InvalidInput`] for a driver or options that this version does not know.
pub fn open(spec: &Spec) -> io::Result<Option<Box<dyn Sink>>> {
    let invalid = |error: Error| io::Error::new(io::ErrorKind::InvalidInput, error.message().to_owned());
    find(&spec.driver).map_err(invalid)?.open(spec)
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
