//! `cargo xtask vm`: the tests that depend on the version of cgroups, on a machine that has version 2 alone.
//!
//! The machine is emulated: Debian's kernel, unpacked and not installed, with this machine's root file system below a layer
//! of memory as its own. Emulation is ten times slower than the real thing, so these tests are no part of `cargo xtask
//! test`, and only some of them run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::setup::{self, Program};
use crate::shell::{self, output, run};
use crate::test::Tally;

const PROGRAMS: &[Program] =
    &[("busybox", "busybox-static"), ("cpio", "cpio"), ("depmod", "kmod"), ("qemu-system-x86_64", "qemu-system-x86")];
const SYSTEMD: &[Program] = &[("busybox", "busybox-static"), ("groupadd", "passwd"), ("systemd", "systemd")];
/// Depends on the newest kernel.
const KERNEL_PACKAGE: &str = "linux-image-amd64";
/// Modules that lead to the root file system; others are loaded from there.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// Directory of the package, test program (and features, blanks between them), and the tests that run when none are named, blanks between them (none = all):
/// what depends on the version of cgroups and allows for the time that things take in an emulator.
const TESTS: &[(&str, &str, &str)] = &[
    ("crates/sys", "it", ""),
    ("crates/runtime", "it", ""),
    ("crates/runtime", "cli", ""),
    ("crates/monitor", "it", ""),
    ("tests", "client", CLIENT),
    ("tests", "crash", CRASH),
];
const CLIENT: &str = "cgroups:: commit:: exec:: inspect:: isolation:: lifecycle:: network:: restart:: run:: runtimes:: \
    startup::";
const CRASH: &str =
    "commits:: everything_goes_on hostile:: monitor_killed:: orphans:: races:: start_errors:: vanished::";

/// With systemd as the first program, after the checks of `vm/service.sh`: what may care that somebody else sets up the same
/// hierarchy.
const SYSTEMD_TESTS: &[(&str, &str, &str)] =
    &[("tests", "client", "cgroups:: isolation:: runtimes::"), ("tests", "crash", "everything_goes_on orphans::")];

/// Links and protocols that this machine's kernel may lack.
const NET_TESTS: &[(&str, &str, &str)] = &[("crates/network", "it --features kernel-links", "kernel_links::")];

/// kernel-command-line(7): its files are another machine's, so nothing tidies them up or brings caches up to date.
const SYSTEMD_OPTIONS: &str = " systemd.unit=machine.service systemd.show_status=no systemd.condition-needs-update=0 \
    systemd.mask=systemd-tmpfiles-setup.service systemd.mask=timers.target systemd.mask=systemd-timesyncd.service";

/// Volumes by quotas of projects and by servers, which Debian's kernel has.
const VOLUME_TESTS: &[(&str, &str, &str)] = &[("tests", "client", "kernel_volumes::")];
/// The programs of an NFS server, and the libraries that they need.
const NFS_PACKAGES: [&str; 6] =
    ["nfs-kernel-server", "nfs-common", "libtirpc3", "libwrap0", "libevent-core-2.1-7", "libkeyutils1"];

/// Runs the tests named by `words`, or those of [`TESTS`]; after the word `systemd` those of [`SYSTEMD_TESTS`], after `net`
/// those of [`NET_TESTS`], after `volumes` those of [`VOLUME_TESTS`].
pub fn run_tests(words: &[String]) -> Result<(), String> {
    shell::require_root("cargo xtask vm")?;
    let (first, rest) = words.split_first().map_or(("", words), |(first, rest)| (first.as_str(), rest));
    let (tests, words) = match first {
        "systemd" => (SYSTEMD_TESTS, rest),
        "net" => (NET_TESTS, rest),
        "volumes" => (VOLUME_TESTS, rest),
        _ => (TESTS, words),
    };
    let systemd = first == "systemd";
    setup::programs()?;
    setup::install_missing(PROGRAMS)?;
    if systemd {
        setup::install_missing(SYSTEMD)?;
    }
    let place = shell::root().join("target/tools/vm");
    let kernel = Kernel::unpacked(&place)?;
    shell::run(&mut shell::cargo(&["build", "-p", "gantryd", "-p", "testkit", "--bins"]))?;
    let commands = tests.iter().map(|(directory, name, tests)| command(directory, name, tests, words));
    let mut commands = commands.collect::<Result<Vec<String>, String>>()?;
    if systemd {
        commands.insert(0, include_str!("vm/service.sh").to_owned());
    }
    if first == "volumes" {
        let prepared = include_str!("vm/volumes.sh").replace("@nfs@", &nfs(&place)?.display().to_string());
        commands[0] = prepared + &commands[0];
    }
    let script = include_str!("vm/machine.sh")
        .replace("@command@", &commands.join("\n"))
        .replace("@modules@", &kernel.place.join("lib/modules").display().to_string())
        .replace("@workspace@", &shell::root().display().to_string())
        .replace("@daemon@", &shell::build_dir("debug").join("gantryd").display().to_string())
        .replace("@docker@", &setup::docker().display().to_string());
    let archive = kernel.first_files(&place, &script, systemd)?;
    let mut tally = Tally::default();
    shell::watch(&mut kernel.machine(&archive, systemd), |line| tally.read(line.trim_end()))?;
    if tally.programs < commands.len() {
        return Err(format!("only {} of {} test programs came to their end", tally.programs, commands.len()));
    }
    tally.finish("cargo xtask vm")
}

/// The programs of an NFS server, unpacked and not installed.
fn nfs(place: &Path) -> Result<PathBuf, String> {
    let place = place.join("nfs");
    if !place.join("complete").exists() {
        NFS_PACKAGES.iter().try_for_each(|package| setup::unpack(package, &place))?;
        fs::write(place.join("complete"), "").map_err(|e| e.to_string())?;
    }
    Ok(place)
}

/// Builds a test program; the line that runs it in the machine.
fn command(directory: &str, name: &str, tests: &str, words: &[String]) -> Result<String, String> {
    let directory = shell::root().join(directory);
    let mut cargo = shell::cargo(&["test", "--no-run", "--test"]);
    cargo.args(name.split(' '));
    let built = cargo
        .current_dir(&directory)
        .stdout(Stdio::inherit())
        .stderr(Stdio::piped())
        .output()
        .map_err(|e| e.to_string())?;
    let told = String::from_utf8_lossy(&built.stderr);
    let program = told.lines().find_map(|line| line.trim().strip_prefix("Executable ")?.split(['(', ')']).nth(1));
    let program = program.ok_or_else(|| format!("{} {name} was not built:\n{told}", directory.display()))?;
    let program = shell::root().join(program);
    let filter = if words.is_empty() { tests.to_owned() } else { words.join(" ") };
    Ok(format!("cd {} && {} {filter} --test-threads=2 --color=never 2>&1", directory.display(), program.display()))
}

/// Debian's kernel with its modules, unpacked.
struct Kernel {
    place: PathBuf,
    version: String,
}

impl Kernel {
    fn unpacked(place: &Path) -> Result<Kernel, String> {
        let place = place.join("kernel");
        if !place.join("lib/modules").exists() {
            let depends = output(Command::new("apt-cache").args(["depends", KERNEL_PACKAGE]))?;
            let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
            setup::unpack(package.ok_or("no kernel package is known; run apt-get update")?, &place)?;
        }
        let mut modules = fs::read_dir(place.join("lib/modules")).map_err(|e| e.to_string())?;
        let version = modules.next().and_then(|entry| entry.ok()?.file_name().into_string().ok());
        let version = version.ok_or("the kernel has no modules")?;
        run(Command::new("depmod").arg("-b").arg(&place).arg(&version))?;
        Ok(Kernel { place, version })
    }

    /// The archive of the files that the machine starts with; `script` is run as its second program, or as a service of
    /// systemd.
    fn first_files(&self, place: &Path, script: &str, systemd: bool) -> Result<PathBuf, String> {
        let (files, archive) = (place.join("files"), place.join("files.cpio"));
        let _ = fs::remove_dir_all(&files);
        let made = ["bin", "dev", "host", "memory", "modules.d", "proc", "root", "sys"];
        made.iter().try_for_each(|dir| fs::create_dir_all(files.join(dir))).map_err(|e| e.to_string())?;
        let write = |name: &str, text: &str, mode| {
            let path = files.join(name);
            fs::write(&path, text).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
        };
        let modules = self.modules()?;
        let names: Vec<String> = (0..modules.len()).map(|n| format!("modules.d/{n:02}")).collect();
        let busybox = shell::find("busybox").ok_or("busybox is missing")?;
        fs::copy(busybox, files.join("bin/busybox"))
            .and_then(|_| {
                modules.iter().zip(&names).try_for_each(|(from, to)| fs::copy(from, files.join(to)).map(drop))
            })
            .and_then(|()| write("modules", &(names.join("\n") + "\n"), 0o644))
            .and_then(|()| write("init", include_str!("vm/init.sh"), 0o755))
            .and_then(|()| write("machine.sh", script, 0o755))
            .and_then(|()| {
                if systemd { write("machine.service", include_str!("vm/machine.service"), 0o644) } else { Ok(()) }
            })
            .map_err(|e| format!("{}: {e}", files.display()))?;
        let pack = format!("find . | cpio --quiet -o -H newc > {}", archive.display());
        run(Command::new("sh").args(["-c", &pack]).current_dir(&files))?;
        Ok(archive)
    }

    /// The files of [`MODULES`] and of what they depend on, in the order in which they are loaded.
    fn modules(&self) -> Result<Vec<String>, String> {
        let mut all: Vec<String> = Vec::new();
        for module in MODULES {
            let mut modprobe = Command::new("modprobe");
            modprobe.arg("-d").arg(&self.place).args(["-S", &self.version, "--show-depends", module]);
            let loaded = output(&mut modprobe)?;
            let paths = loaded.lines().filter_map(|line| Some(line.strip_prefix("insmod ")?.trim().to_owned()));
            all.extend(paths.filter(|path| !all.contains(path)).collect::<Vec<_>>());
        }
        Ok(all)
    }

    /// The emulator; what the machine prints is its output.
    fn machine(&self, archive: &Path, systemd: bool) -> Command {
        let unit = if systemd { SYSTEMD_OPTIONS } else { "" };
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args("-accel tcg,thread=multi -cpu max -m 4G -smp 2 -nographic -no-reboot -nic none".split(' '))
            .arg("-kernel")
            .arg(self.place.join("boot").join(format!("vmlinuz-{}", self.version)))
            .arg("-initrd")
            .arg(archive)
            .args(["-append", &format!("console=ttyS0 quiet panic=-1 apparmor=0{unit}")])
            .args(["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"])
            .stdin(Stdio::null());
        qemu
    }
}
