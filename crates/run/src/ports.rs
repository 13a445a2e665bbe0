//! Published ports: their bound sockets go from the daemon to the monitor, which proxies them.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use monitor::client::Client;
use monitor::proto::{self, Request};

/// How long a monitor may take to accept all sockets: thousands of them do not fit into its queue at once.
const HAND_OVER_WAIT: Duration = Duration::from_secs(30);
/// Sockets in one message: below the kernel's limit of 253 descriptors.
pub const PORTS_PER_MESSAGE: usize = 60;

/// Gives the monitor the bound sockets of published ports; without them only the packet filter forwards. Nobody waits for
/// its word.
pub fn hand_over(client: &Client, connected: Option<&network::Connected>) {
    let Some(sockets) = connected.map(|c| &c.ports).filter(|ports| !ports.is_empty()) else {
        return;
    };
    let parked = parked(sockets);
    let (ports, sockets) = proxied(sockets);
    let deadline = Instant::now() + HAND_OVER_WAIT;
    for (ports, sockets) in ports.chunks(PORTS_PER_MESSAGE).zip(sockets.chunks(PORTS_PER_MESSAGE)) {
        if let Err(error) = client.send_by(deadline, &Request::Ports(ports.to_vec()), sockets) {
            return tracing::warn!(%error, "published ports have no proxy");
        }
    }
    for (ports, queue) in parked {
        if let Err(error) = client.send_by(deadline, &Request::ParkedPorts(ports), &[queue]) {
            return tracing::warn!(%error, "published ports have no proxy");
        }
    }
}

/// The queues of parked sockets, with what each of them leads to.
pub fn parked(sockets: &network::endpoint::Sockets) -> Vec<(Vec<Option<proto::Port>>, BorrowedFd<'_>)> {
    let served = sockets.parked.iter().map(|(ports, queue)| {
        let ports = ports.iter().map(|(port, target)| proxied_port(port, *target)).collect();
        (ports, queue.as_fd())
    });
    served.collect()
}

/// The sockets that the monitor serves, with what each leads to.
pub fn proxied(sockets: &network::endpoint::Sockets) -> (Vec<proto::Port>, Vec<BorrowedFd<'_>>) {
    let served = sockets.loose.iter().filter_map(|(port, target, fd)| Some((proxied_port(port, *target)?, fd.as_fd())));
    served.unzip()
}

/// `None`: the monitor serves no such protocol.
fn proxied_port(port: &network::BoundPort, target: SocketAddr) -> Option<proto::Port> {
    let transport = match port.protocol {
        network::Protocol::Udp => proto::Transport::Udp,
        network::Protocol::Tcp => proto::Transport::Tcp,
        network::Protocol::Sctp => return None,
    };
    Some(proto::Port { transport, target })
}
