//! Volumes that need what many kernels lack: quotas of projects, NFS, CIFS. `cargo xtask vm volumes` runs these tests where all of it is
//! (`GANTRY_KERNEL_VOLUMES` names the directory of an NFS server's programs); elsewhere they show what is said instead.

use std::fs;
use std::path::PathBuf;

use testkit::{Daemon, Options};

use crate::with_busybox;

/// Where the programs of the NFS server lie; `None`: not on that machine.
fn machine() -> Option<PathBuf> {
    std::env::var_os("GANTRY_KERNEL_VOLUMES").map(PathBuf::from)
}

/// A volume holds what its limit says, over the end of its daemon; others have the rest of the disk. Without quotas it is refused.
fn limited(options: Options, missing: &str) {
    let mut d = options.start();
    d.busybox();
    let create = ["volume", "create", "-o", "size=8m", "small"];
    if machine().is_none() {
        d.docker(&create).fails(1, &format!("quota size requested but no quota support: {missing}"));
        return d.finish();
    }
    let _ = d.docker(&create).ok();
    let _ = d.docker(&["volume", "create", "large"]).ok();
    let write = |volume: &str| -> u64 {
        let script = "dd if=/dev/zero of=/v/f bs=64k count=320 conv=fsync 2>/dev/null; stat -c %s /v/f";
        let mount = format!("{volume}:/v");
        d.docker(&["run", "--rm", "-v", &mount, "busybox", "sh", "-c", script]).text().parse().unwrap()
    };
    let held = write("small");
    assert!(held > 0 && held <= 8 << 20, "{held}");
    assert_eq!(write("large"), 20 << 20);
    d.kill9();
    d.again();
    let more = ["run", "--rm", "-v", "small:/v", "busybox", "sh", "-c", "head -c 1000000 /dev/zero > /v/g"];
    assert_ne!(d.docker(&more).code, 0);
    // The number of its project is free again, and counts nothing.
    let _ = d.docker(&["volume", "rm", "small", "large"]).ok();
    let _ = d.docker(&create).ok();
    let _ =
        d.docker(&["run", "--rm", "-v", "small:/v", "busybox", "sh", "-c", "head -c 4000000 /dev/zero > /v/g"]).ok();
    let _ = d.docker(&["volume", "rm", "small"]).ok();
    d.finish();
}

#[test]
fn projects_of_ext4_limit_volumes() {
    let options = match machine() {
        Some(_) => Options::new().ext4_with_projects("256m"),
        None => Options::new().ext4("256m"),
    };
    limited(options, "ext4 counts projects when it was made with '-O quota,project' and is mounted with 'prjquota'");
}

#[test]
fn projects_of_xfs_limit_volumes() {
    let options = match machine() {
        Some(_) => Options::new().xfs_with_projects("512m"),
        None => Options::new().xfs("512m"),
    };
    limited(options, "XFS counts projects when it is mounted with 'prjquota', and the kernel has CONFIG_XFS_QUOTA");
}

/// A server of NFS 4 in the daemon's namespaces, with one directory.
struct Server<'d> {
    d: &'d Daemon,
    setting: String,
}

impl Server<'_> {
    fn start<'d>(d: &'d Daemon, programs: &std::path::Path, export: &str) -> Server<'d> {
        let p = programs.display();
        let setting = format!(
            "export PATH={p}/usr/sbin:{p}/sbin:$PATH LD_LIBRARY_PATH={p}/usr/lib/x86_64-linux-gnu:{p}/lib/x86_64-linux-gnu; set -e; "
        );
        let server = Server { d, setting };
        server.run(&format!(
            "ip link set lo up; mkdir -p /var/lib/nfs/v4recovery; touch /var/lib/nfs/etab /var/lib/nfs/rmtab; \
             mount -t nfsd nfsd /proc/fs/nfsd; rpc.mountd -N 3 -N 2 --no-udp; \
             exportfs -i -o rw,no_root_squash,insecure,no_subtree_check,fsid=0 127.0.0.1:{export}; \
             rpc.nfsd -N 3 -G 10 -L 10 --no-udp 2"
        ));
        server
    }

    fn run(&self, script: &str) {
        let _ = self.d.exec_inside(&["sh", "-c", &format!("{}{script}", self.setting)]).ok();
    }

    fn stop(self) {
        self.run("rpc.nfsd 0; exportfs -ua; umount /proc/fs/nfsd");
        for process in self.d.namespaces().processes() {
            if process.command.contains("rpc.mountd") {
                self.run(&format!("kill {}", process.pid));
            }
        }
    }
}

/// A volume of an NFS server is one file system for its users, its server found by name.
#[test]
fn a_volume_of_an_nfs_server() {
    let d = with_busybox();
    let options = ["-o", "type=nfs", "-o", "device=:/", "-o", "o=addr=localhost,vers=4.2,soft"];
    let _ = d.docker(&[&["volume", "create"], &options[..], &["vol"]].concat()).ok();
    let run = |script: &str| d.docker(&["run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", script]);
    let Some(programs) = machine() else {
        run("true").fails(125, "failed to mount local volume: mount :/:");
        let _ = d.docker(&["volume", "rm", "vol"]).ok();
        return d.finish();
    };
    let export = d.path("export");
    fs::create_dir(&export).unwrap();
    fs::write(export.join("there"), "of the server").unwrap();
    let server = Server::start(&d, &programs, &export.display().to_string());
    assert_eq!(run("cat /v/there; echo made > /v/made; mkdir /v/d; chown 7:8 /v/d").text(), "of the server");
    assert_eq!(fs::read_to_string(export.join("made")).unwrap(), "made\n");
    let read = ["run", "--rm", "-v", "vol:/v:ro", "busybox", "sh", "-c", "stat -c %u:%g /v/d; touch /v/x 2>&1"];
    let told = d.docker(&read).stdout;
    assert!(told.starts_with("7:8") && told.contains("Read-only"), "{told}");
    let _ = d.docker(&["volume", "rm", "vol"]).ok();
    server.stop();
    d.finish();
}

/// The kernel's client of CIFS is reached; a password is in no error.
#[test]
fn a_volume_of_a_cifs_server_that_is_not_there() {
    let d = with_busybox();
    let options = ["-o", "type=cifs", "-o", "device=//localhost/share", "-o", "o=username=u,password=secret"];
    let _ = d.docker(&[&["volume", "create"], &options[..], &["vol"]].concat()).ok();
    let refused = d.docker(&["run", "--rm", "-v", "vol:/v", "busybox", "true"]);
    assert!(!refused.stderr.contains("secret"), "{refused:?}");
    assert!(machine().is_none() || refused.stderr.contains("connection refused"), "{refused:?}");
    refused.fails(125, "failed to mount local volume: mount //127.0.0.1/share:");
    let _ = d.docker(&["volume", "rm", "vol"]).ok();
    d.finish();
}
