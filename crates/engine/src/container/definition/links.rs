//! Links as clients write them: `name:alias`.

use model::{Error, Result};

/// A container, and what it is called by the one that has the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name or id.
    pub name: String,
    pub alias: String,
}

/// `name`, `name:alias` or, as inspect shows links, `/name:/parent/alias`.
pub fn parse(text: &str) -> Result<Link> {
    if text.is_empty() {
        return Err(Error::system("empty string specified for links"));
    }
    let (name, alias) = text.split_once(':').unwrap_or((text, text));
    if name.is_empty() || alias.contains(':') {
        return Err(Error::invalid(format!("bad format for links: {text}")));
    }
    let alias = match alias.strip_prefix('/') {
        Some(path) => path.rsplit('/').next().unwrap_or(path),
        None => alias,
    };
    Ok(Link { name: name.trim_start_matches('/').to_owned(), alias: alias.to_owned() })
}

/// Links that are lines of the hosts file: those of containers on no network of a user's. There they are aliases, which
/// clients ask for with the endpoint.
pub fn are_lines(mode: &str) -> bool {
    matches!(mode, "" | "default" | "bridge" | "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_parsed() {
        let parsed = |text| parse(text).map(|link| (link.name, link.alias)).map_err(|error| error.message().to_owned());
        let pair = |name: &str, alias: &str| Ok((name.to_owned(), alias.to_owned()));
        assert_eq!(parsed("db"), pair("db", "db"));
        assert_eq!(parsed("db:sql"), pair("db", "sql"));
        assert_eq!(parsed("/db:/web/sql"), pair("db", "sql"));
        assert_eq!(parsed("a:b:c").unwrap_err(), "bad format for links: a:b:c");
        assert_eq!(parsed("").unwrap_err(), "empty string specified for links");
    }
}
