//! Hardware addresses of Ethernet links: parsing, printing and random ones.

use std::fmt;
use std::str::FromStr;

use model::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An Ethernet address; text form `02:42:ac:11:00:02`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// A unicast, locally administered address made of `random` bytes.
    pub fn local(random: [u8; 6]) -> MacAddress {
        let mut bytes = random;
        bytes[0] = (bytes[0] & 0xfe) | 0x02;
        MacAddress(bytes)
    }

    /// Six hexadecimal pairs separated by `:` or `-`, or three of four digits by `.`.
    pub fn parse(text: &str) -> Option<MacAddress> {
        if let [a, b, c] = text.split('.').collect::<Vec<_>>()[..] {
            let half = |part: &str| Some(part.get(..2)?.to_owned() + ":" + part.get(2..)?);
            return MacAddress::parse(&[half(a)?, half(b)?, half(c)?].join(":"));
        }
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0u8; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2)?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(MacAddress(bytes))
    }

    /// `local`, with bytes from the kernel's generator.
    pub fn random() -> MacAddress {
        let bytes = sys::random::bytes32();
        MacAddress::local([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<MacAddress, Error> {
        MacAddress::parse(text).ok_or_else(|| Error::invalid(format!("address {text}: invalid MAC address")))
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MacAddress, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_unicast_and_locally_administered() {
        for first in 0..=255 {
            let mac = MacAddress::local([first, 1, 2, 3, 4, 5]);
            assert_eq!(mac.0[0] & 0x03, 0x02);
        }
    }

    #[test]
    fn text_form() {
        let mac: MacAddress = "02:42:AC:11:00:02".parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        assert_eq!("02-42-ac-11-00-02".parse::<MacAddress>().unwrap(), mac);
        assert_eq!("0242.ac11.0002".parse::<MacAddress>().unwrap(), mac);
        for bad in [
            "",
            "0242.ac11.02",
            "0242.ac11.0ä2",
            "02:42:ac:11:00",
            "02:42:ac:11:00:02:03",
            "0:42:ac:11:00:02",
            "zz:42:ac:11:00:02",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }
}
