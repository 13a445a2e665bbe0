//! Gantry's own labels: those of a container that begin with `gantry.` and mean something to the engine.
//!
//! Only the request that creates a container can give them. They are read once, at create, into [`OwnLabels`]; nothing
//! reads them out of the container's labels later. An image's label of the prefix is not inherited, since an image must
//! not decide what protects the host from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::egress::{EGRESS, Egress};
use crate::grant::Grant;
use crate::health::Target;
use crate::{Error, Result};

/// What all of them begin with.
pub const PREFIX: &str = "gantry.";

/// Of a container: prunes leave it alone. Of an image: the collector leaves it alone. `false` is as good as no label.
pub const KEEP: &str = "gantry.keep";

/// `on-unhealthy` or `on-unhealthy:<n>`: a container that becomes unhealthy is restarted, at most `n` times in a row.
pub const RESTART: &str = "gantry.restart";

/// What is probed from inside the container's network in place of a command ([`Target`]).
pub const HEALTH: &str = "gantry.health";

/// How long a container waits, when the daemon starts, for those that it needs: a duration like `30s`.
pub const START_WAIT: &str = "gantry.start-wait";

/// Secrets of the host that the container gets as files at `/run/secrets` ([`Grant`]).
pub const SECRETS: &str = "gantry.secrets";

/// Configs of the host, at `/run/configs`.
pub const CONFIGS: &str = "gantry.configs";

/// What a container's own labels ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnLabels {
    /// [`KEEP`].
    pub keep: bool,
    /// [`EGRESS`]: all that the container may reach; `None` = whatever its networks let it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// [`SECRETS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Grant>,
    /// [`CONFIGS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<Grant>,
    /// [`RESTART`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<OnUnhealthy>,
    /// [`HEALTH`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Target>,
    /// [`START_WAIT`], in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_wait: Option<u64>,
}

/// Restarts of a container that has become unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnUnhealthy {
    /// So many in a row at most; `None`: without limit.
    pub limit: Option<u32>,
}

impl OnUnhealthy {
    /// The word of the label, with or without a number that is not 0.
    fn parse(value: &str) -> Result<OnUnhealthy> {
        let refuse = || {
            let text = format!("invalid label {RESTART}={value:?}: it is \"on-unhealthy\" or \"on-unhealthy:<n>\"");
            Error::invalid(text)
        };
        match value.split_once(':') {
            None if value == "on-unhealthy" => Ok(OnUnhealthy { limit: None }),
            Some(("on-unhealthy", number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                let limit = number.parse().ok().filter(|limit| *limit > 0).ok_or_else(refuse)?;
                Ok(OnUnhealthy { limit: Some(limit) })
            }
            _ => Err(refuse()),
        }
    }
}

impl OwnLabels {
    /// Reads the labels of a create request; labels without the prefix are anybody's.
    ///
    /// Errors: `InvalidParameter` for a label of the prefix that this version does not know, which may be meant to protect
    /// something, and for a malformed value.
    pub fn parse(labels: &BTreeMap<String, String>) -> Result<OwnLabels> {
        let mut own = OwnLabels::default();
        for (name, value) in labels.iter().filter(|(name, _)| is_own(name)) {
            match name.as_str() {
                KEEP => own.keep = asks_to_keep(value),
                EGRESS => own.egress = Some(Egress::parse(value)?),
                SECRETS => own.secrets = Grant::parse(SECRETS, value)?,
                CONFIGS => own.configs = Grant::parse(CONFIGS, value)?,
                RESTART => own.restart = Some(OnUnhealthy::parse(value)?),
                START_WAIT => own.start_wait = Some(wait(value)?),
                HEALTH => own.health = Some(Target::parse(value)?),
                _ => {
                    return Err(Error::invalid(format!(
                        "unknown label {name:?}: labels that begin with {PREFIX:?} are those of the engine, and it has \
                         none of this name"
                    )));
                }
            }
        }
        Ok(own)
    }
}

/// The longest wait that anybody may ask for, in nanoseconds.
const LONGEST_WAIT: i64 = 3_600_000_000_000;

/// A wait at the start, in nanoseconds; `None`: the text is no duration, or longer than an hour.
pub fn parse_start_wait(value: &str) -> Option<u64> {
    let nanos = crate::duration::parse(value).ok().filter(|nanos| (0..=LONGEST_WAIT).contains(nanos))?;
    u64::try_from(nanos).ok()
}

/// Reads a value of [`START_WAIT`].
fn wait(value: &str) -> Result<u64> {
    parse_start_wait(value).ok_or_else(|| {
        Error::invalid(format!(
            "invalid label {START_WAIT}={value:?}: it is a duration of at most one hour, like \"30s\""
        ))
    })
}

/// Whether a label is one of the engine's.
pub fn is_own(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// What a value of [`KEEP`] means.
pub fn asks_to_keep(value: &str) -> bool {
    value != "false"
}

/// The warning for a container whose image has labels of the engine; [`KEEP`] is meant for the image itself.
pub fn warning(image_labels: &BTreeMap<String, String>) -> Option<String> {
    let names: Vec<&str> =
        image_labels.keys().map(String::as_str).filter(|name| is_own(name) && *name != KEEP).collect();
    (!names.is_empty()).then(|| {
        format!(
            "The image's labels have no effect: {}. Labels that begin with {PREFIX:?} count only when the container is \
             created with them",
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn known_labels_are_typed() {
        let keep = |pairs: &[(&str, &str)]| OwnLabels::parse(&labels(pairs)).expect("known").keep;
        assert!(keep(&[("gantry.keep", "")]) && keep(&[("gantry.keep", "yes"), ("x", "y")]));
        assert!(!keep(&[]) && !keep(&[("gantry.keep", "false")]));
        // Labels of others.
        assert!(!keep(&[("Gantry.keep", ""), ("gantry", ""), ("org.gantry.keep", ""), ("gantrykeep", "")]));
    }

    #[test]
    fn labels_of_health_are_typed_or_refused() {
        let own = |name: &str, value: &str| OwnLabels::parse(&labels(&[(name, value)]));
        let limit = |value: &str| own(RESTART, value).map(|own| own.restart.and_then(|restart| restart.limit));
        assert_eq!(limit("on-unhealthy").expect("no limit"), None);
        assert_eq!(limit("on-unhealthy:3").expect("a limit"), Some(3));
        for value in
            ["", "always", "on-unhealthy:", "on-unhealthy:0", "on-unhealthy:-1", "on-unhealthy:+1", "on-failure"]
        {
            assert!(limit(value).expect_err(value).message().starts_with("invalid label gantry.restart="));
        }
        let health = own(HEALTH, "tcp://:5432").expect("a target").health;
        assert_eq!(health.map(|target| target.to_string()).as_deref(), Some("tcp://:5432"));
        assert!(own(HEALTH, "true").is_err());
        let wait = |value: &str| own(START_WAIT, value).map(|own| own.start_wait);
        assert_eq!(wait("1m30s").expect("a wait"), Some(90_000_000_000));
        for value in ["", "5", "-1s", "61m", "x"] {
            assert!(wait(value).expect_err(value).message().starts_with("invalid label gantry.start-wait="));
        }
        // Rows of earlier versions have none of it, and their readers meet nothing new.
        let plain = serde_json::to_string(&OwnLabels::default()).expect("JSON");
        assert_eq!(plain, r#"{"keep":false}"#);
    }

    #[test]
    fn unknown_labels_are_refused_by_name() {
        for name in ["gantry.", "gantry.egress2", "gantry.Egress", "gantry.Keep", "gantry.keep ", "gantry.keep.x"] {
            let error = OwnLabels::parse(&labels(&[(name, "x")])).expect_err(name);
            assert_eq!(error.kind(), crate::Kind::InvalidParameter);
            assert!(error.message().starts_with(&format!("unknown label {name:?}: ")), "{error}");
        }
    }

    #[test]
    fn labels_of_images_are_warned_about() {
        assert_eq!(warning(&labels(&[("a", ""), ("gantry.keep", "")])), None);
        let text = warning(&labels(&[("gantry.secrets", "db"), ("gantry.egress", "all")])).expect("a warning");
        assert!(text.starts_with("The image's labels have no effect: gantry.egress, gantry.secrets. "), "{text}");
    }
}
