//! Values in the metadata of calls: what is not printable ASCII is escaped, and a second key says so.

use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

/// Adds values under a key.
pub(crate) fn append(map: &mut MetadataMap, key: &str, values: &[String]) {
    let is_plain = |value: &String| value.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
    let Ok(name) = key.parse::<MetadataKey<Ascii>>() else { return };
    let escapes = !values.iter().all(is_plain);
    for value in values {
        let text = if escapes { escape(value) } else { value.clone() };
        if let Ok(value) = text.parse::<MetadataValue<Ascii>>() {
            map.append(name.clone(), value);
        }
    }
    if escapes && let Ok(name) = format!("{key}-encoded").parse::<MetadataKey<Ascii>>() {
        map.insert(name, MetadataValue::from_static("1"));
    }
}

/// As Go's `url.QueryEscape`.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_printable_is_escaped() {
        let mut map = MetadataMap::new();
        append(&mut map, "dir-name", &["a b".into(), "c".into()]);
        append(&mut map, "followpaths", &["ä b/c".into(), "d".into()]);
        let all = |key: &str| map.get_all(key).iter().map(|v| v.to_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!((all("dir-name"), all("dir-name-encoded")), (vec!["a b".into(), "c".into()], vec![]));
        assert_eq!(all("followpaths"), ["%C3%A4+b%2Fc", "d"]);
        assert_eq!(all("followpaths-encoded"), ["1"]);
    }
}
