//! What older clients mean by a read-only bind, volumes that go with their last container, parts of volumes that are files.

use serde_json::{Value, json};
use testkit::Daemon;

use crate::with_busybox;

/// Creates over the API at `version`; runs it to its end; the exit code.
#[track_caller]
fn runs(d: &Daemon, version: &str, script: &str, host: Value) -> i64 {
    let body = json!({"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": host}).to_string();
    let made = d.http("POST", &format!("/{version}/containers/create"), &body).expect(201).json();
    let path = format!("/{version}/containers/{}", made["Id"].as_str().unwrap());
    let _ = d.http("POST", &format!("{path}/start"), "").expect(204);
    d.http("POST", &format!("{path}/wait"), "").expect(200).json()["StatusCode"].as_i64().unwrap()
}

/// A bind of an API before 1.44 is read-only without the mounts below it, and so is what inherits it.
#[test]
fn a_read_only_bind_of_an_older_client_is_not_recursive() {
    let d = with_busybox();
    let dir = d.path("host");
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    let below = dir.join("sub").display().to_string();
    let _ = d.exec_inside(&["mount", "-t", "tmpfs", "below", &below]).ok();
    let source = dir.display().to_string();
    let bind = json!({"Binds": [format!("{source}:/m:ro")]});
    let mount = |options: Value| {
        let entry = json!({"Type": "bind", "Source": source, "Target": "/m", "ReadOnly": true, "BindOptions": options});
        json!({"Mounts": [entry]})
    };
    let script = "! touch /m/f 2>/dev/null && touch /m/sub/f 2>/dev/null";
    for host in [bind.clone(), mount(Value::Null), mount(json!({"Propagation": "rprivate"}))] {
        assert_eq!(runs(&d, "v1.43", script, host.clone()), 0, "{host}");
        assert_eq!(runs(&d, "v1.44", script, host.clone()), 1, "{host}");
    }
    assert_eq!(runs(&d, "v1.44", script, mount(json!({"ReadOnlyNonRecursive": true}))), 0);
    // Echoed as it was asked for.
    for (version, inherited) in [("v1.43", 0), ("v1.44", 1)] {
        let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": bind}).to_string();
        let _ = d.http("POST", &format!("/{version}/containers/create?name=donor"), &body).expect(201);
        let shown = d.http("GET", "/containers/donor/json", "").expect(200).json();
        assert_eq!(shown["HostConfig"]["Binds"], bind["Binds"]);
        assert_eq!(shown["Mounts"][0]["Mode"], "ro");
        assert_eq!(runs(&d, "v1.44", script, json!({"VolumesFrom": ["donor"]})), inherited, "{version}");
        let _ = d.http("DELETE", "/containers/donor", "").expect(204);
    }
    d.remove_containers();
    let _ = d.exec_inside(&["umount", &below]).ok();
    d.finish();
}

fn volumes(d: &Daemon) -> Vec<String> {
    let list = d.http("GET", "/volumes", "").expect(200).json();
    list["Volumes"].as_array().into_iter().flatten().map(|v| v["Name"].as_str().unwrap().to_owned()).collect()
}

/// Of those that have an anonymous volume, in whatever way, the last one that is removed with its volumes takes it along.
#[test]
fn an_anonymous_volume_goes_with_its_last_container() {
    let d = with_busybox();
    let own: [&[&str]; 3] =
        [&["-v", "/data"], &["--mount", "type=volume,dst=/data"], &["--mount", "type=volume,dst=/data,volume-nocopy"]];
    for own in own {
        let create = |name: &str, args: &[&str]| {
            let _ = d.docker(&[&["create", "--name", name], args, &["busybox", "true"]].concat()).ok();
        };
        create("first", own);
        create("second", &["--volumes-from", "first"]);
        create("third", &["--volumes-from", "second:ro", "-v", "named:/named"]);
        create("keeps", &["--volumes-from", "first"]);
        for (name, args) in [("first", "?v=1"), ("keeps", ""), ("second", "?v=1")] {
            let _ = d.http("DELETE", &format!("/containers/{name}{args}"), "").expect(204);
            assert_eq!(volumes(&d).len(), 2, "{own:?}: {name} took it along");
        }
        let _ = d.http("DELETE", "/containers/third?v=1", "").expect(204);
        assert_eq!(volumes(&d), ["named"], "{own:?}");
    }
    // Those that go beside each other leave nothing either.
    for round in 0..10 {
        let names: Vec<String> = (0..4).map(|n| format!("r{round}n{n}")).collect();
        let _ = d.docker(&["create", "--name", &names[0], "-v", "/data", "busybox", "true"]).ok();
        for name in &names[1..] {
            let _ = d.docker(&["create", "--name", name, "--volumes-from", &names[0], "busybox", "true"]).ok();
        }
        std::thread::scope(|scope| {
            for name in &names {
                let d = &d;
                scope.spawn(move || d.http("DELETE", &format!("/containers/{name}?v=1"), "").expect(204));
            }
        });
        assert_eq!(volumes(&d), ["named"]);
    }
    d.finish();
}

/// A volume without a name is an anonymous one, with the labels that were asked for as well.
#[test]
fn a_nameless_volume_is_an_anonymous_one() {
    let d = with_busybox();
    for (labels, wanted) in [
        ("", r#"{"com.docker.volume.anonymous":""}"#),
        (",volume-label=a=b", r#"{"a":"b","com.docker.volume.anonymous":""}"#),
    ] {
        let mount = format!("type=volume,dst=/x{labels}");
        let _ = d.docker(&["create", "--name", "a1", "--mount", &mount, "busybox", "true"]).ok();
        let name = d.inspect("a1", "{{(index .Mounts 0).Name}}");
        assert_eq!(name.len(), 64, "{name}");
        assert_eq!(d.docker(&["volume", "inspect", "-f", "{{json .Labels}}", &name]).text(), wanted);
        let _ = d.docker(&["rm", "a1"]).ok();
        // Which prune therefore takes.
        assert!(d.docker(&["volume", "prune", "-f"]).text().contains(&name));
    }
    d.finish();
}

/// What a volume has at its place is checked for the configuration's volumes only, as the reference does.
#[test]
fn a_file_of_a_volume_over_a_file() {
    let d = with_busybox();
    let _ = d.docker(&["run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", "echo part > /v/file; mkdir /v/dir"]).ok();
    let run = |runtime: &str, place: &str| {
        let mount = format!("type=volume,src=vol,dst={place},volume-subpath=file");
        let script = format!("cat {place}; echo more >> {place}");
        d.docker(&["run", "--rm", "--runtime", runtime, "--mount", &mount, "busybox", "sh", "-c", &script])
    };
    assert_eq!(run("runc", "/etc/passwd").text(), "part");
    assert_eq!(run("runc", "/new/place/file").text(), "part\nmore");
    let shown =
        d.docker(&["run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", "cat /v/file; cat /etc/passwd"]).text();
    assert!(shown.starts_with("part\nmore\nmore\nroot:x:0:0"), "{shown}");
    // An empty directory over a file would take over what the image has there.
    let over_file = "type=volume,src=vol,dst=/etc/passwd,volume-subpath=dir";
    let refused = "source /etc/passwd is not directory";
    d.docker(&["run", "--rm", "--mount", over_file, "busybox", "true"]).fails(125, refused);
    // Other directories over a file are the start's to refuse, and a file over a directory.
    let output = run("runc", "/etc");
    assert!(output.code > 100 && output.stderr.contains("not a directory"), "{output:?}");
    d.docker(&["run", "--rm", "-v", "vol:/etc/passwd", "busybox", "true"]).fails(125, "not a directory");
    // One that would take over what the image has there is the create's to refuse, and leaves no volume.
    let none = d.docker(&["volume", "ls", "-q"]).text();
    d.docker(&["create", "-v", "new:/etc/passwd", "busybox", "true"]).fails(1, refused);
    let mount = "type=volume,dst=/bin/busybox";
    d.docker(&["create", "--mount", mount, "busybox", "true"]).fails(1, "source /bin/busybox is not directory");
    assert_eq!(d.docker(&["volume", "ls", "-q"]).text(), none);
    d.docker(&["run", "--rm", "-v", "new:/etc/passwd:nocopy", "busybox", "true"]).fails(125, "not a directory");
    d.finish();
}

/// A stop signal that the kernel does not have is taken; a stop then waits two seconds at most. Options of the log are
/// checked at start.
#[test]
fn values_that_create_takes() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "a1", "--stop-signal", "99", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["stop", "-t", "-1", "a1"]).ok();
    assert_eq!(d.inspect("a1", "{{.State.Status}} {{.State.ExitCode}} {{.Config.StopSignal}}"), "exited 137 99");
    let _ = d.docker(&["start", "a1"]).ok();
    let _ = d.docker(&["restart", "-t", "1000", "-s", "98", "a1"]).ok();
    d.docker(&["kill", "-s", "99", "a1"]).fails(1, "the linux daemon does not support signal 99");
    for refused in ["SIGNOPE", "0"] {
        d.docker(&["create", "--stop-signal", refused, "busybox", "true"]).fails(1, "invalid signal: ");
    }
    for (option, error) in [("max-size=abc", "invalid size: 'abc'"), ("max-file=0", "max-file cannot be less than 1")] {
        let _ = d.docker(&["create", "--name", "a2", "--log-opt", option, "busybox", "true"]).ok();
        let text = format!("failed to create task for container: failed to initialize logging driver: {error}");
        assert_eq!(d.http("POST", "/containers/a2/start", "").expect(500).message(), text);
        assert_eq!(
            d.inspect("a2", "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}"),
            format!("created 128 {text}")
        );
        let _ = d.docker(&["rm", "a2"]).ok();
    }
    d.finish();
}

/// A link is looked for by its whole name; a container is never removed instead.
#[test]
fn links_are_looked_for_first() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "web", "busybox", "true"]).ok();
    let delete = |name: &str| {
        let answer = d.http("DELETE", &format!("/containers/{name}?link=1&force=1"), "");
        (answer.status, answer.message())
    };
    let own = (500, "Conflict, cannot remove the default link name of the container".to_owned());
    assert_eq!(delete("web"), own);
    for name in ["web/db", "web/x/y", "nosuch/db", "nosuch"] {
        assert_eq!(delete(name), (404, format!("No such container: {name}")));
    }
    let _ = d.http("GET", "/containers/web/json", "").expect(200);
    d.finish();
}

/// The file system of an image, or a part of it, read-only; its image stays as long as a container has it.
#[test]
fn an_image_is_mounted() {
    let mut d = with_busybox();
    let _ = d
        .docker(&["create", "--name", "maker", "busybox", "sh", "-c", "mkdir -p /part/deep; echo one > /part/deep/f"])
        .ok();
    let _ = d.docker(&["start", "-a", "maker"]).ok();
    let _ = d.docker(&["commit", "maker", "layered:1"]).ok();
    let _ = d.docker(&["rm", "maker"]).ok();
    let host = d.namespaces().mounts();
    let run = |mount: &str, script: &str| d.docker(&["run", "--rm", "--mount", mount, "busybox", "sh", "-c", script]);
    let whole = "type=image,src=layered:1,dst=/image";
    let script = "cat /image/part/deep/f; touch /image/x 2>&1 | grep -o 'Read-only'; ls /image/bin/busybox";
    assert_eq!(run(whole, script).text(), "one\nRead-only\n/image/bin/busybox");
    assert_eq!(run("type=image,src=layered:1,dst=/p,image-subpath=part/deep", "ls /p").text(), "f");
    assert_eq!(run("type=image,src=layered:1,dst=/p,image-subpath=part/deep/f", "cat /p").text(), "one");
    // An image of one layer as well.
    assert_eq!(run("type=image,src=busybox,dst=/b", "ls /b/bin/busybox").text(), "/b/bin/busybox");
    let other =
        d.docker(&["run", "--rm", "--runtime", "runc", "--mount", whole, "busybox", "cat", "/image/part/deep/f"]);
    assert_eq!(other.text(), "one");
    run("type=image,src=layered:1,dst=/p,image-subpath=no/such", "true").fails(127, "no such file or directory");
    run("type=image,src=layered:1,dst=/p,image-subpath=../x", "true").fails(125, "subpath must be a relative path");
    let unknown = ["create", "--pull", "never", "--mount", "type=image,src=nosuch,dst=/p", "busybox"];
    d.docker(&unknown).fails(1, "No such image: nosuch:latest");
    // Used by a container that does not run, it is neither removed nor pruned, and its files are read.
    let _ = d.docker(&["create", "--name", "user", "--mount", whole, "busybox", "cat", "/image/part/deep/f"]).ok();
    let format = "{{with index .Mounts 0}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}";
    assert_eq!(d.inspect("user", format), "image layered:1 /image false");
    d.restart();
    let refused = d.docker(&["rmi", "layered:1"]);
    assert!(refused.code == 1 && refused.stderr.contains("conflict"), "{refused:?}");
    let _ = d.docker(&["image", "prune", "-af"]).ok();
    let _ = d.docker(&["cp", "user:/image/part/deep/f", &d.path("got").display().to_string()]).ok();
    assert_eq!(std::fs::read_to_string(d.path("got")).unwrap(), "one\n");
    let into = d.docker(&["cp", &d.path("got").display().to_string(), "user:/image/part/x"]);
    assert!(into.code == 1 && into.stderr.contains("read-only"), "{into:?}");
    assert_eq!(d.docker(&["start", "-a", "user"]).text(), "one");
    let _ = d.docker(&["rm", "user"]).ok();
    let _ = d.docker(&["rmi", "layered:1"]).ok();
    assert_eq!(d.namespaces().mounts(), host, "the host's mount table has changed");
    d.finish();
}

/// Twenty volumes cost little more than none, and each is where it belongs.
#[test]
fn many_volumes_at_once() {
    let d = with_busybox();
    let mounts: Vec<String> = (0..20).map(|n| format!("many{n}:/m{n}")).collect();
    let args = mounts.iter().flat_map(|mount| ["-v", mount.as_str()]);
    let create: Vec<&str> = ["create", "--name", "many"].into_iter().chain(args).collect();
    let script = "for n in $(seq 0 19); do echo $n > /m$n/f; done";
    let _ = d.docker(&[&create[..], &["busybox", "sh", "-c", script]].concat()).ok();
    let _ = d.docker(&["start", "-a", "many"]).ok();
    for n in 0..20 {
        let path = d.data_root().join(format!("volumes/many{n}/_data/f"));
        assert_eq!(std::fs::read_to_string(path).unwrap(), format!("{n}\n"));
    }
    d.finish();
}

/// Two mounts at one target: which pairs are refused, and which of the others is seen. `cp` sees the same.
#[test]
fn a_tmpfs_and_a_mount_at_one_target() {
    let d = with_busybox();
    let put = ["run", "--rm", "-v", "vol:/v", "busybox", "touch", "/v/of-the-volume"];
    let _ = d.docker(&put).ok();
    let tmpfs = |target: &str| json!({target: "size=1m"});
    let volume = json!([{"Type": "volume", "Source": "vol", "Target": "/t"}]);
    let other = json!([{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 2 << 20}}]);
    let sizes = "mount | grep -o ' /t .*size=[0-9]*k' | grep -o '[0-9]*k' | xargs";
    for (host, script) in [
        // The entry of Tmpfs wins; with another spelling the other one lies above it.
        (json!({"Tmpfs": tmpfs("/t"), "Mounts": volume}), "test -z \"$(ls /t)\" && grep -q ' /t tmpfs' /proc/mounts"),
        (json!({"Tmpfs": tmpfs("/t/"), "Mounts": volume}), "test -e /t/of-the-volume"),
        (json!({"Tmpfs": tmpfs("/t/"), "Binds": ["vol:/t"]}), "test -e /t/of-the-volume"),
        (json!({"Tmpfs": tmpfs("/t"), "Mounts": other}), &format!("test \"$({sizes})\" = '1024k 2048k'")),
        (json!({"Tmpfs": {"/t": "size=1m", "/t/": "size=3m"}}), &format!("test $({sizes} | wc -w) = 2")),
    ] {
        assert_eq!(runs(&d, "v1.44", script, host.clone()), 0, "{host}");
        let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": host}).to_string();
        let made = d.http("POST", "/containers/create?name=c", &body).expect(201).json();
        let shown = d.http("GET", "/containers/c/json", "").expect(200).json();
        // A mount that is not seen is listed all the same.
        let is_listed =
            host.get("Mounts").is_some_and(|mounts| mounts[0]["Type"] == "volume") || host.get("Binds").is_some();
        assert_eq!(shown["Mounts"].as_array().unwrap().iter().any(|m| m["Name"] == "vol"), is_listed, "{host} {made}");
        let found = d.docker(&["cp", "c:/t/of-the-volume", "-"]).code == 0;
        assert_eq!(found, script.contains("of-the-volume"), "{host}");
        let _ = d.docker(&["rm", "c"]).ok();
    }
    let refused = [
        (json!({"Tmpfs": tmpfs("/t"), "Binds": ["vol:/t"]}), "/t"),
        (json!({"Tmpfs": tmpfs("/t"), "Binds": ["vol:/t/"]}), "/t"),
        (json!({"Binds": ["vol:/t", "vol:/t"]}), "/t"),
        (json!({"Binds": ["vol:/t"], "Mounts": volume}), "/t"),
        (json!({"Mounts": [volume[0], {"Type": "tmpfs", "Target": "/t/"}]}), "/t/"),
    ];
    for (host, target) in refused {
        let body = json!({"Image": "busybox", "HostConfig": host, "Cmd": ["true"]}).to_string();
        let answer = d.http("POST", "/containers/create", &body).expect(400).json();
        assert_eq!(answer["message"], format!("Duplicate mount point: {target}"), "{host}");
    }
    d.remove_containers();
    let _ = d.docker(&["volume", "rm", "vol"]).ok();
    d.finish();
}
