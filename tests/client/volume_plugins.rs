//! Volumes of a plugin, which is a program in another language behind a socket: it works, hangs, lies, goes and comes back.

use std::ops::{Deref, DerefMut};

use serde_json::Value;
use testkit::{Daemon, Options};

use crate::plugin_program::PluginProgram;
use crate::{eventually, with_busybox};

/// A running test plugin.
struct Plugin(PluginProgram);

impl Deref for Plugin {
    type Target = PluginProgram;

    fn deref(&self) -> &PluginProgram {
        &self.0
    }
}

impl DerefMut for Plugin {
    fn deref_mut(&mut self) -> &mut PluginProgram {
        &mut self.0
    }
}

impl Plugin {
    /// Starts one in the daemon's namespaces, listening at `unix:<path>` or `tcp:<port>`.
    fn start(d: &Daemon, name: &str, at: &str) -> Plugin {
        Plugin(PluginProgram::start(d, "volume_plugin.py", name, &[at]))
    }

    /// The calls since the last look, without what only looks.
    fn calls(&self) -> Vec<String> {
        let text = self.take_calls();
        let looks = [
            "Plugin.Activate",
            "VolumeDriver.Capabilities",
            "VolumeDriver.Get",
            "VolumeDriver.List",
            "VolumeDriver.Path",
        ];
        let acts = text.lines().filter(|line| !looks.iter().any(|look| line.starts_with(look)));
        acts.map(|line| line.trim_start_matches("VolumeDriver.").to_owned()).collect()
    }
}

const SOCKET: &str = "unix:/run/docker/plugins/test.sock";

/// A daemon with an image whose plugins are its own, and the plugin `test`.
fn with_plugin() -> (Daemon, Plugin) {
    let d = with_busybox();
    for dir in ["/run", "/etc/docker"] {
        let _ = d.exec_inside(&["mkdir", "-p", dir]).ok();
        let _ = d.exec_inside(&["mount", "-t", "tmpfs", "own", dir]).ok();
    }
    let plugin = Plugin::start(&d, "plugin", SOCKET);
    (d, plugin)
}

/// Lets go of what the test has mounted, which the census would find.
fn finish(d: Daemon, plugin: Plugin) {
    d.remove_containers();
    drop(plugin);
    for dir in ["/run", "/etc/docker"] {
        let _ = d.exec_inside(&["umount", dir]).ok();
    }
    d.finish();
}

fn volume(d: &Daemon, name: &str) -> Value {
    d.http("GET", &format!("/volumes/{name}"), "").expect(200).json()
}

#[test]
fn a_plugin_makes_mounts_and_removes() {
    let (mut d, plugin) = with_plugin();
    let _ = d.docker(&["volume", "create", "-d", "test", "-o", "size=1g", "--label", "a=b", "data"]).ok();
    assert_eq!(plugin.calls(), ["Create data"]);
    let shown = volume(&d, "data");
    assert_eq!(
        (&shown["Driver"], &shown["Scope"], &shown["Status"]["users"]),
        (&"test".into(), &"global".into(), &0.into())
    );
    assert_eq!(
        (&shown["Labels"]["a"], &shown["Options"]["size"], &shown["Mountpoint"]),
        (&"b".into(), &"1g".into(), &"".into())
    );
    let script = "cat /data/* 2>/dev/null; echo kept > /data/f";
    let _ = d.docker(&["run", "--name", "one", "-v", "data:/data", "busybox", "sh", "-c", script]).ok();
    let id = d.inspect("one", "{{.Id}}");
    // Once to see whether there is something to take over, which the image has not.
    assert_eq!(plugin.calls(), [format!("Mount data {id}"), format!("Unmount data {id}")]);
    assert_eq!(std::fs::read_to_string(plugin.dir.join("volumes/data/f")).unwrap(), "kept\n");
    assert_eq!(d.docker(&["start", "-a", "one"]).text(), "kept");
    // While a container runs the daemon may die.
    let _ = d.docker(&["run", "-d", "--name", "two", "-v", "data:/data:ro", "busybox", "sleep", "1000"]).ok();
    let _ = plugin.calls();
    d.crash();
    assert_eq!(volume(&d, "data")["Status"]["users"], 1);
    d.docker(&["volume", "rm", "data"]).fails(1, "volume is in use");
    let two = d.inspect("two", "{{.Id}}");
    let _ = d.docker(&["kill", "two"]).ok();
    assert!(eventually(|| plugin.dir.join("mounts/data").read_dir().unwrap().next().is_none()
        || volume(&d, "data")["Status"]["users"] == 0));
    assert_eq!(plugin.calls(), [format!("Unmount data {two}")]);
    // Files are copied into and out of a container that does not run.
    let _ = d.docker(&["cp", "two:/data/f", &d.path("got").display().to_string()]).ok();
    assert_eq!(std::fs::read_to_string(d.path("got")).unwrap(), "kept\n");
    assert!(eventually(|| volume(&d, "data")["Status"]["users"] == 0));
    let _ = d.docker(&["rm", "one", "two"]).ok();
    let _ = plugin.calls();
    let _ = d.docker(&["volume", "rm", "data"]).ok();
    assert_eq!(plugin.calls(), ["Remove data"]);
    // Named for a container, and without a name.
    let _ = d
        .docker(&["run", "--rm", "--volume-driver", "test", "-v", "named:/x", "-v", "/y", "busybox", "touch", "/x/f"])
        .ok();
    let calls = plugin.calls();
    assert_eq!(calls.iter().filter(|call| call.starts_with("Create ")).count(), 2, "{calls:?}");
    assert_eq!(calls.iter().filter(|call| call.starts_with("Remove ")).count(), 1, "{calls:?}");
    let refused = d.docker(&["volume", "create", "-d", "test", "-o", "refuse=so", "other"]);
    refused.fails(1, "create other: refused: so");
    d.docker(&["volume", "create", "-d", "nosuch", "other"]).fails(1, "plugin \"nosuch\" not found");
    d.docker(&["volume", "create", "-d", "local", "named"])
        .fails(1, "driver 'test' already has volume 'named': volume name must be unique");
    assert!(d.docker(&["info", "-f", "{{.Plugins.Volume}}"]).text().contains("test"));
    finish(d, plugin);
}

/// Volumes that only the plugin knows are shown and used like others; those that are described by files are found.
#[test]
fn plugins_are_found_by_files_and_volumes_by_plugins() {
    let (d, plugin) = with_plugin();
    std::fs::create_dir_all(plugin.dir.join("volumes/made-elsewhere")).unwrap();
    let list = || d.docker(&["volume", "ls", "--format", "{{.Driver}} {{.Name}}"]).text();
    assert_eq!(list(), "test made-elsewhere");
    assert_eq!(volume(&d, "made-elsewhere")["CreatedAt"], "2020-02-03T04:05:06Z");
    let _ = d.docker(&["run", "--rm", "-v", "made-elsewhere:/x", "busybox", "touch", "/x/f"]).ok();
    assert!(plugin.dir.join("volumes/made-elsewhere/f").exists());
    let _ = d.exec_inside(&["mkdir", "-p", "/etc/docker/plugins/described"]).ok();
    let write = |path: &str, text: &str| {
        let _ = d.exec_inside(&["sh", "-c", &format!("echo '{text}' > /etc/docker/plugins/{path}")]).ok();
    };
    write("other.spec", "tcp://127.0.0.1:7788");
    write("described/described.json", r#"{"Name": "x", "Addr": "http://127.0.0.1:7788"}"#);
    let other = Plugin::start(&d, "other", "tcp:7788");
    let _ = d.docker(&["volume", "create", "-d", "other", "by-spec"]).ok();
    let _ = d.docker(&["volume", "create", "-d", "described", "by-json"]).ok();
    assert_eq!(other.calls(), ["Create by-spec", "Create by-json"]);
    let _ = d.docker(&["volume", "rm", "by-spec", "by-json", "made-elsewhere"]).ok();
    assert!(!plugin.dir.join("volumes/made-elsewhere").exists());
    drop(other);
    finish(d, plugin);
}

/// A plugin that does not answer holds up nobody but who asks for its own.
#[test]
fn a_plugin_that_hangs() {
    let (d, plugin) = with_plugin();
    let _ = d.docker(&["volume", "create", "-d", "test", "theirs"]).ok();
    let _ = d.docker(&["volume", "create", "ours"]).ok();
    plugin.mode("hang VolumeDriver.List");
    let list = d.http("GET", "/volumes", "").expect(200).json();
    let names: Vec<&str> = list["Volumes"].as_array().unwrap().iter().map(|v| v["Name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ours", "theirs"]);
    assert!(list["Warnings"][0].as_str().unwrap().starts_with("list test: "), "{list}");
    plugin.mode("hang VolumeDriver.Mount");
    let mut stuck = d.spawn(&["run", "--name", "stuck", "-v", "theirs:/x", "busybox", "true"]);
    let calls = plugin.dir.join("calls");
    assert!(eventually(|| std::fs::read_to_string(&calls).unwrap_or_default().contains("VolumeDriver.Mount")));
    let _ = d.docker(&["run", "--rm", "-v", "ours:/x", "busybox", "true"]).ok();
    assert_eq!(d.inspect("stuck", "{{.State.Status}}"), "created");
    let _ = d.docker(&["kill", "stuck"]);
    let output = stuck.end();
    assert_ne!(output.code, 0, "{output:?}");
    finish(d, plugin);
}

/// What a plugin says is checked before it is believed.
#[test]
fn a_plugin_that_lies() {
    let (d, plugin) = with_plugin();
    let _ = d.docker(&["volume", "create", "-d", "test", "vol"]).ok();
    let run = || d.docker(&["run", "--rm", "-v", "vol:/x", "busybox", "true"]);
    for (mode, text) in [
        (r#"say VolumeDriver.Mount {"Mountpoint": "relative"}"#, "which is no absolute path"),
        (r#"say VolumeDriver.Mount {"Mountpoint": ""}"#, "which is no absolute path"),
        (r#"say VolumeDriver.Mount {"Mountpoint": "/no/such/place"}"#, "no such file or directory"),
        (r#"say VolumeDriver.Mount {"Err": "the shelf is empty"}"#, "the shelf is empty"),
        (r#"say VolumeDriver.Mount {"Mountpoint": 7}"#, "cannot unmarshal number"),
        ("say VolumeDriver.Mount no json", "invalid character"),
        ("big VolumeDriver.Mount", "reading the answer"),
        (r#"status VolumeDriver.Mount {"Err": "out of order"}"#, "VolumeDriver.Mount: out of order"),
        ("status VolumeDriver.Mount plain text", "VolumeDriver.Mount: plain text"),
    ] {
        plugin.mode(mode);
        let output = run();
        assert!(output.code != 0 && output.stderr.contains(text), "{mode}: {output:?}");
    }
    plugin.mode("slow VolumeDriver.Mount");
    let _ = run().ok();
    plugin.mode("");
    // Nothing of the failed starts is left.
    assert_eq!(volume(&d, "vol")["Status"]["users"], 0);
    let _ = d.docker(&["volume", "rm", "vol"]).ok();
    finish(d, plugin);
}

/// A plugin that is started anew is waited for; of one that is gone the volumes are still listed, and can be forgotten.
#[test]
fn a_plugin_that_goes() {
    let (d, mut plugin) = with_plugin();
    let _ = d.docker(&["volume", "create", "-d", "test", "vol"]).ok();
    plugin.kill();
    let mut waiting = d.spawn(&["run", "--rm", "-v", "vol:/x", "busybox", "echo", "ran"]);
    plugin.again(&d);
    assert_eq!(waiting.end().text(), "ran");
    plugin.kill();
    let _ = d.exec_inside(&["rm", "/run/docker/plugins/test.sock"]).ok();
    let list = d.http("GET", "/volumes", "").expect(200).json();
    assert_eq!(list["Volumes"][0]["Name"], "vol");
    assert!(list["Warnings"][0].as_str().unwrap().starts_with("list test: "), "{list}");
    d.docker(&["volume", "inspect", "vol"]).fails(1, "error while checking if volume");
    assert_ne!(d.docker(&["volume", "rm", "vol"]).code, 0);
    let _ = d.docker(&["volume", "rm", "-f", "vol"]).ok();
    assert_eq!(d.docker(&["volume", "ls", "-q"]).text(), "");
    finish(d, plugin);
}

/// A driver does not let go of a volume: who stops or removes its container is told what is waited for, and how long.
#[test]
fn who_waits_for_a_release_is_told() {
    let faults = tempfile::tempdir().unwrap();
    let d = Options::new().env("GANTRY_FAULTS", &faults.path().display().to_string()).start();
    d.busybox();
    for dir in ["/run", "/etc/docker"] {
        let _ = d.exec_inside(&["mkdir", "-p", dir]).ok();
        let _ = d.exec_inside(&["mount", "-t", "tmpfs", "own", dir]).ok();
    }
    let mut plugin = Plugin::start(&d, "plugin", SOCKET);
    let _ = d
        .docker(&[
            "run",
            "-d",
            "--name",
            "c1",
            "-v",
            "theirs:/x",
            "--volume-driver",
            "test",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    plugin.mode("hang VolumeDriver.Unmount");
    // The bound of a test instead of minutes.
    std::fs::write(faults.path().join("procedure.patience"), "").unwrap();
    let told = "waits for its networks and volumes to be let go, which takes longer than 1 seconds";
    d.docker(&["stop", "-t", "0", "c1"]).fails(1, told);
    d.docker(&["rm", "-f", "c1"]).fails(1, told);
    d.docker(&["start", "c1"]).fails(1, told);
    assert_eq!(d.inspect("c1", "{{.State.Running}}"), "true");
    // Nobody else waits.
    let _ = d.docker(&["run", "--rm", "busybox", "true"]).ok();
    plugin.mode("");
    plugin.kill();
    plugin.again(&d);
    assert!(eventually(|| d.docker(&["rm", "-f", "c1"]).code == 0));
    let _ =
        d.exec_inside(&["sh", "-c", "umount $(grep -o '/[^ ]*/plugin/mounts/[^ ]*' /proc/mounts) 2>/dev/null; true"]);
    let _ = d.docker(&["volume", "rm", "theirs"]);
    finish(d, plugin);
}
