//! Whether this host forwards, and for whom.
//!
//! Containers need `ip_forward`. A host where it was off was nobody's router: when Gantry switches it on, traffic that is
//! not of its bridges is dropped (as the reference does, unless `--ip-forward-no-drop`). A host where it was on is a router
//! already and stays one. Who switched is remembered per family, for as long as the setting lives: this boot of the
//! machine, this network namespace.

use model::{Context, Result};
use serde::{Deserialize, Serialize};
use store::{Row, Store, Table};
use sys::netlink::namespace;

use crate::config::{Enabled, NetworkConfig};

/// One row, keyed by `KEY`.
pub const FORWARDING: Table<ForwardingRow> = Table::new("forwarding");
const KEY: &str = "switched";
const IPV4: &str = "net/ipv4/ip_forward";
const BOOT: &str = "kernel/random/boot_id";

/// Which families' forwarding Gantry switched on, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardingRow {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// The network namespace's cookie (`SO_NETNS_COOKIE`).
    pub namespace: u64,
    pub ipv4: bool,
    /// IPv6 networks do not exist yet, so nothing switches it.
    pub ipv6: bool,
}

impl Row for ForwardingRow {
    const VERSION: u32 = 1;
}

/// What is to be done about IPv4 forwarding.
#[derive(Clone, Debug)]
pub struct Forwarding {
    /// Traffic that is not of Gantry's bridges is dropped.
    pub drop_foreign: Enabled,
    /// What to note before forwarding is switched on; `None` = it is on already, or nothing here needs it.
    switch: Option<ForwardingRow>,
}

/// Looks at the calling thread's namespace; changes nothing.
pub fn look(config: &NetworkConfig, store: &Store) -> Result<Forwarding> {
    let mut row = here(store)?;
    let off = namespace::sysctl(IPV4).context("reading the IP forwarding setting")? == "0";
    let switch = off && config.ip_forward.yes() && config.bridge_name().is_some();
    row.ipv4 |= switch;
    let may_drop = config.iptables.yes() && !config.ip_forward_no_drop.yes();
    Ok(Forwarding { drop_foreign: (row.ipv4 && may_drop).into(), switch: switch.then_some(row) })
}

impl Forwarding {
    /// Switches forwarding on where that is needed. The rules stand; `kept`: they are in the kernel.
    pub fn carry_out(self, store: &Store, kept: Enabled) -> Result<()> {
        let Some(row) = self.switch else { return Ok(()) };
        if self.drop_foreign.yes() && !kept.yes() {
            tracing::warn!("IP forwarding stays off: without firewall rules this host would be a router for everybody");
            return Ok(());
        }
        // Durable first: a daemon that dies in between must not take the switch for the administrator's.
        store.write_blocking(move |tx| tx.put(&FORWARDING, KEY, &row))?;
        namespace::set_sysctl(IPV4, "1").context("enabling IP forwarding")
    }
}

/// What is known of this boot and namespace.
fn here(store: &Store) -> Result<ForwardingRow> {
    let boot = namespace::sysctl(BOOT).context("reading the boot's id")?;
    let namespace = namespace::cookie().context("identifying the network namespace")?;
    let known = store.read(|tx| tx.get(&FORWARDING, KEY))?;
    let known = known.filter(|row| row.boot == boot && row.namespace == namespace);
    Ok(known.unwrap_or(ForwardingRow { boot, namespace, ..ForwardingRow::default() }))
}
