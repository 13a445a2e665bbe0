//! Which events a client wants to hear of (B-ev-1).

use model::filter::Filters;
use model::reference::ImageRef;

use crate::Draft;

/// Whether the event passes the filters: same key = or, different keys = and. Keys that nobody knows are not
/// looked at. A key that names a kind takes whatever has that beginning of an id or name, of its kind or not.
pub fn matches(event: &Draft, filters: &Filters) -> bool {
    let any = |key: &str, test: &dyn Fn(&str) -> bool| !filters.contains(key) || filters.get(key).any(test);
    let name = event.attributes.get("name").map_or("", String::as_str);
    let actor = |kind: &str| any(kind, &|wanted| event.actor.starts_with(wanted) || name.starts_with(wanted));
    any("event", &|wanted| action_matches(&event.action, wanted))
        && any("type", &|wanted| event.kind == wanted)
        && any("scope", &|wanted| wanted == "local")
        && any("image", &|wanted| image_matches(event, wanted))
        && filters.match_kv_list("label", &event.attributes)
        && ["container", "plugin", "volume", "network", "daemon", "service", "node", "secret", "config"]
            .iter()
            .all(|kind| actor(kind))
}

/// `exec_create`, `exec_start` and `health_status` carry a text behind the name; the others are compared whole.
fn action_matches(action: &str, wanted: &str) -> bool {
    const OPEN_ENDED: [&str; 3] = ["exec_create", "exec_start", "health_status"];
    action == wanted
        || OPEN_ENDED
            .iter()
            .any(|name| wanted == *name && action.strip_prefix(name).is_some_and(|r| r.starts_with(':')))
}

/// An image by its id or name, a container by the image it was made of; names also without tag and digest.
fn image_matches(event: &Draft, wanted: &str) -> bool {
    let attribute = match &*event.kind {
        "image" => "name",
        "container" => "image",
        _ => return false,
    };
    let name = event.attributes.get(attribute).map_or("", String::as_str);
    let is = |text: &str| {
        text == wanted || ImageRef::parse_normalized(text).is_ok_and(|reference| reference.familiar_name() == wanted)
    };
    is(&event.actor) || is(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// B-ev-1: names by their beginning, image with and without tag, prefix only for open-ended actions.
    #[test]
    fn filters_select() {
        let attributes = [("name", "web"), ("image", "busybox:1.36"), ("tier", "front")];
        let attributes = attributes.map(|(key, value)| (key, value.to_string()));
        let event = Draft::new("container", "exec_create: sh", "ab12", attributes);
        let passes = |json: &str| matches(&event, &Filters::parse(json).expect("valid filters"));
        assert!(passes(r#"{"event":["exec_create"]}"#));
        assert!(!passes(r#"{"event":["exec"]}"#));
        assert!(passes(r#"{"container":["we"]}"#));
        assert!(passes(r#"{"container":["ab1"]}"#));
        assert!(!passes(r#"{"container":["eb"]}"#));
        assert!(passes(r#"{"image":["busybox"]}"#));
        assert!(passes(r#"{"image":["busybox:1.36"]}"#));
        assert!(!passes(r#"{"image":["busybox:1"]}"#));
        let digest = format!("registry:5000/app@sha256:{}", "ab".repeat(32));
        let pull = Draft { kind: "image".into(), actor: digest, attributes: BTreeMap::new(), ..event.clone() };
        assert!(matches(&pull, &Filters::parse(r#"{"image":["registry:5000/app"]}"#).expect("valid filters")));
        assert!(passes(r#"{"label":["tier=front"]}"#));
        assert!(!passes(r#"{"type":["image"]}"#));
    }
}
