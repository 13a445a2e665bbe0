//! Option values: from a flag's text, from a JSON value, and back to text.
//!
//! - A [`Slot`] is the type of an option together with the field it writes.
//! - Flags of list and map types add to what is there; a JSON value replaces it.
//! - A zero value in the file (0, "", [], null) means "not given", as merging does in the reference; bools excepted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde_json::Value;

use super::go;
use super::go_names;
use super::sizes;
use super::{AddressPool, Config, RuntimeEntry, Signatures, UlimitEntry, hosts};

type Field<T> = fn(&mut Config) -> &mut T;
/// Checks one list element given as a flag and returns it normalised.
pub type Check = fn(&str) -> Result<String, String>;

/// The type of an option and the field that it writes.
pub enum Slot {
    /// `--flag`, `--flag=false`
    Bool(Field<bool>),
    /// A bool that remembers whether it was given.
    OptBool(Field<Option<bool>>),
    /// A number, base by prefix.
    Int(Field<i64>),
    /// A size such as `64m`.
    Bytes(Field<i64>),
    /// Text.
    Text(Field<String>),
    /// A path.
    Path(Field<PathBuf>),
    /// Repeatable text.
    List(Field<Vec<String>>, Check),
    /// An IP address.
    Ip(Field<Option<IpAddr>>),
    /// Repeatable IP addresses.
    IpList(Field<Vec<IpAddr>>),
    /// An address with its prefix length.
    Cidr(Field<Option<IpNet>>),
    /// `key=value`, repeatable.
    Map(Field<BTreeMap<String, String>>),
    /// `driver=key=value`, repeatable.
    MapMap(Field<BTreeMap<String, BTreeMap<String, String>>>),
    /// `name[=bool]`, repeatable.
    Features(Field<BTreeMap<String, bool>>),
    /// `name=path`, repeatable.
    Runtimes(Field<BTreeMap<String, RuntimeEntry>>),
    /// `name=soft[:hard]`, repeatable.
    Ulimits(Field<BTreeMap<String, UlimitEntry>>),
    /// `base=CIDR,size=N`, repeatable.
    Pools(Field<Vec<AddressPool>>),
    /// `enable,plugin-path=…`
    Nri(Field<BTreeMap<String, String>>),
    /// Keys of signatures by registry; file only.
    Signatures(Field<Signatures>),
    /// Any JSON; file only.
    Json(Field<Value>),
    /// Acted on by the loader itself; holds no value.
    Command,
}

impl Slot {
    /// True when the flag needs no argument.
    #[must_use]
    pub fn is_switch(&self, flag: &str) -> bool {
        matches!(self, Slot::Bool(_) | Slot::OptBool(_)) || (matches!(self, Slot::Command) && flag != "config-file")
    }

    /// The word for the value in `--help`; empty for switches.
    #[must_use]
    pub fn type_word(&self) -> &'static str {
        match self {
            Slot::Bool(_) | Slot::OptBool(_) => "",
            Slot::Int(_) => "int",
            Slot::Bytes(_) => "bytes",
            Slot::Text(_) | Slot::Path(_) | Slot::Cidr(_) | Slot::Signatures(_) | Slot::Json(_) | Slot::Command => {
                "string"
            }
            Slot::List(..) | Slot::IpList(_) => "list",
            Slot::Ip(_) => "ip",
            Slot::Map(_) | Slot::Features(_) => "map",
            Slot::MapMap(_) => "mapmap",
            Slot::Runtimes(_) => "runtime",
            Slot::Ulimits(_) => "ulimit",
            Slot::Pools(_) => "pool-options",
            Slot::Nri(_) => "nri-opts",
        }
    }
}

/// Writes a flag's text. The error is the part after `for "--x" flag: `.
pub fn set_from_flag(slot: &Slot, config: &mut Config, text: &str) -> Result<(), String> {
    match slot {
        Slot::Bool(f) => *f(config) = go::parse_bool(text)?,
        Slot::OptBool(f) => *f(config) = Some(go::parse_bool(text)?),
        Slot::Int(f) => *f(config) = go::parse_int(text)?,
        Slot::Bytes(f) => *f(config) = sizes::ram_in_bytes(text)?,
        Slot::Text(f) => *f(config) = text.to_string(),
        Slot::Path(f) => *f(config) = PathBuf::from(text),
        Slot::List(f, check) => f(config).push(check(text)?),
        Slot::Ip(f) if text.is_empty() => *f(config) = None,
        Slot::Ip(f) => {
            *f(config) = Some(text.trim().parse().map_err(|_| format!("failed to parse IP: {}", go::quote(text)))?)
        }
        Slot::IpList(f) => f(config).push(go::parse_addr(text)?),
        Slot::Cidr(f) => *f(config) = optional_cidr(text)?,
        Slot::Map(f) => {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            f(config).insert(key.to_string(), value.to_string());
        }
        Slot::MapMap(f) => add_map_map(f(config), text)?,
        Slot::Features(f) => add_feature(f(config), text)?,
        Slot::Runtimes(f) => add_runtime(f(config), text)?,
        Slot::Ulimits(f) => {
            let limit = sizes::ulimit(text)?;
            f(config).insert(limit.name.clone(), limit);
        }
        Slot::Pools(f) => f(config).push(pool(text)?),
        Slot::Nri(f) => add_nri(f(config), text)?,
        Slot::Signatures(_) | Slot::Json(_) | Slot::Command => {}
    }
    Ok(())
}

fn optional_cidr(text: &str) -> Result<Option<IpNet>, String> {
    if text.is_empty() { Ok(None) } else { go::parse_cidr(text).map(Some) }
}

fn add_map_map(map: &mut BTreeMap<String, BTreeMap<String, String>>, text: &str) -> Result<(), String> {
    let bad = || format!("invalid value {} for map option, should be root-key=key=value", go::quote(text));
    let (root, rest) = text.split_once('=').ok_or_else(bad)?;
    let (key, value) = rest.split_once('=').ok_or_else(bad)?;
    map.entry(root.to_string()).or_default().insert(key.to_string(), value.to_string());
    Ok(())
}

fn add_feature(map: &mut BTreeMap<String, bool>, text: &str) -> Result<(), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(format!("invalid option name: {text}"));
    }
    let on = value.map_or(Ok(true), go::parse_bool)?;
    map.insert(name.to_string(), on);
    Ok(())
}

/// Name of the built-in runtime; configuration may not redefine it.
pub const STOCK_RUNTIME: &str = "runc";

fn add_runtime(map: &mut BTreeMap<String, RuntimeEntry>, text: &str) -> Result<(), String> {
    let bad = || format!("invalid runtime argument: {text}");
    let (name, path) = text.split_once('=').ok_or_else(bad)?;
    let (name, path) = (name.trim().to_lowercase(), path.trim());
    if name.is_empty() || path.is_empty() {
        return Err(bad());
    }
    if name == STOCK_RUNTIME {
        return Err(format!("runtime name '{STOCK_RUNTIME}' is reserved"));
    }
    if map.contains_key(&name) {
        return Err(format!("runtime '{name}' was already defined"));
    }
    map.insert(name, RuntimeEntry { path: path.to_string(), ..RuntimeEntry::default() });
    Ok(())
}

fn pool(text: &str) -> Result<AddressPool, String> {
    let (mut base, mut size) = (None, 0);
    for field in text.split(',') {
        let lower = field.to_lowercase();
        let (key, value) =
            lower.split_once('=').ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        match key {
            "base" => {
                let parsed = value.parse().map_err(|_| {
                    format!("invalid base prefix {0}: netip.ParsePrefix({0}): no '/'", go::quote(value))
                })?;
                base = Some(parsed);
            }
            "size" => {
                size = value.parse().map_err(|_| {
                    format!(
                        "invalid size value: {} (must be integer): strconv.Atoi: parsing {}: invalid syntax",
                        go::quote(text),
                        go::quote(value)
                    )
                })?;
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    let base = base.ok_or_else(|| format!("invalid pool '{text}': base is missing"))?;
    Ok(AddressPool { base, size })
}

const NRI_KEYS: [&str; 4] = ["enable", "plugin-path", "plugin-config-path", "socket-path"];

fn add_nri(map: &mut BTreeMap<String, String>, text: &str) -> Result<(), String> {
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        if !NRI_KEYS.contains(&key) {
            return Err(format!("unexpected key '{key}' in '{field}'"));
        }
        let mut value = value.to_string();
        if key == "enable" {
            if value.is_empty() {
                value = "true".into();
            }
            go::parse_bool(&value).map_err(|e| format!("invalid value for NRI enable {}: {e}", go::quote(&value)))?;
        }
        map.insert(key.to_string(), value);
    }
    Ok(())
}

/// Writes a value of `daemon.json`. The error is the decoder's text, without `invalid JSON: `.
pub fn set_from_json(slot: &Slot, config: &mut Config, key: &str, value: &Value) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    let shape = Shape { key, value, member: None };
    match slot {
        Slot::Bool(f) => *f(config) = shape.bool()?,
        Slot::OptBool(f) => *f(config) = Some(shape.bool()?),
        Slot::Int(f) => {
            let n = shape.int()?;
            if n != 0 || key == "default-stop-timeout" {
                *f(config) = n;
            }
        }
        Slot::Bytes(f) => match value.as_str() {
            Some(text) if !text.is_empty() => *f(config) = sizes::ram_in_bytes(text)?,
            _ => return Err(format!("invalid size: {}", go::quote(&value.to_string()))),
        },
        Slot::Text(f) => {
            let text = shape.text()?;
            if !text.is_empty() {
                *f(config) = text;
            }
        }
        Slot::Path(f) => {
            let text = shape.text()?;
            if !text.is_empty() {
                *f(config) = text.into();
            }
        }
        Slot::List(f, _) => *f(config) = shape.list()?,
        Slot::Ip(f) => {
            let text = shape.text()?;
            if !text.is_empty() {
                *f(config) = Some(text.parse().map_err(|_| format!("invalid IP address: {text}"))?);
            }
        }
        Slot::IpList(f) => *f(config) = shape.list()?.iter().map(|t| go::parse_addr(t)).collect::<Result<_, _>>()?,
        Slot::Cidr(f) => *f(config) = optional_cidr(&shape.text()?)?,
        Slot::Map(f) => *f(config) = shape.map()?,
        Slot::MapMap(f) => *f(config) = shape.map_of(|s| s.map())?,
        Slot::Features(f) => *f(config) = shape.map_of(|s| s.bool())?,
        Slot::Runtimes(f) => *f(config) = shape.map_of(runtime)?,
        Slot::Ulimits(f) => *f(config) = shape.map_of(ulimit)?,
        Slot::Pools(f) => *f(config) = shape.pools()?,
        Slot::Nri(f) => *f(config) = nri(&shape)?,
        Slot::Signatures(f) => f(config).rules = shape.map_of(signing_keys)?,
        // Options of Gantry's own are told of by those who read them.
        Slot::Json(f) if value.is_object() || go_names::declared(shape.key, "struct {}").is_none() => {
            *f(config) = value.clone();
        }
        Slot::Json(_) => return Err(shape.mismatch("struct {}")),
        Slot::Command => {}
    }
    Ok(())
}

/// A JSON value with the key it stands under, for type errors in the decoder's words.
struct Shape<'a> {
    key: &'a str,
    value: &'a Value,
    /// The struct within the option whose field this is, and the field.
    member: Option<(&'static str, &'static str)>,
}

impl Shape<'_> {
    fn mismatch(&self, go_type: &str) -> String {
        let (got, place) = (go::json_kind(self.value), go_names::place(self.key));
        let (owner, place, go_type) = match self.member {
            Some((owner, field)) => (owner, format!("{place}.{field}"), go_type),
            None => (go_names::owner(self.key), place, go_names::declared(self.key, go_type).unwrap_or(go_type)),
        };
        format!("json: cannot unmarshal {got} into Go struct field {owner}.{place} of type {go_type}")
    }

    /// A value within this one.
    fn inner<'v>(&'v self, value: &'v Value) -> Shape<'v> {
        Shape { key: self.key, value, member: self.member }
    }

    fn bool(&self) -> Result<bool, String> {
        self.value.as_bool().ok_or_else(|| self.mismatch("bool"))
    }

    fn int(&self) -> Result<i64, String> {
        let is_wide = self.member.is_some_and(|(owner, _)| owner == "Ulimit");
        self.value.as_i64().ok_or_else(|| self.mismatch(if is_wide { "int64" } else { "int" }))
    }

    fn text(&self) -> Result<String, String> {
        self.value.as_str().map(str::to_string).ok_or_else(|| self.mismatch("string"))
    }

    fn list(&self) -> Result<Vec<String>, String> {
        let items = self.value.as_array().ok_or_else(|| self.mismatch("[]string"))?;
        items.iter().map(|value| self.inner(value).text()).collect()
    }

    fn map(&self) -> Result<BTreeMap<String, String>, String> {
        self.map_of(|s| s.text())
    }

    fn map_of<T>(&self, one: impl Fn(&Shape<'_>) -> Result<T, String>) -> Result<BTreeMap<String, T>, String> {
        let object = self.value.as_object().ok_or_else(|| self.mismatch("map[string]string"))?;
        object.iter().map(|(k, value)| Ok((k.clone(), one(&self.inner(value))?))).collect()
    }

    /// A member of an object in any capitals, the last one that says something: as Go's decoder reads it.
    fn member(&self, owner: &'static str, name: &'static str) -> Option<Shape<'_>> {
        let mut members = self.value.as_object()?.iter();
        let (_, value) = members.rfind(|(key, value)| gojson::is_spelling_of(key, name) && !value.is_null())?;
        Some(Shape { key: self.key, value, member: Some((owner, name)) })
    }

    fn pools(&self) -> Result<Vec<AddressPool>, String> {
        let items = self.value.as_array().ok_or_else(|| self.mismatch("[]*ipamutils.NetworkToSplit"))?;
        let one = |value: &Value| {
            let shape = self.inner(value);
            if !value.is_object() {
                return Err(shape.mismatch("ipamutils.NetworkToSplit"));
            }
            let member = |name| shape.member("NetworkToSplit", name);
            let base = member("base").ok_or("default-address-pools: base is missing")?.text()?;
            let size = member("size").map_or(Ok(0), |s| s.int())?;
            let base = base.parse().map_err(|_| format!("netip.ParsePrefix({}): no '/'", go::quote(&base)))?;
            Ok(AddressPool { base, size })
        };
        items.iter().map(one).collect()
    }
}

fn runtime(shape: &Shape<'_>) -> Result<RuntimeEntry, String> {
    if !shape.value.is_object() {
        return Err(shape.mismatch("system.Runtime"));
    }
    Ok(RuntimeEntry {
        path: shape.member("Runtime", "path").map_or(Ok(String::new()), |s| s.text())?,
        args: shape.member("Runtime", "runtimeArgs").map_or(Ok(vec![]), |s| s.list())?,
        runtime_type: shape.member("Runtime", "runtimeType").map_or(Ok(String::new()), |s| s.text())?,
        options: shape.member("Runtime", "options").map(|s| s.value.clone()),
    })
}

fn ulimit(shape: &Shape<'_>) -> Result<UlimitEntry, String> {
    if !shape.value.is_object() {
        return Err(shape.mismatch("container.Ulimit"));
    }
    Ok(UlimitEntry {
        name: shape.member("Ulimit", "Name").map_or(Ok(String::new()), |s| s.text())?,
        hard: shape.member("Ulimit", "Hard").map_or(Ok(0), |s| s.int())?,
        soft: shape.member("Ulimit", "Soft").map_or(Ok(0), |s| s.int())?,
    })
}

/// `{"keys": ["/file"]}`; a misspelt member must not turn into a rule without keys.
fn signing_keys(shape: &Shape<'_>) -> Result<Vec<PathBuf>, String> {
    let object = shape.value.as_object().ok_or_else(|| shape.mismatch("object"))?;
    if let Some(unknown) = object.keys().find(|key| !gojson::is_spelling_of(key, "keys")) {
        return Err(format!("{}: unknown field {}", shape.key, go::quote(unknown)));
    }
    let keys = shape.member("Rule", "keys").map_or(Ok(Vec::new()), |keys| keys.list())?;
    Ok(keys.into_iter().map(PathBuf::from).collect())
}

fn nri(shape: &Shape<'_>) -> Result<BTreeMap<String, String>, String> {
    let object = shape.value.as_object().ok_or_else(|| shape.mismatch("opts.NRIOpts"))?;
    let mut map = BTreeMap::new();
    for (key, value) in object {
        let known = NRI_KEYS.into_iter().find(|known| gojson::is_spelling_of(key, known));
        let known = known.ok_or_else(|| format!("json: unknown field {}", go::quote(key)))?;
        map.insert(known.to_owned(), go::print_json(value));
    }
    Ok(map)
}

/// Prints the field as the reference prints the flag's value (`config` is a scratch copy: fields are reached by `&mut`).
pub fn print(slot: &Slot, config: &mut Config) -> String {
    match slot {
        Slot::Bool(f) => f(config).to_string(),
        Slot::OptBool(f) => f(config).unwrap_or(false).to_string(),
        Slot::Int(f) => f(config).to_string(),
        Slot::Bytes(f) => sizes::bytes_size(*f(config)),
        Slot::Text(f) => f(config).clone(),
        Slot::Path(f) => f(config).display().to_string(),
        Slot::List(f, _) => print_unless_empty(f(config).iter().cloned()),
        Slot::Ip(f) => f(config).map_or("<nil>".into(), |ip| ip.to_string()),
        Slot::IpList(f) => print_unless_empty(f(config).iter().map(ToString::to_string)),
        Slot::Cidr(f) => f(config).map_or(String::new(), |net| net.to_string()),
        Slot::Map(f) => go::print_map(f(config).clone().into_iter()),
        Slot::MapMap(f) => {
            go::print_map(f(config).iter().map(|(k, v)| (k.clone(), go::print_map(v.clone().into_iter()))))
        }
        Slot::Features(f) => go::print_map(f(config).iter().map(|(k, v)| (k.clone(), v.to_string()))),
        Slot::Runtimes(f) => go::print_list(f(config).keys().cloned()),
        Slot::Ulimits(f) => go::print_list(f(config).values().map(|l| format!("{}={}:{}", l.name, l.soft, l.hard))),
        Slot::Pools(f) => f(config).iter().map(|p| format!("{} {}", p.base, p.size)).collect::<Vec<_>>().join(", "),
        Slot::Nri(f) => f(config).iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","),
        Slot::Signatures(f) => go::print_list(f(config).rules.keys().cloned()),
        Slot::Json(f) => f(config).to_string(),
        Slot::Command => String::new(),
    }
}

fn print_unless_empty(items: impl Iterator<Item = String>) -> String {
    let text = go::print_list(items);
    if text == "[]" { String::new() } else { text }
}

/// Accepts anything.
pub fn any(text: &str) -> Result<String, String> {
    Ok(text.to_string())
}

/// A listening address; kept as given, because its default port depends on TLS.
pub fn host(text: &str) -> Result<String, String> {
    if !text.trim().is_empty() {
        hosts::parse(text.trim())?;
    }
    Ok(text.to_string())
}

/// An engine label `key=value` outside the reserved name spaces.
pub fn label(text: &str) -> Result<String, String> {
    if !text.contains('=') {
        return Err(format!("bad attribute format: {text}"));
    }
    let lower = text.to_lowercase();
    if ["com.docker.", "io.docker.", "org.dockerproject."].iter().any(|p| lower.starts_with(p)) {
        return Err(format!(
            "label {text} is not allowed: the namespaces com.docker.*, io.docker.*, and org.dockerproject.* are reserved for internal use"
        ));
    }
    Ok(text.to_string())
}

/// A generic resource `name=value`.
pub fn generic_resource(text: &str) -> Result<String, String> {
    if text.contains('=') {
        return Ok(text.to_string());
    }
    Err(format!("invalid node-generic-resource format `{text}` expected `name=value`"))
}

/// A search domain; `.` is the empty one.
pub fn dns_search(text: &str) -> Result<String, String> {
    let domain = text.trim_matches(' ');
    if domain == "." {
        return Ok(domain.to_string());
    }
    let stripped = domain.trim_end().strip_suffix('.').unwrap_or(domain.trim_end());
    let label_ok = |l: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        edge(l.chars().next())
            && edge(l.chars().next_back())
            && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let letters = domain.chars().any(|c| c.is_ascii_alphabetic());
    if letters && stripped.split('.').all(label_ok) && stripped.len() < 255 {
        return Ok(stripped.to_string());
    }
    Err(format!("{domain} is not a valid domain"))
}

/// An option of resolv.conf; it may not bring a line of its own.
pub fn dns_option(text: &str) -> Result<String, String> {
    if text.contains(char::is_control) {
        return Err(format!("{text:?} is not a valid DNS option: it contains a control character"));
    }
    Ok(text.to_string())
}

/// A registry without verified TLS.
pub fn index_name(text: &str) -> Result<String, String> {
    let name = if text == "index.docker.io" { "docker.io" } else { text };
    if name.starts_with('-') || name.ends_with('-') {
        return Err(format!("invalid index name ({name}). Cannot begin or end with a hyphen"));
    }
    let host = match name.split_once("://") {
        Some((scheme, host)) if matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") => host,
        Some(_) => return Err(format!("insecure registry {name} should not contain '://'")),
        None => name,
    };
    // A network, or a server.
    if host.parse::<ipnet::IpNet>().is_err() {
        let server = model::authority::Authority::parse(host);
        server.map_err(|why| format!("insecure registry {host} is not valid: {why}"))?;
    }
    Ok(name.to_string())
}

/// A mirror's URL; returned with a slash at the end.
pub fn mirror(text: &str) -> Result<String, String> {
    let must = "must use either 'https://' or 'http://'";
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if !scheme.is_empty() => (scheme, rest),
        _ => return Err(format!("invalid mirror: no scheme specified for {}: {must}", go::quote(text))),
    };
    if scheme != "http" && scheme != "https" {
        return Err(format!("invalid mirror: unsupported scheme {} in {}: {must}", go::quote(scheme), go::quote(text)));
    }
    if rest.contains('?') || rest.contains('#') {
        return Err(format!("invalid mirror: query or fragment at end of the URI {}", go::quote(text)));
    }
    if let Some((user, host)) = rest.split('/').next().unwrap_or("").rsplit_once('@') {
        let user = user.split(':').next().unwrap_or("");
        let path = &rest[rest.find('/').unwrap_or(rest.len())..];
        let masked = format!("{scheme}://{user}:xxxxx@{host}{path}");
        return Err(format!("invalid mirror: username/password not allowed in URI {}", go::quote(&masked)));
    }
    let server = rest.split('/').next().unwrap_or_default();
    model::authority::Authority::parse(server)
        .map_err(|why| format!("invalid mirror: {} is not a valid URI: {why}", go::quote(text)))?;
    Ok(format!("{}/", text.strip_suffix('/').unwrap_or(text)))
}

/// Copies one option's value. Both sides are `&mut` because fields are reached that way.
pub fn copy(slot: &Slot, from: &mut Config, to: &mut Config) {
    match slot {
        Slot::Bool(f) => *f(to) = *f(from),
        Slot::OptBool(f) => *f(to) = *f(from),
        Slot::Int(f) | Slot::Bytes(f) => *f(to) = *f(from),
        Slot::Text(f) => f(to).clone_from(f(from)),
        Slot::Path(f) => f(to).clone_from(f(from)),
        Slot::List(f, _) => f(to).clone_from(f(from)),
        Slot::Ip(f) => *f(to) = *f(from),
        Slot::IpList(f) => f(to).clone_from(f(from)),
        Slot::Cidr(f) => *f(to) = *f(from),
        Slot::Map(f) | Slot::Nri(f) => f(to).clone_from(f(from)),
        Slot::MapMap(f) => f(to).clone_from(f(from)),
        Slot::Features(f) => f(to).clone_from(f(from)),
        Slot::Runtimes(f) => f(to).clone_from(f(from)),
        Slot::Ulimits(f) => f(to).clone_from(f(from)),
        Slot::Pools(f) => f(to).clone_from(f(from)),
        Slot::Signatures(f) => f(to).clone_from(f(from)),
        Slot::Json(f) => f(to).clone_from(f(from)),
        Slot::Command => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_have_hosts_and_ports() {
        for good in ["r.test", "R.test:05000", "10.0.0.0/8", "fd00::/8", "http://r.test:5000", "[::1]:5000", "::1"] {
            assert!(index_name(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("r.test:99999", "insecure registry r.test:99999 is not valid: invalid port \"99999\""),
            ("http://r.test:x", "insecure registry r.test:x is not valid: invalid port \"x\""),
            ("ftp://r.test", "insecure registry ftp://r.test should not contain '://'"),
            ("a..b", "insecure registry a..b is not valid: invalid host \"a..b\""),
            ("r.test-", "invalid index name (r.test-). Cannot begin or end with a hyphen"),
        ] {
            assert_eq!(index_name(bad).unwrap_err(), why);
        }
        assert_eq!(mirror("http://m.test:05000/x").unwrap(), "http://m.test:05000/x/");
        let why = "invalid mirror: \"http://m.test:65536\" is not a valid URI: invalid port \"65536\"";
        assert_eq!(mirror("http://m.test:65536").unwrap_err(), why);
    }
}
