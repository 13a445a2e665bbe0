//! What tests and the bench need: a daemon in its own namespaces in one line, images made here, the docker CLI, a raw
//! HTTP client, a terminal, and the leak census.
//!
//! ```no_run
//! let d = testkit::Daemon::start();
//! d.busybox();
//! assert_eq!(d.docker(&["run", "--rm", "busybox", "echo", "hello"]).stdout, "hello\n");
//! d.finish(); // the census: nothing may be left
//! ```
//!
//! - Every daemon has a network and a mount namespace, a data root, an exec root, a socket and a parent cgroup of its own,
//!   so that tests run side by side and never touch the machine's network.
//! - What a test needs and does not find (root, a program) is a failure with the reason, never a skip.
//! - Only processes that the kit started, or that live in its namespaces and cgroups, are ever killed.

#![forbid(unsafe_code)]

pub mod buildx;
pub mod census;
mod check;
pub mod command;
pub mod daemon;
pub mod dead_mount;
pub mod fake_registry;
pub mod grpc;
pub mod http;
pub mod images;
pub mod layouts;
pub mod namespaces;
pub mod places;
pub mod power;
pub mod process;
pub mod soak;
pub mod terminal;

pub use command::{Output, Running};
pub use daemon::{Daemon, Options};
pub use http::{Connection, Response};
pub use terminal::Terminal;
