//! What the reference's decoder calls the structs of request bodies: embedded structs and declared types, which its type
//! errors show. A struct's own name with its package is its `serde(rename)`.

use gojson::GoStruct;

/// `container.Resources`, which [`crate::HostConfig`] embeds; first those that can be updated.
const RESOURCES: &[&str] = &[
    "CpuShares",
    "Memory",
    "NanoCpus",
    "BlkioWeight",
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "CpusetCpus",
    "CpusetMems",
    "MemoryReservation",
    "MemorySwap",
    "PidsLimit",
    "CgroupParent",
    "Devices",
    "DeviceCgroupRules",
    "DeviceRequests",
    "MemorySwappiness",
    "OomKillDisable",
    "Ulimits",
    "CpuCount",
    "CpuPercent",
    "IOMaximumIOps",
    "IOMaximumBandwidth",
];

/// Those of them that [`crate::UpdateConfig`] knows.
const UPDATED: &[&str] = RESOURCES.split_at(18).0;

const BLKIO_TYPES: &[(&str, &str)] = &[
    ("BlkioWeightDevice", "[]*blkiodev.WeightDevice"),
    ("BlkioDeviceReadBps", "[]*blkiodev.ThrottleDevice"),
    ("BlkioDeviceWriteBps", "[]*blkiodev.ThrottleDevice"),
    ("BlkioDeviceReadIOps", "[]*blkiodev.ThrottleDevice"),
    ("BlkioDeviceWriteIOps", "[]*blkiodev.ThrottleDevice"),
];

const HOST_CONFIG_TYPES: &[(&str, &str)] = &[
    ("NetworkMode", "container.NetworkMode"),
    ("PortBindings", "map[network.Port][]network.PortBinding"),
    ("ConsoleSize", "[2]uint"),
    ("CgroupnsMode", "container.CgroupnsMode"),
    ("Dns", "[]netip.Addr"),
    ("IpcMode", "container.IpcMode"),
    ("Cgroup", "container.CgroupSpec"),
    ("OomScoreAdj", "int"),
    ("PidMode", "container.PidMode"),
    ("UTSMode", "container.UTSMode"),
    ("UsernsMode", "container.UsernsMode"),
    ("Isolation", "container.Isolation"),
    ("BlkioWeightDevice", "[]*blkiodev.WeightDevice"),
    ("BlkioDeviceReadBps", "[]*blkiodev.ThrottleDevice"),
    ("BlkioDeviceWriteBps", "[]*blkiodev.ThrottleDevice"),
    ("BlkioDeviceReadIOps", "[]*blkiodev.ThrottleDevice"),
    ("BlkioDeviceWriteIOps", "[]*blkiodev.ThrottleDevice"),
    ("Devices", "[]container.DeviceMapping"),
    ("DeviceRequests", "[]container.DeviceRequest"),
    ("Ulimits", "[]*units.Ulimit"),
    ("Mounts", "[]mount.Mount"),
];

const ENDPOINT_TYPES: &[(&str, &str)] = &[
    ("GwPriority", "int"),
    ("Gateway", "netip.Addr"),
    ("IPAddress", "netip.Addr"),
    ("MacAddress", "network.HardwareAddr"),
    ("IPPrefixLen", "int"),
    ("IPv6Gateway", "netip.Addr"),
    ("GlobalIPv6Address", "netip.Addr"),
    ("GlobalIPv6PrefixLen", "int"),
];

/// Structs of request bodies of which a type error says more than their names.
pub(crate) const STRUCTS: &[GoStruct] = &[
    config("container.CreateRequest"),
    GoStruct { embedded: &[("Resources", RESOURCES)], ..of("container.HostConfig", HOST_CONFIG_TYPES) },
    GoStruct { embedded: &[("Resources", UPDATED)], ..of("container.UpdateConfig", BLKIO_TYPES) },
    HEALTH_CHECK,
    of("container.RestartPolicy", &[("Name", "container.RestartPolicyMode"), ("MaximumRetryCount", "int")]),
    of("container.DeviceRequest", &[("Count", "int"), ("Capabilities", "[][]string")]),
    of("container.ExecCreateRequest", &[("ConsoleSize", "*[2]uint")]),
    of("container.ExecStartRequest", &[("ConsoleSize", "*[2]uint")]),
    of("mount.Mount", &[("Type", "mount.Type"), ("Consistency", "mount.Consistency")]),
    of("mount.BindOptions", &[("Propagation", "mount.Propagation")]),
    of("mount.TmpfsOptions", &[("Mode", "fs.FileMode"), ("Options", "[][]string")]),
    of("network.PortBinding", &[("HostIp", "netip.Addr")]),
    of("network.NetworkingConfig", &[("EndpointsConfig", "map[string]*network.EndpointSettings")]),
    of("network.EndpointSettings", ENDPOINT_TYPES),
    of(
        "network.EndpointIPAMConfig",
        &[("IPv4Address", "netip.Addr"), ("IPv6Address", "netip.Addr"), ("LinkLocalIPs", "[]netip.Addr")],
    ),
    of("network.IPAM", &[("Config", "[]network.IPAMConfig")]),
    of(
        "network.IPAMConfig",
        &[
            ("Subnet", "netip.Prefix"),
            ("IPRange", "netip.Prefix"),
            ("Gateway", "netip.Addr"),
            ("AuxiliaryAddresses", "map[string]netip.Addr"),
        ],
    ),
];

/// The structs of the body of `POST /commit`.
pub(crate) const COMMIT: &[GoStruct] = &[config("container.commitRequest"), HEALTH_CHECK];

const HEALTH_CHECK: GoStruct = of(
    "v1.HealthcheckConfig",
    &[
        ("Interval", "time.Duration"),
        ("Timeout", "time.Duration"),
        ("StartPeriod", "time.Duration"),
        ("StartInterval", "time.Duration"),
        ("Retries", "int"),
    ],
);

/// A container's configuration, embedded by a request.
const fn config(outer: &'static str) -> GoStruct {
    let types =
        &[("ExposedPorts", "map[network.Port]struct {}"), ("Volumes", "map[string]struct {}"), ("StopTimeout", "*int")];
    GoStruct { name: "container.Config", outer, embedded: &[("Config", &[])], types }
}

/// A struct that embeds none and is embedded by none.
const fn of(name: &'static str, types: &'static [(&'static str, &'static str)]) -> GoStruct {
    GoStruct { name, outer: "", embedded: &[], types }
}
