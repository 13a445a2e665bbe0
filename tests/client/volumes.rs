//! Volumes that their driver mounts: one file system for all users, unseen by the host, found again by the next daemon.

use testkit::Daemon;

use crate::{eventually, with_busybox};

fn create(d: &Daemon, name: &str, options: &[&str]) {
    let options: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
    let _ = d.docker(&[&["volume", "create"], &options[..], &[name]].concat()).ok();
}

/// The process that keeps the mounts, if there is one.
fn keepers(d: &Daemon) -> usize {
    d.namespaces().processes().iter().filter(|process| process.command.starts_with("gantry-volumes")).count()
}

fn sleeper(d: &Daemon, name: &str, mount: &str) {
    let _ = d.docker(&["run", "-d", "--name", name, "-v", mount, "busybox", "sleep", "1000"]).ok();
}

fn within(d: &Daemon, name: &str, script: &str) -> String {
    d.docker(&["exec", name, "sh", "-c", script]).text()
}

/// All users of a volume in memory see one file system, over the death of the daemon as well; it goes with the last one.
#[test]
fn a_volume_in_memory_is_one_file_system() {
    let mut d = with_busybox();
    create(&d, "vol", &["type=tmpfs", "device=tmpfs", "o=size=1m,uid=1000,mode=750,noexec"]);
    let host = d.namespaces().mounts();
    sleeper(&d, "one", "vol:/data");
    assert_eq!(d.namespaces().mounts(), host, "the host's mount table has changed");
    assert_eq!(
        within(&d, "one", "stat -c '%u %a' /data; echo first > /data/f; df -k /data | tail -1 | awk '{print $2}'"),
        "1000 750\n1024"
    );
    assert_eq!(
        within(
            &d,
            "one",
            "cp /bin/busybox /data/b 2>&1; head -c 4096 /bin/busybox > /data/x; chmod +x /data/x; /data/x 2>&1 | grep -o 'Permission denied'; grep ' /data ' /proc/mounts | grep -c noexec; rm /data/b /data/x"
        ),
        "cp: write error: No space left on device\nPermission denied\n1"
    );
    sleeper(&d, "two", "vol:/other:ro");
    assert_eq!(within(&d, "two", "cat /other/f; touch /other/g 2>&1 | grep -o 'Read-only'"), "first\nRead-only");
    d.crash();
    sleeper(&d, "three", "vol:/third");
    assert_eq!(
        within(&d, "three", "cat /third/f; echo third > /third/f; stat -c %d /third"),
        within(&d, "one", "echo first; stat -c %d /data")
    );
    assert_eq!((within(&d, "two", "cat /other/f"), keepers(&d)), ("third".into(), 1));
    let refused = d.docker(&["volume", "rm", "vol"]);
    refused.fails(1, "volume is in use");
    for name in ["one", "two"] {
        let _ = d.docker(&["rm", "-f", name]).ok();
    }
    assert_eq!(within(&d, "three", "cat /third/f"), "third");
    let _ = d.docker(&["kill", "three"]).ok();
    assert!(eventually(|| keepers(&d) == 0), "the mount stays without a user");
    // Its data has gone with it.
    let _ = d.docker(&["start", "three"]).ok();
    assert_eq!(within(&d, "three", "ls -A /third"), "");
    let shown = d
        .docker(&["volume", "inspect", "-f", "{{json .Options}} {{json .Status}} {{.Scope}} {{.Driver}}", "vol"])
        .text();
    assert_eq!(shown, r#"{"device":"tmpfs","o":"size=1m,uid=1000,mode=750,noexec","type":"tmpfs"} null local local"#);
    d.remove_containers();
    let _ = d.docker(&["volume", "rm", "vol"]).ok();
    d.finish();
}

/// What runs when the daemon is killed and has ended when the next one comes holds no volume any more.
#[test]
fn a_use_ends_while_no_daemon_is_there() {
    let mut d = with_busybox();
    create(&d, "vol", &["type=tmpfs", "device=tmpfs"]);
    let script = "until [ -e /gate/go ]; do sleep 0.05; done";
    std::fs::create_dir(d.path("gate")).unwrap();
    let gate = format!("{}:/gate", d.path("gate").display());
    let _ =
        d.docker(&["run", "-d", "--name", "one", "-v", "vol:/data", "-v", &gate, "busybox", "sh", "-c", script]).ok();
    d.kill9();
    std::fs::write(d.path("gate").join("go"), "").unwrap();
    let sleeps = || d.namespaces().processes().iter().any(|process| process.command.starts_with("sh -c until"));
    assert!(eventually(|| !sleeps()));
    assert_eq!(keepers(&d), 1);
    d.again();
    assert!(eventually(|| keepers(&d) == 0), "the mount stays without a user");
    let _ = d.docker(&["rm", "one"]).ok();
    let _ = d.docker(&["volume", "rm", "vol"]).ok();
    d.finish();
}

/// Directories and devices of the host by way of a volume; parts of it, copies into it, and the refusals of the kernel.
#[test]
fn volumes_of_what_the_host_has() {
    let d = with_busybox();
    let source = d.path("source");
    std::fs::create_dir_all(source.join("part/deep")).unwrap();
    std::fs::write(source.join("file"), "of the host").unwrap();
    let device = format!("device={}", source.display());
    create(&d, "bound", &["type=none", "o=bind", &device]);
    create(&d, "sealed", &["type=none", "o=bind,ro", &device]);
    let run = |mount: &str, script: &str| d.docker(&["run", "--rm", "--mount", mount, "busybox", "sh", "-c", script]);
    let host = d.namespaces().mounts();
    assert_eq!(run("type=volume,src=bound,dst=/m", "cat /m/file; echo x > /m/part/made").text(), "of the host");
    assert_eq!(std::fs::read_to_string(source.join("part/made")).unwrap(), "x\n");
    assert_eq!(run("type=volume,src=bound,dst=/m,volume-subpath=part/deep", "touch /m/deep; ls /m").text(), "deep");
    let sealed = run("type=volume,src=sealed,dst=/m", "touch /m/x");
    assert!(sealed.stderr.contains("Read-only file system"), "{sealed:?}");
    std::os::unix::fs::symlink("/etc", source.join("out")).unwrap();
    let out = run("type=volume,src=bound,dst=/m,volume-subpath=out", "ls /m");
    assert!(out.stderr.contains("escapes the base directory"), "{out:?}");
    // Into and out of a container that does not run.
    let _ = d.docker(&["create", "--name", "c", "-v", "bound:/m", "busybox", "true"]).ok();
    std::fs::write(d.path("sent"), "sent").unwrap();
    let _ = d.docker(&["cp", &d.path("sent").display().to_string(), "c:/m/part/sent"]).ok();
    assert_eq!(std::fs::read_to_string(source.join("part/sent")).unwrap(), "sent");
    let _ = d.docker(&["cp", "c:/m/file", &d.path("got").display().to_string()]).ok();
    assert_eq!(std::fs::read_to_string(d.path("got")).unwrap(), "of the host");
    let _ = d.docker(&["rm", "c"]).ok();
    // An empty one takes over what the image has.
    let empty = d.path("empty");
    std::fs::create_dir(&empty).unwrap();
    create(&d, "filled", &["type=none", "o=bind", &format!("device={}", empty.display())]);
    let _ = d.docker(&["create", "--name", "c", "-v", "filled:/bin", "busybox", "true"]).ok();
    assert!(empty.join("busybox").exists());
    let _ = d.docker(&["rm", "c"]).ok();
    for (name, options, text) in [
        (
            "gone",
            &["type=none", "o=bind", "device=/no/such/dir"][..],
            "_data, flags: 0x1000: no such file or directory",
        ),
        ("nfs", &["type=nfs9", "device=:/x", "o=addr=127.0.0.1"], "no such device"),
        (
            "bad",
            &["type=tmpfs", "device=tmpfs", "o=ro,nonsense=1"],
            "_data, flags: 0x1, data: nonsense=1: invalid argument",
        ),
        (
            "cifs",
            &["type=cifs9", "device=//127.0.0.1/s", "o=username=u,password=secret"],
            "password=********: no such device",
        ),
    ] {
        create(&d, name, options);
        let output = run(&format!("type=volume,src={name},dst=/m"), "true");
        let place = format!(
            "error while mounting volume '{}/volumes/{name}/_data': failed to mount local volume: mount ",
            d.data_root().display()
        );
        assert!(output.code != 0 && output.stderr.contains(&place), "{output:?}");
        assert!(output.stderr.contains(text) && !output.stderr.contains("secret"), "{output:?}");
    }
    assert_eq!((d.namespaces().mounts(), keepers(&d)), (host, 0));
    d.finish();
}

/// A real file system on a device, for two containers and with another runtime.
#[test]
fn a_file_system_on_a_device() {
    let d = with_busybox();
    let image = d.path("image").display().to_string();
    let _ = d.exec_inside(&["truncate", "-s", "8m", &image]).ok();
    let _ = d.exec_inside(&["mkfs.ext4", "-q", &image]).ok();
    let device = d.exec_inside(&["losetup", "--find", "--show", &image]).text();
    create(&d, "disk", &["type=ext4", &format!("device={device}"), "o=noatime"]);
    sleeper(&d, "one", "disk:/d");
    let _ = within(&d, "one", "echo kept > /d/f");
    let two = d.docker(&["run", "--rm", "--runtime", "runc", "-v", "disk:/d", "busybox", "cat", "/d/f"]);
    assert_eq!(two.text(), "kept");
    let _ = d.docker(&["rm", "-f", "one"]).ok();
    let again = d.docker(&["run", "--rm", "-v", "disk:/d:ro", "busybox", "cat", "/d/f"]);
    let _ = d.exec_inside(&["losetup", "--detach", &device]).ok();
    assert_eq!((again.text(), keepers(&d)), ("kept".into(), 0));
    d.finish();
}

/// Mounts and their ends are told, in the reference's order and words.
#[test]
fn mounts_are_told() {
    let d = with_busybox();
    create(&d, "vol", &["type=tmpfs", "device=tmpfs"]);
    let _ = d.docker(&["run", "--name", "c", "-v", "vol:/data:ro", "busybox", "true"]).ok();
    let id = d.inspect("c", "{{.Id}}");
    let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1;
    let format = "{{.Type}} {{.Action}} {{json .Actor}}";
    let told = d.docker(&["events", "--since", "0", "--until", &until.to_string(), "--format", format]).text();
    let mount = format!(
        r#"volume mount {{"ID":"vol","Attributes":{{"container":"{id}","destination":"/data","driver":"local","propagation":"","read/write":"false"}}}}"#
    );
    let unmount = format!(r#"volume unmount {{"ID":"vol","Attributes":{{"container":"{id}","driver":"local"}}}}"#);
    let at =
        |text: &str| told.lines().position(|line| line.starts_with(text)).unwrap_or_else(|| panic!("{text} in {told}"));
    assert!(at(&mount) < at("container start") && at(&unmount) < at("container die"), "{told}");
    d.finish();
}

#[test]
fn options_of_local_volumes_are_checked() {
    let d = with_busybox();
    for (options, text) in [
        (&["-o", "kind=x"][..], "create vol: invalid option: \"kind\""),
        (&["-o", "type=nfs"], "create vol: missing required option: \"device\""),
        (
            &["-o", "size=1g"],
            "create vol: quota size requested but no quota support: ext4 counts projects when it was made with",
        ),
        (&["-o", "size=much"], "create vol: invalid size: 'much'"),
    ] {
        d.docker(&[&["volume", "create"], options, &["vol"]].concat()).fails(1, text);
    }
    // One that is there is answered, whatever the options.
    create(&d, "vol", &["type=tmpfs", "device=tmpfs"]);
    create(&d, "vol", &["type=tmpfs", "device=tmpfs", "o=size=1m"]);
    let shown = d.docker(&["volume", "inspect", "-f", "{{json .Options}}", "vol"]).text();
    assert_eq!(shown, r#"{"device":"tmpfs","type":"tmpfs"}"#);
    create(&d, "limited", &["type=tmpfs", "device=tmpfs", "size=1m"]);
    let script = "df -k /data | tail -1 | awk '{print $2}'";
    assert_eq!(d.docker(&["run", "--rm", "-v", "limited:/data", "busybox", "sh", "-c", script]).text(), "1024");
    // Prune leaves what mounts something.
    let pruned = d.docker(&["volume", "prune", "-af"]).text();
    assert!(!pruned.contains("limited"), "{pruned}");
    d.finish();
}

/// What does not fit into a limited volume is refused to the container, and to nobody else.
#[test]
fn a_volume_is_limited_by_a_quota_of_its_subvolume() {
    let mut d = testkit::Options::new().btrfs("256m").start();
    d.busybox();
    let _ = d.docker(&["volume", "create", "-o", "size=8m", "small"]).ok();
    let _ = d.docker(&["volume", "create", "large"]).ok();
    let write = |volume: &str| {
        let script = "dd if=/dev/zero of=/v/f bs=64k count=320 conv=fsync 2>&1 | tail -1; sync; stat -c %s /v/f";
        let mount = format!("{volume}:/v");
        d.docker(&["run", "--rm", "-v", &mount, "busybox", "sh", "-c", script]).stdout
    };
    let told = write("small");
    let size: u64 = told.lines().last().unwrap().parse().unwrap();
    assert!(size <= 8 << 20, "{told}");
    assert_eq!(write("large").lines().last().unwrap(), (20 << 20).to_string());
    d.kill9();
    d.again();
    let told =
        d.docker(&["run", "--rm", "-v", "small:/v", "busybox", "sh", "-c", "cat /dev/zero > /v/g; stat -c %s /v/g"]);
    assert!(told.stderr.contains("quota exceeded"), "{told:?}");
    let _ = d.docker(&["volume", "rm", "small", "large"]).ok();
    d.finish();
}
