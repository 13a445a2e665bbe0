//! Data roots that earlier versions have left.

use std::fs;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Row, Store, Table};
use testkit::Daemon;

use crate::{eventually, with_busybox};

/// A row as it lies in the store, of version `V`.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Raw<const V: u32>(Value);

impl<const V: u32> Row for Raw<V> {
    const VERSION: u32 = V;
}

const CONTAINERS: Table<Raw<2>> = Table::new("containers");
const RUNS: Table<Raw<2>> = Table::new("runs");
/// Before version 2 the run of a container lay in its row.
const EARLIER: Table<Raw<1>> = Table::new("containers");

/// Gives a container of a daemon that does not run a row of version 1, and changes it.
fn change(d: &Daemon, id: &str, change: impl FnOnce(&mut Value) + Send + 'static) {
    let store = Store::open(&d.data_root().join("gantry.redb")).unwrap();
    let id = id.to_owned();
    let changed = store.write_blocking(move |tx| {
        let mut row = tx.get(&CONTAINERS, &id)?.unwrap().0;
        let run = tx.get(&RUNS, &id)?.unwrap().0;
        row.as_object_mut().unwrap().extend(run.as_object().unwrap().clone());
        change(&mut row);
        tx.delete(&RUNS, &id)?;
        tx.put(&EARLIER, &id, &Raw(row))
    });
    changed.unwrap();
}

/// What the first version made beside the layers, and had not made yet, is no fault, before and after it is put right.
#[test]
fn a_data_root_of_the_first_version_is_clean() {
    let mut d = with_busybox();
    let _ =
        d.docker(&["run", "--name", "ended", "-v", "/data", "busybox", "sh", "-c", "echo x > /data/f; echo y"]).ok();
    let _ = d.docker(&["create", "--name", "made", "-v", "named:/v", "busybox", "true"]).ok();
    assert_eq!(d.stop(), 0);
    let root = d.data_root().to_owned();
    let layers = root.join("snapshots/overlay");
    for path in ["empty/fs/dev", "empty/fs/etc", "blanks/0/rw/upper", "blanks/0/rw/work/work"] {
        fs::create_dir_all(layers.join(path)).unwrap();
    }
    fs::write(layers.join("empty/layer.json"), "{}").unwrap();
    fs::remove_file(root.join("gantry.redb.mark")).unwrap();
    for dir in ["content/parts", "tmp"] {
        fs::remove_dir_all(root.join(dir)).unwrap();
    }
    for id in [d_id(&root, 0), d_id(&root, 1)] {
        change(&d, &id, |row| {
            // Rows of that version had neither.
            row["run"].as_object_mut().unwrap().retain(|key, _| key != "place" && key != "frozen_in_passing");
        });
    }
    assert_eq!(d.faults(), [""; 0], "before the first start");
    d.again();
    assert_eq!(d.faults(), [""; 0], "of a running daemon");
    assert_eq!(d.docker(&["logs", "ended"]).text(), "y");
    let _ = d.docker(&["start", "-a", "made"]).ok();
    assert!(!layers.join("empty").exists() && !layers.join("blanks").exists());
    assert_eq!(d.stop(), 0);
    assert_eq!(d.faults(), [""; 0], "after a stop");
    d.again();
    d.finish();
}

fn d_id(root: &std::path::Path, n: usize) -> String {
    let mut ids: Vec<String> = fs::read_dir(root.join("containers"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.len() == 64)
        .collect();
    ids.sort();
    ids.swap_remove(n)
}

/// Options that protect and that an earlier version let pass are refused at start, by a client and by a policy.
#[test]
fn what_create_refuses_is_refused_at_start() {
    let mut d = with_busybox();
    let cases = [
        ("userns_mode", json!({"UsernsMode": "private"}), "the option HostConfig.UsernsMode is not supported"),
        (
            "label",
            json!({"SecurityOpt": ["label=type:x_t"]}),
            "the option --security-opt label=type:x_t is not supported",
        ),
        ("quota", json!({"StorageOpt": {"size": "1G"}}), "--storage-opt is supported only"),
    ];
    let mut ids = Vec::new();
    for (name, ..) in &cases {
        let args = ["run", "-d", "--name", name, "--restart", "always", "busybox", "sleep", "1000"];
        ids.push(d.docker(&args).text());
    }
    assert_eq!(d.stop(), 0);
    for (id, (_, more, _)) in ids.iter().zip(&cases) {
        let more = more.clone();
        change(&d, id, move |row| {
            for (key, value) in more.as_object().unwrap() {
                row["host_config"][key] = value.clone();
            }
        });
    }
    d.again();
    for (name, _, text) in &cases {
        let state = || d.inspect(name, "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}");
        assert!(eventually(|| state().starts_with(&format!("exited 128 {text}"))), "{}", state());
        let answer = d.http("POST", &format!("/containers/{name}/start"), "");
        assert!(answer.status >= 400 && answer.message().starts_with(text), "{}", answer.text());
        assert_eq!(d.inspect(name, "{{.State.Running}}"), "false");
    }
    d.finish();
}
