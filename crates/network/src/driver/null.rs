//! `none`: a namespace with nothing but loopback.

use std::sync::Arc;

use model::id::EndpointId;
use model::{Context, Result};

use super::NetworkDriver;
use crate::endpoint::{Connected, Endpoint, EndpointSpec};
use crate::row::NetworkRow;
use crate::spares::Spares;

/// See the module.
#[derive(Debug)]
pub struct NullDriver {
    namespaces: Arc<Spares>,
}

impl NullDriver {
    /// Namespaces are taken from `namespaces`.
    pub fn new(namespaces: Arc<Spares>) -> NullDriver {
        NullDriver { namespaces }
    }
}

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
    Connected { endpoint, netns: None, sockets: Vec::new(), parked: Vec::new() }
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
        let netns = self.namespaces.take().context("creating a network namespace")?;
        Ok(Connected { netns: Some(netns), ..bare(network, spec) })
    }

    fn release(&self, _: &NetworkRow, _: &Endpoint) -> Result<()> {
        Ok(())
    }
}
