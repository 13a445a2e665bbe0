//! Where plugins are: a socket `<name>.sock`, a file `<name>.spec` with an address, or a file `<name>.json` with address and
//! TLS, each in a directory of its own name or not. A socket wins over a file, the first directory over the next.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use url::Url;

use crate::failure::{Failure, Result};
use crate::tls::TlsFiles;

/// Bytes of a file with an address.
const MAX_FILE: u64 = 64 << 10;
/// Bytes of a name.
const MAX_NAME: usize = 255;
/// Names that are looked at.
const MAX_NAMES: usize = 256;

/// Directories in which plugins are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Of sockets.
    pub sockets: PathBuf,
    /// Of files with addresses, in the order in which they count.
    pub specs: Vec<PathBuf>,
}

impl Default for Places {
    /// The reference's.
    fn default() -> Places {
        Places {
            sockets: "/run/docker/plugins".into(),
            specs: vec!["/etc/docker/plugins".into(), "/usr/lib/docker/plugins".into()],
        }
    }
}

/// Where a plugin listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A stream socket.
    Unix(PathBuf),
    /// `host:port`, in clear.
    Tcp(String),
    /// Host, port, and how it is verified.
    Tls(String, u16, TlsFiles),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Description {
    addr: String,
    #[serde(rename = "TLSConfig")]
    tls: Option<TlsFiles>,
}

impl Places {
    /// Where the plugin of this name listens.
    pub(crate) fn find(&self, name: &str) -> Result<Address> {
        let absent = || Failure::Absent(name.to_owned());
        if !is_name(name) {
            return Err(absent());
        }
        let sockets = [self.sockets.join(format!("{name}.sock")), self.sockets.join(name).join(format!("{name}.sock"))];
        if let Some(path) = sockets.into_iter().find(|path| is_socket(path)) {
            return Ok(Address::Unix(path));
        }
        for dir in &self.specs {
            for extension in ["spec", "json"] {
                let file = format!("{name}.{extension}");
                for path in [dir.join(&file), dir.join(name).join(&file)] {
                    match fs::metadata(&path) {
                        Ok(found) if found.is_file() => return read(&path),
                        _ => {}
                    }
                }
            }
        }
        Err(absent())
    }

    /// The names that something stands for, sorted, each once.
    pub(crate) fn scan(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (name, path) in entries(&self.sockets) {
            let nested = path.join(format!("{name}.sock"));
            if is_socket(&nested) {
                names.push(name);
            } else if let Some(name) = name.strip_suffix(".sock").filter(|_| is_socket(&path)) {
                names.push(name.to_owned());
            }
        }
        for (name, path) in self.specs.iter().flat_map(|dir| entries(dir)) {
            let plain = name.strip_suffix(".spec").or_else(|| name.strip_suffix(".json"));
            let nested = |extension: &str| path.join(format!("{name}.{extension}")).is_file();
            match plain {
                Some(plain) if path.is_file() => names.push(plain.to_owned()),
                _ if nested("spec") || nested("json") => names.push(name),
                _ => {}
            }
        }
        names.retain(|name| is_name(name));
        names.sort();
        names.dedup();
        names
    }
}

/// Whether a name stays within its directory.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.contains(['/', '\0']) && name != "." && name != ".."
}

fn entries(dir: &Path) -> Vec<(String, PathBuf)> {
    let found = fs::read_dir(dir).into_iter().flatten().flatten().take(MAX_NAMES);
    found.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect()
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn read(path: &Path) -> Result<Address> {
    let failed = |error: String| Failure::Refused(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    read.map_err(|error| failed(model::io_text(&error)))?;
    match path.extension().is_some_and(|extension| extension == "json") {
        true => {
            let description: Description = gojson::from_slice(&bytes).map_err(|error| failed(error.body_message()))?;
            parse(&description.addr, description.tls).map_err(failed)
        }
        false => {
            let text = String::from_utf8_lossy(&bytes);
            parse(text.trim(), None).map_err(failed)
        }
    }
}

/// Reads an address. TLS is spoken with `https` only; without an authority nothing is verified, as in the reference.
fn parse(text: &str, tls: Option<TlsFiles>) -> Result<Address, String> {
    let url = Url::parse(text).map_err(|_| "Unknown protocol".to_owned())?;
    let host = url.host_str().map(str::to_owned).ok_or_else(|| format!("no host in {text:?}"));
    match url.scheme() {
        "unix" => match text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            Some(path) => Ok(Address::Unix(path.into())),
            None => Err(format!("no path in {text:?}")),
        },
        "https" => {
            let mut files = tls.unwrap_or_default();
            files.insecure_skip_verify |= files.ca_file.is_empty();
            Ok(Address::Tls(host?, url.port().unwrap_or(443), files))
        }
        "tcp" | "http" => {
            let port = url.port_or_known_default().ok_or_else(|| format!("no port in {text:?}"))?;
            Ok(Address::Tcp(format!("{}:{port}", host?)))
        }
        _ => Err("Unknown protocol".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use proptest::prelude::*;

    use super::*;

    fn places(dir: &Path) -> Places {
        let places = Places { sockets: dir.join("run"), specs: vec![dir.join("etc"), dir.join("lib")] };
        for dir in places.specs.iter().chain([&places.sockets]) {
            fs::create_dir_all(dir).unwrap();
        }
        places
    }

    #[test]
    fn plugins_are_found_where_they_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let _one = UnixListener::bind(places.sockets.join("one.sock")).unwrap();
        fs::create_dir(places.sockets.join("two")).unwrap();
        let _two = UnixListener::bind(places.sockets.join("two/two.sock")).unwrap();
        write("run/file.sock", "");
        write("etc/three.spec", "tcp://127.0.0.1:8080\n");
        write("lib/three.spec", "tcp://127.0.0.1:9\n");
        write("lib/four/four.json", r#"{"Name":"x","addr":"https://plugin.example/","TLSConfig":{"CAFile":"/ca"}}"#);
        write("etc/one.spec", "tcp://127.0.0.1:1");
        write("etc/five.json", r#"{"Addr":"unix:///run/five.sock"}"#);
        write("etc/six.json", "no json");
        write("etc/seven.spec", "elsewhere");
        assert_eq!(places.scan(), ["five", "four", "one", "seven", "six", "three", "two"]);
        assert_eq!(places.find("one").unwrap(), Address::Unix(places.sockets.join("one.sock")));
        assert_eq!(places.find("two").unwrap(), Address::Unix(places.sockets.join("two/two.sock")));
        assert_eq!(places.find("three").unwrap(), Address::Tcp("127.0.0.1:8080".into()));
        let files = TlsFiles { ca_file: "/ca".into(), ..TlsFiles::default() };
        assert_eq!(places.find("four").unwrap(), Address::Tls("plugin.example".into(), 443, files));
        assert_eq!(places.find("five").unwrap(), Address::Unix("/run/five.sock".into()));
        for name in ["six", "seven"] {
            assert!(matches!(places.find(name), Err(Failure::Refused(_))), "{name}");
        }
        for name in ["file", "no", "", "..", "../run/one", "two/two"] {
            assert_eq!(places.find(name), Err(Failure::Absent(name.into())));
        }
    }

    #[test]
    fn without_an_authority_nothing_is_verified() {
        let Ok(Address::Tls(host, port, files)) = parse("https://[::1]:8443", None) else { panic!() };
        assert_eq!((host.as_str(), port, files.insecure_skip_verify), ("[::1]", 8443, true));
    }

    proptest! {
        #[test]
        fn any_address_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = parse(&text, None);
        }
    }
}
