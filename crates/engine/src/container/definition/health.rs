//! What a container's definition says of its health checks, and what of it goes against something else.

use std::time::Duration;

use model::health::{Rules, Target};
use model::own_label::{HEALTH, OwnLabels, RESTART};
use model::{Error, Result};

use super::Definition;

/// What is done to probe a container.
pub enum How {
    /// A command in it.
    Command(Vec<String>),
    /// A connection from inside its network.
    Reach(Target),
}

/// `None`: it has no health check. Of a kind that nobody knows create has warned.
pub fn how(row: &Definition) -> Option<How> {
    if let Some(target) = &row.own_labels.health {
        return Some(How::Reach(target.clone()));
    }
    let (kind, words) = row.config.healthcheck.as_ref()?.test.split_first()?;
    match kind.as_str() {
        "CMD" => Some(How::Command(words.to_vec())),
        "CMD-SHELL" => {
            let shell = Some(row.config.shell.clone()).filter(|shell| !shell.is_empty());
            let shell = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
            let has_command = !words.is_empty();
            Some(How::Command(if has_command {
                shell.into_iter().chain(words.iter().cloned()).collect()
            } else {
                shell
            }))
        }
        _ => None,
    }
}

/// Whether the words are a test that is made.
pub fn is_test(words: &[String]) -> bool {
    words.first().is_some_and(|kind| kind == "CMD" || kind == "CMD-SHELL")
}

/// Whether a container of this definition is probed while it runs.
pub fn is_checked(row: &Definition) -> bool {
    how(row).is_some()
}

pub fn rules(row: &Definition) -> Rules {
    let mut rules = Rules::default();
    let Some(own) = &row.config.healthcheck else { return rules };
    let set = |rule: &mut Duration, nanos: i64| {
        if let Some(nanos) = u64::try_from(nanos).ok().filter(|nanos| *nanos > 0) {
            *rule = Duration::from_nanos(nanos);
        }
    };
    set(&mut rules.interval, own.interval);
    set(&mut rules.timeout, own.timeout);
    set(&mut rules.start_period, own.start_period);
    set(&mut rules.start_interval, own.start_interval);
    if own.retries > 0 {
        rules.retries = u32::try_from(own.retries).unwrap_or(u32::MAX);
    }
    rules
}

/// Refuses a target beside a test, and restarts that nothing would ever begin; `asked` is the request's own configuration.
pub fn check(
    own: &OwnLabels,
    (config, host_config): (&api::ContainerConfig, &api::HostConfig),
    asked: Option<&api::ContainerConfig>,
) -> Result<()> {
    let asked = asked.and_then(|config| config.healthcheck.as_ref());
    if own.health.is_some() && asked.is_some_and(|health| !health.test.is_empty()) {
        return Err(Error::invalid(format!("conflicting options: the label {HEALTH} and a test of the health check")));
    }
    if own.restart.is_none() {
        return Ok(());
    }
    if host_config.auto_remove {
        return Err(Error::invalid(format!("can't create 'AutoRemove' container with the label {RESTART}")));
    }
    let test = config.healthcheck.as_ref().map(|health| health.test.as_slice());
    if own.health.is_none() && !test.is_some_and(is_test) {
        return Err(Error::invalid(format!("the label {RESTART} needs a health check, and the container has none")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use model::lifecycle::State;

    use super::*;
    use crate::container::row::sample;

    fn command(test: &[&str], shell: &[&str]) -> Option<Vec<String>> {
        let mut row = sample(1, State::Created);
        let definition = Arc::make_mut(&mut row.definition);
        let test = test.iter().map(|word| word.to_string()).collect();
        definition.config.healthcheck = Some(api::HealthConfig { test, ..Default::default() });
        definition.config.shell = shell.iter().map(|word| word.to_string()).collect();
        match how(&row)? {
            How::Command(words) => Some(words),
            How::Reach(_) => None,
        }
    }

    #[test]
    fn the_first_word_says_how() {
        let words = |words: &[&str]| Some(words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
        assert_eq!(command(&["CMD", "a", "b"], &[]), words(&["a", "b"]));
        assert_eq!(command(&["CMD-SHELL", "a b"], &[]), words(&["/bin/sh", "-c", "a b"]));
        assert_eq!(command(&["CMD-SHELL", "a b"], &["/bin/ash", "-ec"]), words(&["/bin/ash", "-ec", "a b"]));
        assert_eq!(command(&["CMD"], &[]), words(&[]));
        for none in [&["NONE"][..], &[], &["cmd", "x"], &["SHELL", "x"]] {
            assert_eq!(command(none, &[]), None);
        }
    }

    /// B-hc-1
    #[test]
    fn what_is_not_given_has_its_default() {
        let mut row = sample(1, State::Created);
        assert_eq!(rules(&row), Rules::default());
        let given = api::HealthConfig { interval: 5, timeout: 0, retries: 7, start_period: 9, ..Default::default() };
        Arc::make_mut(&mut row.definition).config.healthcheck = Some(given);
        let nanos = Duration::from_nanos;
        let wanted = Rules { interval: nanos(5), retries: 7, start_period: nanos(9), ..Rules::default() };
        assert_eq!(rules(&row), wanted);
    }

    fn verdict(labels: &[(&str, &str)], image: &[&str], asked: &[&str], auto_remove: bool) -> String {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let config = |test: &[&str]| {
            let test = test.iter().map(|word| word.to_string()).collect();
            let healthcheck = Some(api::HealthConfig { test, interval: 5, ..Default::default() });
            api::ContainerConfig { healthcheck, ..Default::default() }
        };
        let merged = config(if asked.is_empty() { image } else { asked });
        let host_config = api::HostConfig { auto_remove, ..Default::default() };
        let own = OwnLabels::parse(&labels).unwrap();
        let outcome = check(&own, (&merged, &host_config), Some(&config(asked)));
        outcome.map_or_else(|error| error.message().to_owned(), |()| String::new())
    }

    #[test]
    fn labels_go_with_what_they_need() {
        let (restart, health) = (("gantry.restart", "on-unhealthy"), ("gantry.health", "tcp://:80"));
        assert_eq!(verdict(&[], &[], &[], true), "");
        assert_eq!(verdict(&[restart], &["CMD", "x"], &[], false), "");
        assert_eq!(verdict(&[restart, health], &[], &[], false), "");
        assert_eq!(verdict(&[health], &["CMD", "x"], &[], true), "");
        assert!(verdict(&[health], &[], &["NONE"], false).contains("gantry.health and a test"));
        assert!(verdict(&[restart], &["CMD", "x"], &["NONE"], false).contains("needs a health check"));
        assert!(verdict(&[restart], &[], &[], false).contains("needs a health check"));
        assert!(verdict(&[restart], &["CMD", "x"], &[], true).contains("'AutoRemove'"));
    }
}
