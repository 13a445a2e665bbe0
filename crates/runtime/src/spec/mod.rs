//! From Docker's options to an OCI specification.
//!
//! [`build`] is pure: the same container on the same host gives the same specification, byte for byte, in the order the
//! reference writes it; `tests/golden` holds one specification per option. Reading the host happens in [`host`] only.

pub mod host;
pub mod input;

pub use host::{HostFacts, source_mount};
pub use input::*;

use crate::oci;

/// Where `--init` puts the init program in the container.
pub const INIT_PATH: &str = "/sbin/docker-init";

/// The container's specification.
pub fn build(container: &ContainerSpec, host: &HostFacts) -> model::Result<oci::Spec> {
    let _ = (container, host);
    todo!()
}

/// The variables of a container's process: defaults (`PATH`, `HOSTNAME`, `TERM` with a terminal), then those of links,
/// replaced or extended by `env`.
pub fn environment(hostname: &str, terminal: bool, link_env: &[String], env: &[String]) -> Vec<String> {
    let _ = (hostname, terminal, link_env, env);
    todo!()
}

/// The cgroup limits alone, for `update`.
pub fn resources(limits: &Resources) -> model::Result<oci::Resources> {
    let _ = limits;
    todo!()
}
