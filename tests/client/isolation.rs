//! The default environment of a container as the program inside sees it: namespaces, capabilities, masks, limits.

use rustix::process::Signal;

use crate::{eventually, with_busybox, with_images};

#[test]
fn capabilities_and_seccomp() {
    let d = with_busybox();
    let status = |args: &[&str]| {
        let words =
            [&["run", "--rm"], args, &["busybox", "grep", "-E", "Cap|NoNewPrivs|Seccomp:", "/proc/self/status"]]
                .concat();
        d.docker(&words).text()
    };
    let plain = status(&[]);
    for wanted in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t00000000a80425fb",
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t0",
        "Seccomp:\t2",
    ] {
        assert!(plain.contains(wanted), "{wanted} is not in {plain}");
    }
    assert!(status(&["--cap-drop", "ALL"]).contains("CapEff:\t0000000000000000"));
    assert!(status(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]).contains("CapEff:\t0000000000001000"));
    assert!(status(&["-u", "1000"]).contains("CapEff:\t0000000000000000"));
    assert!(status(&["--security-opt", "no-new-privileges"]).contains("NoNewPrivs:\t1"));
    assert!(status(&["--security-opt", "seccomp=unconfined"]).contains("Seccomp:\t0"));
    let privileged = status(&["--privileged"]);
    let host = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = host.lines().find(|line| line.starts_with("CapBnd")).unwrap();
    assert!(privileged.contains(bounding) && privileged.contains("Seccomp:\t0"), "{privileged}");
    d.docker(&["run", "--rm", "--cap-add", "NOSUCH", "busybox", "true"]).fails(125, "NOSUCH");
    d.finish();
}

#[test]
fn the_seccomp_profile_bites() {
    let d = with_busybox();
    let output = d.docker(&["run", "--rm", "busybox", "unshare", "-U", "true"]);
    assert_ne!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("Operation not permitted"), "{output:?}");
    d.finish();
}

/// The kernel takes an int of socket(2)'s family: what stands above it in the register opens no forbidden family.
#[test]
fn high_bits_open_no_forbidden_family() {
    let d = with_images();
    let try_family = |options: &[&str], family: u64| {
        d.docker(&[&["run", "--rm"], options, &["probe", "socket", &family.to_string()]].concat())
    };
    let (alg, vsock, inet) = (38, 40, 2);
    for high in [0, 1 << 32, 1 << 63, u64::MAX << 32] {
        for family in [alg, vsock] {
            try_family(&[], family | high).fails(1, "Operation not permitted");
        }
        // Any other family is the same with them and without, in the kernel and in the filter.
        for options in [&[][..], &["--security-opt", "seccomp=unconfined"]] {
            let _ = try_family(options, inet | high).ok();
        }
    }
    d.finish();
}

/// The reference's decoder reads names in any capitals; what it cannot read starts nothing.
#[test]
fn a_seccomp_profile_in_other_capitals_bites_too() {
    let d = with_busybox();
    let file = d.path("profile.json");
    let with = |profile: &str, script: &str| {
        std::fs::write(&file, profile).unwrap();
        let option = format!("seccomp={}", file.display());
        d.docker(&["run", "--rm", "--security-opt", &option, "busybox", "sh", "-c", script])
    };
    for (names, syscalls) in [("names", "syscalls"), ("Names", "Syscalls"), ("NAMES", "\u{17f}Y\u{17f}CALLS")] {
        let profile = format!(
            r#"{{"DefaultAction": "SCMP_ACT_ALLOW", "Flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "{syscalls}": [{{"{names}": ["mkdir", "mkdirat"], "ACTION": "SCMP_ACT_ERRNO", "ErrnoRet": 13}}]}}"#
        );
        let output = with(&profile, "grep Seccomp: /proc/self/status; mkdir /x");
        assert!(output.stdout.contains("Seccomp:\t2") && output.stderr.contains("Permission denied"), "{output:?}");
    }
    let runtime = "OCI runtime create failed: runc create failed: ";
    for (profile, text) in [
        ("{}", "Decoding seccomp profile failed: it names no default action".to_owned()),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": 5}"#,
            "Decoding seccomp profile failed: json: cannot unmarshal number into Go struct field Seccomp.syscalls"
                .to_owned(),
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscall": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}"#,
            "Decoding seccomp profile failed: it has no rules, and \"syscall\"".to_owned(),
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_FOO"}"#,
            format!("{runtime}string SCMP_ACT_FOO is not a valid action for seccomp: unknown"),
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_FOO"]}"#,
            format!("{runtime}seccomp flag SECCOMP_FILTER_FLAG_FOO is not known"),
        ),
    ] {
        with(profile, "true").fails(125, &text);
    }
    d.finish();
}

/// A daemon's own profile holds for containers that name none, and is read before the daemon starts.
#[test]
fn the_daemons_seccomp_profile_bites() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("profile.json");
    let profile = r#"{"DEFAULTACTION": "SCMP_ACT_ALLOW", "SYSCALLS": [{"NAMES": ["mkdir", "mkdirat"], "ACTION": "SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&path, profile).unwrap();
    let d = testkit::Options::new().args(&["--seccomp-profile", &path.display().to_string()]).start();
    d.busybox();
    d.docker(&["run", "--rm", "busybox", "mkdir", "/x"]).fails(1, "Operation not permitted");
    let _ = d.docker(&["run", "--rm", "--security-opt", "seccomp=builtin", "busybox", "mkdir", "/x"]).ok();
    d.finish();
}

/// An option that protects and that nothing obeys yet is refused by name; what is harmless is warned about.
#[test]
fn options_of_containers_are_obeyed_refused_or_warned_about() {
    let d = with_busybox();
    for label in ["type:svirt_t", "level:s0:c1,c2", "user:u", "role:r"] {
        let option = format!("label={label}");
        let refusal = format!("the option --security-opt {option} is not supported: if it were ignored, ");
        d.docker(&["run", "--rm", "--security-opt", &option, "busybox", "true"]).fails(125, &refusal);
    }
    let allowed = ["--security-opt", "label=disable", "--userns", "host"];
    let _ = d.docker(&[&["run", "--rm"], &allowed[..], &["busybox", "true"]].concat()).ok();
    let create = |host_config: &str| {
        let body = format!(r#"{{"Image":"busybox","HostConfig":{host_config}}}"#);
        let answer = d.http("POST", "/containers/create", &body);
        (answer.status, answer.text())
    };
    let (status, text) = create(r#"{"UsernsMode":"private"}"#);
    assert!(status == 400 && text.contains("the option HostConfig.UsernsMode is not supported"), "{status} {text}");
    let (status, text) = create(r#"{"StorageOpt":{"size":"1g"}}"#);
    assert!(status >= 400 && text.contains("--storage-opt is supported only"), "{status} {text}");
    let (status, text) = create(r#"{"CpuCount":1,"Cgroup":"container:x"}"#);
    assert!(status == 201 && text.contains("CPU count") && text.contains("Cgroup has no effect"), "{status} {text}");
    d.remove_containers();
    d.finish();
}

/// What setresuid(2) takes for "unchanged", and what other programs take for negative, is nobody's id.
#[test]
fn ids_beyond_the_range_are_refused_from_every_source() {
    let d = with_busybox();
    let lines = "for id in 4294967295 2147483648 4294967296; do \
                     echo u$id:x:$id:0::/:/bin/sh >> /etc/passwd; echo h$id:x:5:$id::/:/bin/sh >> /etc/passwd; \
                     echo g$id:x:$id: >> /etc/group; \
                 done";
    let _ = d.docker(&["run", "--name", "made", "busybox", "sh", "-c", lines]).ok();
    let _ = d.docker(&["commit", "made", "evil"]).ok();
    let _ = d.docker(&["run", "-d", "--name", "up", "evil", "sleep", "1000"]).ok();
    for id in ["4294967295", "2147483648", "4294967296"] {
        let (user, group, home) = (format!("u{id}"), format!("g{id}"), format!("h{id}"));
        for user in [id.to_owned(), user, home, format!("0:{id}"), format!("0:{group}")] {
            for words in [&["run", "--rm", "-u", &user, "evil", "id"][..], &["exec", "-u", &user, "up", "id"]] {
                let output = d.docker(words);
                assert!(output.code != 0 && !output.stdout.contains("uid="), "{words:?}: {output:?}");
            }
        }
        for group in [id, &group] {
            let output = d.docker(&["run", "--rm", "--group-add", group, "evil", "id"]);
            assert!(output.code != 0 && output.stdout.is_empty(), "{output:?}");
        }
    }
    assert_eq!(d.docker(&["run", "--rm", "-u", "2147483647:2147483647", "evil", "id", "-u"]).text(), "2147483647");
    d.remove_containers();
    d.finish();
}

/// A size that the kernel would take modulo 2^64, as no limit at all.
#[test]
fn numbers_of_tmpfs_and_limits_are_refused_beyond_their_range() {
    let d = with_busybox();
    for option in ["size=18446744073709551616", "size=16777216t", "uid=4294967295", "mode=77777777"] {
        let refusal = format!("invalid tmpfs option \"{option}\": value out of range");
        d.docker(&["run", "--rm", "--tmpfs", &format!("/t:{option}"), "busybox", "true"]).fails(125, &refusal);
    }
    for (host_config, why) in [
        (r#"{"Ulimits":[{"Name":"nofile","Soft":-2,"Hard":-2}]}"#, "invalid ulimit nofile=-2:-2"),
        (r#"{"DeviceCgroupRules":["c 4294967296:1 rwm"]}"#, ""),
    ] {
        let body = format!(r#"{{"Image":"busybox","HostConfig":{host_config}}}"#);
        let answer = d.http("POST", "/containers/create?name=x", &body);
        if why.is_empty() {
            d.docker(&["start", "x"]).fails(1, "invalid major value in device cgroup rule format");
        } else {
            assert!(answer.status == 400 && answer.text().contains(why), "{} {}", answer.status, answer.text());
        }
    }
    d.remove_containers();
    d.finish();
}

#[test]
fn namespaces_are_its_own() {
    let d = with_busybox();
    let kinds = ["mnt", "uts", "ipc", "net", "pid"];
    let inside = |args: &[&str], kind: &str| {
        d.docker(&[&["run", "--rm"], args, &["busybox", "readlink", &format!("/proc/self/ns/{kind}")]].concat()).text()
    };
    let outside = |kind: &str| testkit::process::namespace(d.pid(), kind).unwrap();
    for kind in kinds {
        assert_ne!(inside(&[], kind), outside(kind), "{kind}");
    }
    assert_eq!(inside(&["--net", "host"], "net"), outside("net"));
    assert_eq!(inside(&["--pid", "host"], "pid"), outside("pid"));
    assert_eq!(inside(&["--ipc", "host"], "ipc"), outside("ipc"));
    assert_eq!(inside(&["--uts", "host"], "uts"), outside("uts"));
    assert_ne!(inside(&["--cgroupns", "private"], "cgroup"), outside("cgroup"));
    assert_eq!(d.docker(&["run", "--rm", "busybox", "sh", "-c", "echo $$"]).text(), "1");
    let _ = d.docker(&["run", "-d", "--name", "a1", "busybox", "sleep", "1000"]).ok();
    assert!(d.docker(&["run", "--rm", "--pid", "container:a1", "busybox", "ps"]).text().contains("sleep 1000"));
    d.finish();
}

#[test]
fn masked_and_read_only_paths() {
    let d = with_busybox();
    let run = |script: &str| d.docker(&["run", "--rm", "busybox", "sh", "-c", script]);
    assert_eq!(run("cat /proc/kcore 2>/dev/null | wc -c").text(), "0");
    assert_eq!(run("cat /proc/keys /proc/timer_list 2>/dev/null | wc -c").text(), "0");
    assert_eq!(run("ls /sys/firmware | wc -l").text(), "0");
    let paths = ["/proc/sys/kernel/domainname", "/proc/sysrq-trigger", "/sys/kernel/mm/ksm/run"];
    for path in paths.into_iter().filter(|path| std::path::Path::new(path).exists()) {
        let output = run(&format!("echo x > {path}"));
        assert_ne!(output.code, 0, "{path}");
        assert!(output.stderr.contains("Read-only file system") || output.stderr.contains("ermission"), "{output:?}");
    }
    let unmasked =
        ["run", "--rm", "--security-opt", "systempaths=unconfined", "busybox", "sh", "-c", "mount | grep -c kcore"];
    assert_eq!(d.docker(&unmasked).stdout.trim(), "0");
    d.finish();
}

#[test]
fn devices() {
    let d = with_busybox();
    let names = d.docker(&["run", "--rm", "busybox", "ls", "/dev"]).text();
    let usual = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    for name in usual.split(' ') {
        assert!(names.lines().any(|n| n == name), "{name} is not in {names:?}");
    }
    // A link to a file that this kernel may not have.
    assert_eq!(names.contains("core"), std::path::Path::new("/proc/kcore").exists(), "{names}");
    assert_eq!(
        d.docker(&["run", "--rm", "busybox", "sh", "-c", "head -c 4 /dev/zero | wc -c; echo x > /dev/null"]).text(),
        "4"
    );
    let denied = d.docker(&["run", "--rm", "busybox", "sh", "-c", "mknod /tmp/d b 7 0 && cat /tmp/d"]);
    assert!(denied.code != 0 && denied.stderr.contains("not permitted"), "{denied:?}");
    assert_eq!(
        d.docker(&[
            "run",
            "--rm",
            "--device",
            "/dev/zero:/dev/nought",
            "busybox",
            "sh",
            "-c",
            "head -c 3 /dev/nought | wc -c"
        ])
        .text(),
        "3"
    );
    // A privileged container has the host's devices, and others by the names it wants.
    let renamed = ["--privileged", "--device", "/dev/null:/dev/nothing", "--device", "/dev/nosuch"];
    let _ = d.docker(&[&["run", "--rm"], &renamed[..], &["busybox", "test", "-c", "/dev/nothing"]].concat()).ok();
    d.docker(&["run", "--rm", "--device", "/dev/nosuch", "busybox", "true"])
        .fails(127, "error gathering device information");
    d.finish();
}

#[test]
fn only_three_descriptors_reach_the_program() {
    let d = with_images();
    let list = d.docker(&["run", "--rm", "probe", "descriptors"]).ok().stdout;
    let numbers: Vec<&str> = list.lines().map(|line| line.split(' ').next().unwrap()).collect();
    // The fourth is the open directory itself.
    assert_eq!(numbers, ["0", "1", "2", "3"], "{list}");
    let _ = d.docker(&["run", "-d", "--name", "c1", "probe", "sleep", "100"]).ok();
    let list = d.docker(&["exec", "c1", "/probe", "descriptors"]).ok().stdout;
    assert_eq!(list.lines().count(), 4, "{list}");
    d.finish();
}

#[test]
fn limits() {
    let d = with_images();
    let run = |args: &[&str], script: &str| {
        d.docker(&[&["run", "--rm"], args, &["busybox", "sh", "-c", script]].concat()).text()
    };
    assert_eq!(run(&["--ulimit", "nofile=100:200"], "ulimit -Sn; ulimit -Hn"), "100\n200");
    let memory = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
    assert_eq!(run(&["-m", "64m"], memory), "67108864");
    let shares = "cat /sys/fs/cgroup/cpu.max 2>/dev/null || (cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us | tr '\\n' ' ')";
    assert_eq!(run(&["--cpus", "0.5"], shares).trim(), "50000 100000");
    assert_eq!(run(&["--cpuset-cpus", "0"], "grep Cpus_allowed_list /proc/self/status"), "Cpus_allowed_list:\t0");
    let started = d.docker(&["run", "-d", "--pids-limit", "10", "--name", "f1", "probe", "fork", "50"]);
    let _ = started.ok();
    assert!(eventually(|| d.docker(&["logs", "f1"]).stdout.contains(" started")));
    let count: u32 = d.docker(&["logs", "f1"]).stdout.split(' ').next().unwrap().parse().unwrap();
    assert!(count < 10, "{count}");
    assert_eq!(run(&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj"), "500");
    assert_eq!(run(&["--shm-size", "1m"], "df -k /dev/shm | tail -1 | awk '{print $2}'"), "1024");
    d.finish();
}

#[test]
fn sysctls() {
    let d = with_busybox();
    assert_eq!(
        d.docker(&[
            "run",
            "--rm",
            "--sysctl",
            "net.core.somaxconn=321",
            "busybox",
            "cat",
            "/proc/sys/net/core/somaxconn"
        ])
        .text(),
        "321"
    );
    assert_eq!(
        d.docker(&["run", "--rm", "busybox", "cat", "/proc/sys/net/ipv4/ping_group_range"]).text(),
        "0\t2147483647"
    );
    assert_eq!(
        d.docker(&["run", "--rm", "busybox", "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]).text(),
        "0"
    );
    // What the container shares with the host is not its to change.
    d.docker(&["run", "--rm", "--net", "host", "--sysctl", "net.core.somaxconn=321", "busybox", "true"])
        .fails(125, "sysctl \"net.core.somaxconn\" not allowed in host network namespace");
    let body = r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"Sysctls":{"kernel.ctrl-alt-del":"0"}}}"#;
    let _ = d.http("POST", "/containers/create?name=c1", body).expect(201);
    d.docker(&["start", "c1"]).fails(1, "sysctl \"kernel.ctrl-alt-del\" is not in a separate kernel namespace");
    d.finish();
}

/// B-oci-2
#[test]
fn an_ipc_namespace_is_shared_with_its_memory() {
    let d = with_busybox();
    let donor = ["run", "-d", "--name", "c1", "--ipc", "shareable", "--shm-size", "2m", "busybox"];
    let _ = d.docker(&[&donor[..], &["sh", "-c", "echo x > /dev/shm/f; sleep 1000"]].concat()).ok();
    assert!(eventually(|| d.docker(&["exec", "c1", "cat", "/dev/shm/f"]).stdout == "x\n"));
    assert_eq!(d.docker(&["exec", "c1", "df", "-k", "/dev/shm"]).text().split_whitespace().nth(8), Some("2048"));
    let joined = |args: &[&str]| d.docker(&[&["run", "--rm", "--ipc", "container:c1", "busybox"], args].concat());
    assert_eq!(joined(&["cat", "/dev/shm/f"]).text(), "x");
    assert_eq!(joined(&["sh", "-c", "echo y > /dev/shm/g"]).code, 0);
    assert_eq!(d.docker(&["exec", "c1", "cat", "/dev/shm/g"]).text(), "y");
    let _ = d.docker(&["run", "-d", "--name", "c2", "--ipc", "container:c1", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["rm", "-f", "c1"]).ok();
    assert_eq!(d.docker(&["exec", "c2", "cat", "/dev/shm/f"]).text(), "x");
    let _ = d.docker(&["run", "-d", "--name", "c3", "busybox", "sleep", "1000"]).ok();
    d.docker(&["run", "--rm", "--ipc", "container:c3", "busybox", "true"]).fails(125, "non-shareable IPC");
    d.finish();
}

/// Capabilities of an exec by the user of the container, the exec's, privilege of both, and no_new_privs: those of the
/// reference in each case.
#[test]
fn capabilities_of_an_exec_in_every_case() {
    let d = with_busybox();
    let own = std::fs::read_to_string(format!("/proc/{}/status", d.pid())).unwrap();
    let all = own.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap().trim().to_owned();
    let (some, none) = ("00000000a80425fb".to_owned(), "0000000000000000".to_owned());
    let _ = d.docker(&["create", "--name", "c0", "busybox", "true"]).ok();
    let _ = d.docker(&["commit", "--change", "USER 1000", "c0", "of-user"]).ok();
    let show = ["sh", "-c", "id -u; grep -E '^Cap|NoNewPrivs' /proc/self/status | cut -f2"];
    for image in ["busybox", "of-user"] {
        for nnp in [false, true] {
            for privileged in [false, true] {
                let mut options = vec!["run", "-d", "--name", "c1"];
                options.extend(nnp.then_some(["--security-opt", "no-new-privileges"]).into_iter().flatten());
                options.extend(privileged.then_some("--privileged"));
                let _ = d.docker(&[&options[..], &[image, "sleep", "1000"]].concat()).ok();
                for user in ["", "0", "1000", "root"] {
                    for of_exec in [false, true] {
                        let uid = match (user, image) {
                            ("0" | "root", _) | ("", "busybox") => "0",
                            _ => "1000",
                        };
                        let granted = if privileged || of_exec { &all } else { &some };
                        let held = if uid == "0" { granted } else { &none };
                        let flag = if nnp { "1" } else { "0" };
                        let expected = [uid, &none, held, held, granted, &none, flag].join("\n");
                        let mut exec = vec!["exec", "-u", user];
                        exec.extend(of_exec.then_some("--privileged"));
                        let shown = d.docker(&[&exec[..], &["c1"], &show].concat());
                        assert_eq!(shown.text(), expected, "{image} {nnp} {privileged} {user:?} {of_exec}");
                    }
                }
                let _ = d.docker(&["rm", "-f", "c1"]).ok();
            }
        }
    }
    d.remove_containers();
    d.finish();
}

/// No option brings a line of its own into `/etc/hosts`, `/etc/resolv.conf` or `/etc/hostname`.
#[test]
fn names_with_control_characters_are_refused() {
    let d = with_busybox();
    let options: [&[&str]; 6] = [
        &["--hostname", "a\n6.6.6.6 bank"],
        &["--domainname", "a\nb"],
        &["--add-host", "a\nb:1.2.3.4"],
        &["--dns-search", "a\nnameserver 6.6.6.6"],
        &["--dns-option", "ndots:1\nnameserver 6.6.6.6"],
        &["--hostname", "a\rb"],
    ];
    for option in options {
        let body = |field: &str, value: &str| match field {
            "--hostname" => serde_json::json!({"Hostname": value}),
            "--domainname" => serde_json::json!({"Domainname": value}),
            "--add-host" => serde_json::json!({"HostConfig": {"ExtraHosts": [value]}}),
            "--dns-search" => serde_json::json!({"HostConfig": {"DnsSearch": [value]}}),
            _ => serde_json::json!({"HostConfig": {"DnsOptions": [value]}}),
        };
        let mut body = body(option[0], option[1]);
        body["Image"] = "busybox".into();
        let refused = d.http("POST", "/containers/create", &body.to_string()).expect(400);
        assert!(refused.message().contains("it contains a control character"), "{option:?}: {}", refused.message());
    }
    d.finish();
}

/// By the process that its monitor holds, whoever the daemon is; and no other once that has ended.
#[test]
fn what_is_joined_is_the_container_that_was_named() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c1", "--ipc", "shareable", "busybox", "sleep", "1000"]).ok();
    let pid: u32 = d.inspect("c1", "{{.State.Pid}}").parse().unwrap();
    let join = |d: &testkit::Daemon, kind: &str| {
        let option = if kind == "net" { "--network" } else { &format!("--{kind}") };
        let shown = format!("/proc/self/ns/{kind}");
        d.docker(&["run", "--rm", option, "container:c1", "busybox", "readlink", &shown])
    };
    for _ in 0..2 {
        for kind in ["net", "ipc", "pid"] {
            assert_eq!(join(&d, kind).text(), testkit::process::namespace(pid, kind).unwrap(), "{kind}");
        }
        d.crash();
    }
    let monitor = testkit::process::parent(pid).unwrap();
    assert!(testkit::process::signal(monitor, Signal::STOP));
    assert!(testkit::process::signal(pid, Signal::KILL));
    for kind in ["net", "ipc", "pid"] {
        let refused = join(&d, kind);
        assert_eq!(refused.code, 125, "{refused:?}");
        // As it is shown still, or already.
        let texts = ["is not running", "non running container"];
        assert!(texts.iter().any(|text| refused.stderr.contains(text)), "{refused:?}");
    }
    testkit::process::signal(monitor, Signal::CONT);
    d.until("c1", "{{.State.Status}}", "exited");
    d.finish();
}

#[test]
fn a_container_to_join_must_be_there() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "c1", "busybox"]).ok();
    let id = d.inspect("c1", "{{.Id}}");
    let body = |mode: &str, other: &str| {
        format!(r#"{{"Image":"busybox","Cmd":["true"],"HostConfig":{{"{mode}":"container:{other}"}}}}"#)
    };
    for mode in ["PidMode", "IpcMode"] {
        let refused = d.http("POST", "/containers/create", &body(mode, "nosuch")).expect(400).json();
        assert_eq!(refused["message"], "No such container: nosuch", "{mode}");
    }
    let start = |mode: &str, other: &str| {
        let created = d.http("POST", "/containers/create", &body(mode, other)).expect(201).json();
        let answer = d.http("POST", &format!("/containers/{}/start", created["Id"].as_str().unwrap()), "");
        (answer.status, answer.json()["message"].as_str().unwrap().to_string())
    };
    let not_running = format!("container {id} is not running");
    assert_eq!(start("PidMode", "c1"), (500, format!("failed to join PID namespace: {not_running}")));
    assert_eq!(start("IpcMode", "c1"), (409, format!("failed to join IPC namespace: {not_running}")));
    assert_eq!(
        start("NetworkMode", "c1"),
        (409, "cannot join network namespace of a non running container: container c1 is created".into())
    );
    assert_eq!(
        start("NetworkMode", "nosuch"),
        (500, "joining network namespace of container: No such container: nosuch".into())
    );
    d.finish();
}

/// A container of the host's names is still called by its own id.
#[test]
fn hostnames() {
    let d = with_busybox();
    let run = |args: &[&str]| {
        d.docker(&[&["run", "--rm"], args, &["busybox", "sh", "-c", "hostname; echo $HOSTNAME"]].concat()).text()
    };
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let host = lines(run(&["--net", "host"]));
    assert_eq!(host[0], host[1]);
    let uts = lines(run(&["--uts", "host"]));
    assert!(uts[0] == host[0] && uts[1].len() == 12 && uts[1] != uts[0], "{uts:?}");
    d.finish();
}

/// The kernel's limit is the start's to tell of: a container with a longer name can be made, inspected and removed. A domain name
/// is cut.
#[test]
fn hostnames_that_are_too_long() {
    let d = with_busybox();
    let name = |length: usize| "h".repeat(length);
    assert_eq!(d.docker(&["run", "--rm", "--hostname", &name(64), "busybox", "hostname"]).text(), name(64));
    for length in [65, 254, 1000] {
        let _ = d.docker(&["create", "--name", "c", "--hostname", &name(length), "busybox", "true"]).ok();
        assert_eq!(d.inspect("c", "{{.Config.Hostname}}"), name(length));
        let text = "error during container init: sethostname: invalid argument: unknown";
        d.docker(&["start", "c"]).fails(1, text);
        let state = d.inspect("c", "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}");
        assert!(state.starts_with("created 128 ") && state.ends_with(text), "{state}");
        let _ = d.docker(&["rm", "c"]).ok();
    }
    let run = ["run", "--rm", "--domainname", &name(65), "busybox", "cat", "/proc/sys/kernel/domainname"];
    assert_eq!(d.docker(&run).text(), name(64));
    d.finish();
}

/// As with runc: below the daemon's own cgroup, on version 2 beside it.
#[test]
fn a_relative_cgroup_parent_begins_where_the_daemon_is() {
    let d = with_busybox();
    let parent = format!("{}-relative", d.cgroup());
    let args = ["run", "-d", "--cgroup-parent", &format!("../{parent}"), "busybox", "sleep", "1000"];
    let id = d.docker(&args).text();
    let of = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = of(d.inspect(&id, "{{.State.Pid}}").parse().unwrap());
    let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    for (begin, place) in of(d.pid()).lines().zip(own.lines()) {
        let (begin, _) = if unified { begin.rsplit_once('/').unwrap() } else { (begin, "") };
        assert_eq!(place, format!("{}/{parent}/{id}", begin.trim_end_matches('/')));
    }
    assert!(d.docker(&["top", &id, "-o", "pid,comm"]).text().ends_with(" sleep"));
    d.remove_containers();
    for line in own.lines() {
        let (hierarchy, path) = line.split_once(':').unwrap().1.split_once(':').unwrap();
        let top = std::path::Path::new("/sys/fs/cgroup");
        let mount = match hierarchy.trim_start_matches("name=") {
            "" if unified => top.to_owned(),
            "" => top.join("unified"),
            name => top.join(name),
        };
        let place = mount.join(path.trim_start_matches('/'));
        assert!(!place.exists(), "{}", place.display());
        std::fs::remove_dir(place.parent().unwrap()).unwrap();
    }
    d.finish();
}

#[test]
fn its_cgroup_is_below_the_parent_asked_for() {
    let d = with_busybox();
    let id = d.docker(&["run", "-d", "busybox", "sleep", "1000"]).text();
    let pid: u32 = d.inspect(&id, "{{.State.Pid}}").parse().unwrap();
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroups.contains(&format!("/{}/{id}", d.cgroup())), "{cgroups}");
    let roundabout = format!("/nowhere/../{}/./", d.cgroup());
    let id = d.docker(&["run", "-d", "--cgroup-parent", &roundabout, "busybox", "sleep", "1000"]).text();
    let pid: u32 = d.inspect(&id, "{{.State.Pid}}").parse().unwrap();
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroups.contains(&format!("/{}/{id}", d.cgroup())), "{cgroups}");
    d.finish();
}
