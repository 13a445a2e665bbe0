//! Whose namespaces a container has: read of the texts of the wire, which stay for inspect.

/// What a mode begins with that names a container.
const CONTAINER: &str = "container:";

/// The container that a mode names, by name or id: of `container:c` it is `c`.
pub fn container_of(mode: &str) -> Option<&str> {
    mode.strip_prefix(CONTAINER)
}

/// Whose network a container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// None but loopback: `none`, or its network is disabled.
    None,
    /// The host's.
    Host,
    /// That of another container, by name or id.
    Container(String),
    /// A network, by name or id; the default bridge is `bridge`.
    Network(String),
}

impl NetworkMode {
    /// Of `NetworkMode` and `NetworkDisabled`. Empty and `default` mean the default bridge.
    pub fn parse(mode: &str, is_disabled: bool) -> NetworkMode {
        match (container_of(mode), mode) {
            (Some(container), _) => NetworkMode::Container(container.to_owned()),
            (None, "none") => NetworkMode::None,
            (None, _) if is_disabled => NetworkMode::None,
            (None, "host") => NetworkMode::Host,
            (None, "" | "default") => NetworkMode::Network("bridge".to_owned()),
            (None, network) => NetworkMode::Network(network.to_owned()),
        }
    }

    /// The container whose network it is.
    pub fn container(&self) -> Option<&str> {
        match self {
            NetworkMode::Container(container) => Some(container),
            _ => None,
        }
    }

    /// The name or id of the network that it is on: each of `none`, `host` and `bridge` is one; `None`: it has none of its own.
    pub fn network(&self) -> Option<&str> {
        match self {
            NetworkMode::None => Some("none"),
            NetworkMode::Host => Some("host"),
            NetworkMode::Container(_) => None,
            NetworkMode::Network(network) => Some(network),
        }
    }
}

/// Whose IPC namespace a container has, and who may join its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IpcMode {
    /// Its own, without `/dev/shm`.
    None,
    /// Its own, which nobody joins.
    Private,
    /// Its own, which others may join.
    Shareable,
    /// The host's.
    Host,
    /// That of another container, by name or id.
    Container(String),
}

impl IpcMode {
    /// Of `IpcMode`; what create did not know was refused.
    pub fn parse(mode: &str) -> IpcMode {
        match (container_of(mode), mode) {
            (Some(container), _) => IpcMode::Container(container.to_owned()),
            (None, "none") => IpcMode::None,
            (None, "host") => IpcMode::Host,
            (None, "shareable") => IpcMode::Shareable,
            (None, _) => IpcMode::Private,
        }
    }

    /// Whether another container may join it.
    pub fn is_shared(&self) -> bool {
        matches!(self, IpcMode::Shareable | IpcMode::Host | IpcMode::Container(_))
    }
}

/// Whose PID namespace a container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PidMode {
    /// Its own.
    Own,
    /// The host's.
    Host,
    /// That of another container, by name or id.
    Container(String),
}

impl PidMode {
    /// Of `PidMode`; what create did not know was refused.
    pub fn parse(mode: &str) -> PidMode {
        match (container_of(mode), mode) {
            (Some(container), _) => PidMode::Container(container.to_owned()),
            (None, "host") => PidMode::Host,
            (None, _) => PidMode::Own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read() {
        let network = |mode, disabled| NetworkMode::parse(mode, disabled);
        for bridge in ["", "default", "bridge"] {
            assert_eq!(network(bridge, false).network(), Some("bridge"), "{bridge}");
            assert_eq!(network(bridge, true), NetworkMode::None, "{bridge}");
        }
        assert_eq!((network("host", false), network("host", true)), (NetworkMode::Host, NetworkMode::None));
        assert_eq!(network("container:c", true).container(), Some("c"));
        assert_eq!(network("container:", false).container(), Some(""));
        assert_eq!(network("app", false).network(), Some("app"));
        assert_eq!(IpcMode::parse("container:c"), IpcMode::Container("c".into()));
        let shared =
            ["shareable", "host", "container:c", "private", "none", ""].map(|mode| IpcMode::parse(mode).is_shared());
        assert_eq!(shared, [true, true, true, false, false, false]);
        let pid = ["", "host", "container:c"].map(PidMode::parse);
        assert_eq!(pid, [PidMode::Own, PidMode::Host, PidMode::Container("c".into())]);
    }
}
