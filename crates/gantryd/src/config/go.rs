//! Go's way of reading and printing values, because the reference's messages are made of them.
//!
//! - Readers return Go's error text (`strconv.ParseInt: parsing "x": invalid syntax`).
//! - Printers give what `fmt`'s `%v` and `%q` give for decoded JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ipnet::IpNet;
use serde_json::Value;

pub use gojson::netip::parse_addr;

/// `strconv.ParseBool`
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quote(text))),
    }
}

/// `strconv.ParseInt(text, 0, 64)`: the base comes from the prefix.
pub fn parse_int(text: &str) -> Result<i64, String> {
    let fail = |why: &str| format!("strconv.ParseInt: parsing {}: {why}", quote(text));
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = radix_of(digits);
    let plain: String = digits.chars().filter(|c| *c != '_').collect();
    if plain.is_empty() || !plain.chars().all(|c| c.is_digit(base)) {
        return Err(fail("invalid syntax"));
    }
    let size = i128::from_str_radix(&plain, base).map_err(|_| fail("value out of range"))?;
    i64::try_from(if negative { -size } else { size }).map_err(|_| fail("value out of range"))
}

/// `strconv.ParseUint(text, 0, 32)`
pub fn parse_uint32(text: &str) -> Result<u32, String> {
    let fail = |why: &str| format!("strconv.ParseUint: parsing {}: {why}", quote(text));
    let (base, digits) = radix_of(text);
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return Err(fail("invalid syntax"));
    }
    u32::from_str_radix(digits, base).map_err(|_| fail("value out of range"))
}

fn radix_of(digits: &str) -> (u32, &str) {
    let lower = digits.get(..2).unwrap_or("").to_ascii_lowercase();
    match lower.as_str() {
        "0x" => (16, &digits[2..]),
        "0b" => (2, &digits[2..]),
        "0o" => (8, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    }
}

/// `net.ParseCIDR`
pub fn parse_cidr(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| format!("invalid CIDR address: {text}"))
}

/// `%q`
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `%v` of a value decoded by `encoding/json` into `any`.
pub fn print_json(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => print_float(n.as_f64().unwrap_or(f64::NAN)),
        Value::String(s) => s.clone(),
        Value::Array(items) => print_list(items.iter().map(print_json)),
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            print_map(sorted.into_iter().map(|(k, v)| (k.clone(), print_json(v))))
        }
    }
}

/// `%v` of a float64 with an integral value below 1e21, which is all that options hold.
fn print_float(n: f64) -> String {
    if n.abs() >= 1e21 { format!("{n:e}") } else { format!("{n}") }
}

/// `[a b]`
pub fn print_list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(" "))
}

/// `map[a:1 b:2]`, keys already sorted.
pub fn print_map(items: impl Iterator<Item = (String, String)>) -> String {
    format!("map[{}]", items.map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>().join(" "))
}

/// The word that `encoding/json` uses for the kind of a JSON value in type errors.
pub fn json_kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(n) if n.is_f64() => format!("number {n}"),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn integers_take_their_base_from_the_prefix() {
        assert_eq!(parse_int("0x10"), Ok(16));
        assert_eq!(parse_int("-3"), Ok(-3));
        assert_eq!(parse_int("010"), Ok(8));
        assert_eq!(parse_int("x").unwrap_err(), r#"strconv.ParseInt: parsing "x": invalid syntax"#);
        assert_eq!(
            parse_int("99999999999999999999").unwrap_err(),
            r#"strconv.ParseInt: parsing "99999999999999999999": value out of range"#
        );
    }

    #[test]
    fn json_prints_as_go_prints_it() {
        assert_eq!(print_json(&json!(["a", "b"])), "[a b]");
        assert_eq!(print_json(&json!({"b": 1, "a": true})), "map[a:true b:1]");
        assert_eq!(print_json(&json!(1500)), "1500");
        assert_eq!(print_json(&json!(null)), "<nil>");
    }

    #[test]
    fn addresses_fail_with_the_reason() {
        assert_eq!(parse_addr("nope").unwrap_err(), r#"ParseAddr("nope"): unable to parse IP"#);
        assert_eq!(parse_addr("1.2.3").unwrap_err(), r#"ParseAddr("1.2.3"): IPv4 address too short"#);
        assert_eq!(parse_addr("1.2.3.400").unwrap_err(), r#"ParseAddr("1.2.3.400"): IPv4 field has value >255"#);
        assert!(parse_addr("fe80::1").is_ok());
    }

    #[test]
    fn quoting() {
        assert_eq!(quote("a\"b\n"), r#""a\"b\n""#);
    }
}
