//! What the collector takes and why it leaves the rest. Pure: uses in, verdicts out.
//!
//! - An image without a reason to keep it may be taken; the least recently used goes first.
//! - Only as many are taken as bring the needed bytes: what images share counts for the last of them that goes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use model::digest::Digest;
use model::duration;
use model::own_label::{KEEP, asks_to_keep};
use model::time::Timestamp;

use super::rules::Rules;
use crate::glob::name_matches;

/// What is known of an image.
#[derive(Clone, Debug)]
pub struct ImageUse {
    /// Its id.
    pub id: Digest,
    /// Its full names.
    pub names: Vec<String>,
    /// The labels of its configuration.
    pub labels: BTreeMap<String, String>,
    /// When it was last pulled, loaded or tagged.
    pub arrived: Timestamp,
    /// When it was last used: arrival, or the last container that was created of it.
    pub used: Timestamp,
    /// The containers made of it, in words.
    pub users: Vec<String>,
    /// Other images that hold it as one of their manifests.
    pub holders: Vec<Digest>,
    /// An operation works with it.
    pub is_busy: bool,
    /// What it consists of on the disk, with the bytes of each.
    pub parts: Vec<(Part, u64)>,
}

/// A piece on the disk. A plain layer has one digest for both of its forms.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// As it came.
    Blob(Digest),
    /// Unpacked.
    Layer(Digest),
}

/// Why an image stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// This container is made of it.
    InUse(String),
    /// It is being pulled, pushed, loaded or saved.
    Busy,
    /// This image would keep everything of it anyway.
    Held(Digest),
    /// The label says so.
    Labelled,
    /// The configuration's pattern says so.
    Pinned(String),
    /// It came too recently.
    Recent {
        /// When it came.
        arrived: Timestamp,
        /// From when on it is not recent.
        until: Timestamp,
        /// The least age, in nanoseconds.
        min_age: i64,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::InUse(container) => write!(f, "container {container} is made of it"),
            Reason::Busy => f.write_str("it is being pulled, pushed, loaded or saved"),
            Reason::Held(image) => write!(f, "the index {image} holds it"),
            Reason::Labelled => write!(f, "its label {KEEP} pins it"),
            Reason::Pinned(pattern) => write!(f, "the pattern {pattern:?} in the configuration pins it"),
            Reason::Recent { arrived, until, min_age } => write!(
                f,
                "it was pulled or tagged at {}, less than {} ago (recent until {})",
                arrived.rfc3339(),
                duration::format(*min_age),
                until.rfc3339()
            ),
        }
    }
}

/// Every reason to keep an image. Without rules nothing is recent, and nothing pinned by them.
pub fn reasons(uses: &ImageUse, rules: Option<&Rules>, now: Timestamp) -> Vec<Reason> {
    let mut reasons: Vec<_> = uses.users.iter().cloned().map(Reason::InUse).collect();
    if uses.is_busy {
        reasons.push(Reason::Busy);
    }
    reasons.extend(uses.holders.iter().cloned().map(Reason::Held));
    if uses.labels.get(KEEP).is_some_and(|value| asks_to_keep(value)) {
        reasons.push(Reason::Labelled);
    }
    let Some(rules) = rules else { return reasons };
    let pins = |pattern: &&String| uses.names.iter().any(|name| name_matches(pattern, name));
    reasons.extend(rules.keep.iter().filter(pins).cloned().map(Reason::Pinned));
    let until = uses.arrived.plus(rules.min_age);
    if now < until {
        let min_age = i64::try_from(rules.min_age.as_nanos()).unwrap_or(i64::MAX);
        reasons.push(Reason::Recent { arrived: uses.arrived, until, min_age });
    }
    reasons
}

/// What may be taken, the least recently used first; ties by id, so that the order is always the same.
pub fn order<'f>(all: &'f [ImageUse], rules: &Rules, now: Timestamp) -> Vec<&'f ImageUse> {
    let mut free: Vec<_> = all.iter().filter(|uses| reasons(uses, Some(rules), now).is_empty()).collect();
    free.sort_by(|a, b| (a.used, &a.id).cmp(&(b.used, &b.id)));
    free
}

/// As many of `order` as free `need` bytes. `kept` are the parts that something else than these images needs.
pub fn enough<'f>(order: &[&'f ImageUse], all: &[ImageUse], kept: &[Part], need: u64) -> Vec<&'f ImageUse> {
    let mut users: HashMap<&Part, usize> = HashMap::new();
    let parts = all.iter().flat_map(|uses| uses.parts.iter().map(|(part, _)| part));
    parts.chain(kept).for_each(|part| *users.entry(part).or_default() += 1);
    let mut freed = 0;
    let mut taken = Vec::new();
    for uses in order {
        if freed >= need {
            break;
        }
        for (part, size) in &uses.parts {
            let users = users.entry(part).or_default();
            *users = users.saturating_sub(1);
            freed += if *users == 0 { *size } else { 0 };
        }
        taken.push(*uses);
    }
    taken
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::collect::rules::Mark;

    const NOW: i64 = 1_000_000;

    fn id(digit: char) -> Digest {
        Digest::parse(&format!("sha256:{}", String::from(digit).repeat(64))).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn rules() -> Rules {
        Rules {
            high: Mark::Percent(85),
            low: Mark::Percent(70),
            min_age: Duration::from_secs(1000),
            interval: Duration::from_secs(60),
            keep: vec!["base/*".into(), "exact:1".into()],
        }
    }

    /// An old image of 100 bytes of its own.
    fn image(digit: char, used: i64) -> ImageUse {
        ImageUse {
            id: id(digit),
            names: vec![format!("docker.io/library/{digit}:1")],
            labels: BTreeMap::new(),
            arrived: at(used.min(NOW - 5000)),
            used: at(used),
            users: Vec::new(),
            holders: Vec::new(),
            is_busy: false,
            parts: vec![(Part::Blob(id(digit)), 100)],
        }
    }

    fn why(uses: &ImageUse) -> Vec<String> {
        reasons(uses, Some(&rules()), at(NOW)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_reason_keeps_and_is_named() {
        let plain = image('a', 10);
        assert_eq!(why(&plain), [""; 0]);
        let used = ImageUse { users: vec!["web (ab, exited)".into()], ..plain.clone() };
        assert_eq!(why(&used), ["container web (ab, exited) is made of it"]);
        assert_eq!(why(&ImageUse { is_busy: true, ..plain.clone() }), ["it is being pulled, pushed, loaded or saved"]);
        let held = ImageUse { holders: vec![id('b')], ..plain.clone() };
        assert_eq!(why(&held), [format!("the index {} holds it", id('b'))]);
        let labelled = |value: &str| ImageUse { labels: [(KEEP.to_owned(), value.to_owned())].into(), ..plain.clone() };
        assert_eq!(why(&labelled("")), ["its label gantry.keep pins it"]);
        assert_eq!(why(&labelled("false")), [""; 0]);
        let named = |name: &str| ImageUse { names: vec![name.into()], ..plain.clone() };
        assert_eq!(why(&named("docker.io/base/x:2")), ["the pattern \"base/*\" in the configuration pins it"]);
        assert_eq!(why(&named("docker.io/library/exact:1")), ["the pattern \"exact:1\" in the configuration pins it"]);
        assert_eq!(why(&named("docker.io/library/exact:2")), [""; 0]);
        let recent = ImageUse { arrived: at(NOW - 999), ..plain.clone() };
        assert!(why(&recent)[0].starts_with("it was pulled or tagged at 1970-01-12T13:30:01Z, less than 16m40s ago"));
        assert_eq!(why(&ImageUse { arrived: at(NOW - 1000), ..plain }), [""; 0]);
    }

    #[test]
    fn without_rules_only_what_is_needed_is_kept() {
        let recent = ImageUse { arrived: at(NOW), names: vec!["docker.io/library/exact:1".into()], ..image('a', NOW) };
        assert_eq!(reasons(&recent, None, at(NOW)), []);
    }

    fn ids(list: &[&ImageUse]) -> String {
        list.iter().map(|uses| &uses.id.hex()[..1]).collect()
    }

    #[test]
    fn the_least_recently_used_go_first_and_no_more_than_needed() {
        let mut busy = image('e', 1);
        busy.is_busy = true;
        let all = [image('a', 300), image('b', 100), image('c', 200), image('d', 100), busy];
        let order = order(&all, &rules(), at(NOW));
        assert_eq!(ids(&order), "bdca");
        let enough = |need| ids(&enough(&order, &all, &[], need));
        assert_eq!(enough(0), "");
        assert_eq!(enough(1), "b");
        assert_eq!(enough(100), "b");
        assert_eq!(enough(101), "bd");
        assert_eq!(enough(9999), "bdca");
    }

    #[test]
    fn what_is_shared_counts_when_the_last_of_its_images_goes() {
        let sharing = |digit, used| ImageUse { parts: vec![(Part::Layer(id('f')), 500)], ..image(digit, used) };
        let all = [sharing('a', 1), sharing('b', 2), image('c', 3)];
        let order = order(&all, &rules(), at(NOW));
        assert_eq!(ids(&enough(&order, &all, &[], 100)), "ab");
        // A container needs the layer still: nothing of a and b brings anything.
        assert_eq!(ids(&enough(&order, &all, &[Part::Layer(id('f'))], 100)), "abc");
    }
}
