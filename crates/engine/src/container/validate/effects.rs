//! What becomes of each option of a container: obeyed, or not yet; and if not, whether ignoring it is harmless.
//!
//! - One row for each field of the wire's types. A field without a row fails a test.
//! - Harmless is what leaves a container with less than was asked for and nobody less protected: a warning, never silence.
//! - What protects or limits something is refused, by name.

use std::collections::BTreeSet;

use model::{Error, Result};

use super::Merged;
use crate::container::definition::security::SecurityOptions;

/// A field and its verdict.
struct Row<T: 'static> {
    /// The name on the wire.
    field: &'static str,
    effect: Effect<T>,
}

/// Whether a field does something in this version; if not, whether it may be ignored.
enum Effect<T: 'static> {
    /// It works, or a check of its own refuses what does not.
    Now,
    /// Asks nothing of a container: kept for inspect, commit and clients.
    Kept,
    /// Nothing obeys it yet, and ignoring it is harmless.
    Harmless {
        /// Whether the request asks for what is not there.
        asks: fn(&T) -> bool,
        warning: &'static str,
    },
    /// Nothing obeys it yet, and it protects or limits something.
    Refused {
        /// Whether the request asks for what is not there.
        asks: fn(&T) -> bool,
        /// What a container would do that ignored it.
        why: &'static str,
    },
}

const fn now<T>(field: &'static str) -> Row<T> {
    Row { field, effect: Effect::Now }
}

const fn kept<T>(field: &'static str) -> Row<T> {
    Row { field, effect: Effect::Kept }
}

const fn harmless<T>(field: &'static str, asks: fn(&T) -> bool, warning: &'static str) -> Row<T> {
    Row { field, effect: Effect::Harmless { asks, warning } }
}

const fn refused<T>(field: &'static str, asks: fn(&T) -> bool, why: &'static str) -> Row<T> {
    Row { field, effect: Effect::Refused { asks, why } }
}

/// `Config`.
static CONFIG: &[Row<api::ContainerConfig>] = &[
    now("Hostname"),
    now("Domainname"),
    now("User"),
    kept("AttachStdin"),
    kept("AttachStdout"),
    kept("AttachStderr"),
    now("ExposedPorts"),
    now("Tty"),
    now("OpenStdin"),
    now("StdinOnce"),
    now("Env"),
    now("Cmd"),
    harmless(
        "Healthcheck",
        |config| {
            let test = config.healthcheck.as_ref().and_then(|health| health.test.first());
            test.is_some_and(|word| !["NONE", "CMD", "CMD-SHELL"].contains(&word.as_str()))
        },
        "The health check has no effect: its test begins neither with NONE nor with CMD or CMD-SHELL.",
    ),
    kept("ArgsEscaped"),
    now("Image"),
    now("Volumes"),
    now("WorkingDir"),
    now("Entrypoint"),
    now("NetworkDisabled"),
    kept("OnBuild"),
    now("Labels"),
    now("StopSignal"),
    now("StopTimeout"),
    kept("Shell"),
];

/// `HostConfig`.
static HOST_CONFIG: &[Row<api::HostConfig>] = &[
    now("Binds"),
    kept("ContainerIDFile"),
    now("LogConfig"),
    now("NetworkMode"),
    now("PortBindings"),
    now("RestartPolicy"),
    now("AutoRemove"),
    now("VolumeDriver"),
    now("VolumesFrom"),
    now("ConsoleSize"),
    now("Annotations"),
    now("CapAdd"),
    now("CapDrop"),
    now("CgroupnsMode"),
    now("Dns"),
    now("DnsOptions"),
    now("DnsSearch"),
    now("ExtraHosts"),
    now("GroupAdd"),
    now("IpcMode"),
    harmless(
        "Cgroup",
        |host| !host.cgroup.is_empty(),
        "Cgroup has no effect: the container has a control group of its own.",
    ),
    now("Links"),
    now("OomScoreAdj"),
    now("PidMode"),
    now("Privileged"),
    now("PublishAllPorts"),
    now("ReadonlyRootfs"),
    now("SecurityOpt"),
    now("StorageOpt"),
    now("Tmpfs"),
    now("UTSMode"),
    refused(
        "UsernsMode",
        |host| !matches!(host.userns_mode.as_str(), "" | "host"),
        "the container's root would be the host's",
    ),
    now("ShmSize"),
    now("Sysctls"),
    now("Runtime"),
    now("Isolation"),
    now("CpuShares"),
    now("Memory"),
    now("NanoCpus"),
    now("CgroupParent"),
    now("BlkioWeight"),
    now("BlkioWeightDevice"),
    now("BlkioDeviceReadBps"),
    now("BlkioDeviceWriteBps"),
    now("BlkioDeviceReadIOps"),
    now("BlkioDeviceWriteIOps"),
    now("CpuPeriod"),
    now("CpuQuota"),
    now("CpuRealtimePeriod"),
    now("CpuRealtimeRuntime"),
    now("CpusetCpus"),
    now("CpusetMems"),
    now("Devices"),
    now("DeviceCgroupRules"),
    now("DeviceRequests"),
    now("MemoryReservation"),
    now("MemorySwap"),
    now("MemorySwappiness"),
    now("OomKillDisable"),
    now("PidsLimit"),
    now("Ulimits"),
    harmless(
        "CpuCount",
        |host| host.cpu_count != 0,
        "linux does not support CPU count. Count discarded; NanoCpus limits the processors.",
    ),
    now("CpuPercent"),
    now("IOMaximumIOps"),
    now("IOMaximumBandwidth"),
    now("Mounts"),
    now("MaskedPaths"),
    now("ReadonlyPaths"),
    now("Init"),
];

/// The settings of an endpoint, as a client may give them.
static ENDPOINT: &[Row<api::EndpointSettings>] = &[
    now("IPAMConfig"),
    now("Links"),
    now("Aliases"),
    now("DriverOpts"),
    now("GwPriority"),
    // What inspect shows of an endpoint that is connected.
    kept("NetworkID"),
    kept("EndpointID"),
    kept("Gateway"),
    kept("IPAddress"),
    now("MacAddress"),
    kept("IPPrefixLen"),
    kept("IPv6Gateway"),
    kept("GlobalIPv6Address"),
    kept("GlobalIPv6PrefixLen"),
    kept("DNSNames"),
];

/// The warnings that a merged configuration and what was asked for deserve.
///
/// # Errors
///
/// An option that is refused, by name.
pub(super) fn verdicts(merged: &Merged, request: &api::CreateRequest) -> Result<Vec<String>> {
    let mut warnings = of_container(&merged.config, &merged.host_config)?;
    let networks = request.networking_config.iter();
    for endpoint in networks.flat_map(|networking| networking.endpoints_config.values()).flatten() {
        look("EndpointsConfig", ENDPOINT, endpoint, &mut warnings)?;
    }
    // Links are named by the host configuration and by each endpoint.
    let mut seen = BTreeSet::new();
    warnings.retain(|warning| seen.insert(warning.clone()));
    Ok(warnings)
}

/// The same of the options that are not an endpoint's.
pub(super) fn of_container(config: &api::ContainerConfig, host_config: &api::HostConfig) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    look("Config", CONFIG, config, &mut warnings)?;
    look("HostConfig", HOST_CONFIG, host_config, &mut warnings)?;
    labels(&SecurityOptions::parse(host_config.security_opt.as_deref().unwrap_or_default())?)?;
    Ok(warnings)
}

/// SELinux: nothing labels a process yet. `disable` asks for no label, whatever else is asked for beside it.
fn labels(options: &SecurityOptions) -> Result<()> {
    match options.labels.first() {
        Some(label) if !options.labels.iter().any(|label| label == "disable") => Err(unsupported(
            &format!("--security-opt label={label}"),
            "the container would run without its SELinux label",
        )),
        _ => Ok(()),
    }
}

fn look<T>(kind: &str, table: &[Row<T>], value: &T, warnings: &mut Vec<String>) -> Result<()> {
    for row in table {
        match row.effect {
            Effect::Harmless { asks, warning } if asks(value) => warnings.push(warning.to_owned()),
            Effect::Refused { asks, why } if asks(value) => {
                return Err(unsupported(&format!("{kind}.{}", row.field), why));
            }
            _ => {}
        }
    }
    Ok(())
}

fn unsupported(option: &str, why: &str) -> Error {
    Error::invalid(format!("the option {option} is not supported: if it were ignored, {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<T>(table: &[Row<T>]) -> Vec<&'static str> {
        table.iter().map(|row| row.field).collect()
    }

    #[test]
    fn every_field_of_the_wire_has_a_verdict() {
        assert_eq!(fields(CONFIG), gojson::field_names::<api::ContainerConfig>());
        assert_eq!(fields(HOST_CONFIG), gojson::field_names::<api::HostConfig>());
        assert_eq!(fields(ENDPOINT), gojson::field_names::<api::EndpointSettings>());
    }

    fn of(config: &str, host_config: &str, endpoint: &str) -> Result<Vec<String>> {
        let networking = format!(r#"{{"EndpointsConfig":{{"n":{endpoint},"m":{endpoint}}}}}"#);
        let request = api::CreateRequest {
            networking_config: Some(serde_json::from_str(&networking).expect("networking")),
            ..api::CreateRequest::default()
        };
        let merged = Merged {
            config: serde_json::from_str(config).expect("config"),
            host_config: serde_json::from_str(host_config).expect("host config"),
        };
        verdicts(&merged, &request)
    }

    #[test]
    fn what_is_harmless_is_warned_about_once() {
        let warnings = |config, host, endpoint| of(config, host, endpoint).expect("accepted");
        let none: [&str; 0] = [];
        assert_eq!(warnings(r#"{"Healthcheck":{"Test":["NONE"]},"Shell":["x"]}"#, "{}", "{}"), none);
        assert_eq!(warnings("{}", r#"{"UsernsMode":"host","SecurityOpt":["label=disable"]}"#, "{}"), none);
        assert_eq!(
            warnings(r#"{"Healthcheck":{"Test":["SHELL","x"]}}"#, r#"{"Links":["a:b"]}"#, r#"{"Links":["a:b"]}"#),
            ["The health check has no effect: its test begins neither with NONE nor with CMD or CMD-SHELL."]
        );
        for (host, endpoint) in [(r#"{"CpuCount":1}"#, "{}"), (r#"{"Cgroup":"container:x"}"#, "{}")] {
            assert_eq!(warnings("{}", host, endpoint).len(), 1, "{host} {endpoint}");
        }
    }

    #[test]
    fn what_protects_is_refused_by_name() {
        for (host, name) in [
            (r#"{"UsernsMode":"private"}"#, "HostConfig.UsernsMode"),
            (r#"{"UsernsMode":"auto:size=65536"}"#, "HostConfig.UsernsMode"),
            (r#"{"SecurityOpt":["label=type:svirt_t"]}"#, "--security-opt label=type:svirt_t"),
            (r#"{"SecurityOpt":["label:level:s0:c1,c2"]}"#, "--security-opt label=level:s0:c1,c2"),
            (r#"{"SecurityOpt":["label=user:x","label=role:y"]}"#, "--security-opt label=user:x"),
        ] {
            let error = of("{}", host, "{}").expect_err("refused");
            assert_eq!(error.kind(), model::Kind::InvalidParameter);
            assert!(error.message().starts_with(&format!("the option {name} is not supported: ")), "{error}");
        }
        let off = r#"{"SecurityOpt":["label=type:svirt_t","label=disable"]}"#;
        assert!(of("{}", off, "{}").is_ok(), "labels are switched off");
    }
}
