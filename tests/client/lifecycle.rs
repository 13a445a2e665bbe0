//! create, start, stop, kill, restart, pause, rename, wait, rm, restart policies: states, codes and texts.

use std::time::{Duration, Instant};

use testkit::{Daemon, Options};

use crate::{PATIENCE, eventually, with_busybox, with_images};

fn sleeper(d: &Daemon, name: &str) {
    let _ = d.docker(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]).ok();
}

#[test]
fn the_whole_life() {
    let d = with_busybox();
    let status = |name: &str| d.inspect(name, "{{.State.Status}}");
    let _ = d.docker(&["create", "--name", "first", "busybox", "sh", "-c", "echo run; sleep 1000"]).ok();
    assert_eq!(status("first"), "created");
    let _ = d.docker(&["start", "first"]).ok();
    assert_eq!(status("first"), "running");
    let _ = d.docker(&["stop", "-t", "0", "first"]).ok();
    assert_eq!(d.inspect("first", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    let _ = d.docker(&["restart", "-t", "0", "first"]).ok();
    assert_eq!(status("first"), "running");
    let _ = d.docker(&["rename", "first", "second"]).ok();
    assert_eq!(d.inspect("second", "{{.Name}}"), "/second");
    // No id begins so, the container's own neither.
    d.docker(&["inspect", "--type=container", "first"]).fails(1, "No such container: first");
    d.docker(&["rm", "second"]).fails(
        1,
        "cannot remove container \"/second\": container is running: stop the container before removing or force remove",
    );
    let _ = d.docker(&["rm", "-f", "second"]).ok();
    assert_eq!(d.docker(&["ps", "-aq"]).text(), "");
    d.finish();
}

#[test]
fn start_attached_gives_output_and_code() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "c1", "busybox", "sh", "-c", "echo hi; exit 3"]).ok();
    for _ in 0..3 {
        let output = d.docker(&["start", "-a", "c1"]);
        assert_eq!((output.code, output.stdout.as_str()), (3, "hi\n"));
    }
    let _ = d.docker(&["create", "-i", "--name", "i1", "busybox", "cat"]).ok();
    assert_eq!(d.docker_input(&["start", "-ai", "i1"], b"typed").ok().stdout, "typed");
    d.finish();
}

#[test]
fn statuses_of_repeated_requests() {
    let d = with_busybox();
    sleeper(&d, "c1");
    let mut connection = d.connection();
    let mut status = |method: &str, path: &str| connection.request(method, path, "").status;
    assert_eq!(status("POST", "/containers/c1/start"), 304);
    assert_eq!(status("POST", "/containers/c1/stop?t=0"), 204);
    assert_eq!(status("POST", "/containers/c1/stop"), 304);
    assert_eq!(status("POST", "/containers/c1/kill"), 409);
    assert_eq!(status("POST", "/containers/c1/pause"), 409);
    assert_eq!(status("POST", "/containers/c1/resize?h=1&w=1"), 409);
    assert_eq!(status("POST", "/containers/nosuch/start"), 404);
    assert_eq!(status("DELETE", "/containers/c1"), 204);
    assert_eq!(status("DELETE", "/containers/c1"), 404);
    d.finish();
}

#[test]
fn texts_of_refusals() {
    let d = with_busybox();
    let id = d.docker(&["create", "--name", "c1", "busybox", "true"]).text();
    let message = |method: &str, path: &str| d.http(method, path, "").message();
    let not_running = format!("container {id} is not running");
    assert_eq!(message("POST", "/containers/c1/kill"), format!("cannot kill container: c1: {not_running}"));
    assert_eq!(message("POST", "/containers/c1/pause"), not_running);
    assert_eq!(message("GET", "/containers/c1/top"), not_running);
    assert_eq!(message("POST", "/containers/c1/resize?h=1&w=1"), not_running);
    assert_eq!(message("POST", "/containers/c1/rename?name="), "Neither old nor new names may be empty");
    assert_eq!(message("POST", "/containers/c1/wait?condition=foo"), "invalid condition: \"foo\"");
    assert_eq!(message("GET", "/containers/zzz/json"), "No such container: zzz");
    let other = d.docker(&["create", "--name", "other", "busybox", "true"]).text();
    assert_eq!(
        message("POST", "/containers/c1/rename?name=other"),
        format!(
            "Error when allocating new name: Conflict. The container name \"/other\" is already in use by container \"{other}\". You have to remove (or rename) that container to be able to reuse that name."
        )
    );
    d.finish();
}

/// A container that has set this trap when the call returns, and otherwise waits.
fn trapping(d: &Daemon, name: &str, options: &[&str], trap: &str) {
    let script = format!("trap {trap}; echo up; while true; do sleep 0.1; done");
    let words = [&["run", "-d", "--name", name], options, &["busybox", "sh", "-c", &script]].concat();
    let _ = d.docker(&words).ok();
    let up = || d.docker(&["logs", name]).text() == "up";
    assert!(eventually(up), "{name} did not set its trap");
}

/// How long a stop takes.
fn stop(d: &Daemon, words: &[&str]) -> Duration {
    let begin = Instant::now();
    let _ = d.docker(&[&["stop"], words].concat()).ok();
    begin.elapsed()
}

#[test]
fn stop_waits_then_kills() {
    let d = with_busybox();
    // Its own time is one that no test waits for.
    trapping(&d, "deaf", &["--stop-timeout", "1000"], "'' TERM");
    let took = stop(&d, &["-t", "1", "deaf"]);
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert_eq!(d.inspect("deaf", "{{.State.ExitCode}}"), "137");
    trapping(&d, "polite", &["--stop-timeout", "1000"], "'exit 3' TERM");
    stop(&d, &["polite"]);
    assert_eq!(d.inspect("polite", "{{.State.ExitCode}}"), "3");
    trapping(&d, "usr", &["--stop-timeout", "1000", "--stop-signal", "USR1"], "'exit 4' USR1");
    stop(&d, &["usr"]);
    assert_eq!(d.inspect("usr", "{{.State.ExitCode}}"), "4");
    d.finish();
}

#[test]
fn the_daemon_has_a_stop_timeout_for_containers_without_one() {
    // Longer than the time of those without any wish, ten seconds.
    let d = Options::new().args(&["--default-stop-timeout", "12"]).start();
    d.busybox();
    trapping(&d, "deaf", &[], "'' TERM");
    trapping(&d, "own", &["--stop-timeout", "14"], "'' TERM");
    let (deaf, own) = std::thread::scope(|scope| {
        let stops = ["deaf", "own"].map(|name| scope.spawn(|| stop(&d, &[name])));
        let [deaf, own] = stops.map(|stop| stop.join().unwrap());
        (deaf, own)
    });
    assert!(deaf >= Duration::from_secs(12) && own >= Duration::from_secs(14), "{deaf:?} {own:?}");
    d.finish();
}

/// More seconds than the clock has are for ever, and no container is lost by them.
#[test]
fn a_stop_may_take_for_ever() {
    let mut d = with_busybox();
    let longest = i64::MAX.to_string();
    trapping(&d, "deaf", &["--stop-timeout", &longest], "'' TERM");
    trapping(&d, "polite", &["--stop-timeout", &longest], "'exit 3' TERM");
    let mut stop = d.spawn(&["stop", "-t", &longest, "deaf"]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(d.inspect("deaf", "{{.State.Status}}"), "running");
    let _ = d.docker(&["kill", "deaf"]).ok();
    assert_eq!(stop.wait(PATIENCE).expect("stop ends with the container").code, 0);
    let _ = d.docker(&["rm", "deaf"]).ok();
    // The daemon's own end waits for the other.
    d.stop();
    d.again();
    assert_eq!(d.inspect("polite", "{{.State.ExitCode}}"), "3");
    d.finish();
}

#[test]
fn a_long_stop_blocks_nothing() {
    let d = with_busybox();
    let _ = d
        .docker(&["run", "-d", "--name", "deaf", "busybox", "sh", "-c", "trap '' TERM; while true; do sleep 0.1; done"])
        .ok();
    let mut stop = d.spawn(&["stop", "-t", "60", "deaf"]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(d.inspect("deaf", "{{.State.Status}}"), "running");
    assert_eq!(d.docker(&["exec", "deaf", "echo", "in"]).text(), "in");
    let _ = d.docker(&["kill", "deaf"]).ok();
    assert_eq!(stop.wait(PATIENCE).expect("stop ends with the container").code, 0);
    d.finish();
}

#[test]
fn signals() {
    let d = with_busybox();
    let script = "trap 'echo hup' HUP; echo ready; while true; do sleep 0.05; done";
    let _ = d.docker(&["run", "-d", "--name", "s1", "busybox", "sh", "-c", script]).ok();
    let mut follower = d.spawn(&["logs", "-f", "s1"]);
    follower.expect("ready");
    for signal in ["HUP", "SIGHUP", "1"] {
        follower_sees(&d, &mut follower, signal);
    }
    d.docker(&["kill", "-s", "NOSUCH", "s1"]).fails(1, "NOSUCH");
    let _ = d.docker(&["kill", "s1"]).ok();
    assert_eq!(d.inspect("s1", "{{.State.ExitCode}}"), "137");
    drop(follower);
    d.finish();
}

fn follower_sees(d: &Daemon, follower: &mut testkit::Running, signal: &str) {
    let before = follower.stdout().matches("hup").count();
    let _ = d.docker(&["kill", "-s", signal, "s1"]).ok();
    let seen = eventually(|| follower.stdout().matches("hup").count() > before);
    assert!(seen, "{signal} did not arrive");
}

#[test]
fn waiting() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "w1", "busybox", "sh", "-c", "sleep 0.5; exit 9"]).ok();
    assert_eq!(d.docker(&["wait", "w1"]).text(), "9");
    assert_eq!(d.docker(&["wait", "w1", "w1"]).text(), "9\n9");
    // The header comes before the container ends; a removed container still answers.
    let _ = d.docker(&["create", "--rm", "--name", "r1", "busybox", "sh", "-c", "exit 1"]).ok();
    let mut connection = d.connection();
    connection
        .send(b"POST /v1.45/containers/r1/wait?condition=removed HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let head = connection.head().expect("the head comes at once");
    assert_eq!(head.status, 200);
    assert_eq!(d.http("POST", "/containers/r1/start", "").status, 204);
    let body = connection.body(&head).unwrap();
    assert_eq!(String::from_utf8_lossy(&body), "{\"StatusCode\":1}\n");
    // One that could not be started says why.
    let _ = d.docker(&["create", "--name", "f1", "busybox", "/nosuch"]).ok();
    let _ = d.http("POST", "/containers/f1/start", "").expect(400);
    let answer = d.http("POST", "/containers/f1/wait", "").expect(200).json();
    assert_eq!(answer["StatusCode"], 127);
    assert!(answer["Error"]["Message"].as_str().is_some_and(|text| text.contains("no such file")), "{answer}");
    d.finish();
}

#[test]
fn pausing() {
    let d = with_busybox();
    let _ = d
        .docker(&["run", "-d", "--name", "p1", "busybox", "sh", "-c", "while true; do echo tick; sleep 0.05; done"])
        .ok();
    let _ = d.docker(&["pause", "p1"]).ok();
    assert_eq!(d.inspect("p1", "{{.State.Status}} {{.State.Running}} {{.State.Paused}}"), "paused true true");
    let size = || d.docker(&["logs", "p1"]).ok().stdout.len();
    // What it wrote before is still read.
    assert!(eventually(|| {
        let first = size();
        std::thread::sleep(Duration::from_millis(400));
        size() == first
    }));
    d.docker(&["pause", "p1"]).fails(1, "is already paused");
    d.docker(&["exec", "p1", "true"]).fails(1, "is paused, unpause the container before exec");
    assert!(d.docker(&["ps", "--format", "{{.Status}}"]).text().ends_with("(Paused)"));
    let _ = d.docker(&["unpause", "p1"]).ok();
    assert_eq!(d.inspect("p1", "{{.State.Status}}"), "running");
    let _ = d.docker(&["pause", "p1"]).ok();
    let _ = d.docker(&["rm", "-f", "p1"]).ok();
    d.finish();
}

#[test]
fn names_and_ids() {
    let d = with_busybox();
    let id = d.docker(&["create", "--name", "name", "busybox", "true"]).text();
    for way in [id.as_str(), &id[..12], &id[..5], "name", "/name"] {
        assert_eq!(d.inspect(way, "{{.Id}}"), id);
    }
    let taken = format!(
        "Conflict. The container name \"/name\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    );
    d.docker(&["create", "--name", "name", "busybox", "true"]).fails(1, &taken);
    let other = d.docker(&["create", "busybox", "true"]).text();
    let name = d.inspect(&other, "{{.Name}}");
    assert!(name.starts_with('/') && name.contains('_'), "{name}");
    // Of several clients that want the same new name one gives it, and it leads to the container.
    let path = format!("/containers/{id}/rename?name=new");
    let mut statuses = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| d.http("POST", &path, "").status)).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect::<Vec<_>>()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 400, 400, 400]);
    assert_eq!(d.inspect("new", "{{.Id}}"), id);
    d.finish();
}

#[test]
fn removing_itself() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--rm", "--name", "r1", "busybox", "sleep", "0.2"]).ok();
    assert!(eventually(|| d.docker(&["ps", "-aq"]).text().is_empty()));
    let _ = d.docker(&["run", "-d", "--rm", "--name", "r1", "busybox", "sleep", "100"]).ok();
    let _ = d.docker(&["stop", "-t", "0", "r1"]).ok();
    assert!(eventually(|| d.docker(&["ps", "-aq"]).text().is_empty()));
    d.docker(&["create", "--rm", "--restart", "always", "busybox", "true"]).fails(125, "conflicting options");
    d.finish();
}

/// B-rs-1, B-rs-2
#[test]
fn restart_policies() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "f1", "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 5"]).ok();
    d.until("f1", "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}", "exited 2 5");
    let _ = d.docker(&["run", "-d", "--name", "ok", "--restart", "on-failure", "busybox", "true"]).ok();
    d.until("ok", "{{.State.Status}} {{.RestartCount}}", "exited 0");
    let _ = d.docker(&["run", "-d", "--name", "a1", "--restart", "always", "busybox", "sh", "-c", "sleep 0.1"]).ok();
    assert!(eventually(|| { d.inspect("a1", "{{.RestartCount}}").parse::<u32>().unwrap() >= 3 }));
    let _ = d.docker(&["stop", "a1"]).ok();
    let count = d.inspect("a1", "{{.RestartCount}}");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(d.inspect("a1", "{{.State.Status}} {{.RestartCount}}"), format!("exited {count}"));
    d.docker(&["create", "--restart", "zz", "busybox", "true"]).fails(1, "unknown policy 'zz'");
    d.finish();
}

#[test]
fn out_of_memory() {
    let d = with_images();
    let output =
        d.docker(&["run", "--name", "o1", "-m", "16m", "--memory-swap", "16m", "probe", "allocate", "67108864"]);
    assert_eq!(output.code, 137, "{output:?}");
    assert_eq!(d.inspect("o1", "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
    d.finish();
}

#[test]
fn many_containers_come_and_go() {
    let d = with_images();
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let socket = d.socket();
            std::thread::spawn(move || {
                let mut connection = testkit::Connection::open(&socket).unwrap();
                for n in 0..10 {
                    cycle(&mut connection, &format!("w{worker}-{n}"));
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    d.finish();
}

fn cycle(connection: &mut testkit::Connection, name: &str) {
    let body = r#"{"Image":"probe","HostConfig":{"NetworkMode":"none"}}"#;
    let _ = connection.request("POST", &format!("/containers/create?name={name}"), body).expect(201);
    let _ = connection.request("POST", &format!("/containers/{name}/start"), "").expect(204);
    let waited = connection.request("POST", &format!("/containers/{name}/wait"), "").expect(200);
    assert_eq!(waited.json()["StatusCode"], 0);
    let _ = connection.request("DELETE", &format!("/containers/{name}"), "").expect(204);
}

/// Two callers wish for the same name for one container: nobody else gets it afterwards.
#[test]
fn a_name_given_twice_at_once_stays_taken() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "a0", "busybox", "true"]).ok();
    for n in 1..=20 {
        let path = format!("/containers/a{}/rename?name=a{n}", n - 1);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| d.http("POST", &path, ""));
            }
        });
        let answer = d.http("POST", &format!("/containers/create?name=a{n}"), r#"{"Image":"busybox","Cmd":["true"]}"#);
        assert_eq!(answer.status, 409, "a{n}: {}", answer.message());
    }
    let _ = d.docker(&["rm", "a20"]).ok();
    d.finish();
}
