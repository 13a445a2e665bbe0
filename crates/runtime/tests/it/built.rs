//! Specifications made by `runtime::spec` and filters made by `runtime::seccomp`, run for real.

use runtime::oci::IdMapping;
use runtime::seccomp;
use runtime::spec::{self, ContainerSpec, HostFeatures, SeccompChoice, Share, UserMap};

use crate::Case;
use crate::fixture::{CAPABILITIES, Container};

pub const CASES: &[Case] = &[
    ("built::default", default),
    ("built::terminal", terminal),
    ("built::privileged", privileged),
    ("built::host_modes", host_modes),
    ("built::user_namespace", user_namespace),
];

fn input(script: &str) -> ContainerSpec {
    let mut input = ContainerSpec { hostname: "box".into(), ..ContainerSpec::default() };
    input.process.args = ["sh", "-c", script].map(str::to_owned).to_vec();
    input.security.capabilities = CAPABILITIES.map(str::to_owned).to_vec();
    input.namespaces.cgroup = Share::Host;
    input
}

fn container(mut input: ContainerSpec) -> Container {
    let mut container = Container::new(&["true"]);
    input.cgroups_path = container.bundle.spec.linux.cgroups_path.clone();
    let mut host = HostFeatures::probe();
    host.devices = spec::host::host_devices().unwrap();
    container.bundle.spec = spec::build(&input, &host).unwrap();
    if let Some(filter) = container.bundle.spec.linux.seccomp.take() {
        container.bundle.seccomp = seccomp::compile(&filter, host.arch).unwrap();
    }
    container
}

fn default() {
    let out = container(input(
        "grep -E '^(CapEff|Seccomp:)' /proc/self/status; id; hostname; umount /proc 2>&1; mount -t tmpfs x /tmp 2>&1; \
         cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /sys/fs/cgroup/; ls /dev",
    ))
    .output();
    assert!(out.starts_with("CapEff:\t00000000a80425fb\nSeccomp:\t2\n"), "{out}");
    assert!(out.contains("umount: can't unmount /proc: Operation not permitted"), "{out}");
    assert!(out.contains("mount: permission denied"), "{out}");
    assert!(out.contains("\nbox\n") && out.contains("\n0\n"), "{out}");
    assert!(
        out.contains("\ncore\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\n")
            || !std::path::Path::new("/proc/kcore").exists(),
        "{out}"
    );
}

fn terminal() {
    use std::io::Read;
    let mut spec = input("tty; test -t 0 && test -t 2 && echo terminal");
    spec.process.terminal = true;
    let container = container(spec);
    let process = container.launch(runtime::Stdio::default()).unwrap();
    let mut master = std::fs::File::from(process.console.as_ref().unwrap().try_clone().unwrap());
    let mut out = Vec::new();
    let _ = master.read_to_end(&mut out);
    assert_eq!(String::from_utf8_lossy(&out).replace('\r', ""), "/dev/pts/0\nterminal\n");
    assert_eq!(crate::fixture::wait(&process), 0);
}

fn privileged() {
    let mut spec = input(
        "mount -t tmpfs x /tmp && echo mounted; grep -E '^(CapEff|Seccomp:)' /proc/self/status; \
         test -b /dev/loop0 && echo loop; new=$(ls -d /sys/fs/cgroup/pids || echo /sys/fs/cgroup)/x; mkdir $new && rmdir $new && echo cgroup; echo 1 > /proc/sys/net/ipv4/ip_forward && echo sysctl",
    );
    spec.security.privileged = true;
    spec.security.seccomp = SeccompChoice::Unconfined;
    spec.security.capabilities = sys::capability::get().unwrap().permitted.names().map(str::to_owned).collect();
    let out = container(spec).output();
    assert!(out.starts_with("mounted\n") && out.contains("Seccomp:\t0\n") && out.ends_with("sysctl\n"), "{out}");
    assert!(out.contains("\ncgroup\n"), "{out}");
    assert!(out.contains("\nloop\n") || !std::path::Path::new("/dev/loop0").exists(), "{out}");
}

fn host_modes() {
    let mut spec = input("readlink /proc/self/ns/net /proc/self/ns/pid; readlink /proc/self/ns/net");
    for share in [&mut spec.namespaces.network, &mut spec.namespaces.pid, &mut spec.namespaces.ipc] {
        *share = Share::Host;
    }
    spec.namespaces.uts = Share::Host;
    let out = container(spec).output();
    assert!(out.contains(std::fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap()), "{out}");
}

fn user_namespace() {
    let mut spec = input(
        "id -u; cat /proc/self/uid_map; touch /tmp/x && stat -c %u /tmp/x; ls -l /dev/null; cat /dev/null; echo x > /dev/null && echo null",
    );
    let map = |first| vec![IdMapping { container_id: 0, host_id: first, size: 65536 }];
    spec.namespaces.user = Some(UserMap { uids: map(200_000), gids: map(200_000) });
    let container = container(spec);
    // The engine chowns the layers; here the few directories that are written to.
    let upper = container.dir.path().join("upper");
    for path in [&upper, &container.dir.path().join("work"), &container.lower(), &container.lower().join("tmp")] {
        std::os::unix::fs::chown(path, Some(200_000), Some(200_000)).unwrap();
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(container.dir.path(), mode).unwrap();
    let out = container.output();
    assert!(out.starts_with("0\n"), "{out}");
    assert!(out.contains("200000") && out.ends_with("null\n"), "{out}");
}
