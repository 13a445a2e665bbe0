//! Addresses of requests, and where a redirect may lead. Pure.
//!
//! Only `http` and `https` exist here: nothing else can be asked for, so no redirect can reach a file.

use std::fmt;

use hyper::Uri;
use model::{Error, Result};

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// In clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The port that needs no mention.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        })
    }
}

/// An absolute address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// How it is reached.
    pub scheme: Scheme,
    /// `host[:port]`, as it was written.
    pub authority: String,
    /// From the first slash on, query included.
    pub path: String,
}

impl Url {
    /// Reads an absolute `http` or `https` address without a user in it.
    pub fn parse(text: &str) -> Result<Url> {
        let scheme = match text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase()).as_deref() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            Some(other) => return Err(Error::invalid(format!("unsupported protocol scheme {other:?}"))),
            None => return Err(Error::invalid(format!("invalid URL {text:?}: it has no scheme"))),
        };
        let uri: Uri = text.parse().map_err(|_| Error::invalid(format!("invalid URL {text:?}")))?;
        let authority = uri.authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
        if authority.is_empty() || authority.contains('@') {
            return Err(Error::invalid(format!("invalid URL: the host {authority:?} cannot be used")));
        }
        let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        Ok(Url { scheme, authority, path: if path.is_empty() { "/".into() } else { path } })
    }

    /// The host without brackets, and the port.
    pub fn host_port(&self) -> (&str, u16) {
        let (host, port) = match (self.authority.rfind(':'), self.authority.rfind(']')) {
            (Some(colon), bracket) if bracket.is_none_or(|b| b < colon) => {
                (&self.authority[..colon], self.authority[colon + 1..].parse().ok())
            }
            _ => (self.authority.as_str(), None),
        };
        (host.trim_start_matches('[').trim_end_matches(']'), port.unwrap_or(self.scheme.default_port()))
    }

    /// Whether both lead to the same server in the same way: credentials go no further.
    pub fn same_origin(&self, other: &Url) -> bool {
        self.scheme == other.scheme
            && self.host_port().0.eq_ignore_ascii_case(other.host_port().0)
            && self.host_port().1 == other.host_port().1
    }

    /// Where a `Location` leads: absolute, or relative to this address.
    pub fn join(&self, location: &str) -> Result<Url> {
        if let Some(rest) = location.strip_prefix("//") {
            return Url::parse(&format!("{}://{rest}", self.scheme));
        }
        let scheme = location.split(['/', '?']).next().unwrap_or_default();
        if scheme.contains(':') {
            return Url::parse(location);
        }
        let base = self.path.split('?').next().unwrap_or("/");
        let path = match location {
            _ if location.starts_with('/') => location.to_owned(),
            _ if location.starts_with('?') => format!("{base}{location}"),
            _ => format!("{}{location}", &base[..=base.rfind('/').unwrap_or(0)]),
        };
        Url::parse(&format!("{}://{}{path}", self.scheme, self.authority))
    }

    /// The same with one more `name=value` in its query; the value is escaped.
    #[must_use]
    pub fn with_query(&self, name: &str, value: &str) -> Url {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        Url { path: format!("{}{separator}{name}={}", self.path, escape(value)), ..self.clone() }
    }

    /// Without its query, which may hold a signature or a token.
    pub fn shown(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.path.split('?').next().unwrap_or_default())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

/// Percent-encoding of everything that is not unreserved.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn redirects_lead_to_http_and_https_only() {
        let from = url("https://r.example:5000/v2/x/blobs/y?a=1");
        for (location, to) in [
            ("/z?q", "https://r.example:5000/z?q"),
            ("w", "https://r.example:5000/v2/x/blobs/w"),
            ("?b=2", "https://r.example:5000/v2/x/blobs/y?b=2"),
            ("//cdn.example/z", "https://cdn.example/z"),
            ("http://cdn.example/z?sig=1", "http://cdn.example/z?sig=1"),
        ] {
            assert_eq!(from.join(location).unwrap().to_string(), to, "{location}");
        }
        for location in ["file:///etc/passwd", "gopher://x/", "ftp://x/", "https://user:pw@x/", "https://", "data:,x"] {
            assert!(from.join(location).is_err(), "{location}");
        }
        assert_eq!(from.join("file://h/etc").unwrap_err().message(), "unsupported protocol scheme \"file\"");
    }

    #[test]
    fn another_scheme_host_or_port_is_another_origin() {
        let from = url("https://r.example/a");
        assert!(from.same_origin(&url("https://R.example:443/b")));
        for other in ["http://r.example/a", "https://r.example:444/a", "https://s.example/a"] {
            assert!(!from.same_origin(&url(other)), "{other}");
        }
    }

    #[test]
    fn hosts_and_ports_are_told_apart() {
        assert_eq!(url("http://[::1]:5000/v2/").host_port(), ("::1", 5000));
        assert_eq!(url("https://[::1]/").host_port(), ("::1", 443));
        assert_eq!(url("http://h").host_port(), ("h", 80));
        assert_eq!(url("http://h/a").with_query("d", "sha256:x").path, "/a?d=sha256%3Ax");
    }
}
