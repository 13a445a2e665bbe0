//! What is accepted for the sake of clients but has no effect yet: a warning each, never silence.

use crate::container::merge::Merged;

/// The name that the container's interface is to have.
const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";

/// Of a merged configuration and what was asked for.
pub(super) fn warnings(merged: &Merged, request: &api::CreateRequest) -> Vec<String> {
    let (config, host_config) = (&merged.config, &merged.host_config);
    let test = config.healthcheck.as_ref().and_then(|health| health.test.first());
    let endpoints =
        || request.networking_config.iter().flat_map(|networking| networking.endpoints_config.values()).flatten();
    let links = |links: &Option<Vec<String>>| links.as_ref().is_some_and(|links| !links.is_empty());
    let renamed = |endpoint: &api::EndpointSettings| {
        endpoint.driver_opts.as_ref().is_some_and(|options| options.contains_key(INTERFACE_NAME))
    };
    let idle = [
        (test.is_some_and(|word| word != "NONE"), "Health checks have no effect yet: none is run."),
        (
            links(&host_config.links) || endpoints().any(|endpoint| links(&endpoint.links)),
            "Links have no effect yet: the container does not know the others by name.",
        ),
        (endpoints().any(renamed), "The name of an interface has no effect yet: it is called eth0."),
    ];
    idle.into_iter().filter(|(asked, _)| *asked).map(|(_, text)| text.to_owned()).collect()
}
