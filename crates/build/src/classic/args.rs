//! Build arguments of the classic builder: which a stage may use, and what they are worth.

use std::collections::{BTreeMap, BTreeSet};

/// Arguments that need no `ARG`, and that are not in the history unless there is one.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Arguments {
    /// Those of the client; one without a value is taken from its surroundings, where it was not set.
    given: BTreeMap<String, Option<String>>,
    /// `ARG` of the stage, with their defaults.
    of_stage: BTreeMap<String, Option<String>>,
    /// `ARG` before the first stage, with their defaults.
    global: BTreeMap<String, Option<String>>,
    /// Names that some `ARG` has.
    named: BTreeSet<String>,
}

impl Arguments {
    pub fn new(given: BTreeMap<String, Option<String>>) -> Arguments {
        Arguments { given, ..Arguments::default() }
    }

    /// For a new stage.
    pub fn begin_stage(&mut self) {
        self.of_stage.clear();
    }

    /// `ARG` before the first stage.
    pub fn add_global(&mut self, name: &str, value: Option<String>) {
        self.named.insert(name.to_owned());
        self.of_stage.insert(name.to_owned(), value.clone());
        self.global.insert(name.to_owned(), value);
    }

    /// `ARG` in a stage.
    pub fn add(&mut self, name: &str, value: Option<String>) {
        self.named.insert(name.to_owned());
        self.of_stage.insert(name.to_owned(), value);
    }

    /// What `FROM` may use.
    pub fn global(&self) -> BTreeMap<String, String> {
        self.values(&self.global)
    }

    /// What the stage may use.
    pub fn of_stage(&self) -> BTreeMap<String, String> {
        self.values(&self.of_stage)
    }

    /// Whether an argument is told of in the history.
    pub fn is_told(&self, name: &str) -> bool {
        self.of_stage.contains_key(name) || !PROXIES.contains(&name)
    }

    /// Those of the client that nobody has asked for, sorted.
    pub fn unused(&self) -> Vec<&str> {
        let unused = |name: &&String| !self.named.contains(*name) && !PROXIES.contains(&name.as_str());
        self.given.keys().filter(unused).map(String::as_str).collect()
    }

    fn values(&self, scope: &BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
        let names = scope.keys().map(String::as_str).chain(PROXIES);
        names.filter_map(|name| Some((name.to_owned(), self.value(name, scope)?))).collect()
    }

    fn value(&self, name: &str, scope: &BTreeMap<String, Option<String>>) -> Option<String> {
        if let Some(Some(given)) = self.given.get(name) {
            return Some(given.clone());
        }
        match scope.get(name) {
            Some(Some(default)) => Some(default.clone()),
            Some(None) | None => self.global.get(name).cloned().flatten().filter(|_| scope.contains_key(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_from_the_client_the_stage_and_the_top() {
        let given = [("A", Some("given")), ("Z", None), ("HTTP_PROXY", Some("p"))];
        let given = given.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        let mut arguments = Arguments::new(given.into());
        arguments.add_global("B", Some("global".into()));
        arguments.begin_stage();
        assert_eq!(arguments.of_stage().into_keys().collect::<Vec<_>>(), ["HTTP_PROXY"]);
        arguments.add("A", Some("default".into()));
        arguments.add("B", None);
        arguments.add("C", None);
        let values = arguments.of_stage();
        assert_eq!(values["A"], "given");
        assert_eq!(values["B"], "global");
        assert!(!values.contains_key("C"));
        assert_eq!(arguments.unused(), ["Z"]);
        assert!(arguments.is_told("A") && !arguments.is_told("HTTP_PROXY"));
    }
}
