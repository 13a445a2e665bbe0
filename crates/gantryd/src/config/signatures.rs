//! `signature-policy`: rules by registry become a policy with its keys read.
//!
//! A key that cannot be read or understood is an error of the configuration that names the file: a daemon that went on
//! without it would refuse images for no reason that anybody could see.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use signature::{Policy, PublicKey, Rule};

use super::file::errno_text;

/// Longest file of a key.
const KEY_BYTES: u64 = 64 << 10;

/// Reads the keys.
pub fn policy(rules: &BTreeMap<String, Vec<PathBuf>>) -> Result<Policy, String> {
    let named = |why: String| format!("invalid signature-policy: {why}");
    let rule = |(scope, files): (&String, &Vec<PathBuf>)| {
        let keys = files.iter().map(|file| key(file)).collect::<Result<_, _>>()?;
        Rule::new(scope, keys).map_err(|e| e.message().to_owned())
    };
    let rules = rules.iter().map(rule).collect::<Result<_, String>>().map_err(named)?;
    Policy::new(rules).map_err(|e| named(e.message().to_owned()))
}

fn key(path: &Path) -> Result<PublicKey, String> {
    let mut pem = Vec::new();
    let read = File::open(path).and_then(|file| file.take(KEY_BYTES).read_to_end(&mut pem));
    read.map_err(|e| format!("open {}: {}", path.display(), errno_text(&e)))?;
    PublicKey::from_pem(&pem).map_err(|e| format!("{}: {}", path.display(), e.message()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Env, Loaded, Program, load, reload};

    const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEABaV5T9d739Isl9FNz7DdtS3V7c3SMewkSOaYwOVKAoc=\n-----END PUBLIC KEY-----\n";

    struct Place(tempfile::TempDir);

    impl Place {
        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// Loads a configuration; `DIR` in it is this directory.
        fn load(&self, json: &str) -> Result<Loaded, String> {
            self.write(json);
            let file = format!("--config-file={}", self.path("daemon.json").display());
            load(Program { name: "gantryd", commands: "" }, &[file], &Env::new()).map_err(|exit| exit.stderr)
        }

        fn write(&self, json: &str) {
            let json = json.replace("DIR", &self.0.path().display().to_string());
            std::fs::write(self.path("daemon.json"), json).unwrap();
        }

        fn error(&self, json: &str) -> String {
            let error = self.load(json).unwrap_err();
            error.replace(&self.0.path().display().to_string(), "DIR")
        }
    }

    fn place() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        std::fs::write(place.path("a.pub"), KEY).unwrap();
        place
    }

    fn governed(config: &Config, name: &str) -> usize {
        let name = model::reference::ImageRef::parse_normalized(name).unwrap();
        config.signatures.policy.rule(&name).map_or(0, |rule| rule.keys().len())
    }

    #[test]
    fn rules_are_read_with_their_keys() {
        let json = r#"{"signature-policy": {"r.test": {"keys": ["DIR/a.pub"]}, "r.test/t": {"keys": ["DIR/a.pub", "DIR/a.pub"]}}}"#;
        let config = place().load(json).unwrap().config;
        assert_eq!((governed(&config, "r.test/x"), governed(&config, "r.test/t/x"), governed(&config, "x")), (1, 2, 0));
        assert!(place().load("{}").unwrap().config.signatures.policy.is_empty());
    }

    #[test]
    fn a_fault_names_its_file_or_rule() {
        let place = place();
        let one = |rule: &str| place.error(&format!(r#"{{"signature-policy": {{"r.test": {rule}}}}}"#));
        assert_eq!(
            one(r#"{"keys": ["DIR/none.pub"]}"#),
            "invalid signature-policy: open DIR/none.pub: no such file or directory"
        );
        assert_eq!(
            one(r#"{"keys": ["DIR/daemon.json"]}"#),
            "invalid signature-policy: DIR/daemon.json: not a public key: it has no line \"-----BEGIN PUBLIC KEY-----\""
        );
        assert_eq!(one("{}"), "invalid signature-policy: \"r.test\" has 0 keys; it must have 1 to 100");
        assert!(one(r#"{"key": []}"#).ends_with("signature-policy: unknown field \"key\""));
        assert!(one(r#"["DIR/a.pub"]"#).contains("cannot unmarshal array"));
        assert_eq!(
            place.error(r#"{"signature-policy": {"team": {"keys": ["DIR/a.pub"]}}}"#),
            "invalid signature-policy: \"team\" is no registry and no repository of one"
        );
    }

    #[test]
    fn a_reload_takes_all_or_nothing() {
        let place = place();
        let loaded = place.load("{}").unwrap();
        let with = r#"{"signature-policy": {"r.test": {"keys": ["DIR/a.pub"]}}}"#;
        place.write(with);
        let config = reload(&loaded, &loaded.config).unwrap().config;
        assert_eq!(governed(&config, "r.test/x"), 1);
        std::fs::write(place.path("a.pub"), "").unwrap();
        assert!(reload(&loaded, &config).unwrap_err().contains("a.pub: not a public key"));
        place.write("{}");
        assert!(reload(&loaded, &config).unwrap().config.signatures.policy.is_empty());
    }
}
