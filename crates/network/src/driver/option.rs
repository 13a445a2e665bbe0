//! Driver options of networks and of endpoints, by the names that clients give them.

pub const NAME: &str = "com.docker.network.bridge.name";
pub const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
pub const ICC: &str = "com.docker.network.bridge.enable_icc";
pub const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
pub const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
pub const GATEWAY_MODE_4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
pub const GATEWAY_MODE_6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
pub const INHIBIT_IPV4: &str = "com.docker.network.bridge.inhibit_ipv4";
pub const TRUSTED_LINKS: &str = "com.docker.network.bridge.trusted_host_interfaces";
pub const MTU: &str = "com.docker.network.driver.mtu";
pub const LINK_PREFIX: &str = "com.docker.network.container_iface_prefix";
pub const HOST_4: &str = "com.docker.network.host_ipv4";
pub const HOST_6: &str = "com.docker.network.host_ipv6";
pub const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
pub const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";

pub const PARENT: &str = "parent";
pub const MACVLAN_MODE: &str = "macvlan_mode";
pub const IPVLAN_MODE: &str = "ipvlan_mode";
pub const IPVLAN_FLAG: &str = "ipvlan_flag";

/// Of an endpoint: the name of its link.
pub const ENDPOINT_LINK: &str = "com.docker.network.endpoint.ifname";
