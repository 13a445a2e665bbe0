//! Rows and small files that cannot be read: named among the warnings of `docker info`, kept, and everything else works.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use store::{Damaged, Row, Store, Table};
use testkit::{Daemon, Options, Output, places};

/// A row that nothing can be read as: a survey gives the bytes of all rows.
#[derive(Serialize)]
struct Opaque;

impl<'de> Deserialize<'de> for Opaque {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Opaque, D::Error> {
        Err(serde::de::Error::custom("opaque"))
    }
}

impl Row for Opaque {
    const VERSION: u32 = u32::MAX;
}

/// The tables, and whether their rows stay where they are.
const TABLES: &[(&str, bool)] = &[
    ("containers", true),
    ("runs", true),
    ("volumes", true),
    ("networks", true),
    ("secrets", true),
    ("secret-seals", true),
    ("images", true),
    ("image-names", true),
    ("image-users", true),
    ("image-uses", false),
    ("forwarding", false),
    ("endings", false),
    ("meta-events", false),
    ("build-records", false),
];

fn rows(store: &Store, table: &'static str) -> Vec<Damaged> {
    store.read(|tx| tx.survey(&Table::<Opaque>::new(table))).unwrap().damaged
}

fn put(store: &Store, table: &'static str, rows: Vec<(String, Vec<u8>)>) {
    let put = move |tx: &mut store::WriteTx<'_, '_>| {
        rows.iter().try_for_each(|(key, bytes)| tx.put_raw(&Table::<Opaque>::new(table), key, bytes))
    };
    store.write_blocking(put).unwrap();
}

fn store(d: &Daemon) -> Store {
    Store::open(&d.data_root().join("gantry.redb")).unwrap()
}

fn warnings(d: &Daemon) -> String {
    d.docker(&["info", "--format", "{{json .Warnings}}"]).text()
}

/// Snapshots of volumes, by the command of the program.
fn snapshot(d: &Daemon, words: &str) -> Output {
    let program = places::gantryd().display().to_string();
    let own = format!("--config-file= --exec-root {}", d.exec_root().display());
    d.exec_inside(&["sh", "-c", &format!("{program} volume snapshot {words} {own}")])
}

/// A host with something of every kind; two containers run.
fn furnished() -> Daemon {
    let d = Options::new().config(r#"{"local-secrets": true}"#).start();
    d.busybox();
    let ok = |d: &Daemon, words: &[&str]| d.docker(words).text();
    let _ = ok(&d, &["volume", "create", "named"]);
    let _ = ok(&d, &["network", "create", "n"]);
    let tag = ["tag", "busybox", "second:name"];
    let _ = d.docker(&tag).ok();
    let words = ["run", "-d", "--name", "kept", "--net", "n", "-v", "named:/named", "-v", "/anonymous", "busybox"];
    let script =
        ["sh", "-c", "echo precious > /named/f; echo precious > /anonymous/f; echo precious > /f; sleep 1000000"];
    let _ = ok(&d, &[&words[..], &script].concat());
    let _ = ok(&d, &["run", "-d", "--name", "other", "busybox", "sleep", "1000000"]);
    let _ = d.docker(&["exec", "kept", "sh", "-c", "until [ -e /f ]; do sleep 0.01; done"]).ok();
    let _ = d.docker_input(&["secret", "create", "s", "-"], b"precious").ok();
    d
}

/// Nothing of it is left.
fn clear(d: Daemon) {
    d.remove_containers();
    for words in
        [&["secret", "rm", "s"][..], &["network", "rm", "n"], &["volume", "prune", "-af"], &["image", "prune", "-af"]]
    {
        let _ = d.docker(words).ok();
    }
    d.finish();
}

/// Everything is there and works.
fn is_whole(d: &Daemon, pids: &[String; 2]) {
    for (name, pid) in ["kept", "other"].iter().zip(pids) {
        assert_eq!(&d.inspect(name, "{{.State.Pid}}"), pid, "{name}");
    }
    for file in ["/named/f", "/anonymous/f", "/f"] {
        assert_eq!(d.docker(&["exec", "kept", "cat", file]).text(), "precious");
    }
    assert!(
        d.docker(&["network", "inspect", "n"]).code == 0 && d.docker(&["image", "inspect", "second:name"]).code == 0
    );
}

#[test]
fn a_row_that_cannot_be_read_keeps_nothing_else_from_working() {
    let mut d = furnished();
    let pids = ["kept", "other"].map(|name| d.inspect(name, "{{.State.Pid}}"));
    is_whole(&d, &pids);
    let spoils = [|bytes: &[u8]| bytes[..bytes.len() / 2].to_vec(), |_: &[u8]| b"\0\xff rubbish".to_vec()];
    // Each table in one way, in the full form in both.
    let ways = testkit::soak::rounds(1, spoils.len());
    for (n, (table, stays)) in TABLES.iter().enumerate() {
        for spoil in (n..n + ways).map(|n| spoils[n % spoils.len()]) {
            d.kill9();
            let opened = store(&d);
            let whole: Vec<_> = rows(&opened, table).into_iter().map(|row| (row.key, row.bytes)).collect();
            let other = other_id(&opened);
            let is_mine = |(key, bytes): &&(String, Vec<u8>)| match *table {
                "containers" | "runs" => *key != other,
                "networks" => String::from_utf8_lossy(bytes).contains("\"name\":\"n\""),
                _ => true,
            };
            let chosen: Vec<_> = whole.iter().filter(is_mine).cloned().collect();
            let spoiled: Vec<_> = match chosen.is_empty() {
                true => vec![("clean".to_owned(), spoil(b"{\"v\":1,\"row\":{}}"))],
                false => chosen.iter().map(|(key, bytes)| (key.clone(), spoil(bytes))).collect(),
            };
            put(&opened, table, spoiled.clone());
            drop(opened);
            d.again();
            works_without(&d, table, &pids[1]);
            d.kill9();
            let opened = store(&d);
            let now: Vec<_> = rows(&opened, table).into_iter().map(|row| (row.key, row.bytes)).collect();
            let is_kept = spoiled.iter().all(|row| now.contains(row));
            assert!(is_kept || !stays || *table == "image-users", "{table}: a row is gone");
            if *stays {
                put(&opened, table, whole);
            }
            drop(opened);
            d.again();
            is_whole(&d, &pids);
        }
    }
    clear(d);
}

fn other_id(store: &Store) -> String {
    let text = |row: &Damaged| String::from_utf8_lossy(&row.bytes).contains("\"name\":\"other\"");
    rows(store, "containers").into_iter().find(text).map(|row| row.key).unwrap_or_default()
}

/// What a daemon does that cannot read rows of this table.
fn works_without(d: &Daemon, table: &str, pid: &str) {
    let told = warnings(d);
    assert!(told.contains(&format!("of table {table}")) || table == "image-users", "{table}: {told}");
    assert_eq!(d.inspect("other", "{{.State.Pid}}"), pid, "{table}");
    assert_eq!(d.docker(&["exec", "other", "echo", "works"]).text(), "works", "{table}");
    // Nothing is taken that the row may name.
    for words in [
        &["container", "prune", "-f"][..],
        &["volume", "prune", "-af"],
        &["network", "prune", "-f"],
        &["ps", "-a"],
        &["volume", "ls"],
        &["network", "ls"],
        &["images", "-a"],
        &["system", "df"],
    ] {
        let done = d.docker(words);
        assert_eq!(done.code, 0, "{table}: {words:?}: {done:?}");
    }
    if table != "images" && table != "image-names" {
        let run = d.docker(&["run", "--rm", "busybox", "echo", "new"]);
        assert_eq!((run.code, run.stdout.trim()), (0, "new"), "{table}: {run:?}");
    }
}

/// A file, and what of it is told: part of a warning.
type Spoiled = (&'static str, fn(&Path) -> Vec<u8>);

#[test]
fn a_small_file_that_cannot_be_read_keeps_nothing_else_from_working() {
    let mut d = furnished();
    let pids = ["kept", "other"].map(|name| d.inspect(name, "{{.State.Pid}}"));
    let _ = snapshot(&d, "named snap").ok();
    let half: fn(&Path) -> Vec<u8> = |path| {
        let bytes = fs::read(path).unwrap();
        bytes[..bytes.len() / 2].to_vec()
    };
    let rubbish: fn(&Path) -> Vec<u8> = |_| b"\0\xff rubbish".to_vec();
    let spoiled: [Spoiled; 5] = [
        ("engine-id", rubbish),
        ("gantry.redb.mark", half),
        ("gantry.redb.mark", rubbish),
        ("volumes/.snapshots/snap/snapshot.json", half),
        ("volumes/.snapshots/snap/snapshot.json", rubbish),
    ];
    for (name, spoil) in spoiled {
        d.kill9();
        let path = d.data_root().join(name);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, spoil(&path)).unwrap();
        d.again();
        let (told, what) = (warnings(&d), name.split('/').nth(2).unwrap_or(name).to_owned());
        assert!(told.contains(&what), "{name}: {told}");
        is_whole(&d, &pids);
        if name.contains("snapshots") {
            fs::write(&path, whole).unwrap();
        }
    }
    d.kill9();
    let owner = d.exec_root().join("store-id");
    fs::write(&owner, "rubbish").unwrap();
    d.again();
    assert!(warnings(&d).contains("store-id"));
    is_whole(&d, &pids);
    // The record of an end that no daemon has seen.
    let id = d.inspect("other", "{{.Id}}");
    d.kill9();
    assert!(testkit::process::signal(pids[1].parse().unwrap(), Signal::KILL));
    let record = d.exec_root().join(&id).join("exit");
    assert!(crate::eventually(|| record.exists()));
    fs::write(&record, half(&record)).unwrap();
    d.again();
    assert!(warnings(&d).contains(&record.display().to_string()));
    assert_eq!(d.inspect("other", "{{.State.Status}} {{.State.ExitCode}}"), "exited 255");
    assert!(d.inspect("other", "{{.State.Error}}").contains("cannot be read"));
    assert_eq!(d.docker(&["start", "other"]).text(), "other");
    let _ = snapshot(&d, "rm snap").ok();
    clear(d);
}

/// The predefined networks are made anew, and those who run on the old one go on.
#[test]
fn predefined_networks_are_made_anew() {
    let mut d = furnished();
    let pids = ["kept", "other"].map(|name| d.inspect(name, "{{.State.Pid}}"));
    d.kill9();
    let opened = store(&d);
    let all = rows(&opened, "networks").into_iter().map(|row| (row.key, b"rubbish".to_vec()));
    put(&opened, "networks", all.collect());
    drop(opened);
    d.again();
    assert_eq!(d.docker(&["network", "ls", "--format", "{{.Name}}"]).text(), "bridge\nhost\nnone");
    for (name, pid) in ["kept", "other"].iter().zip(pids) {
        assert_eq!(d.inspect(name, "{{.State.Pid}}"), pid);
    }
    assert_eq!(d.docker(&["run", "--rm", "busybox", "hostname", "-i"]).code, 0);
    assert_eq!(d.docker(&["restart", "-t0", "other"]).text(), "other");
    assert_eq!(d.docker(&["rm", "-f", "kept"]).text(), "kept");
    assert_eq!(d.stop(), 0);
    let repaired = d.check(&["--repair"]);
    assert!(repaired.code == 0 && repaired.stdout.contains("of table networks"), "{repaired:?}");
    d.again();
    assert!(!warnings(&d).contains("of table"));
    d.remove_containers();
    for words in [&["secret", "rm", "s"][..], &["volume", "prune", "-af"], &["image", "prune", "-af"]] {
        let _ = d.docker(words).ok();
    }
    let _ =
        d.exec_inside(&["sh", "-c", "ip -o link show type bridge | grep -o 'br-[0-9a-f]*' | xargs -n1 ip link del"]);
    d.finish();
}
