//! How much of a step's output is told: so many bytes, and so many a second; of what is left out the end is told at the step's end.

use std::collections::VecDeque;
use std::time::Instant;

/// Bytes of one stream of a step.
const SIZE: usize = 2 << 20;
/// Bytes a second.
const SPEED: usize = 200 << 10;
/// Bytes of the end of what was left out.
const END: usize = 256 << 10;

/// What one stream of a step has told.
pub(super) struct Limit {
    begun: Instant,
    size: usize,
    clipping: bool,
    /// The end of what has come since something was left out first.
    end: Option<VecDeque<u8>>,
}

impl Default for Limit {
    fn default() -> Limit {
        Limit { begun: Instant::now(), size: 0, clipping: false, end: None }
    }
}

impl Limit {
    /// What is told of what has come.
    pub(super) fn take(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let seconds = usize::try_from(self.begun.elapsed().as_millis().div_ceil(1000)).unwrap_or(usize::MAX).max(1);
        let by_speed = seconds.saturating_mul(SPEED);
        let (limit, text) = if by_speed < SIZE { (by_speed, "200KiB/s") } else { (SIZE, "2MiB") };
        let left = limit.saturating_sub(self.size);
        self.size = self.size.saturating_add(bytes.len());
        let is_clipped = bytes.len() > left;
        if is_clipped || self.end.is_some() {
            let end = self.end.get_or_insert_default();
            end.extend(&bytes);
            let over = end.len().saturating_sub(END);
            end.drain(..over);
        }
        bytes.truncate(left);
        if is_clipped && !self.clipping {
            bytes.extend_from_slice(format!("\n[output clipped, log limit {text} reached]\n").as_bytes());
        }
        self.clipping = is_clipped;
        bytes
    }

    /// The end of what was left out.
    pub(super) fn rest(self) -> Option<Vec<u8>> {
        self.end.map(Vec::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_clipped_and_its_end_is_told() {
        let mut limit = Limit::default();
        assert_eq!(limit.take(b"hello".to_vec()), b"hello");
        let told = limit.take(vec![b'a'; SPEED]);
        assert!(told.ends_with(b"\n[output clipped, log limit 200KiB/s reached]\n") && told.len() < SPEED + 60);
        assert_eq!(limit.take(b"unseen".to_vec()), b"");
        limit.begun -= std::time::Duration::from_secs(60);
        assert_eq!(limit.take(b"seen".to_vec()), b"seen");
        let told = limit.take(vec![b'b'; SIZE]);
        assert!(told.ends_with(b"\n[output clipped, log limit 2MiB reached]\n"));
        limit.take(b"the end".to_vec());
        let rest = limit.rest().unwrap();
        assert!(rest.len() <= END && rest.ends_with(b"the end"));
    }
}
