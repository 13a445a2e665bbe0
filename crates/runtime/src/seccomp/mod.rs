//! System call filters: Docker's profiles, the default one, and their translation to BPF.
//!
//! Three pure steps. A [`Profile`] (Docker's JSON) is *resolved* against what the container was granted, the machine and its
//! kernel to the OCI form; that form is what command-line runtimes get. For the built-in runtime it is *compiled* to a BPF
//! program, which the caller may cache: equal input gives equal bytes. docs/design/0002-seccomp-compiler.md tells why this
//! is not libseccomp.

mod arch;
mod profile;

pub use arch::Arch;
pub use profile::{ArchMap, Filter, Profile, Rule};

use crate::oci;

/// Instructions that the kernel accepts in one program.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// The built-in profile.
pub fn default_profile() -> Profile {
    todo!()
}

/// The profile's rules that hold for a container with these capabilities (bounding set) on this machine; `None` = the
/// profile asks for no filter at all.
pub fn resolve(
    profile: &Profile,
    capabilities: &[String],
    arch: Arch,
    kernel: (u32, u32),
) -> model::Result<Option<oci::Seccomp>> {
    let _ = (profile, capabilities, arch, kernel);
    todo!()
}

/// The BPF program (`struct sock_filter` array) for a machine of the architecture `native`.
pub fn compile(filter: &oci::Seccomp, native: Arch) -> model::Result<Vec<u8>> {
    let _ = (filter, native);
    todo!()
}

/// The `SECCOMP_FILTER_FLAG_…` bits that the filter asks for.
pub fn flags(filter: &oci::Seccomp) -> model::Result<u32> {
    let _ = filter;
    todo!()
}
