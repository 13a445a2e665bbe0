//! Rules about what a container may reach (`gantry.egress`), as far as create can tell whether they can be kept.

use model::{Error, Result};

use crate::container::validate::Merged;

/// Refuses rules about what the container may reach where its links cannot be checked, and where it has none of its own.
pub fn refuse_unconfined(networks: &network::Networks, merged: &Merged, request: &api::CreateRequest) -> Result<()> {
    let mode = merged.host_config.network_mode.as_str();
    let has_no_links =
        merged.config.network_disabled || matches!(mode, "host" | "none") || mode.starts_with("container:");
    if has_no_links {
        let mode = if merged.config.network_disabled { "none" } else { mode };
        return Err(Error::invalid(format!(
            "conflicting options: {} and the network mode {mode:?}: there is no link of the container's own to check",
            model::egress::EGRESS
        )));
    }
    let asked = request.networking_config.iter().flat_map(|config| config.endpoints_config.keys());
    let named = asked.map(String::as_str).chain([mode]);
    let rows = named.filter_map(|name| networks.look_up(name).ok());
    match rows.into_iter().find(|row| row.driver != "bridge") {
        Some(row) => Err(network::confine::unsupported(&row.driver)),
        None => Ok(()),
    }
}
