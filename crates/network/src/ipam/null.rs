//! No addresses: for networks whose containers have none.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use model::{Error, Result};

use super::{Ipam, PoolRequest};

/// Gives nothing.
#[derive(Debug, Default)]
pub struct NullIpam;

impl Ipam for NullIpam {
    fn name(&self) -> &'static str {
        "null"
    }

    fn request_pool(&self, request: &PoolRequest) -> Result<Option<Ipv4Net>> {
        match request.subnet {
            None => Ok(None),
            Some(_) => Err(Error::invalid("null ipam driver does not handle specific address pool requests")),
        }
    }

    fn release_pool(&self, _: Ipv4Net) {}

    fn request_address(&self, _: Ipv4Net, _: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
        Err(Error::invalid("null ipam driver has no addresses"))
    }

    fn release_address(&self, _: Ipv4Net, _: Ipv4Addr) {}

    fn taken(&self) -> usize {
        0
    }
}
