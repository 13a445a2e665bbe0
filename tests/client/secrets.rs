//! Secrets and configs of one host: for clients, in containers, and nowhere else.

use testkit::{Daemon, Options, Output, places};

use crate::with_busybox;

/// What must be found nowhere but in containers that ask for it.
const WORD: &str = "correct-horse-battery-staple";

fn local() -> Daemon {
    let d = Options::new().config(r#"{"local-secrets": true}"#).start();
    d.busybox();
    d
}

fn gantryd(d: &Daemon, words: &str, input: &str) -> Output {
    let program = places::gantryd().display().to_string();
    let own = format!("--config-file= --exec-root {}", d.exec_root().display());
    d.exec_inside(&["bash", "-o", "pipefail", "-c", &format!("printf '%s' '{input}' | {program} {words} {own}")])
}

#[test]
fn clients_make_list_and_remove_them() {
    let d = local();
    for kind in ["secret", "config"] {
        let id = d.docker_input(&[kind, "create", "--label", "a=b", "db", "-"], WORD.as_bytes()).ok().text();
        assert_eq!(id.len(), 25, "{id}");
        d.docker_input(&[kind, "create", "db", "-"], b"x").fails(1, &format!("{kind} db already exists"));
        assert_eq!(d.docker(&[kind, "ls", "--format", "{{.Name}} {{.ID}}"]).text(), format!("db {id}"));
        assert_eq!(d.docker(&[kind, "ls", "-q", "--filter", "label=a=c"]).text(), "");
        let shown = d.docker(&[kind, "inspect", "db"]).text();
        let data = d.docker(&[kind, "inspect", "--format", "{{json .Spec}}", &id[..12]]).text();
        assert!(shown.contains("\"a\": \"b\"") && data.contains("\"Name\":\"db\""), "{shown} {data}");
        // "correct-horse-battery-staple" in base64.
        assert_eq!(data.contains("Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ=="), kind == "config", "{data}");
        assert!(!shown.contains(WORD));
        d.docker(&[kind, "rm", "none"]).fails(1, &format!("{kind} none not found"));
        let _ = d
            .http("POST", &format!("/{kind}s/create"), r#"{"Name":"x","Data":"eA==","Driver":{"Name":"d"}}"#)
            .expect(400);
        let _ = d.http("POST", &format!("/{kind}s/create"), r#"{"Name":"x","Data":"!"}"#).expect(400);
        let _ = d
            .http("POST", &format!("/{kind}s/{id}/update?version=1"), r#"{"Name":"db","Labels":{"c":"d"}}"#)
            .expect(200);
        let _ = d.http("POST", &format!("/{kind}s/{id}/update?version=1"), r#"{"Name":"db"}"#).expect(500);
        let _ = d.http("POST", &format!("/{kind}s/{id}/update?version=x"), r#"{"Name":"db"}"#).expect(400);
        assert_eq!(d.docker(&[kind, "ls", "-q", "--filter", "label=c=d"]).text(), id);
        assert_eq!(d.docker(&[kind, "rm", "db"]).text(), "db");
        assert_eq!(d.docker(&[kind, "ls", "-q"]).text(), "");
    }
    d.finish();
}

/// Without the key of the configuration clients meet an engine in no swarm; the command of the program works always.
#[test]
fn clients_are_served_only_where_the_configuration_says_so() {
    let d = with_busybox();
    for kind in ["secret", "config"] {
        d.docker_input(&[kind, "create", "db", "-"], b"x").fails(1, "This node is not a swarm manager");
        for (method, path) in [("GET", ""), ("GET", "/x"), ("DELETE", "/x"), ("POST", "/x/update?version=1")] {
            let body = if method == "POST" { "{}" } else { "" };
            let _ = d.http(method, &format!("/{kind}s{path}"), body).expect(503);
        }
        let made = gantryd(&d, &format!("{kind} create db"), "x");
        assert_eq!((made.code, made.stdout.trim().len()), (0, 25), "{made:?}");
        assert_ne!(gantryd(&d, &format!("{kind} create db"), "x").code, 0);
        assert!(gantryd(&d, &format!("{kind} ls"), "").stdout.contains(" db "));
        assert_eq!(gantryd(&d, &format!("{kind} rm db"), "").text(), "db");
    }
    d.finish();
}

fn with_secret(d: &Daemon) {
    let _ = d.docker_input(&["secret", "create", "db", "-"], WORD.as_bytes()).ok();
    let _ = d.docker_input(&["config", "create", "app", "-"], b"port = 1").ok();
}

#[test]
fn containers_find_what_they_ask_for() {
    let mut d = local();
    with_secret(&d);
    let labels = ["--label", "gantry.secrets=db,db=own:1000:1001:0400", "--label", "gantry.configs=app=app.ini"];
    let script = "cat /run/secrets/db; echo; stat -c '%u:%g %a' /run/secrets/own /run/secrets/db; cat /run/configs/app.ini; echo; \
        touch /run/secrets/x 2>&1 | grep -o 'Read-only'; grep ' /run/secrets ' /proc/mounts | cut -d' ' -f3; \
        mount -o remount,rw /run/secrets 2>&1 | grep -c denied; cat /run/secrets/own > /dev/null; sleep 1000";
    let run = [&["run", "-d", "--name", "c"], &labels[..], &["busybox", "sh", "-c", script]].concat();
    let _ = d.docker(&run).ok();
    let expected = format!("{WORD}\n1000:1001 400\n0:0 444\nport = 1\nRead-only\ntmpfs\n1");
    assert!(crate::eventually(|| d.docker(&["logs", "c"]).stdout.trim() == expected), "{:?}", d.docker(&["logs", "c"]));
    // They outlive the daemon, and come again with the next run.
    d.kill9();
    d.again();
    assert_eq!(d.docker(&["exec", "c", "cat", "/run/secrets/db"]).text(), WORD);
    let _ = d.docker(&["restart", "-t", "0", "c"]).ok();
    assert_eq!(d.docker(&["exec", "c", "cat", "/run/secrets/db"]).text(), WORD);
    // In use, missing, misspelt.
    d.docker(&["secret", "rm", "db"]).fails(1, "secret 'db' is in use by the following container: c");
    d.docker(&["create", "--label", "gantry.secrets=none", "busybox"]).fails(1, "secret none not found");
    d.docker(&["create", "--label", "gantry.secrets=db=../x", "busybox"]).fails(1, "invalid label \"gantry.secrets\"");
    d.remove_containers();
    let _ = d.docker(&["secret", "rm", "db"]).ok();
    d.finish();
}

/// No image decides what a container is shown.
#[test]
fn an_image_cannot_ask() {
    let d = local();
    with_secret(&d);
    let tar = testkit::images::Tar::new().file("data", 0o644, b"x").bytes();
    let label = "LABEL gantry.secrets=db gantry.configs=app";
    let _ = d.docker_input(&["import", "--change", label, "-", "imported"], &tar).ok();
    let _ = d.docker(&["create", "--name", "asks", "--label", "gantry.secrets=db", "busybox", "true"]).ok();
    let _ = d.docker(&["commit", "--change", label, "asks", "committed"]).ok();
    let run = d.docker(&[
        "run",
        "--rm",
        "committed",
        "sh",
        "-c",
        "ls -A /run/secrets /run/configs 2>&1; cat /run/secrets/db",
    ]);
    assert!(!run.stdout.contains("db\n") && !run.stdout.contains(WORD), "{run:?}");
    let run = d.docker(&["create", "--name", "i", "imported", "true"]).ok();
    assert!(run.stderr.contains("labels have no effect"), "{run:?}");
    // Nor what is inspected and put into a file of Compose again.
    assert!(!d.inspect("i", "{{json .Config.Labels}}").contains("gantry."));
    d.remove_containers();
    d.finish();
}

/// The content is in the store, the data root, what is inspected, committed, exported, logged or told by events nowhere.
#[test]
fn the_content_is_nowhere_else() {
    let d = local();
    with_secret(&d);
    let _ = d.docker(&["run", "-d", "--name", "c", "--label", "gantry.secrets=db", "busybox", "sleep", "1000"]).ok();
    assert_eq!(d.docker(&["exec", "c", "cat", "/run/secrets/db"]).text(), WORD);
    let _ = d.docker(&["commit", "c", "image"]).ok();
    let place = d.path("out").display().to_string();
    let _ = d.docker(&["save", "-o", &place, "image"]).ok();
    let _ = d.docker(&["export", "-o", &format!("{place}2"), "c"]).ok();
    let base64 = "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5";
    for word in [WORD, base64] {
        let searched = [
            place.as_str(),
            &format!("{place}2"),
            &d.data_root().display().to_string(),
            &d.exec_root().display().to_string(),
        ];
        let found = d.exec_inside(&[&["grep", "-rlaD", "skip", word], &searched[..]].concat());
        assert_eq!((found.code, found.stdout.as_str()), (1, ""), "{word}");
        let told = [
            d.docker(&["inspect", "c"]).stdout,
            d.docker(&["image", "inspect", "image"]).stdout,
            d.docker(&["events", "--since", "1h", "--until", "0s", "--format", "{{json .}}"]).stdout,
            d.docker(&["logs", "c"]).stdout,
            d.log(),
        ];
        assert!(told.iter().all(|text| !text.contains(word)), "{word}");
    }
    d.remove_containers();
    d.finish();
}

/// The key may lie elsewhere; without it nothing is read, and nothing is made over what it has sealed.
#[test]
fn the_key_may_lie_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let config = format!(r#"{{"local-secrets": true, "secrets-key-file": "{}"}}"#, key.display());
    let d = Options::new().config(&config).start();
    d.busybox();
    with_secret(&d);
    assert!(key.exists() && !d.data_root().join("secrets.key").exists());
    let _ =
        d.docker(&["create", "--name", "c", "--label", "gantry.secrets=db", "busybox", "cat", "/run/secrets/db"]).ok();
    std::fs::rename(&key, dir.path().join("away")).unwrap();
    d.docker(&["start", "-a", "c"]).fails(1, "is missing");
    d.docker_input(&["secret", "create", "other", "-"], b"x").fails(1, "is missing");
    std::fs::rename(dir.path().join("away"), &key).unwrap();
    assert_eq!(d.docker(&["start", "-a", "c"]).text(), WORD);
    d.remove_containers();
    d.finish();
}

/// A container that sees the daemon's process reads nothing of it, unless it was given the right to trace.
#[test]
fn a_container_among_the_hosts_processes_reads_nothing_of_the_daemon() {
    let d = with_busybox();
    let script = format!(
        "cd /proc/{} && cat comm && for f in environ mem maps exe root/etc/passwd fd/0; do cat $f >/dev/null 2>&1 && echo read $f; done; readlink fd/0 exe cwd; echo",
        d.pid()
    );
    let run = |more: &[&str]| {
        let words = ["run", "--rm", "--pid", "host"];
        d.docker(&[&words, more, &["busybox", "sh", "-c", &script][..]].concat()).stdout
    };
    assert_eq!(run(&[]), "gantryd\n\n");
    assert_eq!(run(&["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]), "gantryd\n\n");
    assert!(run(&["--cap-add", "SYS_PTRACE"]).contains("read environ"));
    // It sees itself, as a core of it would need.
    let own = d.exec_inside(&["sh", "-c", &format!("stat -c %u /proc/{}/environ", d.pid())]);
    assert_eq!(own.stdout.trim(), "0");
    d.finish();
}
