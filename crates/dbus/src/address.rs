//! Where a bus listens.

use std::path::PathBuf;

/// Of the system bus, where `DBUS_SYSTEM_BUS_ADDRESS` is not set.
pub const DEFAULT: &str = "unix:path=/run/dbus/system_bus_socket";

/// A unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// In the file system.
    Path(PathBuf),
    /// In the abstract namespace.
    Abstract(Vec<u8>),
}

/// The unix sockets of a list of server addresses (D-Bus Specification, "Server Addresses"), in their order; other
/// transports are left out.
pub fn parse(text: &str) -> Vec<Address> {
    text.split(';').filter_map(one).collect()
}

fn one(text: &str) -> Option<Address> {
    let pairs = text.strip_prefix("unix:")?;
    pairs.split(',').find_map(|pair| match pair.split_once('=')? {
        ("path", value) => Some(Address::Path(String::from_utf8(unescape(value)?).ok()?.into())),
        ("abstract", value) => Some(Address::Abstract(unescape(value)?)),
        _ => None,
    })
}

/// `%20` is a space.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16).and_then(|value| u8::try_from(value).ok());
        plain.push(digit()? << 4 | digit()?);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_addresses() {
        let path = |path: &str| Address::Path(path.into());
        assert_eq!(parse(DEFAULT), [path("/run/dbus/system_bus_socket")]);
        assert_eq!(parse("tcp:host=a,port=1;unix:guid=00,path=/a%20b%2c"), [path("/a b,")]);
        assert_eq!(parse("unix:abstract=/tmp/x"), [Address::Abstract(b"/tmp/x".to_vec())]);
        for nothing in ["", ";", "unix:", "unix:path", "unix:path=%2", "unix:path=%zz", "unix:tmpdir=/tmp"] {
            assert_eq!(parse(nothing), [], "{nothing}");
        }
    }
}
