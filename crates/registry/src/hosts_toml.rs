//! `certs.d/<host>/hosts.toml`: where a registry's images really come from (containerd's format). Pure.
//!
//! The hosts are tried in the order of the file; the file's own server is the last.

use std::time::Duration;

use model::duration;
use model::{Error, Result};
use serde::Deserialize;
use toml::Value;

use crate::url::Url;

/// Longest file that is read.
pub const FILE_BYTES: u64 = 1 << 20;
/// Most hosts of a file.
const HOSTS: usize = 64;

/// What a host may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Content by digest.
    pub pull: bool,
    /// What a tag means.
    pub resolve: bool,
    /// New content.
    pub push: bool,
}

impl Capabilities {
    /// Everything.
    pub const ALL: Capabilities = Capabilities { pull: true, resolve: true, push: true };
}

/// One host of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Its API root, `/v2` included; `None`: the registry itself.
    pub root: Option<Url>,
    /// What it may be asked for.
    pub capabilities: Capabilities,
    /// Files with certificate authorities, as written.
    pub ca: Vec<String>,
    /// Client certificates: certificate and key (the same file if the second is empty).
    pub client: Vec<(String, String)>,
    /// Any certificate will do.
    pub skip_verify: Option<bool>,
    /// Additional header fields.
    pub header: Vec<(String, String)>,
    /// Longest wait for a connection.
    pub dial_timeout: Option<Duration>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Section {
    capabilities: Vec<String>,
    ca: Option<Value>,
    client: Option<Value>,
    skip_verify: Option<bool>,
    header: toml::Table,
    override_path: bool,
    dial_timeout: String,
}

/// Keys of a host, and of the file: those of a host, the registry's own server, the hosts before it.
const HOST_KEYS: [&str; 7] = ["capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"];
const FILE_KEYS: [&str; 2] = ["server", "host"];

/// A table with known keys as Go's decoder finds them: without regard to case, of several spellings the last counts. Tables
/// of several spellings are one.
fn known(table: toml::Table, keys: &[&str]) -> toml::Table {
    let mut found = toml::Table::new();
    for (key, value) in table {
        let key = keys.iter().find(|known| is_spelling_of(&key, known)).map_or(key, |known| (*known).to_owned());
        match (found.get_mut(&key), value) {
            (Some(Value::Table(said)), Value::Table(more)) => said.extend(more),
            (_, value) => drop(found.insert(key, value)),
        }
    }
    found
}

/// Go's `strings.ToLower`: each character alone.
fn is_spelling_of(key: &str, known: &str) -> bool {
    let lower = |c: char| match c {
        '\u{130}' => 'i',
        c => Some(c.to_lowercase()).filter(|all| all.len() == 1).and_then(|mut all| all.next()).unwrap_or(c),
    };
    key.chars().map(lower).eq(known.chars())
}

/// Reads a file.
pub fn parse(text: &str) -> Result<Vec<Host>> {
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| Error::invalid(e.message().to_owned()))?;
    let mut table = known(table, &[&HOST_KEYS[..], &FILE_KEYS].concat());
    let hosts = match table.remove("host") {
        None => toml::Table::new(),
        Some(Value::Table(hosts)) => hosts,
        Some(_) => return Err(Error::invalid("\"host\" is not a table")),
    };
    if hosts.len() > HOSTS {
        return Err(Error::invalid(format!("more than {HOSTS} hosts")));
    }
    let server = match table.remove("server") {
        None => String::new(),
        Some(Value::String(server)) => server,
        Some(_) => return Err(Error::invalid("\"server\" is not a text")),
    };
    let mut found = Vec::new();
    for (name, value) in hosts {
        found.push(host(&name, value).map_err(|e| e.prefix(format!("host {name:?}")))?);
    }
    found.push(host(&server, Value::Table(table))?);
    Ok(found)
}

fn host(server: &str, value: Value) -> Result<Host> {
    let value = match value {
        Value::Table(table) => Value::Table(known(table, &HOST_KEYS)),
        other => other,
    };
    let section: Section = value.try_into().map_err(|e: toml::de::Error| Error::invalid(e.message().to_owned()))?;
    let root = match server {
        "" => None,
        server if server.contains("://") => Some(root(server, section.override_path)?),
        server => Some(root(&format!("https://{server}"), section.override_path)?),
    };
    let dial_timeout = match section.dial_timeout.as_str() {
        "" => None,
        text => Some(duration(text)?),
    };
    Ok(Host {
        root,
        capabilities: capabilities(&section.capabilities)?,
        ca: texts("ca", section.ca.as_ref())?,
        client: pairs(section.client.as_ref())?,
        skip_verify: section.skip_verify,
        header: header(&section.header)?,
        dial_timeout,
    })
}

fn duration(text: &str) -> Result<Duration> {
    let nanos = duration::parse(text)?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| Error::invalid("\"dial_timeout\" is negative"))
}

/// The API root that a server's URL means.
fn root(server: &str, override_path: bool) -> Result<Url> {
    let mut url = Url::parse(server)?;
    if url.path.contains('?') {
        return Err(Error::invalid(format!("invalid server {server:?}: it has a query")));
    }
    let trimmed = url.path.trim_end_matches('/');
    url.path = if trimmed.ends_with("/v2") || override_path { trimmed.to_owned() } else { format!("{trimmed}/v2") };
    Ok(url)
}

fn capabilities(names: &[String]) -> Result<Capabilities> {
    if names.is_empty() {
        return Ok(Capabilities::ALL);
    }
    let mut found = Capabilities { pull: false, resolve: false, push: false };
    for name in names {
        match name.to_lowercase().as_str() {
            "pull" => found.pull = true,
            "resolve" => found.resolve = true,
            "push" => found.push = true,
            "referrers" => {}
            _ => return Err(Error::invalid(format!("unknown capability {name}"))),
        }
    }
    Ok(found)
}

/// A text or a list of texts.
fn texts(key: &str, value: Option<&Value>) -> Result<Vec<String>> {
    let refuse = || Error::invalid(format!("invalid type for {key:?}"));
    match value {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(list)) => {
            list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(refuse)).collect()
        }
        Some(_) => Err(refuse()),
    }
}

/// A file, a list of files, or a list of pairs of files.
fn pairs(value: Option<&Value>) -> Result<Vec<(String, String)>> {
    let Some(Value::Array(list)) = value else {
        return Ok(texts("client", value)?.into_iter().map(|file| (file, String::new())).collect());
    };
    let pair = |item: &Value| match (texts("client", Some(item))?.as_slice(), item) {
        ([file], Value::String(_)) => Ok((file.clone(), String::new())),
        ([certificate, key], Value::Array(_)) => Ok((certificate.clone(), key.clone())),
        _ => Err(Error::invalid("invalid pair for \"client\"")),
    };
    list.iter().map(pair).collect()
}

fn header(table: &toml::Table) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for (name, value) in table {
        let values = texts(&format!("header {name}"), Some(value))?;
        found.extend(values.into_iter().map(|value| (name.clone(), value)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_keep_their_order_and_the_server_is_last() {
        let hosts = parse(
            r#"
            server = "https://registry.example:5000"
            ca = ["/a.pem", "b.pem"]
            [host."https://zz.example"]
              capabilities = ["pull", "resolve"]
              client = [["c.pem", "k.pem"], "both.pem"]
              [host."https://zz.example".header]
                x-a = ["1", "2"]
            [host."http://aa.example/prefix"]
              skip_verify = true
              dial_timeout = "1.5s"
            [host."https://mm.example/exact"]
              override_path = true
            "#,
        )
        .unwrap();
        let roots: Vec<_> = hosts.iter().map(|h| h.root.as_ref().unwrap().to_string()).collect();
        assert_eq!(
            roots,
            [
                "https://zz.example/v2",
                "http://aa.example/prefix/v2",
                "https://mm.example/exact",
                "https://registry.example:5000/v2"
            ]
        );
        assert!(hosts[0].capabilities.pull && !hosts[0].capabilities.push);
        assert_eq!(hosts[0].client, [("c.pem".into(), "k.pem".into()), ("both.pem".into(), String::new())]);
        assert_eq!(hosts[0].header.len(), 2);
        assert_eq!((hosts[1].skip_verify, hosts[1].dial_timeout), (Some(true), Some(Duration::from_millis(1500))));
        assert_eq!(hosts[3].ca, ["/a.pem", "b.pem"]);
    }

    #[test]
    fn a_file_may_only_add_to_the_registry_itself() {
        let hosts = parse("skip_verify = true").unwrap();
        assert_eq!((hosts.len(), hosts[0].root.clone(), hosts[0].capabilities), (1, None, Capabilities::ALL));
        assert_eq!(parse("").unwrap().len(), 1);
    }

    #[test]
    fn keys_are_read_in_any_case_as_go_reads_them() {
        let hosts = parse(
            r#"
            Server = "https://registry.example"
            SKIP_VERIFY = false
            [host."https://one.example"]
              Skip_Verify = true
              CAPABILITIES = ["Pull"]
              Override_Path = true
              Dial_Timeout = "2s"
              CA = "a.pem"
              ca = "b.pem"
              Client = "c.pem"
              unknown = 1
              [host."https://one.example".Header]
                X-Mixed = "1"
            [HOST."https://two.example"]
              s\u212Aip_verify = true
            "#
            .replace("s\\u212Aip_verify", "\"s\u{212a}\u{130}p_verify\"")
            .as_str(),
        )
        .unwrap();
        let roots: Vec<_> = hosts.iter().map(|h| h.root.as_ref().unwrap().to_string()).collect();
        assert_eq!(roots, ["https://one.example", "https://two.example/v2", "https://registry.example/v2"]);
        let verified: Vec<_> = hosts.iter().map(|host| host.skip_verify).collect();
        assert_eq!(verified, [Some(true), Some(true), Some(false)]);
        assert_eq!(hosts[0].capabilities, Capabilities { pull: true, resolve: false, push: false });
        assert_eq!((&hosts[0].ca, &hosts[0].header), (&vec!["b.pem".into()], &vec![("X-Mixed".into(), "1".into())]));
        assert_eq!(hosts[0].dial_timeout, Some(Duration::from_secs(2)));
        assert_eq!(hosts[0].client, [("c.pem".into(), String::new())]);
    }

    #[test]
    fn mistakes_are_named() {
        let message = |text: &str| parse(text).unwrap_err().message().to_owned();
        assert_eq!(message("capabilities = [\"fly\"]"), "unknown capability fly");
        assert_eq!(message("ca = 1"), "invalid type for \"ca\"");
        assert_eq!(message("client = [[\"a\"]]"), "invalid pair for \"client\"");
        assert_eq!(message("server = \"file:///x\""), "unsupported protocol scheme \"file\"");
        assert_eq!(message("host = 1"), "\"host\" is not a table");
        assert!(parse("[host.\"ftp://x\"]").is_err() && parse("x = ").is_err() && parse("[host.x]\nca=1").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z=\\[\\]\"./:\n ]{0,60}") {
            drop(parse(&text));
        }
    }
}
