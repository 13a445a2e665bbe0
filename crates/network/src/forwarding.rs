//! Whether this host forwards, and for whom.
//!
//! Containers need `ip_forward`. A host where it was off was nobody's router: when Gantry switches it on, traffic that is
//! not of its bridges is dropped (as the reference does, unless `--ip-forward-no-drop`). A host where it was on is a router
//! already and stays one. Who switched is remembered per family, for as long as the setting lives: this boot of the
//! machine, this network namespace.

use std::io::ErrorKind;

use model::lock::{Mutex, MutexGuard};
use model::{Context, Result};
use serde::{Deserialize, Serialize};
use store::{Row, Store, Table};
use sys::netlink::namespace;

use crate::config::{Enabled, NetworkConfig};
use crate::driver::Rules;
use crate::family::Family;
use crate::plan::{DropForeign, Filtered};

/// One row, keyed by `KEY`.
pub const FORWARDING: Table<ForwardingRow> = Table::new("forwarding");
const KEY: &str = "switched";
const BOOT: &str = "kernel/random/boot_id";

/// The setting of a family.
fn setting(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "net/ipv4/ip_forward",
        Family::Ipv6 => "net/ipv6/conf/all/forwarding",
    }
}

/// Which families' forwarding Gantry switched on, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardingRow {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// The network namespace's cookie (`SO_NETNS_COOKIE`).
    pub namespace: u64,
    pub ipv4: bool,
    pub ipv6: bool,
}

impl Row for ForwardingRow {
    const VERSION: u32 = 1;
}

impl ForwardingRow {
    fn family(&mut self, family: Family) -> &mut bool {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }
}

/// Switches forwarding on where a network needs it.
pub struct Forwarding {
    store: Store,
    /// The daemon may switch it at all (`--ip-forward`).
    may_switch: bool,
    /// What is not of Gantry's bridges is dropped where it did.
    may_drop: Filtered,
    row: Mutex<ForwardingRow>,
}

impl Forwarding {
    /// Looks at the calling thread's namespace; changes nothing.
    pub fn look(config: &NetworkConfig, store: &Store) -> Result<Forwarding> {
        Ok(Forwarding {
            row: Mutex::new(here(store)?),
            store: store.clone(),
            may_switch: config.ip_forward.yes(),
            may_drop: Filtered {
                ipv4: Enabled::from(config.iptables.yes() && !config.ip_forward_no_drop.yes()),
                ipv6: Enabled::from(config.ip6tables.yes() && !config.ip_forward_no_drop.yes()),
            },
        })
    }

    /// Whose foreign traffic is dropped.
    pub fn drop_foreign(&self) -> DropForeign {
        let row = self.row();
        let drops = |switched: bool, family| Enabled::from(switched && self.may_drop.has(family));
        DropForeign { ipv4: drops(row.ipv4, Family::Ipv4), ipv6: drops(row.ipv6, Family::Ipv6) }
    }

    /// Switches forwarding of these families on, in the calling thread's namespace, when it is off; the rules stand
    /// before.
    pub fn ensure(&self, families: &[Family], rules: &Rules) -> Result<()> {
        families.iter().filter(|_| self.may_switch).try_for_each(|family| self.ensure_one(*family, rules))
    }

    fn ensure_one(&self, family: Family, rules: &Rules) -> Result<()> {
        let off = match namespace::sysctl(setting(family)) {
            Ok(value) => value == "0",
            // A kernel without the family.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context("reading the IP forwarding setting"),
        };
        if !off {
            return Ok(());
        }
        let mut row = self.row().clone();
        *row.family(family) = true;
        if self.may_drop.has(family) {
            if !rules.enabled() {
                tracing::warn!(
                    "IP forwarding stays off: without firewall rules this host would be a router for everybody"
                );
                return Ok(());
            }
            rules.change(|topology| match family {
                Family::Ipv4 => topology.drop_foreign.ipv4 = Enabled::Yes,
                Family::Ipv6 => topology.drop_foreign.ipv6 = Enabled::Yes,
            })?;
        }
        // Durable first: a daemon that dies in between must not take the switch for the administrator's.
        let stored = row.clone();
        self.store.write_blocking(move |tx| tx.put(&FORWARDING, KEY, &stored))?;
        *self.row() = row;
        namespace::set_sysctl(setting(family), "1").context("enabling IP forwarding")
    }

    /// Switches forwarding of a family off again, where Gantry switched it on and no network needs it any more; the rules
    /// that drop what others send go after.
    pub fn give_up(&self, family: Family, rules: &Rules) -> Result<()> {
        let mut row = self.row().clone();
        if !std::mem::take(row.family(family)) {
            return Ok(());
        }
        match namespace::set_sysctl(setting(family), "0") {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context("disabling IP forwarding"),
            _ => (),
        }
        rules.change(|topology| match family {
            Family::Ipv4 => topology.drop_foreign.ipv4 = Enabled::No,
            Family::Ipv6 => topology.drop_foreign.ipv6 = Enabled::No,
        })?;
        let stored = row.clone();
        self.store.write_blocking(move |tx| tx.put(&FORWARDING, KEY, &stored))?;
        *self.row() = row;
        Ok(())
    }

    fn row(&self) -> MutexGuard<'_, ForwardingRow> {
        // It is replaced as a whole.
        self.row.lock()
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
