//! Starts that fail: the reference's status and words, the state that `inspect` shows, and nothing left behind.

use serde_json::{Value, json};
use testkit::Daemon;
use testkit::command::{PATIENCE, eventually};

use crate::calls;
use crate::with_busybox;

/// What every refusal of the runtime begins with.
const RUNTIME: &str = "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: ";

fn command(words: &[&str]) -> Value {
    json!({"Image": "busybox", "Cmd": words, "HostConfig": {"NetworkMode": "bridge"}})
}

fn with(key: &str, value: Value) -> Value {
    let mut body = command(&["true"]);
    body[key] = value;
    body
}

fn host(more: Value) -> Value {
    calls::with_host(command(&["true"]), more)
}

/// A start that fails: status, part of the text, exit code.
#[track_caller]
fn fails(d: &Daemon, body: &Value, status: u16, text: &str, code: i64) {
    let id = calls::create(d, "failing", body);
    let answer = d.http("POST", "/containers/failing/start", "");
    assert_eq!(answer.status, status, "{body}: {}", answer.text());
    assert!(answer.message().contains(text), "{body}: {}", answer.message());
    assert_eq!(calls::state(d, "failing"), ("created".into(), code, answer.message()), "{body}");
    assert!(!d.exec_root().join(&id).exists());
    let groups = testkit::census::cgroups(d.cgroup());
    assert!(!groups.iter().any(|g| g.ends_with(&id)), "{groups:?}");
    let network = d.http("GET", "/networks/bridge", "");
    if network.status == 200 {
        assert!(network.json()["Containers"].get(&id).is_none(), "{body}");
    }
    calls::remove(d, "failing");
}

#[test]
fn programs_and_users() {
    let d = with_busybox();
    let nope = format!("{RUNTIME}exec: \"/nope\": stat /nope: no such file or directory: unknown");
    fails(&d, &command(&["/nope"]), 400, &nope, 127);
    let nope = format!("{RUNTIME}exec: \"nope\": executable file not found in $PATH: unknown");
    fails(&d, &command(&["nope"]), 400, &nope, 127);
    fails(&d, &command(&["/etc/not-executable"]), 400, "exec: \"/etc/not-executable\": permission denied", 126);
    fails(&d, &command(&["/etc"]), 400, "exec: \"/etc\": is a directory: unknown: permission denied", 126);
    fails(&d, &command(&["/bin/sh/x"]), 400, "not a directory", 127);
    let passwd = "unable to find user nosuch: no matching entries in passwd file";
    fails(&d, &with("User", json!("nosuch")), 500, passwd, 128);
    fails(
        &d,
        &with("User", json!("root:nosuch")),
        500,
        "unable to find group nosuch: no matching entries in group file",
        128,
    );
    // A file and a place below one are refused at create.
    let answer =
        d.http("POST", "/containers/create", &with("WorkingDir", json!("/etc/passwd")).to_string()).expect(500);
    assert_eq!(answer.message(), "Cannot mkdir: /etc/passwd is not a directory");
    let answer =
        d.http("POST", "/containers/create", &with("WorkingDir", json!("/etc/passwd/x")).to_string()).expect(500);
    assert_eq!(answer.message(), "lstat /etc/passwd/x: not a directory");
    // A missing working directory is made.
    let mut body = command(&["pwd"]);
    body["WorkingDir"] = json!("/made/on/the/spot");
    calls::run(&d, "made", &body);
    calls::until(&d, "made", "exited", 0);
    assert_eq!(calls::log(&d, "made"), "/made/on/the/spot\n");
    d.finish();
}

#[test]
fn mounts() {
    let d = with_busybox();
    let dir = tempfile::tempdir().unwrap();
    let (file, sub) = (dir.path().join("file"), dir.path().join("sub"));
    std::fs::write(&file, "x").unwrap();
    std::fs::create_dir(&sub).unwrap();
    let bind = |source: &std::path::Path, target: &str| json!({"Binds": [format!("{}:{target}", source.display())]});
    let hint = "Are you trying to mount a directory onto a file (or vice-versa)?";
    fails(&d, &host(bind(&sub, "/etc/passwd")), 400, hint, 127);
    fails(&d, &host(bind(&file, "/etc")), 400, hint, 127);
    fails(&d, &host(bind(&sub, "/etc/passwd/x")), 400, "not a directory", 127);
    // A source that is there at create and gone at start.
    let gone = dir.path().join("gone");
    std::fs::create_dir(&gone).unwrap();
    let mount = json!({"Mounts": [{"Type": "bind", "Source": gone, "Target": "/mnt"}]});
    calls::create(&d, "gone", &host(mount));
    std::fs::remove_dir(&gone).unwrap();
    let answer = d.http("POST", "/containers/gone/start", "").expect(400);
    assert!(answer.message().contains("bind source path does not exist"), "{}", answer.message());
    let missing = json!({"Mounts": [{"Type": "bind", "Source": gone, "Target": "/mnt"}]});
    let answer = d.http("POST", "/containers/create", &host(missing).to_string()).expect(400);
    let text = format!("invalid mount config for type \"bind\": bind source path does not exist: {}", gone.display());
    assert_eq!(answer.message(), text);
    let answer = d.http("POST", "/containers/create", &host(json!({"Binds": ["x"]})).to_string()).expect(500);
    assert!(answer.message().starts_with("invalid volume specification: 'x': "), "{}", answer.message());
    d.finish();
}

#[test]
fn the_host_has_no_place() {
    let d = with_busybox();
    let published = json!({"PortBindings": {"80/tcp": [{"HostPort": "18090"}]}});
    let holder = calls::with_host(command(&["sleep", "1000"]), published.clone());
    calls::run(&d, "holder", &holder);
    fails(&d, &host(published.clone()), 500, "Bind for 0.0.0.0:18090 failed: port is already allocated", 128);
    calls::remove(&d, "holder");
    // Another program has the port.
    let mut other = d.namespaces().command("busybox").args(["nc", "-l", "-p", "18090"]).spawn().unwrap();
    let listens = || d.exec_inside(&["ss", "-ltn"]).stdout.contains(":18090");
    assert!(eventually(PATIENCE, listens), "nobody listens");
    fails(&d, &host(published.clone()), 500, "address already in use", 128);
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(eventually(PATIENCE, || !listens()));
    calls::run(&d, "after", &holder);
    let answer = d.http("POST", "/containers/create", &host(json!({"Runtime": "nosuch"})).to_string()).expect(400);
    assert_eq!(answer.message(), "unknown or invalid runtime name: nosuch");
    let device = json!({"PathOnHost": "/dev/nosuch", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"});
    let text = "error gathering device information while adding custom device \"/dev/nosuch\": ";
    fails(&d, &host(json!({"Devices": [device]})), 500, text, 128);
    fails(
        &d,
        &host(json!({"Sysctls": {"net.nosuch.key": "1"}})),
        400,
        "open /proc/sys/net/nosuch/key: no such file or directory",
        127,
    );
    fails(&d, &host(json!({"NetworkMode": "nosuch"})), 404, "network nosuch not found", 128);
    d.finish();
}

/// Many failing starts at once leave nothing either.
#[test]
fn many_at_once() {
    let d = with_busybox();
    let before = testkit::process::descriptors(d.pid()).len();
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let socket = d.socket();
            std::thread::spawn(move || {
                let mut connection = testkit::Connection::open(&socket).unwrap();
                for round in 0..10 {
                    let name = format!("fails-{worker}-{round}");
                    let body = command(&["/nope"]).to_string();
                    let _ = connection.request("POST", &format!("/containers/create?name={name}"), &body).expect(201);
                    let _ = connection.request("POST", &format!("/containers/{name}/start"), "").expect(400);
                    let _ = connection.request("DELETE", &format!("/containers/{name}"), "").expect(204);
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let back = || testkit::process::descriptors(d.pid()).len() <= before;
    assert!(eventually(PATIENCE, back));
    d.finish();
}

/// An exec whose environment no process can have is refused in the words of runc; one without a `=` is left out.
#[test]
fn environments_of_execs() {
    let d = with_busybox();
    calls::run(&d, "c", &calls::script("sleep 1000"));
    let before =
        "OCI runtime exec failed: exec failed: unable to start container process: invalid environment variable";
    let cases = [
        ("=x", ": name cannot be empty: unknown"),
        ("=", ": name cannot be empty: unknown"),
        ("A\0=x", " \"A\\x00\": name contains nul byte (\\x00): unknown"),
        ("A=x\0y", " \"A\": value contains nul byte (\\x00): unknown"),
    ];
    for (variable, text) in cases {
        let body = json!({"Cmd": ["true"], "Env": ["GOOD=1", variable]}).to_string();
        let made = d.http("POST", "/containers/c/exec", &body).expect(201).json();
        let path = format!("/exec/{}", made["Id"].as_str().unwrap());
        let answer = d.http("POST", &format!("{path}/start"), r#"{"Detach":true}"#).expect(500);
        assert_eq!(answer.message(), format!("{before}{text}"), "{variable:?}");
        let shown = d.http("GET", &format!("{path}/json"), "").expect(200).json();
        assert_eq!((&shown["ExitCode"], &shown["Running"]), (&json!(126), &json!(false)), "{variable:?}");
    }
    let body = json!({"Cmd": ["sh", "-c", "[ -z \"${A+set}\" ] && [ \"$B\" = = ]"], "Env": ["A", "B=="]}).to_string();
    let made = d.http("POST", "/containers/c/exec", &body).expect(201).json();
    let path = format!("/exec/{}", made["Id"].as_str().unwrap());
    let _ = d.http("POST", &format!("{path}/start"), r#"{"Detach":true}"#).expect(200);
    let state = || d.http("GET", &format!("{path}/json"), "").expect(200).json();
    assert!(eventually(PATIENCE, || state()["Running"] == false));
    assert_eq!(state()["ExitCode"], 0);
    d.finish();
}
