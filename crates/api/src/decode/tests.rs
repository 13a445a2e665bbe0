//! The decoder against what the reference answers.

use super::*;
use crate::exec::ExecConfig;

fn create_error(body: &str) -> String {
    create_request(body.as_bytes()).expect_err(body).body_message()
}

#[test]
fn syntax_errors_are_gos() {
    let cases = [
        ("", "invalid JSON: got EOF while reading request body"),
        ("  \n", "invalid JSON: got EOF while reading request body"),
        ("{bad", "invalid JSON: invalid character 'b' looking for beginning of object key string"),
        ("{", "invalid JSON: unexpected EOF"),
        ("{\"a\" 1}", "invalid JSON: invalid character '1' after object key"),
        ("{\"a\":1 2}", "invalid JSON: invalid character '2' after object key:value pair"),
        ("{\"a\":1,}", "invalid JSON: invalid character '}' looking for beginning of object key string"),
        ("[1 2]", "invalid JSON: invalid character '2' after array element"),
        ("[1,]", "invalid JSON: invalid character ']' looking for beginning of value"),
        ("tru", "invalid JSON: unexpected EOF"),
        ("{\"a\":trux}", "invalid JSON: invalid character 'x' in literal true (expecting 'e')"),
        ("{\"a\":-x}", "invalid JSON: invalid character 'x' in numeric literal"),
        ("{\"a\":1.}", "invalid JSON: invalid character '}' after decimal point in numeric literal"),
        ("{\"a\":1e}", "invalid JSON: invalid character '}' in exponent of numeric literal"),
        ("{\"a\":01}", "invalid JSON: invalid character '1' after object key:value pair"),
        ("{\"a\":\"\n\"}", "invalid JSON: invalid character '\\n' in string literal"),
        ("{\"a\":\"\\x\"}", "invalid JSON: invalid character 'x' in string escape code"),
        ("{\"a\":\"\\u00g0\"}", "invalid JSON: invalid character 'g' in \\u hexadecimal character escape"),
        ("'", "invalid JSON: invalid character '\\'' looking for beginning of value"),
        ("{} {}", "unexpected content after JSON"),
    ];
    for (body, expected) in cases {
        assert_eq!(create_error(body), expected, "{body:?}");
    }
}

#[test]
fn type_errors_name_the_field() {
    assert_eq!(
        create_error(r#"{"Image":"a","HostConfig":{"Memory":"x"}}"#),
        "invalid JSON: json: cannot unmarshal string into Go struct field HostConfig.HostConfig.Memory of type int64"
    );
    assert_eq!(
        create_error(r#"{"Image":5}"#),
        "invalid JSON: json: cannot unmarshal number into Go struct field Config.Image of type string"
    );
    assert_eq!(
        create_error(r#"{"Cmd":5}"#),
        "invalid JSON: json: cannot unmarshal number into Go struct field Config.Cmd of type []string"
    );
    assert_eq!(
        create_error(r#"{"HostConfig":{"BlkioWeight":70000}}"#),
        "invalid JSON: json: cannot unmarshal number 70000 into Go struct field HostConfig.HostConfig.BlkioWeight of type uint16"
    );
    let top = from_slice::<ExecConfig>(b"[]").expect_err("array");
    assert_eq!(top.to_string(), "json: cannot unmarshal array into Go value of type ExecCreateRequest");
}

#[test]
fn names_match_in_any_case_and_unknown_ones_do_not_matter() {
    let request = create_request(
        br#"{"image":"alpine","CMD":["sh"],"Zz":{"a":[1]},"hostconfig":{"networkmode":"host","NetworkMode":"none"}}"#,
    )
    .expect("valid");
    let config = request.config.expect("named");
    assert_eq!(config.image, "alpine");
    assert_eq!(config.cmd, Some(vec!["sh".to_owned()]));
    assert_eq!(request.host_config.expect("named").network_mode, "none");
}

#[test]
fn null_is_the_zero_value() {
    let exec: ExecConfig =
        from_slice(br#"{"User":null,"Tty":null,"ConsoleSize":null,"Env":null,"Cmd":[null,"a"]}"#).expect("valid");
    assert_eq!(exec.cmd, Some(vec![String::new(), "a".to_owned()]));
    assert_eq!(exec.env, None);
    let host: HostConfig =
        from_slice(br#"{"ConsoleSize":[5],"Tmpfs":null,"Mounts":null,"LogConfig":null}"#).expect("valid");
    assert_eq!(host.console_size, [5, 0]);
    let host: HostConfig = from_slice(b"null").expect("valid");
    assert_eq!(host, HostConfig::default());
}

#[test]
fn a_body_without_configuration_has_none() {
    assert_eq!(create_request(b"{}").expect("valid").config, None);
    assert_eq!(create_request(br#"{"HostConfig":{}}"#).expect("valid").config, None);
    assert!(create_request(br#"{"Image":null}"#).expect("valid").config.is_some());
    assert_eq!(optional::<ContainerConfig>(b"null").expect("valid"), None);
}

#[test]
fn old_forms_are_read() {
    let request = create_request(br#"{"Cmd":"echo hi","MacAddress":"aa:bb:cc:dd:ee:ff","ExposedPorts":{"80":{}}}"#)
        .expect("valid");
    assert_eq!(request.legacy_mac_address, "aa:bb:cc:dd:ee:ff");
    let config = request.config.expect("named");
    assert_eq!(config.cmd, Some(vec!["echo hi".to_owned()]));
    assert!(config.exposed_ports.contains_key("80/tcp"));
}

#[test]
fn strings_are_always_text() {
    let list: Vec<String> = from_slice(b"[\"\\ud83d\\ude00\",\"\\ud83d\",\"\xff\",\"\\u00e9\\/\"]").expect("valid");
    assert_eq!(list, ["\u{1f600}", "\u{fffd}", "\u{fffd}", "\u{e9}/"]);
}

#[test]
fn nesting_is_bounded() {
    let deep = "[".repeat(100_000);
    assert_eq!(create_error(&deep), "invalid JSON: exceeded max depth");
    let wide = format!("[{}0]", "0,".repeat(gojson::MAX_VALUES));
    assert_eq!(create_error(&wide), "invalid JSON: exceeded max number of values");
}
