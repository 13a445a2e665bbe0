//! Images whose steps a classic build may use, found by their histories.
//!
//! An image is good for the next step when the stage has come about as the beginning of the image's history tells, layer by
//! layer, and the step is the next line of it.

use std::sync::Arc;

use image::oci::History;
use model::digest::Digest;

use crate::record::{Chain, Layer};

/// An image whose steps may be used.
pub(super) struct Source {
    /// What it is found by.
    pub id: Digest,
    /// How it came about.
    pub history: Vec<History>,
    /// Its layers.
    pub chain: Chain,
}

/// What an image knows of a step.
pub(super) struct Known {
    /// The line of the history.
    pub history: History,
    /// The layers after it.
    pub chain: Chain,
    /// The image, when the step is its last.
    pub whole: Option<Digest>,
}

impl Source {
    /// What it knows of the step after those of a history and its layers.
    pub(super) fn step(&self, history: &[History], layers: &[Layer], created_by: &str) -> Option<Known> {
        let next = self.history.get(history.len()).filter(|next| next.created_by == created_by)?;
        let count = |history: &[History]| history.iter().filter(|step| !step.empty_layer).count();
        let is_below = self.history.starts_with(history)
            && count(history) == layers.len()
            && self.chain.iter().zip(layers).all(|(own, below)| own.key == below.key);
        if !is_below || count(&self.history) != self.chain.len() {
            return None;
        }
        let chain = self.chain.get(..layers.len() + usize::from(!next.empty_layer))?;
        let is_last = history.len() + 1 == self.history.len();
        Some(Known { history: next.clone(), chain: Arc::new(chain.to_vec()), whole: is_last.then(|| self.id.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(created_by: &str, empty_layer: bool) -> History {
        History { created_by: created_by.into(), empty_layer, ..History::default() }
    }

    fn layer(byte: u8) -> Layer {
        Layer { key: (&Digest::from_sha256(&[byte; 32])).into(), blob: None }
    }

    #[test]
    fn a_step_is_found_where_histories_and_layers_agree() {
        let history = vec![line("base", false), line("ENV", true), line("RUN", false)];
        let source = Source {
            id: Digest::from_sha256(&[9; 32]),
            history: history.clone(),
            chain: Arc::new(vec![layer(1), layer(2)]),
        };
        let step =
            |count: usize, layers: &[Layer], created_by: &str| source.step(&history[..count], layers, created_by);
        let env = step(1, &[layer(1)], "ENV").unwrap();
        assert!(env.chain.len() == 1 && env.whole.is_none());
        let run = step(2, &[layer(1)], "RUN").unwrap();
        assert!(run.chain.len() == 2 && run.whole == Some(source.id.clone()));
        assert!(step(1, &[layer(1)], "RUN").is_none());
        assert!(step(1, &[layer(3)], "ENV").is_none());
        assert!(step(1, &[layer(1), layer(2)], "ENV").is_none());
        assert!(step(3, &[layer(1), layer(2)], "RUN").is_none());
        let other = [line("other", false)];
        assert!(source.step(&other, &[layer(1)], "ENV").is_none());
        assert!(source.step(&[], &[], "base").is_some());
    }

    #[test]
    fn a_history_that_does_not_fit_its_layers_is_of_no_use() {
        let history = vec![line("base", false), line("RUN", false)];
        let source = Source { id: Digest::from_sha256(&[9; 32]), history, chain: Arc::new(vec![layer(1)]) };
        assert!(source.step(&[line("base", false)], &[layer(1)], "RUN").is_none());
    }
}
