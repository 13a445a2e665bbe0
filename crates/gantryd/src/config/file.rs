//! `daemon.json`: decoding, unknown keys, keys that are flags too, and writing the values into a [`Config`].
//!
//! - UTF-8 with or without a byte order mark, or UTF-16 with one; an empty file is an empty object.
//! - Objects other than the map-like options are flattened one level (`{"proxies": {"http-proxy": …}}`).
//! - A key spelled like a flag whose key differs (`host` for `hosts`) is let through without effect, as the reference does;
//!   here it earns a warning.

use std::path::Path;

use serde_json::{Map, Value};

use super::flags::CommandLine;
use super::options::{self, Row};
use super::{Config, go, parse};

/// Options whose value is an object of its own.
const MAP_KEYS: [&str; 12] = [
    "cluster-store-opts",
    "default-network-opts",
    "log-opts",
    "runtimes",
    "default-ulimits",
    "features",
    "builder",
    "nri-opts",
    "image-gc",
    "volume-alarms",
    "volume-snapshots",
    "signature-policy",
];
/// The one option that file and flags may both add to.
const SHARED_KEY: &str = "runtimes";
/// Old spelling of `host-gateway-ips`.
const OLD_GATEWAY_KEY: &str = "host-gateway-ip";
const GATEWAY_KEY: &str = "host-gateway-ips";

/// Why a file was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no such file.
    Missing(String),
    /// Anything else.
    Bad(String),
}

/// The keys that a file sets, flattened, in the file's order.
#[derive(Clone, Debug, Default)]
pub struct FileValues {
    values: Map<String, Value>,
}

impl FileValues {
    /// True when the file has the key.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// True when the file sets the option.
    #[must_use]
    pub fn sets(&self, row: &Row) -> bool {
        !row.key.is_empty() && (self.has(row.key) || (row.key == GATEWAY_KEY && self.has(OLD_GATEWAY_KEY)))
    }
}

/// Reads and checks a file against the command line (`flags` is defaults plus flags, for messages).
pub fn read(path: &Path, line: &CommandLine, flags: &Config) -> Result<FileValues, Fault> {
    let bytes = std::fs::read(path).map_err(|e| {
        let verb = if e.kind() == std::io::ErrorKind::IsADirectory { "read" } else { "open" };
        let text = format!("{verb} {}: {}", path.display(), errno_text(&e));
        if e.kind() == std::io::ErrorKind::NotFound { Fault::Missing(text) } else { Fault::Bad(text) }
    })?;
    let values = FileValues { values: flatten(decode(&bytes).map_err(Fault::Bad)?) };
    find_conflicts(&values, line, flags).map_err(Fault::Bad)?;
    Ok(values)
}

/// The kernel's text for an error, in lower case as Go prints it.
pub(super) fn errno_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn decode(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let text = decode_text(bytes)?;
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let document = gojson::Document::parse_whole(text.as_bytes()).map_err(|e| format!("invalid JSON: {e}"))?;
    match document.into_value() {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        other => Err(format!(
            "invalid JSON: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            go::json_kind(&other)
        )),
    }
}

fn decode_text(bytes: &[u8]) -> Result<String, String> {
    let utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = rest.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => Ok(utf16(rest, u16::from_le_bytes)),
        [0xfe, 0xff, rest @ ..] => Ok(utf16(rest, u16::from_be_bytes)),
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest),
        plain => utf8(plain),
    }
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        format!("failed to decode configuration JSON at offset {at}: encoding: invalid UTF-8")
    })
}

fn flatten(map: Map<String, Value>) -> Map<String, Value> {
    let mut flat = Map::new();
    for (key, value) in map {
        match value {
            // An object where an option wants something else is told of when the option is set.
            Value::Object(inner) if !MAP_KEYS.contains(&key.as_str()) && options::by_key(&key).is_none() => {
                flat.extend(inner);
            }
            other => {
                flat.insert(key, other);
            }
        }
    }
    flat
}

fn find_conflicts(file: &FileValues, line: &CommandLine, flags: &Config) -> Result<(), String> {
    let known = |key: &str| options::by_key(key).is_some() || options::by_flag(key).is_some();
    let mut unknown: Vec<&str> = file.values.keys().map(String::as_str).filter(|k| !known(k)).collect();
    if !unknown.is_empty() {
        unknown.sort_unstable();
        let list = unknown.join(", ");
        return Err(format!("the following directives don't match any configuration option: {list}"));
    }
    let mut faults = Vec::new();
    if file.has(OLD_GATEWAY_KEY) && file.has(GATEWAY_KEY) {
        faults.push(format!("{OLD_GATEWAY_KEY} and {GATEWAY_KEY} must not both be specified in the config file"));
    }
    let twice = given_twice(file, line, flags);
    if !twice.is_empty() {
        let list = twice.join(", ");
        faults.push(format!(
            "the following directives are specified both as a flag and in the configuration file: {list}"
        ));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

fn given_twice(file: &FileValues, line: &CommandLine, flags: &Config) -> Vec<String> {
    let mut rows: Vec<&'static Row> = Vec::new();
    for given in &line.given {
        if !given.row.key.is_empty() && !rows.iter().any(|r| std::ptr::eq(*r, given.row)) {
            rows.push(given.row);
        }
    }
    rows.sort_by_key(|r| r.flag);
    let mut found = Vec::new();
    for row in rows.into_iter().filter(|r| r.key != SHARED_KEY) {
        for key in [row.key, if row.key == GATEWAY_KEY { OLD_GATEWAY_KEY } else { "" }] {
            if let Some(value) = file.values.get(key) {
                let (flag, file) = (options::printed(row, flags), go::print_json(value));
                let (flag, file) = if key.ends_with("-proxy") && key != "userland-proxy" {
                    (mask_credentials(&flag), mask_credentials(&file))
                } else {
                    (flag, file)
                };
                found.push(format!("{key}: (from flag: {flag}, from file: {file})"));
            }
        }
    }
    found
}

/// Replaces user and password of a URL.
#[must_use]
pub fn mask_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_string() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://xxxxx:xxxxx{}", &rest[at..]),
        None => url.to_string(),
    }
}

/// Writes the file's values into `config`; returns warnings about keys that do nothing.
pub fn apply(file: &FileValues, config: &mut Config) -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    for (key, value) in &file.values {
        match options::by_key(key) {
            Some(row) => parse::set_from_json(&row.slot, config, key, value),
            None if key == OLD_GATEWAY_KEY => old_gateway(config, value),
            None => {
                warnings.push(match options::by_flag(key).filter(|row| !row.key.is_empty()) {
                    Some(row) => format!(
                        "the key \"{key}\" of the configuration file has no effect; it is spelled \"{}\"",
                        row.key
                    ),
                    None => format!("the key \"{key}\" of the configuration file has no effect"),
                });
                Ok(())
            }
        }
        .map_err(|why| format!("invalid JSON: {why}"))?;
    }
    Ok(warnings)
}

fn old_gateway(config: &mut Config, value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    if value.is_null() || value == "" {
        return Ok(());
    }
    let ip = text.parse().map_err(|_| format!("invalid IP address: {text}"))?;
    config.dns.host_gateway_ips = vec![ip];
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flags;

    fn load(json: &str, args: &[&str]) -> Result<Config, String> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let (line, scratch) = flags::scan(&args)?;
        let values = FileValues { values: flatten(decode(json.as_bytes())?) };
        find_conflicts(&values, &line, &scratch)?;
        let mut config = Config::default();
        apply(&values, &mut config)?;
        Ok(config)
    }

    #[test]
    fn unknown_keys_are_named() {
        assert_eq!(
            load(r#"{"zz": 1, "debug": true, "aa": 2}"#, &[]).unwrap_err(),
            "the following directives don't match any configuration option: aa, zz"
        );
    }

    #[test]
    fn a_key_given_twice_shows_both_values() {
        assert_eq!(
            load(r#"{"debug": true}"#, &["--debug=false"]).unwrap_err(),
            "the following directives are specified both as a flag and in the configuration file: debug: (from flag: false, from file: true)"
        );
        assert_eq!(
            load(r#"{"hosts": ["unix:///b"]}"#, &["-H", "unix:///a"]).unwrap_err(),
            "the following directives are specified both as a flag and in the configuration file: hosts: (from flag: [unix:///a], from file: [unix:///b])"
        );
        assert_eq!(
            load(r#"{"labels": ["a=1", "b=2"]}"#, &["--label", "c=3"]).unwrap_err(),
            "the following directives are specified both as a flag and in the configuration file: labels: (from flag: [c=3], from file: [a=1 b=2])"
        );
    }

    #[test]
    fn runtimes_may_come_from_both() {
        assert!(load(r#"{"runtimes": {"a": {"path": "/a"}}}"#, &["--add-runtime", "b=/b"]).is_ok());
    }

    #[test]
    fn credentials_are_masked_in_messages() {
        let text =
            load(r#"{"proxies": {"http-proxy": "http://u:p@h:1"}}"#, &["--http-proxy", "http://a:b@c"]).unwrap_err();
        assert!(text.ends_with("(from flag: http://xxxxx:xxxxx@c, from file: http://xxxxx:xxxxx@h:1)"), "{text}");
    }

    #[test]
    fn types_are_checked() {
        for (json, field) in [
            (
                r#"{"mtu": "x"}"#,
                "string into Go struct field Config.CommonConfig.BridgeConfig.DefaultBridgeConfig.mtu of type int",
            ),
            (r#"{"debug": "yes"}"#, "string into Go struct field Config.CommonConfig.debug of type bool"),
            (r#"{"dns": 1}"#, "number into Go struct field Config.CommonConfig.DNSConfig.dns of type []netip.Addr"),
            (r#"{"dns": [1]}"#, "number into Go struct field Config.CommonConfig.DNSConfig.dns of type netip.Addr"),
            (
                r#"{"log-opts": []}"#,
                "array into Go struct field Config.CommonConfig.LogConfig.log-opts of type map[string]string",
            ),
            (
                r#"{"log-opts": {"a": 1}}"#,
                "number into Go struct field Config.CommonConfig.LogConfig.log-opts of type string",
            ),
            (r#"{"features": {"a": 1}}"#, "number into Go struct field Config.CommonConfig.features of type bool"),
            (r#"{"seccomp-profile": 1}"#, "number into Go struct field Config.seccomp-profile of type string"),
            (r#"{"runtimes": []}"#, "array into Go struct field Config.runtimes of type map[string]system.Runtime"),
            (r#"{"runtimes": {"a": 1}}"#, "number into Go struct field Config.runtimes of type system.Runtime"),
            (r#"{"runtimes": {"a": {"path": 1}}}"#, "number into Go struct field Runtime.runtimes.path of type string"),
            (
                r#"{"default-ulimits": {"a": {"Soft": "1"}}}"#,
                "string into Go struct field Ulimit.default-ulimits.Soft of type int64",
            ),
            (
                r#"{"default-address-pools": [1]}"#,
                "number into Go struct field Config.CommonConfig.NetworkConfig.default-address-pools of type \
                 ipamutils.NetworkToSplit",
            ),
            (
                r#"{"registry-mirrors": 1}"#,
                "number into Go struct field Config.CommonConfig.ServiceOptions.registry-mirrors of type []string",
            ),
            (
                r#"{"builder": 1}"#,
                "number into Go struct field Config.CommonConfig.builder of type config.BuilderConfig",
            ),
            (
                r#"{"fixed-cidr": 1}"#,
                "number into Go struct field Config.CommonConfig.BridgeConfig.DefaultBridgeConfig.commonBridgeConfig.fixed-cidr of type string",
            ),
        ] {
            assert_eq!(load(json, &[]).unwrap_err(), format!("invalid JSON: json: cannot unmarshal {field}"), "{json}");
        }
        assert!(load(r#"{"default-shm-size": 64}"#, &[]).unwrap_err().contains("invalid size"));
        for json in [r#"{"debug": {}}"#, r#"{"debug": {"tls": true}}"#] {
            assert_eq!(
                load(json, &[]).unwrap_err(),
                "invalid JSON: json: cannot unmarshal object into Go struct field Config.CommonConfig.debug of type bool"
            );
        }
    }

    #[test]
    fn zero_values_of_the_file_mean_the_default() {
        let config =
            load(r#"{"mtu": 0, "shutdown-timeout": 0, "default-stop-timeout": 0, "icc": false}"#, &[]).unwrap();
        assert_eq!(config.bridge.mtu, 1500);
        assert_eq!(config.engine.shutdown_timeout, 15);
        assert_eq!(config.containers.stop_timeout, 0);
        assert!(!config.bridge.icc);
    }

    /// Go's decoder reads the members of an option's object so; the options themselves are looked up by their exact names.
    #[test]
    fn members_are_read_in_any_capitals_and_the_last_one_counts() {
        let config = load(
            r#"{"runtimes": {"a": {"Path": "/first", "PATH": "/a", "path": null, "RuntimeArgs": ["x"]}},
                "default-ulimits": {"nofile": {"\u004eame": "nofile", "HARD": 9, "\u017foft": 8}},
                "default-address-pools": [{"BASE": "10.0.0.0/8", "Size": 24}]}"#,
            &[],
        )
        .unwrap();
        let runtime = &config.containers.runtimes["a"];
        assert_eq!((runtime.path.as_str(), runtime.args.as_slice()), ("/a", &["x".to_owned()][..]));
        let limit = &config.containers.ulimits["nofile"];
        assert_eq!((limit.hard, limit.soft), (9, 8));
        assert_eq!(config.network.default_address_pools[0].size, 24);
        assert!(load(r#"{"Debug": true}"#, &[]).unwrap_err().ends_with("configuration option: Debug"));
        assert!(load(r#"{"debug": false, "debug": true}"#, &[]).unwrap().daemon_log.debug);
    }

    #[test]
    fn syntax_errors_are_gos() {
        for (text, why) in [
            ("{", "unexpected end of JSON input"),
            ("{} x", "invalid character 'x' after top-level value"),
            (r#"{"debug": true,}"#, "invalid character '}' looking for beginning of object key string"),
            ("[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ] {
            assert_eq!(decode(text.as_bytes()).unwrap_err(), format!("invalid JSON: {why}"));
        }
    }

    #[test]
    fn byte_order_marks_and_empty_files() {
        let text = "{\"debug\": true}";
        let mut utf8 = vec![0xef, 0xbb, 0xbf];
        utf8.extend(text.bytes());
        let mut utf16 = vec![0xff, 0xfe];
        utf16.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        for bytes in [utf8, utf16] {
            assert!(decode(&bytes).unwrap().contains_key("debug"));
        }
        assert!(decode(b" \n").unwrap().is_empty());
        assert!(decode(b"{\"a\": \xff}").unwrap_err().contains("invalid UTF-8"));
        assert_eq!(decode(b"{").unwrap_err(), "invalid JSON: unexpected end of JSON input");
    }

    #[test]
    fn the_old_gateway_key() {
        assert_eq!(load(r#"{"host-gateway-ip": "1.2.3.4"}"#, &[]).unwrap().dns.host_gateway_ips.len(), 1);
        for none in [r#"{"host-gateway-ip": null}"#, r#"{"host-gateway-ip": ""}"#] {
            assert!(load(none, &[]).unwrap().dns.host_gateway_ips.is_empty());
        }
        assert!(
            load(r#"{"host-gateway-ip": "1.2.3.4", "host-gateway-ips": []}"#, &[])
                .unwrap_err()
                .contains("must not both")
        );
        assert!(
            load(r#"{"host-gateway-ip": "1.2.3.4"}"#, &["--host-gateway-ip", "1.2.3.5"])
                .unwrap_err()
                .contains("host-gateway-ip: (from flag: [1.2.3.5]")
        );
    }
}
