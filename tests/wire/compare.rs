//! Compares JSON by value. The order of an object's keys is no fact that clients see; null, `[]` and a missing key are.
//!
//! In what is wanted, `"<any>"` stands for any value, `"<number>"` for any number, `"text<any>"` for any text with that
//! beginning.

use serde_json::Value;

/// Where `got` is not what is wanted, a line for each place.
pub fn differences(got: &Value, wanted: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(got, wanted, "", &mut found);
    found
}

fn walk(got: &Value, wanted: &Value, place: &str, found: &mut Vec<String>) {
    match (got, wanted) {
        (_, Value::String(pattern)) if fits(got, pattern) => {}
        (Value::Object(got), Value::Object(wanted)) => {
            for key in got.keys().filter(|key| !wanted.contains_key(*key)) {
                found.push(format!("{place}.{key}: not wanted, is {}", got[key]));
            }
            for (key, wanted) in wanted {
                match got.get(key) {
                    Some(got) => walk(got, wanted, &format!("{place}.{key}"), found),
                    None => found.push(format!("{place}.{key}: missing")),
                }
            }
        }
        (Value::Array(got), Value::Array(wanted)) if got.len() == wanted.len() => {
            for (n, (got, wanted)) in got.iter().zip(wanted).enumerate() {
                walk(got, wanted, &format!("{place}[{n}]"), found);
            }
        }
        _ if got == wanted => {}
        _ => found.push(format!("{place}: is {got}, wanted {wanted}")),
    }
}

fn fits(got: &Value, pattern: &str) -> bool {
    match (got, pattern.strip_suffix("<any>")) {
        (_, Some("")) => true,
        (Value::String(text), Some(beginning)) => text.starts_with(beginning),
        (Value::Number(_), None) => pattern == "<number>",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_count_and_order_does_not() {
        let wanted = json!({"a": "<number>", "b": null, "c": ["x<any>"], "d": "<any>"});
        assert!(differences(&json!({"d": {}, "c": ["xy"], "b": null, "a": 3}), &wanted).is_empty());
        let found = differences(&json!({"a": "3", "b": [], "c": ["y"], "e": 1}), &wanted);
        assert_eq!(found.len(), 5, "{found:?}");
    }
}
