//! `host`: the daemon's own namespace.

use model::Result;

use super::{NetworkDriver, null};
use crate::endpoint::{Connected, Endpoint, EndpointSpec};
use crate::row::NetworkRow;

/// See the module.
#[derive(Debug, Default)]
pub struct HostDriver;

impl NetworkDriver for HostDriver {
    fn name(&self) -> &'static str {
        "host"
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
    fn connect(&self, network: &NetworkRow, spec: &EndpointSpec) -> Result<Connected> {
        if !spec.ports.is_empty() {
            tracing::warn!(container = %spec.name, "published ports are discarded when using host network mode");
        }
        Ok(null::bare(network, spec))
    }

    fn release(&self, _: &NetworkRow, _: &Endpoint) -> Result<()> {
        Ok(())
    }
}
