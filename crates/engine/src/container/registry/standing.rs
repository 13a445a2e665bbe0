//! Containers that are frozen for the time of an operation: their monitors are told again and again that the daemon works on
//! it, and let them go on when they are not ([`PASSING`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::lock::Mutex;
use model::{Error, Result};
use monitor::proto::PASSING;
use tokio::task::JoinHandle;

/// How often a monitor is told.
const BEAT: Duration = Duration::from_secs(2);

/// A container that is frozen in passing; its monitor is told so until this is dropped.
pub struct Standing {
    known: Arc<Mutex<Known>>,
    beats: JoinHandle<()>,
}

/// How long a container has been frozen for certain.
struct Known {
    /// When what its monitor has answered last was sent.
    sent: Instant,
    /// It may have gone on meanwhile.
    broken: bool,
}

impl Known {
    /// A request that was sent then is answered now.
    fn answered(&mut self, sent: Instant, now: Instant) {
        self.broken |= !self.holds(now);
        self.sent = sent;
    }

    fn holds(&self, now: Instant) -> bool {
        !self.broken && now.saturating_duration_since(self.sent) < PASSING
    }
}

impl Standing {
    /// Of a container that was asked to stand still at `asked`, and does. `ping` asks its monitor, and tells when it was answered.
    pub fn begin<P, A>(asked: Instant, ping: P) -> Standing
    where
        P: Fn() -> A + Send + 'static,
        A: Future<Output = Option<Instant>> + Send,
    {
        let known = Arc::new(Mutex::new(Known { sent: asked, broken: false }));
        let noted = known.clone();
        let beats = tokio::spawn(async move {
            loop {
                tokio::time::sleep(BEAT).await;
                let sent = Instant::now();
                if let Some(answered) = ping().await {
                    noted.lock().answered(sent, answered);
                }
            }
        });
        Standing { known, beats }
    }

    /// Errors: `System` when the container may have gone on before now.
    pub fn check(&self) -> Result<()> {
        if self.known.lock().holds(Instant::now()) {
            return Ok(());
        }
        let text = format!("the daemon was held up for more than {} s, and the container went on", PASSING.as_secs());
        Err(Error::system(text))
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_answered_in_time_may_have_gone_on() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let long = PASSING.as_secs();
        let mut known = Known { sent: start, broken: false };
        assert!(known.holds(after(long - 1)) && !known.holds(after(long)));
        known.answered(after(2), after(long - 1));
        assert!(known.holds(after(long + 1)) && !known.holds(after(long + 2)));
        // The request may have come too late.
        known.answered(after(3), after(long + 2));
        known.answered(after(long + 2), after(long + 2));
        assert!(!known.holds(after(long + 2)));
    }
}
