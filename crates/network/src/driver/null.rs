//! `none`: a namespace with nothing but loopback.

use std::os::fd::BorrowedFd;

use model::Result;

use super::{Join, NetworkDriver};
use crate::endpoint::{Endpoint, Joined, Sockets};
use crate::row::NetworkRow;

/// See the module.
#[derive(Debug, Default)]
pub struct NullDriver;

impl NetworkDriver for NullDriver {
    fn name(&self) -> &str {
        "null"
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

    /// Published ports have no meaning here and are ignored.
    fn join(&self, request: &Join<'_>) -> Result<Joined> {
        Ok(Joined { endpoint: request.bare(), ports: Sockets::default() })
    }

    fn leave(&self, _: &NetworkRow, _: &Endpoint, _: Option<BorrowedFd<'_>>) -> Result<()> {
        Ok(())
    }
}
