//! Any OCI command-line runtime (`runc`, `crun`, …) behind [`Runtime`].

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use crate::{Bundle, Process, Runtime, Scope, StartError, Stdio, oci};

/// A runtime program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cli {
    /// The program; looked up in `PATH` if it contains no slash.
    pub path: PathBuf,
    /// Global arguments, put before the command.
    pub args: Vec<String>,
}

impl Runtime for Cli {
    fn start(&self, _: &Bundle, _: Stdio, _: Option<BorrowedFd<'_>>) -> Result<Process, StartError> {
        todo!()
    }
    fn exec(&self, _: &Bundle, _: &Process, _: &oci::Process, _: Stdio) -> Result<Process, StartError> {
        todo!()
    }
    fn kill(&self, _: &Bundle, _: &Process, _: i32, _: Scope) -> model::Result<()> {
        todo!()
    }
    fn pause(&self, _: &Bundle) -> model::Result<()> {
        todo!()
    }
    fn resume(&self, _: &Bundle) -> model::Result<()> {
        todo!()
    }
    fn update(&self, _: &Bundle, _: &oci::Resources) -> model::Result<()> {
        todo!()
    }
    fn cleanup(&self, _: &Bundle) -> model::Result<()> {
        todo!()
    }
}
