//! Addresses of repositories: `https://host/path.git#ref:directory`, `git@host:path`, `?ref=…&subdir=…`.

use std::collections::BTreeMap;

use model::mount::clean;
use url::Url;

use crate::error::{Error, Result};
use crate::text::{boolean, quote};

/// A repository and what is wanted of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitSource {
    /// The address without what is wanted.
    pub remote: String,
    /// Branch, tag or commit; empty: the default branch.
    pub reference: String,
    /// The commit that is expected; empty: any.
    pub checksum: String,
    /// A directory in it; empty: all of it.
    pub directory: String,
    /// Whether `.git` is kept.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched.
    pub submodules: Option<bool>,
    /// Of `checkout` or `commit`: the time of files; empty: that of the checkout.
    pub mtime: String,
    /// Whether the commit is fetched by its name, whatever the reference is.
    pub fetch_by_commit: bool,
    /// Host and path, which names the repository whatever the protocol.
    place: String,
    /// Whether it is written like a path (`github.com/…`).
    pub like_path: bool,
    ssh: bool,
}

impl GitSource {
    /// Reads an address; `None`: it is none of a repository.
    pub fn parse(text: &str) -> Result<Option<GitSource>> {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        let like_path = text.starts_with("github.com/");
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_lowercase());
        let plain = |scheme: &str| !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
        match scheme.as_deref().filter(|scheme| plain(scheme)) {
            Some("http" | "https" | "ssh" | "git") => from_url(text),
            None if like_path => {
                let source = from_url(&format!("https://{text}"))?;
                Ok(source.map(|source| GitSource {
                    remote: source.remote.trim_start_matches("https://").to_owned(),
                    like_path,
                    ..source
                }))
            }
            Some(_) => Ok(None),
            None => from_scp(text),
        }
    }

    /// Whether it is reached over SSH.
    pub fn is_ssh(&self) -> bool {
        self.ssh
    }

    /// How a source of it is named: host and path, `#`, reference, `:`, directory.
    pub fn identifier(&self) -> String {
        match (self.reference.as_str(), self.directory.as_str()) {
            ("", "") => self.place.clone(),
            (reference, "") => format!("{}#{reference}", self.place),
            (reference, directory) => format!("{}#{reference}:{directory}", self.place),
        }
    }

    fn set_fragment(&mut self, fragment: &str) {
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        self.reference = reference.to_owned();
        self.directory = clean(&format!("/{directory}")).trim_start_matches('/').to_owned();
    }

    fn set_query(&mut self, query: &str) -> Result<()> {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            values.entry(key.into_owned()).or_default().push(value.into_owned());
        }
        let (mut tag, mut branch) = (String::new(), String::new());
        for (key, given) in values {
            let value = match given.as_slice() {
                [value] => value.as_str(),
                _ => return Err(Error::new(format!("query {} has multiple values", quote(&key)))),
            };
            let switch = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !switch {
                return Err(Error::new(format!("query {} has no value", quote(&key))));
            }
            let truth = || match value {
                "" => Ok(true),
                value => boolean(value).ok_or_else(|| Error::new(format!("invalid {key} value: {}", quote(value)))),
            };
            match key.as_str() {
                "ref" => agree("ref", &mut self.reference, value)?,
                "tag" => tag = value.to_owned(),
                "branch" => branch = value.to_owned(),
                "subdir" => agree("subdir", &mut self.directory, value)?,
                "checksum" | "commit" => self.checksum = value.to_owned(),
                "keep-git-dir" => self.keep_git_dir = Some(truth()?),
                "submodules" => self.submodules = Some(truth()?),
                "mtime" if matches!(value, "checkout" | "commit") => self.mtime = value.to_owned(),
                "mtime" => {
                    let value = quote(value);
                    let why = format!("invalid mtime value: {value} (must be \"checkout\" or \"commit\")");
                    return Err(Error::new(why));
                }
                "fetch-by-commit" => self.fetch_by_commit = truth()?,
                other => return Err(Error::new(format!("unexpected query {}", quote(other)))),
            }
        }
        if !tag.is_empty() {
            agree("ref", &mut self.reference, &within("refs/tags/", &tag))?;
        }
        if !branch.is_empty() {
            if !tag.is_empty() {
                return Err(Error::new("branch conflicts with tag"));
            }
            agree("ref", &mut self.reference, &within("refs/heads/", &branch))?;
        }
        Ok(())
    }
}

fn within(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn agree(key: &str, known: &mut String, value: &str) -> Result<()> {
    if !known.is_empty() && known != value {
        return Err(Error::new(format!("{key} conflicts: {} vs {}", quote(known), quote(value))));
    }
    value.clone_into(known);
    Ok(())
}

/// With HTTP only a path that ends with `.git` is one of a repository.
fn from_url(text: &str) -> Result<Option<GitSource>> {
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
    let Ok(url) = Url::parse(remote) else { return Ok(None) };
    let like_path = text.starts_with("https://github.com/") && !remote.ends_with(".git");
    if matches!(url.scheme(), "http" | "https") && !url.path().ends_with(".git") && !like_path {
        return Ok(None);
    }
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => return Ok(None),
    };
    let place = host + &clean(&format!("/{}", url.path()));
    let ssh = url.scheme() == "ssh";
    let mut source = GitSource { remote: remote.to_owned(), place, ssh, ..GitSource::default() };
    source.set_fragment(&decoded(fragment));
    source.set_query(query)?;
    Ok(Some(source))
}

/// `user@host:path[?query][#fragment]`
fn from_scp(text: &str) -> Result<Option<GitSource>> {
    let name = |text: &str, also: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || also.contains(&b))
    };
    let Some((user, rest)) = text.split_once('@').filter(|(user, _)| name(user, b"-_")) else { return Ok(None) };
    let Some((host, rest)) = rest.split_once(':').filter(|(host, _)| name(host, b"-.")) else { return Ok(None) };
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let place = host.to_owned() + &clean(&format!("/{path}"));
    let remote = format!("{user}@{host}:{path}");
    let mut source = GitSource { remote, place, ssh: true, ..GitSource::default() };
    source.set_fragment(fragment);
    source.set_query(query)?;
    Ok(Some(source))
}

fn decoded(fragment: &str) -> String {
    // A plus sign stands for itself in a fragment.
    let escaped = fragment.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(escaped.as_bytes()).map(|(key, _)| key.into_owned()).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<GitSource> {
        GitSource::parse(text).unwrap()
    }

    #[test]
    fn addresses_name_a_repository() {
        for (text, remote, identifier) in [
            ("https://a.b/c.git", "https://a.b/c.git", "a.b/c.git"),
            ("https://a.b:1/c.git#v1:d/../e", "https://a.b:1/c.git", "a.b:1/c.git#v1:e"),
            ("https://a.b/c.git#:d", "https://a.b/c.git", "a.b/c.git#:d"),
            ("git://a.b/c", "git://a.b/c", "a.b/c"),
            ("ssh://git@a.b/c", "ssh://git@a.b/c", "a.b/c"),
            ("git@a.b:c/d.git#e", "git@a.b:c/d.git", "a.b/c/d.git#e"),
            ("https://a.b/c.git?tag=v1&subdir=d", "https://a.b/c.git", "a.b/c.git#refs/tags/v1:d"),
        ] {
            let source = read(text).unwrap();
            assert_eq!((source.remote.as_str(), source.identifier().as_str()), (remote, identifier), "{text}");
        }
        assert!(read("github.com/a/b").is_some_and(|source| source.like_path && source.remote == "github.com/a/b"));
        for text in ["./a", "../a.git", "a.git", "/a.git", "https://a.b/c", "ftp://a/b.git", "a@b", "C:\\x"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn queries_are_checked() {
        let source =
            read("https://a/b.git?keep-git-dir&submodules=0&commit=abc&mtime=commit&fetch-by-commit=1").unwrap();
        assert_eq!((source.keep_git_dir, source.submodules), (Some(true), Some(false)));
        assert_eq!((source.checksum.as_str(), source.mtime.as_str(), source.fetch_by_commit), ("abc", "commit", true));
        for (query, why) in [
            ("ref=", "query \"ref\" has no value"),
            ("ref=a&ref=b", "query \"ref\" has multiple values"),
            ("x=1", "unexpected query \"x\""),
            ("ref=a#b", "ref conflicts: \"b\" vs \"a\""),
            ("tag=a&branch=b", "branch conflicts with tag"),
            ("submodules=x", "invalid submodules value: \"x\""),
            ("mtime=x", "invalid mtime value: \"x\" (must be \"checkout\" or \"commit\")"),
        ] {
            assert_eq!(GitSource::parse(&format!("https://a/b.git?{query}")).unwrap_err().message(), why);
        }
    }
}
