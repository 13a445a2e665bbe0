//! Which rules count (`# check=skip=…;error=true;experimental=…`), and what was found.

use std::collections::BTreeSet;

use super::rule::Rule;
use crate::error::{Error, Result};
use crate::lines::Lines;
use crate::parse::directive_in_comment;
use crate::text::{boolean, quote};

/// Options of one directive.
const MAX_OPTIONS: usize = 3;
/// Findings that are kept; a file with more of them is not read to the end by anybody.
const MAX_WARNINGS: usize = 10_000;
const ALL: &str = "all";

/// Some rules, or all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rules {
    all: bool,
    names: BTreeSet<String>,
}

impl Rules {
    fn parse(text: &str) -> Rules {
        match text.trim() {
            ALL => Rules { all: true, names: BTreeSet::new() },
            list => Rules { all: false, names: list.split(',').map(|name| name.trim().to_owned()).collect() },
        }
    }

    fn has(&self, rule: &Rule) -> bool {
        self.all || self.names.contains(rule.name)
    }
}

/// The value of the directive `check`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    skip: Rules,
    experimental: Rules,
    error: bool,
}

impl Settings {
    /// Reads `skip=A,B;error=true;experimental=all`; empty is no wish at all.
    pub fn parse(text: &str) -> Result<Settings> {
        let mut settings = Settings::default();
        let text = text.trim();
        for option in text.splitn(MAX_OPTIONS, ';').filter(|_| !text.is_empty()) {
            let invalid = |name: &str| Error::new(format!("invalid check option {}", quote(name)));
            let (name, value) = option.split_once('=').ok_or_else(|| invalid(option))?;
            match name.trim() {
                "skip" => settings.skip = Rules::parse(value),
                "experimental" => settings.experimental = Rules::parse(value),
                "error" => {
                    let value = value.trim();
                    settings.error = boolean(value).ok_or_else(|| {
                        let why = format!("strconv.ParseBool: parsing {}: invalid syntax", quote(value));
                        Error::new(why).prefix(format!("failed to parse check option {}", quote(option)))
                    })?;
                }
                other => return Err(invalid(other)),
            }
        }
        Ok(settings)
    }

    /// Whether a finding of this rule is told, at an instruction with such comments above it.
    fn wants(&self, rule: &Rule, comments: &[String]) -> bool {
        let above = comments.iter().find_map(|comment| directive_in_comment(comment));
        let above = above.and_then(|text| Settings::parse(&text).ok()).unwrap_or_default();
        match rule.experimental {
            true => self.experimental.has(rule) || above.experimental.has(rule),
            false => !self.skip.has(rule) && !above.skip.has(rule),
        }
    }
}

/// Where something was found.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The instruction's.
    pub lines: Lines,
    /// Those above it, which may hold a directive for it alone.
    pub comments: &'a [String],
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it breaks.
    pub rule: &'static Rule,
    /// In words.
    pub message: String,
    /// Where.
    pub lines: Lines,
}

impl Warning {
    /// As a build shows it: `Rule: message (line 3)`.
    pub fn short(&self) -> String {
        let line = match self.lines.first {
            0 => String::new(),
            line => format!(" (line {line})"),
        };
        format!("{}: {}{line}", self.rule.name, self.message)
    }
}

/// Collects findings.
#[derive(Clone, Debug, Default)]
pub struct Linter {
    settings: Settings,
    warnings: Vec<Warning>,
}

impl Linter {
    /// With the settings of a file or of a request.
    pub fn new(settings: Settings) -> Linter {
        Linter { settings, warnings: Vec::new() }
    }

    /// Notes a finding, unless its rule does not count here.
    pub fn report(&mut self, rule: &'static Rule, place: Place<'_>, message: impl Into<String>) {
        if self.warnings.len() < MAX_WARNINGS && self.settings.wants(rule, place.comments) {
            self.warnings.push(Warning { rule, message: message.into(), lines: place.lines });
        }
    }

    /// Everything found, in the order in which it was.
    pub fn into_warnings(self) -> Vec<Warning> {
        self.warnings
    }

    /// An error where findings are to be errors and there are some.
    pub fn verdict(&self) -> Result<()> {
        let names: BTreeSet<&str> = self.warnings.iter().map(|warning| warning.rule.name).collect();
        if !self.settings.error || names.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = names.into_iter().collect();
        Err(Error::new(format!("lint violation found for rules: {}", names.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::rule;

    #[test]
    fn settings_name_rules() {
        let settings = Settings::parse(" skip=StageNameCasing, FromAsCasing;error=1;experimental=all ").unwrap();
        assert!(settings.error);
        assert!(!settings.wants(&rule::FROM_AS_CASING, &[]));
        assert!(settings.wants(&rule::UNDEFINED_VAR, &[]));
        assert!(!settings.wants(&rule::UNDEFINED_VAR, &["check=skip=all".into()]));
        assert!(settings.wants(&rule::INVALID_DEFINITION_DESCRIPTION, &[]));
        for (text, why) in [
            ("skip", "invalid check option \"skip\""),
            ("skop=A", "invalid check option \"skop\""),
            (
                "error=ja",
                "failed to parse check option \"error=ja\": strconv.ParseBool: parsing \"ja\": invalid syntax",
            ),
        ] {
            assert_eq!(Settings::parse(text).unwrap_err().message(), why);
        }
    }

    #[test]
    fn findings_become_an_error_where_that_is_wanted() {
        let place = Place { lines: Lines::new(3, 3), comments: &[] };
        let mut linter = Linter::new(Settings::parse("error=true").unwrap());
        assert!(linter.verdict().is_ok());
        linter.report(&rule::UNDEFINED_VAR, place, "b");
        linter.report(&rule::FROM_AS_CASING, place, "a");
        let why = "lint violation found for rules: FromAsCasing, UndefinedVar";
        assert_eq!(linter.verdict().unwrap_err().message(), why);
        assert_eq!(linter.into_warnings()[0].short(), "UndefinedVar: b (line 3)");
    }
}
