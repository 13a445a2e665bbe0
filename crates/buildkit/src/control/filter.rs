//! Filters of the history of builds: each holds when all of its fields do, and a build is told of when one filter holds.
//!
//! A field is as containerd writes them (`status==error`, `ref!=x`, `repository~=y`), or compares a time (`startedAt>=1h`,
//! `completedAt<2026-01-01T00:00:00Z`) or a duration (`duration>10s`).

use bollard_buildkit_proto::moby::buildkit::v1::BuildHistoryRecord;
use model::time::Timestamp;
use model::{Error, Result};
use regex_lite::Regex;

use crate::time::nanos;

/// Filters of one request, fields of one filter, and bytes of it.
const FILTERS: usize = 64;
const FIELDS: usize = 64;
const BYTES: usize = 4096;

/// One filter.
pub(super) struct Filter(Vec<Field>);

enum Field {
    Moment { key: Moment, order: Order, than: i64 },
    Text { key: String, wanted: Wanted },
}

#[derive(Clone, Copy)]
enum Moment {
    Started,
    Completed,
    Duration,
}

#[derive(Clone, Copy)]
enum Order {
    AtLeast,
    AtMost,
    More,
    Less,
}

enum Wanted {
    Equal(String),
    Unequal(String),
    Matches(Regex),
    Set,
}

impl Filter {
    /// Reads the filters of a request.
    ///
    /// Errors: `InvalidParameter`.
    pub(super) fn read(filters: &[String]) -> Result<Vec<Filter>> {
        let is_long = |filter: &String| filter.len() > BYTES || filter.split(',').count() > FIELDS;
        if filters.len() > FILTERS || filters.iter().any(is_long) {
            return Err(Error::invalid(format!("more than {FILTERS} filters, or one of more than {BYTES} bytes")));
        }
        let now = events::now();
        let filter = |text: &String| {
            text.split(',').map(|field| Field::read(field.trim(), now)).collect::<Result<Vec<_>>>().map(Filter)
        };
        filters.iter().map(filter).collect()
    }

    /// Whether a build is one of those that are wanted.
    pub(super) fn takes(&self, record: &BuildHistoryRecord) -> bool {
        self.0.iter().all(|field| field.takes(record))
    }
}

impl Field {
    fn read(text: &str, now: Timestamp) -> Result<Field> {
        let orders = [(">=", Order::AtLeast), ("<=", Order::AtMost), (">", Order::More), ("<", Order::Less)];
        let cut = orders.iter().find_map(|(sign, order)| {
            let (key, value) = text.split_once(sign)?;
            Some((key, *order, value))
        });
        let moment = cut.and_then(|(key, order, value)| {
            let key = match key {
                "startedAt" => Moment::Started,
                "completedAt" => Moment::Completed,
                "duration" => Moment::Duration,
                _ => return None,
            };
            Some((key, order, value))
        });
        if let Some((key, order, value)) = moment {
            return Ok(Field::Moment { key, order, than: moment_of(key, value, now)? });
        }
        let invalid = |why: &str| Error::invalid(format!("failed to parse history filters {text:?}: {why}"));
        let (key, wanted) = if let Some((key, value)) = text.split_once("==") {
            (key, Wanted::Equal(unquoted(value)))
        } else if let Some((key, value)) = text.split_once("!=") {
            (key, Wanted::Unequal(unquoted(value)))
        } else if let Some((key, value)) = text.split_once("~=") {
            let pattern = Regex::new(&unquoted(value)).map_err(|error| invalid(&error.to_string()))?;
            (key, Wanted::Matches(pattern))
        } else {
            (text, Wanted::Set)
        };
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if key.is_empty() || !key.bytes().all(is_word) {
            return Err(invalid("it is no field with an operator"));
        }
        Ok(Field::Text { key: key.to_owned(), wanted })
    }

    fn takes(&self, record: &BuildHistoryRecord) -> bool {
        match self {
            Field::Moment { key, order, than } => {
                let started = record.created_at.as_ref().map_or(0, nanos);
                let completed = record.completed_at.as_ref().map(nanos);
                let value = match key {
                    Moment::Started => started,
                    Moment::Completed => completed.unwrap_or(0),
                    Moment::Duration => completed.map_or(0, |completed| completed.saturating_sub(started)),
                };
                match order {
                    Order::AtLeast => value >= *than,
                    Order::AtMost => value <= *than,
                    Order::More => value > *than,
                    Order::Less => value < *than,
                }
            }
            Field::Text { key, wanted } => {
                let found = value(record, key);
                match wanted {
                    Wanted::Equal(text) => found.as_ref() == Some(text),
                    Wanted::Unequal(text) => found.as_ref() != Some(text),
                    Wanted::Matches(pattern) => found.is_some_and(|found| pattern.is_match(&found)),
                    Wanted::Set => found.is_some(),
                }
            }
        }
    }
}

/// A moment so long ago or as it is written; a duration; in nanoseconds.
fn moment_of(key: Moment, text: &str, now: Timestamp) -> Result<i64> {
    let duration = model::duration::parse(text);
    if let Moment::Duration = key {
        return duration.map_err(|_| Error::invalid(format!("invalid duration {text}")));
    }
    match duration {
        Ok(ago) => Ok(now.unix_nanos().saturating_sub(ago)),
        Err(_) => {
            let moment = model::time::parse_rfc3339(text);
            Ok(moment.map_err(|_| Error::invalid(format!("invalid time {text}")))?.unix_nanos())
        }
    }
}

fn unquoted(text: &str) -> String {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).to_owned()
}

fn value(record: &BuildHistoryRecord, key: &str) -> Option<String> {
    match key {
        "ref" => Some(record.r#ref.clone()).filter(|id| !id.is_empty()),
        "status" => Some(
            match (&record.completed_at, &record.error) {
                (None, _) => "running",
                (Some(_), None) => "completed",
                (Some(_), Some(error)) if error.message.contains("context canceled") => "canceled",
                (Some(_), Some(_)) => "error",
            }
            .to_owned(),
        ),
        "repository" => {
            let context = || record.frontend_attrs.get("context").filter(|text| text.contains(".git"));
            let found = record.frontend_attrs.get("vcs:source").or_else(context)?;
            Some(found.split('#').next().unwrap_or_default().to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard_buildkit_proto::google::{protobuf, rpc};

    fn record(error: Option<&str>) -> BuildHistoryRecord {
        let time = |seconds| Some(protobuf::Timestamp { seconds, nanos: 0 });
        let error = error.map(|message| rpc::Status { code: 2, message: message.into(), details: Vec::new() });
        BuildHistoryRecord {
            r#ref: "one".into(),
            created_at: time(1_000),
            completed_at: time(1_010),
            error,
            ..BuildHistoryRecord::default()
        }
    }

    #[test]
    fn fields_are_compared() {
        let takes = |filter: &str, error: Option<&str>| {
            Filter::read(&[filter.to_owned()]).unwrap().iter().all(|one| one.takes(&record(error)))
        };
        assert!(takes("status==completed", None) && !takes("status==completed", Some("x")));
        assert!(takes("status==error", Some("x")) && takes("status==canceled", Some("a: context canceled")));
        assert!(takes("ref==one", None) && takes("ref==\"one\"", None) && !takes("ref!=one", None));
        assert!(takes("ref~=^o", None) && !takes("ref~=^x", None) && takes("ref", None) && !takes("repository", None));
        assert!(takes("duration>=10s", None) && !takes("duration>10s", None) && takes("duration<1m", None));
        assert!(takes("startedAt<1h", None) && !takes("startedAt>1h", None));
        assert!(takes("startedAt>1970-01-01T00:00:01Z", None) && takes("completedAt<=2026-01-01T00:00:00Z", None));
        assert!(takes("status==completed,duration>1s", None) && !takes("status==error,duration>1s", None));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in ["", "==x", "a b==x", "ref~=(", "duration>x", "startedAt>x"] {
            assert!(Filter::read(&[text.to_owned()]).is_err(), "{text:?}");
        }
        assert!(Filter::read(&vec!["ref".to_owned(); FILTERS + 1]).is_err());
        assert!(Filter::read(&["a".repeat(BYTES + 1)]).is_err());
    }
}
