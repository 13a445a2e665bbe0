//! The decoder against what Go's does with the same text.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    kind: String,
    size_kb: u32,
    names: Vec<String>,
    only: Option<Only>,
    labels: BTreeMap<String, String>,
    extra: Value,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Only {
    arches: Vec<String>,
    caps: Vec<String>,
}

fn rule(text: &str) -> Rule {
    from_slice(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn names_fold_as_unicode_does() {
    for name in ["sizeKb", "SizeKb", "SIZEKB", "sizekb", "\u{17f}izeKb", "size\u{212a}b", "\u{17f}IZE\u{212a}B"] {
        assert_eq!(rule(&format!(r#"{{"{name}": 7}}"#)).size_kb, 7, "{name}");
    }
    for name in ["sizeKb ", "size-kb", "size_kb", "sizeKbb", "ſizeKß", "ＳizeKb"] {
        assert_eq!(rule(&format!(r#"{{"{name}": 7}}"#)).size_kb, 0, "{name}");
    }
    assert_eq!(rule(r#"{"\u017fize\u212AB": 7}"#).size_kb, 7);
}

#[test]
fn of_two_equal_names_the_later_counts() {
    for text in [r#"{"kind": "a", "kind": "b"}"#, r#"{"kind": "a", "KIND": "b"}"#, r#"{"KIND": "a", "kind": "b"}"#] {
        assert_eq!(rule(text).kind, "b", "{text}");
    }
    assert_eq!(rule(r#"{"names": ["a", "b"], "Names": ["c"]}"#).names, ["c"]);
    assert_eq!(value(br#"{"a": 1, "a": 2, "A": 3}"#).unwrap(), serde_json::json!({"a": 2, "A": 3}));
    let error = from_slice::<Rule>(br#"{"kind": 5, "Kind": "b"}"#).unwrap_err().to_string();
    assert_eq!(error, "json: cannot unmarshal number into Go struct field Rule.kind of type string");
}

/// Go decodes both into one variable.
#[test]
fn structs_and_maps_that_are_named_twice_grow() {
    let twice = rule(
        r#"{"only": {"caps": ["A"]}, "Only": {"arches": ["x"]}, "labels": {"a": "1", "b": "1"}, "LABELS": {"b": "2"}}"#,
    );
    assert_eq!(twice.only, Some(Only { arches: vec!["x".into()], caps: vec!["A".into()] }));
    assert_eq!(twice.labels, BTreeMap::from([("a".into(), "1".into()), ("b".into(), "2".into())]));
    assert_eq!(rule(r#"{"extra": {"a": 1}, "Extra": {"b": 2}}"#).extra, serde_json::json!({"b": 2}));
}

#[test]
fn null_takes_back_what_can_be_absent_and_nothing_else() {
    let text = r#"{"kind": "a", "Kind": null, "sizeKb": 3, "SizeKB": null, "names": ["a"], "Names": null,
                   "only": {"caps": ["A"]}, "Only": null, "labels": {"a": "1"}, "Labels": null}"#;
    let rule = rule(text);
    assert_eq!(rule, Rule { kind: "a".into(), size_kb: 3, ..Rule::default() });
    assert_eq!(self::rule("null"), Rule::default());
}

#[test]
fn numbers_keep_their_range() {
    for (number, refused) in [("4294967295", false), ("4294967296", true), ("-1", true), ("1.5", true), ("1e3", true)] {
        let read = from_slice::<Rule>(format!(r#"{{"sizeKb": {number}}}"#).as_bytes());
        assert_eq!(read.is_err(), refused, "{number}");
    }
}

#[test]
fn a_whole_text_has_nothing_behind_its_value() {
    let refused = |text: &str| Document::parse_whole(text.as_bytes()).unwrap_err().to_string();
    for early in ["", "  ", "{", r#"{"a": [1"#, "tru", r#""a"#] {
        assert_eq!(refused(early), "unexpected end of JSON input", "{early}");
    }
    for (text, byte) in [("{}}", "'}'"), ("{} {}", "'{'"), ("1 x", "'x'"), ("[]]", "']'")] {
        assert_eq!(refused(text), format!("invalid character {byte} after top-level value"));
    }
    assert!(Document::parse_whole(b" {} \n").is_ok());
}

#[test]
fn fields_and_unknown_names() {
    assert_eq!(field_names::<Only>(), ["arches", "caps"]);
    assert!(field_names::<String>().is_empty());
    let document = Document::parse(br#"{"ARCHES": [], "cap": []}"#).unwrap();
    assert!(document.names_a_field::<Only>());
    assert_eq!(document.unknown_names::<Only>(), ["cap"]);
    assert!(Document::parse(b"[]").unwrap().unknown_names::<Only>().is_empty());
}

proptest! {
    /// Capitals never decide whether a field is read.
    #[test]
    fn any_capitals_name_the_field(upper in prop::collection::vec(any::<bool>(), 6), size in any::<u32>()) {
        let name: String = "sizekb".chars().zip(upper).map(|(c, up)| if up { c.to_ascii_uppercase() } else { c }).collect();
        prop_assert_eq!(rule(&format!(r#"{{"{name}": {size}}}"#)).size_kb, size);
    }

    /// Nothing makes the decoder panic, and what it reads twice is the same.
    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{}:,\"\\\\a-zA-Z0-9. \\-]{0,80}") {
        let first = Document::parse(text.as_bytes());
        prop_assert_eq!(&first, &Document::parse(text.as_bytes()));
        if let Ok(document) = first {
            let _ = document.fit::<Rule>();
            let again = serde_json::to_vec(&document.clone().into_value()).unwrap();
            prop_assert_eq!(value(&again).unwrap(), document.into_value());
        }
    }
}
