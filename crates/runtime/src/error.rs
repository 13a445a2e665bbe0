//! Why a process did not start: typed where it happened, turned into the reference's words at the end.
//!
//! The errno travels as a number from the container's init to the daemon; exit codes 126 and 127 are chosen from stage
//! and errno, never from a text.

use std::io;

use model::Kind;
use serde::{Deserialize, Serialize};

/// The step that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// clone3, pipes, memory: the machine, not the container.
    Clone,
    Namespace,
    Cgroup,
    UserMap,
    Hostname,
    Rootfs,
    /// A mount of the spec.
    Mount {
        source: String,
        target: String,
    },
    Device {
        path: String,
    },
    /// A masked or read-only path.
    Protect {
        path: String,
    },
    Sysctl {
        key: String,
    },
    Console,
    /// The user or group was not found; `detail` is the whole text.
    User,
    Cwd {
        path: String,
    },
    Rlimit,
    Capabilities,
    Seccomp,
    /// Finding the program; the text follows from errno. `lookup`: the name has no slash and was searched in `$PATH`.
    Exec {
        argv0: String,
        lookup: bool,
    },
    /// The specification asks for what no container is given; `detail` is the whole text.
    Validation,
    /// The container is not running (exec).
    NotRunning,
    /// A command-line runtime said so; `detail` is its message.
    Runtime,
}

/// A failed start or exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartError {
    pub stage: Stage,
    /// 0 = none.
    pub errno: i32,
    /// What was being done, without the errno's text.
    pub detail: String,
}

/// Which request failed; decides the prefix of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Create,
    Exec,
}

/// The program cannot be executed.
pub const EXIT_NOT_EXECUTABLE: i32 = 126;
/// The program, or the source of a bind mount, does not exist.
pub const EXIT_NOT_FOUND: i32 = 127;
/// Any other failure to start.
pub const EXIT_UNKNOWN: i32 = 128;

// The words of the reference's chain of daemons, as clients see and match them.
const CREATE_PREFIX: &str =
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: ";
const EXEC_PREFIX: &str = "OCI runtime exec failed: exec failed: ";
const PROCESS_PREFIX: &str = "unable to start container process: ";
const INIT_PREFIX: &str = "error during container init: ";
const SUFFIX: &str = ": unknown";
const NOT_A_DIRECTORY: &str = ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type";
const PERMISSION_DENIED: &str = ": permission denied";

impl StartError {
    /// A start that failed at this stage with this errno; `detail` says of what.
    pub fn new(stage: Stage, errno: i32, detail: impl Into<String>) -> StartError {
        StartError { stage, errno, detail: detail.into() }
    }

    /// The error that clients see and the exit code of the container or exec (126, 127 or 128), as the reference chooses
    /// them.
    pub fn to_error(&self, what: What) -> (model::Error, i32) {
        if self.stage == Stage::User {
            // Raised by the reference's daemon itself: no prefix.
            let error = model::Error::new(Kind::System, self.detail.clone());
            return match what {
                What::Create => (error, EXIT_UNKNOWN),
                What::Exec => (error.with_kind(Kind::InvalidParameter), EXIT_NOT_EXECUTABLE),
            };
        }
        if self.stage == Stage::NotRunning {
            return (model::Error::new(Kind::Conflict, self.detail.clone()), EXIT_NOT_EXECUTABLE);
        }
        let prefix = if what == What::Create { CREATE_PREFIX } else { EXEC_PREFIX };
        let init = match self.stage {
            Stage::Exec { .. } => "",
            _ if what == What::Create => INIT_PREFIX,
            _ => "",
        };
        let text = match self.stage {
            Stage::Runtime => self.detail.clone(),
            Stage::Validation => format!("{prefix}{}{SUFFIX}", self.text()),
            _ => format!("{prefix}{PROCESS_PREFIX}{init}{}{SUFFIX}", self.text()),
        };
        match self.errno {
            libc_errno::EACCES => (model::Error::invalid(text), EXIT_NOT_EXECUTABLE),
            // The docker CLI looks for the text of EACCES to exit with 126.
            libc_errno::EISDIR => (model::Error::invalid(text + PERMISSION_DENIED), EXIT_NOT_EXECUTABLE),
            libc_errno::ENOTDIR => (model::Error::invalid(text + NOT_A_DIRECTORY), EXIT_NOT_FOUND),
            libc_errno::ENOENT => (model::Error::invalid(text), EXIT_NOT_FOUND),
            _ => (model::Error::new(Kind::System, text), EXIT_UNKNOWN),
        }
    }

    /// The innermost part of the text.
    fn text(&self) -> String {
        let cause = errno_text(self.errno);
        let detail = &self.detail;
        let with = |head: String| match (detail.is_empty(), self.errno) {
            (true, 0) => head,
            (true, _) => format!("{head}: {cause}"),
            (false, 0) => format!("{head}: {detail}"),
            (false, _) => format!("{head}: {detail}: {cause}"),
        };
        match &self.stage {
            Stage::Exec { argv0, lookup: true } if self.errno == libc_errno::ENOENT => {
                format!("exec: {argv0:?}: executable file not found in $PATH")
            }
            Stage::Exec { argv0, .. } if self.errno == libc_errno::ENOENT || self.errno == libc_errno::ENOTDIR => {
                format!("exec: {argv0:?}: stat {argv0}: {cause}")
            }
            Stage::Exec { argv0, .. } => with(format!("exec: {argv0:?}")),
            Stage::Mount { source, target } => with(format!("error mounting {source:?} to rootfs at {target:?}")),
            Stage::Cwd { path } => with(format!("chdir to cwd ({path:?}) set in config.json failed")),
            Stage::Device { path } => with(format!("error creating device nodes: mknod {path}")),
            Stage::Protect { path } => with(format!("can't mask path {path:?}")),
            Stage::Sysctl { key } => {
                let doing = if detail.is_empty() { "open" } else { detail };
                format!("{doing} /proc/sys/{}: {cause}", key.replace('.', "/"))
            }
            Stage::Cgroup => with("unable to apply cgroup configuration".into()),
            Stage::Rootfs => with("error preparing rootfs".into()),
            Stage::Namespace => with("unable to join or create namespaces".into()),
            Stage::UserMap => with("failed to write id mappings".into()),
            Stage::Hostname => with("sethostname".into()),
            Stage::Console => with("unable to set up the console".into()),
            Stage::Rlimit => with("error setting rlimits for ready process".into()),
            Stage::Capabilities => with("unable to apply caps".into()),
            Stage::Seccomp => with("unable to init seccomp".into()),
            Stage::Clone => with("unable to start unshared process".into()),
            Stage::User | Stage::Validation | Stage::NotRunning | Stage::Runtime => detail.clone(),
        }
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

impl std::error::Error for StartError {}

/// Linux numbers, so that this crate needs no C library's names.
pub(crate) mod libc_errno {
    use rustix::io::Errno;
    /// No such file or directory, errno(3).
    pub const ENOENT: i32 = Errno::NOENT.raw_os_error();
    /// Permission denied, errno(3).
    pub const EACCES: i32 = Errno::ACCESS.raw_os_error();
    /// Not a directory, errno(3).
    pub const ENOTDIR: i32 = Errno::NOTDIR.raw_os_error();
    /// Is a directory, errno(3).
    pub const EISDIR: i32 = Errno::ISDIR.raw_os_error();
}

/// Go's text of an errno: the C library's, with a small first letter.
pub(crate) fn errno_text(errno: i32) -> String {
    model::io_text(&io::Error::from_raw_os_error(errno))
}

/// Names the step of a failed system call.
pub(crate) trait At<T> {
    /// `detail` tells what was being done.
    fn at(self, stage: impl FnOnce() -> Stage, detail: &str) -> Result<T, StartError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, stage: impl FnOnce() -> Stage, detail: &str) -> Result<T, StartError> {
        self.map_err(|e| match e.raw_os_error() {
            Some(errno) => StartError::new(stage(), errno, detail),
            None if detail.is_empty() => StartError::new(stage(), 0, model::io_text(&e)),
            None => StartError::new(stage(), 0, format!("{detail}: {}", model::io_text(&e))),
        })
    }
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, stage: impl FnOnce() -> Stage, detail: &str) -> Result<T, StartError> {
        self.map_err(|e| StartError::new(stage(), e.raw_os_error(), detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(argv0: &str, lookup: bool, errno: i32) -> StartError {
        StartError::new(Stage::Exec { argv0: argv0.into(), lookup }, errno, "")
    }

    #[test]
    fn missing_program() {
        let (error, code) = exec("/nope", false, libc_errno::ENOENT).to_error(What::Create);
        assert_eq!(
            error.message(),
            "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \"/nope\": stat /nope: no such file or directory: unknown"
        );
        assert_eq!((error.kind(), code), (Kind::InvalidParameter, 127));
        let (error, code) = exec("/nope", false, libc_errno::ENOENT).to_error(What::Exec);
        assert_eq!(
            error.message(),
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \"/nope\": stat /nope: no such file or directory: unknown"
        );
        assert_eq!(code, 127);
        let (error, _) = exec("nope", true, libc_errno::ENOENT).to_error(What::Exec);
        assert!(error.message().ends_with("process: exec: \"nope\": executable file not found in $PATH: unknown"));
    }

    #[test]
    fn not_executable() {
        let (error, code) = exec("/etc/passwd", false, libc_errno::EACCES).to_error(What::Create);
        assert!(error.message().ends_with("exec: \"/etc/passwd\": permission denied: unknown"), "{error}");
        assert_eq!(code, 126);
        let (error, code) = exec("/etc", false, libc_errno::EISDIR).to_error(What::Create);
        assert!(error.message().ends_with("exec: \"/etc\": is a directory: unknown: permission denied"), "{error}");
        assert_eq!(code, 126);
    }

    #[test]
    fn mounts() {
        let stage = Stage::Mount { source: "/a".into(), target: "/b".into() };
        let (error, code) = StartError::new(stage, libc_errno::ENOTDIR, "move_mount").to_error(What::Create);
        assert!(error.message().contains("error during container init: error mounting \"/a\" to rootfs at \"/b\": "));
        assert!(error.message().contains("not a directory: unknown: Are you trying to mount a directory onto a file"));
        assert_eq!(code, 127);
    }

    #[test]
    fn users() {
        let text = "unable to find user nouser: no matching entries in passwd file";
        let error = StartError::new(Stage::User, 0, text);
        assert_eq!(error.to_error(What::Exec).0.message(), text);
        assert_eq!(error.to_error(What::Create).1, 128);
    }
}
