//! `docker logs`: tail, times, windows, following, rotation, drivers.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use testkit::Options;

use crate::{eventually, with_busybox, with_images};

#[test]
fn all_of_it_both_streams() {
    let d = with_busybox();
    let _ = d.docker(&["run", "--name", "l1", "busybox", "sh", "-c", "echo out; echo err >&2; printf tail"]).ok();
    let output = d.docker(&["logs", "l1"]).ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\ntail", "err\n"));
    d.finish();
}

#[test]
fn tail_and_times() {
    let d = with_busybox();
    let _ = d.docker(&["run", "--name", "l1", "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; done"]).ok();
    assert_eq!(d.docker(&["logs", "--tail", "2", "l1"]).ok().stdout, "4\n5\n");
    assert_eq!(d.docker(&["logs", "--tail", "0", "l1"]).ok().stdout, "");
    assert_eq!(d.docker(&["logs", "--tail", "all", "l1"]).ok().stdout.lines().count(), 5);
    let stamped = d.docker(&["logs", "-t", "--tail", "1", "l1"]).ok().stdout;
    let (time, line) = stamped.trim().split_once(' ').unwrap();
    assert_eq!(line, "5");
    assert!(time.len() == "2006-01-02T15:04:05.000000000Z".len() && time.ends_with('Z'), "{time}");
    assert_eq!(d.docker(&["logs", "--since", time, "l1"]).ok().stdout, "5\n");
    assert_eq!(d.docker(&["logs", "--until", "2001-01-01T00:00:00Z", "l1"]).ok().stdout, "");
    assert_eq!(d.docker(&["logs", "--since", "1h", "l1"]).ok().stdout.lines().count(), 5);
    d.finish();
}

#[test]
fn following_ends_with_the_container() {
    let d = with_busybox();
    let script = "for i in 1 2 3; do echo $i; sleep 0.3; done";
    let _ = d.docker(&["run", "-d", "--name", "l1", "busybox", "sh", "-c", script]).ok();
    let mut follower = d.spawn(&["logs", "-f", "l1"]);
    assert_eq!(follower.end().ok().stdout, "1\n2\n3\n");
    assert_eq!(d.docker(&["logs", "-f", "l1"]).ok().stdout, "1\n2\n3\n");
    d.finish();
}

#[test]
fn following_over_a_restart() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "l1", "busybox", "sh", "-c", "echo begin; sleep 100"]).ok();
    let mut follower = d.spawn(&["logs", "-f", "l1"]);
    follower.expect("begin");
    follower.kill();
    let _ = d.docker(&["restart", "-t", "0", "l1"]).ok();
    assert!(eventually(|| d.docker(&["logs", "l1"]).stdout == "begin\nbegin\n"));
    d.finish();
}

#[test]
fn long_lines_come_back_whole() {
    let d = with_images();
    let _ = d.docker(&["run", "--name", "l1", "probe", "flood", "100001", "100001"]).ok();
    let output = d.docker(&["logs", "l1"]).ok().stdout;
    assert_eq!((output.len(), output.lines().count()), (100_001, 1));
    d.finish();
}

#[test]
fn the_file_has_the_references_format() {
    let d = with_busybox();
    let _ = d.docker(&["run", "--name", "l1", "busybox", "sh", "-c", "echo 'a <b> \"c\"'"]).ok();
    let path = d.inspect("l1", "{{.LogPath}}");
    assert!(path.ends_with("-json.log"), "{path}");
    let line = std::fs::read_to_string(path).unwrap();
    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(entry["log"], "a <b> \"c\"\n");
    assert_eq!(entry["stream"], "stdout");
    assert!(line.starts_with(r#"{"log":"#) && entry["time"].as_str().unwrap().ends_with('Z'), "{line}");
    d.finish();
}

#[test]
fn rotation_loses_and_repeats_nothing_while_following() {
    let d = with_busybox();
    let opts = ["--log-opt", "max-size=20k", "--log-opt", "max-file=200"];
    let script = "i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo line $i; done; sleep 1";
    let args = [&["run", "-d", "--name", "l1"], &opts[..], &["busybox", "sh", "-c", script]].concat();
    let _ = d.docker(&args).ok();
    let mut follower = d.spawn(&["logs", "-f", "l1"]);
    let followed = follower.end().ok().stdout;
    let expected: String = (1..=5000).map(|n| format!("line {n}\n")).collect();
    assert_eq!(followed, expected);
    assert_eq!(d.docker(&["logs", "l1"]).ok().stdout, expected);
    assert_eq!(d.docker(&["logs", "--tail", "3000", "l1"]).ok().stdout.lines().next(), Some("line 2001"));
    let dir = std::path::PathBuf::from(d.inspect("l1", "{{.LogPath}}"));
    assert!(std::fs::read_dir(dir.parent().unwrap()).unwrap().count() > 3, "nothing was rotated");
    d.finish();
}

/// A flood rotates the log faster than anybody reads it: what is missing is told where it is missing.
#[test]
fn rotation_in_a_flood_says_how_many_lines_are_lost() {
    const LINES: u64 = 400_000;
    let d = with_busybox();
    for (name, opts) in [("one", "max-file=1"), ("two", "max-file=2")] {
        let script = format!("while [ ! -e /go ]; do sleep 0.05; done; seq 1 {LINES}; exec sleep 1000");
        let args = ["run", "-d", "--name", name, "--log-opt", "max-size=10k", "--log-opt", opts, "busybox", "sh", "-c"];
        let _ = d.docker(&[&args[..], &[&script]].concat()).ok();
        let mut follower = d.connection();
        let request = format!("GET /containers/{name}/logs?stdout=1&stderr=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n");
        follower.send(request.as_bytes()).unwrap();
        assert_eq!(follower.head().unwrap().status, 200);
        let _ = d.docker(&["exec", name, "touch", "/go"]).ok();
        let (mut bytes, mut next) = (Vec::new(), 1);
        while next <= LINES {
            // Whole entries come in a chunk.
            bytes.clear();
            bytes.extend(follower.chunk().unwrap().expect("the container runs"));
            for (_, line) in testkit::http::frames(&bytes) {
                let line = String::from_utf8(line).unwrap();
                match line.strip_prefix("[gantry: ") {
                    Some(told) => next += told.split(' ').next().unwrap().parse::<u64>().unwrap(),
                    None => {
                        assert_eq!(line, format!("{next}\n"));
                        next += 1;
                    }
                }
            }
        }
        assert_eq!(next, LINES + 1);
        drop(follower);
        let _ = d.docker(&["rm", "-f", name]).ok();
    }
    d.finish();
}

#[test]
fn followers_have_ended_when_the_end_is_answered() {
    let d = with_busybox();
    let ends: [(&str, &str, u16); 4] = [
        ("POST", "/containers/l1/kill", 204),
        ("POST", "/containers/l1/stop?t=0", 204),
        ("DELETE", "/containers/l1?force=1", 204),
        ("POST", "/containers/l1/restart?t=0", 204),
    ];
    for (method, path, status) in ends {
        let script = "echo begun; exec sleep 1000";
        let _ = d.docker(&["run", "-d", "--name", "l1", "busybox", "sh", "-c", script]).ok();
        let mut followers: Vec<_> = (0..20).map(|_| UnixStream::connect(d.socket()).unwrap()).collect();
        for follower in &mut followers {
            let request = b"GET /containers/l1/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n";
            follower.write_all(request).unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"begun\n\r\n") {
                let mut byte = [0];
                follower.read_exact(&mut byte).unwrap();
                seen.push(byte[0]);
            }
        }
        let _ = d.http(method, path, "").expect(status);
        for follower in &mut followers {
            follower.set_nonblocking(true).unwrap();
            let mut end = [0; 100];
            let count = follower.read(&mut end).unwrap_or_else(|e| panic!("after {path}: {e}"));
            assert_eq!(&end[..count], b"0\r\n\r\n", "after {path}");
        }
        let _ = d.docker(&["rm", "-f", "l1"]);
    }
    d.finish();
}

#[test]
fn rotation_by_default_bounds_the_disk() {
    let d = with_images();
    let _ = d.docker(&["run", "--name", "l1", "probe", "flood", "150000000", "1000"]).ok();
    let dir = std::path::PathBuf::from(d.inspect("l1", "{{.LogPath}}")).parent().unwrap().to_path_buf();
    let sum = || -> u64 {
        let logs = std::fs::read_dir(&dir)
            .unwrap()
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().contains("-json.log"));
        logs.map(|e| e.metadata().map(|m| m.len()).unwrap_or(0)).sum()
    };
    assert!(eventually(|| sum() <= 120 << 20), "{} bytes of log", sum());
    d.finish();
}

#[test]
fn the_driver_none_keeps_nothing() {
    let d = with_busybox();
    assert_eq!(d.docker(&["run", "--name", "l1", "--log-driver", "none", "busybox", "echo", "x"]).ok().stdout, "x\n");
    d.docker(&["logs", "l1"]).fails(1, "configured logging driver does not support reading");
    d.docker(&["run", "--log-driver", "nosuch", "busybox", "true"]).fails(125, "nosuch");
    d.finish();
}

#[test]
fn the_driver_local_keeps_everything_in_the_references_files() {
    let d = with_busybox();
    let local = ["run", "--log-driver", "local", "--log-opt", "labels=team", "--label", "team=a b", "--name"];
    let script = "echo out; echo err >&2; head -c 20000 /dev/zero | tr '\\0' x; echo; printf tail";
    let _ = d.docker(&[&local[..], &["l1", "busybox", "sh", "-c", script]].concat()).ok();
    assert_eq!(
        (d.inspect("l1", "{{.HostConfig.LogConfig.Type}}"), d.inspect("l1", "{{.LogPath}}")),
        ("local".into(), String::new())
    );
    let id = d.inspect("l1", "{{.Id}}");
    let file = d.data_root().join("containers").join(&id).join("local-logs/container.log");
    assert_eq!(std::fs::read(&file).unwrap()[4..12], *b"\x0a\x06stdout");
    let read = d.docker(&["logs", "l1"]).ok();
    assert_eq!((read.stdout, read.stderr.as_str()), (format!("out\n{}\ntail", "x".repeat(20_000)), "err\n"));
    assert_eq!(d.docker(&["logs", "--details", "--tail", "1", "l1"]).ok().stdout, "team=a+b tail");
    // A second run goes on behind the first one's.
    let _ = d.docker(&["start", "-a", "l1"]).ok();
    assert_eq!(d.docker(&["logs", "l1"]).ok().stdout.matches("out\n").count(), 2);
    let script = "for i in 1 2 3; do echo $i; sleep 0.3; done";
    let _ = d.docker(&[&["run", "-d"], &local[1..], &["l2", "busybox", "sh", "-c", script]].concat()).ok();
    assert_eq!(d.spawn(&["logs", "-f", "l2"]).end().ok().stdout, "1\n2\n3\n");
    let refused =
        |option: &str| d.docker(&["run", "--log-driver", "local", "--log-opt", option, "busybox", "true"]).stderr;
    assert!(refused("foo=1").contains("unknown log opt 'foo' for log driver local"), "{}", refused("foo=1"));
    let text = refused("max-size=abc");
    assert!(text.contains("failed to initialize logging driver: invalid value for max-size: abc"), "{text}");
    assert!(d.docker(&["info", "-f", "{{.Plugins.Log}}"]).ok().stdout.contains("json-file local none"));
    d.finish();
}

#[test]
fn daemon_wide_log_options() {
    let d = Options::new()
        .args(&["--log-driver", "json-file", "--log-opt", "max-size=1m", "--log-opt", "labels=a"])
        .start();
    d.busybox();
    let _ = d.docker(&["run", "--name", "l1", "--label", "a=b", "busybox", "echo", "x"]).ok();
    assert_eq!(
        d.inspect("l1", "{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config \"max-size\"}}"),
        "json-file 1m"
    );
    assert_eq!(d.docker(&["logs", "--details", "l1"]).ok().stdout, "a=b x\n");
    d.finish();
}

#[test]
fn bad_requests() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "l1", "busybox", "true"]).ok();
    assert_eq!(
        d.http("GET", "/containers/l1/logs", "").expect(400).message(),
        "must specify at least one of 'stdout' or 'stderr'"
    );
    assert_eq!(d.http("GET", "/containers/l1/logs?stdout=1", "").expect(200).body, b"");
    d.docker(&["logs", "nosuch"]).fails(1, "No such container: nosuch");
    d.finish();
}

#[test]
fn the_newest_content_type_depends_on_the_version() {
    let d = with_busybox();
    let _ = d.docker(&["run", "--name", "l1", "busybox", "echo", "x"]).ok();
    let kind = |path: &str| d.http("GET", path, "").expect(200).header("Content-Type").map(str::to_string);
    assert_eq!(
        kind("/v1.45/containers/l1/logs?stdout=1").as_deref(),
        Some("application/vnd.docker.multiplexed-stream")
    );
    assert_eq!(kind("/v1.41/containers/l1/logs?stdout=1").as_deref(), Some("application/vnd.docker.raw-stream"));
    d.finish();
}
