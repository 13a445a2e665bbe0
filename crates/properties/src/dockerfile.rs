//! Dockerfiles, words with variables, patterns of ignored files, definitions of clients.

use std::collections::BTreeMap;

use ::dockerfile::ignore::{Matcher, Matches, ignore_patterns};
use ::dockerfile::shell::{Env, Escapes, Lexer, Quotes, Unset};
use ::dockerfile::{Answer, Answers, ImageAnswer, Outcome, Question, Request, answer, llb, parse};
use model::platform::Platform;

/// Rounds of questions.
const MAX_ROUNDS: usize = 20;
/// An image without anything.
const IMAGE: &[u8] = br#"{"architecture":"amd64","os":"linux","config":{"OnBuild":["RUN true"]},
    "rootfs":{"type":"layers","diff_ids":["sha256:a"]}}"#;

/// A file is refused with a text, or becomes a definition whose vertices take only what is in it, under their names.
pub fn dockerfile(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(document) = parse::parse(&text) {
        let count = text.matches('\n').count() as u32 + 1;
        let mut last = 0;
        for node in &document.nodes {
            // Instructions stand one behind the other.
            assert!(last < node.lines.first && node.lines.first <= node.lines.last, "{:?}", node.lines);
            assert!(node.lines.last <= count, "{:?} of {count}", node.lines);
            last = node.lines.last;
        }
    }
    let mut request = Request { platforms: vec![Platform::new("linux", "amd64", "")], ..Request::default() };
    for (key, value) in [("context:named", "local:named"), ("build-arg:A", "a b"), ("no-cache", "a")] {
        request.attributes.insert(key.into(), value.into());
    }
    built(&request, bytes);
    request.attributes.insert("requestid".into(), "frontend.lint".into());
    built(&request, bytes);
}

fn built(request: &Request, bytes: &[u8]) {
    let mut answers = Answers::default();
    for _ in 0..MAX_ROUNDS {
        let outcome = match answer(request, &answers) {
            Ok(outcome) => outcome,
            Err(failure) => {
                assert!(!failure.error.message().is_empty());
                return;
            }
        };
        match outcome {
            Outcome::Asks(questions) => {
                assert!(!questions.is_empty(), "asks for nothing");
                for question in questions {
                    let answer = known(&question, bytes);
                    answers.insert(&question, answer);
                }
            }
            Outcome::Build(build) => {
                let conversion = &build.results[0].conversion;
                whole(&conversion.definition);
                let encoded = conversion.image.encoded();
                let again = ::dockerfile::Image::read(&encoded).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(again, conversion.image);
                return;
            }
            Outcome::Answer(told) => {
                let json: Result<serde_json::Value, _> = serde_json::from_slice(&told["result.json"]);
                assert!(json.is_ok());
                return;
            }
            Outcome::Forward(..) => return,
        }
    }
    panic!("asks without end");
}

fn known(question: &Question, bytes: &[u8]) -> Answer {
    match question {
        Question::File { path, .. } => Answer::File(Ok((path == "Dockerfile").then(|| bytes.to_vec()))),
        Question::Image(question) => Answer::Image(Ok(ImageAnswer {
            reference: question.reference.clone(),
            digest: String::new(),
            config: IMAGE.to_vec(),
        })),
    }
}

/// Every vertex is there before it is taken from.
fn whole(definition: &llb::Definition) {
    let mut graph = llb::Graph::default();
    let result = graph.import(definition).unwrap_or_else(|error| panic!("{error}"));
    let again = graph.definition(result, None);
    assert_eq!(again.def, definition.def);
    let names: BTreeMap<String, ()> = definition.def.iter().map(|op| (llb::name(op).to_string(), ())).collect();
    assert!(definition.metadata.keys().all(|name| names.contains_key(name)));
}

/// A text is refused or has a value, and that without variables, quotes and escapes is itself.
pub fn words(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut env = Env::default();
    for (name, value) in [("A", ""), ("B", "b"), ("C", "a.b*c/d"), ("D", " x  y ")] {
        env.set(name, value);
    }
    for quotes in [Quotes::Removed, Quotes::Kept, Quotes::Ordinary] {
        for (escapes, unset) in [(Escapes::Removed, Unset::Empty), (Escapes::Kept, Unset::Kept)] {
            let lexer = Lexer { escape: '\\', quotes, escapes, unset };
            let Ok(found) = lexer.expand(&text, &env) else { continue };
            assert!(found.words.iter().all(|word| !word.is_empty()), "{found:?}");
            if !text.contains(['$', '\\', '\'', '"']) {
                assert_eq!(found.text, text);
                let words: Vec<&str> = text.split_whitespace().collect();
                // A document's name belongs to its mark, whatever is between.
                assert!(text.contains("<<") || found.words == words, "{found:?}");
            }
            assert!(found.used.iter().all(|name| ["A", "B", "C", "D"].contains(&name.as_str())), "{found:?}");
        }
    }
}

/// The first line is a path, the others are patterns: what is known of the directories above changes no answer where
/// there is no exception.
pub fn ignore_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (path, file) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(patterns) = ignore_patterns(file.as_bytes()) else { return };
    assert!(patterns.iter().all(|pattern| !pattern.is_empty()), "{patterns:?}");
    let Ok(matcher) = Matcher::new(&patterns) else { return };
    let path = model::mount::clean(path);
    let path = path.trim_start_matches('/');
    if path.is_empty() || path.starts_with('.') {
        return;
    }
    let found = matcher.matches(path);
    assert_eq!(matcher.within(path, &Matches::default()).0, found, "{patterns:?} {path:?}");
    if matcher.has_exceptions() {
        return;
    }
    let mut above = Matches::default();
    let mut below = false;
    for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
        (below, above) = matcher.within(&path[..at], &above);
    }
    assert_eq!(below, found, "{patterns:?} {path:?}");
}

/// A definition of a client is refused, or is the same when it is written down again.
pub fn definition(bytes: &[u8]) {
    let Some(definition) = llb::decode(bytes) else { return };
    let mut graph = llb::Graph::default();
    let Ok(result) = graph.import(&definition) else { return };
    let again = graph.definition(result, None);
    assert!(again.def.len() <= definition.def.len() + 1);
    let mut twice = llb::Graph::default();
    if let Ok(result) = twice.import(&again) {
        assert_eq!(twice.definition(result, None).def, again.def);
    }
}
