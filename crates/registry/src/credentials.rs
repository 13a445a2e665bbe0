//! Credentials of a client, and the header in which they come (`X-Registry-Auth`).
//!
//! Secrets are never shown by `Debug` and never leave this crate but in a request to the host they are for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use gojson::DecodeError;
use model::authority::{Authority, HUB_HOST, Host};
use model::reference::ImageRef;
use model::{Error, Result};
use serde::Deserialize;

use crate::url::Url;

/// Longest header that is looked at.
const HEADER_BYTES: usize = 64 << 10;
/// Characters of a client's `User-Agent` that are passed on.
const AGENT: usize = 1024;

/// What a client may show to a registry.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename = "AuthConfig")]
pub struct Credentials {
    /// Of an account.
    pub username: String,
    /// Of an account.
    pub password: String,
    /// `base64(username:password)`, where the two are not given.
    pub auth: String,
    /// The registry that they are for; empty: the one that is spoken to.
    pub serveraddress: String,
    /// A refresh token.
    pub identitytoken: String,
    /// A bearer token, used as it is.
    pub registrytoken: String,
    /// The `User-Agent` of the client on whose behalf the registry is asked; empty: nobody's.
    #[serde(skip)]
    pub client_agent: String,
    /// Who asks token servers in the place of the daemon, if anybody does: the secret is shown to them by its owner.
    #[serde(skip)]
    pub delegate: Delegate,
}

/// Whoever asks token servers in the place of the daemon.
#[derive(Clone, Default)]
pub struct Delegate(pub Option<Arc<dyn Tokens>>);

impl PartialEq for Delegate {
    fn eq(&self, other: &Delegate) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl Eq for Delegate {}

/// Asks token servers.
pub trait Tokens: Send + Sync {
    /// A token.
    fn fetch<'a>(&'a self, wanted: WantedToken<'a>) -> Pin<Box<dyn Future<Output = Result<FetchedToken>> + Send + 'a>>;
}

/// What a registry wants to be shown.
#[derive(Clone, Copy, Debug)]
pub struct WantedToken<'a> {
    /// The registry, as it is reached: `host:port`, without the usual port.
    pub host: &'a str,
    /// The token server.
    pub realm: &'a str,
    /// The name of the registry there.
    pub service: &'a str,
    /// `repository:x:pull`, …
    pub scopes: &'a [String],
}

/// A token that was given.
pub struct FetchedToken {
    /// Itself.
    pub token: String,
    /// Seconds that it may be shown; 0: it does not say.
    pub expires_in: i64,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("serveraddress", &self.serveraddress).finish_non_exhaustive()
    }
}

/// Either alphabet, padded or not.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let alphabet = if text.contains(['-', '_']) { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    GeneralPurpose::new(alphabet, lenient).decode(text).ok()
}

impl Credentials {
    /// From the header; an absent or empty one means none. The refusal has the reference's words.
    pub fn from_header(header: &str) -> Result<Credentials> {
        let text = header.trim();
        if text.is_empty() {
            return Ok(Credentials::default());
        }
        let refuse = |why: &str| Error::invalid(format!("invalid X-Registry-Auth header: {why}"));
        let bytes = (text.len() <= HEADER_BYTES).then(|| decode_base64(text)).flatten();
        let bytes = bytes.ok_or_else(|| refuse("must be a valid base64url-encoded string"))?;
        if bytes.is_empty() {
            return Ok(Credentials::default());
        }
        let credentials: Credentials = gojson::from_slice(&bytes).map_err(|error| match error {
            DecodeError::Trailing => refuse(&error.stream_message()),
            _ => refuse(&format!("invalid JSON: {}", error.stream_message())),
        })?;
        Ok(credentials.completed())
    }

    /// With `auth` taken apart where name and password are missing.
    #[must_use]
    pub fn completed(mut self) -> Credentials {
        if self.username.is_empty()
            && let Some(plain) = decode_base64(&self.auth).and_then(|bytes| String::from_utf8(bytes).ok())
            && let Some((username, password)) = plain.split_once(':')
        {
            (self.username, self.password) = (username.to_owned(), password.trim_end_matches('\0').to_owned());
        }
        self
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.username.is_empty() && self.identitytoken.is_empty() && self.registrytoken.is_empty()
    }

    /// The `User-Agent` that registries see: the daemon's, with the client's as a comment (RFC 9110, 10.1.5).
    pub(crate) fn agent(&self, daemon: &str) -> String {
        let mut comment = String::new();
        for c in self.client_agent.chars().take(AGENT).filter(|c| (' '..='~').contains(c)) {
            if matches!(c, '(' | ')' | ';' | '\\') {
                comment.push('\\');
            }
            comment.push(c);
        }
        if comment.is_empty() { daemon.to_owned() } else { format!("{daemon} UpstreamClient({comment})") }
    }

    /// `Basic …`, if there is a name.
    pub(crate) fn basic(&self) -> Option<String> {
        let plain = format!("{}:{}", self.username, self.password);
        let encoded = base64::engine::general_purpose::STANDARD.encode(plain);
        (!self.username.is_empty()).then(|| format!("Basic {encoded}"))
    }

    /// The server that they may be shown to; `None`: to none, the address is none.
    pub(crate) fn host(&self, reference: &ImageRef) -> Option<Authority> {
        let given = host_of(&self.serveraddress);
        let server = Authority::parse(if given.is_empty() { &reference.domain } else { given }).ok()?;
        Some(if crate::endpoint::names_hub(&server) { hub() } else { server })
    }
}

/// `https://host:1/v1/` and `host:1` are both `host:1`.
pub(crate) fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// Where Docker Hub is.
pub(crate) fn hub() -> Authority {
    Authority { host: Host::Name(HUB_HOST.to_owned()), port: None }
}

/// Whether credentials for `server` are for the server of `url`. Without a port they are for that of the scheme.
pub(crate) fn meant_for(server: &Authority, url: &Url) -> bool {
    let port = url.scheme.default_port();
    server.host == url.server.host && server.port_or(port) == url.server.port_or(port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

    #[test]
    fn every_encoding_that_clients_send_is_read() {
        let json = r#"{"username":"ä?>","password":"p>?>","serveraddress":"https://r:5000/v1/","email":"x"}"#;
        let encodings = [STANDARD.encode(json), STANDARD_NO_PAD.encode(json), URL_SAFE.encode(json)];
        for header in encodings.into_iter().chain([URL_SAFE_NO_PAD.encode(json)]) {
            let credentials = Credentials::from_header(&header).unwrap();
            assert_eq!((credentials.username.as_str(), credentials.password.as_str()), ("ä?>", "p>?>"));
            let reference = ImageRef::parse_normalized("r:5000/x").unwrap();
            assert_eq!(credentials.host(&reference).unwrap().to_string(), "r:5000");
        }
        let auth = format!(r#"{{"auth":"{}"}}"#, STANDARD.encode("me:secret:x"));
        let credentials = Credentials::from_header(&URL_SAFE.encode(auth)).unwrap();
        assert_eq!((credentials.username.as_str(), credentials.password.as_str()), ("me", "secret:x"));
        assert_eq!(format!("{credentials:?}"), "Credentials { serveraddress: \"\", .. }");
    }

    #[test]
    fn nothing_is_nothing_and_garbage_is_named() {
        for empty in ["", " ", "e30="] {
            assert!(Credentials::from_header(empty).unwrap().is_empty(), "{empty:?}");
        }
        let message = |header: &str| Credentials::from_header(header).unwrap_err().message().to_owned();
        assert_eq!(message("%%"), "invalid X-Registry-Auth header: must be a valid base64url-encoded string");
        for (document, text) in [
            ("nonsense", "invalid JSON: invalid character 'o' in literal null (expecting 'u')"),
            (" ", "invalid JSON: EOF"),
            ("{", "invalid JSON: unexpected EOF"),
            ("{} {}", "multiple JSON documents not allowed"),
            (
                r#"{"Username":1}"#,
                "invalid JSON: json: cannot unmarshal number into Go struct field AuthConfig.username of type string",
            ),
        ] {
            assert_eq!(message(&URL_SAFE.encode(document)), format!("invalid X-Registry-Auth header: {text}"));
        }
    }

    #[test]
    fn names_are_read_in_any_case_as_go_reads_them() {
        let read = |json: &str| Credentials::from_header(&URL_SAFE.encode(json)).unwrap();
        let mixed =
            r#"{"Username":"a","PASSWORD":"b","ServerAddress":"r.test","IdentityToken":null,"registryToken":"t"}"#;
        let wanted = Credentials {
            username: "a".into(),
            password: "b".into(),
            serveraddress: "r.test".into(),
            registrytoken: "t".into(),
            ..Credentials::default()
        };
        assert_eq!(read(mixed), wanted);
        assert_eq!(read(r#"{"username":"x","USERNAME":"y"}"#).username, "y");
        assert_eq!(read(r#"{"Auth":"bWU6c2VjcmV0","extra":{"username":"z"}}"#).username, "me");
        assert!(read("null").is_empty());
    }

    #[test]
    fn the_hub_has_one_host() {
        let reference = ImageRef::parse_normalized("busybox").unwrap();
        for address in ["", "https://index.docker.io/v1/", "Docker.io:443", "registry-1.docker.io"] {
            let credentials = Credentials { serveraddress: address.into(), ..Credentials::default() };
            assert_eq!(credentials.host(&reference).unwrap().to_string(), "registry-1.docker.io", "{address}");
        }
    }

    #[test]
    fn credentials_are_for_a_server_in_any_spelling_and_for_no_other() {
        let reference = ImageRef::parse_normalized("other.test/x").unwrap();
        let meant = |address: &str, url: &str| {
            let credentials = Credentials { serveraddress: address.into(), ..Credentials::default() };
            let server = credentials.host(&reference);
            server.is_some_and(|server| meant_for(&server, &Url::parse(url).unwrap()))
        };
        for (address, url) in [
            ("R.test:05000", "http://r.test:5000/v2/"),
            ("https://r.test./v1/", "https://r.test:443/v2/"),
            ("r.test:443", "https://R.TEST/v2/"),
            ("[0:0::1]:5000", "https://[::1]:5000/v2/"),
            ("r.test", "http://r.test:80/"),
        ] {
            assert!(meant(address, url), "{address} {url}");
        }
        for (address, url) in [
            ("r.test:80", "https://r.test/"),
            ("r.test:443", "http://r.test/"),
            ("r.test:5000", "https://r.test:5001/"),
            ("r.test:70536", "https://r.test:5000/"),
            ("r.test", "https://a.r.test/"),
        ] {
            assert!(!meant(address, url), "{address} {url}");
        }
    }

    #[test]
    fn registries_learn_of_the_client() {
        let agent =
            |client: &str| Credentials { client_agent: client.into(), ..Credentials::default() }.agent("docker/1");
        assert_eq!(agent(""), "docker/1");
        assert_eq!(agent("Docker-Client/28.2.2 (linux)"), "docker/1 UpstreamClient(Docker-Client/28.2.2 \\(linux\\))");
        assert_eq!(agent("a\r\nX: y\u{e9}\u{7f};\\"), "docker/1 UpstreamClient(aX: y\\;\\\\)");
    }
}
