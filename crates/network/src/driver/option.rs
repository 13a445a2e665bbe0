//! Driver options of networks and of endpoints, by the names that clients give them.

/// Of the bridge's device.
pub const NAME: &str = "com.docker.network.bridge.name";
pub const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
/// Whether containers may talk to each other.
pub const ICC: &str = "com.docker.network.bridge.enable_icc";
/// Whether what leaves has the host's address.
pub const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
/// Where ports are published that name no address.
pub const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
pub const GATEWAY_MODE_4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
pub const GATEWAY_MODE_6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
/// The device has no IPv4 address.
pub const INHIBIT_IPV4: &str = "com.docker.network.bridge.inhibit_ipv4";
/// Links whose packets reach containers, separated by colons.
pub const TRUSTED_LINKS: &str = "com.docker.network.bridge.trusted_host_interfaces";
/// In bytes.
pub const MTU: &str = "com.docker.network.driver.mtu";
/// Of the names of links in containers.
pub const LINK_PREFIX: &str = "com.docker.network.container_iface_prefix";
pub const HOST_4: &str = "com.docker.network.host_ipv4";
pub const HOST_6: &str = "com.docker.network.host_ipv6";
pub const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
pub const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";

/// How many announcements of its address an endpoint sends, and their distance in milliseconds.
pub const ADVERTISED: &str = "com.docker.network.advertise_addr_nmsgs";
pub const ADVERTISED_EVERY: &str = "com.docker.network.advertise_addr_ms";

/// The link of the host that containers' links lie on.
pub const PARENT: &str = "parent";
pub const MACVLAN_MODE: &str = "macvlan_mode";
pub const IPVLAN_MODE: &str = "ipvlan_mode";
pub const IPVLAN_FLAG: &str = "ipvlan_flag";

/// Of an endpoint: the name of its link.
pub const ENDPOINT_LINK: &str = "com.docker.network.endpoint.ifname";
/// Of an endpoint, for plugins.
pub const ENDPOINT_MAC: &str = "com.docker.network.endpoint.macaddress";
pub const EXPOSED_PORTS: &str = "com.docker.network.endpoint.exposedports";
pub const PORT_MAP: &str = "com.docker.network.portmap";
/// Of a network, for plugins: what the user gave, and whether it leads nowhere.
pub const GENERIC: &str = "com.docker.network.generic";
pub const INTERNAL: &str = "com.docker.network.internal";
