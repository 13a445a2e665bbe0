//! Binds, volumes, tmpfs, a read-only root.

use std::sync::atomic::{AtomicBool, Ordering};

use testkit::soak;

use crate::with_busybox;

#[test]
fn binds() {
    let d = with_busybox();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display();
    let _ = d.docker(&["run", "--rm", "-v", &format!("{path}:/data"), "busybox", "sh", "-c", "echo x > /data/f"]).ok();
    assert_eq!(std::fs::read_to_string(dir.path().join("f")).unwrap(), "x\n");
    let mount = format!("type=bind,src={path},dst=/d,readonly");
    let output = d.docker(&["run", "--rm", "--mount", &mount, "busybox", "sh", "-c", "cat /d/f; touch /d/g"]);
    assert!(output.stdout == "x\n" && output.stderr.contains("Read-only file system"), "{output:?}");
    // A file over a file; the target is made in the container, not on the host.
    let file = format!("{path}/f:/etc/deep/new/file");
    assert_eq!(d.docker(&["run", "--rm", "-v", &file, "busybox", "cat", "/etc/deep/new/file"]).text(), "x");
    // The old syntax makes a missing source.
    let made = format!("{path}/made:/m");
    let _ = d.docker(&["run", "--rm", "-v", &made, "busybox", "true"]).ok();
    assert!(dir.path().join("made").is_dir());
    d.docker(&["run", "--rm", "--mount", "type=bind,src=/no/such,dst=/x", "busybox", "true"])
        .fails(125, "invalid mount config for type \"bind\": bind source path does not exist: /no/such");
    d.docker(&["run", "--rm", "-v", "/tmp:relative", "busybox", "true"]).fails(125, "mount path must be absolute");
    d.finish();
}

/// What is made for a container is its owner's to write, whatever mask the daemon was started with.
#[test]
fn modes_of_what_is_made() {
    let d = with_busybox();
    let dir = tempfile::tempdir().unwrap();
    let bind = format!("{}/made/deep:/m", dir.path().display());
    let script = "stat -c '%a %n' /etc/hosts /etc/hostname /etc/resolv.conf /m";
    assert_eq!(
        d.docker(&["run", "--rm", "-v", &bind, "busybox", "sh", "-c", script]).text(),
        "644 /etc/hosts\n644 /etc/hostname\n644 /etc/resolv.conf\n755 /m"
    );
    use std::os::unix::fs::PermissionsExt;
    for path in [dir.path().join("made"), d.path("pid"), d.data_root().join("engine-id"), d.data_root().join("lock")] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o022, 0, "{}: {mode:o}", path.display());
    }
    d.finish();
}

/// B-vol-8: a tmpfs has the mode of what it covers, and is everybody's where nothing was.
#[test]
fn modes_of_tmpfs() {
    let d = with_busybox();
    let run = |place: &str| {
        let path = place.split(':').next().unwrap();
        d.docker(&["run", "--rm", "--tmpfs", place, "busybox", "stat", "-c", "%a", path]).text()
    };
    assert_eq!(run("/new/place"), "1777");
    assert_eq!(run("/root"), "700");
    assert_eq!(run("/root:mode=711"), "711");
    assert_eq!(run("/dev/shm"), "1777");
    d.finish();
}

/// B-vol-4: what a container puts into a volume cannot lead another one's mount out of it.
#[test]
fn a_subpath_stays_in_its_volume() {
    let d = with_busybox();
    let run = |args: &[&str]| d.docker(&[&["run", "--rm"], args].concat());
    let fill = "mkdir -p /v/a/b; echo x > /v/a/b/f; ln -s /etc /v/out; ln -s a/b /v/in";
    let _ = run(&["-v", "v1:/v", "busybox", "sh", "-c", fill]).ok();
    let mount = |subpath: &str| format!("type=volume,src=v1,dst=/m,volume-subpath={subpath}");
    for inside in ["a/b", "in"] {
        assert_eq!(run(&["--mount", &mount(inside), "busybox", "cat", "/m/f"]).text(), "x", "{inside}");
    }
    run(&["--mount", &mount("out"), "busybox", "true"]).fails(125, "path concatenation escapes the base directory");
    run(&["--mount", &mount("nosuch"), "busybox", "true"]).fails(127, "cannot access path");
    // Nothing of the image is copied to where the volume has no place for it.
    let image = "type=volume,src=v2,dst=/home,volume-subpath=etc";
    run(&["--mount", image, "busybox", "true"]).fails(127, "no such file or directory");
    assert_eq!(run(&["-v", "v2:/v", "busybox", "ls", "-A", "/v"]).text(), "");
    d.finish();
}

#[test]
fn mounts_that_contradict_themselves() {
    let d = with_busybox();
    let dir = tempfile::tempdir().unwrap();
    let body = |options: &str| {
        let source = dir.path().display();
        format!(
            r#"{{"Image":"busybox","Cmd":["true"],"HostConfig":{{"Mounts":[
            {{"Type":"bind","Source":"{source}","Target":"/m",{options}}}]}}}}"#
        )
    };
    let start = |options: &str| {
        let created = d.http("POST", "/containers/create", &body(options)).expect(201).json();
        let answer = d.http("POST", &format!("/containers/{}/start", created["Id"].as_str().unwrap()), "").expect(500);
        answer.json()["message"].as_str().unwrap().to_string()
    };
    assert_eq!(
        start(r#""BindOptions":{"ReadOnlyForceRecursive":true}"#),
        "mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive"
    );
    assert_eq!(
        start(r#""ReadOnly":true,"BindOptions":{"ReadOnlyForceRecursive":true,"ReadOnlyNonRecursive":true}"#),
        "mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive"
    );
    let fake = format!("{}:/proc", dir.path().display());
    d.docker(&["run", "--rm", "-v", &fake, "busybox", "true"]).fails(125, "it is not of type proc");
    d.docker(&["run", "--rm", "--tmpfs", "/proc", "busybox", "true"]).fails(125, "it is not of type proc");
    let inside = fake.replace(":/proc", ":/proc/nosuch");
    d.docker(&["run", "--rm", "-v", &inside, "busybox", "true"]).fails(125, "because it is inside /proc");
    d.docker(&["run", "--rm", "--volumes-from", "nosuch", "busybox", "true"]).fails(125, "No such container: nosuch");
    d.finish();
}

/// B-vol-6
#[test]
fn binds_of_the_data_root_are_slaves() {
    let d = with_busybox();
    let parent = d.data_root().parent().unwrap().display().to_string();
    let propagation = "{{range .Mounts}}{{.Propagation}}{{end}}";
    for (name, mount) in
        [("string", ["-v", "/:/host"]), ("mount", ["--mount", &format!("type=bind,src={parent},dst=/m")])]
    {
        let _ = d.docker(&[&["run", "--name", name][..], &mount, &["busybox", "true"]].concat()).ok();
        assert_eq!(d.docker(&["inspect", "-f", propagation, name]).text(), "rslave");
        let _ = d.docker(&["rm", name]).ok();
    }
    d.docker(&["run", "--rm", "-v", &format!("{parent}:/m:rprivate"), "busybox", "true"])
        .fails(125, "must use either propagation mode \"rslave\" or \"rshared\"");
    d.finish();
}

#[test]
fn a_read_only_root_with_places_to_write() {
    let d = with_busybox();
    let output = d.docker(&["run", "--rm", "--read-only", "busybox", "touch", "/f"]);
    assert!(output.code == 1 && output.stderr.contains("Read-only file system"), "{output:?}");
    let script = "touch /scratch/f && mount | grep ' /scratch ' && df -k /scratch | tail -1";
    let output = d
        .docker(&["run", "--rm", "--read-only", "--tmpfs", "/scratch:size=1m,mode=1777", "busybox", "sh", "-c", script])
        .text();
    assert!(output.contains("nosuid,nodev,noexec") && output.contains("1024"), "{output}");
    let mount = [
        "run",
        "--rm",
        "--mount",
        "type=tmpfs,dst=/t,tmpfs-size=2097152",
        "busybox",
        "sh",
        "-c",
        "df -k /t | tail -1 | awk '{print $2}'",
    ];
    assert_eq!(d.docker(&mount).text(), "2048");
    d.finish();
}

#[test]
fn anonymous_volumes_go_with_the_container() {
    let d = with_busybox();
    let _ = d.docker(&["run", "--name", "v1", "-v", "/data", "busybox", "sh", "-c", "echo x > /data/f"]).ok();
    let volumes = d.data_root().join("volumes");
    let count =
        || std::fs::read_dir(&volumes).map(|list| list.flatten().filter(|e| e.path().is_dir()).count()).unwrap_or(0);
    assert_eq!(count(), 1);
    let _ = d.docker(&["rm", "-v", "v1"]).ok();
    assert_eq!(count(), 0);
    let _ = d.docker(&["run", "--rm", "-v", "/data", "busybox", "true"]).ok();
    assert_eq!(count(), 0);
    d.finish();
}

#[test]
fn named_volumes_stay_and_take_the_images_content() {
    let d = with_busybox();
    let _ = d
        .docker(&[
            "run",
            "--rm",
            "-v",
            "vol:/etc",
            "busybox",
            "sh",
            "-c",
            "cat /etc/passwd > /dev/null && echo kept > /etc/mine",
        ])
        .ok();
    assert_eq!(d.docker(&["run", "--rm", "-v", "vol:/x:ro", "busybox", "cat", "/x/mine"]).text(), "kept");
    assert!(d.docker(&["run", "--rm", "-v", "vol:/x", "busybox", "cat", "/x/passwd"]).text().contains("root:x:0:0"));
    d.finish();
}

#[test]
fn the_root_is_written_where_it_belongs() {
    let d = with_busybox();
    let _ = d.docker(&["run", "--name", "a1", "busybox", "sh", "-c", "echo mine > /etc/passwd; rm /bin/ls"]).ok();
    assert_eq!(
        d.docker(&["run", "--rm", "busybox", "head", "-n1", "/etc/passwd"]).text(),
        "root:x:0:0:root:/root:/bin/sh"
    );
    assert_eq!(d.docker(&["start", "-a", "a1"]).code, 1, "the second rm fails: the first change was kept");
    d.finish();
}

#[test]
fn the_copy_driver() {
    let d = testkit::Options::new().args(&["--storage-driver", "vfs"]).start();
    d.load(&testkit::images::layered_archive("layers:latest", 4));
    assert_eq!(d.docker(&["run", "--rm", "layers", "cat", "/top"]).text(), "3");
    assert_eq!(d.docker(&["run", "--rm", "layers", "sh", "-c", "ls /layer-1"]).code, 1);
    d.finish();
}

/// Creates, removals of volumes and prunes beside each other: whichever comes first, a container that was created has the
/// volumes that it names, with what is in them, and starts.
#[test]
fn a_volume_that_a_create_names_is_not_removed_under_it() {
    let d = with_busybox();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let remover = |method: &'static str, path: &'static str| {
            let (d, done) = (&d, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let status = d.http(method, path, "").status;
                    assert!([200, 204, 404, 409].contains(&status), "{method} {path}: {status}");
                }
            });
        };
        remover("DELETE", "/volumes/raced");
        remover("DELETE", "/volumes/raced?force=1");
        remover("POST", "/volumes/prune?filters=%7B%22all%22:%5B%221%22%5D%7D");
        let creators: Vec<_> = (0..2)
            .map(|creator| {
                let d = &d;
                scope.spawn(move || {
                    for round in 0..soak::rounds(60, 2000) {
                        let name = format!("c{creator}-{round}");
                        let body = r#"{"Image":"busybox","Cmd":["test","-d","/v"],"HostConfig":{"NetworkMode":"none",
                            "Binds":["raced:/v"],"Mounts":[{"Type":"volume","Target":"/w"}]}}"#;
                        let create = format!("/containers/create?name={name}");
                        let _ = d.http("POST", &create, body).expect(201);
                        let inherit = format!(r#"{{"Image":"busybox","HostConfig":{{"VolumesFrom":["{name}"]}}}}"#);
                        let heir = format!("{name}-heir");
                        let _ = d.http("POST", &format!("/containers/create?name={heir}"), &inherit).expect(201);
                        for container in [&name, &heir] {
                            let shown = d.http("GET", &format!("/containers/{container}/json"), "").expect(200).json();
                            for mount in shown["Mounts"].as_array().unwrap() {
                                let volume = mount["Name"].as_str().unwrap();
                                let _ = d.http("GET", &format!("/volumes/{volume}"), "").expect(200);
                                assert!(std::fs::metadata(mount["Source"].as_str().unwrap()).unwrap().is_dir());
                            }
                        }
                        if round % 10 == 0 {
                            let _ = d.http("POST", &format!("/containers/{name}/start"), "").expect(204);
                        }
                        for container in [&name, &heir] {
                            let _ = d.http("DELETE", &format!("/containers/{container}?v=1&force=1"), "").expect(204);
                        }
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = creators.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    d.finish();
}
