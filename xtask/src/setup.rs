//! The programs that tests need: found, or installed with apt, or (the docker CLI) unpacked privately.
//!
//! The docker package is never installed: its daemon must not be started. Only the client is taken out of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::shell::{self, find, output};

/// Program and the Debian package that has it.
pub type Program = (&'static str, &'static str);

const PROGRAMS: &[Program] = &[
    ("busybox", "busybox-static"),
    ("crun", "crun"),
    ("curl", "curl"),
    ("dbus-daemon", "dbus-daemon"),
    ("debootstrap", "debootstrap"),
    ("docker-registry", "docker-registry"),
    ("htpasswd", "apache2-utils"),
    ("ip", "iproute2"),
    ("iptables-legacy", "iptables"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("prometheus", "prometheus"),
    ("runc", "runc"),
    ("setsid", "util-linux"),
    ("skopeo", "skopeo"),
    ("strace", "strace"),
    ("tar", "tar"),
    ("unshare", "util-linux"),
    ("zstd", "zstd"),
];
/// How long another package manager may hold apt's locks, seconds.
const LOCK_SECONDS: u64 = 600;
/// Between two looks at a lock that apt itself does not wait for.
const LOCK_PAUSE: Duration = Duration::from_secs(2);
/// Packages that carry the docker CLI, newest kind first.
const CLI_PACKAGES: [&str; 2] = ["docker-cli", "docker.io"];

/// What the demonstration runs.
const OF_DEMO: [&str; 7] = ["busybox", "ip", "nft", "nsenter", "setsid", "tar", "unshare"];

/// Makes sure that every program that the tests run is there.
pub fn programs() -> Result<(), String> {
    install(PROGRAMS)
}

/// Makes sure that what the demonstration runs is there, and no more.
pub fn programs_of_demo() -> Result<(), String> {
    let wanted: Vec<Program> = PROGRAMS.iter().filter(|(program, _)| OF_DEMO.contains(program)).copied().collect();
    install(&wanted)
}

fn install(programs: &[Program]) -> Result<(), String> {
    install_missing(programs)?;
    if !busybox_is_static() {
        install_packages(&["busybox-static"])?;
    }
    docker_cli()
}

/// Installs the packages of those that are not there.
pub fn install_missing(programs: &[Program]) -> Result<(), String> {
    let missing = programs.iter().filter(|(program, _)| find(program).is_none());
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() { Ok(()) } else { install_packages(&packages) }
}

fn busybox_is_static() -> bool {
    let Some(path) = find("busybox") else { return false };
    let bytes = std::fs::read(path).unwrap_or_default();
    let interpreter = b"/ld-linux";
    !bytes.windows(interpreter.len()).take(1 << 16).any(|window| window == interpreter)
}

/// Runs apt-get in `place`. It waits for dpkg's locks itself (`DPkg::Lock::Timeout`, apt.conf(5)), but not for those of
/// the lists and the archive: then it is started again.
pub fn apt(words: &[&str], place: &Path) -> Result<(), String> {
    let until = Instant::now() + Duration::from_secs(LOCK_SECONDS);
    loop {
        let mut command = Command::new("apt-get");
        command.arg(format!("-oDPkg::Lock::Timeout={LOCK_SECONDS}")).args(words).current_dir(place);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        let (succeeded, complaints) = shell::complaints(&mut command)?;
        if succeeded {
            return Ok(());
        }
        if !lock_is_held(&complaints) || Instant::now() > until {
            return Err(format!("apt-get {} failed", words.join(" ")));
        }
        println!("another package manager is at work; waiting");
        sleep(LOCK_PAUSE);
    }
}

/// Whether apt's standard error says that somebody else holds a lock.
fn lock_is_held(complaints: &str) -> bool {
    complaints.contains("Could not get lock") && complaints.contains("held by process")
}

/// Installs Debian packages.
pub fn install_packages(packages: &[&str]) -> Result<(), String> {
    println!("installing {}", packages.join(" "));
    let words = [&["install", "-y", "--no-install-recommends"], packages].concat();
    if apt(&words, Path::new("/")).is_ok() {
        return Ok(());
    }
    apt(&["update"], Path::new("/"))?;
    apt(&words, Path::new("/")).map_err(|e| format!("{e}\ninstall by hand: {}", packages.join(" ")))
}

/// The docker CLI that tests use, once [`programs`] has seen to it.
pub fn docker() -> PathBuf {
    let unpacked = shell::root().join("target/tools/docker/usr/bin/docker");
    if unpacked.exists() { unpacked } else { find("docker").unwrap_or(unpacked) }
}

/// The docker CLI on `PATH`, or unpacked below `target/tools/docker`.
fn docker_cli() -> Result<(), String> {
    let place = shell::root().join("target/tools/docker");
    if find("docker").is_some() || place.join("usr/bin/docker").exists() {
        return Ok(());
    }
    let client = |package: &&str| unpack(package, &place).is_ok() && place.join("usr/bin/docker").exists();
    let fetched = CLI_PACKAGES.iter().any(client);
    if !fetched {
        apt(&["update"], Path::new("/"))?;
    }
    if !fetched && !CLI_PACKAGES.iter().any(client) {
        return Err("the docker CLI is missing and no package of it could be fetched".into());
    }
    Ok(())
}

/// Fetches a package and unpacks it below `place`, without installing it.
pub fn unpack(package: &str, place: &Path) -> Result<(), String> {
    std::fs::create_dir_all(place).map_err(|e| e.to_string())?;
    apt(&["download", package], place)?;
    for entry in std::fs::read_dir(place).map_err(|e| e.to_string())?.flatten() {
        if entry.path().extension().is_some_and(|ext| ext == "deb") {
            output(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(place))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_held_is_told_from_one_that_may_not_be_taken() {
        let held = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 17 (apt-get)\n";
        assert!(lock_is_held(held));
        assert!(!lock_is_held("E: Could not open lock file /var/lib/dpkg/lock (13: Permission denied)\n"));
        assert!(!lock_is_held("E: Unable to locate package crun\n"));
    }
}
