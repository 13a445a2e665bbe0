//! From arguments and environment to a [`Loaded`] configuration.
//!
//! Order: command line (help, version) → file → conflicts → merge → validation → TLS → what goes together → `--validate`.

use std::path::PathBuf;

use super::file::{self, Fault, FileValues};
use super::flags::{self, CommandLine};
use super::options::{self, Effect, Row, TABLE};
use super::parse::{self, Slot};
use super::{Config, Env, Exit, Loaded, Program, Source, hosts, signatures, tls, usage, validate};

/// Reads flags, then `daemon.json`, merges and validates. `args` are without the program's name.
pub fn load(program: Program<'_>, args: &[String], env: &Env) -> Result<Loaded, Exit> {
    let Program { name, .. } = program;
    let (line, flags) =
        flags::scan(args).map_err(|why| Exit::failure(format!("Status: {why}\nSee '{name} --help'., Code: 125")))?;
    if line.switch("help") {
        return Err(Exit { code: 0, stdout: usage::help(program), stderr: String::new() });
    }
    if line.switch("version") {
        return Err(Exit { code: 0, stdout: usage::version(name), stderr: String::new() });
    }
    if !line.positional.is_empty() {
        return Err(Exit::failure(usage::no_arguments(name)));
    }
    let merged = merge(&line, &flags, env, Occasion::Start).map_err(Exit::failure)?;
    let refused = refuse_unread(&line, &merged.file, &merged.config).map_err(cannot_start);
    refused.and_then(|()| can_start(&merged.config)).map_err(Exit::failure)?;
    if line.switch("validate") {
        return Err(Exit { code: 0, stdout: String::new(), stderr: "configuration OK".into() });
    }
    let source = Source { args: args.to_vec(), env: env.clone() };
    Ok(Loaded { config: merged.config, warnings: merged.warnings, source })
}

/// Refuses, by name, what protects or limits something and is not there: ignored, the daemon would be less safe than it
/// was told to be.
pub(super) fn refuse_unread(line: &CommandLine, file: &FileValues, config: &Config) -> Result<(), String> {
    for row in TABLE {
        let Effect::Refused { asks, why } = row.effect else { continue };
        if file.has(row.flag) && row.flag != row.key {
            return Err(format!("the key \"{}\" of the configuration file is spelled \"{}\"", row.flag, row.key));
        }
        if asks(config) {
            let shown = shown(row, line, file);
            return Err(format!("the option {shown} is not supported: if it were ignored, {why}"));
        }
    }
    Ok(())
}

/// An option's name where it was given.
fn shown(row: &Row, line: &CommandLine, file: &FileValues) -> String {
    let of_file = row.flag.is_empty() || (!line.has(row.flag) && file.sets(row));
    if of_file { format!("\"{}\"", row.key) } else { format!("--{}", row.flag) }
}

fn can_start(config: &Config) -> Result<(), String> {
    validate::api_floor(config).map_err(|why| format!("failed to start API server: {why}"))?;
    validate::settings(config).map_err(cannot_start)
}

fn cannot_start(why: String) -> String {
    format!("failed to start daemon: {why}")
}

/// The configuration that a daemon with these arguments would have, and the words between them: for commands that have
/// to find a daemon. `None` when help is asked for.
pub fn locate(args: &[String], env: &Env) -> Result<Option<(Config, Vec<String>)>, String> {
    let (line, flags) = flags::scan(args)?;
    if line.switch("help") {
        return Ok(None);
    }
    let merged = merge(&line, &flags, env, Occasion::Start)?;
    Ok(Some((merged.config, line.positional)))
}

/// A merged, validated configuration and what the file set.
pub(super) struct Merged {
    pub config: Config,
    pub warnings: Vec<String>,
    pub file: FileValues,
}

/// Why a configuration is read; it shapes the words of a refusal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    Start,
    Reload,
}

/// Merges file and flags over the defaults. Also the first half of a reload.
pub(super) fn merge(line: &CommandLine, flags: &Config, env: &Env, occasion: Occasion) -> Result<Merged, String> {
    let mut config = Config::default();
    if let Some(path) = line.last("config-file") {
        config.paths.config_file = PathBuf::from(path);
    }
    let path = config.paths.config_file.clone();
    let named = |why: String| format!("unable to configure the Docker daemon with file {}: {why}", path.display());
    let mut warnings = deprecated(line);
    let (mut from_file, mut read) = (FileValues::default(), false);
    if !path.as_os_str().is_empty() {
        match file::read(&path, line, flags) {
            Ok(values) => (from_file, read) = (values, true),
            Err(Fault::Missing(_)) if !line.has("config-file") => {}
            Err(Fault::Missing(why) | Fault::Bad(why)) => return Err(named(why)),
        }
        warnings.extend(file::apply(&from_file, &mut config).map_err(named)?);
    }
    overlay_flags(line, flags, &mut config);
    validate::values(&config).map_err(|why| match occasion {
        Occasion::Reload => format!("file configuration validation failed: {why}"),
        // A file that says nothing was read as well.
        Occasion::Start if read => {
            named(format!("merged configuration validation from file and command line flags failed: {why}"))
        }
        Occasion::Start => why,
    })?;
    environment(&mut config, &from_file, env)?;
    finish(&mut config, env)?;
    warnings.extend(without_effect(line, &from_file, &config));
    Ok(Merged { config, warnings, file: from_file })
}

fn overlay_flags(line: &CommandLine, flags: &Config, config: &mut Config) {
    let mut scratch = flags.clone();
    for given in &line.given {
        if let Slot::Runtimes(field) = given.row.slot {
            for (name, entry) in field(&mut scratch).clone() {
                field(config).entry(name).or_insert(entry);
            }
        } else {
            parse::copy(&given.row.slot, &mut scratch, config);
        }
    }
}

fn environment(config: &mut Config, file: &FileValues, env: &Env) -> Result<(), String> {
    let var = |name: &str| env.get(name).filter(|v| !v.is_empty());
    if let Some(version) = var("DOCKER_MIN_API_VERSION") {
        validate::min_api_version(version).map_err(|why| format!("invalid DOCKER_MIN_API_VERSION: {why}"))?;
        if !file.has("min-api-version") {
            config.listen.min_api_version.clone_from(version);
        }
    }
    if let Some(driver) = var("DOCKER_DRIVER") {
        config.storage.driver.clone_from(driver);
    }
    config.paths.tmp_dir = var("DOCKER_TMPDIR").map_or_else(|| config.paths.data_root.join("tmp"), PathBuf::from);
    let registry = &mut config.registry;
    for (field, name) in [
        (&mut registry.http_proxy, "HTTP_PROXY"),
        (&mut registry.https_proxy, "HTTPS_PROXY"),
        (&mut registry.no_proxy, "NO_PROXY"),
    ] {
        if field.is_empty() {
            *field = var(name).or_else(|| var(&name.to_lowercase())).cloned().unwrap_or_default();
        }
    }
    Ok(())
}

fn finish(config: &mut Config, env: &Env) -> Result<(), String> {
    let listen = &mut config.listen;
    tls::resolve(listen, env)?;
    listen.host_specs.retain(|spec| !spec.trim().is_empty());
    let default = if listen.tls.is_some() { hosts::DEFAULT_TLS } else { hosts::DEFAULT_UNIX };
    let specs = if listen.host_specs.is_empty() { vec![default.to_string()] } else { listen.host_specs.clone() };
    listen.hosts = hosts::normalize(&specs)?;
    config.engine.labels = validate::conflict_free_labels(&config.engine.labels)?;
    config.daemon_log.level = config.daemon_log.level.to_lowercase();
    config.registry.mirrors = config.registry.mirrors.iter().map(|m| parse::mirror(m)).collect::<Result<_, _>>()?;
    config.signatures.policy = signatures::policy(&config.signatures.rules)?;
    if !config.network.iptables {
        config.network.ip_masq = false;
    }
    Ok(())
}

fn deprecated(line: &CommandLine) -> Vec<String> {
    if line.has("restart") {
        vec!["Flag --restart has been deprecated, Please use a restart policy on docker run".into()]
    } else {
        vec![]
    }
}

/// One warning for each option that was set to something and does nothing.
fn without_effect(line: &CommandLine, file: &FileValues, config: &Config) -> Vec<String> {
    let default = Config::default();
    let mut warnings = Vec::new();
    for row in TABLE {
        let from_flag = !row.flag.is_empty() && line.has(row.flag);
        if !from_flag && !file.sets(row) {
            continue;
        }
        let shown = shown(row, line, file);
        let changed = options::printed(row, config) != options::printed(row, &default);
        match row.effect {
            Effect::Harmless(why) if changed => {
                warnings.push(format!("the option {shown} has no effect yet: {why}"));
            }
            // What asks for protection was refused; this one asks for none.
            Effect::Refused { .. } if changed => warnings.push(format!("the option {shown} has no effect")),
            Effect::Never => warnings.push(format!("the option {shown} is ignored: Gantry has no such component")),
            _ => {}
        }
    }
    warnings.extend(values_without_effect(config));
    warnings
}

/// Features that something reads.
const FEATURES: &[&str] = &["buildkit", "time-namespaces"];

/// Warnings for values that ask for something that Gantry does in its own way only.
fn values_without_effect(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if validate::cgroup_driver(config).as_deref() == Some("systemd") {
        warnings.push("native.cgroupdriver=systemd has no effect yet: cgroups are made in the file system".into());
    }
    if config.network.firewall_backend == "iptables" {
        warnings.push("the firewall backend iptables is not there: rules are made with nftables".into());
    }
    let idle = config.engine.features.keys().filter(|name| !FEATURES.contains(&name.as_str()));
    warnings.extend(idle.map(|name| format!("the feature {name:?} has no effect")));
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Host;

    const PROGRAM: Program<'_> = Program { name: "gantryd", commands: "" };

    fn load_words(words: &str, json: Option<&str>, env: &[(&str, &str)]) -> Result<Loaded, Exit> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.json");
        let mut args: Vec<String> = words.split_whitespace().map(String::from).collect();
        std::fs::write(&path, json.unwrap_or("")).unwrap();
        args.extend(["--config-file".to_string(), path.display().to_string()]);
        let env = env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        load(PROGRAM, &args, &env).map_err(|mut exit| {
            exit.stderr = exit.stderr.replace(&path.display().to_string(), "FILE");
            exit
        })
    }

    #[test]
    fn a_harness_command_line() {
        let words = "--data-root /d --exec-root /e --pidfile /p --containerd-namespace n --containerd-plugins-namespace m \
                     --containerd /run/c.sock --userland-proxy=true --host unix:///s --debug --storage-driver overlayfs";
        let loaded = load_words(words, None, &[]).unwrap();
        assert_eq!(loaded.config.listen.hosts, [Host::Unix("/s".into())]);
        assert_eq!(loaded.config.paths.tmp_dir, PathBuf::from("/d/tmp"));
        assert!(loaded.config.daemon_log.debug);
        assert_eq!(loaded.warnings.len(), 3, "{:?}", loaded.warnings);
    }

    #[test]
    fn file_and_flags_add_up() {
        let loaded =
            load_words("-D", Some(r#"{"icc": false, "labels": ["a=1"], "runtimes": {"r": {"path": "/r"}}}"#), &[])
                .unwrap();
        let config = loaded.config;
        assert!(config.daemon_log.debug && !config.bridge.icc);
        assert_eq!(config.engine.labels, ["a=1"]);
        assert!(config.containers.runtimes.contains_key("r"));
    }

    #[test]
    fn errors_name_the_file() {
        let text = |json: &str| load_words("", Some(json), &[]).unwrap_err().stderr;
        assert_eq!(
            text(r#"{"nope": 1}"#),
            "unable to configure the Docker daemon with file FILE: the following directives don't match any configuration option: nope"
        );
        assert_eq!(
            text(r#"{"log-level": "loud"}"#),
            "unable to configure the Docker daemon with file FILE: merged configuration validation from file and command line flags failed: invalid logging level: loud"
        );
        let missing = load(PROGRAM, &["--config-file=/nonexistent.json".into()], &Env::new()).unwrap_err();
        assert_eq!(
            missing.stderr,
            "unable to configure the Docker daemon with file /nonexistent.json: open /nonexistent.json: no such file or directory"
        );
        let directory = load(PROGRAM, &["--config-file=/proc".into()], &Env::new()).unwrap_err();
        assert_eq!(
            directory.stderr,
            "unable to configure the Docker daemon with file /proc: read /proc: is a directory"
        );
    }

    #[test]
    fn errors_of_flags_name_a_file_that_was_read() {
        let merged = "unable to configure the Docker daemon with file FILE: merged configuration validation from file and command line flags failed: ";
        for json in ["", "{}", r#"{"debug": true}"#] {
            let text = load_words("--log-level loud", Some(json), &[]).unwrap_err().stderr;
            assert_eq!(text, format!("{merged}invalid logging level: loud"));
        }
        let without = load(PROGRAM, &["--log-level=loud".into(), "--config-file=".into()], &Env::new());
        assert_eq!(without.unwrap_err().stderr, "invalid logging level: loud");
    }

    #[test]
    fn what_does_not_go_together_is_said_of_the_start() {
        let text = |words: &str, json: &str| load_words(words, Some(json), &[]).unwrap_err().stderr;
        assert_eq!(
            text("", r#"{"default-runtime": "zz"}"#),
            "failed to start daemon: specified default runtime 'zz' does not exist"
        );
        assert_eq!(
            text("-b br0 --bip 10.0.0.1/8", "{}"),
            "failed to start daemon: You specified -b & --bip, mutually exclusive options. Please specify only one"
        );
        assert_eq!(
            text("--exec-opt native.cgroupdriver=x", ""),
            "failed to start daemon: native.cgroupdriver option x not supported"
        );
        assert_eq!(
            text("", r#"{"min-api-version": "1.20"}"#),
            "failed to start API server: invalid minimum API version (1.20): must be between 1.24 and 1.56"
        );
    }

    #[test]
    fn the_seccomp_profile_is_read_before_anything_starts() {
        let text = |path: &str| load_words("", Some(&format!(r#"{{"seccomp-profile": "{path}"}}"#)), &[]);
        let missing = text("/nonexistent").unwrap_err().stderr;
        assert!(
            missing.starts_with("failed to start daemon: opening seccomp profile (/nonexistent) failed: "),
            "{missing}"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        for (profile, why) in [("{", "unexpected end of JSON input"), ("{}", "it names no default action")] {
            std::fs::write(&path, profile).unwrap();
            let refused = text(&path).unwrap_err().stderr;
            assert_eq!(refused, format!("failed to start daemon: Decoding seccomp profile failed: {why}"));
        }
        std::fs::write(&path, r#"{"DefaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
        assert!(text(&path).is_ok());
        assert!(text("unconfined").is_ok() && text("builtin").is_ok());
    }

    #[test]
    fn early_exits() {
        let exit = load_words("--validate", None, &[]).unwrap_err();
        assert_eq!((exit.code, exit.stderr.as_str()), (0, "configuration OK"));
        assert!(load_words("--help", None, &[]).unwrap_err().stdout.contains("--data-root string"));
        assert!(load_words("-v", None, &[]).unwrap_err().stdout.contains("version"));
        let exit = load_words("surplus", None, &[]).unwrap_err();
        assert!(exit.code == 1 && exit.stderr.starts_with("\"gantryd\" accepts no argument(s)."));
        assert_eq!(
            load_words("--nope", None, &[]).unwrap_err().stderr,
            "Status: unknown flag: --nope\nSee 'gantryd --help'., Code: 125"
        );
    }

    #[test]
    fn the_environment_counts() {
        let loaded = load_words(
            "",
            None,
            &[("DOCKER_MIN_API_VERSION", "1.24"), ("DOCKER_DRIVER", "copy"), ("DOCKER_TMPDIR", "/t")],
        )
        .unwrap();
        assert_eq!(loaded.config.listen.min_api_version, "1.24");
        assert_eq!(loaded.config.storage.driver, "copy");
        assert_eq!(loaded.config.paths.tmp_dir, PathBuf::from("/t"));
        let exit = load_words("", None, &[("DOCKER_MIN_API_VERSION", "1.23")]).unwrap_err();
        assert_eq!(exit.stderr, "invalid DOCKER_MIN_API_VERSION: minimum supported API version is 1.24: 1.23");
    }

    #[test]
    fn hosts_have_defaults() {
        assert_eq!(load_words("", None, &[]).unwrap().config.listen.hosts, [Host::Unix("/var/run/docker.sock".into())]);
        let many = load_words("-H tcp://:1 -H unix:///x -H fd:// -H unix:///x", None, &[]).unwrap();
        assert_eq!(many.config.listen.hosts.len(), 3);
    }

    #[test]
    fn options_without_effect_warn_only_when_they_change_something() {
        assert!(load_words("--network-control-plane-mtu=1500", None, &[]).unwrap().warnings.is_empty());
        assert_eq!(
            load_words("--network-control-plane-mtu=1400", None, &[]).unwrap().warnings,
            ["the option --network-control-plane-mtu has no effect yet: there is no swarm"]
        );
        let loaded = load_words("", Some(r#"{"network-diagnostic-port": 1, "host": "x"}"#), &[]).unwrap();
        assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    }

    /// A flag's text and a file's value that ask an unread option for something, by what it holds.
    fn asking(row: &Row) -> (String, serde_json::Value) {
        use serde_json::json;
        let list = |text: &str| (text.to_owned(), json!([text]));
        match (&row.slot, row.flag) {
            (_, "node-generic-resource") => list("a=b"),
            (_, "bridge-accept-fwmark") => ("0x1".into(), json!("0x1")),
            (_, "ip6tables") => ("false".into(), json!(false)),
            (Slot::Bool(_), _) => ("true".into(), json!(true)),
            (Slot::Int(_), _) => ("950000".into(), json!(950_000)),
            (Slot::Ip(_), _) => ("fd00::1".into(), json!("fd00::1")),
            (Slot::Cidr(_), _) => ("fd00::/64".into(), json!("fd00::/64")),
            (Slot::List(..), _) => list("overlay2.size=1g"),
            (Slot::MapMap(_), _) => ("bridge=a=b".into(), json!({"bridge": {"a": "b"}})),
            (Slot::Nri(_), _) => ("enable=true".into(), json!({"enable": true})),
            (Slot::Json(_), _) => (String::new(), json!({"gc": {"enabled": true}})),
            (Slot::Text(_), _) => ("default".into(), json!("default")),
            _ => panic!("{} holds something that no unread option held before", row.flag),
        }
    }

    /// Each unread option that is given says so: it is refused where it protects, and warned of where it does not.
    #[test]
    fn no_unread_option_goes_unnoticed() {
        for row in TABLE {
            let (Effect::Harmless(why) | Effect::Refused { why, .. }) = row.effect else { continue };
            // Of this one, the highest port is what the reference takes.
            let (text, value) = match row.flag {
                "network-diagnostic-port" => ("65535".into(), 65535.into()),
                _ => asking(row),
            };
            let flag = Some((format!("--{}={text}", row.flag), "{}".to_owned(), format!("--{}", row.flag)));
            let json = serde_json::json!({row.key: value}).to_string();
            let key = Some((String::new(), json, format!("\"{}\"", row.key)));
            for (words, json, name) in [flag.filter(|_| !row.flag.is_empty()), key].into_iter().flatten() {
                let loaded = load_words(&words, Some(&json), &[]);
                match row.effect {
                    Effect::Refused { .. } => assert_eq!(
                        loaded.expect_err(&name).stderr,
                        format!(
                            "failed to start daemon: the option {name} is not supported: if it were ignored, {why}"
                        )
                    ),
                    _ => assert_eq!(loaded.unwrap().warnings, [format!("the option {name} has no effect yet: {why}")]),
                }
            }
        }
    }

    #[test]
    fn protection_that_is_not_asked_for_is_not_refused() {
        let words = "--selinux-enabled=false --rootless=false --userns-remap= --cpu-rt-period=0 --nri-opts enable=false \
                     --storage-opt overlay2.override_kernel_check=true";
        assert!(load_words(words, None, &[]).is_ok());
        let json = r#"{"selinux-enabled": false, "authorization-plugins": [], "userns-remap": "", "rootless": false}"#;
        assert!(load_words("", Some(json), &[]).unwrap().warnings.is_empty());
    }

    /// The reference takes a key that is spelled like the flag, and forgets it.
    #[test]
    fn a_misspelt_key_of_what_protects_is_refused() {
        for (json, text) in [
            (
                r#"{"authorization-plugin": ["x"]}"#,
                r#"the key "authorization-plugin" of the configuration file is spelled "authorization-plugins""#,
            ),
            (
                r#"{"storage-opt": ["overlay2.size=1g"]}"#,
                r#"the key "storage-opt" of the configuration file is spelled "storage-opts""#,
            ),
        ] {
            assert!(load_words("", Some(json), &[]).unwrap_err().stderr.ends_with(text), "{json}");
        }
    }

    #[test]
    fn values_that_ask_for_what_is_not_there_warn() {
        let words = "--exec-opt native.cgroupdriver=systemd --firewall-backend iptables --feature cdi=false";
        let warnings = load_words(words, None, &[]).unwrap().warnings;
        let about = ["native.cgroupdriver=systemd", "backend iptables", "feature \"cdi\""];
        assert_eq!(warnings.len(), about.len(), "{warnings:?}");
        assert!(about.iter().zip(&warnings).all(|(about, warning)| warning.contains(about)), "{warnings:?}");
        let words = "--exec-opt native.cgroupdriver=cgroupfs --firewall-backend nftables --feature time-namespaces";
        assert!(load_words(words, None, &[]).unwrap().warnings.is_empty());
    }
}
