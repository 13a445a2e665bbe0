//! The default AppArmor profile, on kernels that have AppArmor.
//!
//! The kernel takes compiled profiles only, and the compiler is AppArmor's own program: it is run once, at boot, and only
//! if no profile of that name is loaded. Where it is missing, containers run without a profile and the log says so.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

/// The profile of containers that name none.
pub const DEFAULT_PROFILE: &str = "docker-default";

/// apparmor.d(5). Containers may do what their capabilities and namespaces allow, but not mount, not write to the
/// kernel's own files, and exchange signals with each other's kind only.
const SOURCE: &str = "\
profile docker-default flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,
  unix,
  signal (receive) peer=unconfined,
  signal (send, receive) peer=docker-default,
  ptrace (trace, read, tracedby, readby) peer=docker-default,

  deny mount,
  deny /proc/* w,
  deny /proc/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/{?,??,[^s][^h][^m]**} w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
";

/// Whether the kernel confines by AppArmor.
pub fn is_enabled() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// Loads the default profile unless it is there; whether it can be used.
pub fn load_default() -> bool {
    if !is_enabled() {
        return false;
    }
    if is_loaded() {
        return true;
    }
    let loaded = compile_and_load();
    if let Err(error) = &loaded {
        tracing::warn!(%error, "AppArmor is enabled but its default profile cannot be loaded: containers run without one");
    }
    loaded.is_ok() && is_loaded()
}

/// Lines of `name (mode)`.
fn is_loaded() -> bool {
    let profiles = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    profiles.lines().any(|line| line.strip_prefix(DEFAULT_PROFILE).is_some_and(|rest| rest.starts_with(" (")))
}

fn compile_and_load() -> std::io::Result<()> {
    let mut parser = Command::new("apparmor_parser")
        .args(["--skip-cache", "--replace"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = parser.stdin.take() {
        input.write_all(SOURCE.as_bytes())?;
    }
    let done = parser.wait_with_output()?;
    match done.status.success() {
        true => Ok(()),
        false => Err(std::io::Error::other(String::from_utf8_lossy(&done.stderr).trim().to_string())),
    }
}
