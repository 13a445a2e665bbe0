//! What a request for a build says: its attributes, as clients of BuildKit send them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bollard_buildkit_proto::pb;
use model::platform::Platform;

use crate::error::{Error, Result};
use crate::lint::Settings;
use crate::platform;
use crate::text::{boolean, csv_fields, quote};

/// Attributes by their names.
pub type Attributes = BTreeMap<String, String>;

/// The wishes of a build, whatever its Dockerfile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// The stage to build; empty: the last.
    pub target: String,
    /// Build arguments.
    pub arguments: Attributes,
    /// Labels of the result.
    pub labels: Attributes,
    /// Where the results are to run; empty: where they are built.
    pub platforms: Vec<Platform>,
    /// Whether the result is one for each platform, even of one.
    pub multiple: bool,
    /// Of `pull` or `local`: where images are looked for; empty: as the engine likes.
    pub resolve: String,
    /// Stages that do not use the cache: all of them if the list is empty.
    pub no_cache: Option<Vec<String>>,
    /// In the place of the directive `check`.
    pub check: Option<Settings>,
    /// How commands run.
    pub run: RunOptions,
}

/// How the commands of a build run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunOptions {
    /// Of BuildKit's numbers.
    pub network: i32,
    /// Names beside those of the network.
    pub hosts: Vec<pb::HostIp>,
    /// Bytes of `/dev/shm`; 0: as the engine does.
    pub shm_size: i64,
    /// Limits of processes.
    pub ulimits: Vec<pb::Ulimit>,
    /// The group above theirs; empty: the engine's.
    pub cgroup_parent: String,
    /// Empty: as the engine does.
    pub hostname: String,
    /// In front of the names of caches.
    pub cache_namespace: String,
    /// Limits of memory and processors.
    pub resources: Option<Resources>,
}

/// Limits of memory and processors; 0 and empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes.
    pub memory: i64,
    /// Bytes of memory and swap; -1: as much as there is.
    pub memory_swap: i64,
    /// Weight.
    pub cpu_shares: u64,
    /// Microseconds.
    pub cpu_period: u64,
    /// Microseconds in a period.
    pub cpu_quota: i64,
    /// Processors: `0-3,5`.
    pub cpuset_cpus: String,
    /// Memory nodes.
    pub cpuset_mems: String,
}

impl Options {
    /// Reads the attributes of a request; of the platform of a build that has none, this is it.
    pub fn read(attributes: &Attributes, host: &Platform) -> Result<Options> {
        removed(attributes)?;
        let text = |key: &str| attributes.get(key).map(String::as_str).unwrap_or_default();
        let platforms = match text("platform") {
            "" => Vec::new(),
            list => platform::list(list, host)?,
        };
        let resolve = match text("image-resolve-mode") {
            "" | "default" => "",
            mode @ ("pull" | "local") => mode,
            other => return Err(Error::new(format!("invalid image-resolve-mode: {other}"))),
        };
        let no_cache = attributes.get("no-cache").map(|list| match list.as_str() {
            "" => Vec::new(),
            list => list.split(',').map(str::to_owned).collect(),
        });
        let check = attributes.get("build-arg:BUILDKIT_DOCKERFILE_CHECK").map(|text| {
            let prefix = "failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK";
            Settings::parse(text).map_err(|error| error.prefix(prefix))
        });
        Ok(Options {
            target: text("target").to_owned(),
            arguments: behind("build-arg:", attributes),
            labels: behind("label:", attributes),
            multiple: multiple(attributes, platforms.len())?,
            platforms,
            resolve: resolve.to_owned(),
            no_cache,
            check: check.transpose()?,
            run: RunOptions::read(attributes)?,
        })
    }

    /// Whether the steps of a stage do not use the cache.
    pub fn ignores_cache(&self, stage: &str) -> bool {
        let named = |list: &Vec<String>| list.is_empty() || list.iter().any(|name| name.eq_ignore_ascii_case(stage));
        self.no_cache.as_ref().is_some_and(named)
    }
}

impl RunOptions {
    fn read(attributes: &Attributes) -> Result<RunOptions> {
        let text = |key: &str| attributes.get(key).map(String::as_str).unwrap_or_default();
        let network = match text("force-network-mode") {
            "" | "sandbox" => pb::NetMode::Unset,
            "none" => pb::NetMode::None,
            "host" => pb::NetMode::Host,
            other => return Err(Error::new(format!("invalid netmode {other}"))),
        };
        let shm_size = match text("shm-size") {
            "" => 0,
            size => size.parse().map_err(|_| syntax(size).prefix("failed to parse shm size"))?,
        };
        let hostname = match text("build-arg:BUILDKIT_SANDBOX_HOSTNAME") {
            "" => text("hostname"),
            name => name,
        };
        Ok(RunOptions {
            network: network.into(),
            hosts: hosts(text("add-hosts")).map_err(|error| error.prefix("failed to parse additional hosts"))?,
            shm_size,
            ulimits: ulimits(text("ulimit")).map_err(|error| error.prefix("failed to parse ulimit"))?,
            cgroup_parent: text("cgroup-parent").to_owned(),
            hostname: hostname.to_owned(),
            cache_namespace: text("build-arg:BUILDKIT_CACHE_MOUNT_NS").to_owned(),
            resources: resources(attributes).map_err(|error| error.prefix("failed to parse resource limits"))?,
        })
    }
}

/// What is not there any more is refused.
fn removed(attributes: &Attributes) -> Result<()> {
    let set = |key: &str| attributes.get(key).is_some_and(|value| !value.is_empty());
    if set("override-copy-image") {
        return Err(Error::new("support for \"override-copy-image\" was removed in BuildKit 0.11"));
    }
    if attributes.get("build-arg:BUILDKIT_DISABLE_FILEOP").and_then(|value| boolean(value)) == Some(true) {
        return Err(Error::new("support for \"BUILDKIT_DISABLE_FILEOP\" build-arg was removed in BuildKit 0.11"));
    }
    Ok(())
}

fn behind(prefix: &str, attributes: &Attributes) -> Attributes {
    let named = |(key, value): (&String, &String)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone()));
    attributes.iter().filter_map(named).collect()
}

fn multiple(attributes: &Attributes, platforms: usize) -> Result<bool> {
    let given = ["build-arg:BUILDKIT_MULTI_PLATFORM", "multi-platform"];
    let given = given.iter().filter_map(|key| attributes.get(*key)).find(|value| !value.is_empty());
    let Some(given) = given else { return Ok(platforms > 1) };
    match boolean(given) {
        None => Err(Error::new(format!("invalid boolean value for multi-platform: {given}"))),
        Some(false) if platforms > 1 => {
            Err(Error::new("conflicting config: returning multiple target platforms is not allowed"))
        }
        Some(multiple) => Ok(multiple),
    }
}

fn syntax(text: &str) -> Error {
    Error::new(format!("strconv.ParseInt: parsing {}: invalid syntax", quote(text)))
}

fn hosts(list: &str) -> Result<Vec<pb::HostIp>> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let read = |field: &String| {
        let lower = field.to_lowercase();
        let (host, ip) = lower.split_once('=').ok_or_else(|| Error::new(format!("invalid key-value pair {field}")))?;
        let address: IpAddr = ip.parse().map_err(|_| Error::new(format!("failed to parse IP {ip}")))?;
        Ok(pb::HostIp { host: host.to_owned(), ip: address.to_canonical().to_string() })
    };
    csv_fields(list)?.iter().map(read).collect()
}

fn ulimits(list: &str) -> Result<Vec<pb::Ulimit>> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let read = |field: &String| {
        let limit = model::ulimit::Ulimit::parse(field)?;
        Ok(pb::Ulimit { name: limit.name, soft: limit.soft, hard: limit.hard })
    };
    csv_fields(list)?.iter().map(read).collect()
}

fn resources(attributes: &Attributes) -> Result<Option<Resources>> {
    let given = |key: &str| attributes.get(key).filter(|value| !value.is_empty());
    let number = |key: &str| -> Result<i64> {
        let Some(text) = given(key) else { return Ok(0) };
        let refuse = |why: &str| Error::new(format!("invalid {key} value: {text}: {why}"));
        let number: i64 = text.parse().map_err(|_| syntax(text).prefix(format!("invalid {key} value: {text}")))?;
        match number {
            -1 if key == "memswap" => Ok(-1),
            number if number > 0 => Ok(number),
            _ if key == "memswap" => Err(refuse("must be -1 (unlimited) or > 0")),
            _ => Err(refuse("must be > 0")),
        }
    };
    let set = |key: &str| -> Result<String> {
        let Some(text) = given(key) else { return Ok(String::new()) };
        let invalid = |error: model::Error| Error::from(error).prefix(format!("invalid {key} value: {text}"));
        model::cpuset::parse(text).map_err(invalid)?;
        Ok(text.clone())
    };
    let resources = Resources {
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?.unsigned_abs(),
        cpu_period: number("cpuperiod")?.unsigned_abs(),
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: set("cpusetcpus")?,
        cpuset_mems: set("cpusetmems")?,
    };
    Ok((resources != Resources::default()).then_some(resources))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(attributes: &[(&str, &str)]) -> Result<Options> {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Options::read(&attributes, &Platform::new("linux", "amd64", ""))
    }

    #[test]
    fn attributes_are_wishes() {
        let options = read(&[
            ("target", "t"),
            ("build-arg:A", "b"),
            ("label:c", "d"),
            ("platform", "linux/arm64,linux/arm/v7"),
            ("no-cache", "x,Y"),
            ("add-hosts", "DB=10.0.0.1,six=::1"),
            ("ulimit", "nofile=1:2"),
            ("shm-size", "8"),
            ("memory", "100"),
            ("memswap", "-1"),
            ("cpusetcpus", "0-1"),
        ])
        .unwrap();
        assert_eq!((options.target.as_str(), options.arguments["A"].as_str(), options.multiple), ("t", "b", true));
        assert_eq!(options.platforms[1].to_string(), "linux/arm/v7");
        assert!(options.ignores_cache("y") && !options.ignores_cache("z"));
        assert_eq!(options.run.hosts[0].host, "db");
        assert_eq!((options.run.shm_size, options.run.ulimits[0].hard), (8, 2));
        let resources = options.run.resources.unwrap();
        assert_eq!((resources.memory, resources.memory_swap, resources.cpuset_cpus.as_str()), (100, -1, "0-1"));
        assert!(read(&[("no-cache", "")]).unwrap().ignores_cache("any"));
        assert!(!read(&[]).unwrap().ignores_cache("any"));
    }

    #[test]
    fn attributes_are_refused() {
        for (key, value, why) in [
            ("image-resolve-mode", "x", "invalid image-resolve-mode: x"),
            ("force-network-mode", "x", "invalid netmode x"),
            ("add-hosts", "a", "failed to parse additional hosts: invalid key-value pair a"),
            ("add-hosts", "a=b", "failed to parse additional hosts: failed to parse IP b"),
            ("multi-platform", "x", "invalid boolean value for multi-platform: x"),
            ("memory", "0", "failed to parse resource limits: invalid memory value: 0: must be > 0"),
            (
                "memswap",
                "0",
                "failed to parse resource limits: invalid memswap value: 0: must be -1 (unlimited) or > 0",
            ),
            ("shm-size", "x", "failed to parse shm size: strconv.ParseInt: parsing \"x\": invalid syntax"),
            (
                "build-arg:BUILDKIT_DOCKERFILE_CHECK",
                "x",
                "failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: invalid check option \"x\"",
            ),
        ] {
            assert_eq!(read(&[(key, value)]).unwrap_err().message(), why);
        }
        let both = read(&[("platform", "linux/amd64,linux/arm64"), ("multi-platform", "0")]);
        assert!(both.unwrap_err().message().starts_with("conflicting config"));
    }
}
