//! A daemon that dies at any moment while volumes are copied: what it has said is there is whole, all else is gone.

use std::path::Path;
use std::time::Duration;

use testkit::{Daemon, command};

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names and sizes below a directory.
fn content(d: &Daemon, dir: &Path) -> String {
    d.exec_inside(&["sh", "-c", &format!("cd {} && find . -type f -printf '%p %s\\n' | sort", dir.display())]).text()
}

#[test]
fn copies_are_whole_or_gone_whenever_a_daemon_dies() {
    let mut d = Daemon::start();
    d.busybox();
    let fill = "for i in $(seq 1 400); do head -c 20000 /dev/urandom > /v/f$i; done; while :; do date > /w/now; done";
    let _ = d.docker(&["run", "-d", "--name", "c", "-v", "vol:/v", "-v", "wvol:/w", "busybox", "sh", "-c", fill]).ok();
    let volumes = d.data_root().join("volumes");
    assert!(command::eventually(PATIENCE, || volumes.join("wvol/_data/now").exists()));
    let whole = content(&d, &volumes.join("vol/_data"));
    let take = |d: &Daemon, name: &str| {
        let body = format!(r#"{{"Name":"{name}","Freeze":true}}"#);
        d.http("POST", "/volumes/vol/snapshots", &body).status
    };
    assert_eq!(take(&d, "first"), 201);
    for round in 0..testkit::soak::rounds(6, 100) {
        let socket = d.socket();
        let ask = |path: &str, body: &str| {
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let mut client = std::os::unix::net::UnixStream::connect(&socket).unwrap();
            std::io::Write::write_all(&mut client, request.as_bytes()).unwrap();
            client
        };
        let _clients = [
            ask("/volumes/vol/snapshots", &format!(r#"{{"Name":"s{round}","Freeze":true}}"#)),
            ask("/volume-snapshots/first/clone", &format!(r#"{{"Name":"c{round}"}}"#)),
        ];
        // Somewhere between the requests and their ends.
        std::thread::sleep(Duration::from_millis(u64::try_from(round * 41 % 500).unwrap()));
        d.kill9();
        d.again();
        let mut copies = Vec::new();
        for (dir, name) in [(volumes.join(".snapshots"), format!("s{round}")), (volumes.clone(), format!("c{round}"))] {
            let data = dir.join(&name).join("_data");
            if dir.join(&name).exists() {
                assert_eq!(content(&d, &data), whole, "round {round}: {name}");
                copies.push(name);
            }
        }
        let known = d.docker(&["volume", "ls", "-q"]).text();
        let has = |name: &str| known.lines().any(|line| line == name);
        assert_eq!(has(&format!("c{round}")), copies.iter().any(|name| name.starts_with('c')), "round {round}");
        assert!(!volumes.join(".staging").exists() && !volumes.join(".staged").exists(), "round {round}");
        // The container goes on.
        let now = volumes.join("wvol/_data/now");
        let seen = || std::fs::metadata(&now).and_then(|meta| meta.modified()).ok();
        let before = seen();
        assert!(command::eventually(PATIENCE, || seen() != before), "round {round}: the container stands still");
        assert_eq!(d.inspect("c", "{{.State.Status}}"), "running", "round {round}");
        for name in copies {
            let path =
                if name.starts_with('s') { format!("/volume-snapshots/{name}") } else { format!("/volumes/{name}") };
            let _ = d.http("DELETE", &path, "").expect(204);
        }
    }
    d.remove_containers();
    d.finish();
}
