//! `none`: a namespace with nothing but loopback, made by the runtime.

use model::Result;
use model::id::EndpointId;

use super::NetworkDriver;
use crate::endpoint::{Connected, Endpoint, EndpointSpec};
use crate::row::NetworkRow;

/// See the module.
#[derive(Debug, Default)]
pub struct NullDriver;

/// An endpoint without link or address.
pub(super) fn bare(network: &NetworkRow, spec: &EndpointSpec) -> Connected {
    let endpoint = Endpoint {
        id: EndpointId::from_bytes(sys::random::bytes32()),
        network: network.id.clone(),
        container: spec.container.clone(),
        address: None,
        prefix_len: 0,
        gateway: None,
        mac: None,
        host_link: None,
        ports: Vec::new(),
    };
    Connected { endpoint, netns: None, sockets: Vec::new() }
}

impl NetworkDriver for NullDriver {
    fn name(&self) -> &'static str {
        "null"
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

    /// Published ports have no meaning here and are ignored.
    fn connect(&self, network: &NetworkRow, spec: &EndpointSpec) -> Result<Connected> {
        Ok(bare(network, spec))
    }

    fn release(&self, _: &NetworkRow, _: &Endpoint) -> Result<()> {
        Ok(())
    }
}
