//! `host`: the daemon's own namespace.

use std::os::fd::BorrowedFd;

use model::Result;

use super::{Join, NetworkDriver};
use crate::endpoint::{Endpoint, Joined, Sockets};
use crate::row::NetworkRow;

/// See the module.
#[derive(Debug, Default)]
pub struct HostDriver;

impl NetworkDriver for HostDriver {
    fn name(&self) -> &str {
        "host"
    }

    fn check(&self, _: &NetworkRow) -> Result<()> {
        Ok(())
    }

    fn open(&self, _: &mut NetworkRow) -> Result<()> {
        Ok(())
    }

    fn close(&self, _: &NetworkRow) -> Result<()> {
        Ok(())
    }

    fn reconcile(&self, _: &[Endpoint]) -> Result<()> {
        Ok(())
    }

    /// Published ports are discarded: the container binds them itself.
    fn join(&self, request: &Join<'_>) -> Result<Joined> {
        if !request.ports.is_empty() {
            tracing::warn!(container = %request.name, "published ports are discarded when using host network mode");
        }
        Ok(Joined { endpoint: request.bare(), ports: Sockets::default() })
    }

    fn leave(&self, _: &NetworkRow, _: &Endpoint, _: Option<BorrowedFd<'_>>) -> Result<()> {
        Ok(())
    }
}
