//! Known ways out of a container, one regression test each. Every one starts from content that an attacker controls.

use std::os::unix::fs::symlink;

use serde_json::json;
use testkit::images::{Tar, busybox_tar, docker_archive, sha256};
use testkit::{Daemon, places};

use crate::with_busybox;

fn with_image(layer: Tar) -> Daemon {
    let d = Daemon::start();
    let env = "PATH=/bin:/usr/bin";
    d.load(&docker_archive("evil:latest", &[busybox_tar(), layer.bytes()], &json!({"Cmd": ["sh"], "Env": [env]})));
    d
}

/// CVE-2019-5736: the engine's own program must not be writable through `/proc/<pid>/exe`.
#[test]
fn the_daemons_program_cannot_be_overwritten() {
    let d = with_image(Tar::new().symlink("evil", "/proc/self/exe"));
    let before = sha256(&std::fs::read(places::gantryd()).unwrap());
    let write = "for p in /proc/[0-9]*; do (echo overwritten > $p/exe) 2>/dev/null; done";
    let _ = d.docker(&["run", "-d", "--name", "c1", "evil", "sh", "-c", &format!("while true; do {write}; done")]).ok();
    for _ in 0..20 {
        let _ = d.docker(&["exec", "c1", "/bin/true"]);
        let _ = d.docker(&["exec", "c1", "/evil"]);
    }
    let _ = d.docker(&["run", "--rm", "evil", "/evil"]);
    let _ = d.docker(&["run", "--rm", "--entrypoint", "/proc/self/exe", "evil"]);
    assert_eq!(sha256(&std::fs::read(places::gantryd()).unwrap()), before);
    assert_eq!(d.http("GET", "/_ping", "").status, 200);
    d.finish();
}

/// CVE-2024-21626: a working directory that names a leaked descriptor must not lead to the host.
#[test]
fn a_leaked_descriptor_is_no_working_directory() {
    let d = with_busybox();
    for n in 3..30 {
        let dir = format!("/proc/self/fd/{n}");
        let output = d.docker(&[
            "run",
            "--rm",
            "-w",
            &dir,
            "busybox",
            "sh",
            "-c",
            "cat ../../../../../../../../../../proc/1/cmdline; ls /proc/self/cwd/../../../../../..",
        ]);
        assert!(output.code != 0 || !output.stdout.contains("gantryd"), "{n}: {output:?}");
        assert_ne!(output.code, 0, "{n}: {output:?}");
    }
    let _ = d.docker(&["run", "-d", "--name", "c1", "busybox", "sleep", "100"]).ok();
    for n in 3..15 {
        // A descriptor of the container's own root is no way out.
        let script = "[ $(stat -c %d:%i .) = $(stat -c %d:%i /) ]";
        let dir = format!("/proc/self/fd/{n}");
        let output = d.docker(&["exec", "-w", &dir, "c1", "sh", "-c", &format!("{script} || echo out")]);
        assert!(output.code != 0 || output.stdout.is_empty(), "{n}: {output:?}");
    }
    d.finish();
}

/// CVE-2025-31133: a `/dev/null` that is a link must not become the mask, or the mask's target be unmasked.
#[test]
fn a_false_dev_null_masks_nothing_else() {
    let d = with_busybox();
    let dev = tempfile::tempdir().unwrap();
    symlink("/proc/sys/kernel/core_pattern", dev.path().join("null")).unwrap();
    let before = std::fs::read("/proc/sys/kernel/core_pattern").unwrap();
    let bind = format!("{}:/dev", dev.path().display());
    let script = "echo evil > /proc/keys; cat /proc/keys | wc -c; mount | grep -c core_pattern";
    let output = d.docker(&["run", "--rm", "-v", &bind, "busybox", "sh", "-c", script]);
    assert_eq!(std::fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
    if output.code != 125 {
        assert!(output.stdout.starts_with("0\n0"), "{output:?}");
    }
    d.finish();
}

/// CVE-2025-52565: a `/dev/console` or `/dev/pts/N` that is a link must not be mounted over its target.
#[test]
fn a_false_console_is_mounted_nowhere_else() {
    let d = with_busybox();
    let dev = tempfile::tempdir().unwrap();
    symlink("/proc/sys/kernel/core_pattern", dev.path().join("console")).unwrap();
    let before = std::fs::read("/proc/sys/kernel/core_pattern").unwrap();
    let bind = format!("{}:/dev", dev.path().display());
    let mut terminal = d.pty(&[
        "run",
        "-it",
        "--rm",
        "-v",
        &bind,
        "busybox",
        "sh",
        "-c",
        "echo evil > /proc/sys/kernel/core_pattern; mount | grep core_pattern; echo done-$?",
    ]);
    let _ = terminal.end();
    let screen = terminal.screen();
    assert!(!screen.contains("done-0"), "{screen}");
    assert_eq!(std::fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
    d.finish();
}

/// CVE-2025-52881 and its kin: `/proc` and `/sys` of the image may be links or files; writes for labels and sysctls go to
/// the real procfs or nowhere.
#[test]
fn a_false_proc_is_refused() {
    for (path, target) in [("proc", "/tmp"), ("sys", "/tmp"), ("dev", "/tmp")] {
        let layer = Tar::new().file(&format!(".wh.{path}"), 0, b"").bytes();
        let link = Tar::new().symlink(path, target).bytes();
        let d = Daemon::start();
        d.load(&docker_archive(
            "evil:latest",
            &[busybox_tar(), layer, link],
            &json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]}),
        ));
        let args = [
            "run",
            "--rm",
            "--sysctl",
            "net.core.somaxconn=77",
            "evil",
            "sh",
            "-c",
            "mount | grep ' /tmp ' | grep -E 'proc|sysfs|devtmpfs'; ls /tmp/sys/net 2>/dev/null; echo fine",
        ];
        let output = d.docker(&args);
        let refused = matches!(output.code, 125..=128);
        assert!(refused || output.stdout == "fine\n", "{path}: {output:?}");
        d.finish();
    }
}

/// Mount targets and working directories go through links of the image without leaving it.
#[test]
fn links_in_the_image_stay_inside() {
    let outside = tempfile::tempdir().unwrap();
    let up = format!("../../../../../../../../..{}", outside.path().display());
    let d = with_image(Tar::new().symlink("way-out", &up).symlink("absolute", &outside.path().display().to_string()));
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("f"), "content").unwrap();
    for target in ["/way-out/made", "/absolute/made"] {
        let bind = format!("{}:{target}", source.path().display());
        let output = d.docker(&["run", "--rm", "-v", &bind, "evil", "cat", &format!("{target}/f")]);
        assert!(output.code != 0 || output.stdout == "content", "{output:?}");
    }
    let _ = d.docker(&["run", "--rm", "-w", "/way-out/dir", "evil", "true"]);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "something was made outside");
    d.finish();
}

/// Archive entries that climb or go through links end inside the layer.
#[test]
fn layers_cannot_write_outside() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().display().to_string();
    let d = Daemon::start();
    let layer = Tar::new().symlink("link", &target).file("link/escaped", 0o644, b"x");
    let archive = docker_archive("evil:latest", &[busybox_tar(), layer.bytes()], &json!({"Cmd": ["sh"]}));
    let _ = d.docker_input(&["load"], &archive);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "something was made outside");
    d.finish();
}

/// A program in the container never runs outside: nothing of its file system is loaded by the engine.
#[test]
fn nothing_of_the_image_runs_on_the_host() {
    let d = with_image(Tar::new().file("etc/ld.so.preload", 0o644, b"/evil.so\n").file(
        "lib/libnss_files.so.2",
        0o755,
        b"garbage",
    ));
    assert_eq!(d.docker(&["run", "--rm", "-u", "daemon", "evil", "id", "-un"]).text(), "daemon");
    d.finish();
}

/// A part of a volume is named in which another container has put links: none leads to the host.
#[test]
fn links_in_a_volume_stay_in_it() {
    let d = with_busybox();
    let script = "mkdir /v/real && echo inside > /v/real/f && ln -s real /v/beside && ln -s /etc /v/absolute && \
                  ln -s ../../../../../../../../../../etc /v/up";
    let _ = d.docker(&["run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", script]).ok();
    let shown = |subpath: &str| {
        let mount = format!("type=volume,src=vol,dst=/part,volume-subpath={subpath}");
        d.docker(&["run", "--rm", "--mount", &mount, "busybox", "ls", "/part"])
    };
    assert_eq!(shown("beside").text(), "f");
    for subpath in ["absolute", "up"] {
        let refused = shown(subpath);
        assert_eq!((refused.code, refused.stdout.as_str()), (125, ""), "{refused:?}");
        assert!(refused.stderr.contains("path concatenation escapes the base directory"), "{refused:?}");
    }
    let missing = shown("missing");
    assert!(missing.stderr.contains("cannot access path"), "{missing:?}");
    d.finish();
}

/// The part of a volume that is shown is swapped for a link to the host thousands of times, while containers start.
#[test]
fn a_part_that_is_swapped_for_a_link_leads_nowhere() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use std::sync::atomic::{AtomicU64, Ordering};
    let d = with_busybox();
    let outside = tempfile::tempdir().unwrap();
    let _ = d.docker(&["volume", "create", "vol"]).ok();
    let data = d.data_root().join("volumes/vol/_data");
    std::fs::create_dir_all(data.join("part/deep")).unwrap();
    std::fs::write(data.join("part/deep/f"), "inside").unwrap();
    std::os::unix::fs::symlink(outside.path(), data.join("link")).unwrap();
    std::fs::create_dir(outside.path().join("deep")).unwrap();
    std::fs::write(outside.path().join("deep/f"), "outside").unwrap();
    let mount = "type=volume,src=vol,dst=/part,volume-subpath=part/deep";
    let _ = d.docker(&["create", "--name", "c", "--mount", mount, "busybox", "cat", "/part/f"]).ok();
    let (rounds, swaps) = (testkit::soak::rounds(40, 3000), AtomicU64::new(0));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, data.join("part"), CWD, data.join("link"), RenameFlags::EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut round = 0;
        while round < rounds || swaps.load(Ordering::Relaxed) < 10_000 {
            let started = d.docker(&["start", "-a", "c"]);
            assert!(!started.stdout.contains("outside"), "round {round}: {started:?}");
            assert!(started.stdout == "inside" || started.code != 0, "round {round}: {started:?}");
            round += 1;
        }
        done.store(true, Ordering::Relaxed);
        swapping.join().unwrap();
    });
    d.finish();
}
