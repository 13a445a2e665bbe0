//! One daemon, clients of all ages: the gate, the frame at every version, and the shapes that changed.

use serde_json::Value;
use testkit::{Daemon, Options};

use crate::raw::{exchange, split};
use crate::{NEWEST, create, run, with_busybox};

/// The oldest and the newest minor version.
const MINORS: std::ops::RangeInclusive<u32> = 24..=56;

#[track_caller]
fn get(d: &Daemon, minor: u32, path: &str) -> Value {
    d.http("GET", &format!("/v1.{minor}{path}"), "").expect(200).json()
}

#[test]
fn every_version_is_spoken() {
    let d = with_busybox();
    let mut connection = d.connection();
    for minor in MINORS {
        for path in ["/_ping", "/version", "/info", "/containers/json", "/images/json", "/networks", "/volumes"] {
            let answer = connection.request("GET", &format!("/v1.{minor}{path}"), "");
            assert_eq!((answer.status, answer.header("Api-Version")), (200, Some(NEWEST)), "1.{minor} {path}");
            assert_eq!((answer.header("Ostype"), answer.header("Docker-Experimental")), (Some("linux"), Some("false")));
            assert!(
                answer
                    .header("Server")
                    .is_some_and(|server| server.starts_with("Docker/") && server.ends_with(" (linux)"))
            );
        }
    }
    for (minor, text) in [(23, "too old"), (57, "too new")] {
        let answer = connection.request("GET", &format!("/v1.{minor}/_ping"), "");
        assert!(answer.status == 400 && answer.text().contains(text), "{}", answer.text());
    }
    let version = get(&d, 45, "/version");
    assert_eq!((version["ApiVersion"].as_str(), version["MinAPIVersion"].as_str()), (Some(NEWEST), Some("1.24")));
    let unversioned = connection.request("GET", "/version", "").json();
    assert_eq!(unversioned, version);
    d.finish();
}

#[test]
fn the_floor_can_be_moved() {
    let d = Options::new().env("DOCKER_MIN_API_VERSION", "1.44").start();
    let message = d.http("GET", "/v1.43/info", "").expect(400).message();
    assert_eq!(
        message,
        "client version 1.43 is too old. Minimum supported API version is 1.44, please upgrade your client to a newer version"
    );
    assert_eq!(get(&d, 44, "/version")["MinAPIVersion"], "1.44");
    d.finish();
}

/// Odd versions and paths; nothing is packed, whatever the client could read; a connection may be kept or not.
#[test]
fn odd_requests() {
    let d = with_busybox();
    let ask = |text: &str| split(&exchange(&d, text.as_bytes()));
    for (line, wanted) in [
        ("GET /v1/_ping HTTP/1.1", "HTTP/1.1 400 Bad Request"),
        ("GET /v2.0/_ping HTTP/1.1", "HTTP/1.1 400 Bad Request"),
        ("GET /v1.45.0/_ping HTTP/1.1", "HTTP/1.1 200 OK"),
        ("GET /vx/_ping HTTP/1.1", "HTTP/1.1 404 Not Found"),
        ("GET /v1.45 HTTP/1.1", "HTTP/1.1 404 Not Found"),
        ("GET / HTTP/1.1", "HTTP/1.1 404 Not Found"),
        ("GET http://docker/v1.45/_ping HTTP/1.1", "HTTP/1.1 200 OK"),
        ("OPTIONS /v1.45/containers/json HTTP/1.1", "HTTP/1.1 200 OK"),
        ("OPTIONS * HTTP/1.1", "HTTP/1.1 200 OK"),
        ("GET //v1.45/_ping HTTP/1.1", "HTTP/1.1 301 Moved Permanently"),
        (r#"GET /v1.45/containers/json?filters={"status":["running"]} HTTP/1.1"#, "HTTP/1.1 200 OK"),
        ("HEAD /v1.45/_ping HTTP/1.1", "HTTP/1.1 200 OK"),
        ("PUT /v1.45/containers/json HTTP/1.1", "HTTP/1.1 404 Not Found"),
        ("GET /_ping HTTP/1.0", "HTTP/1.0 200 OK"),
    ] {
        let (head, _) = ask(&format!("{line}\r\nHost: d\r\nConnection: close\r\n\r\n"));
        assert_eq!(head[0], wanted, "{line}");
    }
    let (head, body) =
        ask("GET /v1.45/info HTTP/1.1\r\nHost: d\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: close\r\n\r\n");
    assert!(!head.iter().any(|field| field.to_lowercase().starts_with("content-encoding")), "{head:?}");
    assert!(serde_json::from_slice::<Value>(&body).unwrap()["ID"].is_string());
    let (_, body) = ask("HEAD /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n");
    assert_eq!(body, b"");
    let mut connection = d.connection();
    for _ in 0..2 {
        let answer = connection.request("GET", r#"/v1.45/containers/json?filters={"status":["zz"]}"#, "");
        assert_eq!(
            answer.expect(400).message(),
            "invalid filter 'status=zz': invalid value for state (zz): must be one of created, running, paused, restarting, removing, exited, dead"
        );
    }
    let moved = connection.request("GET", "//v1.45/containers/a%20b//json?size=1", "").expect(301);
    assert_eq!(moved.header("Location"), Some("/v1.45/containers/a%20b/json?size=1"));
    d.finish();
}

/// Two requests sent at once are answered one after the other.
#[test]
fn pipelined_requests() {
    let d = Daemon::start();
    let one = "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n";
    let last = "GET /nope HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
    let answers = String::from_utf8(exchange(&d, format!("{one}{one}{last}").as_bytes())).unwrap();
    let lines: Vec<&str> = answers.lines().filter(|line| line.contains("HTTP/1.1")).collect();
    assert_eq!(lines.len(), 3, "{answers}");
    assert!(lines[0].ends_with("200 OK") && lines[2].ends_with("404 Not Found"), "{answers}");
    d.finish();
}

/// Whether the value at a place is there: `None` when its parent is not.
fn has(value: &Value, place: &str) -> bool {
    value.pointer(place).is_some()
}

/// Each place is there from or up to a version.
#[track_caller]
fn check(d: &Daemon, path: &str, places: &[(&str, std::ops::RangeInclusive<u32>)]) {
    for minor in MINORS {
        let answer = get(d, minor, path);
        for (place, versions) in places {
            assert_eq!(has(&answer, place), versions.contains(&minor), "{path} at 1.{minor}: {place} in {answer}");
        }
    }
}

#[test]
fn shapes_of_a_container() {
    let d = with_busybox();
    let id = run(&d, "s1", r#"{"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"Annotations":{"a":"b"}}}"#);
    check(
        &d,
        "/containers/s1/json",
        &[
            ("/GraphDriver/Name", 24..=51),
            ("/Storage/RootFS/Snapshot/Name", 52..=56),
            ("/Config/OnBuild", 24..=51),
            ("/NetworkSettings/Bridge", 24..=51),
            ("/NetworkSettings/IPAddress", 24..=51),
            ("/NetworkSettings/SecondaryIPAddresses", 24..=51),
            ("/NetworkSettings/SandboxKey", 24..=56),
            ("/NetworkSettings/Networks/bridge/IPAddress", 24..=56),
            ("/NetworkSettings/Networks/bridge/GwPriority", 48..=56),
            ("/NetworkSettings/Networks/bridge/DNSNames", 44..=56),
            ("/ImageManifestDescriptor", 48..=56),
            ("/HostConfig/ConsoleSize", 24..=56),
            ("/HostConfig/Annotations", 24..=56),
            ("/SizeRw", std::ops::RangeInclusive::new(1, 0)),
        ],
    );
    check(
        &d,
        "/containers/json",
        &[
            ("/0/HostConfig/Annotations", 46..=56),
            ("/0/ImageManifestDescriptor", 48..=56),
            ("/0/NetworkSettings/Networks/bridge/DNSNames", 44..=56),
            ("/0/NetworkSettings/Networks/bridge/GwPriority", 48..=56),
            ("/0/Health", 52..=56),
            ("/0/Mounts", 24..=56),
            ("/0/SizeRw", std::ops::RangeInclusive::new(1, 0)),
        ],
    );
    let old = get(&d, 45, "/containers/s1/json");
    let (settings, own) = (&old["NetworkSettings"], &old["NetworkSettings"]["Networks"]["bridge"]);
    for key in ["EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "MacAddress"] {
        assert_eq!(settings[key], own[key], "{key}");
    }
    assert!(settings["IPAddress"].as_str().unwrap().starts_with("172."));
    let sized = get(&d, 45, "/containers/s1/json?size=1");
    assert!(sized["SizeRw"].is_i64() && sized["SizeRootFs"].as_i64() > Some(100_000), "{sized}");
    assert!(get(&d, 45, "/containers/json?size=1")[0]["SizeRootFs"].as_i64() > Some(100_000));
    assert_eq!(old["Id"].as_str(), Some(id.as_str()));
    d.finish();
}

#[test]
fn shapes_of_images_networks_and_info() {
    let d = with_busybox();
    check(
        &d,
        "/images/busybox/json",
        &[
            ("/VirtualSize", 24..=43),
            ("/Container", 24..=44),
            ("/ContainerConfig", 24..=44),
            ("/Config/Hostname", 24..=49),
            ("/Config/Volumes", 24..=51),
            ("/Parent", 24..=51),
            ("/DockerVersion", 24..=51),
            ("/Descriptor", 48..=56),
            ("/RepoTags", 24..=56),
            ("/Metadata/LastTagTime", 24..=56),
        ],
    );
    check(&d, "/images/json", &[("/0/VirtualSize", 24..=43), ("/0/Descriptor", 48..=56), ("/0/RepoTags", 24..=56)]);
    check(&d, "/networks/bridge", &[("/EnableIPv4", 48..=56), ("/Containers", 24..=56)]);
    check(&d, "/networks", &[("/0/EnableIPv4", 48..=56)]);
    check(
        &d,
        "/info",
        &[
            ("/BridgeNfIptables", 24..=49),
            ("/FirewallBackend", 49..=56),
            ("/RuncCommit/Expected", 24..=48),
            ("/RegistryConfig/AllowNondistributableArtifactsCIDRs", 24..=46),
            ("/Containers", 24..=56),
        ],
    );
    let keys = "ID Containers ContainersRunning ContainersPaused ContainersStopped Images Driver DriverStatus Plugins MemoryLimit SwapLimit CpuCfsPeriod CpuCfsQuota CPUShares CPUSet PidsLimit IPv4Forwarding BridgeNfIptables BridgeNfIp6tables Debug NFd OomKillDisable NGoroutines SystemTime LoggingDriver CgroupDriver CgroupVersion NEventsListener KernelVersion OperatingSystem OSVersion OSType Architecture IndexServerAddress RegistryConfig NCPU MemTotal GenericResources DockerRootDir HttpProxy HttpsProxy NoProxy Name Labels ExperimentalBuild ServerVersion Runtimes DefaultRuntime Swarm LiveRestoreEnabled Isolation InitBinary ContainerdCommit RuncCommit InitCommit SecurityOptions CDISpecDirs Warnings";
    let info = get(&d, 45, "/info");
    for key in keys.split(' ') {
        assert!(has(&info, &format!("/{key}")), "{key} in {info}");
    }
    d.finish();
}

/// What came later is not heard from an older client.
#[test]
fn requests_of_older_clients() {
    let d = with_busybox();
    let made = |minor: u32, name: &str, body: &str| {
        d.http("POST", &format!("/v1.{minor}/containers/create?name={name}"), body)
    };
    let console = r#"{"Image":"busybox","HostConfig":{"ConsoleSize":[20,30]}}"#;
    let _ = made(41, "c41", console).expect(201);
    let _ = made(42, "c42", console).expect(201);
    let size = |name: &str| get(&d, 45, &format!("/containers/{name}/json"))["HostConfig"]["ConsoleSize"].clone();
    assert_eq!((size("c41").to_string(), size("c42").to_string()), ("[0,0]".into(), "[20,30]".into()));
    let mac = r#"{"Image":"busybox","MacAddress":"02:42:ac:11:00:99"}"#;
    let _ = made(43, "mac", mac).expect(201);
    let networks = &get(&d, 45, "/containers/mac/json")["NetworkSettings"]["Networks"];
    assert_eq!(networks["bridge"]["MacAddress"], "02:42:ac:11:00:99");
    let two = r#"{"Image":"busybox","NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}}}"#;
    let text = "Container cannot be created with multiple network endpoints: a, b";
    assert_eq!(made(43, "two", two).expect(400).message(), text);
    create(&d, "shared", r#"{"Image":"busybox","HostConfig":{"IpcMode":""}}"#);
    let _ = made(39, "ipc", r#"{"Image":"busybox"}"#).expect(201);
    assert_eq!(get(&d, 45, "/containers/ipc/json")["HostConfig"]["IpcMode"], "shareable");
    assert_eq!(get(&d, 45, "/containers/shared/json")["HostConfig"]["IpcMode"], "private");
    d.finish();
}
