//! Start, exit codes, environment, user, terminal, errors.

use std::fs::File;
use std::io::{Read, Write};

use runtime::oci::ConsoleSize;
use runtime::{Runtime, Stage, Stdio, What};

use crate::Case;
use crate::fixture::{Container, kill, wait};

pub const CASES: &[Case] = &[
    ("basics::output_and_exit_code", output_and_exit_code),
    ("basics::input", input),
    ("basics::missing_programs", missing_programs),
    ("basics::not_executable", not_executable),
    ("basics::wrong_format", wrong_format),
    ("basics::environment", environment),
    ("basics::users", users),
    ("basics::unknown_user", unknown_user),
    ("basics::working_directory", working_directory),
    ("basics::null_streams", null_streams),
    ("basics::terminal", terminal),
    ("basics::signals", signals),
    ("basics::namespaces", namespaces),
    ("basics::host_namespaces", host_namespaces),
    ("basics::joins_another_container", joins_another_container),
    ("basics::directory_root", directory_root),
    ("basics::many_layers", many_layers),
    ("basics::many_layers_far_away", many_layers_far_away),
];

fn output_and_exit_code() {
    let outcome = Container::sh("echo out; echo err >&2; exit 42").run();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str(), outcome.code), ("out\n", "err\n", 42));
    assert_eq!(Container::sh("kill -9 $$; sleep 5").run().code, 0, "PID 1 ignores its own KILL; then sleep ends");
}

fn input() {
    let container = Container::new(&["cat"]);
    let (process, mut pipes) = container.start().unwrap();
    pipes.write("data\n");
    assert_eq!(pipes.finish(&process).stdout, "data\n");
}

fn missing_programs() {
    let (error, code) = Container::new(&["/nope"]).refused().to_error(What::Create);
    assert!(error.message().ends_with("exec: \"/nope\": stat /nope: no such file or directory: unknown"), "{error}");
    assert_eq!(code, 127);
    let (error, code) = Container::new(&["nope"]).refused().to_error(What::Create);
    assert!(error.message().ends_with("exec: \"nope\": executable file not found in $PATH: unknown"), "{error}");
    assert_eq!(code, 127);
}

fn not_executable() {
    for (program, text) in [("/etc/passwd", "permission denied: unknown"), ("/etc", "unknown: permission denied")] {
        let (error, code) = Container::new(&[program]).refused().to_error(What::Create);
        assert!(error.message().ends_with(text), "{error}");
        assert_eq!(code, 126);
    }
}

fn wrong_format() {
    let container = Container::new(&["/script"]);
    let path = container.lower().join("script");
    std::fs::write(&path, "garbage\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let outcome = container.run();
    assert_eq!((outcome.stderr.as_str(), outcome.code), ("exec /script: exec format error\n", 255));
}

fn environment() {
    let out = Container::new(&["env"]).output();
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["HOME=/root", "HOSTNAME=box", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    );
}

fn users() {
    assert_eq!(Container::new(&["id"]).output(), "uid=0(root) gid=0(root) groups=0(root),10(wheel)\n");
    let mut web = Container::sh("id; cat /proc/self/status | grep -i cap; echo $HOME; echo x > /dev/stdout");
    web.process().user.username = Some("web".into());
    let out = web.output();
    assert!(out.starts_with("uid=1000(web) gid=1001(web) groups=1001(web),1002(extra)\n"), "{out}");
    assert!(out.contains("CapEff:\t0000000000000000"), "{out}");
    assert!(out.contains("CapBnd:\t00000000a80425fb"), "{out}");
    assert!(out.ends_with("/srv\nx\n"), "{out}");
    let mut numeric = Container::new(&["id"]);
    numeric.process().user.username = Some("4000:5000".into());
    numeric.process().user.groups = vec!["extra".into(), "7".into()];
    assert_eq!(numeric.output(), "uid=4000 gid=5000 groups=7,1002(extra),5000\n");
}

fn unknown_user() {
    let mut container = Container::new(&["true"]);
    container.process().user.username = Some("nouser".into());
    let (error, _) = container.refused().to_error(What::Create);
    assert_eq!(error.message(), "unable to find user nouser: no matching entries in passwd file");
}

fn working_directory() {
    let mut container = Container::new(&["pwd"]);
    container.process().cwd = "/made/on/the/way".into();
    assert_eq!(container.output(), "/made/on/the/way\n");
    let mut file = Container::new(&["pwd"]);
    file.process().cwd = "/etc/passwd".into();
    let error = file.refused();
    assert!(matches!(error.stage, Stage::Cwd { .. }), "{error:?}");
}

fn null_streams() {
    let container = Container::sh("cat; echo lost; readlink /proc/self/fd/1 >&2; test -c /dev/stdout");
    let process = container.launch(Stdio::default()).unwrap();
    assert_eq!(wait(&process), 0);
}

fn terminal() {
    let mut container = Container::sh(
        "tty; stty size; ls -l /dev/console | grep -c '^crw--w----'; read x; echo got $x; tty </dev/console",
    );
    container.process().terminal = true;
    container.process().console_size = Some(ConsoleSize { height: 33, width: 77 });
    let process = container.launch(Stdio::default()).unwrap();
    let mut master = File::from(process.console.as_ref().expect("a console").try_clone().unwrap());
    master.write_all(b"hello\n").unwrap();
    let mut out = Vec::new();
    let mut buffer = [0; 512];
    // The end of a terminal is EIO.
    while let Ok(n @ 1..) = master.read(&mut buffer) {
        out.extend_from_slice(&buffer[..n]);
    }
    let out = String::from_utf8_lossy(&out).replace('\r', "");
    assert_eq!(wait(&process), 0, "{out}");
    for expected in ["/dev/pts/0\n", "33 77\n", "1\n", "got hello\n", "/dev/console\n"] {
        assert!(out.contains(expected), "{expected:?} in {out:?}");
    }
}

fn signals() {
    let container = Container::sh(
        "grep -E 'Sig(Blk|Ign)' /proc/self/status; trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done",
    );
    let (process, pipes) = container.start().unwrap();
    let mut out = String::new();
    while !out.contains("ready") {
        out += &pipes.line();
    }
    assert!(out.contains("SigBlk:\t0000000000000000\n"), "{out}");
    let ignored = out.lines().find_map(|l| l.strip_prefix("SigIgn:\t")).expect("SigIgn");
    // HUP, INT, QUIT, PIPE, TERM; what else the test's own caller ignores is inherited.
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 0x5007, 0, "{out}");
    container.runtime.kill(&container.bundle, &process, 15, runtime::Scope::Process).unwrap();
    assert_eq!(wait(&process), 9);
    let error = container.runtime.kill(&container.bundle, &process, 15, runtime::Scope::Process).unwrap_err();
    assert_eq!(error.kind(), model::Kind::NotFound);
}

fn namespaces() {
    let script = "for n in mnt net uts pid ipc cgroup time; do readlink /proc/self/ns/$n; done; hostname; cat /proc/1/comm; cat /proc/self/cgroup; ls /sys/class/net";
    let out = Container::sh(script).output();
    for kind in ["mnt", "net", "uts", "pid", "ipc", "cgroup", "time"] {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert!(!out.contains(own.to_str().unwrap()), "{kind}");
    }
    assert!(out.contains("\nbox\nsh\n"), "{out}");
    assert!(out.lines().filter(|l| l.contains("::") || l.contains(":cpu")).all(|l| l.ends_with(":/")), "{out}");
    assert!(out.ends_with("\nlo\n"), "{out}");
}

fn host_namespaces() {
    use runtime::oci::NamespaceKind as K;
    let mut container = Container::sh("for n in net uts pid ipc cgroup; do readlink /proc/self/ns/$n; done; echo $$");
    for kind in [K::Network, K::Uts, K::Pid, K::Ipc, K::Cgroup] {
        container.drop_namespace(kind);
    }
    container.bundle.spec.hostname.clear();
    let out = container.output();
    for kind in ["net", "uts", "pid", "ipc", "cgroup"] {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert!(out.contains(own.to_str().unwrap()), "{kind}");
    }
    assert_ne!(out.lines().last(), Some("1"));
}

fn joins_another_container() {
    use runtime::oci::NamespaceKind as K;
    let first = Container::sh("echo up; sleep 100");
    let (init, pipes) = first.start().unwrap();
    pipes.line();
    let mut second = Container::sh("for n in net pid ipc; do readlink /proc/self/ns/$n; done; echo $$");
    second.bundle.id = "b".repeat(64);
    second.linux().cgroups_path += "-second";
    for namespace in &mut second.bundle.spec.linux.namespaces {
        let name = match namespace.kind {
            K::Network => "net",
            K::Pid => "pid",
            K::Ipc => "ipc",
            _ => continue,
        };
        namespace.path = Some(format!("/proc/{}/ns/{name}", init.pid));
    }
    let theirs: Vec<String> = ["net", "pid", "ipc"]
        .map(|n| std::fs::read_link(format!("/proc/{}/ns/{n}", init.pid)).unwrap().display().to_string())
        .to_vec();
    let out = second.output();
    assert_eq!(out.lines().take(3).collect::<Vec<_>>(), theirs);
    assert_ne!(out.lines().last(), Some("1"));
    kill(&init);
}

fn directory_root() {
    let mut container = Container::sh("echo x > /file; cat /file");
    container.bundle.rootfs = runtime::Rootfs::Dir(container.lower());
    assert_eq!(container.output(), "x\n");
    assert!(container.lower().join("file").exists());
}

fn many_layers() {
    stacked(120, 200);
}

/// Paths that are too long to be given to the kernel one by one.
fn many_layers_far_away() {
    stacked(400, 250);
}

/// A root of `count` layers, in directories whose names have `length` bytes.
fn stacked(count: usize, length: usize) {
    let mut container = Container::sh("cat /layer-*/n | wc -l");
    let mut layers = Vec::new();
    for n in 0..count {
        let layer = container.dir.path().join(format!("{n:0>length$}"));
        std::fs::create_dir_all(layer.join(format!("layer-{n}"))).unwrap();
        std::fs::write(layer.join(format!("layer-{n}/n")), "1\n").unwrap();
        layers.push(layer);
    }
    layers.push(container.lower());
    let runtime::Rootfs::Overlay { lower, .. } = &mut container.bundle.rootfs else { unreachable!() };
    *lower = layers;
    assert_eq!(container.output(), format!("{count}\n"));
}
