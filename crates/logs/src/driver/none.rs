//! The driver `none`: output is not kept.

use std::io;
use std::path::PathBuf;

use crate::seam::{Driver, Options, Place, ReadOptions, Sink, Source, Spec};

pub const NAME: &str = "none";

pub struct None;

impl Driver for None {
    fn name(&self) -> &'static str {
        NAME
    }

    fn validate(&self, _options: &Options) -> model::Result<()> {
        Ok(())
    }

    fn check(&self, _options: &Options) -> model::Result<()> {
        Ok(())
    }

    fn open(&self, _spec: &Spec) -> io::Result<Option<Box<dyn Sink>>> {
        Ok(Option::None)
    }

    fn read(&self, _place: &Place, _options: ReadOptions) -> Option<io::Result<Box<dyn Source>>> {
        Option::None
    }

    fn path(&self, _place: &Place) -> Option<PathBuf> {
        Option::None
    }

    fn public_path(&self, _place: &Place) -> Option<PathBuf> {
        Option::None
    }
}
