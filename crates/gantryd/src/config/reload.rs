//! SIGHUP: the file is read again and the reloadable options are taken from it, all or nothing.
//!
//! - Everything is checked before anything is taken: an error leaves the caller with the configuration it has.
//! - The event's attributes list every reloadable value, changed or not, as the reference does.

use super::load::{self, Merged, Occasion};
use super::options::{Reload, TABLE};
use super::{Config, Loaded, flags, go, parse, validate};

/// The outcome of a reload.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// The new configuration; everything not reloadable is as before.
    pub config: Config,
    /// Attributes of the `daemon reload` event: all reloadable values, by name.
    pub attributes: Vec<(String, String)>,
    /// Sentences for the daemon's log.
    pub warnings: Vec<String>,
}

/// Reads the sources of `loaded` again on top of `current`. An error leaves everything as it was.
pub fn reload(loaded: &Loaded, current: &Config) -> Result<Reloaded, String> {
    let (line, scratch) = flags::scan(&loaded.source.args)?;
    let Merged { config: mut fresh, warnings, file } =
        load::merge(&line, &scratch, &loaded.source.env, Occasion::Reload)?;
    load::refuse_unread(&line, &file, &fresh)?;
    let mut config = current.clone();
    let mut default = Config::default();
    for row in TABLE {
        let given = file.sets(row);
        let flag = !row.flag.is_empty() && line.has(row.flag);
        match row.reload {
            Reload::Keep if given => parse::copy(&row.slot, &mut fresh, &mut config),
            Reload::Reset if given || flag => parse::copy(&row.slot, &mut fresh, &mut config),
            Reload::Reset => parse::copy(&row.slot, &mut default, &mut config),
            Reload::Keep | Reload::No => {}
        }
    }
    validate::settings(&config)?;
    Ok(Reloaded { attributes: attributes(&config), config, warnings })
}

/// Attributes of the `daemon reload` event.
#[must_use]
pub fn attributes(config: &Config) -> Vec<(String, String)> {
    let containers = &config.containers;
    let registry = &config.registry;
    let json = |list: &[String]| serde_json::to_string(list).expect("strings always encode");
    let runtimes: Vec<String> =
        containers.runtimes.iter().map(|(name, entry)| format!("{name}:{}", entry.path)).collect();
    let features = go::print_map(config.engine.features.iter().map(|(k, v)| (k.clone(), v.to_string())));
    let pairs = [
        ("debug", config.daemon_log.debug.to_string()),
        ("default-cgroupns-mode", containers.cgroupns_mode.clone()),
        ("default-ipc-mode", containers.ipc_mode.clone()),
        ("default-runtime", containers.default_runtime.clone()),
        ("default-shm-size", containers.shm_size.to_string()),
        ("default-stop-timeout", containers.stop_timeout.to_string()),
        ("features", features),
        ("insecure-registries", json(&registry.insecure)),
        ("labels", json(&config.engine.labels)),
        ("live-restore", config.engine.live_restore.to_string()),
        ("max-concurrent-downloads", registry.max_concurrent_downloads.to_string()),
        ("max-concurrent-uploads", registry.max_concurrent_uploads.to_string()),
        ("max-download-attempts", registry.max_download_attempts.to_string()),
        ("registry-mirrors", json(&registry.mirrors)),
        ("runtimes", runtimes.join(" ")),
        ("shutdown-timeout", config.engine.shutdown_timeout.to_string()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Env, Program, load};

    struct Bench {
        dir: tempfile::TempDir,
        loaded: Loaded,
    }

    fn start(json: &str, words: &str) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.json");
        std::fs::write(&path, json).unwrap();
        let mut args: Vec<String> = words.split_whitespace().map(String::from).collect();
        args.push(format!("--config-file={}", path.display()));
        Bench { loaded: load(Program { name: "gantryd", commands: "" }, &args, &Env::new()).unwrap(), dir }
    }

    impl Bench {
        fn rewrite(&self, json: &str) -> Result<Reloaded, String> {
            std::fs::write(self.dir.path().join("daemon.json"), json).unwrap();
            reload(&self.loaded, &self.loaded.config)
        }
    }

    #[test]
    fn reloadable_options_change_and_others_stay() {
        let bench = start(r#"{"debug": false, "mtu": 1400}"#, "");
        let new = bench.rewrite(r#"{"debug": true, "mtu": 1300, "labels": ["a=1"], "shutdown-timeout": 7}"#).unwrap();
        assert!(new.config.daemon_log.debug);
        assert_eq!(new.config.bridge.mtu, 1400);
        assert_eq!(new.config.engine.shutdown_timeout, 7);
        assert!(new.attributes.contains(&("labels".into(), r#"["a=1"]"#.into())));
        assert!(new.attributes.contains(&("debug".into(), "true".into())));
    }

    #[test]
    fn absent_options_stay_or_go_back() {
        let bench = start(r#"{"shutdown-timeout": 7, "max-concurrent-downloads": 9, "features": {"x": true}}"#, "");
        let new = bench.rewrite("{}").unwrap().config;
        assert_eq!(new.engine.shutdown_timeout, 7);
        assert_eq!(new.registry.max_concurrent_downloads, 3);
        assert!(new.engine.features.is_empty());
    }

    #[test]
    fn one_bad_value_changes_nothing() {
        let bench = start(r#"{"debug": false}"#, "");
        assert!(bench.rewrite(r#"{"debug": true, "shutdown-timeout": "x"}"#).is_err());
        assert!(
            bench
                .rewrite(r#"{"debug": true, "nope": 1}"#)
                .unwrap_err()
                .contains("don't match any configuration option: nope")
        );
        let refused = |json: &str| bench.rewrite(json).unwrap_err();
        assert_eq!(
            refused(r#"{"debug": true, "default-runtime": "zz"}"#),
            "specified default runtime 'zz' does not exist"
        );
        assert_eq!(
            refused(r#"{"debug": true, "log-level": "loud"}"#),
            "file configuration validation failed: invalid logging level: loud"
        );
    }

    #[test]
    fn what_protects_and_is_not_there_is_refused_while_running() {
        let bench = start("{}", "");
        for json in [
            r#"{"debug": true, "authorization-plugins": ["opa"]}"#,
            r#"{"debug": true, "userns-remap": "default"}"#,
            r#"{"debug": true, "selinux-enabled": true}"#,
            r#"{"debug": true, "nri-opts": {"enable": true}}"#,
        ] {
            let why = bench.rewrite(json).unwrap_err();
            assert!(why.contains("is not supported: if it were ignored, "), "{why}");
        }
        assert!(bench.rewrite(r#"{"authorization-plugins": []}"#).is_ok());
    }

    #[test]
    fn flags_still_conflict() {
        let bench = start("{}", "--debug");
        assert!(
            bench.rewrite(r#"{"debug": false}"#).unwrap_err().contains("both as a flag and in the configuration file")
        );
    }
}
