//! Times of entries.

/// Seconds since the epoch, and nanoseconds in `0..1_000_000_000`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// May be negative.
    pub seconds: i64,
    /// Always forward.
    pub nanos: i64,
}
