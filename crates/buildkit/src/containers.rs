//! Containers of front ends (`NewContainer`): places with files of results, in which programs run.
//!
//! Invariant: a container is a description until its program begins; what the program writes to its files goes with it.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{InitMessage, NewContainerRequest};
use bollard_buildkit_proto::pb;
use build::cancel::Cancel;
use build::record::Chain;
use model::lock::{Mutex, MutexGuard};
use model::{Error, Result};

/// Containers of one front end at one time.
const CONTAINERS: usize = 64;

/// Containers of one front end.
#[derive(Default)]
pub(crate) struct Containers(Mutex<HashMap<String, Container>>);

struct Container {
    exec: pb::ExecOp,
    files: Vec<Chain>,
    /// Ends its program.
    cancel: Cancel,
    is_begun: bool,
}

impl Containers {
    /// Notes a container; `files` are those of its mounts, in their order.
    ///
    /// Errors: `Conflict` for a name that is taken; `InvalidParameter` for too many.
    pub(crate) fn add(&self, request: NewContainerRequest, files: Vec<Chain>, cancel: Cancel) -> Result<()> {
        let mut all = self.all();
        let id = request.container_id;
        if all.contains_key(&id) {
            return Err(Error::conflict(format!("Container {id} already exists")));
        }
        if all.len() >= CONTAINERS {
            return Err(Error::invalid(format!("more than {CONTAINERS} containers of one front end")));
        }
        let mut mounts = request.mounts;
        for (mount, at) in mounts.iter_mut().zip(0..) {
            mount.input = if mount.result_id.is_empty() { -1 } else { at };
        }
        let meta = pb::Meta { hostname: request.hostname, extra_hosts: request.extra_hosts, ..pb::Meta::default() };
        let exec = pb::ExecOp { meta: Some(meta), mounts, network: request.network, ..pb::ExecOp::default() };
        all.insert(id, Container { exec, files, cancel, is_begun: false });
        Ok(())
    }

    /// Forgets a container and ends its program.
    ///
    /// Errors: `NotFound`.
    pub(crate) fn release(&self, id: &str) -> Result<()> {
        self.all().remove(id).ok_or_else(|| unknown(id))?.cancel.cancel();
        Ok(())
    }

    /// The same for all.
    pub(crate) fn release_all(&self) {
        self.all().drain().for_each(|(_, container)| container.cancel.cancel());
    }

    /// What a program runs on, the first of its container.
    ///
    /// Errors: `NotFound`, and `NotImplemented` for the second one.
    pub(crate) fn begin(&self, init: InitMessage) -> Result<(pb::ExecOp, Vec<Chain>, Cancel)> {
        let mut all = self.all();
        let container = all.get_mut(&init.container_id).ok_or_else(|| unknown(&init.container_id))?;
        if init.tty {
            return Err(Error::not_implemented("terminals of processes of front ends are not supported"));
        }
        if std::mem::replace(&mut container.is_begun, true) {
            return Err(Error::not_implemented("a second process in a container of a front end is not supported"));
        }
        let mut exec = container.exec.clone();
        let (own, given) = (exec.meta.take().unwrap_or_default(), init.meta.unwrap_or_default());
        exec.meta = Some(pb::Meta { hostname: own.hostname, extra_hosts: own.extra_hosts, ..given });
        exec.security = init.security;
        exec.secretenv = init.secretenv;
        Ok((exec, container.files.clone(), container.cancel.clone()))
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Container>> {
        self.0.lock()
    }
}

fn unknown(id: &str) -> Error {
    Error::not_found(format!("container {id:?} previously released or not created"))
}
