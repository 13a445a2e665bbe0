//! Source policies: rules of a client by which sources of its build are refused, or others are taken in their place. Pure.
//!
//! As BuildKit has it: of the rules of one policy that allow or deny, the last one that matches counts; one that converts begins
//! the policies anew with what it has made of the source.

use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy::{
    AttrConstraint, AttrMatch, MatchType, Policy, PolicyAction, Rule, Selector,
};
use bollard_buildkit_proto::pb;
use model::{Error, Result};
use regex_lite::{Regex, RegexBuilder};

/// Rules of all policies of one build, and bytes of one pattern.
const RULES: usize = 1000;
const PATTERN: usize = 4096;
/// Bytes that a pattern may take when it is compiled.
const COMPILED: usize = 1 << 20;
/// Conversions of one source.
const CONVERSIONS: usize = 20;

/// The policies of a build.
#[derive(Debug, Default)]
pub struct Rules {
    policies: Vec<Vec<Read>>,
}

/// A rule, checked.
#[derive(Debug)]
struct Read {
    action: PolicyAction,
    rule: Rule,
    selector: Selector,
    /// Of a selector that is no exact one.
    pattern: Option<Regex>,
    constraints: Vec<(AttrConstraint, Option<Regex>)>,
}

impl Rules {
    /// Reads policies.
    ///
    /// Errors: `InvalidParameter` for what no rule can be.
    pub fn read(policies: &[Policy]) -> Result<Rules> {
        if policies.iter().map(|policy| policy.rules.len()).sum::<usize>() > RULES {
            return Err(Error::invalid(format!("source policies of more than {RULES} rules")));
        }
        let of_one = |policy: &Policy| policy.rules.iter().map(Read::new).collect::<Result<Vec<_>>>();
        Ok(Rules { policies: policies.iter().map(of_one).collect::<Result<_>>()? })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.policies.iter().all(Vec::is_empty)
    }

    /// What is to be taken in the place of a source; `None`: itself.
    ///
    /// Errors: `Forbidden` for one that is denied; `InvalidParameter` for one that is converted again and again.
    pub fn evaluate(&self, source: &pb::SourceOp) -> Result<Option<pb::SourceOp>> {
        let mut current = source.clone();
        for _ in 0..=CONVERSIONS {
            if !self.step(&mut current)? {
                return Ok((current != *source).then_some(current));
            }
        }
        Err(Error::invalid("too many mutations on a single source: too many operations"))
    }

    /// Applies the first rule that converts; whether there was one.
    fn step(&self, source: &mut pb::SourceOp) -> Result<bool> {
        for policy in &self.policies {
            let mut is_denied = false;
            for rule in policy {
                if !rule.matches(source) {
                    continue;
                }
                match rule.action {
                    PolicyAction::Allow => is_denied = false,
                    PolicyAction::Deny => is_denied = true,
                    PolicyAction::Convert if rule.convert(source)? => return Ok(true),
                    PolicyAction::Convert => {}
                }
            }
            if is_denied {
                let name = &source.identifier;
                let text = format!("source {name:?} denied by policy: source denied by policy");
                return Err(Error::forbidden(text));
            }
        }
        Ok(false)
    }
}

impl Read {
    fn new(rule: &Rule) -> Result<Read> {
        let selector = rule.selector.clone().ok_or_else(|| Error::invalid("invalid nil selector in policy rule"))?;
        let action = PolicyAction::try_from(rule.action);
        let action = action.map_err(|_| Error::invalid(format!("source policy: unknown action {}", rule.action)))?;
        if action == PolicyAction::Convert && rule.updates.is_none() {
            return Err(Error::invalid("error mutating source policy: missing destination for convert rule"));
        }
        let pattern = match MatchType::try_from(selector.match_type) {
            Ok(MatchType::Exact) => None,
            Ok(MatchType::Regex) => Some(compile(&selector.identifier)?),
            Ok(MatchType::Wildcard) => Some(wildcard(&selector.identifier)?),
            Err(_) => return Err(Error::invalid(format!("unknown match type: {}", selector.match_type))),
        };
        let constraint = |one: &AttrConstraint| match AttrMatch::try_from(one.condition) {
            Ok(AttrMatch::Matches) => Ok((one.clone(), Some(compile(&one.value)?))),
            Ok(_) => Ok((one.clone(), None)),
            Err(_) => Err(Error::invalid(format!("unknown attr condition: {}", one.condition))),
        };
        let constraints = selector.constraints.iter().map(constraint).collect::<Result<_>>()?;
        Ok(Read { action, rule: rule.clone(), selector, pattern, constraints })
    }

    fn matches(&self, source: &pb::SourceOp) -> bool {
        let holds = |(one, pattern): &(AttrConstraint, Option<Regex>)| {
            let value = source.attrs.get(&one.key).map(String::as_str).unwrap_or_default();
            match pattern {
                Some(pattern) => pattern.is_match(value),
                None => (value == one.value) == (one.condition == AttrMatch::Equal as i32),
            }
        };
        self.constraints.iter().all(holds)
            && (self.selector.identifier == source.identifier
                || self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(&source.identifier)))
    }

    /// Makes of the source what the rule says; whether that is anything else.
    fn convert(&self, source: &mut pb::SourceOp) -> Result<bool> {
        let updates = self.rule.updates.clone().unwrap_or_default();
        let wanted = match updates.identifier.as_str() {
            "" => self.selector.identifier.as_str(),
            wanted => wanted,
        };
        let made = self.expand(&source.identifier, wanted);
        if made.len() > PATTERN {
            return Err(Error::invalid(format!("a source policy makes a name of more than {PATTERN} bytes")));
        }
        let before = source.clone();
        if !made.is_empty() {
            source.identifier = made;
        }
        source.attrs.extend(updates.attrs);
        Ok(*source != before)
    }

    /// The name with what the pattern has found of the source.
    fn expand(&self, name: &str, wanted: &str) -> String {
        match &self.pattern {
            None => wanted.to_owned(),
            Some(pattern) if self.selector.match_type == MatchType::Regex as i32 => {
                pattern.replace_all(name, wanted).into_owned()
            }
            Some(pattern) => pattern.captures(name).map_or_else(
                || name.to_owned(),
                |found| {
                    let mut made = String::new();
                    found.expand(wanted, &mut made);
                    made
                },
            ),
        }
    }
}

fn compile(pattern: &str) -> Result<Regex> {
    if pattern.len() > PATTERN {
        return Err(Error::invalid(format!("a pattern of more than {PATTERN} bytes in a source policy")));
    }
    let built = RegexBuilder::new(pattern).size_limit(COMPILED).build();
    built.map_err(|error| Error::invalid(format!("error matching source policy: invalid regex {pattern:?}: {error}")))
}

/// A name with `*` for anything.
fn wildcard(name: &str) -> Result<Regex> {
    if name.contains("**") {
        let text = format!("failed to translate wildcard {name:?} to regexp: invalid wildcard: \"**\"");
        return Err(Error::invalid(format!("error matching source policy: {text}")));
    }
    let parts: Vec<String> = name.split('*').map(regex_lite::escape).collect();
    compile(&format!("^{}$", parts.join("(.*)")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy::Update;

    fn selector(kind: MatchType, name: &str) -> Selector {
        Selector { identifier: name.into(), match_type: kind.into(), constraints: Vec::new() }
    }

    fn rule(action: PolicyAction, selector: Selector, to: Option<&str>) -> Rule {
        let updates = to.map(|to| Update { identifier: to.into(), attrs: Default::default() });
        Rule { action: action.into(), selector: Some(selector), updates }
    }

    fn evaluate(rules: Vec<Rule>, name: &str) -> Result<String> {
        let source = pb::SourceOp { identifier: name.into(), attrs: Default::default() };
        let made = Rules::read(&[Policy { version: 1, rules }])?.evaluate(&source)?;
        Ok(made.unwrap_or(source).identifier)
    }

    #[test]
    fn the_last_rule_that_matches_counts() {
        use MatchType::{Exact, Wildcard};
        use PolicyAction::{Allow, Deny};
        let all = || selector(Wildcard, "docker-image://*");
        let one = || selector(Exact, "docker-image://a");
        let denied = "source \"docker-image://a\" denied by policy: source denied by policy";
        let text = |rules| evaluate(rules, "docker-image://a").map_err(|error| error.message().to_owned());
        assert_eq!(text(vec![rule(Deny, all(), None)]).unwrap_err(), denied);
        assert!(text(vec![rule(Deny, all(), None), rule(Allow, one(), None)]).is_ok());
        assert_eq!(text(vec![rule(Allow, one(), None), rule(Deny, all(), None)]).unwrap_err(), denied);
        assert!(text(vec![rule(Deny, selector(Exact, "docker-image://*"), None)]).is_ok());
        assert!(evaluate(vec![rule(Deny, all(), None)], "git://a").is_ok());
    }

    #[test]
    fn sources_are_converted_until_no_rule_changes_them() {
        use MatchType::{Exact, Regex, Wildcard};
        use PolicyAction::{Convert, Deny};
        let convert = |kind, from, to| rule(Convert, selector(kind, from), Some(to));
        let made = |rules| evaluate(rules, "docker-image://golang:1.19").map_err(|error| error.message().to_owned());
        assert_eq!(
            made(vec![convert(Wildcard, "docker-image://golang:*", "docker-image://go:${1}-x")]).unwrap(),
            "docker-image://go:1.19-x"
        );
        assert_eq!(made(vec![convert(Regex, "golang:(?P<v>[0-9.]+)$", "go:v$v")]).unwrap(), "docker-image://go:v1.19");
        let two = vec![
            convert(Exact, "docker-image://golang:1.19", "docker-image://b"),
            convert(Exact, "docker-image://b", "docker-image://c"),
        ];
        assert_eq!(made(two).unwrap(), "docker-image://c");
        let denied = vec![
            convert(Exact, "docker-image://golang:1.19", "docker-image://b"),
            rule(Deny, selector(Exact, "docker-image://b"), None),
        ];
        assert!(made(denied).unwrap_err().contains("\"docker-image://b\" denied"));
        let circle = vec![convert(Wildcard, "docker-image://*", "docker-image://${1}x")];
        assert!(made(circle).unwrap_err().starts_with("too many mutations"));
    }

    #[test]
    fn attributes_are_looked_at_and_set() {
        let constraint = |condition: AttrMatch, value: &str| AttrConstraint {
            key: "k".into(),
            value: value.into(),
            condition: condition.into(),
        };
        let matches = |constraint: AttrConstraint, value: &str| {
            let mut selector = selector(MatchType::Wildcard, "*");
            selector.constraints.push(constraint);
            let rules = vec![rule(PolicyAction::Deny, selector, None)];
            let source = pb::SourceOp { identifier: "x".into(), attrs: [("k".into(), value.into())].into() };
            Rules::read(&[Policy { version: 1, rules }]).unwrap().evaluate(&source).is_err()
        };
        assert!(matches(constraint(AttrMatch::Equal, "a"), "a") && !matches(constraint(AttrMatch::Equal, "a"), "b"));
        assert!(!matches(constraint(AttrMatch::Notequal, "a"), "a"));
        assert!(matches(constraint(AttrMatch::Matches, "^a+$"), "aaa"));
        let update = Update { identifier: String::new(), attrs: [("k".into(), "v".into())].into() };
        let set = Rule {
            action: PolicyAction::Convert.into(),
            selector: Some(selector(MatchType::Exact, "x")),
            updates: Some(update),
        };
        let source = pb::SourceOp { identifier: "x".into(), attrs: Default::default() };
        let made = Rules::read(&[Policy { version: 1, rules: vec![set] }]).unwrap().evaluate(&source).unwrap();
        assert_eq!(made.unwrap().attrs["k"], "v");
    }

    #[test]
    fn rules_that_are_none_are_refused() {
        let text = |rule| evaluate(vec![rule], "x").map_err(|error| error.message().to_owned()).unwrap_err();
        assert!(text(Rule::default()).contains("nil selector"));
        assert!(
            text(rule(PolicyAction::Convert, selector(MatchType::Exact, "x"), None)).contains("missing destination")
        );
        assert!(text(rule(PolicyAction::Deny, selector(MatchType::Regex, "("), None)).contains("invalid regex"));
        assert!(
            text(rule(PolicyAction::Deny, selector(MatchType::Wildcard, "a**"), None)).contains("invalid wildcard")
        );
        let many = vec![rule(PolicyAction::Allow, selector(MatchType::Exact, "x"), None); RULES + 1];
        assert!(evaluate(many, "x").is_err());
    }
}
