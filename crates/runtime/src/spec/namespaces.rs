//! Which namespaces the container gets, in the reference's order.

use super::HostFeatures;
use super::input::{Namespaces, Share};
use crate::oci::{Namespace, NamespaceKind, PASSED};

pub(super) fn list(namespaces: &Namespaces, host: &HostFeatures) -> Vec<Namespace> {
    use NamespaceKind::{Cgroup, Ipc, Mount, Network, Pid, Time, User, Uts};
    let new = |kind| Some(Namespace { kind, path: None });
    let shared = |kind, share: &Share| match share {
        Share::New => new(kind),
        Share::Host => None,
        Share::Join => Some(Namespace { kind, path: Some(PASSED.to_owned()) }),
    };
    [
        new(Mount),
        shared(Network, &namespaces.network),
        new(Time).filter(|_| host.time_namespaces),
        shared(Uts, &namespaces.uts),
        shared(Pid, &namespaces.pid),
        shared(Ipc, &namespaces.ipc),
        namespaces.user.as_ref().map(|_| Namespace { kind: User, path: donor(namespaces) }),
        shared(Cgroup, &namespaces.cgroup),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A remapped container that joins a namespace of another must also join the user namespace that owns it.
fn donor(namespaces: &Namespaces) -> Option<String> {
    let shares = [&namespaces.pid, &namespaces.ipc, &namespaces.network];
    shares.contains(&&Share::Join).then(|| PASSED.to_owned())
}
