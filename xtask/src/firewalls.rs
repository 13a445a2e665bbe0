//! The firewalls that tests let decide about containers' packets: firewalld and ufw of this machine's release.
//!
//! Neither is installed: that would put it in charge of this machine. They lie below `target/tools/firewalls` and run with
//! the machine's Python; what firewalld imports of others is installed.

use std::path::Path;

use crate::setup::{apt, install_packages, unpack};
use crate::shell::root;

/// With the programs, what they import of their own.
const PACKAGES: [&str; 4] = ["firewalld", "python3-firewall", "python3-nftables", "ufw"];
/// Bindings to D-Bus and GLib.
const LIBRARIES: [&str; 4] = ["python3", "python3-dbus", "python3-gi", "gir1.2-glib-2.0"];
/// Where Debian's Python has them.
const BINDINGS: [&str; 2] = ["/usr/lib/python3/dist-packages/dbus", "/usr/lib/python3/dist-packages/gi"];
/// Rules and settings that ufw's package copies when it is installed.
const UFW_FILES: [&str; 9] = [
    "ufw.conf",
    "before.init",
    "after.init",
    "before.rules",
    "after.rules",
    "before6.rules",
    "after6.rules",
    "iptables/user.rules",
    "iptables/user6.rules",
];

/// Makes sure that both are there.
pub fn all() -> Result<(), String> {
    if !BINDINGS.iter().all(|path| Path::new(path).exists()) {
        install_packages(&LIBRARIES)?;
    }
    let place = root().join("target/tools/firewalls");
    if place.join("complete").exists() {
        return Ok(());
    }
    println!("fetching firewalld and ufw");
    // What an interrupted attempt left is of no use.
    let _ = std::fs::remove_dir_all(&place);
    if PACKAGES.iter().try_for_each(|package| unpack(package, &place)).is_err() {
        apt(&["update"], Path::new("/"))?;
        PACKAGES.iter().try_for_each(|package| unpack(package, &place))?;
    }
    furnish_ufw(&place).map_err(|e| format!("{}: {e}", place.display()))
}

fn furnish_ufw(place: &Path) -> std::io::Result<()> {
    let (from, to) = (place.join("usr/share/ufw"), place.join("etc/ufw"));
    for file in UFW_FILES {
        let name = file.rsplit('/').next().unwrap_or(file);
        std::fs::copy(from.join(file), to.join(name))?;
    }
    std::fs::write(place.join("complete"), "")
}
