//! Announcements of addresses: who knew an address as another link's learns at once whose it is now. The kernel sends them when
//! a link is told its hardware address anew, where the link's settings say so.

use std::collections::BTreeMap;

use model::{Error, Result};

use super::option;
use crate::config::Enabled;

/// Options of a network.
type Options = BTreeMap<String, String>;

/// How many a network's option may ask for. One is sent, at once; further ones are not.
const COUNTS: std::ops::RangeInclusive<i64> = 0..=3;
/// Milliseconds between them.
const PAUSES: std::ops::RangeInclusive<i64> = 100..=2000;
/// Settings of the kernel that make a link announce its addresses (ip-sysctl.rst), by family.
const SETTINGS: [&str; 2] = ["net/ipv4/conf/{}/arp_notify", "net/ipv6/conf/{}/ndisc_notify"];

/// Refuses options that no network can have, in the reference's words.
pub fn check(options: &Options) -> Result<()> {
    if let Some(2..) = number(options, option::ADVERTISED, "an integer", COUNTS)? {
        tracing::warn!("{}: one announcement is sent", option::ADVERTISED);
    }
    number(options, option::ADVERTISED_EVERY, "integer milliseconds", PAUSES).map(drop)
}

fn number(options: &Options, option: &str, kind: &str, range: std::ops::RangeInclusive<i64>) -> Result<Option<i64>> {
    let Some(text) = options.get(option) else { return Ok(None) };
    let number = text.parse::<i64>();
    let number = number.map_err(|_| Error::system(format!("value for option {option} {text:?} must be {kind}")))?;
    match range.contains(&number) {
        true => Ok(Some(number)),
        false => Err(Error::system(format!("{option} must be in the range {} to {}", range.start(), range.end()))),
    }
}

/// Whether endpoints of the network announce their addresses.
pub fn wanted(options: &Options) -> Enabled {
    let count = number(options, option::ADVERTISED, "", COUNTS).ok().flatten();
    Enabled::from(count != Some(0))
}

/// The settings of a link, or of those to come (`default`).
pub fn settings(link: &str) -> impl Iterator<Item = String> {
    SETTINGS.into_iter().map(move |setting| setting.replace("{}", link))
}
