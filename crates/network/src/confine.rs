//! What Gantry's own options of a network say: what its containers may reach, and whether they may send under other
//! addresses than their own. Labels of a network are as good as options: only who creates the network gives them.

use std::net::IpAddr;

use ipnet::IpNet;
use model::egress::{EGRESS, Egress, Ports, Target};
use model::own_label::{KEEP, PREFIX};
use model::{Error, Result};
use sys::gate::{Net, Verdict};

use crate::row::{NetworkRow, parse_flag};

/// Whether containers of the network may not send under other addresses than their own: Ethernet, ARP, IPv4, IPv6 and its
/// discovery of neighbours and routers.
pub const SPOOF_CHECK: &str = "gantry.spoof-check";

/// How packets come to ports that are published in the network (`config::PublishMode`).
pub const PUBLISH_MODE: &str = "gantry.publish-mode";

/// What a network says of what its containers send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// What may be reached outside of the network; `None` = everything.
    pub egress: Option<Egress>,
    /// Source addresses are checked.
    pub checks_sources: bool,
}

/// Reads the options of a network; options that begin with `gantry.` and that there are not are refused by [`check`].
pub fn of(network: &NetworkRow) -> Result<Confinement> {
    let egress = value(network, EGRESS)?.map(|text| Egress::parse(text)).transpose()?;
    let checks_sources = match value(network, SPOOF_CHECK)? {
        None => false,
        Some(text) => parse_flag(text).ok_or_else(|| {
            Error::invalid(format!("invalid {SPOOF_CHECK} value {text:?}: it is \"true\" or \"false\""))
        })?,
    };
    Ok(Confinement { egress, checks_sources })
}

/// The option, else the label.
pub(crate) fn value<'a>(network: &'a NetworkRow, name: &str) -> Result<Option<&'a String>> {
    match (network.options.get(name), network.labels.get(name)) {
        (Some(option), Some(label)) if option != label => {
            Err(Error::invalid(format!("{name} is given as an option and as a label, with different values")))
        }
        (option, label) => Ok(option.or(label)),
    }
}

/// Refuses what cannot be kept. One that is ignored would protect nothing.
pub fn check(network: &NetworkRow) -> Result<()> {
    let names = network.options.keys().chain(network.labels.keys());
    for name in names.filter(|name| name.starts_with(PREFIX)) {
        if !matches!(name.as_str(), EGRESS | SPOOF_CHECK | PUBLISH_MODE | KEEP) {
            return Err(Error::invalid(format!(
                "unknown option {name:?}: options and labels of networks that begin with {PREFIX:?} are those of the \
                 engine, and it has none of this name"
            )));
        }
    }
    let asks = of(network)? != Confinement::default();
    if asks && !network.traits.config_only && network.driver != "bridge" {
        return Err(unsupported(&network.driver));
    }
    Ok(())
}

/// The refusal of a network whose containers' links have no end on the host.
pub fn unsupported(driver: &str) -> Error {
    Error::invalid(format!(
        "{EGRESS} and {SPOOF_CHECK} work with networks of the driver \"bridge\" only: what containers send to a network \
         of the driver {driver:?} cannot be checked"
    ))
}

/// The networks that rules name, each with each of its ports.
pub fn nets(egress: &Egress) -> Vec<Net> {
    let mut nets = Vec::new();
    for destination in &egress.destinations {
        let Target::Net { address, length } = destination.to else { continue };
        let net = |port| Net { address, length, port, verdict: Verdict::Pass };
        match destination.ports {
            None => nets.push(net(None)),
            Some(Ports { first, last }) => nets.extend((first..=last).map(|port| net(Some(port)))),
        }
    }
    nets
}

/// The same of a network's own rules: what stays in it passes, but for the host's own addresses there.
pub fn nets_of_network(egress: &Egress, subnets: &[IpNet], host: &[(IpAddr, u8)]) -> Vec<Net> {
    let inside = subnets.iter().map(|subnet| Net {
        address: subnet.network(),
        length: subnet.prefix_len(),
        port: None,
        verdict: Verdict::Pass,
    });
    let whole = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let host = host.iter().map(|(address, _)| Net {
        address: *address,
        length: whole(address),
        port: None,
        verdict: Verdict::Drop,
    });
    // A rule about the host's very address comes last.
    inside.chain(host).chain(nets(egress)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{PoolRow, Traits};

    fn row(options: &[(&str, &str)], labels: &[(&str, &str)]) -> NetworkRow {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut row = NetworkRow {
            id: model::id::NetworkId::from_bytes([1; 32]),
            name: "app".into(),
            driver: "bridge".into(),
            created: 0,
            progress: Default::default(),
            traits: Traits::default(),
            labels: map(labels),
            options: map(options),
            ipam: Default::default(),
            mac: None,
        };
        row.ipam.pools.push(PoolRow::new("10.1.0.0/16".parse().unwrap()));
        row
    }

    #[test]
    fn options_and_labels_are_read() {
        let rules = [("gantry.egress", "allow:10.0.0.0/8:53-54")];
        let expected = Egress::parse("allow:10.0.0.0/8:53-54").unwrap();
        for row in [row(&rules, &[]), row(&[], &rules), row(&rules, &rules)] {
            assert_eq!(of(&row).unwrap(), Confinement { egress: Some(expected.clone()), checks_sources: false });
            check(&row).unwrap();
            let macvlan = NetworkRow { driver: "macvlan".into(), ..row };
            assert!(check(&macvlan).unwrap_err().message().contains("\"bridge\" only"));
        }
        assert!(of(&row(&[("gantry.spoof-check", "true")], &[])).unwrap().checks_sources);
        for bad in [
            row(&rules, &[("gantry.egress", "allow:10.0.0.0/8")]),
            row(&[("gantry.egress", "none")], &[]),
            row(&[("gantry.spoof-check", "maybe")], &[]),
            row(&[("gantry.egres", "allow:a")], &[]),
            row(&[], &[("gantry.x", "")]),
        ] {
            assert_eq!(check(&bad).unwrap_err().kind(), model::Kind::InvalidParameter, "{bad:?}");
        }
        check(&row(&[], &[("gantry.keep", ""), ("com.example", "x")])).unwrap();
    }

    #[test]
    fn a_network_s_rules_leave_it_alone() {
        let egress = Egress::parse("allow:192.0.2.1:53-54,example.org").unwrap();
        let net = |text: &str, length, port, verdict| Net { address: text.parse().unwrap(), length, port, verdict };
        let host = [("10.1.0.1".parse().unwrap(), 16)];
        let expected = [
            net("10.1.0.0", 16, None, Verdict::Pass),
            net("10.1.0.1", 32, None, Verdict::Drop),
            net("192.0.2.1", 32, Some(53), Verdict::Pass),
            net("192.0.2.1", 32, Some(54), Verdict::Pass),
        ];
        assert_eq!(nets_of_network(&egress, &["10.1.0.0/16".parse().unwrap()], &host), expected);
    }
}
