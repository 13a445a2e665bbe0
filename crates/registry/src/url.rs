//! Addresses of requests, and where a redirect may lead. Pure.
//!
//! Only `http` and `https` exist here: nothing else can be asked for, so no redirect can reach a file.

use std::fmt;

use model::authority::{Authority, Host};
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

/// An absolute address, in the form that the URL Standard gives it: what is compared is what is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// How it is reached.
    pub scheme: Scheme,
    /// Whose it is; no port where it is the scheme's own.
    pub server: Authority,
    /// From the first slash on, query included.
    pub path: String,
}

impl Url {
    /// Reads an absolute `http` or `https` address without a user in it.
    pub fn parse(text: &str) -> Result<Url> {
        Url::of(&parsed(text, None)?)
    }

    fn of(url: &url::Url) -> Result<Url> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(Error::invalid(format!("unsupported protocol scheme {other:?}"))),
        };
        let host = url.host_str().unwrap_or_default();
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::invalid(format!("invalid URL: a user at the host {host:?} cannot be used")));
        }
        if url.port() == Some(0) {
            return Err(Error::invalid("invalid URL: invalid port \"0\""));
        }
        let server = Authority { host: Host::parse(host)?, port: url.port() };
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Url { scheme, server, path: format!("{}{query}", url.path()) })
    }

    /// `host[:port]`
    pub fn authority(&self) -> String {
        self.server.to_string()
    }

    /// The host without brackets, and the port.
    pub fn host_port(&self) -> (String, u16) {
        let host = match &self.server.host {
            Host::Name(name) => name.clone(),
            Host::Address(address) => address.to_string(),
        };
        (host, self.server.port_or(self.scheme.default_port()))
    }

    /// Whether both lead to the same server in the same way: credentials go no further.
    pub fn same_origin(&self, other: &Url) -> bool {
        self.scheme == other.scheme && self.host_port() == other.host_port()
    }

    /// Where a `Location` leads: absolute, or relative to this address (RFC 3986, section 5).
    pub fn join(&self, location: &str) -> Result<Url> {
        Url::of(&parsed(location, Some(&parsed(&self.to_string(), None)?))?)
    }

    /// The same with one more `name=value` in its query; the value is escaped.
    #[must_use]
    pub fn with_query(&self, name: &str, value: &str) -> Url {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        Url { path: format!("{}{separator}{name}={}", self.path, escape(value)), ..self.clone() }
    }

    /// Without its query, which may hold a signature or a token.
    pub fn shown(&self) -> String {
        format!("{}://{}{}", self.scheme, self.server, self.path.split('?').next().unwrap_or_default())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.server, self.path)
    }
}

/// Reads an address, relative to a base if there is one.
fn parsed(text: &str, base: Option<&url::Url>) -> Result<url::Url> {
    let read = url::Url::options().base_url(base).parse(text);
    read.map_err(|error| Error::invalid(format!("invalid URL {text:?}: {error}")))
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
            ("../uploads/1", "https://r.example:5000/v2/x/uploads/1"),
            ("./../../y/./uploads/../1?a=../b", "https://r.example:5000/v2/y/1?a=../b"),
            ("/../../z", "https://r.example:5000/z"),
            ("/a//b/%2e%2E/c", "https://r.example:5000/a//c"),
            ("", "https://r.example:5000/v2/x/blobs/y?a=1"),
            ("#part", "https://r.example:5000/v2/x/blobs/y?a=1"),
            ("HTTPS://CDN.Example:443/Z", "https://cdn.example/Z"),
            ("w?X-Sig=a%2Fb%3D&x='", "https://r.example:5000/v2/x/blobs/w?X-Sig=a%2Fb%3D&x=%27"),
            ("/b/c d", "https://r.example:5000/b/c%20d"),
            ("http://127.1:05001/z", "http://127.0.0.1:5001/z"),
        ] {
            assert_eq!(from.join(location).unwrap().to_string(), to, "{location}");
        }
        for location in [
            "file:///etc/passwd",
            "gopher://x/",
            "ftp://x/",
            "https://user:pw@x/",
            "https://",
            "data:,x",
            "http://h:0/",
            "http://h:65536/",
            "http://h:x/",
            "http://1.2.3.4.5/",
            "//user@h/",
        ] {
            assert!(from.join(location).is_err(), "{location}");
        }
        assert_eq!(from.join("file://h/etc").unwrap_err().message(), "unsupported protocol scheme \"file\"");
    }

    #[test]
    fn another_scheme_host_or_port_is_another_origin() {
        let from = url("https://r.example/a");
        for same in ["https://R.example:443/b", "https://r.example.:00443/", "https://%72.example/"] {
            assert!(from.same_origin(&url(same)), "{same}");
        }
        for other in ["http://r.example/a", "https://r.example:444/a", "https://s.example/a"] {
            assert!(!from.same_origin(&url(other)), "{other}");
        }
    }

    #[test]
    fn hosts_and_ports_are_told_apart() {
        assert_eq!(url("http://[::1]:5000/v2/").host_port(), ("::1".into(), 5000));
        assert_eq!(url("https://[::1]/").host_port(), ("::1".into(), 443));
        assert_eq!(url("http://h").host_port(), ("h".into(), 80));
        assert_eq!(url("http://h/a").with_query("d", "sha256:x").path, "/a?d=sha256%3Ax");
    }
}
