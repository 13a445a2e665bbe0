//! Flags behind a keyword: `--name`, `--name=value`.

use crate::error::{Error, Result};
use crate::suggest::{Case, with_suggestion};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// `true`, `false` or nothing.
    Switch,
    /// A value.
    Value,
    /// A value each time it is given.
    Values,
}

/// The flags that were given.
#[derive(Debug, Default)]
pub(super) struct Flags {
    given: Vec<(String, String)>,
}

impl Flags {
    /// Reads flags, of which only these are known.
    pub(super) fn read(words: &[String], known: &[(&'static str, Takes)]) -> Result<Flags> {
        let mut flags = Flags::default();
        for word in words {
            let Some(flag) = word.strip_prefix("--") else {
                return Err(Error::new(format!("arg should start with -- : {word}")));
            };
            let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            let Some((_, takes)) = known.iter().find(|(known, _)| *known == name) else {
                let error = Error::new(format!("unknown flag: --{name}"));
                return Err(with_suggestion(error, name, known.iter().map(|(name, _)| *name), Case::Sensitive));
            };
            if *takes != Takes::Values && flags.value(name).is_some() {
                return Err(Error::new(format!("duplicate flag specified: --{name}")));
            }
            let missing = || Error::new(format!("missing a value on flag: --{name}"));
            let value = match (takes, value) {
                (Takes::Switch, Some("")) => return Err(missing()),
                (Takes::Switch, value) => match value.unwrap_or("true").to_lowercase().as_str() {
                    truth @ ("true" | "false") => truth.to_owned(),
                    _ => {
                        let value = value.unwrap_or_default();
                        let why = format!("expecting boolean value for flag --{name}, not: {value}");
                        return Err(Error::new(why));
                    }
                },
                (_, value) => value.ok_or_else(missing)?.to_owned(),
            };
            flags.given.push((name.to_owned(), value));
        }
        Ok(flags)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The value; empty if it was not given.
    pub(super) fn text(&self, name: &str) -> String {
        self.value(name).unwrap_or_default().to_owned()
    }

    /// Each value.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        self.given.iter().filter(|(given, _)| given == name).map(|(_, value)| value.clone()).collect()
    }

    /// Of a switch; `None` if it was not given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.value(name).map(|value| value == "true")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [(&str, Takes); 3] = [("link", Takes::Switch), ("from", Takes::Value), ("mount", Takes::Values)];

    fn read(text: &str) -> Result<Flags> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Flags::read(&words, &KNOWN)
    }

    #[test]
    fn flags_have_values() {
        let flags = read("--link --from=a=b --mount=x --mount=y").unwrap();
        assert_eq!((flags.switch("link"), flags.text("from").as_str()), (Some(true), "a=b"));
        assert_eq!(flags.list("mount"), ["x", "y"]);
        assert_eq!(read("--link=FALSE").unwrap().switch("link"), Some(false));
        assert_eq!(read("").unwrap().switch("link"), None);
    }

    #[test]
    fn flags_are_refused() {
        for (text, why) in [
            ("--mont=x", "unknown flag: --mont (did you mean mount?)"),
            ("--link --link", "duplicate flag specified: --link"),
            ("--link=", "missing a value on flag: --link"),
            ("--from", "missing a value on flag: --from"),
            ("--link=no", "expecting boolean value for flag --link, not: no"),
        ] {
            assert_eq!(read(text).unwrap_err().message(), why);
        }
    }
}
