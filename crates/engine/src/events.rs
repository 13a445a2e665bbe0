//! The event bus: what happened, in order, to whoever listens.
//!
//! Invariants: an event is published only after the row it speaks of is durable; publishing never waits (a subscriber
//! that falls behind by more than [`BACKLOG`] events is told so and goes on); the last [`HISTORY`] events are kept in
//! memory for `since` (B-ev-1).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use model::filter::Filters;
use model::reference::ImageRef;
use model::time::Timestamp;
use tokio::sync::broadcast;

/// Events kept for `since`.
pub const HISTORY: usize = 256;
/// Events a subscriber may lag behind.
pub const BACKLOG: usize = 1024;

/// One thing that happened. Times are unix nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `container`, `image`, `network`, `volume`, `daemon`, ….
    pub kind: &'static str,
    /// `create`, `start`, `exec_create: sh -c …`, ….
    pub action: String,
    /// The full id (or reference) of the actor.
    pub actor: String,
    /// Attributes, sorted by key as the reference's maps are when encoded.
    pub attributes: BTreeMap<String, String>,
    /// When it was published.
    pub time: Timestamp,
}

/// Publishes to all subscribers and remembers the newest.
pub struct Events {
    inner: Mutex<VecDeque<Event>>,
    live: broadcast::Sender<Event>,
}

/// What a subscriber gets: the past that matches, then the stream of the present.
pub struct Subscription {
    /// Events since the requested time, oldest first.
    pub past: Vec<Event>,
    /// Events from now on.
    pub live: broadcast::Receiver<Event>,
}

impl Default for Events {
    fn default() -> Events {
        Events { inner: Mutex::new(VecDeque::with_capacity(HISTORY)), live: broadcast::channel(BACKLOG).0 }
    }
}

impl Events {
    /// Makes an event of now: remembers it and hands it to all subscribers.
    pub fn publish<K: Into<String>>(
        &self,
        kind: &'static str,
        action: &str,
        actor: &str,
        attributes: impl IntoIterator<Item = (K, String)>,
    ) {
        let attributes = attributes.into_iter().map(|(key, value)| (key.into(), value)).collect();
        let mut history = self.history();
        let event = Event { kind, action: action.into(), actor: actor.into(), attributes, time: now() };
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(event.clone());
        // Sent under the lock: a subscription sees each event exactly once, in the past or in the stream.
        drop(self.live.send(event));
    }

    /// Subscribes; `since` asks for the remembered events from that time on as well.
    pub fn subscribe(&self, since: Option<Timestamp>) -> Subscription {
        let history = self.history();
        let past = match since {
            Some(since) => history.iter().filter(|e| e.time >= since).cloned().collect(),
            None => Vec::new(),
        };
        Subscription { past, live: self.live.subscribe() }
    }

    /// How many clients listen now (`NEventsListener` of `/info`).
    pub fn listeners(&self) -> usize {
        self.live.receiver_count()
    }

    fn history(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The system's time.
pub fn now() -> Timestamp {
    Timestamp::from_unix_nanos(sys::clock::System.unix_nanos())
}

/// The filter keys `/events` accepts.
pub const FILTER_KEYS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Whether the event passes the filters (B-ev-1): same key = or, different keys = and. Keys that nobody knows are not
/// looked at. A key that names a kind takes whatever has that beginning of an id or name, of its kind or not.
pub fn matches(event: &Event, filters: &Filters) -> bool {
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
fn image_matches(event: &Event, wanted: &str) -> bool {
    let attribute = match event.kind {
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

    fn publish(events: &Events, action: &str) {
        let attributes = [("name", "web"), ("image", "busybox:1.36"), ("tier", "front")];
        events.publish("container", action, "ab12", attributes.map(|(key, value)| (key, value.to_string())));
    }

    /// B-ev-1: at most 256 events are replayed, each exactly once over past and present.
    #[tokio::test]
    async fn history_is_bounded_and_joins_the_stream() {
        let events = Events::default();
        for n in 0..300 {
            publish(&events, &format!("a{n}"));
        }
        let mut subscription = events.subscribe(Some(Timestamp::ZERO));
        assert_eq!(subscription.past.len(), HISTORY);
        assert_eq!(subscription.past[0].action, "a44");
        publish(&events, "later");
        assert_eq!(subscription.live.recv().await.map(|e| e.action), Ok("later".to_string()));
    }

    /// B-ev-1: names by their beginning, image with and without tag, prefix only for open-ended actions.
    #[test]
    fn filters_select() {
        let events = Events::default();
        publish(&events, "exec_create: sh");
        let event = events.subscribe(Some(Timestamp::ZERO)).past.remove(0);
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
        let pull = Event { kind: "image", actor: digest, attributes: BTreeMap::new(), ..event.clone() };
        assert!(matches(&pull, &Filters::parse(r#"{"image":["registry:5000/app"]}"#).expect("valid filters")));
        assert!(passes(r#"{"label":["tier=front"]}"#));
        assert!(!passes(r#"{"type":["image"]}"#));
    }
}
