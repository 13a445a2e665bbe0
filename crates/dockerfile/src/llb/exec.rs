//! Commands and what is mounted for them.

use bollard_buildkit_proto::pb;

use super::input::{Inputs, NOTHING, Output};

/// A command.
#[derive(Clone, Debug, Default)]
pub struct Exec {
    /// Words, environment, directory, user and so on.
    pub meta: pb::Meta,
    /// Of BuildKit's numbers.
    pub network: i32,
    /// Of BuildKit's numbers.
    pub security: i32,
    /// Secrets in variables.
    pub secrets: Vec<pb::SecretEnv>,
    /// Devices.
    pub devices: Vec<pb::CdiDevice>,
    /// Its root first; in the order of their places when encoded.
    pub mounts: Vec<ExecMount>,
}

/// A mount.
#[derive(Clone, Debug, Default)]
pub struct ExecMount {
    /// Where from; `None`: an empty file system, or nothing that has files.
    pub input: Option<Output>,
    /// A path in it; empty: its root.
    pub selector: String,
    /// Where it is.
    pub target: String,
    /// Whether it cannot be written to.
    pub readonly: bool,
    /// Whether what is written to it is a result.
    pub kept: bool,
    /// What holds the files.
    pub holder: Holder,
}

/// What holds the files of a mount.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Holder {
    /// The input.
    #[default]
    Input,
    /// A directory that outlives the build.
    Cache(CacheMount),
    /// Memory, at most so many bytes; 0: no limit of its own.
    Memory(i64),
    /// The client.
    Secret(SecretMount),
    /// The client's agent.
    Ssh(SshMount),
}

/// A directory that outlives the build.
pub type CacheMount = pb::CacheOpt;
/// A secret as a file.
pub type SecretMount = pb::SecretOpt;
/// A socket of the client's agent.
pub type SshMount = pb::SshOpt;

/// The operation: mounts with files in the order of their places, then secrets, then agents.
pub(super) fn encoded(exec: &Exec, inputs: &mut Inputs<'_>) -> pb::ExecOp {
    let mut mounts: Vec<&ExecMount> = exec.mounts.iter().collect();
    let rank = |mount: &ExecMount| match mount.holder {
        Holder::Secret(_) => 1,
        Holder::Ssh(_) => 2,
        _ => 0,
    };
    // Secrets and agents stay in the order in which they were asked for.
    mounts.sort_by(|a, b| match (rank(a), rank(b)) {
        (0, 0) => a.target.cmp(&b.target),
        (a, b) => a.cmp(&b),
    });
    let mut outputs = 0;
    let mounts = mounts.into_iter().map(|mount| {
        let mut form = pb::Mount {
            input: inputs.index(mount.input),
            selector: mount.selector.clone(),
            dest: mount.target.clone(),
            readonly: mount.readonly,
            output: NOTHING,
            ..pb::Mount::default()
        };
        if mount.kept {
            form.output = outputs;
            outputs += 1;
        }
        match &mount.holder {
            Holder::Input => {}
            Holder::Cache(cache) => {
                form.mount_type = pb::MountType::Cache.into();
                form.cache_opt = Some(cache.clone());
            }
            Holder::Memory(size) => {
                form.mount_type = pb::MountType::Tmpfs.into();
                form.tmpfs_opt = Some(pb::TmpfsOpt { size: *size });
            }
            Holder::Secret(secret) => {
                form.mount_type = pb::MountType::Secret.into();
                // The output of those two is the first number, as BuildKit leaves it.
                form.output = 0;
                form.secret_opt = Some(secret.clone());
            }
            Holder::Ssh(ssh) => {
                form.mount_type = pb::MountType::Ssh.into();
                form.output = 0;
                form.ssh_opt = Some(ssh.clone());
            }
        }
        form
    });
    let mounts = mounts.collect();
    pb::ExecOp {
        meta: Some(exec.meta.clone()),
        mounts,
        network: exec.network,
        security: exec.security,
        secretenv: exec.secrets.clone(),
        cdi_devices: exec.devices.clone(),
    }
}
