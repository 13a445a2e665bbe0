//! Named points at which a test can make an operation fail.
//!
//! An operation passes a point after each of its steps; the point's name is `<operation>.<step>`. Nothing is armed
//! unless the daemon was built for tests and given a rule ([`Faults::new`]): then a point fails when the rule says so,
//! and undo actions run twice, which shows that they can. Pure: where the rule comes from is its maker's concern.

use std::fmt;
use std::sync::Arc;

use crate::{Error, Result};

type Rule = dyn Fn(&str) -> bool + Send + Sync;

/// The rule of a test, or none.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Rule>>);

impl Faults {
    /// Points fail of which `rule` says so.
    pub fn new(rule: impl Fn(&str) -> bool + Send + Sync + 'static) -> Faults {
        Faults(Some(Arc::new(rule)))
    }

    /// Whether there is a rule.
    pub fn is_armed(&self) -> bool {
        self.0.is_some()
    }

    /// The step `step` of `operation` is done; an error ([`crate::Kind::System`]) when it is to fail.
    pub fn pass(&self, operation: &str, step: &str) -> Result<()> {
        let Some(rule) = &self.0 else { return Ok(()) };
        let point = format!("{operation}.{step}");
        if rule(&point) { Err(Error::system(format!("the test made {point} fail"))) } else { Ok(()) }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faults(armed: {})", self.is_armed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_rule_names_fails() {
        assert!(Faults::default().pass("start", "network").is_ok());
        let faults = Faults::new(|point| point == "start.network");
        assert!(faults.pass("start", "files").is_ok());
        assert_eq!(faults.pass("start", "network").unwrap_err().message(), "the test made start.network fail");
    }
}
