//! What the configuration says of volumes: schedules of snapshots, and sizes at which somebody is told. Pure.
//!
//! `"volume-snapshots": {"hourly": {"volumes": ["db", "app-*"], "every": "1h", "keep": 24, "freeze": true}}` and
//! `"volume-alarms": {"interval": "5m", "volumes": {"db": "10g", "*": "50g"}}`.

use std::time::Duration;

use model::time::Timestamp;
use model::{duration, units};
use serde_json::{Map, Value};

use crate::Snapshot;

/// Bounds of times between snapshots.
const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(366 * 24 * 3600));
/// Bounds of times between two looks at sizes, and the usual one.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
const USUAL_INTERVAL: &str = "5m";
/// Snapshots that one schedule may keep of one volume.
const MAX_KEEP: u64 = 10_000;
/// Bytes of a schedule's name: it becomes part of names of snapshots.
const MAX_NAME: usize = 32;

/// When snapshots of which volumes are taken, and how many stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What it is called.
    pub name: String,
    /// Names of volumes; `*` stands for any characters.
    pub volumes: Vec<String>,
    /// Time between two snapshots of one volume.
    pub every: Duration,
    /// The newest so many stay.
    pub keep: usize,
    /// The containers that use the volume stand still for the moment.
    pub freeze: bool,
}

/// Sizes at which somebody is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarms {
    /// Time between two looks.
    pub interval: Duration,
    /// Pattern of names and bytes, in the order of the file: the first that matches counts.
    pub limits: Vec<(String, u64)>,
}

impl Schedule {
    /// Reads the value of the key `volume-snapshots`. An error is for the user.
    pub fn parse(value: &Value) -> Result<Vec<Schedule>, String> {
        let key = "volume-snapshots";
        let all = object(value).map_err(|why| format!("invalid {key}: {why}"))?;
        let one = |(name, value): (&String, &Value)| {
            Schedule::read(name, value).map_err(|why| format!("invalid {key}: {name:?}: {why}"))
        };
        all.into_iter().flatten().map(one).collect()
    }

    fn read(name: &str, value: &Value) -> Result<Schedule, String> {
        if crate::name::validate(name).is_err() || name.len() > MAX_NAME {
            return Err(format!("a name of at most {MAX_NAME} characters as of a volume is expected"));
        }
        let object = object(value)?.ok_or("an object is expected")?;
        known(object, &["volumes", "every", "keep", "freeze"])?;
        let volumes =
            object.get("volumes").and_then(Value::as_array).ok_or("\"volumes\": a list of names is expected")?;
        let volumes = volumes.iter().map(|value| match value.as_str() {
            Some(pattern) if !pattern.is_empty() => Ok(pattern.to_owned()),
            _ => Err(format!("\"volumes\": invalid name: {value}")),
        });
        let keep = object.get("keep").and_then(Value::as_u64).filter(|keep| (1..=MAX_KEEP).contains(keep));
        Ok(Schedule {
            name: name.to_owned(),
            volumes: volumes.collect::<Result<_, _>>()?,
            every: time(object.get("every").ok_or("\"every\" is missing")?, EVERY)
                .map_err(|why| format!("\"every\": {why}"))?,
            keep: keep.ok_or(format!("\"keep\": a number from 1 to {MAX_KEEP} is expected"))? as usize,
            freeze: match object.get("freeze") {
                None => false,
                Some(value) => value.as_bool().ok_or(format!("\"freeze\": true or false is expected, not {value}"))?,
            },
        })
    }

    /// Whether it speaks of this volume.
    pub fn covers(&self, volume: &str) -> bool {
        self.volumes.iter().any(|pattern| matches(pattern, volume))
    }

    /// Its snapshots of a volume, newest first.
    fn own<'s>(&self, volume: &str, all: &'s [Snapshot]) -> Vec<&'s Snapshot> {
        let mut own: Vec<_> = all.iter().filter(|one| one.volume == volume && one.schedule == self.name).collect();
        own.sort_by_key(|one| std::cmp::Reverse(one.created));
        own
    }

    /// Whether a snapshot of the volume is due. One of the future was taken by a clock that went wrong.
    pub fn is_due(&self, volume: &str, all: &[Snapshot], now: Timestamp) -> bool {
        self.own(volume, all)
            .first()
            .is_none_or(|newest| newest.created > now || newest.created.plus(self.every) <= now)
    }

    /// Those that go.
    pub fn expired(&self, volume: &str, all: &[Snapshot]) -> Vec<String> {
        self.own(volume, all).into_iter().skip(self.keep).map(|one| one.name.clone()).collect()
    }
}

impl Alarms {
    /// Reads the value of the key `volume-alarms`; `None`: there is none. An error is for the user.
    pub fn parse(value: &Value) -> Result<Option<Alarms>, String> {
        Alarms::read(value).map_err(|why| format!("invalid volume-alarms: {why}"))
    }

    fn read(value: &Value) -> Result<Option<Alarms>, String> {
        let Some(all) = object(value)? else { return Ok(None) };
        known(all, &["interval", "volumes"])?;
        let usual = Value::from(USUAL_INTERVAL);
        let interval =
            time(all.get("interval").unwrap_or(&usual), INTERVAL).map_err(|why| format!("\"interval\": {why}"))?;
        let limits = object(all.get("volumes").unwrap_or(&Value::Null))?.ok_or("\"volumes\" is missing")?;
        let limits = limits.iter().map(|(pattern, value)| {
            let bytes = match value {
                Value::Number(number) => number.as_u64(),
                Value::String(text) => units::ram_in_bytes(text).ok().and_then(|bytes| u64::try_from(bytes).ok()),
                _ => None,
            };
            match bytes.filter(|bytes| *bytes > 0) {
                Some(bytes) => Ok((pattern.clone(), bytes)),
                None => Err(format!("{pattern:?}: invalid size: {value}")),
            }
        });
        Ok(Some(Alarms { interval, limits: limits.collect::<Result<_, _>>()? }))
    }

    /// Bytes above which a volume is too large; `None`: nobody is told.
    pub fn limit(&self, volume: &str) -> Option<u64> {
        self.limits.iter().find(|(pattern, _)| matches(pattern, volume)).map(|(_, bytes)| *bytes)
    }
}

fn object(value: &Value) -> Result<Option<&Map<String, Value>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Object(object) => Ok(Some(object)),
        other => Err(format!("an object is expected, not {other}")),
    }
}

fn known(object: &Map<String, Value>, keys: &[&str]) -> Result<(), String> {
    match object.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => Err(format!("unknown key {key:?}")),
        None => Ok(()),
    }
}

fn time(value: &Value, (least, most): (Duration, Duration)) -> Result<Duration, String> {
    let text = value.as_str().ok_or_else(|| format!("a duration is expected, not {value}"))?;
    let nanos = duration::parse(text).map_err(|error| error.message().to_owned())?;
    let time = u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| format!("{text} is negative"))?;
    if time < least || time > most {
        return Err(format!("{text} is not between {} s and {} s", least.as_secs(), most.as_secs()));
    }
    Ok(time)
}

/// Whether a name is that of a pattern, in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn schedules_are_read_or_refused_by_name() {
        let read = |value: Value| Schedule::parse(&value);
        assert_eq!(read(Value::Null), Ok(Vec::new()));
        let hourly = json!({"hourly": {"volumes": ["db", "app-*"], "every": "1h30m", "keep": 24, "freeze": true}});
        let parsed = read(hourly).unwrap().remove(0);
        assert_eq!((parsed.every.as_secs(), parsed.keep, parsed.freeze), (5400, 24, true));
        assert!(parsed.covers("db") && parsed.covers("app-1") && !parsed.covers("db2") && !parsed.covers("xapp-1"));
        let text = |value: Value| read(json!({"n1": value})).unwrap_err();
        for (value, why) in [
            (json!(1), "an object is expected, not 1"),
            (json!({"volumes": [""], "every": "1h", "keep": 1}), "\"volumes\": invalid name: \"\""),
            (json!({"every": "1h", "keep": 1}), "\"volumes\": a list of names is expected"),
            (json!({"volumes": [], "keep": 1}), "\"every\" is missing"),
            (json!({"volumes": [], "every": "1ms", "keep": 1}), "\"every\": 1ms is not between 1 s and 31622400 s"),
            (json!({"volumes": [], "every": "1h", "keep": 0}), "\"keep\": a number from 1 to 10000 is expected"),
            (json!({"volumes": [], "every": "1h", "keep": 1, "keeps": 1}), "unknown key \"keeps\""),
            (
                json!({"volumes": [], "every": "1h", "keep": 1, "freeze": 1}),
                "\"freeze\": true or false is expected, not 1",
            ),
        ] {
            assert_eq!(text(value), format!("invalid volume-snapshots: \"n1\": {why}"));
        }
        assert!(read(json!({"a/b": {}})).is_err() && read(json!([])).is_err());
    }

    #[test]
    fn what_is_due_and_what_goes() {
        let schedule = Schedule {
            name: "daily".into(),
            volumes: vec!["v".into()],
            every: Duration::from_secs(100),
            keep: 2,
            freeze: false,
        };
        let one = |name: &str, at: i64, schedule: &str| Snapshot {
            name: name.into(),
            volume: "v".into(),
            created: Timestamp::from_unix_seconds(at),
            labels: BTreeMap::new(),
            schedule: schedule.into(),
        };
        let at = Timestamp::from_unix_seconds;
        assert!(schedule.is_due("v", &[], at(0)));
        let all = [one("s1", 100, "daily"), one("s3", 300, "daily"), one("s2", 200, "daily"), one("by-hand", 1, "")];
        assert!(!schedule.is_due("v", &all, at(399)) && schedule.is_due("v", &all, at(400)));
        assert!(schedule.is_due("v", &all, at(250)), "a clock that went wrong");
        assert!(schedule.is_due("w", &all, at(301)));
        assert_eq!(schedule.expired("v", &all), ["s1"]);
    }

    #[test]
    fn alarms_are_read_or_refused_by_name() {
        assert_eq!(Alarms::parse(&Value::Null), Ok(None));
        let alarms = Alarms::parse(&json!({"volumes": {"db": "10m", "d*b*": 5, "*": "1g"}})).unwrap().unwrap();
        assert_eq!(alarms.interval.as_secs(), 300);
        let limits = ["db", "dxb", "dxby", "other"].map(|name| alarms.limit(name).unwrap());
        assert_eq!(limits, [10 << 20, 5, 5, 1 << 30]);
        for value in [json!(1), json!({}), json!({"volumes": {"v": "x"}}), json!({"volumes": {}, "interval": 1})] {
            assert!(Alarms::parse(&value).unwrap_err().starts_with("invalid volume-alarms: "));
        }
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("a*a", "a", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "ac", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
