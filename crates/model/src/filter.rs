//! The `filters` query value: keys with sets of values, in both forms that clients send (B-api-7).
//!
//! A key that is absent filters nothing; so does one without values, except where a rule says otherwise. Values are
//! kept sorted, so texts that list them are the same every time.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::{self, Timestamp};
use crate::{Error, Result};

/// Parsed filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    fields: BTreeMap<String, BTreeSet<String>>,
}

/// `{"key": {"value": true}}`, what clients send today.
type Maps = Option<BTreeMap<String, Option<BTreeMap<String, Option<bool>>>>>;
/// `{"key": ["value"]}`, what old clients send.
type Lists = Option<BTreeMap<String, Option<Vec<Option<String>>>>>;

impl Filters {
    /// From the query value; an empty one is no filters.
    pub fn parse(json: &str) -> Result<Filters> {
        if json.is_empty() {
            return Ok(Filters::default());
        }
        if let Ok(maps) = serde_json::from_str::<Maps>(json) {
            let set =
                |values: Option<BTreeMap<String, _>>| values.into_iter().flatten().map(|(value, _)| value).collect();
            return Ok(Filters {
                fields: maps.into_iter().flatten().map(|(key, values)| (key, set(values))).collect(),
            });
        }
        let lists: Lists = serde_json::from_str(json).map_err(|e| Error::invalid("invalid filter").with_source(e))?;
        let set =
            |values: Option<Vec<Option<String>>>| values.into_iter().flatten().map(Option::unwrap_or_default).collect();
        Ok(Filters { fields: lists.into_iter().flatten().map(|(key, values)| (key, set(values))).collect() })
    }

    /// Adds a value.
    pub fn add(&mut self, key: &str, value: &str) {
        self.fields.entry(key.to_owned()).or_default().insert(value.to_owned());
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: &str) {
        self.fields.remove(key);
    }

    /// No keys at all.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// The values of a key.
    pub fn get<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.fields.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Whether the key is there, be it without values.
    pub fn contains(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// Refuses keys that are not allowed.
    pub fn validate(&self, allowed: &[&str]) -> Result<()> {
        match self.keys().find(|key| !allowed.contains(key)) {
            Some(key) => Err(invalid_key(key)),
            None => Ok(()),
        }
    }

    /// No values, or this very one among them.
    pub fn exact_match(&self, key: &str, text: &str) -> bool {
        self.fields.get(key).is_none_or(|values| values.is_empty() || values.contains(text))
    }

    /// As [`Filters::exact_match`], or a value as regular expression occurs in the text. A value that is no expression
    /// matches nothing.
    pub fn pattern_match(&self, key: &str, text: &str) -> bool {
        self.patterns(key).matches(text)
    }

    /// The values of a key as patterns, for texts that are many.
    pub fn patterns(&self, key: &str) -> Patterns {
        let values: Vec<String> = self.get(key).map(str::to_owned).collect();
        let expressions = values.iter().filter_map(|value| regex_lite::Regex::new(value).ok()).collect();
        Patterns { values, expressions }
    }

    /// Whether all values (`name` or `name=value`) are among the pairs.
    pub fn match_kv_list(&self, key: &str, pairs: &BTreeMap<String, String>) -> bool {
        self.get(key).all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => pairs.get(name).is_some_and(|v| v == value),
            None => pairs.contains_key(wanted),
        })
    }

    /// What prunes do with labels: all of `label` are there, and not all of `label!`.
    pub fn match_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let excluded = self.contains("label!") && self.match_kv_list("label!", labels);
        self.match_kv_list("label", labels) && !excluded
    }

    /// A yes-or-no filter: `1`, `true`, `0`, `false`; `default` when the key is absent.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let Some(values) = self.fields.get(key) else {
            return Ok(default);
        };
        let has = |words: [&str; 2]| words.iter().any(|word| values.contains(*word));
        match (has(["1", "true"]), has(["0", "false"])) {
            (true, false) => Ok(true),
            (false, true) => Ok(false),
            _ if values.is_empty() => Err(invalid_key(key)),
            _ => {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                Err(Error::invalid(format!("invalid filter '{key}=[{}]'", values.join(" "))))
            }
        }
    }

    /// The `until` filter of prunes: at most one value, a time or a duration before `now`.
    pub fn until(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        let mut values = self.get("until");
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => time::parse(value, now).map(Some),
            _ => Err(Error::invalid("more than one until filter specified")),
        }
    }
}

/// Values of a filter that match as [`Filters::pattern_match`] does, made ready once.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    values: Vec<String>,
    expressions: Vec<regex_lite::Regex>,
}

impl Patterns {
    /// No values, this very text among them, or a value occurs in the text as an expression.
    pub fn matches(&self, text: &str) -> bool {
        self.values.is_empty()
            || self.values.iter().any(|value| value == text)
            || self.expressions.iter().any(|expression| expression.is_match(text))
    }
}

/// `invalid filter 'zz'`
pub fn invalid_key(key: &str) -> Error {
    Error::invalid(format!("invalid filter '{key}'"))
}

/// `invalid filter 'status=zz'`
pub fn invalid_value(key: &str, value: &str) -> Error {
    Error::invalid(format!("invalid filter '{key}={value}'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filters(json: &str) -> Filters {
        Filters::parse(json).unwrap()
    }

    fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().message().to_owned()
    }

    /// B-api-7
    #[test]
    fn both_forms_are_understood() {
        let new = filters(r#"{"label":{"a=b":true,"c":true},"status":{}}"#);
        let old = filters(r#"{"label":["a=b","c"],"status":[]}"#);
        assert_eq!(new, old);
        assert_eq!(new.get("label").collect::<Vec<_>>(), ["a=b", "c"]);
        assert!(new.contains("status") && new.exact_match("status", "any"));
        assert_eq!(filters("null"), filters(""));
    }

    /// B-api-7
    #[test]
    fn bad_json_is_refused() {
        for json in ["x", "[]", r#"{"a":1}"#, r#"{"a":{"b":"c"}}"#, r#"{} {}"#, r#"{"a":["b",1]}"#] {
            assert_eq!(message(Filters::parse(json)), "invalid filter", "{json}");
        }
    }

    #[test]
    fn unknown_keys_are_named() {
        assert_eq!(message(filters(r#"{"zz":{"1":true}}"#).validate(&["label"])), "invalid filter 'zz'");
        assert!(filters(r#"{"label":{}}"#).validate(&["label"]).is_ok());
    }

    #[test]
    fn flags_are_yes_or_no() {
        let flag = |json: &str| filters(json).flag("dangling", true);
        assert!(flag("{}").unwrap());
        assert!(!flag(r#"{"dangling":["0"]}"#).unwrap());
        assert!(flag(r#"{"dangling":{"true":true,"1":true}}"#).unwrap());
        assert_eq!(message(flag(r#"{"dangling":["x"]}"#)), "invalid filter 'dangling=[x]'");
        assert_eq!(message(flag(r#"{"dangling":["true","false"]}"#)), "invalid filter 'dangling=[false true]'");
        assert_eq!(message(flag(r#"{"dangling":[]}"#)), "invalid filter 'dangling'");
    }

    #[test]
    fn labels_must_all_be_there() {
        let pairs = BTreeMap::from([("k".to_owned(), "v".to_owned()), ("empty".to_owned(), String::new())]);
        let matches = |json: &str| filters(json).match_kv_list("label", &pairs);
        assert!(matches("{}") && matches(r#"{"label":["k","k=v","empty="]}"#));
        assert!(!matches(r#"{"label":["k","k=w"]}"#) && !matches(r#"{"label":["nope"]}"#));
        assert!(!filters(r#"{"label":["k"]}"#).match_kv_list("label", &BTreeMap::new()));
    }

    #[test]
    fn prunes_choose_by_labels_that_are_there_and_that_are_not() {
        let labels = BTreeMap::from([("a".to_string(), "1".to_string()), ("b".to_string(), String::new())]);
        for (json, chosen) in [
            ("{}", true),
            (r#"{"label":["a"]}"#, true),
            (r#"{"label":["a=2"]}"#, false),
            (r#"{"label!":["a"]}"#, false),
            (r#"{"label!":["a=2"]}"#, true),
            (r#"{"label!":["a","c"]}"#, true),
            (r#"{"label":["a"],"label!":["b"]}"#, false),
        ] {
            assert_eq!(filters(json).match_labels(&labels), chosen, "{json}");
        }
    }

    #[test]
    fn names_match_exactly_or_by_pattern() {
        let f = filters(r#"{"name":["web"],"bad":["["]}"#);
        assert!(f.exact_match("name", "web") && !f.exact_match("name", "web1"));
        assert!(f.pattern_match("name", "aweb1") && !f.pattern_match("name", "db"));
        assert!(f.pattern_match("bad", "[") && !f.pattern_match("bad", "x"));
        assert!(!filters(r#"{"name":["^/web$"]}"#).pattern_match("name", "/web1"));
        for (key, text) in [("name", "aweb1"), ("name", "db"), ("bad", "["), ("bad", "x"), ("none", "x")] {
            assert_eq!(f.patterns(key).matches(text), f.pattern_match(key, text), "{key} {text}");
        }
    }

    /// B-pr-1
    #[test]
    fn until_takes_one_value() {
        let now = Timestamp::from_unix_seconds(1000);
        let until = |json: &str| filters(json).until(now);
        assert_eq!(until("{}").unwrap(), None);
        assert_eq!(until(r#"{"until":["10s"]}"#).unwrap(), Some(Timestamp::from_unix_seconds(990)));
        assert_eq!(message(until(r#"{"until":["1","2"]}"#)), "more than one until filter specified");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]{}\":,a-c1 ]{0,32}") {
            if let Err(error) = Filters::parse(&text) {
                prop_assert_eq!(error.message(), "invalid filter");
            }
        }

        #[test]
        fn values_survive(values in proptest::collection::btree_set("[^\"\\\\\\x00-\\x1f]{0,8}", 0..5)) {
            let json = serde_json::json!({ "k": values.iter().collect::<Vec<_>>() }).to_string();
            let parsed = filters(&json);
            prop_assert_eq!(parsed.get("k").map(str::to_owned).collect::<BTreeSet<_>>(), values);
        }
    }
}
