//! No addresses: for networks whose containers have none.

use std::net::IpAddr;

use ipnet::IpNet;
use model::{Error, Result};

use super::{AddressRequest, Ipam, PoolRequest, Usage};

/// Gives nothing.
#[derive(Debug, Default)]
pub struct NullIpam;

impl Ipam for NullIpam {
    fn name(&self) -> &'static str {
        "null"
    }

    fn request_pool(&self, request: &PoolRequest) -> Result<Option<IpNet>> {
        match request.subnet {
            None => Ok(None),
            Some(_) => Err(Error::invalid("null ipam driver does not handle specific address pool requests")),
        }
    }

    fn release_pool(&self, _: IpNet) -> Result<()> {
        Ok(())
    }

    fn request_address(&self, _: &AddressRequest) -> Result<IpAddr> {
        Err(Error::invalid("null ipam driver has no addresses"))
    }

    fn release_address(&self, _: IpNet, _: IpAddr) -> Result<()> {
        Ok(())
    }

    fn usage(&self, _: IpNet, _: Option<IpNet>) -> Option<Usage> {
        None
    }

    fn taken(&self) -> usize {
        0
    }
}
