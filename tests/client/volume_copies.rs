//! Snapshots, clones, exports and imports of volumes, on file systems that can copy and on those that cannot.

use std::path::PathBuf;

use rustix::process::Signal;
use testkit::{Daemon, Options, Output, places};

use crate::{eventually, with_busybox};

fn volume_of(d: &Daemon, name: &str) -> PathBuf {
    d.data_root().join("volumes").join(name).join("_data")
}

/// A command of the program itself.
fn gantryd(d: &Daemon, words: &str) -> Output {
    let own = format!("--config-file= --exec-root {}", d.exec_root().display());
    let words = words.replace("gantryd ", &format!("{} ", places::gantryd().display())).replace('@', &own);
    d.exec_inside(&["bash", "-o", "pipefail", "-c", &words])
}

/// All that can be told of a tree, in words.
fn told(d: &Daemon, dir: &std::path::Path) -> String {
    let script = format!(
        "cd {} && find . -printf '%p %y %m %U:%G %T@ %l\\n' | sort && find . -type f -printf '%p %s %n\\n' | sort && \
         find . -type f -exec sha256sum {{}} + | sort && find . -type b -o -type c -exec stat -c '%n %t %T' {{}} + | sort && \
         find . -type f -o -type d | sort | python3 -c \"import os, sys\nfor line in sys.stdin:\n name = line.strip()\n \
         print([(key, os.getxattr(name, key)) for key in sorted(os.listxattr(name))] or '')\"",
        dir.display()
    );
    d.exec_inside(&["sh", "-c", &script]).text()
}

/// Fills a volume with everything that a tree can hold but sockets, which archives have no room for.
fn fill(d: &Daemon, volume: &str) {
    let script = "cd /v && mkdir -p a/b && echo content > a/file && ln a/file a/b/hard && ln -s /etc/passwd a/link && \
        mkfifo a/fifo && mknod a/null c 1 3 && mknod a/disk b 7 9 && chown 1000:1001 a/file a/link && chmod 4751 a/file && \
        chmod 1777 a && dd if=/dev/zero of=sparse bs=1 count=1 seek=9000000 2>/dev/null && chown 7:8 . && chmod 2755 . && \
        touch -d '2001-02-03 04:05:06' a/b a/file";
    let _ = d.docker(&["run", "--rm", "-v", &format!("{volume}:/v"), "busybox", "sh", "-c", script]).ok();
    let path = volume_of(d, volume).join("a/file");
    let done = d.exec_inside(&[
        "python3",
        "-c",
        &format!("import os; os.setxattr('{}', 'user.note', b'kept')", path.display()),
    ]);
    assert_eq!(done.code, 0, "{done:?}");
}

/// A snapshot holds what the volume did, a clone and an import of an export hold the same.
fn round_trip(options: Options) {
    let mut d = options.start();
    d.busybox();
    fill(&d, "vol");
    let before = told(&d, &volume_of(&d, "vol"));
    assert_eq!(gantryd(&d, "gantryd volume snapshot vol s1 @").text(), "s1");
    let change = "cd /v && rm -r a && echo other > new && chown 1:1 .";
    let _ = d.docker(&["run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", change]).ok();
    let archive = d.path("v.tar.zst").display().to_string();
    assert_eq!(gantryd(&d, "gantryd volume clone s1 v2 @").text(), "v2");
    assert_eq!(told(&d, &volume_of(&d, "v2")), before);
    let through = format!("gantryd volume export v2 @ > {archive} && gantryd volume import v3 @ < {archive}");
    assert_eq!(gantryd(&d, &through).text(), "v3");
    assert_eq!(told(&d, &volume_of(&d, "v3")), before);
    let _ = gantryd(&d, &format!("gantryd volume export --snapshot s1 @ > {archive}.2")).ok();
    assert_eq!(gantryd(&d, &format!("gantryd volume import v4 @ < {archive}.2")).text(), "v4");
    assert_eq!(told(&d, &volume_of(&d, "v4")), before);
    // The snapshot outlives its volume, prunes, and the daemon.
    let _ = d.docker(&["volume", "rm", "vol", "v2", "v3"]).ok();
    let _ = d.docker(&["volume", "prune", "-a", "-f"]).ok();
    d.kill9();
    d.again();
    let listed = gantryd(&d, "gantryd volume snapshot ls @").text();
    let row = listed.lines().nth(1).unwrap_or_default().to_owned();
    assert!(row.starts_with("s1") && row.contains(" vol ") && !row.ends_with("N/A"), "{listed}");
    assert_eq!(gantryd(&d, "gantryd volume clone s1 vol @").text(), "vol");
    assert_eq!(told(&d, &volume_of(&d, "vol")), before);
    // What is cloned is a volume like any other.
    let read = ["run", "--rm", "-v", "vol:/v", "busybox", "cat", "/v/a/b/hard"];
    assert_eq!(d.docker(&read).text(), "content");
    assert_eq!(gantryd(&d, "gantryd volume snapshot rm s1 @").text(), "s1");
    let _ = d.docker(&["volume", "rm", "vol"]).ok();
    let all = d.exec_inside(&["ls", "-A", &d.data_root().join("volumes").display().to_string()]);
    assert!(["", ".snapshots"].contains(&all.stdout.trim()), "{all:?}");
    d.finish();
}

#[test]
fn a_round_trip_by_copies() {
    round_trip(Options::new());
}

#[test]
fn a_round_trip_on_btrfs() {
    round_trip(Options::new().btrfs("256m"));
}

#[test]
fn a_round_trip_on_xfs() {
    round_trip(Options::new().xfs("320m"));
}

/// Ten thousand times what memory there is would not do: where blocks are shared, a copy takes no room.
#[test]
fn copies_share_their_blocks() {
    for options in [Options::new().btrfs("384m"), Options::new().xfs("384m")] {
        let d = options.start();
        d.busybox();
        let fill = "dd if=/dev/urandom of=/v/big bs=1M count=150 2>/dev/null; sync";
        let _ = d.docker(&["run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", fill]).ok();
        for name in ["s1", "s2", "s3"] {
            assert_eq!(gantryd(&d, &format!("gantryd volume snapshot vol {name} @")).text(), name);
        }
        assert_eq!(gantryd(&d, "gantryd volume clone s3 wvol @").text(), "wvol");
        let size = d.exec_inside(&["stat", "-c", "%s", &volume_of(&d, "wvol").join("big").display().to_string()]);
        assert_eq!(size.text(), (150 << 20).to_string());
        d.finish();
    }
}

/// Volumes with a file system of their own are copied as their containers see them.
#[test]
fn a_volume_in_memory_is_copied() {
    let d = with_busybox();
    let _ = d.docker(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem"]).ok();
    let _ = d
        .docker(&["run", "-d", "--name", "c", "-v", "mem:/m", "busybox", "sh", "-c", "echo x > /m/f; sleep 1000"])
        .ok();
    assert!(eventually(|| d.docker(&["exec", "c", "cat", "/m/f"]).stdout == "x\n"));
    assert_eq!(gantryd(&d, "gantryd volume snapshot --freeze mem s1 @").text(), "s1");
    assert_eq!(gantryd(&d, "gantryd volume clone s1 vol @").text(), "vol");
    assert_eq!(std::fs::read_to_string(volume_of(&d, "vol").join("f")).unwrap(), "x\n");
    assert_eq!(d.inspect("c", "{{.State.Status}}"), "running");
    d.remove_containers();
    assert!(eventually(|| d.docker(&["volume", "rm", "mem"]).code == 0));
    d.finish();
}

/// What cannot be is refused, and leaves nothing.
#[test]
fn refusals_leave_nothing() {
    let d = with_busybox();
    let _ = d.docker(&["volume", "create", "vol"]).ok();
    let post = |path: &str, body: &str| d.http("POST", path, body);
    for (name, status) in [("", 400), ("a", 400), ("../x", 400), (".s", 400), ("s1", 201), ("s1", 409)] {
        let answer = post("/volumes/vol/snapshots", &format!(r#"{{"Name":"{name}"}}"#));
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
    }
    let _ = post("/volumes/none/snapshots", r#"{"Name":"s2"}"#).expect(404);
    for (name, status) in [("", 400), ("a", 400), ("a/b", 400), ("vol", 409), ("wvol", 201)] {
        let answer = post("/volume-snapshots/s1/clone", &format!(r#"{{"Name":"{name}"}}"#));
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
    }
    assert_eq!(
        post("/volume-snapshots/none/clone", r#"{"Name":"x1"}"#).expect(404).message(),
        "get none: no such snapshot"
    );
    let _ = d.http("DELETE", "/volume-snapshots/none", "").expect(404);
    let _ = d.http("GET", "/volumes/none/export", "").expect(404);
    let _ = d.http("GET", "/volume-snapshots/none/export", "").expect(404);
    let _ = post("/volumes/vol/import", "").expect(409);
    // No archives: noise, and one that ends too early.
    let noise = gantryd(&d, "head -c 100000 /dev/urandom | gantryd volume import x1 @");
    assert_ne!(noise.code, 0);
    let fill = "head -c 3000000 /dev/urandom > /v/f";
    let _ = d.docker(&["run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", fill]).ok();
    let cut = gantryd(&d, "gantryd volume export vol @ | head -c 1000000 | gantryd volume import x1 @");
    assert_ne!(cut.code, 0);
    assert!(cut.stderr.contains("importing volume x1"), "{cut:?}");
    // What climbs out of an archive stays in the volume, or is refused.
    let evil = d.path("evil");
    let script = format!(
        "mkdir -p {0}/d && echo pwned > {0}/d/f && cd {0}/d && tar -P --transform 's,^f,../../../../evil-out,' -cf - f | {1}",
        evil.display(),
        "gantryd volume import x1 @"
    );
    assert_ne!(gantryd(&d, &script).code, 0);
    assert_eq!(d.docker(&["volume", "ls", "-q"]).text(), "vol\nwvol");
    assert!(!d.data_root().join("volumes/.staging").exists() && !d.data_root().join("evil-out").exists());
    // Archives that others have made, in their compression.
    let others = format!("cd {}/d && tar czf - f | gantryd volume import x2 @", evil.display());
    assert_eq!(gantryd(&d, &others).text(), "x2");
    assert_eq!(std::fs::read_to_string(volume_of(&d, "x2").join("f")).unwrap(), "pwned\n");
    d.finish();
}

/// A disk that is full ends the copy, and nothing else.
#[test]
fn a_full_disk_ends_the_copy_only() {
    let d = Options::new().disk("96m").start();
    d.busybox();
    let fill = "head -c 30000000 /dev/urandom > /v/f";
    let _ = d.docker(&["run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", fill]).ok();
    let archive = d.path("archive").display().to_string();
    let _ = gantryd(&d, &format!("gantryd volume export vol @ > {archive}")).ok();
    let mut refused = String::new();
    for n in 0..4 {
        refused = gantryd(&d, &format!("gantryd volume snapshot vol s{n} @")).stderr;
    }
    assert!(refused.contains("no space left on device"), "{refused}");
    let clone = gantryd(&d, "gantryd volume clone s0 wvol @");
    let import = gantryd(&d, &format!("gantryd volume import wvol @ < {archive}"));
    for failed in [clone, import] {
        assert!(failed.code != 0 && failed.stderr.contains("no space left on device"), "{failed:?}");
    }
    assert!(!d.data_root().join("volumes/.staging").exists());
    assert_eq!(d.docker(&["volume", "ls", "-q"]).text(), "vol");
    for line in gantryd(&d, "gantryd volume snapshot ls @").text().lines().skip(1) {
        let name = line.split(' ').next().unwrap();
        assert_eq!(
            told(&d, &d.data_root().join("volumes/.snapshots").join(name).join("_data")),
            told(&d, &volume_of(&d, "vol"))
        );
        let _ = gantryd(&d, &format!("gantryd volume snapshot rm {name} @")).ok();
    }
    assert_eq!(gantryd(&d, &format!("gantryd volume import wvol @ < {archive}")).text(), "wvol");
    d.finish();
}

/// A container that writes two files in turn is caught between two writes at most, and goes on.
#[test]
fn frozen_containers_write_nothing_meanwhile() {
    let d = with_busybox();
    let script = "mkdir /v/d; i=0; while :; do i=$((i+1)); echo $i > /v/a; echo $i > /v/z; done";
    let _ = d.docker(&["run", "-d", "--name", "c", "-v", "vol:/v", "busybox", "sh", "-c", script]).ok();
    let _ = d.docker(&["run", "-d", "--name", "p", "-v", "vol:/v", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["pause", "p"]).ok();
    assert!(eventually(|| volume_of(&d, "vol").join("z").exists()));
    let number = |dir: &std::path::Path, name: &str| -> i64 {
        std::fs::read_to_string(dir.join(name)).unwrap().trim().parse().unwrap_or(-1)
    };
    for n in 0..10 {
        assert_eq!(gantryd(&d, &format!("gantryd volume snapshot --freeze vol s{n} @")).text(), format!("s{n}"));
        let dir = d.data_root().join(format!("volumes/.snapshots/s{n}/_data"));
        let (a, z) = (number(&dir, "a"), number(&dir, "z"));
        // An empty file is one that was just opened.
        assert!(a == -1 || z == -1 || a - z == 0 || a - z == 1, "{a} {z}");
    }
    let at = number(&volume_of(&d, "vol"), "z");
    assert!(eventually(|| number(&volume_of(&d, "vol"), "z") > at));
    assert_eq!(d.inspect("c", "{{.State.Status}}"), "running");
    assert_eq!(d.inspect("p", "{{.State.Status}}"), "paused");
    d.finish();
}

/// Whenever a daemon dies over a copy, the containers that stand still for it go on without another daemon.
#[test]
fn frozen_containers_go_on_without_their_daemon() {
    let mut d = with_busybox();
    let script = "cd /v; seq 4000 | xargs touch; i=0; while :; do i=$((i+1)); echo $i > n; done";
    let _ = d.docker(&["run", "-d", "--name", "c", "-v", "vol:/v", "busybox", "sh", "-c", script]).ok();
    let counter = volume_of(&d, "vol").join("n");
    let number = || std::fs::read_to_string(&counter).ok().and_then(|text| text.trim().parse::<i64>().ok());
    assert!(eventually(|| number().is_some()));
    let mut caught = 0;
    for n in 0..testkit::soak::rounds(3, 30) {
        let asked = format!("(gantryd volume snapshot --freeze vol s{n} @ >/dev/null 2>&1 &)");
        let _ = gantryd(&d, &asked).ok();
        let snapshot = d.data_root().join(format!("volumes/.snapshots/s{n}"));
        let stands = || d.inspect("c", "{{.State.Paused}}") == "true";
        assert!(eventually(|| snapshot.exists() || stands()));
        d.kill9();
        caught += usize::from(!snapshot.exists());
        let at = number().unwrap_or(0);
        assert!(eventually(|| number().is_some_and(|now| now > at)), "it stands still; {caught} were caught");
        d.again();
        assert_eq!(d.inspect("c", "{{.State.Status}}"), "running");
    }
    d.remove_containers();
    for line in gantryd(&d, "gantryd volume snapshot ls @").text().lines().skip(1) {
        let name = line.split(' ').next().unwrap();
        let _ = gantryd(&d, &format!("gantryd volume snapshot rm {name} @")).ok();
    }
    let _ = d.docker(&["volume", "rm", "vol"]).ok();
    d.finish();
}

/// A daemon that hangs over a copy holds nobody up for long, and the copy is none.
#[test]
fn frozen_containers_go_on_while_their_daemon_hangs() {
    let d = with_busybox();
    let script = "cd /v; seq 4000 | xargs touch; i=0; while :; do i=$((i+1)); echo $i > n; done";
    let _ = d.docker(&["run", "-d", "--name", "c", "-v", "vol:/v", "busybox", "sh", "-c", script]).ok();
    let counter = volume_of(&d, "vol").join("n");
    let number = || std::fs::read_to_string(&counter).ok().and_then(|text| text.trim().parse::<i64>().ok());
    assert!(eventually(|| number().is_some()));
    let told = d.path("told");
    let is_caught = |n: usize| {
        let asked = format!("(gantryd volume snapshot --freeze vol s{n} @ > {} 2>&1 &)", told.display());
        let _ = gantryd(&d, &asked).ok();
        let snapshot = d.data_root().join(format!("volumes/.snapshots/s{n}"));
        assert!(eventually(|| snapshot.exists() || d.inspect("c", "{{.State.Paused}}") == "true"));
        d.signal(Signal::STOP);
        if snapshot.exists() {
            d.signal(Signal::CONT);
            let _ = gantryd(&d, &format!("gantryd volume snapshot rm s{n} @")).ok();
            return false;
        }
        let at = number().unwrap_or(0);
        let goes_on = eventually(|| number().is_some_and(|now| now > at));
        d.signal(Signal::CONT);
        assert!(goes_on, "it stands still");
        let text = "the daemon was held up for more than 20 s, and the container went on";
        let said = || std::fs::read_to_string(&told).unwrap_or_default();
        assert!(eventually(|| said().contains(text)), "{}", said());
        assert!(!snapshot.exists());
        true
    };
    assert!((0..100).any(is_caught), "no copy took long enough");
    assert!(eventually(|| d.inspect("c", "{{.State.Status}}") == "running"));
    d.remove_containers();
    let _ = d.docker(&["volume", "rm", "vol"]).ok();
    d.finish();
}

/// What happened is told.
#[test]
fn events_of_copies() {
    let d = with_busybox();
    let _ = d.docker(&["volume", "create", "vol"]).ok();
    let _ = gantryd(&d, "gantryd volume snapshot vol s1 @ && gantryd volume clone s1 wvol @ && gantryd volume export wvol @ | gantryd volume import x1 @ && gantryd volume snapshot rm s1 @").ok();
    let format = "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.snapshot}}";
    let events = || {
        d.docker(&["events", "--since", "1h", "--until", "0s", "--filter", "type=volume", "--format", format]).text()
    };
    let expected = [
        "create vol <no value>",
        "snapshot vol s1",
        "create wvol <no value>",
        "clone wvol s1",
        "export wvol <no value>",
        "create x1 <no value>",
        "import x1 <no value>",
        "snapshot-remove vol s1",
    ];
    assert!(eventually(|| events().lines().eq(expected)), "{}", events());
    d.finish();
}

/// Snapshots by schedule: taken when they are due, so many kept, others left alone; sizes told of once.
#[test]
fn schedules_and_alarms() {
    let config = r#"{
        "volume-snapshots": {"often": {"volumes": ["vol*"], "every": "1s", "keep": 2}},
        "volume-alarms": {"interval": "1s", "volumes": {"vol": "1k"}}
    }"#;
    let d = Options::new().config(config).start();
    d.busybox();
    let _ = d.docker(&["volume", "create", "vol"]).ok();
    let _ = d.docker(&["volume", "create", "other"]).ok();
    assert_eq!(gantryd(&d, "gantryd volume snapshot vol by-hand @").text(), "by-hand");
    let names = || -> Vec<String> {
        let listed = gantryd(&d, "gantryd volume snapshot ls @").text();
        listed.lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let first = {
        assert!(eventually(|| names().len() == 2));
        names()
    };
    // Two of the schedule and the one by hand; the first of the schedule goes.
    assert!(eventually(|| names().len() == 3 && !names().contains(&first[1])), "{:?} {first:?}", names());
    let now = names();
    assert!(
        now.contains(&"by-hand".to_owned())
            && now.iter().all(|name| name == "by-hand" || name.starts_with("vol-often-")),
        "{now:?}"
    );
    let events = |action: &str| {
        let filter = format!("event={action}");
        d.docker(&[
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "-f",
            &filter,
            "--format",
            "{{.Actor.ID}} {{.Actor.Attributes.limit}}",
        ])
        .text()
    };
    assert_eq!(events("size-alarm"), "");
    let write = |size: &str| {
        let script = format!("head -c {size} /dev/zero > /v/f");
        let _ = d.docker(&["run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", &script]).ok();
    };
    write("5000");
    assert!(eventually(|| events("size-alarm") == "vol 1024"));
    write("100");
    assert!(eventually(|| events("size-alarm-over") == "vol 1024"));
    assert_eq!(events("size-alarm"), "vol 1024");
    d.finish();
}
