//! The default AppArmor profile, on kernels that have AppArmor.
//!
//! The kernel takes compiled profiles only, and the compiler is AppArmor's own program: it is run at boot, and before a
//! container starts or is entered if somebody has unloaded the profile since.
//!
//! Without AppArmor no profile has an effect, the ones that containers name included. With AppArmor, no container runs
//! without the profile that it should have: a profile that cannot be loaded refuses the daemon's start, or the container's.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use model::{Error, Result};

/// The profile of containers that name none.
pub const DEFAULT_PROFILE: &str = "docker-default";

/// apparmor.d(5). Containers may do what their capabilities and namespaces allow, but not mount, not write to the
/// kernel's own files, and exchange signals with each other's kind only.
const SOURCE: &str = "\
profile docker-default flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,
  unix,
  signal (receive) peer=unconfined,
  signal (send, receive) peer=docker-default,
  ptrace (trace, read, tracedby, readby) peer=docker-default,

  deny mount,
  deny /proc/* w,
  deny /proc/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/{?,??,[^s][^h][^m]**} w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
";

/// The program that compiles profiles and gives them to the kernel; apparmor_parser(8).
const PARSER: &str = "apparmor_parser";

/// The kernel's AppArmor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppArmor {
    /// Where the kernel lists its profiles.
    profiles: PathBuf,
    parser: PathBuf,
}

impl AppArmor {
    /// `None`: the kernel has none, it is switched off, or securityfs is out of reach, as within a container. The reference
    /// asks the same.
    pub fn detect() -> Option<AppArmor> {
        AppArmor::below(Path::new("/sys"), Path::new(PARSER))
    }

    /// The same for a sysfs that is mounted at `sys`.
    #[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
    fn below(sys: &Path, parser: &Path) -> Option<AppArmor> {
        let enabled = fs::read_to_string(sys.join("module/apparmor/parameters/enabled"));
        let dir = sys.join("kernel/security/apparmor");
        (enabled.is_ok_and(|text| text.starts_with('Y')) && dir.exists())
            .then(|| AppArmor { profiles: dir.join("profiles"), parser: parser.to_owned() })
    }

    /// Loads the default profile unless it is there.
    pub fn ensure_default(&self) -> Result<()> {
        let refuse = |why: String| {
            Error::system(format!(
                "AppArmor enabled on system but the {DEFAULT_PROFILE} profile could not be loaded: {why}"
            ))
        };
        if self.is_loaded()? {
            return Ok(());
        }
        compile_and_load(&self.parser).map_err(refuse)?;
        match self.is_loaded()? {
            true => Ok(()),
            false => Err(refuse(format!("{} reports success, but the kernel does not list it", self.parser.display()))),
        }
    }

    /// The profile of a container: its own, else none when privileged, else the default one, which is loaded then.
    pub fn profile(&self, privileged: bool, own: Option<String>) -> Result<String> {
        let profile = own.filter(|own| !own.is_empty()).unwrap_or_else(|| match privileged {
            true => "unconfined".into(),
            false => DEFAULT_PROFILE.into(),
        });
        if profile == DEFAULT_PROFILE {
            self.ensure_default()?;
        }
        Ok(profile)
    }

    /// Lines of `name (mode)`.
    #[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
    fn is_loaded(&self) -> Result<bool> {
        let profiles = fs::read_to_string(&self.profiles).map_err(|error| {
            let error = Error::from(error);
            error.prefix(format!("Could not check if {DEFAULT_PROFILE} AppArmor profile was loaded"))
        })?;
        Ok(profiles.lines().any(|line| line.strip_prefix(DEFAULT_PROFILE).is_some_and(|rest| rest.starts_with(" ("))))
    }
}

fn compile_and_load(program: &Path) -> std::result::Result<(), String> {
    let failed = |error: std::io::Error| format!("running {}: {error}", program.display());
    let mut parser = Command::new(program)
        .args(["--skip-cache", "--replace"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // A parser that ends before it has read all tells why on its error output.
    let written = parser.stdin.take().map_or(Ok(()), |mut input| input.write_all(SOURCE.as_bytes()));
    let done = parser.wait_with_output().map_err(failed)?;
    match done.status.success() {
        true => written.map_err(failed),
        false => {
            let (said, status) = (String::from_utf8_lossy(&done.stderr), done.status);
            Err(format!("{} failed ({status}): {}", program.display(), said.trim()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sysfs with AppArmor switched on (`enabled`) that lists these profiles, and a parser with that script.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new(enabled: &str, profiles: &str, script: &str) -> Fake {
            let dir = tempfile::tempdir().expect("a directory");
            let write = |path: &str, text: &str| {
                let path = dir.path().join(path);
                fs::create_dir_all(path.parent().expect("below")).expect("made");
                fs::write(path, text).expect("written");
            };
            write("module/apparmor/parameters/enabled", enabled);
            write("kernel/security/apparmor/profiles", profiles);
            write("script", &format!("#!/bin/sh\ncd \"$(dirname \"$0\")\"\n{script}\n"));
            // Written by another process: a fork beside it would keep it open here, too busy to be executed.
            let path = |name| dir.path().join(name);
            let copied = Command::new("install").arg("-m755").args([path("script"), path("parser")]).status();
            assert!(copied.expect("install(1)").success());
            Fake(dir)
        }

        fn apparmor(&self) -> Option<AppArmor> {
            AppArmor::below(self.0.path(), &self.0.path().join("parser"))
        }
    }

    const LOADS: &str =
        "grep -q 'profile docker-default' && echo 'docker-default (enforce)' >> kernel/security/apparmor/profiles";

    #[test]
    fn a_kernel_without_it_has_none() {
        assert_eq!(Fake::new("N\n", "", LOADS).apparmor(), None);
        let hidden = Fake::new("Y\n", "", LOADS);
        fs::remove_dir_all(hidden.0.path().join("kernel")).expect("securityfs is not mounted");
        assert_eq!(hidden.apparmor(), None);
        assert_eq!(AppArmor::below(Path::new("/no/sys"), Path::new(PARSER)), None);
    }

    #[test]
    fn the_default_profile_is_loaded_once() {
        let fake = Fake::new("Y\n", "docker-default-x (enforce)\n", LOADS);
        let apparmor = fake.apparmor().expect("there");
        apparmor.ensure_default().expect("loaded");
        assert_eq!(apparmor.profile(false, None).expect("loaded"), DEFAULT_PROFILE);
        let profiles = fs::read_to_string(&apparmor.profiles).expect("listed");
        assert_eq!(profiles, "docker-default-x (enforce)\ndocker-default (enforce)\n");
        fs::write(&apparmor.profiles, "").expect("unloaded by somebody");
        assert_eq!(apparmor.profile(false, Some(DEFAULT_PROFILE.into())).expect("loaded again"), DEFAULT_PROFILE);
    }

    #[test]
    fn without_the_default_profile_only_other_profiles_are_given() {
        let refusals = [
            ("echo 'no policy' >&2; exit 3", "failed (exit status: 3): no policy"),
            ("cat > /dev/null", "reports success, but the kernel does not list it"),
        ];
        for (script, why) in refusals {
            let fake = Fake::new("Y\n", "other (enforce)\n", script);
            let apparmor = fake.apparmor().expect("there");
            for refused in [apparmor.ensure_default(), apparmor.profile(false, None).map(drop)] {
                let refused = refused.expect_err("not loaded").to_string();
                assert!(refused.starts_with("AppArmor enabled on system but the docker-default profile could not"));
                assert!(refused.contains(why), "{refused}");
            }
            assert_eq!(apparmor.profile(true, None).expect("privileged"), "unconfined");
            assert_eq!(apparmor.profile(false, Some("mine".into())).expect("its own"), "mine");
        }
        let fake = Fake::new("Y\n", "", "");
        let missing = AppArmor::below(fake.0.path(), Path::new("no-such-parser")).expect("there");
        let refused = missing.ensure_default().expect_err("no parser").to_string();
        assert!(refused.contains("running no-such-parser: "), "{refused}");
    }
}
