//! Words and their values: `tests/data/words.txt`.

use dockerfile::shell::{Env, Lexer};

const WORDS: &str = include_str!("../data/words.txt");

fn env() -> Env {
    let mut env = Env::default();
    for (name, value) in [("A", ""), ("B", "b"), ("P", "/home"), ("F", "a.b.c"), ("S", "a  b"), ("K", "한국어")] {
        env.set(name, value);
    }
    env
}

#[test]
fn words_have_values() {
    for line in WORDS.lines().filter(|line| !line.starts_with('#')) {
        let (word, value) = line.split_once(" |").unwrap();
        let value = value.strip_prefix(' ').unwrap_or(value);
        let found = Lexer::new('\\').word(word, &env()).ok();
        assert_eq!(found.as_deref(), Some(value).filter(|value| *value != "!"), "{word}");
    }
}

#[test]
fn words_are_split_at_blanks_that_are_not_quoted() {
    let mut env = env();
    env.set("L", "  ab c");
    for (text, words) in [
        ("hello${S}bye", vec!["helloa", "bbye"]),
        ("hello\"${S}\"bye", vec!["helloa  bbye"]),
        ("hello \"${S}\"bye", vec!["hello", "a  bbye"]),
        ("hello${L}def", vec!["hello", "ab", "cdef"]),
        ("hello\"${L}\" def", vec!["hello  ab c", "def"]),
        ("hello\" there  \"", vec!["hello there  "]),
        ("hello     there", vec!["hello", "there"]),
        ("hello\\ there", vec!["hello there"]),
        ("80${N:-80} 1", vec!["8080", "1"]),
        ("", vec![]),
    ] {
        assert_eq!(Lexer::new('\\').expand(text, &env).unwrap().words, words, "{text}");
    }
}

#[test]
fn another_character_may_escape() {
    let lexer = Lexer::new('`');
    for (word, value) in [("a`$B\\$B", "a$B\\b"), ("\"`\"\"", "\""), ("${N:-`}}", "}"), ("C:\\a`", "C:\\a")] {
        assert_eq!(lexer.word(word, &env()).unwrap(), value, "{word}");
    }
}

#[test]
fn errors_name_the_word() {
    for (word, why) in [
        ("a$B'", "failed to process \"a$B'\": unexpected end of statement while looking for matching single-quote"),
        ("${N?}", "failed to process \"${N?}\": N: is not allowed to be unset"),
        ("${A:?}", "failed to process \"${A:?}\": A: is not allowed to be empty"),
        ("${A:?no}", "failed to process \"${A:?no}\": A: no"),
        ("${A:=b}", "failed to process \"${A:=b}\": unsupported modifier (:=) in substitution"),
        ("${A!}", "failed to process \"${A!}\": unsupported modifier (!) in substitution"),
        ("${A", "failed to process \"${A\": unsupported modifier (\u{fffd}) in substitution"),
        ("${A:-", "failed to process \"${A:-\": syntax error: missing '}'"),
        ("${A/b}", "failed to process \"${A/b}\": syntax error: missing '/' in ${}"),
        ("${}", "failed to process \"${}\": syntax error: bad substitution"),
        (
            "${F//\\a/b}",
            "failed to process \"${F//\\\\a/b}\": invalid pattern (\\a) in substitution: invalid escape '\\a'",
        ),
    ] {
        assert_eq!(Lexer::new('\\').word(word, &env()).unwrap_err().message(), why);
    }
}

#[test]
fn nesting_has_an_end() {
    let deep = |depth: usize| "${N:-".repeat(depth) + "x" + &"}".repeat(depth);
    assert_eq!(Lexer::new('\\').word(&deep(50), &env()).unwrap(), "x");
    let error = Lexer::new('\\').word(&deep(100_000), &env()).unwrap_err();
    assert!(error.message().ends_with("syntax error: too many substitutions within each other"));
}
