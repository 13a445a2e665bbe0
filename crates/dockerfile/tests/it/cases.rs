//! Small cases with exact results: `tests/data/cases.txt`.
//!
//! A case is `=== name`, lines `key: value`, `---` and a Dockerfile. Keys: `attribute` (`name=value` of the request),
//! `file` (`path=content`), `history` (rows from the top), `config` (members of the configuration that have to be
//! these; `null`: it has none), `title` (a step has it), `no title`, `error` (a part of the text), `line` (of it).

use serde_json::Value;

use crate::client::{World, titles};

const CASES: &str = include_str!("../data/cases.txt");

#[derive(Debug, Default)]
struct Case<'a> {
    name: &'a str,
    facts: Vec<(&'a str, &'a str)>,
    dockerfile: String,
}

impl<'a> Case<'a> {
    fn read(text: &'a str) -> Case<'a> {
        let (head, dockerfile) = text.split_once("\n---\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let name = lines.next().unwrap();
        let facts = lines
            .filter(|line| !line.is_empty())
            .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{name}: {line:?} is no fact")));
        Case { name, facts: facts.collect(), dockerfile: dockerfile.to_owned() }
    }

    fn all(&self, key: &str) -> Vec<String> {
        let of = self.facts.iter().filter(|(known, _)| *known == key);
        of.map(|(_, value)| value.replace("\\n", "\n").replace("\\t", "\t")).collect()
    }

    fn check(&self) {
        let mut world = World::new(self.dockerfile.trim_end_matches('\n'));
        for attribute in self.all("attribute") {
            let (key, value) = attribute.split_once('=').unwrap();
            world = world.with(key, value);
        }
        for file in self.all("file") {
            let (path, content) = file.split_once('=').unwrap();
            world = world.file(path, content);
        }
        let errors = self.all("error");
        if !errors.is_empty() {
            let failure = world.refused();
            for error in errors {
                let message = failure.error.message();
                assert!(message.contains(&error), "{}: {message:?} without {error:?}", self.name);
            }
            for line in self.all("line") {
                let first = failure.error.locations().first().map(|lines| lines.first.to_string());
                assert_eq!(first, Some(line), "{}: {:?}", self.name, failure.error);
            }
            return;
        }
        let build = world.build();
        let conversion = &build.results[0].conversion;
        let own = conversion.image.history.iter().filter(|row| row.created_by != "BusyBox");
        let history: Vec<String> = own.rev().map(|row| row.created_by.clone()).collect();
        let rows = self.all("history");
        assert_eq!(history[..rows.len().min(history.len())], rows[..], "{}", self.name);
        let image: Value = serde_json::from_slice(&conversion.image.encoded()).unwrap();
        for fact in self.all("config") {
            let (path, value) = fact.split_once(" = ").unwrap();
            let value: Value = serde_json::from_str(value).unwrap_or_else(|error| panic!("{}: {error}", self.name));
            let found = image.pointer(path).cloned().unwrap_or_default();
            assert_eq!(found, value, "{}: {path}", self.name);
        }
        let titles = titles(&conversion.definition);
        for title in self.all("title") {
            assert!(titles.contains(&title), "{}: no {title:?} in {titles:#?}", self.name);
        }
        for title in self.all("no title") {
            assert!(!titles.iter().any(|found| found.contains(&title)), "{}: {title:?}", self.name);
        }
    }
}

#[test]
fn dockerfiles_become_what_the_reference_makes_of_them() {
    let cases: Vec<Case<'_>> = CASES.split("=== ").skip(1).map(Case::read).collect();
    assert!(cases.len() > 80, "{}", cases.len());
    let failed = cases.iter().filter(|case| std::panic::catch_unwind(|| case.check()).is_err());
    let failed: Vec<&str> = failed.map(|case| case.name).collect();
    assert_eq!(failed, [""; 0]);
}
