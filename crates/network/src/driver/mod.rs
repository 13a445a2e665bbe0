//! Network drivers: what makes a container's place in a network.

mod bridge;
mod bridges;
mod device;
mod host;
mod lingering;
mod null;
mod rules;
mod watch;

use model::Result;

use crate::endpoint::{Connected, Endpoint, EndpointSpec};
use crate::row::NetworkRow;

pub use bridge::{BridgeDriver, option};
pub use host::HostDriver;
pub use null::NullDriver;
pub use watch::Watch;

/// Makes and removes containers' places in networks of one kind.
///
/// Life cycle of a network: `open` (when it is created and at every start of the daemon), once `reconcile` after all
/// networks are open at the start of the daemon, then any number of `connect` and `release`, from any thread, beside
/// each other; `close` when the network is removed. Calls block.
///
/// - `connect` leaves nothing behind when it fails.
/// - `release` is idempotent and frees at once what others can be given: addresses, ports, rules. A link that dies with
///   its namespace may do so shortly after.
/// - An endpoint is released with what `connect` returned, by this or by a later daemon.
pub trait NetworkDriver: Send + Sync {
    /// The name in a network's row.
    fn name(&self) -> &'static str;

    /// Makes what the network needs on the host, where it is missing. Fills in what the row leaves open (subnet,
    /// gateway, device address); the caller stores the row.
    fn open(&self, network: &mut NetworkRow) -> Result<()>;

    /// Removes what `open` made. The network has no endpoints.
    fn close(&self, network: &NetworkRow) -> Result<()>;

    /// Takes addresses, ports and rules of the live endpoints (of all networks of this driver) again and removes what
    /// belongs to no live endpoint.
    fn reconcile(&self, live: &[Endpoint]) -> Result<()>;

    fn connect(&self, network: &NetworkRow, spec: &EndpointSpec) -> Result<Connected>;

    fn release(&self, network: &NetworkRow, endpoint: &Endpoint) -> Result<()>;

    /// How many entries the books of this driver have, by what they are about.
    fn sizes(&self) -> Vec<(&'static str, usize)> {
        Vec::new()
    }

    /// Puts back what others change of what `open` and `connect` made on the host, for as long as the result lives.
    fn watch(&self) -> Result<Option<Watch>> {
        Ok(None)
    }
}
