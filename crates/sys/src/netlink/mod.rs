//! rtnetlink: links, addresses, routes, and network namespaces; tracked connections; sockets that hold ports.
//!
//! - `wire` writes and reads netlink messages; `nft` uses it too. Nothing in it trusts a length that came from outside.
//! - `Socket` sends a `Batch` of requests in one `sendmsg` and reads every answer. A batch is not a transaction: the
//!   kernel carries out what follows a refused message. The caller undoes.
//! - `Notices` is told of what others change.
//! - A socket belongs for ever to the namespace of the thread that opened it. No async thread ever enters a namespace:
//!   `namespace` does it on short-lived threads.
//!
//! Messages are encoded by hand rather than by a crate: eight request kinds, one attribute writer that nftables needs
//! as well, and no intermediate object per message (docs/design/0005-network-path.md).

pub mod address;
pub mod conntrack;
pub mod link;
pub mod listen;
pub mod namespace;
mod notices;
mod socket;
pub mod wire;

pub use address::Route;
pub use link::{Bridge, Link, Veth};
pub use notices::{Delivery, Notices};
pub use socket::{Error, Socket};
pub use wire::Batch;
