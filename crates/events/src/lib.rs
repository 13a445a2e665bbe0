//! The event bus: what happened, in order, to whoever listens.
//!
//! Invariants: an event is published only after the row it speaks of is durable; publishing never waits (a subscriber
//! that falls behind by more than what is kept is told so and goes on); the last [`HISTORY`] events are given for `since`
//! (B-ev-1). All subscribers read the same events, [`BACKLOG`] of them and [`BACKLOG_BYTES`] at most: labels and command
//! lines are as long as clients like.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use model::filter::Filters;
use model::reference::ImageRef;
use model::time::Timestamp;
use tokio::sync::watch;

/// Events given for `since`, at most.
pub const HISTORY: usize = 256;
/// Events kept; a subscriber may lag behind so many.
pub const BACKLOG: usize = 1024;
/// Bytes of the events kept, except that the newest is kept in any case.
pub const BACKLOG_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that an event takes besides its texts, or an attribute besides its own.
const OVERHEAD: usize = 128;

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

impl Event {
    fn weight(&self) -> usize {
        let attributes = self.attributes.iter().map(|(key, value)| key.len() + value.len() + OVERHEAD);
        self.action.len() + self.actor.len() + OVERHEAD + attributes.sum::<usize>()
    }
}

/// Publishes to all subscribers and remembers the newest.
#[derive(Clone)]
pub struct Events(Arc<Shared>);

struct Shared {
    kept: Mutex<Kept>,
    /// How many there were until now.
    count: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    events: VecDeque<Arc<Event>>,
    /// How many there were before the oldest of these.
    before: u64,
    weight: usize,
}

impl Kept {
    fn push(&mut self, event: Event) {
        self.weight += event.weight();
        self.events.push_back(Arc::new(event));
        while self.events.len() > 1 && (self.events.len() > BACKLOG || self.weight > BACKLOG_BYTES) {
            let oldest = self.events.pop_front();
            self.weight -= oldest.map_or(0, |event| event.weight());
            self.before += 1;
        }
    }

    fn count(&self) -> u64 {
        self.before + self.events.len() as u64
    }
}

/// What a subscriber gets: the past that matches, then the stream of the present.
pub struct Subscription {
    /// Events since the requested time, oldest first.
    pub past: Vec<Arc<Event>>,
    /// Events from now on.
    pub live: Live,
}

/// The present, as one subscriber sees it.
pub struct Live {
    shared: Arc<Shared>,
    /// How many there were before the next one.
    next: u64,
    told: watch::Receiver<u64>,
}

/// So many events are no longer kept that the subscriber has not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed(pub u64);

impl Live {
    /// The next event; after some were missed, the oldest that is kept.
    pub async fn next(&mut self) -> Result<Arc<Event>, Missed> {
        loop {
            self.told.mark_unchanged();
            if let Some(found) = self.look() {
                return found;
            }
            if self.told.changed().await.is_err() {
                // Unreachable: what is shared holds the sender.
                std::future::pending::<()>().await;
            }
        }
    }

    fn look(&mut self) -> Option<Result<Arc<Event>, Missed>> {
        let kept = self.shared.kept();
        if let Some(missed) = kept.before.checked_sub(self.next).filter(|missed| *missed > 0) {
            self.next = kept.before;
            return Some(Err(Missed(missed)));
        }
        let index = usize::try_from(self.next - kept.before).ok()?;
        let event = kept.events.get(index)?.clone();
        self.next += 1;
        Some(Ok(event))
    }
}

impl Default for Events {
    fn default() -> Events {
        Events(Arc::new(Shared { kept: Mutex::default(), count: watch::Sender::new(0) }))
    }
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Events {
    /// Makes an event of now: remembers it and wakes all subscribers.
    pub fn publish<K: Into<String>>(
        &self,
        kind: &'static str,
        action: &str,
        actor: &str,
        attributes: impl IntoIterator<Item = (K, String)>,
    ) {
        let attributes = attributes.into_iter().map(|(key, value)| (key.into(), value)).collect();
        let mut kept = self.0.kept();
        kept.push(Event { kind, action: action.into(), actor: actor.into(), attributes, time: now() });
        self.0.count.send_replace(kept.count());
    }

    /// Subscribes; `since` asks for the remembered events from that time on as well.
    pub fn subscribe(&self, since: Option<Timestamp>) -> Subscription {
        let kept = self.0.kept();
        let newest = kept.events.iter().skip(kept.events.len().saturating_sub(HISTORY));
        let past = newest.filter(|event| since.is_some_and(|since| event.time >= since)).cloned().collect();
        // Under the lock: a subscription sees each event exactly once, in the past or in the stream.
        Subscription { past, live: Live { shared: self.0.clone(), next: kept.count(), told: self.0.count.subscribe() } }
    }

    /// How many clients listen now (`NEventsListener` of `/info`).
    pub fn listeners(&self) -> usize {
        self.0.count.receiver_count()
    }
}

/// The system's time.
pub fn now() -> Timestamp {
    Timestamp::from_unix_nanos(sys::clock::System.unix_nanos())
}

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
        assert_eq!(subscription.live.next().await.map(|e| e.action.clone()), Ok("later".to_string()));
        assert_eq!((events.listeners(), events.subscribe(None).past.len()), (1, 0));
    }

    #[tokio::test]
    async fn one_who_does_not_listen_misses_some_and_goes_on() {
        let events = Events::default();
        let mut live = events.subscribe(None).live;
        for n in 0..BACKLOG + 10 {
            publish(&events, &format!("a{n}"));
        }
        assert_eq!(live.next().await, Err(Missed(10)));
        assert_eq!(live.next().await.map(|e| e.action.clone()), Ok("a10".to_string()));
    }

    #[test]
    fn large_events_are_kept_within_bounds() {
        let events = Events::default();
        let large = "x".repeat(1 << 20);
        for _ in 0..100 {
            publish(&events, &large);
        }
        let kept = events.0.kept().events.len();
        assert!((6..=8).contains(&kept), "{kept}");
        publish(&events, &"x".repeat(BACKLOG_BYTES * 2));
        assert_eq!(events.0.kept().events.len(), 1);
        publish(&events, "small");
        let kept = events.0.kept();
        assert_eq!((kept.events.len(), kept.weight), (1, kept.events[0].weight()));
    }

    /// B-ev-1: names by their beginning, image with and without tag, prefix only for open-ended actions.
    #[test]
    fn filters_select() {
        let events = Events::default();
        publish(&events, "exec_create: sh");
        let event = events.subscribe(Some(Timestamp::ZERO)).past.remove(0);
        let event = Event::clone(&event);
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
