//! One golden file per option: `spec/default.json` is the whole specification of a plain container, every other file the
//! lines that one option changes in it.
#![forbid(unsafe_code)]

use runtime::oci;
use runtime::seccomp::{Arch, Profile};
use runtime::spec::*;

mod compare;

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn device(path: &str, major: i64, minor: i64) -> oci::Device {
    let (file_mode, uid, gid) = (Some(0o660), Some(0), Some(6));
    oci::Device { path: path.into(), kind: "b".into(), major, minor, file_mode, uid, gid }
}

fn host() -> HostFeatures {
    HostFeatures {
        arch: Arch::X86_64,
        kernel: (6, 1),
        time_namespaces: true,
        recursive_readonly: true,
        thermal_throttle: strings(&["/sys/devices/system/cpu/cpu0/thermal_throttle"]),
        ping_group_range: true,
        unprivileged_port_start: true,
        in_user_namespace: false,
        devices: vec![device("/dev/sda", 8, 0), device("/dev/sda1", 8, 1)],
    }
}

/// `docker run busybox sh`.
fn container() -> ContainerSpec {
    const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP \
                                NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE";
    let dir = "/var/lib/gantry/containers/0123";
    let file = |name: &str| FileMount { source: format!("{dir}/{name}"), target: format!("/etc/{name}") };
    ContainerSpec {
        process: ProcessSpec { args: strings(&["sh"]), ..Default::default() },
        hostname: "0123456789ab".into(),
        mounts: Mounts { files: vec![file("resolv.conf"), file("hostname"), file("hosts")], ..Default::default() },
        security: Security {
            capabilities: CAPABILITIES.split_whitespace().map(|c| format!("CAP_{c}")).collect(),
            ..Default::default()
        },
        cgroups_path: "/docker/0123".into(),
        ..Default::default()
    }
}

fn bind(source: &str, target: &str, change: impl FnOnce(&mut Bind)) -> Mount {
    let mut bind = Bind { source: source.into(), propagation: Some(Propagation::RPrivate), ..Default::default() };
    change(&mut bind);
    Mount { target: target.into(), kind: MountKind::Bind(bind) }
}

fn tmpfs(target: &str, options: &str) -> Mount {
    Mount {
        target: target.into(),
        kind: MountKind::Tmpfs { options: TmpfsOptions::parse(options).expect("valid options") },
    }
}

fn on(point: &str, shared: bool, slave: bool) -> Option<SourceMount> {
    Some(SourceMount { point: point.into(), shared, slave })
}

fn throttle(rate: u64) -> Vec<oci::ThrottleDevice> {
    vec![oci::ThrottleDevice { major: 8, minor: 0, rate }]
}

/// Sets one option.
type Change<'a> = &'a dyn Fn(&mut ContainerSpec, &mut HostFeatures);

/// Compares every case before it fails. The long seccomp section is only shown where it is what matters.
fn cases(list: &[(&str, Change<'_>)]) {
    let whole = json(&container(), &host());
    let mut failed = Vec::new();
    for (name, change) in list {
        let (mut container, mut host) = (container(), host());
        change(&mut container, &mut host);
        let (mut before, mut after) = (whole.clone(), json(&container, &host));
        if !name.starts_with("seccomp-") {
            for spec in [&mut before, &mut after] {
                if let Some(seccomp) = spec["linux"].get_mut("seccomp") {
                    let same = *seccomp == whole["linux"]["seccomp"];
                    *seccomp = if same { "as always" } else { "of these capabilities" }.into();
                }
            }
        }
        let (plain, text) = (compare::pretty(&before), compare::pretty(&after));
        failed.extend(compare::check(&format!("{name}.diff"), &compare::difference(&plain, &text)).err());
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn json(container: &ContainerSpec, host: &HostFeatures) -> serde_json::Value {
    let spec = build(container, host).expect("the case is a valid container");
    serde_json::from_slice(&spec.to_json()).expect("the specification is JSON")
}

#[test]
fn default() {
    compare::check("default.json", &compare::pretty(&json(&container(), &host()))).unwrap();
}

#[test]
fn process() {
    cases(&[
        ("cwd", &|c, _| c.process.cwd = "/srv".into()),
        ("env", &|c, _| c.process.env = strings(&["PATH=/bin", "A=1"])),
        ("tty", &|c, _| c.process.terminal = true),
        ("tty-console-size", &|c, _| {
            c.process.terminal = true;
            c.process.console_size = Some(oci::ConsoleSize { height: 24, width: 80 });
        }),
        ("console-size-without-tty", &|c, _| {
            c.process.console_size = Some(oci::ConsoleSize { height: 24, width: 80 });
        }),
        ("user", &|c, _| c.process.user = "www-data:adm".into()),
        ("group-add", &|c, _| c.process.groups = strings(&["audio", "777"])),
        ("ulimit", &|c, _| {
            let limit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
            c.process.ulimits = vec![limit("nofile", 1024, 2048), limit("memlock", -1, -1)];
        }),
        ("oom-score-adj", &|c, _| c.process.oom_score_adj = -500),
        ("init", &|c, _| c.process.init = Some("/usr/bin/gantryd".into())),
        ("init-pid-host", &|c, _| {
            c.process.init = Some("/usr/bin/gantryd".into());
            c.namespaces.pid = Share::Host;
        }),
        ("annotations", &|c, _| drop(c.annotations.insert("com.example.key".into(), "value".into()))),
    ]);
}

#[test]
fn namespaces() {
    cases(&[
        ("network-host", &|c, _| c.namespaces.network = Share::Host),
        ("network-container", &|c, _| c.namespaces.network = Share::Join),
        ("pid-host", &|c, _| c.namespaces.pid = Share::Host),
        ("pid-container", &|c, _| c.namespaces.pid = Share::Join),
        ("uts-host", &|c, _| c.namespaces.uts = Share::Host),
        ("cgroupns-host", &|c, _| c.namespaces.cgroup = Share::Host),
        ("ipc-host", &|c, _| {
            c.namespaces.ipc = Share::Host;
            c.mounts.shm = Shm::Bind("/dev/shm".into());
        }),
        ("ipc-container", &|c, _| {
            c.namespaces.ipc = Share::Join;
            c.mounts.shm = Shm::Join;
        }),
        ("ipc-none", &|c, _| c.mounts.shm = Shm::None),
        ("userns-remap", &|c, _| {
            let map = || vec![oci::IdMapping { container_id: 0, host_id: 100_000, size: 65_536 }];
            c.namespaces.user = Some(UserMap { uids: map(), gids: map() });
        }),
        ("userns-remap-network-container", &|c, _| {
            c.namespaces.user = Some(UserMap::default());
            c.namespaces.network = Share::Join;
        }),
        ("old-kernel", &|_, h| {
            h.time_namespaces = false;
            h.ping_group_range = false;
            h.unprivileged_port_start = false;
            h.thermal_throttle.clear();
        }),
        ("domainname", &|c, _| c.domainname = "example.com".into()),
        ("sysctl", &|c, _| {
            c.domainname = "example.com".into();
            let given = [("kernel.domainname", "other"), ("net.core.somaxconn", "512")];
            c.sysctls = given.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        }),
    ]);
}

#[test]
fn mounts() {
    cases(&[
        ("shm-size", &|c, _| c.mounts.shm = Shm::Private { size: 1 << 30 }),
        ("bind", &|c, _| c.mounts.user.push(bind("/srv/data", "/data", |_| ()))),
        ("bind-ro", &|c, _| c.mounts.user.push(bind("/srv/data", "/data", |b| b.access = Access::ReadOnly))),
        ("bind-ro-old-kernel", &|c, h| {
            h.recursive_readonly = false;
            c.mounts.user.push(bind("/srv/data", "/data", |b| b.access = Access::ReadOnly));
        }),
        ("bind-ro-top", &|c, _| c.mounts.user.push(bind("/srv", "/data", |b| b.access = Access::ReadOnlyTop))),
        ("bind-ro-forced", &|c, _| {
            c.mounts.user.push(bind("/srv", "/data", |b| b.access = Access::ReadOnlyForced));
        }),
        ("bind-nonrecursive", &|c, _| c.mounts.user.push(bind("/srv", "/data", |b| b.recursion = Recursion::Top))),
        ("bind-rshared", &|c, _| {
            c.mounts.user.push(bind("/srv", "/data", |b| {
                b.propagation = Some(Propagation::RShared);
                b.source_mount = on("/", true, false);
            }));
        }),
        ("bind-slave", &|c, _| {
            c.mounts.user.push(bind("/srv", "/data", |b| {
                b.propagation = Some(Propagation::Slave);
                b.source_mount = on("/", false, true);
            }));
        }),
        ("bind-slave-and-shared", &|c, _| {
            for propagation in [Propagation::Shared, Propagation::RSlave] {
                c.mounts.user.push(bind("/srv", &format!("/{}", propagation.as_str()), |b| {
                    b.propagation = Some(propagation);
                    b.source_mount = on("/", true, false);
                }));
            }
        }),
        ("bind-data-root", &|c, _| {
            c.mounts.user.push(bind("/var/lib/gantry", "/data", |b| {
                b.propagation = Some(Propagation::RSlave);
                b.propagation_optional = true;
                b.source_mount = on("/", false, false);
            }));
        }),
        ("volume", &|c, _| {
            c.mounts.user.push(bind("/var/lib/gantry/volumes/v/_data", "/data", |b| b.propagation = None));
        }),
        ("mounts-sorted", &|c, _| {
            let targets = ["/a/b/c", "/z", "/a/b", "/a"];
            c.mounts.user.extend(targets.map(|target| bind("/srv", target, |_| ())));
        }),
        ("bind-over-defaults", &|c, _| {
            c.mounts.user.extend(["/etc/hosts", "/proc"].map(|target| bind("/srv", target, |_| ())));
        }),
        ("bind-dev", &|c, _| c.mounts.user.push(bind("/dev", "/dev", |_| ()))),
        ("tmpfs", &|c, _| c.mounts.user.push(tmpfs("/run", ""))),
        ("tmpfs-options", &|c, _| c.mounts.user.push(tmpfs("/run", "rw,exec,size=64m,mode=1770"))),
        ("tmpfs-shm", &|c, _| c.mounts.user.push(tmpfs("/dev/shm", "size=1g"))),
    ]);
}

#[test]
fn security() {
    cases(&[
        ("read-only", &|c, _| {
            c.readonly_rootfs = true;
            c.mounts.user.push(bind("/srv", "/data", |_| ()));
        }),
        ("privileged", &|c, _| {
            c.security.privileged = true;
            c.security.capabilities = strings(&["CAP_ALL_OF_THEM"]);
        }),
        ("privileged-read-only-masked", &|c, _| {
            c.security.privileged = true;
            c.readonly_rootfs = true;
            c.security.masked_paths = Some(strings(&["/proc/kcore"]));
            c.security.writable_cgroups = Some(false);
        }),
        ("capabilities", &|c, _| c.security.capabilities = strings(&["CAP_NET_ADMIN"])),
        ("no-new-privileges", &|c, _| c.security.no_new_privileges = true),
        ("writable-cgroups", &|c, _| c.security.writable_cgroups = Some(true)),
        ("systempaths-unconfined", &|c, _| {
            c.security.masked_paths = Some(vec![]);
            c.security.readonly_paths = Some(vec![]);
        }),
        ("apparmor", &|c, _| c.security.apparmor_profile = Some("docker-default".into())),
        ("selinux", &|c, _| {
            c.security.process_label = "system_u:system_r:container_t:s0:c1,c2".into();
            c.security.mount_label = "system_u:object_r:container_file_t:s0:c1,c2".into();
        }),
        ("unconfined", &|c, _| c.security.seccomp = SeccompChoice::Unconfined),
        ("seccomp-profile-privileged", &|c, _| {
            let text = r#"{"defaultAction":"SCMP_ACT_ALLOW",
                "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
                "syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO","errnoRet":13,
                "args":[{"index":1,"value":511,"op":"SCMP_CMP_EQ"}],"excludes":{"caps":["CAP_SYS_ADMIN"]}}]}"#;
            c.security.privileged = true;
            c.security.seccomp = SeccompChoice::Profile(Box::new(Profile::parse(text.as_bytes()).unwrap()));
        }),
        ("seccomp-sys-admin", &|c, _| c.security.capabilities.push("CAP_SYS_ADMIN".into())),
        ("device", &|c, _| {
            c.devices.nodes.push(DeviceNode {
                device: device("/dev/disk", 8, 16),
                host_path: "/dev/sdb".into(),
                access: "rm".into(),
            });
        }),
        ("device-privileged", &|c, _| {
            c.security.privileged = true;
            for (host_path, path) in [("/dev/sda", "/dev/sda"), ("/dev/sda", "/dev/disk")] {
                let (host_path, access) = (host_path.into(), "r".into());
                c.devices.nodes.push(DeviceNode { device: device(path, 8, 0), host_path, access });
            }
        }),
        ("device-cgroup-rule", &|c, _| c.devices.cgroup_rules = strings(&["c 42:* rmw", "a *:* r"])),
    ]);
}

#[test]
fn resources() {
    cases(&[
        ("memory", &|c, _| {
            c.resources.memory = 64 << 20;
            c.resources.memory_swap = 128 << 20;
        }),
        ("memory-swap-unlimited", &|c, _| {
            c.resources.memory = 64 << 20;
            c.resources.memory_swap = -1;
        }),
        ("memory-reservation", &|c, _| c.resources.memory_reservation = 32 << 20),
        ("memory-swappiness", &|c, _| c.resources.memory_swappiness = Some(0)),
        ("oom-kill-disable", &|c, _| c.resources.oom_kill_disable = Some(true)),
        ("cpus", &|c, _| c.resources.cpu.nano_cpus = 1_500_000_000),
        ("cpu-shares", &|c, _| c.resources.cpu.shares = 512),
        ("cpu-quota", &|c, _| {
            c.resources.cpu.period = 50_000;
            c.resources.cpu.quota = 25_000;
        }),
        ("cpu-realtime", &|c, _| {
            c.resources.cpu.realtime_period = 1_000_000;
            c.resources.cpu.realtime_runtime = 950_000;
        }),
        ("cpuset", &|c, _| {
            c.resources.cpu.cpus = "0-1".into();
            c.resources.cpu.mems = "0".into();
        }),
        ("pids-limit", &|c, _| c.resources.pids_limit = Some(100)),
        ("pids-unlimited", &|c, _| c.resources.pids_limit = Some(0)),
        ("blkio", &|c, _| {
            c.resources.block_io = BlockIo {
                weight: 300,
                weight_device: vec![oci::WeightDevice { major: 8, minor: 0, weight: Some(500) }],
                read_bps: throttle(1),
                write_bps: throttle(2),
                read_iops: throttle(3),
                write_iops: throttle(4),
            };
        }),
        ("unified", &|c, _| drop(c.resources.unified.insert("memory.high".into(), "1G".into()))),
        ("cgroup-parent-systemd", &|c, _| c.cgroups_path = "system.slice:docker:0123".into()),
    ]);
}

#[test]
fn refusals() {
    let text = |change: Change<'_>| {
        let (mut container, mut host) = (container(), host());
        change(&mut container, &mut host);
        build(&container, &host).unwrap_err().to_string()
    };
    let with = |propagation| {
        text(&|c, _| {
            c.mounts.user.push(bind("/srv", "/data", |b| {
                b.propagation = Some(propagation);
                b.source_mount = on("/", false, false);
            }));
        })
    };
    assert_eq!(with(Propagation::Shared), "path /srv is mounted on / but it is not a shared mount");
    assert_eq!(with(Propagation::RSlave), "path /srv is mounted on / but it is not a shared or slave mount");
    let forced = text(&|c, h| {
        h.recursive_readonly = false;
        c.mounts.user.push(bind("/srv", "/data", |b| b.access = Access::ReadOnlyForced));
    });
    assert!(forced.starts_with("rro is not supported"), "{forced}");
}
