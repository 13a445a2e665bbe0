//! `GET /events`: what happened, then what happens, one JSON value a line.

use std::sync::Arc;
use std::time::Duration;

use api::{Actor, ApiVersion, EventMessage};
use bytes::Bytes;
use events::{Event, Live, Missed, Subscription};
use hyper::HeaderMap;
use model::filter::Filters;
use model::time::Timestamp;
use model::{Error, Result};
use tokio::sync::mpsc;

use super::State;
use crate::accept::JsonStream;
use crate::limits;
use crate::query::Query;
use crate::request::Request;
use crate::response;
use crate::routes::Outcome;
use crate::waiting::For;
use crate::window::Window;

/// What the client wants to hear.
struct Wish {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    filters: Filters,
    version: ApiVersion,
    /// The form that the client named.
    stream: Option<JsonStream>,
}

impl Wish {
    fn read(query: &Query, headers: &HeaderMap, version: ApiVersion) -> Result<Wish> {
        let time = |key: &str| query.unix_time(key).map_err(|error| error.prefix(format!("invalid value for '{key}'")));
        let (since, until) = (time("since")?, time("until")?);
        if let (Some(from), Some(to)) = (since, until)
            && to < from
        {
            let (from, to) = (query.text("since"), query.text("until"));
            return Err(Error::invalid(format!("`since` time ({from}) cannot be after `until` time ({to})")));
        }
        Ok(Wish { since, until, filters: query.filters()?, version, stream: JsonStream::named(headers) })
    }

    /// The line of an event, if the client is to see it.
    fn line(&self, event: &Event) -> Option<Bytes> {
        let message = message(event);
        let passes = api::version::knows_event(self.version, &message)
            // The beginning of time is no end: what is remembered is told, as the reference does.
            && self.until.is_none_or(|until| until.unix_nanos() == 0 || event.time <= until)
            && events::matches(event, &self.filters);
        passes.then(|| self.encode(&message))
    }

    /// Below 1.52 lines are called JSON unless the client names them.
    fn content_type(&self) -> &'static str {
        match self.stream {
            None if self.version.before(52) => response::JSON,
            stream => stream.unwrap_or(JsonStream::Lines).content_type(),
        }
    }

    fn encode(&self, message: &EventMessage) -> Bytes {
        let mut shown = serde_json::to_value(message).expect("wire types are plain data");
        api::version::event(self.version, &mut shown);
        let mut line = api::encode::to_vec(&shown);
        if self.stream == Some(JsonStream::Sequence) {
            line.insert(0, ::logs::RECORD_SEPARATOR);
        }
        line.into()
    }
}

/// `GET /events`
pub async fn events(state: Arc<State>, request: Request) -> Result<Outcome> {
    let wish = Wish::read(&request.query, &request.headers, request.version)?;
    // Without a beginning but with an end, the past up to that end is meant.
    let since = wish.since.or(wish.until.map(|_| Timestamp::from_unix_seconds(0)));
    let place = state.waiting.enter(For::Events)?;
    let subscription = state.engine.events.subscribe(since);
    let left = wish.until.map(|until| until.after(events::now()));
    let content_type = wish.content_type();
    let (sender, chunks) = mpsc::channel(limits::STREAM_QUEUE);
    let window = state.windows.open();
    tokio::spawn(async move {
        let _place = place;
        tokio::select! {
            // What has happened before the daemon's end is told before the stream ends.
            biased;
            () = tell(wish, subscription, left, Out { window, sender: &sender }) => {}
            () = sender.closed() => {}
            () = Request::client_gone(request.gone) => {}
        }
    });
    Ok(response::stream(content_type, chunks).into())
}

/// Sends the past, then the present until the client leaves or its end has come.
async fn tell(wish: Wish, subscription: Subscription, left: Option<Duration>, out: Out<'_>) {
    for event in &subscription.past {
        if !out.tell(&wish, event).await {
            return;
        }
    }
    if left.is_some_and(|left| left.is_zero()) {
        return;
    }
    let end = async {
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = end => {}
        () = follow(&wish, subscription.live, &out) => {}
    }
}

async fn follow(wish: &Wish, mut live: Live, out: &Out<'_>) {
    loop {
        match live.next().await {
            Ok(event) => {
                if !out.tell(wish, &event).await {
                    return;
                }
            }
            Err(Missed(missed)) => tracing::warn!(missed, "a client of /events reads too slowly"),
        }
    }
}

/// The way to the client.
struct Out<'o> {
    window: Window,
    sender: &'o mpsc::Sender<Bytes>,
}

impl Out<'_> {
    /// Sends the event's line, if there is one; false when the client has left.
    async fn tell(&self, wish: &Wish, event: &Event) -> bool {
        let Some(line) = wish.line(event) else { return true };
        self.sender.send(self.window.admit(line).await).await.is_ok()
    }
}

/// The wire form of an event.
fn message(event: &Event) -> EventMessage {
    EventMessage {
        kind: event.kind.to_owned(),
        action: event.action.clone(),
        actor: Actor { id: event.actor.clone(), attributes: event.attributes.clone() },
        scope: "local".to_owned(),
        time: event.time.unix_seconds(),
        time_nano: event.time.unix_nanos(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{ACCEPT, HeaderValue};

    fn wish(query: &str, minor: u32) -> Result<Wish> {
        Wish::read(&Query::parse(query).expect("valid query"), &HeaderMap::new(), ApiVersion::v1(minor))
    }

    #[test]
    fn the_format_is_negotiated() {
        let kind = |accept, minor| {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            let wish = Wish::read(&Query::default(), &headers, ApiVersion::v1(minor)).expect("valid");
            wish.content_type()
        };
        assert_eq!(kind("*/*", 45), "application/json");
        assert_eq!(kind("application/json, */*", 56), "application/jsonl");
        assert_eq!(kind("application/json-seq;q=0.9", 45), "application/json-seq");
    }

    #[test]
    fn times_are_checked() {
        assert_eq!(
            wish("since=20&until=10", 45).err().expect("refused").message(),
            "`since` time (20) cannot be after `until` time (10)"
        );
        assert!(wish("since=x", 45).err().expect("refused").message().starts_with("invalid value for 'since': "));
        assert!(wish("since=0&until=10.5", 45).is_ok());
    }

    #[test]
    fn an_event_becomes_a_line_of_its_version() {
        let event = Event {
            kind: "container",
            action: "start".to_owned(),
            actor: "ab".to_owned(),
            attributes: [("image".to_owned(), "busybox".to_owned())].into(),
            time: Timestamp::from_unix_seconds(5),
        };
        let line = |query, minor| wish(query, minor).expect("valid").line(&event);
        let old = line("", 45).expect("seen");
        assert!(old.starts_with(b"{\"status\":\"start\",\"id\":\"ab\",\"from\":\"busybox\",\"Type\":"), "{old:?}");
        let new = line("", 56).expect("seen");
        assert_eq!(
            new,
            &b"{\"Type\":\"container\",\"Action\":\"start\",\"Actor\":{\"ID\":\"ab\",\"Attributes\":{\"image\":\"busybox\"}},\"scope\":\"local\",\"time\":5,\"timeNano\":5000000000}\n"[..]
        );
        assert_eq!(line("until=4", 56), None);
        assert!(line("until=0", 56).is_some());
        assert_eq!(line("filters={\"type\":[\"image\"]}", 56), None);
    }
}
