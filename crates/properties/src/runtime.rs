//! A place to run what is asynchronous.

use tokio::runtime::{Builder, Runtime};

/// A runtime of one thread.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}
