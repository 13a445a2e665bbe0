//! What a client is reported of its layers (B-im-4): a line whenever one of them came a step further.

use std::sync::Arc;
use std::time::Duration;

use api::{Progress, ProgressMessage};
use model::digest::Digest;
use model::{Error, Result};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::fetch::Failure;
#[cfg(test)]
use super::fetch::FetchState;
use super::fetches::Fetch;

/// Time between two looks.
const TICK: Duration = Duration::from_millis(100);

/// Where lines go. A client that left is noticed by a failing send.
pub type Lines = mpsc::Sender<Result<ProgressMessage>>;

/// Sends one line.
pub async fn send(lines: &Lines, line: ProgressMessage) -> Result<()> {
    lines.send(Ok(line)).await.map_err(|_| Error::cancelled("context canceled"))
}

/// Does the work for as long as somebody receives the lines.
pub async fn while_connected(lines: &Lines, work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
        outcome = work => outcome,
        () = lines.closed() => Err(Error::cancelled("context canceled")),
    }
}

/// A layer as it was last reported.
pub struct Layer {
    /// Of its blob.
    pub digest: Digest,
    /// Bytes of its blob.
    pub size: u64,
    /// The fetch.
    pub fetch: Arc<Fetch>,
    reported: Reported,
}

#[derive(Default)]
struct Reported {
    waiting: bool,
    downloaded: u64,
    arrived: bool,
    unpacked: Option<u64>,
    retry_in: u64,
    ended: bool,
}

impl Layer {
    /// One that nothing was reported of.
    pub fn new(digest: Digest, size: u64, fetch: Arc<Fetch>) -> Layer {
        Layer { digest, size, fetch, reported: Reported::default() }
    }

    /// The lines that send of what changed.
    fn news(&mut self) -> Vec<ProgressMessage> {
        let state = self.fetch.state.borrow().clone();
        let id = self.digest.short();
        let plain = |text: &str| ProgressMessage::progress(id, text, Progress::default());
        let counted = |text: &str, current: u64| {
            let (current, total) = (current as i64, self.size as i64);
            ProgressMessage::progress(id, text, Progress { current, total, ..Progress::default() })
        };
        let reported = &mut self.reported;
        let mut lines = Vec::new();
        if reported.ended {
            return lines;
        }
        if state.existed && state.ended.is_some() {
            reported.ended = true;
            return vec![plain("Already exists")];
        }
        if !state.started && !reported.waiting {
            reported.waiting = true;
            lines.push(plain("Waiting"));
        }
        if state.retry_in != reported.retry_in && state.retry_in > 0 {
            let plural = if state.retry_in == 1 { "" } else { "s" };
            lines.push(plain(&format!("Retrying in {} second{plural}", state.retry_in)));
        }
        reported.retry_in = state.retry_in;
        if state.downloaded != reported.downloaded && !reported.arrived {
            lines.push(counted("Downloading", state.downloaded));
        }
        reported.downloaded = state.downloaded;
        if state.arrived && !reported.arrived {
            reported.arrived = true;
            lines.extend([plain("Verifying Checksum"), plain("Download complete")]);
        }
        if reported.arrived && state.unpacking && reported.unpacked != Some(state.unpacked) {
            reported.unpacked = Some(state.unpacked);
            lines.push(counted("Extracting", state.unpacked.min(self.size)));
        }
        if let Some(Ok(_)) = state.ended {
            reported.ended = true;
            lines.push(plain("Pull complete"));
        }
        lines
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<Result<u64, Failure>> {
        self.fetch.state.borrow().ended.clone()
    }
}

/// Tells of the layers until all have ended, or one has failed (its place and failure then).
pub async fn follow(lines: &Lines, layers: &mut [Layer]) -> Result<Option<(usize, Failure)>> {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let outcomes: Vec<_> = layers.iter().map(Layer::ended).collect();
        for layer in layers.iter_mut() {
            for line in layer.news() {
                send(lines, line).await?;
            }
        }
        let mut unfinished = None;
        for (place, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Some(Err(failure)) => return Ok(Some((place, failure))),
                Some(Ok(_)) => {}
                None => unfinished = unfinished.or(Some(place)),
            }
        }
        let Some(place) = unfinished else { return Ok(None) };
        // The end is not made to wait for the next look.
        let mut state = layers[place].fetch.state.clone();
        tokio::select! {
            _ = tick.tick() => {}
            ended = state.wait_for(|state| state.ended.is_some()) => {
                if ended.is_err() {
                    return Err(Error::system("internal error: a download ended without an outcome"));
                }
            }
        }
    }
}

/// How a fetch is reported as far as it is; used by tests.
#[cfg(test)]
pub fn lines_of(states: &[FetchState], size: u64) -> Vec<String> {
    let (sender, state) = tokio::sync::watch::channel(FetchState::default());
    let fetch = Fetch::detached(state);
    let mut layer = Layer::new(Digest::from_sha256(&[1; 32]), size, Arc::new(fetch));
    let mut all = Vec::new();
    for state in states {
        sender.send_replace(state.clone());
        all.extend(layer.news().into_iter().map(|line| match line.progress {
            Some(Progress { total, current, .. }) if total > 0 => format!("{} {current}/{total}", line.status),
            _ => line.status,
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B-im-4
    #[tokio::test]
    async fn a_layer_is_told_in_the_references_words() {
        let waiting = FetchState::default();
        let downloading =
            FetchState { started: true, downloaded: 5, unpacking: true, unpacked: 3, ..FetchState::default() };
        let retrying = FetchState { retry_in: 1, ..downloading.clone() };
        let arrived = FetchState { downloaded: 10, arrived: true, unpacked: 8, ..downloading.clone() };
        let ended = FetchState { ended: Some(Ok(1)), unpacked: 10, ..arrived.clone() };
        let states = [waiting.clone(), waiting, downloading, retrying, arrived.clone(), arrived, ended.clone(), ended];
        let expected = [
            "Waiting",
            "Downloading 5/10",
            "Retrying in 1 second",
            "Downloading 10/10",
            "Verifying Checksum",
            "Download complete",
            "Extracting 8/10",
            "Extracting 10/10",
            "Pull complete",
        ];
        assert_eq!(lines_of(&states, 10), expected);
        let existed = FetchState { existed: true, arrived: true, ended: Some(Ok(1)), ..FetchState::default() };
        assert_eq!(lines_of(&[existed], 10), ["Already exists"]);
    }
}
