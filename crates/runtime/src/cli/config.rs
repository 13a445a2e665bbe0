//! The specification as command-line runtimes understand it.

use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::oci::{Namespace, NamespaceKind, Resources, Spec};
use crate::process::path_of;

/// The oldest version that has the fields in use: runtimes refuse versions that are newer than themselves.
const VERSION: &str = "1.0.2";

/// The root's path, the prepared network namespace, and nothing that only the built-in runtime knows.
pub(super) fn adapt(spec: &Spec, root: &Path, netns: Option<BorrowedFd<'_>>) -> Spec {
    let mut spec = spec.clone();
    spec.oci_version = VERSION.to_owned();
    spec.root.path = root.to_string_lossy().into_owned();
    let namespaces = &mut spec.linux.namespaces;
    // A time namespace without offsets has no effect, and runtimes before 2024 refuse it.
    namespaces.retain(|n| n.kind != NamespaceKind::Time || n.path.is_some());
    if let Some(netns) = netns {
        namespaces.retain(|n| n.kind != NamespaceKind::Network);
        namespaces.push(Namespace { kind: NamespaceKind::Network, path: Some(path_of(netns)) });
    }
    spec
}

/// Limits for `update`; device rules are not changed by it.
pub(super) fn resources(resources: &Resources) -> Vec<u8> {
    let mut spec = Spec::default();
    spec.linux.resources = Resources { devices: Vec::new(), ..resources.clone() };
    let mut value: serde_json::Value = serde_json::from_slice(&spec.to_json()).expect("the specification is JSON");
    let limits = value.pointer_mut("/linux/resources").map(serde_json::Value::take);
    limits.unwrap_or_else(|| serde_json::json!({})).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::oci::Memory;

    #[test]
    fn namespaces() {
        let mut spec = Spec::default();
        let new = |kind| Namespace { kind, path: None };
        spec.linux.namespaces = [NamespaceKind::Mount, NamespaceKind::Network, NamespaceKind::Time].map(new).to_vec();
        let kinds = |s: &Spec| s.linux.namespaces.iter().map(|n| n.kind).collect::<Vec<_>>();
        let plain = adapt(&spec, Path::new("/r"), None);
        assert_eq!(kinds(&plain), [NamespaceKind::Mount, NamespaceKind::Network]);
        assert_eq!(plain.root.path, "/r");
        let prepared = adapt(&spec, Path::new("/r"), Some(std::io::stderr().as_fd()));
        let path = prepared.linux.namespaces[1].path.as_deref();
        assert_eq!(path, Some(format!("/proc/{}/fd/2", std::process::id()).as_str()));
    }

    #[test]
    fn limits() {
        let memory = Some(Memory { limit: Some(1 << 20), ..Memory::default() });
        let text = resources(&Resources { memory, ..Resources::default() });
        assert_eq!(String::from_utf8(text).unwrap(), r#"{"memory":{"limit":1048576}}"#);
        assert_eq!(resources(&Resources::default()), b"{}");
    }
}
