//! The `Accept` field of a request, and the streams of JSON values among which clients may choose by it.

use hyper::HeaderMap;
use hyper::header::ACCEPT;

/// How the values of a stream of JSON are set apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonStream {
    /// A newline behind each.
    Lines,
    /// The same under an older name.
    NewlineDelimited,
    /// A record separator in front of each as well.
    Sequence,
}

impl JsonStream {
    /// What is offered, best first.
    const OFFERS: [JsonStream; 3] = [JsonStream::Lines, JsonStream::NewlineDelimited, JsonStream::Sequence];

    /// The media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            JsonStream::Lines => "application/jsonl",
            JsonStream::NewlineDelimited => "application/x-ndjson",
            JsonStream::Sequence => "application/json-seq",
        }
    }

    /// The one that the client names and likes best; wildcards name none.
    pub fn named(headers: &HeaderMap) -> Option<JsonStream> {
        JsonStream::best(headers, |range, name| (range == name).then_some(Breadth::One))
    }

    /// The one that the client likes best, by name or by wildcard; of two the one that is meant more narrowly.
    pub fn liked(headers: &HeaderMap) -> Option<JsonStream> {
        JsonStream::best(headers, |range, name| match range {
            "*/*" => Some(Breadth::All),
            _ if range.strip_suffix('*').is_some_and(|kind| kind.ends_with('/') && name.starts_with(kind)) => {
                Some(Breadth::Kind)
            }
            _ => (range == name).then_some(Breadth::One),
        })
    }

    fn best(headers: &HeaderMap, meant: impl Fn(&str, &str) -> Option<Breadth>) -> Option<JsonStream> {
        let ranges = ranges(headers);
        let mut best = None;
        for offer in JsonStream::OFFERS {
            for range in ranges.iter().filter(|range| range.quality > 0.0) {
                let Some(breadth) = meant(range.media_type, offer.content_type()) else { continue };
                let rank = (range.quality, breadth);
                if best.is_none_or(|(other, _)| rank > other) {
                    best = Some((rank, offer));
                }
            }
        }
        best.map(|(_, offer)| offer)
    }
}

/// How many media types a range is meant for, the fewer the later.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Breadth {
    All,
    Kind,
    One,
}

#[derive(Debug, PartialEq)]
struct Range<'h> {
    media_type: &'h str,
    quality: f64,
}

/// The ranges of all `Accept` fields. As in the reference, what follows one that cannot be read is not looked at, and
/// the only parameter that can be read is a quality.
fn ranges(headers: &HeaderMap) -> Vec<Range<'_>> {
    let mut ranges = Vec::new();
    for field in headers.get_all(ACCEPT) {
        let mut rest = field.to_str().unwrap_or_default();
        while let Some((range, tail)) = range(rest) {
            ranges.push(range);
            let Some(next) = tail.trim_start().strip_prefix(',') else { break };
            rest = next.trim_start();
        }
    }
    ranges
}

fn range(text: &str) -> Option<(Range<'_>, &str)> {
    let is_part = |c: char| c.is_ascii_graphic() && !"\"(),:;<=>?@[]\\{}".contains(c);
    let (media_type, rest) = text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()));
    if media_type.is_empty() {
        return None;
    }
    let rest = rest.trim_start();
    let Some(parameter) = rest.strip_prefix(';') else { return Some((Range { media_type, quality: 1.0 }, rest)) };
    let text = parameter.trim_start().strip_prefix("q=")?;
    let (number, rest) = text.split_at(text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len()));
    let quality = number.starts_with(['0', '1']).then(|| number.parse().ok())??;
    Some((Range { media_type, quality }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn accepting(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(text))])
    }

    #[test]
    fn names_by_their_quality() {
        let named = |accept| JsonStream::named(&accepting(accept));
        assert_eq!(JsonStream::named(&HeaderMap::new()), None);
        assert_eq!(
            (named(""), named("*/*"), named("application/*"), named("application/json")),
            (None, None, None, None)
        );
        assert_eq!(named("text/html, application/json-seq;q=0.9"), Some(JsonStream::Sequence));
        assert_eq!(
            named("application/json-seq;q=0.5, application/x-ndjson; q=0.8"),
            Some(JsonStream::NewlineDelimited)
        );
        assert_eq!(named("application/json-seq, application/jsonl"), Some(JsonStream::Lines));
        assert_eq!(named("application/jsonl;q=0, application/json-seq;q=0.1"), Some(JsonStream::Sequence));
    }

    #[test]
    fn wildcards_are_liked_less_than_names() {
        let liked = |accept| JsonStream::liked(&accepting(accept));
        assert_eq!((liked("text/html"), liked("*/*;q=0"), liked("text/*")), (None, None, None));
        assert_eq!((liked("*/*"), liked("application/*")), (Some(JsonStream::Lines), Some(JsonStream::Lines)));
        assert_eq!(liked("*/*, application/json-seq"), Some(JsonStream::Sequence));
        assert_eq!(liked("application/*, application/json-seq;q=0.9"), Some(JsonStream::Lines));
    }

    #[test]
    fn what_cannot_be_read_ends_a_field() {
        for unreadable in
            ["application/jsonl;v=1", "application/jsonl;q=2", "application/jsonl;q=x", ", application/jsonl"]
        {
            assert_eq!(JsonStream::liked(&accepting(unreadable)), None, "{unreadable}");
        }
        assert_eq!(ranges(&accepting("a/b;q=0.25 , c/d e/f, g/h")).len(), 2);
    }
}
