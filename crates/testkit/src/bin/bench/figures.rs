//! Figures with their budgets: percentiles, a table, JSON.

use std::fmt;

use serde_json::{Value, json};

/// Measurements in microseconds, sorted.
#[derive(Clone, Debug)]
pub struct Samples {
    sorted: Vec<f64>,
}

impl Samples {
    /// At least one measurement.
    pub fn new(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        Self { sorted: values }
    }

    /// The value below which `percent` of the measurements lie.
    pub fn percentile(&self, percent: f64) -> f64 {
        let at = (percent / 100.0 * (self.sorted.len() - 1) as f64).round() as usize;
        self.sorted[at.min(self.sorted.len() - 1)]
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.2} ms, p99 {:.2} ms", self.percentile(50.0) / 1000.0, self.percentile(99.0) / 1000.0)
    }
}

/// Which side of the budget is good.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    AtMost,
    AtLeast,
}

/// One line of the table.
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// 99th percentile, for times.
    p99: Option<f64>,
    budget: Option<(Side, f64)>,
}

impl Figure {
    fn holds(&self) -> bool {
        match self.budget {
            Some((Side::AtMost, limit)) => self.value <= limit,
            Some((Side::AtLeast, limit)) => self.value >= limit,
            None => true,
        }
    }
}

/// All figures of a run.
#[derive(Default)]
pub struct Figures {
    list: Vec<Figure>,
}

impl Figures {
    fn add(&mut self, name: &str, value: f64, unit: &'static str, budget: Option<(Side, f64)>) {
        self.list.push(Figure { name: name.into(), value, unit, p99: None, budget });
    }

    /// A latency, p50 and p99.
    pub fn time(&mut self, name: &str, samples: &Samples) {
        self.add(name, samples.percentile(50.0) / 1000.0, "ms", None);
        self.list.last_mut().expect("just added").p99 = Some(samples.percentile(99.0) / 1000.0);
    }

    /// A latency of which one percentile has a budget in milliseconds.
    pub fn time_within(&mut self, name: &str, samples: &Samples, percent: f64, budget: f64) {
        self.add(
            &format!("{name}, p{percent}"),
            samples.percentile(percent) / 1000.0,
            "ms",
            Some((Side::AtMost, budget)),
        );
    }

    /// A ratio that must not exceed its budget.
    pub fn ratio(&mut self, name: &str, value: f64, budget: Option<f64>) {
        self.add(name, value, "×", budget.map(|limit| (Side::AtMost, limit)));
    }

    /// A figure that must reach its budget.
    pub fn at_least(&mut self, name: &str, value: f64, budget: Option<f64>) {
        self.add(name, value, "", budget.map(|limit| (Side::AtLeast, limit)));
    }

    /// A figure that must not exceed its budget.
    pub fn at_most(&mut self, name: &str, value: f64, unit: &'static str, budget: Option<f64>) {
        self.add(name, value, unit, budget.map(|limit| (Side::AtMost, limit)));
    }

    /// How many are on the wrong side.
    pub fn over_budget(&self) -> usize {
        self.list.iter().filter(|figure| !figure.holds()).count()
    }

    /// The table.
    pub fn print(&self) {
        println!("\n{:<44}{:>12}{:>12}{:>16}", "", "figure", "p99", "budget");
        for figure in &self.list {
            let p99 = figure.p99.map_or(String::new(), |p99| format!("{p99:.2}"));
            let budget = figure.budget.map_or(String::new(), |(side, limit)| {
                format!("{} {limit}", if side == Side::AtMost { "≤" } else { "≥" })
            });
            let mark = if figure.holds() { "" } else { "  OVER" };
            println!("{:<44}{:>9.2} {:<2}{p99:>12}{budget:>16}{mark}", figure.name, figure.value, figure.unit);
        }
    }

    /// The same as JSON.
    pub fn json(&self) -> String {
        let list: Vec<Value> = self
            .list
            .iter()
            .map(|f| {
                json!({
                    "name": f.name,
                    "value": f.value,
                    "unit": f.unit,
                    "p99": f.p99,
                    "budget": f.budget.map(|(_, limit)| limit),
                    "holds": f.holds(),
                })
            })
            .collect();
        serde_json::to_string_pretty(&list).expect("figures always encode") + "\n"
    }
}
