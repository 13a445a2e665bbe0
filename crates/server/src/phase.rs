//! How a server ends: step by step.

/// How far a server is in its life; it only goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Clients and their requests are served.
    Serving,
    /// No client and no request is taken any more; those that are here are answered.
    Closing,
    /// What is still open gets [`crate::limits::DRAIN_TIME`]; streams end now.
    Draining,
}
