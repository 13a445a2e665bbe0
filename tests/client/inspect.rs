//! What `inspect`, `info`, `version` and the frame of the API say.

use serde_json::Value;

use crate::with_busybox;
use testkit::Options;

#[test]
fn the_keys_of_a_container() {
    let d = with_busybox();
    let _ = d.docker(&["run", "--name", "c1", "busybox", "sh", "-c", "exit 5"]);
    let body = d.http("GET", "/v1.45/containers/c1/json", "").expect(200);
    let json = body.json();
    // Clients read by name; the order of one late key differs.
    let sorted = |words: &mut Vec<&str>| {
        words.sort_unstable();
        words.join(" ")
    };
    let mut keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver Platform MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts Config NetworkSettings";
    assert_eq!(sorted(&mut keys), sorted(&mut wanted.split(' ').collect()));
    let state: Vec<&String> = json["State"].as_object().unwrap().keys().collect();
    assert_eq!(
        state.into_iter().map(String::as_str).collect::<Vec<_>>().join(" "),
        "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt"
    );
    assert!(body.text().ends_with("}\n"));
    d.finish();
}

/// Files and the id of a network come with the first start, and stay.
#[test]
fn what_a_start_makes_is_shown_from_then_on() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "c1", "busybox", "true"]).ok();
    let shown = || {
        let json = d.http("GET", "/containers/c1/json", "").expect(200).json();
        let files = ["ResolvConfPath", "HostnamePath", "HostsPath"].map(|key| json[key].as_str().unwrap().to_owned());
        let network = json["NetworkSettings"]["Networks"]["bridge"]["NetworkID"].as_str().unwrap().to_owned();
        (files, network)
    };
    let (files, network) = shown();
    assert!(network.is_empty() && files.iter().all(String::is_empty), "{files:?} {network}");
    let _ = d.docker(&["start", "-a", "c1"]).ok();
    d.until("c1", "{{.State.Status}}", "exited");
    let (files, network) = shown();
    assert!(files.iter().all(|path| std::path::Path::new(path).is_file()), "{files:?}");
    assert_eq!(network, d.docker(&["network", "inspect", "-f", "{{.Id}}", "bridge"]).text());
    d.finish();
}

#[test]
fn null_and_empty_are_told_apart() {
    let d = with_busybox();
    let created =
        d.http("POST", "/containers/create?name=c1", r#"{"Image":"busybox","Cmd":["true"]}"#).expect(201).json();
    assert_eq!(created["Warnings"], serde_json::json!([]));
    let json = d.http("GET", "/v1.45/containers/c1/json", "").expect(200).json();
    let host = &json["HostConfig"];
    for key in ["Binds", "VolumesFrom", "CapAdd", "CapDrop", "ExtraHosts", "GroupAdd", "Links", "SecurityOpt"] {
        assert_eq!(host[key], Value::Null, "{key}");
    }
    assert_eq!(json["Config"]["Entrypoint"], Value::Null);
    assert_eq!(json["NetworkSettings"]["Ports"], serde_json::json!({}));
    assert_eq!(json["ExecIDs"], Value::Null);
    assert_eq!(json["Mounts"], serde_json::json!([]));
    assert_eq!(host["ShmSize"], 64 << 20);
    assert_eq!(host["RestartPolicy"]["Name"], "no");
    assert_eq!(host["IpcMode"], "private");
    assert_eq!(host["Runtime"], "runc");
    assert!(host["MaskedPaths"].as_array().unwrap().iter().any(|p| p == "/proc/kcore"));
    d.finish();
}

#[test]
fn field_names_match_in_any_case_and_unknown_ones_are_ignored() {
    let d = with_busybox();
    let body = r#"{"image":"busybox","CMD":["true"],"nosuch":{"a":1},"hostconfig":{"autoremove":true}}"#;
    let _ = d.http("POST", "/containers/create?name=c1", body).expect(201);
    assert_eq!(d.inspect("c1", "{{.HostConfig.AutoRemove}} {{.Path}}"), "true true");
    d.finish();
}

#[test]
fn version_and_info_tell_the_truth() {
    let d = with_busybox();
    let text = d.docker(&["version"]).text();
    assert!(text.contains("Server") && text.contains("API version"), "{text}");
    let version = d.http("GET", "/version", "").expect(200).json();
    assert_eq!((version["ApiVersion"].as_str(), version["MinAPIVersion"].as_str()), (Some("1.56"), Some("1.24")));
    assert_eq!(
        (version["Os"].as_str(), version["Arch"].as_str()),
        (Some("linux"), Some(if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }))
    );
    let _ = d.docker(&["run", "-d", "busybox", "sleep", "100"]).ok();
    let _ = d.docker(&["create", "busybox", "true"]).ok();
    let info = d.http("GET", "/info", "").expect(200).json();
    assert_eq!(
        (info["Containers"].as_i64(), info["ContainersRunning"].as_i64(), info["ContainersStopped"].as_i64()),
        (Some(2), Some(1), Some(1))
    );
    assert_eq!(info["Images"], 1);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(info["KernelVersion"], kernel.trim());
    assert_eq!(info["DockerRootDir"], d.data_root().to_str().unwrap());
    assert_eq!(info["NCPU"], std::thread::available_parallelism().unwrap().get());
    assert_eq!(info["DefaultRuntime"], "runc");
    assert_eq!(info["DriverStatus"], serde_json::json!([["driver-type", "io.containerd.snapshotter.v1"]]));
    assert!(d.docker(&["info"]).text().contains("Server:"));
    d.finish();
}

#[test]
fn ping() {
    let d = with_busybox();
    let get = d.http("GET", "/_ping", "").expect(200);
    assert_eq!(get.text(), "OK");
    for (name, value) in [
        ("Api-Version", "1.56"),
        ("Ostype", "linux"),
        ("Docker-Experimental", "false"),
        ("Builder-Version", "2"),
        ("Swarm", "inactive"),
        ("Cache-Control", "no-cache, no-store, must-revalidate"),
        ("Pragma", "no-cache"),
    ] {
        assert_eq!(get.header(name), Some(value), "{name}");
    }
    let head = d.http("HEAD", "/_ping", "").expect(200);
    assert_eq!(head.header("Content-Length"), Some("0"));
    assert!(get.header("Server").unwrap().starts_with("Docker/"));
    d.finish();
}

#[test]
fn versions_in_paths() {
    let d = with_busybox();
    assert_eq!(d.http("GET", "/v1.24/version", "").status, 200);
    assert_eq!(
        d.http("GET", "/v9.99/version", "").expect(400).message(),
        "client version 9.99 is too new. Maximum supported API version is 1.56"
    );
    assert_eq!(
        // A client that old does not know JSON errors.
        d.http("GET", "/v1.23/version", "").expect(400).text(),
        "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version\n"
    );
    for (method, path) in
        [("GET", "/nosuch"), ("GET", "/v1.45/nosuch"), ("PUT", "/containers/json"), ("DELETE", "/_ping")]
    {
        assert_eq!(d.http(method, path, "").expect(404).message(), "page not found", "{method} {path}");
    }
    assert_eq!(d.http("OPTIONS", "/anything", "").status, 200);
    d.finish();
}

#[test]
fn what_is_not_there_yet_says_so() {
    let d = with_busybox();
    let answer = d.http("POST", "/build", "").expect(500);
    assert_eq!(answer.message(), "Cannot locate specified Dockerfile: Dockerfile");
    let answer = d.http("GET", "/nodes", "").expect(503);
    assert_eq!(
        answer.message(),
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."
    );
    d.finish();
}

#[test]
fn many_requests_on_one_connection() {
    let d = with_busybox();
    let mut connection = d.connection();
    for _ in 0..50 {
        let _ = connection.request("GET", "/containers/json?all=1", "").expect(200);
        let _ = connection.request("GET", "/nosuch", "").expect(404);
        let _ = connection.request("POST", "/containers/zz/start", "").expect(404);
    }
    d.finish();
}

#[test]
fn clients_are_told_to_build_without_buildkit() {
    let d = Options::new().config(r#"{"features": {"buildkit": false}}"#).start();
    for method in ["GET", "HEAD"] {
        assert_eq!(d.http(method, "/_ping", "").expect(200).header("Builder-Version"), Some("1"), "{method}");
    }
    d.finish();
}

#[test]
fn the_version_has_every_key_that_clients_show() {
    let d = with_busybox();
    let version = d.http("GET", "/version", "").expect(200).json();
    for key in ["GoVersion", "GitCommit", "BuildTime"] {
        assert!(version[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {version}");
        assert_eq!(version[key], version["Components"][0]["Details"][key], "{key}");
    }
    assert!(version["BuildTime"].as_str().unwrap().ends_with('Z'), "{version}");
    d.finish();
}

#[test]
fn an_unknown_container_to_attach_to_is_a_raw_text() {
    let d = with_busybox();
    let answer = d.http("POST", "/containers/nosuch/attach?stream=1&stdout=1", "").expect(404);
    assert_eq!(answer.text(), "No such container: nosuch\r\n");
    assert_eq!(answer.header("Content-Type"), Some("application/vnd.docker.raw-stream"));
    d.finish();
}
