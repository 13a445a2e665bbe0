//! `gantry-bench images`: pull, unpack, list, save and load, beside another engine when its socket is given.
//!
//! Both engines pull the same images from Debian's registry, which runs in the network namespace of whoever is measured.
//! Every figure of the other engine is taken in turn with Gantry's in the same run.

mod broken;
mod make;
mod registry;
mod side;
mod store;
mod unpack;

use testkit::Daemon;

use self::make::{Shape, Store};
use self::side::{Cost, Side};
use crate::figures::Figures;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Scale {
    name: &'static str,
    shapes: [Shape; 3],
    rounds: usize,
    listed: usize,
}

const fn shape(name: &'static str, layers: usize, bytes: u64) -> Shape {
    Shape { name, layers, bytes }
}

const SMALL: Shape = shape("small", 40, 60_000);

/// Full size.
pub const FULL: Scale = Scale {
    name: "full",
    shapes: [shape("ten", 10, 30_000_000), shape("one", 1, 300_000_000), SMALL],
    rounds: 2,
    listed: 2000,
};
/// A fifth of it.
pub const QUICK: Scale = Scale {
    name: "quick",
    shapes: [shape("ten", 10, 6_000_000), shape("one", 1, 60_000_000), SMALL],
    rounds: 3,
    listed: 2000,
};

/// What the other engine must take more of: times of the pull, and how much of its processor time is allowed.
const BUDGETS: [(f64, Option<f64>); 3] = [(3.5, Some(0.4)), (2.0, None), (4.0, None)];
/// Peak of the daemon's memory.
const PEAK: f64 = 120.0;

/// Everything.
pub fn run(scale: Scale, other: Option<&str>, figures: &mut Figures) {
    let store = Store::of(scale.name, &scale.shapes, scale.rounds);
    let daemon = Daemon::start();
    let own = Side::new("", &daemon.socket(), &store);
    let other = other.map(|address| Side::new("other: ", address.trim_start_matches("unix://").as_ref(), &store));
    let sides: Vec<&Side> = std::iter::once(&own).chain(&other).collect();
    let mut peak: f64 = 0.0;
    for (made, budgets) in store.images.iter().zip(BUDGETS) {
        // Each round pulls a tag of its own and nothing is removed meanwhile: ext4 makes files slowly for a minute after
        // as many were removed.
        let costs = side::in_turn(scale.rounds, &sides, |side, round| side.pull(made.shape.name, round));
        let name = format!("pull {} × {:.2} MB", made.shape.layers, made.bytes as f64 / 1e6 / made.shape.layers as f64);
        report(&name, &sides, &costs, budgets, figures);
        peak = peak.max(costs[0].peak);
    }
    peak = peak.max(store::save_and_load(scale.rounds, &sides, &store.images[0], figures));
    figures.at_most("daemon's peak RSS", peak, "MB", Some(PEAK));
    unpack::against_tar(scale.rounds, &store, figures);
    for (made, side) in store.images.iter().flat_map(|made| sides.iter().map(move |side| (made, side))) {
        // The first tag of the first was saved, loaded and removed.
        let first = if made.shape.name == store.images[0].shape.name { 2 } else { 1 };
        (first..=scale.rounds).for_each(|tag| side.remove(made.shape.name, tag));
    }
    drop((own, other));
    store::list(scale.listed, &daemon, figures);
    daemon.finish();
    broken::off(figures);
}

/// The figures of one measurement, and their ratios.
fn report(name: &str, sides: &[&Side], costs: &[Cost], (faster, processor): (f64, Option<f64>), figures: &mut Figures) {
    for (side, cost) in sides.iter().zip(costs) {
        // The table comes at the end, minutes from now.
        println!("{}{name}: {:.2} s, {:.2} s CPU, {:.0} MB", side.name, cost.seconds, cost.processor, cost.peak);
        figures.at_most(&format!("{}{name}", side.name), cost.seconds, "s", None);
        figures.at_most(&format!("{}{name}, CPU", side.name), cost.processor, "s", None);
        figures.at_most(&format!("{}{name}, peak RSS", side.name), cost.peak, "MB", None);
    }
    if let [own, other] = costs {
        figures.at_least(&format!("{name}: times faster"), other.seconds / own.seconds, Some(faster));
        figures.ratio(&format!("{name}: CPU"), own.processor / other.processor.max(0.01), processor);
    }
}
