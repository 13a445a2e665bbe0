//! Resource limits of processes by name: `nofile=1024:2048`.

use std::fmt;

use crate::{Error, Result};

/// The names that can be limited.
pub const NAMES: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// A limit; -1 is "unlimited".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// Of [`NAMES`].
    pub name: String,
    /// What the process gets.
    pub soft: i64,
    /// What it may raise it to.
    pub hard: i64,
}

impl Ulimit {
    /// From `name=soft[:hard]`.
    pub fn parse(text: &str) -> Result<Ulimit> {
        let (name, limits) =
            text.split_once('=').ok_or_else(|| Error::invalid(format!("invalid ulimit argument: {text}")))?;
        check_name(name)?;
        let number = |text: &str| {
            text.parse::<i64>()
                .map_err(|_| Error::invalid(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
        };
        let (soft, hard) = match limits.split(':').collect::<Vec<_>>()[..] {
            [both] => (number(both)?, number(both)?),
            [soft, hard] => {
                let hard = number(hard)?;
                (number(soft)?, hard)
            }
            _ => {
                return Err(Error::invalid(format!(
                    "too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
                )));
            }
        };
        let ulimit = Ulimit { name: name.to_owned(), soft, hard };
        ulimit.validate()?;
        Ok(ulimit)
    }

    /// A known name, and soft not above hard.
    pub fn validate(&self) -> Result<()> {
        const ORDER: &str = "ulimit soft limit must be less than or equal to hard limit";
        check_name(&self.name)?;
        match (self.soft, self.hard) {
            (_, -1) => Ok(()),
            (-1, hard) => Err(Error::invalid(format!("{ORDER}: soft: -1 (unlimited), hard: {hard}"))),
            (soft, hard) if soft > hard => Err(Error::invalid(format!("{ORDER}: {soft} > {hard}"))),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}:{}", self.name, self.soft, self.hard)
    }
}

fn check_name(name: &str) -> Result<()> {
    match NAMES.contains(&name) {
        true => Ok(()),
        false => Err(Error::invalid(format!("invalid ulimit type: {name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        assert_eq!(Ulimit::parse("nofile=512:1024").unwrap().to_string(), "nofile=512:1024");
        assert_eq!(Ulimit::parse("nproc=7").unwrap().to_string(), "nproc=7:7");
        assert_eq!(Ulimit::parse("core=-1").unwrap().to_string(), "core=-1:-1");
        assert_eq!(Ulimit::parse("core=5:-1").unwrap().hard, -1);
    }

    #[test]
    fn refusals_have_the_references_words() {
        for (text, message) in [
            ("nofile", "invalid ulimit argument: nofile"),
            ("as=1", "invalid ulimit type: as"),
            ("nofile=2:1", "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
            (
                "nofile=-1:1",
                "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: 1",
            ),
            ("nofile=1:2:3", "too many limit value arguments - 1:2:3, can only have up to two, `soft[:hard]`"),
            ("nofile=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ] {
            assert_eq!(Ulimit::parse(text).unwrap_err().message(), message);
        }
    }
}
