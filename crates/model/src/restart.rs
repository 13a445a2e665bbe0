//! Restart policies: how they are written and when they start a container again (B-rs-1, B-rs-2).

use std::time::Duration;

use crate::{Error, Result};

/// The first back-off.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest back-off.
pub const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A run of this length starts the back-off anew.
pub const GOOD_RUN: Duration = Duration::from_secs(10);

/// When a container is started again after it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Never.
    #[default]
    No,
    /// Always; after a manual stop, when the daemon starts.
    Always,
    /// Always, but never after a manual stop.
    UnlessStopped,
    /// After an exit code other than 0, at most so many times (0: no limit).
    OnFailure {
        /// The limit.
        max_retries: u32,
    },
}

impl Policy {
    /// From the API's name and count; the texts are the reference's.
    pub fn parse(name: &str, max_retries: i64) -> Result<Policy> {
        let refuse = |why: String| Err(Error::invalid(format!("invalid restart policy: {why}")));
        let policy = match name {
            "always" => Policy::Always,
            "unless-stopped" => Policy::UnlessStopped,
            "no" => Policy::No,
            // Old engines stored no name; such a policy is taken with any count.
            "" => return Ok(Policy::No),
            "on-failure" => {
                return match u32::try_from(max_retries) {
                    Ok(max_retries) => Ok(Policy::OnFailure { max_retries }),
                    Err(_) if max_retries > 0 => Ok(Policy::OnFailure { max_retries: u32::MAX }),
                    Err(_) => refuse("maximum retry count cannot be negative".into()),
                };
            }
            other => {
                return refuse(format!(
                    "unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
                ));
            }
        };
        match max_retries {
            0 => Ok(policy),
            n if n < 0 => {
                refuse("maximum retry count can only be used with 'on-failure' and cannot be negative".into())
            }
            _ => refuse("maximum retry count can only be used with 'on-failure'".into()),
        }
    }

    /// Whether it is [`Policy::No`].
    pub fn is_none(self) -> bool {
        self == Policy::No
    }

    /// Whether a run that ended so is followed by another; `count` restarts were made before.
    pub fn restarts(self, exit_code: i32, manually_stopped: bool, count: u32) -> bool {
        match self {
            Policy::No => false,
            Policy::Always => true,
            Policy::UnlessStopped => !manually_stopped,
            Policy::OnFailure { max_retries } => exit_code != 0 && (max_retries == 0 || count < max_retries),
        }
    }

    /// Whether its runs are numbered: each restart must be counted, whatever becomes of the daemon meanwhile.
    pub fn counts(self) -> bool {
        matches!(self, Policy::OnFailure { .. })
    }

    /// Whether the daemon's start brings back a container that ran before and ended so (B-rs-4). The reference asks the
    /// same question as at the end of a run; that `always` forgets a manual stop is the policy's own rule.
    pub fn restarts_at_boot(self, exit_code: i32, manually_stopped: bool, count: u32) -> bool {
        self.restarts(exit_code, manually_stopped, count)
    }
}

/// The pause before the next restart: it doubles with each, and starts anew after a good run. `last` is zero before the
/// first.
pub fn backoff(last: Duration, lasted: Duration) -> Duration {
    match last.is_zero() || lasted >= GOOD_RUN {
        true => FIRST_DELAY,
        false => (last * 2).min(LONGEST_DELAY),
    }
}

/// The pause before a container that was unhealthy is started again, after so many such restarts in a row: it doubles
/// with each.
pub fn backoff_after(restarts: u32) -> Duration {
    FIRST_DELAY.saturating_mul(2_u32.saturating_pow(restarts)).min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, count: i64) -> String {
        Policy::parse(name, count).unwrap_err().message().to_owned()
    }

    /// B-rs-1
    #[test]
    fn policies_are_read() {
        assert_eq!(Policy::parse("", 0).unwrap(), Policy::No);
        assert_eq!(Policy::parse("", 3).unwrap(), Policy::No);
        assert_eq!(Policy::parse("no", 0).unwrap(), Policy::No);
        assert_eq!(Policy::parse("always", 0).unwrap(), Policy::Always);
        assert_eq!(Policy::parse("unless-stopped", 0).unwrap(), Policy::UnlessStopped);
        assert_eq!(Policy::parse("on-failure", 3).unwrap(), Policy::OnFailure { max_retries: 3 });
    }

    /// The texts of `restart policy bad` and of the newest reference.
    #[test]
    fn refusals_have_the_references_words() {
        assert_eq!(
            message("zz", 0),
            "invalid restart policy: unknown policy 'zz'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        );
        let only = "invalid restart policy: maximum retry count can only be used with 'on-failure'";
        assert_eq!(message("always", 1), only);
        assert_eq!(message("no", -1), format!("{only} and cannot be negative"));
        assert_eq!(message("on-failure", -1), "invalid restart policy: maximum retry count cannot be negative");
    }

    /// B-rs-1
    #[test]
    fn the_pause_doubles_up_to_a_minute_and_starts_anew_after_a_good_run() {
        let mut pauses = vec![Duration::ZERO];
        for _ in 0..12 {
            pauses.push(backoff(pauses[pauses.len() - 1], Duration::from_secs(1)));
        }
        let millis: Vec<_> = pauses[1..].iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
        assert_eq!(backoff(LONGEST_DELAY, GOOD_RUN), FIRST_DELAY);
        let counted = [0, 1, 9, 10, u32::MAX].map(|n| backoff_after(n).as_millis());
        assert_eq!(counted, [100, 200, 51_200, 60_000, 60_000]);
    }

    /// B-rs-2
    #[test]
    fn policies_decide_as_the_references() {
        let limited = Policy::OnFailure { max_retries: 2 };
        assert!(limited.restarts(1, false, 1) && !limited.restarts(1, false, 2) && !limited.restarts(0, false, 0));
        assert!(Policy::OnFailure { max_retries: 0 }.restarts(1, false, 1000));
        assert!(Policy::Always.restarts_at_boot(0, true, 0));
        assert!(!Policy::UnlessStopped.restarts_at_boot(0, true, 0) && Policy::UnlessStopped.restarts(0, false, 0));
        assert!(!Policy::No.restarts(1, false, 0));
    }
}
