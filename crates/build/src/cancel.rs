//! How a build is ended early.

use std::sync::Arc;

use model::{Error, Result};
use tokio::sync::watch;

/// Ends a build early. Clones are the same.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<watch::Sender<bool>>);

impl Default for Cancel {
    fn default() -> Cancel {
        Cancel(Arc::new(watch::Sender::new(false)))
    }
}

impl Cancel {
    /// Nothing begins any more, and what runs is ended.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was called.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when it is called.
    pub async fn cancelled(&self) {
        // The sender lives in `self`.
        drop(self.0.subscribe().wait_for(|cancelled| *cancelled).await);
    }

    /// The error of what was cancelled.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }
}

/// The error of what was cancelled.
pub fn cancelled() -> Error {
    Error::system("context canceled")
}
