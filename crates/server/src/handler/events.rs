//! `GET /events`: what happened, then what happens, one JSON value a line.
//!
//! Besides the reference's: `ids=1` adds the number of each event (`eventID`), `after=NUMBER` goes on behind one. Events that
//! are not there any more are told of by an event of the daemon, `gap`, with the numbers of the first and the last one.

use std::sync::Arc;
use std::time::Duration;

use api::{Actor, ApiVersion, EventMessage};
use bytes::Bytes;
use events::{Draft, Event, From, Gap, Item, Reader};
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

/// What the client asks for.
struct EventsQuery {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    filters: Filters,
    version: ApiVersion,
    /// The form that the client named.
    stream: Option<JsonStream>,
    /// The event behind which the client goes on.
    after: Option<u64>,
    /// Events are told with their numbers.
    numbered: bool,
}

impl EventsQuery {
    fn read(query: &Query, headers: &HeaderMap, version: ApiVersion) -> Result<EventsQuery> {
        let time = |key: &str| query.unix_time(key).map_err(|error| error.prefix(format!("invalid value for '{key}'")));
        let (since, until) = (time("since")?, time("until")?);
        if let (Some(from), Some(to)) = (since, until)
            && to < from
        {
            let (from, to) = (query.text("since"), query.text("until"));
            return Err(Error::invalid(format!("`since` time ({from}) cannot be after `until` time ({to})")));
        }
        let after = Some(query.text("after")).filter(|text| !text.is_empty());
        let number =
            |text: &str| text.parse().map_err(|_| Error::invalid(format!("invalid value for 'after': {text}")));
        let after: Option<u64> = after.map(number).transpose()?;
        if after.is_some() && since.is_some() {
            return Err(Error::invalid("`since` and `after` exclude each other"));
        }
        let (filters, stream) = (query.filters()?, JsonStream::named(headers));
        let numbered = after.is_some() || query.flag("ids");
        Ok(EventsQuery { since, until, filters, version, stream, after, numbered })
    }

    /// Where the stream begins. Without a beginning but with an end, the past up to that end is meant.
    fn from(&self) -> From {
        match (self.after, self.since, self.until) {
            (Some(number), ..) => From::After(number),
            (None, Some(since), _) => From::Time(since),
            (None, None, Some(_)) => From::Time(Timestamp::from_unix_seconds(0)),
            (None, None, None) => From::Now,
        }
    }

    /// The line of an event, if the client is to see it.
    fn line(&self, event: &Event) -> Option<Bytes> {
        let message = message(event);
        let passes = api::version::knows_event(self.version, &message)
            // The beginning of time is no end: what is remembered is told, as the reference does.
            && self.until.is_none_or(|until| until.unix_nanos() == 0 || event.time <= until)
            && events::matches(event, &self.filters);
        passes.then(|| self.encode(&message, event.number))
    }

    /// The line about events that are missing, whatever the client wants to hear of: some of them may have been of that.
    fn gap(&self, gap: &Gap, engine: &str) -> Bytes {
        let attributes = [("first".to_owned(), gap.first.to_string()), ("last".to_owned(), gap.last.to_string())];
        let said = Draft::new("daemon", "gap", engine, attributes);
        self.encode(&message(&Event { number: gap.last, time: gap.before, said }), gap.last)
    }

    /// Below 1.52 lines are called JSON unless the client names them.
    fn content_type(&self) -> &'static str {
        match self.stream {
            None if self.version.before(52) => response::JSON,
            stream => stream.unwrap_or(JsonStream::Lines).content_type(),
        }
    }

    fn encode(&self, message: &EventMessage, number: u64) -> Bytes {
        let mut shown = serde_json::to_value(message).expect("wire types are plain data");
        api::version::event(self.version, &mut shown);
        if self.numbered {
            shown["eventID"] = number.into();
        }
        let mut line = api::encode::to_vec(&shown);
        if self.stream == Some(JsonStream::Sequence) {
            line.insert(0, ::logs::RECORD_SEPARATOR);
        }
        line.into()
    }
}

/// `GET /events`
pub async fn events(state: Arc<State>, request: Request) -> Result<Outcome> {
    let query = EventsQuery::read(&request.query, &request.headers, request.version)?;
    let place = state.waiting.enter(For::Events)?;
    let reader = state.engine.events.read(query.from())?;
    let engine = state.engine.host.engine_id.clone();
    let left = query.until.map(|until| until.after(events::now()));
    let content_type = query.content_type();
    let (sender, chunks) = mpsc::channel(limits::STREAM_QUEUE);
    let window = state.windows.open();
    tokio::spawn(async move {
        let _place = place;
        tokio::select! {
            // What has happened before the daemon's end is told before the stream ends.
            biased;
            () = tell(reader, left, Out { query, engine, window, sender: &sender }) => {}
            () = sender.closed() => {}
            () = Request::client_gone(request.gone) => {}
        }
    });
    Ok(response::stream(content_type, chunks).into())
}

/// Sends the past, then the present until the client leaves or its end has come.
async fn tell(mut reader: Reader, left: Option<Duration>, out: Out<'_>) {
    if !past(&mut reader, &out).await || left.is_some_and(|left| left.is_zero()) {
        return;
    }
    let end = async {
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    };
    let followed = tokio::select! {
        () = end => true,
        () = follow(&mut reader, &out) => false,
    };
    if followed {
        // What has happened before the end and was not read yet.
        reader.up_to_now();
        past(&mut reader, &out).await;
    }
}

/// All that there is; false when the client has left, or nothing can be read.
async fn past(reader: &mut Reader, out: &Out<'_>) -> bool {
    loop {
        match reader.past().await {
            Ok(None) => return true,
            Ok(Some(told)) if out.tell(&told).await => {}
            Ok(Some(_)) => return false,
            Err(error) => return failed(&error),
        }
    }
}

async fn follow(reader: &mut Reader, out: &Out<'_>) {
    loop {
        match reader.next().await {
            Ok(told) if out.tell(&told).await => {}
            Ok(_) => return,
            Err(error) => {
                failed(&error);
                return;
            }
        }
    }
}

/// The stream breaks off; a client that goes on behind the last event misses none.
fn failed(error: &Error) -> bool {
    tracing::error!(%error, "a stream of events breaks off");
    false
}

/// The way to the client.
struct Out<'o> {
    query: EventsQuery,
    /// The engine's id.
    engine: String,
    window: Window,
    sender: &'o mpsc::Sender<Bytes>,
}

impl Out<'_> {
    /// Sends the line, if there is one; false when the client has left.
    async fn tell(&self, told: &Item) -> bool {
        let line = match told {
            Item::Event(event) => self.query.line(event),
            Item::Gap(gap) => Some(self.query.gap(gap, &self.engine)),
        };
        let Some(line) = line else { return true };
        self.sender.send(self.window.admit(line).await).await.is_ok()
    }
}

/// The wire form of an event.
fn message(event: &Event) -> EventMessage {
    EventMessage {
        kind: event.kind.to_string(),
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

    fn parsed(query: &str, minor: u32) -> Result<EventsQuery> {
        EventsQuery::read(&Query::parse(query).expect("valid query"), &HeaderMap::new(), ApiVersion::v1(minor))
    }

    #[test]
    fn the_format_is_negotiated() {
        let kind = |accept, minor| {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            let asked = EventsQuery::read(&Query::default(), &headers, ApiVersion::v1(minor)).expect("valid");
            asked.content_type()
        };
        assert_eq!(kind("*/*", 45), "application/json");
        assert_eq!(kind("application/json, */*", 56), "application/jsonl");
        assert_eq!(kind("application/json-seq;q=0.9", 45), "application/json-seq");
    }

    #[test]
    fn times_are_checked() {
        assert_eq!(
            parsed("since=20&until=10", 45).err().expect("refused").message(),
            "`since` time (20) cannot be after `until` time (10)"
        );
        assert!(parsed("since=x", 45).err().expect("refused").message().starts_with("invalid value for 'since': "));
        assert!(parsed("since=0&until=10.5", 45).is_ok());
        let refused = |query| parsed(query, 45).err().expect("refused").message().to_owned();
        assert_eq!(refused("after=-1"), "invalid value for 'after': -1");
        assert_eq!(refused("after=1&since=1"), "`since` and `after` exclude each other");
        let from = |query| parsed(query, 45).expect("valid").from();
        assert_eq!((from(""), from("after=9")), (From::Now, From::After(9)));
        assert_eq!(
            (from("until=1"), from("since=1")),
            (From::Time(Timestamp::from_unix_seconds(0)), From::Time(Timestamp::from_unix_seconds(1)))
        );
    }

    #[test]
    fn an_event_becomes_a_line_of_its_version() {
        let said = Draft::new("container", "start", "ab", [("image", "busybox".to_owned())]);
        let event = Event { number: 7, time: Timestamp::from_unix_seconds(5), said };
        let line = |query, minor| parsed(query, minor).expect("valid").line(&event);
        let old = line("", 45).expect("seen");
        assert!(old.starts_with(b"{\"status\":\"start\",\"id\":\"ab\",\"from\":\"busybox\",\"Type\":"), "{old:?}");
        let new = line("", 56).expect("seen");
        assert_eq!(
            new,
            &b"{\"Type\":\"container\",\"Action\":\"start\",\"Actor\":{\"ID\":\"ab\",\"Attributes\":{\"image\":\"busybox\"}},\"scope\":\"local\",\"time\":5,\"timeNano\":5000000000}\n"[..]
        );
        let numbered = line("ids=1", 56).expect("seen");
        assert!(numbered.ends_with(b",\"timeNano\":5000000000,\"eventID\":7}\n"), "{numbered:?}");
        assert_eq!(line("after=3", 56), Some(numbered));
        assert_eq!(line("until=4", 56), None);
        assert!(line("until=0", 56).is_some());
        let gap = Gap { first: 2, last: 6, before: Timestamp::from_unix_seconds(4) };
        let gap = parsed("filters={\"type\":[\"image\"]}", 56).expect("valid").gap(&gap, "engine");
        assert_eq!(
            gap,
            &b"{\"Type\":\"daemon\",\"Action\":\"gap\",\"Actor\":{\"ID\":\"engine\",\"Attributes\":{\"first\":\"2\",\"last\":\"6\"}},\"scope\":\"local\",\"time\":4,\"timeNano\":4000000000}\n"[..]
        );
        assert_eq!(line("filters={\"type\":[\"image\"]}", 56), None);
    }
}
