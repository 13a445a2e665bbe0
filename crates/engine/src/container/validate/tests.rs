//! The validation rules, each with what it takes and what it refuses.

use super::*;
use crate::abilities::Abilities;

fn host() -> Host {
    let all = Abilities {
        memory: true,
        swap: true,
        oom_kill_disable: true,
        swappiness: true,
        cpu_shares: true,
        cpu_cfs: true,
        cpu_realtime: true,
        cpuset: true,
        pids: true,
        blkio_weight: true,
        blkio: true,
    };
    Host {
        processors: 2,
        cpus: "0-1".into(),
        memory_nodes: "0".into(),
        ip_forwarding: true,
        abilities: all,
        ..Host::default()
    }
}

/// A request from the JSON of its host configuration and of the rest.
fn body(config: &str, host_config: &str) -> api::CreateRequest {
    api::CreateRequest {
        config: Some(serde_json::from_str(config).expect("config")),
        host_config: Some(serde_json::from_str(host_config).expect("host config")),
        ..api::CreateRequest::default()
    }
}

fn refusal(config: &str, host_config: &str) -> String {
    let error = request(&mut body(config, host_config), &host(), |_| false).expect_err("is refused");
    assert_eq!(error.kind(), model::Kind::InvalidParameter, "{error}");
    error.message().to_owned()
}

fn of_host(host_config: &str) -> String {
    refusal("{}", host_config)
}

fn of_config(config: &str) -> String {
    refusal(config, "{}")
}

fn accepted(host_config: &str, host: &Host) -> (api::HostConfig, Vec<String>) {
    let mut body = body("{}", host_config);
    let warnings = request(&mut body, host, |_| true).expect("is accepted");
    (body.host_config.expect("stays"), warnings)
}

#[test]
fn an_empty_request_gets_its_normal_form() {
    let (host_config, warnings) = accepted("{}", &host());
    assert_eq!((host_config.network_mode.as_str(), host_config.restart_policy.name.as_str()), ("bridge", "no"));
    assert_eq!(host_config.port_bindings, None);
    assert!(warnings.is_empty());
    let none = request(&mut api::CreateRequest::default(), &host(), |_| true).expect_err("no configuration");
    assert_eq!(none.message(), "config cannot be empty in order to create a container");
}

#[test]
fn the_portable_half_is_checked() {
    assert_eq!(
        of_config(r#"{"WorkingDir":"srv"}"#),
        "the working directory 'srv' is invalid, it needs to be an absolute path"
    );
    assert_eq!(of_config(r#"{"StopSignal":"SIGNOPE"}"#), "invalid signal: SIGNOPE");
    assert_eq!(of_config(r#"{"Env":["A=b","=c"]}"#), "invalid environment variable: =c");
    assert_eq!(of_config(r#"{"Env":[""]}"#), "invalid environment variable: ");
    assert_eq!(of_config(r#"{"Healthcheck":{"Interval":5}}"#), "Interval in Healthcheck cannot be less than 1ms");
    assert_eq!(of_config(r#"{"Healthcheck":{"Retries":-1}}"#), "Retries in Healthcheck cannot be negative");
}

/// The text of `restart policy bad`; B-rs-5.
#[test]
fn restart_policies_are_checked() {
    assert_eq!(
        of_host(r#"{"RestartPolicy":{"Name":"zz"}}"#),
        "invalid restart policy: unknown policy 'zz'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
    );
    assert_eq!(
        of_host(r#"{"RestartPolicy":{"Name":"always"},"AutoRemove":true}"#),
        "can't create 'AutoRemove' container with restart policy"
    );
    assert_eq!(
        of_host(r#"{"RestartPolicy":{"MaximumRetryCount":3}}"#),
        "invalid restart policy: maximum retry count can only be used with 'on-failure'"
    );
}

/// The text of `bind missing source via Mounts`; B-vol-2.
#[test]
fn mounts_are_checked() {
    assert_eq!(
        of_host(r#"{"Mounts":[{"Type":"bind","Source":"/no/such","Target":"/x"}]}"#),
        "invalid mount config for type \"bind\": bind source path does not exist: /no/such"
    );
    assert_eq!(of_host(r#"{"Tmpfs":{"/":""}}"#), "invalid specification: destination can't be '/'");
    assert_eq!(of_host(r#"{"Tmpfs":{"x":""}}"#), "invalid mount path: 'x' mount path must be absolute");
}

#[test]
fn network_modes_exclude_options() {
    let with = |config: &str, more: &str| {
        refusal(config, &format!(r#"{{"NetworkMode":"container:x"{more}}}"#)).replace("conflicting options: ", "")
    };
    assert_eq!(with(r#"{"Hostname":"h"}"#, ""), "hostname and the network mode");
    assert_eq!(with("{}", r#","Dns":["1.1.1.1"]"#), "dns and the network mode");
    assert_eq!(with("{}", r#","ExtraHosts":["a:1.1.1.1"]"#), "custom host-to-IP mapping and the network mode");
    assert_eq!(with("{}", r#","PublishAllPorts":true"#), "port publishing and the container type network mode");
    assert_eq!(with(r#"{"ExposedPorts":{"80":{}}}"#, ""), "port exposing and the container type network mode");
    assert_eq!(
        of_host(r#"{"NetworkMode":"container:"}"#),
        "invalid network mode: invalid container format container:<name|id>"
    );
    assert_eq!(
        refusal(r#"{"Hostname":"h"}"#, r#"{"UTSMode":"host"}"#),
        "conflicting options: hostname and the UTS mode"
    );
    let (_, warnings) = accepted(r#"{"NetworkMode":"host","PortBindings":{"80/tcp":[{"HostPort":"1"}]}}"#, &host());
    assert_eq!(warnings, ["Published ports are discarded when using host network mode"]);
}

#[test]
fn ports_and_names_are_checked() {
    let ports = |json: &str| of_host(&format!(r#"{{"PortBindings":{json}}}"#));
    assert_eq!(ports(r#"{"0/tcp":[{}]}"#), "invalid port specification: \"0/tcp\"");
    assert_eq!(ports(r#"{"80/tcp":[{"HostPort":"x"}]}"#), "invalid port specification: \"x\"");
    assert_eq!(ports(r#"{"80":[{"HostIp":"x"}]}"#), "invalid JSON: ParseAddr(\"x\"): unable to parse IP");
    assert_eq!(of_host(r#"{"ExtraHosts":["a"]}"#), "bad format for add-host: \"a\"");
    assert_eq!(of_host(r#"{"ExtraHosts":["a:b"]}"#), "invalid IP address in add-host: \"b\"");
    assert_eq!(of_host(r#"{"Dns":["x"]}"#), "invalid JSON: ParseAddr(\"x\"): unable to parse IP");
    assert_eq!(of_host(r#"{"ExtraHosts":["c:[::1]"]}"#), "invalid IP address in add-host: \"[::1]\"");
    accepted(r#"{"ExtraHosts":["a:host-gateway","b:::1"],"Dns":["::1"]}"#, &host());
    let (host_config, warnings) = accepted(r#"{"PortBindings":{"80/tcp":null}}"#, &host());
    assert_eq!(host_config.port_bindings.expect("stays").to_map()["80/tcp"], Some(vec![api::PortBinding::default()]));
    assert!(warnings[0].starts_with("Following container port(s) have an empty list of port-bindings: 80/tcp."));
}

#[test]
fn modes_and_numbers_are_checked() {
    for (json, message) in [
        (r#"{"IpcMode":"x"}"#, "invalid IPC mode: x"),
        (r#"{"PidMode":"container:"}"#, "invalid PID mode: container:"),
        (r#"{"UTSMode":"x"}"#, "invalid UTS mode: x"),
        (r#"{"CgroupnsMode":"x"}"#, "invalid cgroup namespace mode: x"),
        (r#"{"ShmSize":-1}"#, "SHM size can not be less than 0"),
        (r#"{"OomScoreAdj":1001}"#, "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        (r#"{"Isolation":"hyperv"}"#, "invalid isolation (hyperv): linux only supports 'default'"),
        (r#"{"CapAdd":["nope"]}"#, "invalid CapAdd: unknown capability: \"CAP_NOPE\""),
        (r#"{"CapDrop":["x"]}"#, "invalid CapDrop: unknown capability: \"CAP_X\""),
        (r#"{"Annotations":{"":"x"}}"#, "invalid Annotations: the empty string is not permitted as an annotation key"),
        (r#"{"IOMaximumIOps":1}"#, "invalid option: QoS maximum IOPs configuration is not supported on linux"),
    ] {
        assert_eq!(of_host(json), message);
    }
}

#[test]
fn limits_are_checked() {
    for (json, message) in [
        (r#"{"Memory":1000}"#, "Minimum memory limit allowed is 6MB"),
        (
            r#"{"Memory":10000000,"MemorySwap":7000000}"#,
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (r#"{"MemorySwap":7000000}"#, "You should always set the Memory limit when using Memoryswap limit, see usage"),
        (
            r#"{"Ulimits":[{"Name":"nofile","Soft":5,"Hard":-2}]}"#,
            "invalid ulimit nofile=5:-2: a limit is -1 (unlimited) or a number",
        ),
        (r#"{"MemorySwappiness":101}"#, "Invalid value: 101, valid memory swappiness range is 0-100"),
        (r#"{"MemoryReservation":5}"#, "Minimum memory reservation allowed is 6MB"),
        (r#"{"NanoCpus":1,"CpuQuota":5000}"#, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
        (r#"{"NanoCpus":3000000000}"#, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        (r#"{"CpuShares":-1}"#, "invalid CPU shares (-1): value must be a positive integer"),
        (r#"{"CpusetCpus":"x"}"#, "Invalid value x for cpuset cpus: invalid format: x"),
        (r#"{"CpusetCpus":"0-5"}"#, "Requested CPUs are not available - requested 0-5, available: 0-1"),
        (r#"{"CpusetMems":"1"}"#, "Requested memory nodes are not available - requested 1, available: 0"),
        (r#"{"BlkioWeight":5}"#, "Range of blkio weight is from 10 to 1000"),
        (r#"{"CpuQuota":5}"#, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
    ] {
        assert_eq!(of_host(json), message);
    }
    let (host_config, _) = accepted(r#"{"PidsLimit":-1,"MemorySwappiness":-1,"CpusetCpus":"1"}"#, &host());
    assert_eq!((host_config.pids_limit, host_config.memory_swappiness), (None, None));
}

#[test]
fn what_the_kernel_cannot_do_is_discarded_with_a_warning() {
    let bare = Host { abilities: Abilities::default(), ip_forwarding: false, ..host() };
    let json = r#"{"Memory":10000000,"CpuShares":5,"PidsLimit":7,"BlkioWeight":50,"CpusetCpus":"9",
        "OomKillDisable":true,"BlkioDeviceReadBps":[{"Path":"/dev/x","Rate":1}]}"#;
    let (host_config, warnings) = accepted(json, &bare);
    assert_eq!((host_config.memory, host_config.memory_swap, host_config.cpu_shares), (0, -1, 0));
    assert_eq!((host_config.pids_limit, host_config.blkio_weight, host_config.oom_kill_disable), (None, 0, None));
    assert!(host_config.cpuset_cpus.is_empty());
    assert_eq!(host_config.blkio_device_read_bps, Some(Vec::new()));
    assert_eq!(
        warnings[0],
        "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded."
    );
    assert_eq!(warnings.last().map(String::as_str), Some("IPv4 forwarding is disabled. Networking will not work."));
    assert_eq!(warnings.len(), 8);
}

#[test]
fn endpoints_are_checked() {
    let refused = |json: &str| {
        let mut body = body("{}", "{}");
        body.networking_config = Some(serde_json::from_str(json).expect("networking"));
        request(&mut body, &host(), |_| true).expect_err("is refused").message().to_owned()
    };
    assert_eq!(refused(r#"{"EndpointsConfig":{"n":null}}"#), "invalid config for network n: EndpointsConfig is nil");
    assert_eq!(
        refused(r#"{"EndpointsConfig":{"default":{"Aliases":["a"]}}}"#),
        "invalid config for network bridge: invalid endpoint settings:\n\
         network-scoped aliases are only supported for user-defined networks"
    );
    assert_eq!(
        refused(r#"{"EndpointsConfig":{"n":{"IPAMConfig":{"IPv4Address":"::1"}}}}"#),
        "invalid config for network n: invalid endpoint settings:\ninvalid IPv4 address: ::1"
    );
}

#[test]
fn security_options_are_read() {
    let parse = |options: &[&str]| SecurityOptions::parse(&options.iter().map(ToString::to_string).collect::<Vec<_>>());
    let parsed = parse(&["no-new-privileges", "seccomp=unconfined", "apparmor:mine", "label=disable"]).expect("read");
    assert_eq!(parsed.no_new_privileges, Some(true));
    assert_eq!((parsed.seccomp.as_deref(), parsed.apparmor.as_deref()), (Some("unconfined"), Some("mine")));
    assert_eq!(parsed.labels, ["disable"]);
    assert_eq!(parse(&["no-new-privileges=false"]).expect("read").no_new_privileges, Some(false));
    let refused = |option: &str| parse(&[option]).expect_err("is refused").message().to_owned();
    assert_eq!(refused("x"), "invalid --security-opt 1: \"x\"");
    assert_eq!(refused("x=y"), "invalid --security-opt 2: \"x=y\"");
    assert_eq!(refused("no-new-privileges=maybe"), "invalid --security-opt 2: \"no-new-privileges=maybe\"");
}

#[test]
fn device_requests_find_no_driver() {
    let host_config: api::HostConfig =
        serde_json::from_str(r#"{"DeviceRequests":[{"Capabilities":[["gpu","x"]]}]}"#).expect("host config");
    assert_eq!(
        check_device_requests(&host_config).expect_err("no driver").message(),
        "could not select device driver \"\" with capabilities: [[gpu x]]"
    );
}

#[test]
fn no_name_brings_a_line_of_its_own() {
    for control in ["\\n", "\\r", "\\u0000", "\\t", "\\u0085", "\\u007f"] {
        let bad = format!("a{control}b");
        for (field, what) in [("Hostname", "hostname"), ("Domainname", "domain name")] {
            let text = of_config(&format!(r#"{{"{field}":"{bad}"}}"#));
            assert!(text.starts_with(&format!("invalid {what} \"a")), "{text}");
            assert!(text.ends_with("it contains a control character"), "{text}");
        }
        for (field, what) in [("DnsSearch", "DNS search domain"), ("DnsOptions", "DNS option")] {
            let text = of_host(&format!(r#"{{"{field}":["x","{bad}"]}}"#));
            assert!(text.starts_with(&format!("invalid {what} \"a")), "{text}");
        }
        let text = of_host(&format!(r#"{{"ExtraHosts":["{bad}:1.2.3.4"]}}"#));
        assert!(text.starts_with("invalid add-host \"a"), "{text}");
        for field in [r#""Dns":["1.1.1.1C"]"#, r#""ExtraHosts":["a:1.1.1.1C"]"#, r#""ExtraHosts":["a:host-gatewayC"]"#]
        {
            let text = of_host(&format!("{{{}}}", field.replace('C', control)));
            assert!(text.starts_with("invalid "), "{text}");
        }
    }
}
