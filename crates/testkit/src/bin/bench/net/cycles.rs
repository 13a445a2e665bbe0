//! create + start + wait + remove of `true` with one published port on a network of users, against the same without any
//! network; eight clients at once.

use super::{Scale, engines};
use crate::engine::{Cycles, Engine, Network};
use crate::figures::{Figures, Samples};
use crate::load;

/// Parts in which engines and networks take turns: what slows the machine down for a while does so for all.
const BATCHES: usize = 6;
/// Rounds that a slow engine gets in each.
const SLOW: usize = 5;

pub fn run(scale: Scale, own: &Engine, other: Option<&Engine>, figures: &mut Figures) {
    let engines = engines(own, other);
    engines.iter().for_each(|(_, engine)| engine.bench_network());
    let each = (scale.starts.cycles / BATCHES).max(SLOW);
    let mut found = vec![(Cycles::default(), Cycles::default()); engines.len()];
    for _ in 0..BATCHES {
        for ((none, published), (name, engine)) in found.iter_mut().zip(&engines) {
            let rounds = if name.is_empty() { each } else { SLOW };
            engine.cycles(rounds, Network::None, none);
            engine.cycles(rounds, Network::Published, published);
        }
    }
    let p50 = |samples: &[f64]| Samples::new(samples.to_vec()).percentile(50.0);
    for ((none, published), (name, _)) in found.iter().zip(&engines) {
        for (what, samples) in [
            ("cycle, none", &none.whole),
            ("cycle, published", &published.whole),
            ("start, none", &none.start),
            ("start, published", &published.start),
        ] {
            figures.time(&format!("{name}{what}"), &Samples::new(samples.clone()));
        }
    }
    figures.ratio("cycle, published / none", p50(&found[0].1.whole) / p50(&found[0].0.whole), Some(1.3));
    if let Some((_, reference)) = found.get(1) {
        figures.at_least("cycle, published: times faster", p50(&reference.whole) / p50(&found[0].1.whole), Some(30.0));
    }
    let what = (Network::Published, "cycles per second, 8 clients, published", 140.0);
    let _ = load::busy(scale.starts, own, what, figures);
    engines.iter().for_each(|(_, engine)| engine.remove_bench_network());
}
