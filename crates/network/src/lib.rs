//! Networks of containers: topology → netlink and nftables operations; drivers, address management, published ports,
//! and the contents of the three files a container gets for name resolution.
//!
//! Invariants:
//! - A sandbox (the namespace) is not an endpoint (a place in a network): one sandbox, any number of endpoints, made at
//!   the start of a container or while it runs (docs/design/0019-sandbox-and-endpoints.md).
//! - What should stand in the kernel is a pure function of the topology (`plan`); applying it is a separate step that
//!   is tested against the real kernel.
//! - The firewall rules live in one table that this crate owns; others get one marked jump where they would drop what is
//!   forwarded for containers (docs/design/0027-other-firewalls.md).
//! - `Networks` holds no lock while it creates a namespace or talks to the kernel about a link, so that many
//!   containers start side by side. Every call blocks and belongs on a blocking thread.
//! - Live endpoints are owned by the caller's rows: after a restart `Networks::reconcile` is told which endpoints live,
//!   takes their addresses and ports again and removes whatever else carries this crate's names.
#![forbid(unsafe_code)]

pub mod bound;
pub mod config;
pub mod confine;
pub mod driver;
pub mod endpoint;
pub mod family;
pub mod files;
pub mod forwarding;
pub mod ipam;
pub mod mac;
pub mod networks;
pub mod plan;
mod plugins;
pub mod port;
pub mod published;
pub mod reach;
mod remotes;
pub mod row;
pub mod sandbox;
pub mod spares;
mod sysctl;

pub use bound::BoundPorts;
pub use config::{AddressPool, DefaultFamily, Enabled, NetworkConfig, PublishMode};
pub use driver::{Firewalld, Watch, option};
pub use endpoint::{BoundPort, Changed, Connected, Endpoint, EndpointSpec, Joined, Protocol, PublishSpec, SandboxSpec};
pub use family::Family;
pub use mac::MacAddress;
pub use networks::{Network, Networks, NewNetwork, NewPool};
