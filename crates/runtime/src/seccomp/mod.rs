//! System call filters: Docker's profiles, the default one, and their translation to BPF.
//!
//! Three pure steps. A [`Profile`] (Docker's JSON) is *resolved* against what the container was granted, the machine and its
//! kernel to the OCI form; that form is what command-line runtimes get. For the built-in runtime it is *compiled* to a BPF
//! program, which the caller may cache: equal input gives equal bytes. docs/design/0002-seccomp-compiler.md tells why this
//! is not libseccomp.

mod arch;
mod bpf;
mod compile;
mod default;
mod profile;
mod table;
#[cfg(test)]
mod tests;
mod width;

pub use arch::Arch;
pub use default::default_profile;
pub use profile::{ArchMap, Filter, MAX_PROFILE, Profile, Rule};

use serde::{Deserialize, Serialize};

use crate::oci;

/// Instructions that the kernel accepts in one program.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Actions that [`compile`](fn@compile) takes, sorted.
pub const ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// Comparisons of arguments, sorted.
pub const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];

/// Architectures whose calls are filtered, by libseccomp's names, sorted.
pub fn architectures() -> Vec<&'static str> {
    let mut names: Vec<_> = Arch::ALL.iter().map(|arch| arch.name()).collect();
    names.sort_unstable();
    names
}

/// The action that lets a call pass.
const ALLOW: &str = "SCMP_ACT_ALLOW";

/// A filter in the form that the kernel takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// `struct sock_filter` array, native endian, 8 bytes an instruction. Empty = unconfined.
    pub instructions: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_…` bits of seccomp(2).
    pub flags: u32,
}

/// The profile's rules that hold for a container with these capabilities (bounding set) on this machine.
pub fn resolve(
    profile: &Profile,
    capabilities: &[String],
    arch: Arch,
    kernel: (u32, u32),
) -> model::Result<oci::Seccomp> {
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(exclusive("architectures", "archMap"));
    }
    let host = Host { capabilities, arch, kernel };
    let mut syscalls = Vec::with_capacity(profile.syscalls.len());
    for rule in &profile.syscalls {
        if !rule.name.is_empty() && !rule.names.is_empty() {
            return Err(exclusive("name", "names"));
        }
        let excluded = rule.excludes.as_ref().map_or(Ok(false), |f| host.excluded_by(f))?;
        if excluded || !rule.includes.as_ref().map_or(Ok(true), |f| host.included_by(f))? {
            continue;
        }
        syscalls.push(oci::SeccompSyscall {
            names: if rule.name.is_empty() { rule.names.clone() } else { vec![rule.name.clone()] },
            action: rule.action.clone(),
            errno_ret: rule.errno_ret,
            args: rule.args.clone(),
        });
    }
    let mut architectures = profile.architectures.clone();
    if let Some(map) = profile.arch_map.iter().find(|m| m.architecture == arch.name()) {
        architectures.push(map.architecture.clone());
        architectures.extend(map.sub_architectures.iter().cloned());
    }
    Ok(oci::Seccomp {
        default_action: profile.default_action.clone(),
        default_errno_ret: profile.default_errno_ret,
        architectures,
        flags: profile.flags.clone(),
        listener_path: profile.listener_path.clone(),
        listener_metadata: profile.listener_metadata.clone(),
        syscalls,
    })
}

fn exclusive(a: &str, b: &str) -> model::Error {
    model::Error::system(format!(
        "both '{a}' and '{b}' are specified in the seccomp profile, use either '{a}' or '{b}'"
    ))
}

/// What conditions of rules are held against.
struct Host<'a> {
    capabilities: &'a [String],
    arch: Arch,
    kernel: (u32, u32),
}

impl Host<'_> {
    fn included_by(&self, filter: &Filter) -> model::Result<bool> {
        let arches = filter.arches.is_empty() || self.arch_in(&filter.arches);
        let caps = filter.caps.iter().all(|c| self.capabilities.contains(c));
        Ok(arches && caps && self.kernel_at_least(filter)?.unwrap_or(true))
    }

    fn excluded_by(&self, filter: &Filter) -> model::Result<bool> {
        let caps = filter.caps.iter().any(|c| self.capabilities.contains(c));
        Ok(self.arch_in(&filter.arches) || caps || self.kernel_at_least(filter)?.unwrap_or(false))
    }

    fn arch_in(&self, arches: &[String]) -> bool {
        arches.iter().any(|a| a == self.arch.profile_word())
    }

    fn kernel_at_least(&self, filter: &Filter) -> model::Result<Option<bool>> {
        let Some(text) = &filter.min_kernel else { return Ok(None) };
        let version = profile::kernel_version(text)
            .map_err(|why| model::Error::system(format!("Decoding seccomp profile failed: {why}")))?;
        Ok(Some(version.is_none_or(|version| self.kernel >= version)))
    }
}

/// The filter's program for a machine of the architecture `native`.
pub fn compile(filter: &oci::Seccomp, native: Arch) -> model::Result<Program> {
    Ok(Program { flags: flags(&filter.flags)?, instructions: bpf::encode(&compile::program(filter, native)?) })
}

/// The bits that a filter's flags stand for. One that names none leaves speculation as it is, as in the reference.
fn flags(names: &[String]) -> model::Result<u32> {
    if names.is_empty() {
        return Ok(sys::seccomp::FLAG_SPEC_ALLOW);
    }
    names.iter().try_fold(0, |bits, flag| {
        Ok(bits
            | match flag.as_str() {
                // All threads of a process that is about to execve: there is one.
                "SECCOMP_FILTER_FLAG_TSYNC" => 0,
                "SECCOMP_FILTER_FLAG_LOG" => sys::seccomp::FLAG_LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => sys::seccomp::FLAG_SPEC_ALLOW,
                // The kernel takes it together with a listener only, and there is none (compile::action).
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => {
                    let text = format!("seccomp flag {flag} needs a listener, and SCMP_ACT_NOTIFY an external runtime");
                    return Err(model::Error::not_implemented(text));
                }
                other => return Err(model::Error::invalid(format!("seccomp flag {other} is not known"))),
            })
    })
}
