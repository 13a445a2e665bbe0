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

/// Bodies of a create, and what follows `json: cannot unmarshal`.
const TYPE_ERRORS: &[(&str, &str)] = &[
    (r#"{"Image":5}"#, "number into Go struct field CreateRequest.Config.Image of type string"),
    (r#"{"Cmd":5}"#, "number into Go struct field CreateRequest.Config.Cmd of type []string"),
    (r#"{"Cmd":[5]}"#, "number into Go struct field CreateRequest.Config.Cmd of type string"),
    (r#"{"Env":{}}"#, "object into Go struct field CreateRequest.Config.Env of type []string"),
    (r#"{"Labels":{"a":[]}}"#, "array into Go struct field CreateRequest.Config.Labels of type string"),
    (r#"{"Labels":[]}"#, "array into Go struct field CreateRequest.Config.Labels of type map[string]string"),
    (r#"{"Volumes":1}"#, "number into Go struct field CreateRequest.Config.Volumes of type map[string]struct {}"),
    (r#"{"Volumes":{"/a":1}}"#, "number into Go struct field CreateRequest.Config.Volumes of type struct {}"),
    (
        r#"{"ExposedPorts":"80"}"#,
        "string into Go struct field CreateRequest.Config.ExposedPorts of type map[network.Port]struct {}",
    ),
    (r#"{"StopTimeout":"1"}"#, "string into Go struct field CreateRequest.Config.StopTimeout of type int"),
    (r#"{"Tty":1}"#, "number into Go struct field CreateRequest.Config.Tty of type bool"),
    (
        r#"{"Healthcheck":[]}"#,
        "array into Go struct field CreateRequest.Config.Healthcheck of type v1.HealthcheckConfig",
    ),
    (
        r#"{"Healthcheck":{"Interval":"1s"}}"#,
        "string into Go struct field HealthcheckConfig.Config.Healthcheck.Interval of type time.Duration",
    ),
    (r#"{"HostConfig":[]}"#, "array into Go struct field CreateRequest.HostConfig of type container.HostConfig"),
    (
        r#"{"HostConfig":{"Memory":"x"}}"#,
        "string into Go struct field HostConfig.HostConfig.Resources.Memory of type int64",
    ),
    (
        r#"{"HostConfig":{"BlkioWeight":70000}}"#,
        "number 70000 into Go struct field HostConfig.HostConfig.Resources.BlkioWeight of type uint16",
    ),
    (
        r#"{"HostConfig":{"Ulimits":[1]}}"#,
        "number into Go struct field HostConfig.HostConfig.Resources.Ulimits of type units.Ulimit",
    ),
    (
        r#"{"HostConfig":{"Ulimits":[{"Soft":"1"}]}}"#,
        "string into Go struct field Ulimit.HostConfig.Resources.Ulimits.Soft of type int64",
    ),
    (
        r#"{"HostConfig":{"Devices":{}}}"#,
        "object into Go struct field HostConfig.HostConfig.Resources.Devices of type []container.DeviceMapping",
    ),
    (
        r#"{"HostConfig":{"OomScoreAdj":1.5}}"#,
        "number 1.5 into Go struct field HostConfig.HostConfig.OomScoreAdj of type int",
    ),
    (
        r#"{"HostConfig":{"NetworkMode":1}}"#,
        "number into Go struct field HostConfig.HostConfig.NetworkMode of type container.NetworkMode",
    ),
    (
        r#"{"HostConfig":{"ConsoleSize":["1"]}}"#,
        "string into Go struct field HostConfig.HostConfig.ConsoleSize of type uint",
    ),
    (
        r#"{"HostConfig":{"ConsoleSize":1}}"#,
        "number into Go struct field HostConfig.HostConfig.ConsoleSize of type [2]uint",
    ),
    (r#"{"HostConfig":{"Dns":[1]}}"#, "number into Go struct field HostConfig.HostConfig.Dns of type netip.Addr"),
    (
        r#"{"HostConfig":{"RestartPolicy":{"MaximumRetryCount":"1"}}}"#,
        "string into Go struct field RestartPolicy.HostConfig.RestartPolicy.MaximumRetryCount of type int",
    ),
    (
        r#"{"HostConfig":{"Mounts":[[]]}}"#,
        "array into Go struct field HostConfig.HostConfig.Mounts of type mount.Mount",
    ),
    (
        r#"{"HostConfig":{"Mounts":[{"TmpfsOptions":{"Mode":"x"}}]}}"#,
        "string into Go struct field TmpfsOptions.HostConfig.Mounts.TmpfsOptions.Mode of type fs.FileMode",
    ),
    (
        r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":80}]}}}"#,
        "number into Go struct field PortBinding.HostConfig.PortBindings.HostPort of type string",
    ),
    (
        r#"{"HostConfig":{"PortBindings":{"80/tcp":{}}}}"#,
        "object into Go struct field HostConfig.HostConfig.PortBindings of type []network.PortBinding",
    ),
    (
        r#"{"NetworkingConfig":{"EndpointsConfig":{"a":1}}}"#,
        "number into Go struct field NetworkingConfig.NetworkingConfig.EndpointsConfig of type network.EndpointSettings",
    ),
    (
        r#"{"NetworkingConfig":{"EndpointsConfig":{"a":{"IPAMConfig":{"IPv4Address":1}}}}}"#,
        "number into Go struct field EndpointIPAMConfig.NetworkingConfig.EndpointsConfig.IPAMConfig.IPv4Address of type \
             netip.Addr",
    ),
    ("[]", "array into Go value of type container.CreateRequest"),
];

#[test]
fn type_errors_name_the_field() {
    for (body, field) in TYPE_ERRORS {
        assert_eq!(create_error(body), format!("invalid JSON: json: cannot unmarshal {field}"), "{body}");
    }
    let top = from_slice::<ExecConfig>(b"[]").expect_err("array");
    assert_eq!(top.to_string(), "json: cannot unmarshal array into Go value of type container.ExecCreateRequest");
    let top = commit_request(br#"{"Cmd":1}"#).expect_err("number");
    assert_eq!(
        top.to_string(),
        "json: cannot unmarshal number into Go struct field commitRequest.Config.Cmd of type []string"
    );
}

/// The table names structs and fields that exist, or its lines would say nothing.
#[test]
fn the_table_of_names_fits_the_structs() {
    let known = [
        ("container.Config", gojson::field_names::<ContainerConfig>()),
        ("container.HostConfig", gojson::field_names::<HostConfig>()),
        ("container.UpdateConfig", gojson::field_names::<crate::UpdateConfig>()),
        ("v1.HealthcheckConfig", gojson::field_names::<crate::container::HealthConfig>()),
        ("container.RestartPolicy", gojson::field_names::<crate::host_config::RestartPolicy>()),
        ("container.DeviceRequest", gojson::field_names::<crate::host_config::DeviceRequest>()),
        ("container.ExecCreateRequest", gojson::field_names::<ExecConfig>()),
        ("container.ExecStartRequest", gojson::field_names::<crate::exec::ExecStart>()),
        ("mount.Mount", gojson::field_names::<crate::mount::Mount>()),
        ("mount.BindOptions", gojson::field_names::<crate::mount::BindOptions>()),
        ("mount.TmpfsOptions", gojson::field_names::<crate::mount::TmpfsOptions>()),
        ("network.PortBinding", gojson::field_names::<port::PortBinding>()),
        ("network.NetworkingConfig", gojson::field_names::<NetworkingConfig>()),
        ("network.EndpointSettings", gojson::field_names::<crate::network::EndpointSettings>()),
        ("network.EndpointIPAMConfig", gojson::field_names::<crate::network::EndpointIpamConfig>()),
        ("network.IPAM", gojson::field_names::<crate::network::Ipam>()),
        ("network.IPAMConfig", gojson::field_names::<crate::network::IpamConfig>()),
    ];
    assert_eq!(known.len(), STRUCTS.len());
    for (name, fields) in known {
        let named = STRUCTS.iter().find(|known| known.name == name).expect(name);
        let embedded = named.embedded.iter().flat_map(|(_, fields)| fields.iter());
        for field in named.types.iter().map(|(field, _)| field).chain(embedded) {
            assert!(fields.contains(field), "{name} has no {field}");
        }
    }
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
    assert_eq!(commit_request(b"null").expect("valid"), None);
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
