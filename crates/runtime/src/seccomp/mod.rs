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

pub use arch::Arch;
pub use default::default_profile;
pub use profile::{ArchMap, Filter, Profile, Rule};

use crate::oci;

/// Instructions that the kernel accepts in one program.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// `SECCOMP_FILTER_FLAG_…` of linux/seccomp.h that a profile may ask for.
const FLAG_LOG: u32 = 1 << 1;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;

/// The profile's rules that hold for a container with these capabilities (bounding set) on this machine; `None` = the
/// profile asks for no filter at all.
pub fn resolve(
    profile: &Profile,
    capabilities: &[String],
    arch: Arch,
    kernel: (u32, u32),
) -> model::Result<Option<oci::Seccomp>> {
    if profile.default_action.is_empty() && profile.syscalls.is_empty() {
        return Ok(None);
    }
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
    Ok(Some(oci::Seccomp {
        default_action: profile.default_action.clone(),
        default_errno_ret: profile.default_errno_ret,
        architectures,
        flags: profile.flags.clone(),
        listener_path: profile.listener_path.clone(),
        listener_metadata: profile.listener_metadata.clone(),
        syscalls,
    }))
}

fn exclusive(a: &str, b: &str) -> model::Error {
    model::Error::invalid(format!(
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
        let Some(text) = filter.min_kernel.as_deref().filter(|t| !t.is_empty()) else { return Ok(None) };
        let number = |part: &str| part.parse::<u8>().ok().map(u32::from);
        let version = text.split_once('.').and_then(|(k, m)| Some((number(k)?, number(m)?)));
        let version = version.filter(|v| *v != (0, 0)).ok_or_else(|| {
            let text = format!("invalid kernel version: \"{text}\", expected \"<kernel>.<major>\"");
            model::Error::invalid(format!("Decoding seccomp profile failed: {text}"))
        })?;
        Ok(Some(self.kernel >= version))
    }
}

/// The BPF program (`struct sock_filter` array) for a machine of the architecture `native`.
pub fn compile(filter: &oci::Seccomp, native: Arch) -> model::Result<Vec<u8>> {
    Ok(bpf::encode(&compile::program(filter, native)?))
}

/// The `SECCOMP_FILTER_FLAG_…` bits that the filter asks for.
pub fn flags(filter: &oci::Seccomp) -> model::Result<u32> {
    filter.flags.iter().try_fold(0, |bits, flag| {
        Ok(bits
            | match flag.as_str() {
                // All threads of a process that is about to execve: there is one.
                "SECCOMP_FILTER_FLAG_TSYNC" => 0,
                "SECCOMP_FILTER_FLAG_LOG" => FLAG_LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => FLAG_SPEC_ALLOW,
                other => return Err(model::Error::invalid(format!("seccomp flag {other} is not known"))),
            })
    })
}
