//! What an actor publishes about its container: the only thing that readers see.
//!
//! A view is immutable; readers clone an `Arc` of it and never wait for the actor (`ps`, `inspect`, `logs` answer while
//! a start hangs).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::row::ContainerRow;

/// One container at one moment.
#[derive(Clone, Debug)]
pub struct ContainerView {
    /// The committed row.
    pub row: ContainerRow,
    /// Process id of the container's init on the host; 0 when it does not run.
    pub pid: i32,
    /// The pidfd of that process; `None` where its monitor is one of an earlier version.
    pub init: Option<Arc<OwnedFd>>,
    /// Ids of exec sessions that still run.
    pub exec_ids: Vec<String>,
    /// Ends of runs so far in this daemon's life, for `wait condition=next-exit`.
    pub exits: u64,
    /// The container is gone: no lookup finds it any more, waiters of `removed` are answered.
    pub removed: bool,
    /// Why its removal failed, told to waiters of `removed`.
    pub removal_error: Option<String>,
}
