//! The built-in runtime: one clone3 with every namespace, one init, one execve.
use std::os::fd::BorrowedFd;

use crate::{Bundle, Process, Runtime, Scope, StartError, Stdio, oci};

/// The built-in runtime. One per monitor: `exec` moves the calling process's `pid_for_children` into the container's PID
/// namespace for good, so that an instance serves one container only.
#[derive(Debug, Default)]
pub struct Builtin {
    /// Whether `pid_for_children` is the container's already.
    joined: std::cell::Cell<bool>,
}

impl Builtin {
    pub fn new() -> Builtin {
        Builtin::default()
    }
}

#[allow(clippy::todo)]
impl Runtime for Builtin {
    fn start(&self, _bundle: &Bundle, _io: Stdio, _netns: Option<BorrowedFd<'_>>) -> Result<Process, StartError> {
        todo!()
    }
    fn exec(&self, _b: &Bundle, _init: &Process, _p: &oci::Process, _io: Stdio) -> Result<Process, StartError> {
        let _ = &self.joined;
        todo!()
    }
    fn kill(&self, _bundle: &Bundle, _process: &Process, _signal: i32, _scope: Scope) -> model::Result<()> {
        todo!()
    }
    fn pause(&self, _bundle: &Bundle) -> model::Result<()> {
        todo!()
    }
    fn resume(&self, _bundle: &Bundle) -> model::Result<()> {
        todo!()
    }
    fn update(&self, _bundle: &Bundle, _resources: &oci::Resources) -> model::Result<()> {
        todo!()
    }
    fn cleanup(&self, _bundle: &Bundle) -> model::Result<()> {
        todo!()
    }
}
