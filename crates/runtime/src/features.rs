//! What a runtime can do, as `features` of the runtime specification tells it (features.md there).

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use blocking::Blocking;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Serialize;

use crate::builtin::MOUNT_OPTIONS;
use crate::process::ended;
use crate::seccomp;

/// A program that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of what a program says: as many as a pipe holds.
const MAX_TEXT: usize = 64 << 10;

/// Versions of the runtime specification that the built-in runtime reads.
const SPEC_VERSIONS: [&str; 2] = ["1.0.0", "1.2.0"];

/// The document.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: &'static [&'static str],
    mount_options: Vec<&'static str>,
    linux: Linux,
    annotations: BTreeMap<&'static str, &'static str>,
}

#[derive(Clone, Debug, Serialize)]
struct Linux {
    namespaces: &'static [&'static str],
    capabilities: &'static [&'static str],
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Seccomp {
    enabled: bool,
    actions: &'static [&'static str],
    operators: &'static [&'static str],
    archs: Vec<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

/// What the built-in runtime can do.
pub fn built_in() -> Features {
    Features {
        oci_version_min: SPEC_VERSIONS[0],
        oci_version_max: SPEC_VERSIONS[1],
        hooks: &[],
        mount_options: MOUNT_OPTIONS.to_vec(),
        linux: Linux {
            namespaces: &["cgroup", "ipc", "mount", "network", "pid", "time", "uts"],
            capabilities: &model::capability::ALL,
            cgroup: Cgroup { v1: true, v2: true, systemd: false, systemd_user: false },
            seccomp: Seccomp {
                enabled: true,
                actions: &seccomp::ACTIONS,
                operators: &seccomp::OPERATORS,
                archs: seccomp::architectures(),
            },
            apparmor: Enabled { enabled: true },
            selinux: Enabled { enabled: false },
        },
        annotations: BTreeMap::from([("org.opencontainers.runc.checkpoint.enabled", "false")]),
    }
}

/// What the runtime program at `path` says of itself, in one line; `None` of one that does not know the command, says no JSON
/// object or takes longer than [`PATIENCE`].
pub fn of_program(_on: &Blocking, path: &str, args: &[String]) -> Option<String> {
    let mut command = Command::new(path);
    command.args(args).arg("features").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).ok();
    let in_time = pidfd.is_some_and(|pidfd| ended(pidfd.as_fd(), PATIENCE));
    if !in_time {
        drop(child.kill());
    }
    let status = child.wait().ok().filter(|status| in_time && status.success());
    // What it leaves running may keep the pipe open: only what is there is read.
    let mut output = child.stdout.take()?;
    rustix::io::ioctl_fionbio(&output, true).ok()?;
    status?;
    let mut text = vec![0; MAX_TEXT];
    let length = output.read(&mut text).ok()?;
    let document: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text[..length]).ok()?;
    serde_json::to_string(&document).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_runtime_tells_what_it_can() {
        let document = serde_json::to_value(built_in()).unwrap();
        assert_eq!(document["ociVersionMax"], "1.2.0");
        assert_eq!(document["linux"]["cgroup"]["v2"], true);
        assert!(document["mountOptions"].as_array().unwrap().contains(&"rro".into()));
        assert!(document["linux"]["seccomp"]["archs"].as_array().unwrap().contains(&"SCMP_ARCH_X86_64".into()));
    }

    #[test]
    fn programs_are_asked_within_bounds() {
        let sh = |script: &str| of_program(&Blocking::alone(), "/bin/sh", &["-c".into(), script.into()]);
        assert_eq!(sh("echo '{ \"a\": [1] }'"), Some(r#"{"a":[1]}"#.into()));
        assert_eq!(sh("echo '{}'; (sleep 100 & echo $! >&2)"), Some("{}".into()), "a descendant keeps the pipe");
        for script in ["exit 1", "echo no", "echo '[]'", "yes '{}'"] {
            assert_eq!(sh(script), None, "{script}");
        }
        assert_eq!(of_program(&Blocking::alone(), "/nosuch", &[]), None);
    }
}
