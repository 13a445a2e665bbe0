//! Descriptions of build caches.

use build::cache::Config;

/// A description is refused, or is the same when it is written and read again, and every result has layers that are there.
pub fn cache_description(bytes: &[u8]) {
    let Ok(config) = Config::read(bytes) else { return };
    let written = serde_json::to_vec(&config).unwrap_or_else(|error| panic!("{error}"));
    let again = Config::read(&written).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config, again);
    for (_, chains) in config.results() {
        assert!(chains.iter().flatten().all(|layer| *layer < config.count()));
    }
}
