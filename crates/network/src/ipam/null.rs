//! No addresses: for networks whose containers have none.

use std::net::IpAddr;

use ipnet::IpNet;
use model::{Error, Result};

use super::{AddressRequest, Granted, Ipam, Pool, PoolRequest, Usage, Wanted};

/// Gives nothing.
#[derive(Debug, Default)]
pub struct NullIpam;

impl Ipam for NullIpam {
    fn name(&self) -> &str {
        "null"
    }

    fn request_pool(&self, request: &PoolRequest) -> Result<Option<Granted>> {
        match request.wanted {
            Wanted::Any => Ok(None),
            _ => Err(Error::invalid("null ipam driver does not handle specific address pool requests")),
        }
    }

    fn release_pool(&self, _: &Pool<'_>) -> Result<()> {
        Ok(())
    }

    fn request_address(&self, _: &AddressRequest<'_>) -> Result<IpNet> {
        Err(Error::invalid("null ipam driver has no addresses"))
    }

    fn release_address(&self, _: &Pool<'_>, _: IpAddr) -> Result<()> {
        Ok(())
    }

    fn usage(&self, _: &Pool<'_>) -> Option<Usage> {
        None
    }

    fn taken(&self) -> usize {
        0
    }
}
