//! The settings of builds in `daemon.json` (`builder`): when the cache is collected, what builds may be granted, how long they are
//! remembered. Pure.

use std::time::Duration;

use model::filter::Filters;
use model::{duration, units};
use serde_json::{Map, Value};

/// Parts of the disk that the cache has for itself, that it may take, and that it leaves free, in hundredths.
const RESERVED: u64 = 10;
const MOST: u64 = 80;
const FREE: u64 = 20;
/// What is easily made again goes when it was not used for so long, and anything.
const EASY: Duration = Duration::from_secs(48 * 3600);
const UNUSED: Duration = Duration::from_secs(60 * 24 * 3600);
/// Bytes that what is easily made again may take at least, and its part of what is reserved, in thousandths.
const EASY_BYTES: u64 = 512_000_000;
const EASY_PART: u64 = 138;
/// Builds that are remembered, and how long.
const HISTORY: i64 = 50;
const HISTORY_AGE: Duration = Duration::from_secs(48 * 3600);
/// Rules of one policy.
const RULES: usize = 256;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When the cache is collected.
    pub collection: Collection,
    /// What builds may be granted.
    pub entitlements: Entitlements,
    /// How many builds are remembered that have ended.
    pub history_entries: i64,
    /// And for how long.
    pub history_age: Duration,
    /// Images of the usual front end (`# syntax=docker/dockerfile:…`) are run, too: the one that is built in does not stand in
    /// for them.
    pub runs_usual_frontend: bool,
}

/// When the cache is collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collection {
    /// Never.
    Off,
    /// By the usual rules, with these limits; all zero: those that the disk gives.
    Usual(Limits),
    /// By these rules, one after the other.
    Rules(Vec<Rule>),
}

/// Limits of the cache in bytes; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Nothing is taken below this.
    pub reserved: u64,
    /// It may take so much.
    pub most: u64,
    /// So much of the disk stays free.
    pub free: u64,
}

/// A rule of collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Also what images share, and what is no step's.
    pub all: bool,
    /// Only what these take.
    pub filters: Filters,
    /// Only what was not used for so long.
    pub unused: Duration,
    /// Until the cache is within these; all zero: all of it goes.
    pub limits: Limits,
}

/// What the configuration lets builds be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entitlements {
    /// `network.host`
    pub network_host: bool,
    /// `security.insecure`
    pub insecure: bool,
    /// `device`
    pub device: bool,
}

/// A disk: its size, and how much is free, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// All of it.
    pub size: u64,
    /// What anybody may use.
    pub free: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            collection: Collection::Usual(Limits::default()),
            entitlements: Entitlements { network_host: true, insecure: false, device: true },
            history_entries: HISTORY,
            history_age: HISTORY_AGE,
            runs_usual_frontend: false,
        }
    }
}

impl Settings {
    /// Reads the value of the key `builder`. Names have any case, as with the reference; an error is for the user.
    pub fn parse(value: &Value) -> Result<Settings, String> {
        let mut settings = Settings::default();
        for (name, value) in object(value)? {
            match name.to_lowercase().as_str() {
                "gc" => settings.collection = collection(value)?,
                "entitlements" => settings.entitlements = entitlements(value, settings.entitlements)?,
                "history" => history(value, &mut settings)?,
                "dockerfile-frontend" => {
                    settings.runs_usual_frontend = match value.as_str() {
                        Some("builtin") => false,
                        Some("image") => true,
                        _ => return Err("\"dockerfile-frontend\" is neither \"builtin\" nor \"image\"".into()),
                    }
                }
                _ => return Err(format!("unknown key {name:?}")),
            }
        }
        Ok(settings)
    }
}

impl Collection {
    /// The rules, on this disk.
    pub fn rules(&self, disk: Disk) -> Vec<Rule> {
        match self {
            Collection::Off => Vec::new(),
            Collection::Rules(rules) => rules.clone(),
            Collection::Usual(limits) => usual(*limits, disk),
        }
    }
}

/// The usual rules.
fn usual(given: Limits, disk: Disk) -> Vec<Rule> {
    // Rounded up to gigabytes of the reference's kind.
    let part = |hundredths: u64| ((disk.size / 100 * hundredths) / (1 << 30) + 1) * 1_000_000_000;
    let limits = match given == Limits::default() {
        true => Limits { reserved: part(RESERVED), most: part(MOST), free: part(FREE) },
        false => given,
    };
    let mut easy = Filters::default();
    for kind in ["source.local", "exec.cachemount", "source.git.checkout"] {
        easy.add("type", kind);
    }
    let most = (limits.reserved / 1000 * EASY_PART).max(EASY_BYTES);
    vec![
        Rule { filters: easy, unused: EASY, limits: Limits { most, ..Limits::default() }, ..Rule::default() },
        Rule { unused: UNUSED, limits, ..Rule::default() },
        Rule { limits, ..Rule::default() },
        Rule { all: true, limits, ..Rule::default() },
    ]
}

impl Limits {
    /// Bytes that a cache of so many may keep; 0: nothing.
    pub fn keep(self, total: u64, disk: Disk) -> u64 {
        if self == Limits::default() {
            return 0;
        }
        let mut keep = self.most;
        let lacking = self.free.saturating_sub(disk.free);
        if lacking > 0 {
            let left = total.saturating_sub(lacking);
            keep = if keep == 0 { left } else { keep.min(left) };
        } else if keep == 0 && self.free > 0 {
            // Enough is free.
            keep = total;
        }
        keep.max(self.reserved)
    }
}

fn object(value: &Value) -> Result<&Map<String, Value>, String> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    match value {
        Value::Null => Ok(&NONE),
        Value::Object(object) => Ok(object),
        other => Err(format!("an object is expected, not {other}")),
    }
}

fn flag(name: &str, value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("{name:?}: true or false is expected, not {value}"))
}

/// Bytes, as a text with a unit.
fn size(name: &str, value: &Value) -> Result<u64, String> {
    let text = value.as_str().ok_or_else(|| format!("{name:?}: a size is expected, not {value}"))?;
    if text.is_empty() {
        return Ok(0);
    }
    let bytes = units::ram_in_bytes(text).map_err(|error| format!("failed to parse {name}: {}", error.message()))?;
    u64::try_from(bytes).map_err(|_| format!("failed to parse {name}: invalid size: '{text}'"))
}

fn collection(value: &Value) -> Result<Collection, String> {
    let (mut is_on, mut rules, mut limits, mut kept) = (true, None, Limits::default(), 0);
    for (name, value) in object(value)? {
        match name.to_lowercase().as_str() {
            "enabled" => is_on = flag(name, value)?,
            "policy" => rules = policy(value)?,
            "defaultreservedspace" => limits.reserved = size(name, value)?,
            "defaultkeepstorage" => kept = size(name, value)?,
            "defaultmaxusedspace" => limits.most = size(name, value)?,
            "defaultminfreespace" => limits.free = size(name, value)?,
            _ => return Err(format!("unknown key {name:?} of gc")),
        }
    }
    // The older name of the same.
    if limits.reserved == 0 {
        limits.reserved = kept;
    }
    Ok(match (is_on, rules) {
        (false, _) => Collection::Off,
        (true, Some(rules)) => Collection::Rules(rules),
        (true, None) => Collection::Usual(limits),
    })
}

fn policy(value: &Value) -> Result<Option<Vec<Rule>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Array(rules) if rules.len() <= RULES => rules.iter().map(rule).collect::<Result<_, _>>().map(Some),
        Value::Array(_) => Err(format!("more than {RULES} rules")),
        other => Err(format!("\"policy\": a list is expected, not {other}")),
    }
}

fn rule(value: &Value) -> Result<Rule, String> {
    let (mut rule, mut kept) = (Rule::default(), 0);
    for (name, value) in object(value)? {
        match name.to_lowercase().as_str() {
            "all" => rule.all = flag(name, value)?,
            "filter" => (rule.filters, rule.unused) = filters(value)?,
            "reservedspace" => rule.limits.reserved = size(name, value)?,
            "keepstorage" => kept = size(name, value)?,
            "maxusedspace" => rule.limits.most = size(name, value)?,
            "minfreespace" => rule.limits.free = size(name, value)?,
            _ => return Err(format!("unknown key {name:?} of a rule")),
        }
    }
    if rule.limits.reserved == 0 {
        rule.limits.reserved = kept;
    }
    Ok(rule)
}

/// Filters in a list of `name=value`, and for how long a record was not used.
fn filters(value: &Value) -> Result<(Filters, Duration), String> {
    const KNOWN: [&str; 9] =
        ["until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private"];
    let list = match value {
        Value::Null => return Ok(Default::default()),
        Value::Array(list) => list,
        other => return Err(format!("\"filter\": a list is expected, not {other}")),
    };
    let (mut filters, mut unused) = (Filters::default(), Duration::ZERO);
    for entry in list {
        let text = entry.as_str().ok_or_else(|| format!("\"filter\": a text is expected, not {entry}"))?;
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let (name, value) = (name.trim().to_lowercase(), value.trim_start_matches('=').trim());
        match name.as_str() {
            "until" | "unused-for" => {
                let nanos = duration::parse(value).map_err(|error| format!("{name:?}: {}", error.message()))?;
                unused = u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| format!("{name:?}: {value}"))?;
            }
            known if KNOWN.contains(&known) => filters.add(known, value),
            other => return Err(format!("invalid filter {other:?}")),
        }
    }
    Ok((filters, unused))
}

fn entitlements(value: &Value, usual: Entitlements) -> Result<Entitlements, String> {
    let mut granted = usual;
    for (name, value) in object(value)? {
        match name.to_lowercase().as_str() {
            _ if value.is_null() => {}
            "network-host" => granted.network_host = flag(name, value)?,
            "security-insecure" => granted.insecure = flag(name, value)?,
            "device" => granted.device = flag(name, value)?,
            _ => return Err(format!("unknown key {name:?} of entitlements")),
        }
    }
    Ok(granted)
}

fn history(value: &Value, settings: &mut Settings) -> Result<(), String> {
    for (name, value) in object(value)? {
        match name.to_lowercase().as_str() {
            "maxentries" => {
                let count = value.as_i64().ok_or_else(|| format!("{name:?}: a number is expected, not {value}"))?;
                settings.history_entries = count;
            }
            "maxage" => settings.history_age = age(name, value)?,
            _ => return Err(format!("unknown key {name:?} of history")),
        }
    }
    Ok(())
}

/// A duration; a number is one of seconds.
fn age(name: &str, value: &Value) -> Result<Duration, String> {
    let wrong = || format!("{name:?}: a duration is expected, not {value}");
    match value {
        Value::Number(number) => number.as_u64().map(Duration::from_secs).ok_or_else(wrong),
        Value::String(text) => {
            if let Ok(seconds) = text.parse::<u64>() {
                return Ok(Duration::from_secs(seconds));
            }
            let nanos = duration::parse(text).map_err(|_| wrong())?;
            u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| wrong())
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GB: u64 = 1_000_000_000;
    const DISK: Disk = Disk { size: 100 << 30, free: 60 * GB };

    fn parsed(value: &Value) -> Settings {
        Settings::parse(value).unwrap()
    }

    #[test]
    fn usual_limits_are_parts_of_the_disk() {
        let rules = parsed(&Value::Null).collection.rules(DISK);
        let limits = Limits { reserved: 10 * GB, most: 80 * GB, free: 20 * GB };
        assert!(rules[2].limits.reserved >= limits.reserved && rules[2].limits.most >= limits.most);
        assert_eq!((rules.len(), rules[0].unused, rules[1].unused), (4, EASY, UNUSED));
        assert!(rules[3].all && !rules[2].all);
        assert_eq!(rules[0].filters.get("type").count(), 3);
        assert_eq!(rules[0].limits.most, rules[2].limits.reserved / 1000 * EASY_PART);
    }

    #[test]
    fn limits_say_how_much_stays() {
        let disk = |free: u64| Disk { size: 100 * GB, free: free * GB };
        let limits = Limits { reserved: 10 * GB, most: 80 * GB, free: 20 * GB };
        assert_eq!(limits.keep(5 * GB, disk(60)), 80 * GB);
        assert_eq!(limits.keep(50 * GB, disk(5)), 35 * GB);
        assert_eq!(limits.keep(12 * GB, disk(0)), 10 * GB);
        assert_eq!(Limits { reserved: GB, ..Limits::default() }.keep(9 * GB, disk(1)), GB);
        assert_eq!(Limits { free: GB, ..Limits::default() }.keep(9 * GB, disk(1)), 9 * GB);
        assert_eq!(Limits { free: 3 * GB, ..Limits::default() }.keep(9 * GB, disk(1)), 7 * GB);
        assert_eq!(Limits::default().keep(9 * GB, disk(1)), 0);
    }

    #[test]
    fn the_references_keys_are_read() {
        let settings = parsed(&json!({
            "gc": {"enabled": true, "policy": [
                {"keepStorage": "10GB", "filter": ["unused-for=2200h"]},
                {"reservedSpace": "50GB", "maxUsedSpace": "60GB", "minFreeSpace": "1GB", "filter": ["unused-for=48h", "type==regular"]},
                {"all": true, "keepStorage": "100GB"},
            ]},
            "Entitlements": {"network-host": false, "security-insecure": true},
            "History": {"MaxAge": "72h", "MaxEntries": 7},
        }));
        let Collection::Rules(rules) = &settings.collection else { panic!("no rules") };
        assert_eq!((rules[0].limits.reserved, rules[0].unused.as_secs()), (10 << 30, 2200 * 3600));
        assert_eq!(rules[1].filters.get("type").collect::<Vec<_>>(), ["regular"]);
        assert!(rules[2].all);
        assert_eq!(settings.entitlements, Entitlements { network_host: false, insecure: true, device: true });
        assert_eq!((settings.history_entries, settings.history_age.as_secs()), (7, 72 * 3600));
        let kept = parsed(&json!({"gc": {"defaultKeepStorage": "20GB"}}));
        assert_eq!(kept.collection, Collection::Usual(Limits { reserved: 20 << 30, ..Limits::default() }));
        assert_eq!(parsed(&json!({"gc": {"enabled": false}})).collection, Collection::Off);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (value, why) in [
            (json!({"gc": {"policy": {}}}), "a list is expected"),
            (json!({"gc": {"defaultKeepStorage": "much"}}), "failed to parse defaultKeepStorage"),
            (json!({"gc": {"policy": [{"filter": ["color=red"]}]}}), "invalid filter \"color\""),
            (json!({"gc": {"policy": [{"filter": ["until=x"]}]}}), "\"until\""),
            (json!({"history": {"maxAge": []}}), "a duration is expected"),
            (json!({"entitlements": {"x": true}}), "unknown key \"x\" of entitlements"),
            (json!({"other": 1}), "unknown key \"other\""),
            (json!([]), "an object is expected"),
        ] {
            let error = Settings::parse(&value).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
