//! Health checks: what the results of probes make of a container's health, and when the next probe is due (B-hc-1 to
//! B-hc-3).

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::{Error, Result};

/// Between the end of a probe and the next, and before the first.
pub const INTERVAL: Duration = Duration::from_secs(30);
/// How long a probe may take.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// Between probes of a container that has not been healthy yet, in its start period.
pub const START_INTERVAL: Duration = Duration::from_secs(5);
/// Failures in a row that make a container unhealthy.
pub const RETRIES: u32 = 3;
/// Results that are kept.
pub const LOG_ENTRIES: usize = 5;
/// Bytes of a probe's output that are kept.
pub const OUTPUT_BYTES: usize = 4096;
/// The exit code of a probe that has none: it took too long or could not be started.
pub const NO_EXIT_CODE: i32 = -1;

/// What is known of a container's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// No probe has passed since its start, and not too many have failed.
    #[default]
    Starting,
    /// The last probe passed, or not too many have failed since one did.
    Healthy,
    /// Too many probes have failed in a row, or the container does not run.
    Unhealthy,
}

impl Status {
    /// The API's word.
    pub fn word(self) -> &'static str {
        match self {
            Status::Starting => "starting",
            Status::Healthy => "healthy",
            Status::Unhealthy => "unhealthy",
        }
    }

    /// The words in the list's `Up 3 minutes (health: starting)`.
    pub fn text(self) -> &'static str {
        match self {
            Status::Starting => "health: starting",
            other => other.word(),
        }
    }
}

/// The outcome of one probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// When it was asked for.
    pub start: Timestamp,
    /// When it had ended.
    pub end: Timestamp,
    /// 0: the container is healthy; [`NO_EXIT_CODE`].
    pub exit_code: i32,
    /// At most [`OUTPUT_BYTES`] and the sign of what was cut off.
    pub output: String,
}

/// A container's health with the newest results, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// The state.
    pub status: Status,
    /// Failures in a row that count.
    pub failing_streak: u32,
    /// At most [`LOG_ENTRIES`].
    pub log: Vec<Probed>,
}

/// What a result has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// There is another status: clients are told.
    pub status: bool,
    /// This was the failure that made the container unhealthy.
    pub has_failed: bool,
    /// More than the log: it has to be on the disk. Of a container that stays unhealthy the streak alone is not.
    pub is_durable: bool,
}

impl Health {
    /// At the start of a run: nothing is known. The log goes on.
    pub fn begin(&mut self) {
        (self.status, self.failing_streak) = (Status::Starting, 0);
    }

    /// No probe is made any more: the container is paused or has ended.
    pub fn suspend(&mut self) {
        self.status = Status::Unhealthy;
    }

    /// Takes note of a result; `since_start`: from the start of the run to that of the probe.
    pub fn note(&mut self, result: Probed, rules: &Rules, since_start: Duration) -> Change {
        let before = (self.status, self.failing_streak);
        let has_passed = result.exit_code == 0;
        self.log.push(result);
        let surplus = self.log.len().saturating_sub(LOG_ENTRIES);
        self.log.drain(..surplus);
        if has_passed {
            (self.status, self.failing_streak) = (Status::Healthy, 0);
        } else if self.status != Status::Starting || since_start >= rules.start_period {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= rules.retries {
                self.status = Status::Unhealthy;
            }
        }
        let status = self.status != before.0;
        let counts = self.failing_streak != before.1 && before.1 < rules.retries;
        Change { status, has_failed: counts && self.failing_streak >= rules.retries, is_durable: status || counts }
    }
}

/// How a container is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Between probes.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// After the start of the run failures do not count for so long, unless a probe has passed.
    pub start_period: Duration,
    /// Between probes in that time.
    pub start_interval: Duration,
    /// Failures in a row.
    pub retries: u32,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            interval: INTERVAL,
            timeout: TIMEOUT,
            start_period: Duration::ZERO,
            start_interval: START_INTERVAL,
            retries: RETRIES,
        }
    }
}

impl Rules {
    /// The pause before the next probe, `since_start` after the start of the run.
    pub fn pause(&self, status: Status, since_start: Duration) -> Duration {
        let starts = status == Status::Starting && since_start < self.start_period;
        if starts { self.start_interval } else { self.interval }
    }
}

/// What is probed from inside the container's network, without a program of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `None`: the loopback addresses, that of IPv4 first.
    pub address: Option<IpAddr>,
    /// Where it listens.
    pub port: u16,
    /// The path of an HTTP request; `None`: a connection is enough.
    pub path: Option<String>,
}

/// Bytes of a path at most.
const PATH_BYTES: usize = 2048;

impl Target {
    /// From `http://:8080/ready` or `tcp://127.0.0.1:5432`.
    ///
    /// Errors: `InvalidParameter` with what is wrong.
    pub fn parse(text: &str) -> Result<Target> {
        let refuse = |why: &str| Error::invalid(format!("invalid target {text:?} of a health check: {why}"));
        let (place, path) = if let Some(rest) = text.strip_prefix("http://") {
            let slash = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (place, path) = rest.split_at(slash);
            (place, Some(if path.is_empty() { "/" } else { path }))
        } else if let Some(rest) = text.strip_prefix("tcp://") {
            (rest.strip_suffix('/').unwrap_or(rest), None)
        } else {
            return Err(refuse("it begins with http:// or tcp://"));
        };
        if let Some(path) = path
            && (!path.starts_with('/') || path.len() > PATH_BYTES || !path.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(refuse("the path begins with a slash and has printable characters of ASCII only"));
        }
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
            None if path.is_some() => (place, "80"),
            _ => return Err(refuse("it names no port")),
        };
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| is_number && *port != 0);
        let port = port.ok_or_else(|| refuse("the port is a number from 1 to 65535"))?;
        let address = match host {
            "" | "localhost" => None,
            other => {
                let bare = other.strip_prefix('[').and_then(|other| other.strip_suffix(']'));
                let address = bare.map_or_else(|| other.parse().map(IpAddr::V4), |bare| bare.parse().map(IpAddr::V6));
                Some(address.map_err(|_| refuse("the host is empty, localhost or an address"))?)
            }
        };
        Ok(Target { address, port, path: path.map(str::to_owned) })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.path.is_some() { "http://" } else { "tcp://" })?;
        match self.address {
            None => {}
            Some(IpAddr::V4(address)) => write!(f, "{address}")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]")?,
        }
        write!(f, ":{}{}", self.port, self.path.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(exit_code: i32) -> Probed {
        Probed { exit_code, ..Probed::default() }
    }

    const LATE: Duration = Duration::from_secs(1000);

    /// B-hc-3
    #[test]
    fn failures_in_a_row_make_unhealthy_and_one_success_makes_healthy() {
        let (mut health, rules) = (Health::default(), Rules::default());
        let mut seen = Vec::new();
        for code in [1, 1, 1, 1, 0, 1, 1, 0, 0, NO_EXIT_CODE, 2, 126, 1] {
            let Change { status, has_failed, is_durable } = health.note(result(code), &rules, LATE);
            seen.push((health.status, health.failing_streak, status, has_failed, is_durable));
        }
        use Status::*;
        let wanted = [
            (Starting, 1, false, false, true),
            (Starting, 2, false, false, true),
            (Unhealthy, 3, true, true, true),
            (Unhealthy, 4, false, false, false),
            (Healthy, 0, true, false, true),
            (Healthy, 1, false, false, true),
            (Healthy, 2, false, false, true),
            (Healthy, 0, false, false, true),
            (Healthy, 0, false, false, false),
            (Healthy, 1, false, false, true),
            (Healthy, 2, false, false, true),
            (Unhealthy, 3, true, true, true),
            (Unhealthy, 4, false, false, false),
        ];
        assert_eq!(seen, wanted);
        assert_eq!(health.log.len(), LOG_ENTRIES);
        assert_eq!(health.log.iter().map(|one| one.exit_code).collect::<Vec<_>>(), [0, NO_EXIT_CODE, 2, 126, 1]);
    }

    /// B-hc-2
    #[test]
    fn failures_of_the_start_period_do_not_count_until_a_probe_has_passed() {
        let rules = Rules { start_period: Duration::from_secs(10), retries: 1, ..Rules::default() };
        let mut health = Health::default();
        for seconds in [1, 5, 9] {
            let change = health.note(result(1), &rules, Duration::from_secs(seconds));
            assert_eq!((change.is_durable, health.status, health.failing_streak), (false, Status::Starting, 0));
        }
        assert!(health.note(result(0), &rules, Duration::from_secs(9)).status);
        assert!(health.note(result(1), &rules, Duration::from_secs(9)).has_failed);
        health.begin();
        assert_eq!((health.status, health.failing_streak, health.log.len()), (Status::Starting, 0, 5));
        assert!(health.note(result(1), &rules, Duration::from_secs(10)).has_failed);
    }

    /// B-hc-2
    #[test]
    fn the_start_period_has_an_interval_of_its_own() {
        let rules = Rules { start_period: Duration::from_secs(10), ..Rules::default() };
        let at = Duration::from_secs;
        assert_eq!(rules.pause(Status::Starting, at(0)), START_INTERVAL);
        assert_eq!(rules.pause(Status::Starting, at(10)), INTERVAL);
        assert_eq!(rules.pause(Status::Healthy, at(0)), INTERVAL);
        assert_eq!(Rules::default().pause(Status::Starting, at(0)), INTERVAL);
    }

    /// A container that was paused is told of again when a probe passes; its streak goes on.
    #[test]
    fn who_is_not_probed_is_not_healthy() {
        let (mut health, rules) = (Health::default(), Rules::default());
        health.note(result(0), &rules, LATE);
        health.suspend();
        assert_eq!(health.status, Status::Unhealthy);
        assert!(health.note(result(0), &rules, LATE).status);
        health.suspend();
        let failures = [1, 2, 3, 4].map(|_| health.note(result(1), &rules, LATE).has_failed);
        assert_eq!(failures, [false, false, true, false]);
    }

    #[test]
    fn targets_are_read_and_shown() {
        for (text, shown) in [
            ("http://:8080/ready", "http://:8080/ready"),
            ("http://localhost", "http://:80/"),
            ("http://:80?x=1", ""),
            ("http://127.0.0.1:81/a?b=c#d", "http://127.0.0.1:81/a?b=c#d"),
            ("http://[::1]:81", "http://[::1]:81/"),
            ("tcp://:5432", "tcp://:5432"),
            ("tcp://10.0.0.1:1/", "tcp://10.0.0.1:1"),
            ("tcp://[fe80::1]:65535", "tcp://[fe80::1]:65535"),
        ] {
            assert_eq!(Target::parse(text).map_or(String::new(), |target| target.to_string()), shown, "{text}");
        }
        for text in [
            "",
            "http",
            ":80",
            "https://:1/",
            "tcp://",
            "tcp://:",
            "tcp://:0",
            "tcp://:65536",
            "tcp://:+1",
            "tcp://:1/x",
            "tcp://::1:80",
            "tcp://[::1]",
            "http://host:80/",
            "http://:80/a b",
            "http://:80/\r\nX: y",
            "http://:80/é",
            "tcp://user@:80",
            "http://::1/",
        ] {
            let refused = Target::parse(text).expect_err(text);
            assert!(refused.message().starts_with("invalid target "), "{text}: {refused}");
        }
    }
}
