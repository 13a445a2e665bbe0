//! Conversions against objects that a real engine answered at 1.45, and the gates around them.

use serde_json::json;

use super::*;
use crate::{
    ContainerConfig, ContainerInspect, ContainerSummary, DiskUsage, EndpointSettings, HostConfig, ImageConfig,
    ImageInspect, ImageSummary, Info, Ipam, IpamConfig, LogConfig, Network, NetworkSettings, RestartPolicy,
};

const V45: ApiVersion = ApiVersion::v1(45);

fn value<T: serde::Serialize>(object: &T) -> Value {
    serde_json::to_value(object).expect("plain data")
}

#[test]
fn versions_are_read_and_ordered() {
    assert_eq!(ApiVersion::parse("1.45"), Some(V45));
    assert_eq!(ApiVersion::parse("9.99"), Some(ApiVersion { major: 9, minor: 99 }));
    assert_eq!(ApiVersion::parse("1.45.1"), Some(V45));
    assert_eq!(ApiVersion::parse("1"), Some(ApiVersion { major: 1, minor: 0 }));
    for bad in ["", "x", "1.x", "1..", "+1.2"] {
        assert_eq!(ApiVersion::parse(bad), None, "{bad}");
    }
    assert!(ApiVersion::v1(9) < ApiVersion::v1(24) && ApiVersion::MAX > V45);
    assert!(V45.before(46) && !V45.before(45) && !ApiVersion { major: 9, minor: 1 }.before(52));
}

/// `inspect NetworkSettings` of the recorded answers.
#[test]
fn network_settings_of_1_45() {
    let mut inspect = ContainerInspect {
        network_settings: Some(NetworkSettings {
            ports: Some(Default::default()),
            networks: Some([("bridge".to_owned(), EndpointSettings::default())].into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    inspect.config = Some(ContainerConfig::default());
    let mut shown = value(&inspect);
    container_inspect(V45, &mut shown);
    assert_eq!(
        shown["NetworkSettings"],
        json!({"Bridge": "", "SandboxID": "", "SandboxKey": "", "Ports": {}, "HairpinMode": false,
            "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0, "SecondaryIPAddresses": null,
            "SecondaryIPv6Addresses": null, "EndpointID": "", "Gateway": "", "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0, "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "MacAddress": "",
            "Networks": {"bridge": {"IPAMConfig": null, "Links": null, "Aliases": null, "MacAddress": "",
                "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0,
                "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DriverOpts": null,
                "DNSNames": null}}})
    );
}

/// `inspect top keys` of the recorded answers.
#[test]
fn container_inspect_keys_of_1_45() {
    let storage = serde_json::from_value(json!({"RootFS": {"Snapshot": {"Name": "overlayfs"}}})).expect("storage");
    let inspect = ContainerInspect {
        storage: Some(storage),
        state: Some(Default::default()),
        config: Some(Default::default()),
        ..Default::default()
    };
    let mut shown = value(&inspect);
    assert!(shown.get("Storage").is_some() && shown.get("GraphDriver").is_none());
    container_inspect(V45, &mut shown);
    let mut keys: Vec<_> = shown.as_object().expect("object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    let mut expected: Vec<_> = "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name \
        RestartCount Driver Platform MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts \
        Config NetworkSettings"
        .split_whitespace()
        .collect();
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(shown["GraphDriver"], json!({"Data": null, "Name": "overlayfs"}));
}

/// `inspect HostConfig` of the recorded answers, byte for byte.
#[test]
fn host_config_is_written_as_the_reference_does() {
    let host = HostConfig {
        log_config: LogConfig { kind: "json-file".to_owned(), config: Some(Default::default()) },
        network_mode: "bridge".to_owned(),
        restart_policy: RestartPolicy { name: "no".to_owned(), maximum_retry_count: 0 },
        cgroupns_mode: "host".to_owned(),
        ipc_mode: "private".to_owned(),
        shm_size: 67_108_864,
        runtime: "runc".to_owned(),
        oom_kill_disable: Some(false),
        ..Default::default()
    };
    let expected = r#"{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"json-file","Config":{}},"NetworkMode":"bridge","PortBindings":null,"RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,"ConsoleSize":[0,0],"CapAdd":null,"CapDrop":null,"CgroupnsMode":"host","Dns":null,"DnsOptions":null,"DnsSearch":null,"ExtraHosts":null,"GroupAdd":null,"IpcMode":"private","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"","UsernsMode":"","ShmSize":67108864,"Runtime":"runc","Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":null,"BlkioDeviceReadBps":null,"BlkioDeviceWriteBps":null,"BlkioDeviceReadIOps":null,"BlkioDeviceWriteIOps":null,"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":null,"DeviceCgroupRules":null,"DeviceRequests":null,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":null,"OomKillDisable":false,"PidsLimit":null,"Ulimits":null,"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,"MaskedPaths":null,"ReadonlyPaths":null}"#;
    assert_eq!(serde_json::to_string(&host).expect("plain data"), expected);
}

/// `inspect Config` of the recorded answers; image fields that are set only sometimes are left out.
#[test]
fn container_config_is_written_as_the_reference_does() {
    let config = ContainerConfig {
        hostname: "e3ebb54130af".to_owned(),
        env: Some(vec!["PATH=/bin".to_owned()]),
        cmd: Some(vec!["sh".to_owned()]),
        image: "alpine:3.10".to_owned(),
        labels: Some([("k".to_owned(), "v".to_owned())].into()),
        ..Default::default()
    };
    let expected = r#"{"Hostname":"e3ebb54130af","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":["PATH=/bin"],"Cmd":["sh"],"Image":"alpine:3.10","Volumes":null,"WorkingDir":"","Entrypoint":null,"Labels":{"k":"v"}}"#;
    assert_eq!(serde_json::to_string(&config).expect("plain data"), expected);
}

#[test]
fn state_shows_times_that_never_were() {
    let state = crate::ContainerState { status: "created".to_owned(), ..Default::default() };
    let expected = r#"{"Status":"created","Running":false,"Paused":false,"Restarting":false,"OOMKilled":false,"Dead":false,"Pid":0,"ExitCode":0,"Error":"","StartedAt":"0001-01-01T00:00:00Z","FinishedAt":"0001-01-01T00:00:00Z"}"#;
    assert_eq!(serde_json::to_string(&state).expect("plain data"), expected);
}

/// `list entry` of the recorded answers: no health, no annotations, no gateway priority.
#[test]
fn container_list_of_1_45() {
    let summary = ContainerSummary {
        health: Some(Default::default()),
        host_config: crate::SummaryHostConfig {
            network_mode: "bridge".to_owned(),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
        },
        network_settings: Some(crate::NetworkSettingsSummary {
            networks: Some([("bridge".to_owned(), EndpointSettings::default())].into()),
        }),
        ..Default::default()
    };
    let mut shown = Value::Array(vec![value(&summary)]);
    container_list(V45, &mut shown);
    let entry = shown[0].as_object().expect("object");
    let keys: Vec<_> = entry.keys().map(String::as_str).collect();
    let expected = "Id Names Image ImageID Command Created Ports Labels State Status HostConfig NetworkSettings Mounts";
    assert_eq!(keys.join(" "), expected);
    assert_eq!(entry["HostConfig"], json!({"NetworkMode": "bridge"}));
    assert!(entry["NetworkSettings"]["Networks"]["bridge"].get("GwPriority").is_none());
    let mut newest = Value::Array(vec![value(&summary)]);
    container_list(ApiVersion::MAX, &mut newest);
    assert_eq!(newest[0], value(&summary));
}

#[test]
fn aliases_below_1_45_hold_short_id_and_hostname() {
    let mut shown = json!({"Id": "0123456789abcdef", "Config": {"Hostname": "h"},
        "NetworkSettings": {"Networks": {"bridge": {"Aliases": null}, "n": {"Aliases": ["h"]}}}});
    container_inspect(ApiVersion::v1(44), &mut shown);
    let networks = &shown["NetworkSettings"]["Networks"];
    assert_eq!(networks["n"]["Aliases"], json!(["h", "0123456789ab"]));
    assert_eq!(networks["bridge"]["Aliases"], Value::Null);
}

/// `images list entry` of the recorded answers, byte for byte.
#[test]
fn image_list_by_version() {
    let summary = ImageSummary {
        containers: 3,
        created: 1_795_454_890,
        id: "sha256:47".to_owned(),
        labels: Some(Default::default()),
        descriptor: Some(Default::default()),
        repo_tags: vec!["alpine:3.10".to_owned()],
        shared_size: -1,
        size: 1_987_501,
        ..Default::default()
    };
    let mut shown = Value::Array(vec![value(&summary)]);
    image_list(V45, &mut shown);
    let expected = r#"[{"Containers":-1,"Created":1795454890,"Id":"sha256:47","Labels":{},"ParentId":"","RepoDigests":[],"RepoTags":["alpine:3.10"],"SharedSize":-1,"Size":1987501}]"#;
    assert_eq!(shown.to_string(), expected);
    let mut nameless = Value::Array(vec![value(&ImageSummary { size: 7, ..Default::default() })]);
    image_list(ApiVersion::v1(42), &mut nameless);
    assert_eq!(nameless[0]["RepoTags"], json!(["<none>:<none>"]));
    assert_eq!(nameless[0]["VirtualSize"], json!(7));
}

/// `image inspect` of the recorded answers: every key at 1.45.
#[test]
fn image_inspect_of_1_45() {
    let inspect = ImageInspect { config: Some(ImageConfig::default()), created: "x".to_owned(), ..Default::default() };
    let mut shown = value(&inspect);
    assert_eq!(shown["Config"], json!({}));
    image_inspect(V45, &mut shown);
    for key in "Id RepoTags RepoDigests Parent Comment Created DockerVersion Author Config Architecture Os Size RootFS \
                Metadata"
        .split_whitespace()
    {
        assert!(shown.get(key).is_some(), "{key}");
    }
    let mut keys: Vec<_> = shown["Config"].as_object().expect("object").keys().cloned().collect();
    keys.sort();
    let expected = "AttachStderr AttachStdin AttachStdout Cmd Domainname Entrypoint Env Hostname Image Labels OnBuild \
                    OpenStdin StdinOnce Tty User Volumes WorkingDir";
    assert_eq!(keys, expected.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn events_below_1_52_carry_the_old_fields_in_front() {
    let event_of = |kind: &str| EventMessage {
        kind: kind.to_owned(),
        action: "create".to_owned(),
        actor: crate::Actor { id: "b0".to_owned(), attributes: [("image".to_owned(), "nginx".to_owned())].into() },
        scope: "local".to_owned(),
        time: 1,
        time_nano: 1_000_000_000,
    };
    let mut shown = value(&event_of("container"));
    event(V45, &mut shown);
    let expected = r#"{"status":"create","id":"b0","from":"nginx","Type":"container","Action":"create","Actor":{"ID":"b0","Attributes":{"image":"nginx"}},"scope":"local","time":1,"timeNano":1000000000}"#;
    assert_eq!(shown.to_string(), expected);
    let mut network = value(&event_of("network"));
    event(V45, &mut network);
    assert_eq!(network, value(&event_of("network")));
    assert!(!knows_event(V45, &event_of("image")) && knows_event(ApiVersion::v1(46), &event_of("image")));
}

/// `net inspect` of the recorded answers, byte for byte.
#[test]
fn network_inspect_of_1_45() {
    let network = Network {
        name: "wfn".to_owned(),
        id: "3d71".to_owned(),
        created: "2026-11-23T17:38:29.698090509Z".to_owned(),
        scope: "local".to_owned(),
        driver: "bridge".to_owned(),
        enable_ipv4: true,
        ipam: Ipam {
            driver: "default".to_owned(),
            options: None,
            config: Some(vec![IpamConfig {
                subnet: "172.30.107.0/24".to_owned(),
                gateway: "172.30.107.1".to_owned(),
                ..Default::default()
            }]),
        },
        options: Some(Default::default()),
        labels: Some([("a".to_owned(), "b".to_owned())].into()),
        containers: Some(Default::default()),
        ..Default::default()
    };
    let mut shown = value(&network);
    network_inspect(V45, &mut shown);
    let expected = json!({"Name": "wfn", "Id": "3d71", "Created": "2026-11-23T17:38:29.698090509Z", "Scope": "local",
        "Driver": "bridge", "EnableIPv6": false, "IPAM": {"Driver": "default", "Options": null,
        "Config": [{"Subnet": "172.30.107.0/24", "Gateway": "172.30.107.1"}]}, "Internal": false, "Attachable": false,
        "Ingress": false, "ConfigFrom": {"Network": ""}, "ConfigOnly": false, "Containers": {}, "Options": {},
        "Labels": {"a": "b"}});
    assert_eq!(shown, expected);
}

#[test]
fn info_by_version() {
    let mut information = Info { registry_config: Some(Default::default()), ..Default::default() };
    information
        .runtimes
        .insert("runc".to_owned(), serde_json::from_value(json!({"status": {"a": "b"}})).expect("runtime"));
    information.firewall_backend = Some(Default::default());
    information.containerd = Some(Default::default());
    let mut shown = value(&information);
    info(ApiVersion::v1(43), &mut shown);
    assert_eq!(shown["Runtimes"]["runc"], json!({}));
    assert_eq!(shown["BridgeNfIptables"], json!(false));
    assert_eq!(shown["RuncCommit"], json!({"ID": "", "Expected": ""}));
    assert!(shown["RegistryConfig"].get("AllowNondistributableArtifactsCIDRs").is_some());
    assert!(shown.get("FirewallBackend").is_none() && shown.get("Containerd").is_none());
    let mut newest = value(&information);
    info(ApiVersion::MAX, &mut newest);
    assert_eq!(newest, value(&information));
}

#[test]
fn disk_usage_has_two_shapes() {
    let images = crate::system::Usage {
        active_count: 1,
        items: vec![ImageSummary::default()],
        total_size: 5,
        ..Default::default()
    };
    let usage = DiskUsage { image_usage: Some(images), volume_usage: Some(Default::default()), ..Default::default() };
    let shape = |version, verbose| {
        let mut shown = value(&usage);
        disk_usage(version, verbose, &mut shown);
        shown
    };
    let old = shape(V45, false);
    assert_eq!(old["LayersSize"], json!(5));
    assert_eq!(old["Images"][0]["Containers"], json!(0));
    assert_eq!(shape(ApiVersion { major: 1, minor: 43 }, false)["Images"][0]["VirtualSize"], json!(0));
    assert_eq!(old["Volumes"], json!([]));
    assert!(old.get("ImageUsage").is_none() && old.get("Containers").is_none());
    let both = shape(ApiVersion::MAX, false);
    assert!(both["ImageUsage"].get("Items").is_none() && both["Images"].is_array());
    let new = shape(ApiVersion::MAX, true);
    assert!(new["ImageUsage"]["Items"].is_array() && new.get("Images").is_none());
}
