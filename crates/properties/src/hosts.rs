//! `hosts.toml` of registries.

use registry::hosts_toml::{self, FILE_BYTES};

/// A file is refused in a bounded text, or every host of it is an address that requests can be sent to.
pub fn hosts_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if text.len() as u64 > FILE_BYTES {
        return;
    }
    let Ok(hosts) = hosts_toml::parse(text) else { return };
    assert!((1..=65).contains(&hosts.len()), "{} hosts", hosts.len());
    for root in hosts.iter().filter_map(|host| host.root.as_ref()) {
        let written = root.to_string();
        let again = registry::url::Url::parse(&written).unwrap_or_else(|error| panic!("{written:?}: {error}"));
        assert!(again.same_origin(root), "{written:?} is another origin when it is read again");
        assert!(!written.contains(['\r', '\n', ' ']), "{written:?}");
    }
}
