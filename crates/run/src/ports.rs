//! Published ports: their bound sockets go from the daemon to the monitor, which proxies them.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use monitor::client::Client;
use monitor::proto::{self, Request};

/// How long a monitor may take to accept all sockets: thousands of them do not fit into its queue at once.
const HAND_OVER_WAIT: Duration = Duration::from_secs(30);
/// Sockets in one message: below the kernel's limit of 253 descriptors.
const PORTS_PER_MESSAGE: usize = 60;

/// Gives the monitor the bound sockets of published ports; without them only the packet filter forwards. Nobody waits for
/// its word.
pub fn hand_over(client: &Client, connected: Option<&network::Connected>) {
    let Some(connected) = connected.filter(|c| !c.sockets.is_empty()) else {
        return;
    };
    let Some(address) = connected.endpoint.address else {
        return;
    };
    let transport = |p: network::Protocol| match p {
        network::Protocol::Udp => Some(proto::Transport::Udp),
        network::Protocol::Tcp => Some(proto::Transport::Tcp),
        network::Protocol::Sctp => None,
    };
    let proxied = |port: &network::BoundPort| {
        let target = SocketAddr::new(IpAddr::V4(address), port.container_port);
        Some(proto::Port { transport: transport(port.protocol)?, target })
    };
    let parked = connected.parked.iter().map(|(ports, queue)| (ports.iter().map(proxied).collect(), queue.as_fd()));
    let parked: Vec<(Vec<_>, _)> = parked.collect();
    let proxied = connected.sockets.iter().filter_map(|(port, socket)| Some((proxied(port)?, socket.as_fd())));
    let (ports, sockets): (Vec<_>, Vec<_>) = proxied.unzip();
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
