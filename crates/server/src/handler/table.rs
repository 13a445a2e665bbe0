//! The routing table: every route of the inventory, and who answers it.

use super::{
    State, archive, buildkit, builds, containers, create, debug, distribution, events, exec, images, networks, plugins,
    secrets, snapshots, streams, swarm, system, volumes,
};
use crate::routes::{Handler, Route};

macro_rules! handler {
    (run $($path:tt)+) => {
        Handler::Run(|state, request| Box::pin($($path)+(state, request)))
    };
    (not_yet) => { Handler::NotYet };
    (needs_swarm) => { Handler::NeedsSwarm };
    (needs_swarm $($path:tt)+) => {
        Handler::Swarmless(|state, request| Box::pin($($path)+(state, request)))
    };
    (experimental) => { Handler::Experimental };
    (debug $($path:tt)+) => {
        Handler::Debug(|state, request| Box::pin($($path)+(state, request)))
    };
    (elsewhere) => { Handler::Elsewhere };
}

macro_rules! routes {
    ($($method:ident $path:literal $since:literal $kind:ident $($function:ident)::*;)*) => {
        &[$(Route {
            method: stringify!($method),
            path: $path,
            since: $since,
            handler: handler!($kind $($function)::*),
        }),*]
    };
}

/// Method, path as in the inventory, minor version that brought it, who answers.
#[rustfmt::skip]
pub const ROUTES: &[Route<State>] = routes! {
    // system
    OPTIONS "/{anyroute:.*}" 24 run system::options;
    GET "/_ping" 11 run system::ping;
    HEAD "/_ping" 40 run system::ping;
    GET "/version" 0 run system::version;
    GET "/info" 0 run system::info;
    GET "/events" 3 run events::events;
    GET "/system/df" 25 run system::disk_usage;
    POST "/auth" 0 run distribution::login;
    // container
    GET "/containers/json" 0 run containers::list;
    POST "/containers/create" 0 run create::create;
    GET "/containers/{name}/json" 0 run containers::inspect;
    GET "/containers/{name}/top" 3 run containers::top;
    GET "/containers/{name}/logs" 11 run streams::logs;
    GET "/containers/{name}/changes" 0 run containers::changes;
    GET "/containers/{name}/export" 0 run containers::export;
    GET "/containers/{name}/stats" 17 run streams::stats;
    POST "/containers/{name}/resize" 15 run containers::resize;
    POST "/containers/{name}/start" 0 run containers::start;
    POST "/containers/{name}/stop" 0 run containers::stop;
    POST "/containers/{name}/restart" 0 run containers::restart;
    POST "/containers/{name}/kill" 0 run containers::kill;
    POST "/containers/{name}/update" 22 run containers::update;
    POST "/containers/{name}/rename" 17 run containers::rename;
    POST "/containers/{name}/ports" 0 run networks::change_ports;
    POST "/containers/{name}/pause" 12 run containers::pause;
    POST "/containers/{name}/unpause" 12 run containers::unpause;
    POST "/containers/{name}/attach" 0 run streams::attach;
    GET "/containers/{name}/attach/ws" 6 run streams::attach_websocket;
    POST "/containers/{name}/wait" 0 run streams::wait;
    DELETE "/containers/{name}" 0 run containers::remove;
    HEAD "/containers/{name}/archive" 20 run archive::stat;
    GET "/containers/{name}/archive" 20 run archive::get;
    PUT "/containers/{name}/archive" 20 run archive::put;
    POST "/containers/prune" 25 run containers::prune;
    // image
    POST "/commit" 0 run containers::commit;
    // container
    GET "/containers/{name}/checkpoints" 25 experimental;
    POST "/containers/{name}/checkpoints" 25 experimental;
    DELETE "/containers/{name}/checkpoints/{checkpoint}" 25 experimental;
    // exec
    POST "/containers/{name}/exec" 15 run exec::create;
    POST "/exec/{id}/start" 15 run exec::start;
    POST "/exec/{id}/resize" 15 run exec::resize;
    GET "/exec/{id}/json" 16 run exec::inspect;
    // image
    GET "/images/json" 0 run images::list;
    POST "/images/create" 0 run images::create;
    GET "/images/{name}/json" 0 run images::inspect;
    GET "/images/{name}/attestations" 55 run images::attestations;
    GET "/images/{name}/history" 0 run images::history;
    POST "/images/{name}/push" 0 run distribution::push;
    POST "/images/{name}/tag" 0 run images::tag;
    DELETE "/images/{name}" 0 run images::remove;
    GET "/images/search" 0 run distribution::search;
    POST "/images/prune" 25 run images::prune;
    GET "/images/{name}/get" 7 run images::save_one;
    GET "/images/get" 15 run images::save_several;
    POST "/images/load" 7 run images::load;
    // build
    POST "/build" 0 run builds::build;
    POST "/build/prune" 31 run system::prune_builds;
    POST "/build/cancel" 39 run builds::cancel;
    // session
    POST "/session" 31 run buildkit::session;
    POST "/grpc" 39 run buildkit::grpc;
    // distribution
    GET "/distribution/{name}/json" 30 run distribution::inspect;
    // network
    GET "/networks" 21 run networks::list;
    GET "/networks/" 21 run networks::list;
    GET "/networks/{id}" 21 run networks::inspect;
    POST "/networks/create" 21 run networks::create;
    DELETE "/networks/{id}" 21 run networks::remove;
    POST "/networks/{id}/connect" 21 run networks::connect;
    POST "/networks/{id}/disconnect" 21 run networks::disconnect;
    POST "/networks/prune" 25 run networks::prune;
    // volume
    GET "/volumes" 21 run volumes::list;
    GET "/volumes/{name}" 21 run volumes::inspect;
    POST "/volumes/create" 21 run volumes::create;
    PUT "/volumes/{name}" 42 run volumes::update;
    DELETE "/volumes/{name}" 21 run volumes::remove;
    POST "/volumes/prune" 25 run volumes::prune;
    POST "/volumes/{name}/snapshots" 0 run snapshots::take;
    GET "/volumes/{name}/export" 0 run snapshots::export_volume;
    POST "/volumes/{name}/import" 0 run snapshots::import;
    GET "/volume-snapshots" 0 run snapshots::list;
    DELETE "/volume-snapshots/{name}" 0 run snapshots::remove;
    POST "/volume-snapshots/{name}/clone" 0 run snapshots::clone;
    GET "/volume-snapshots/{name}/export" 0 run snapshots::export_snapshot;
    // plugin
    GET "/plugins" 24 run plugins::list;
    GET "/plugins/privileges" 25 not_yet;
    POST "/plugins/pull" 24 not_yet;
    GET "/plugins/{name}/json" 25 run plugins::inspect;
    DELETE "/plugins/{name}" 25 not_yet;
    POST "/plugins/{name}/enable" 25 not_yet;
    POST "/plugins/{name}/disable" 25 not_yet;
    POST "/plugins/{name}/upgrade" 26 not_yet;
    POST "/plugins/create" 25 not_yet;
    POST "/plugins/{name}/push" 25 not_yet;
    POST "/plugins/{name}/set" 25 not_yet;
    // swarm
    GET "/swarm" 24 needs_swarm;
    POST "/swarm/init" 24 not_yet;
    POST "/swarm/join" 24 not_yet;
    POST "/swarm/leave" 24 needs_swarm swarm::leave;
    POST "/swarm/update" 24 needs_swarm swarm::update;
    GET "/swarm/unlockkey" 24 needs_swarm;
    POST "/swarm/unlock" 24 needs_swarm swarm::unlock;
    // service
    GET "/services" 24 needs_swarm swarm::list;
    POST "/services/create" 24 needs_swarm swarm::create_service;
    GET "/services/{id}" 24 needs_swarm;
    DELETE "/services/{id}" 24 needs_swarm;
    POST "/services/{id}/update" 24 needs_swarm swarm::update_service;
    GET "/services/{id}/logs" 29 needs_swarm swarm::logs;
    // node
    GET "/nodes" 24 needs_swarm swarm::list;
    GET "/nodes/{id}" 24 needs_swarm;
    DELETE "/nodes/{id}" 24 needs_swarm;
    POST "/nodes/{id}/update" 24 needs_swarm swarm::update_node;
    // task
    GET "/tasks" 24 needs_swarm swarm::list;
    GET "/tasks/{id}" 24 needs_swarm;
    GET "/tasks/{id}/logs" 29 needs_swarm swarm::logs;
    // secret
    GET "/secrets" 25 run secrets::list_secrets;
    POST "/secrets/create" 25 run secrets::create_secret;
    GET "/secrets/{id}" 25 run secrets::inspect_secret;
    DELETE "/secrets/{id}" 25 run secrets::remove_secret;
    POST "/secrets/{id}/update" 26 run secrets::update_secret;
    // config
    GET "/configs" 30 run secrets::list_configs;
    POST "/configs/create" 30 run secrets::create_config;
    GET "/configs/{id}" 30 run secrets::inspect_config;
    DELETE "/configs/{id}" 30 run secrets::remove_config;
    POST "/configs/{id}/update" 30 run secrets::update_config;
    // debug
    GET "/debug/vars" 24 debug debug::vars;
    GET "/debug/pprof/" 24 debug debug::index;
    GET "/debug/pprof/cmdline" 24 debug debug::cmdline;
    GET "/debug/pprof/profile" 24 debug debug::of_go;
    GET "/debug/pprof/symbol" 24 debug debug::of_go;
    GET "/debug/pprof/trace" 24 debug debug::of_go;
    GET "/debug/pprof/{name}" 24 debug debug::profile;
    // metrics
    GET "/metrics" 24 elsewhere;
    // session
    POST "/v1/... gRPC on same socket (h2c prior knowledge)" 24 elsewhere;
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The first two columns of the inventory.
    fn inventory() -> BTreeSet<(String, String)> {
        let row = |line: &str| {
            let mut columns = line.splitn(3, ',');
            Some((columns.next()?.to_owned(), columns.next()?.to_owned()))
        };
        include_str!("../../inventory/endpoints.csv").lines().skip(1).filter_map(row).collect()
    }

    /// Every route of the inventory is in the table and the other way round; prints what is served.
    #[test]
    fn coverage() {
        let table: BTreeSet<_> = ROUTES.iter().map(|route| (route.method.to_owned(), route.path.to_owned())).collect();
        assert_eq!(table.len(), ROUTES.len(), "a route stands twice in the table");
        assert_eq!(table, inventory());
        let mut served = 0;
        for route in ROUTES {
            let state = match route.handler {
                Handler::Run(_) => "served",
                Handler::Debug(_) => "served in debug mode",
                Handler::NotYet | Handler::Experimental => "not implemented yet (501)",
                Handler::NeedsSwarm | Handler::Swarmless(_) => "swarm is inactive (503)",
                Handler::Elsewhere => "another listener or protocol, not there yet",
            };
            served += usize::from(state == "served");
            println!("{:<8}{:<46}{state}", route.method, route.path);
        }
        println!("{served} of {} routes are served", ROUTES.len());
    }
}
