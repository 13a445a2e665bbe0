//! The journal over restarts, power cuts, damage and slow readers.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// A data root with a store and a journal.
struct Root {
    dir: tempfile::TempDir,
    bytes: u64,
}

impl Root {
    fn new(bytes: u64) -> Root {
        Root { dir: tempfile::tempdir().unwrap(), bytes }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn place(&self) -> Place {
        let (dir, session, quarantine) = (self.at("events"), self.at("session"), self.at("quarantine"));
        Place { dir, session, quarantine, bytes: self.bytes }
    }

    fn store(&self) -> Store {
        Store::open(&self.at("store/s")).unwrap()
    }

    fn open(&self, store: &Store) -> Events {
        Events::open(&self.place(), store, &Blocking::alone()).unwrap()
    }

    /// As a new daemon opens it.
    fn reopen(&self) -> Events {
        self.open(&self.store())
    }

    /// The files of the journal, the oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.at("events")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// The machine is started anew.
    fn reboot(&self) {
        fs::remove_file(self.at("session")).unwrap();
    }
}

fn publish(events: &Events, action: &str) {
    events.publish("container", action, "ab12", [("name", "web".to_owned())]);
}

fn draft(action: &str) -> Draft {
    Draft::new("container", action, "ab12", [("name", "web".to_owned())])
}

/// Everything of the past: actions, and gaps as `first-last`.
async fn past(events: &Events, from: From) -> Vec<String> {
    let mut reader = events.read(from).unwrap();
    let mut all = Vec::new();
    while let Some(told) = reader.past().await.unwrap() {
        all.push(shown(&told));
    }
    all
}

fn shown(told: &Item) -> String {
    match told {
        Item::Event(event) => event.action.clone(),
        Item::Gap(gap) => format!("{}-{}", gap.first, gap.last),
    }
}

const ALL: From = From::Time(Timestamp::ZERO);

fn actions(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|n| format!("a{n}")).collect()
}

#[tokio::test]
async fn a_reader_sees_each_event_once_over_past_and_present() {
    let events = Events::default();
    (1..=300).for_each(|n| publish(&events, &format!("a{n}")));
    let mut reader = events.read(ALL).unwrap();
    publish(&events, "a301");
    let mut seen = Vec::new();
    while let Some(told) = reader.past().await.unwrap() {
        seen.push(shown(&told));
    }
    assert_eq!(seen, actions(1..=300));
    assert_eq!(shown(&reader.next().await.unwrap()), "a301");
    assert_eq!((events.listeners(), past(&events, From::Now).await.len()), (1, 0));
    assert_eq!(past(&events, From::After(299)).await, ["a300", "a301"]);
    let refused = events.read(From::After(302)).err().unwrap();
    assert_eq!(refused.message(), "event 302 is newer than the newest one, 301");
}

#[tokio::test]
async fn without_a_journal_one_who_lags_behind_is_told_what_he_missed() {
    let events = Events::default();
    let mut reader = events.read(From::Now).unwrap();
    (1..=BACKLOG as u64 + 10).for_each(|n| publish(&events, &format!("a{n}")));
    assert_eq!(shown(&reader.next().await.unwrap()), "1-10");
    assert_eq!(shown(&reader.next().await.unwrap()), "a11");
}

#[test]
fn large_events_are_kept_within_bounds() {
    let events = Events::default();
    let large = "x".repeat(1 << 20);
    (0..100).for_each(|_| publish(&events, &large));
    let kept = events.0.state().recent.len();
    assert!((6..=8).contains(&kept), "{kept}");
    publish(&events, &"x".repeat(BACKLOG_BYTES * 2));
    assert_eq!(events.0.state().recent.len(), 1);
    publish(&events, "small");
    let state = events.0.state();
    assert_eq!((state.recent.len(), state.weight), (1, state.recent[0].weight()));
}

/// 100,000 events, and a reader that was asleep meanwhile.
#[tokio::test]
async fn a_reader_that_sleeps_misses_none() {
    let root = Root::new(JOURNAL_BYTES);
    let events = root.reopen();
    let mut reader = events.read(From::Now).unwrap();
    (1..=100_000).for_each(|n| publish(&events, &format!("a{n}")));
    for n in 1..=100_000 {
        assert_eq!(shown(&reader.next().await.unwrap()), format!("a{n}"));
    }
    assert!(root.files().len() > 1);
}

#[tokio::test]
async fn a_reader_past_the_bound_is_told_of_the_gap() {
    let root = Root::new(512 * 1024);
    let events = root.reopen();
    events.keep();
    let mut asleep = events.read(From::Now).unwrap();
    (1..=10_000).for_each(|n| publish(&events, &format!("a{n}")));
    let all = past(&events, ALL).await;
    let (gap, rest) = all.split_first().unwrap();
    let missing: u64 = gap.strip_prefix("1-").unwrap().parse().unwrap();
    assert_eq!(rest, actions(missing + 1..=10_000));
    assert_eq!(shown(&asleep.next().await.unwrap()), format!("1-{missing}"));
    assert_eq!(past(&events, From::After(missing)).await.first().unwrap(), &format!("a{}", missing + 1));
    assert_eq!(&past(&events, From::After(missing - 1)).await[0], &format!("{missing}-{missing}"));
    let bytes = || root.files().iter().map(|file| fs::metadata(file).unwrap().len()).sum::<u64>();
    events.close().await;
    assert!(bytes() <= root.bytes, "{}", bytes());
}

/// `since` is exact after a restart, by time and by number, over all files.
#[tokio::test]
async fn a_restart_forgets_nothing() {
    let root = Root::new(200 * 1024);
    let mut times = Vec::new();
    for daemon in 0..5 {
        let events = root.reopen();
        for n in 1..=200 {
            publish(&events, &format!("a{}", daemon * 200 + n));
            times.push(events.0.state().recent.back().unwrap().time);
        }
        if daemon % 2 == 0 {
            events.close().await;
        }
    }
    let events = root.reopen();
    assert!(root.files().len() > 2);
    for n in [1, 2, 199, 200, 201, 555, 999, 1000] {
        let first = times.iter().position(|time| *time >= times[n - 1]).unwrap() as u64 + 1;
        assert_eq!(past(&events, From::Time(times[n - 1])).await, actions(first..=1000), "{n}");
        assert_eq!(past(&events, From::After(n as u64)).await, actions(n as u64 + 1..=1000), "{n}");
    }
    assert_eq!(events.warnings(), [""; 0]);
    publish(&events, "a1001");
    assert_eq!(past(&events, From::After(999)).await, actions(1000..=1001));
}

#[tokio::test]
async fn a_clock_that_goes_back_hides_no_event() {
    let root = Root::new(JOURNAL_BYTES);
    let events = root.reopen();
    (1..=10).for_each(|n| publish(&events, &format!("a{n}")));
    // As if the first half had happened a day later.
    let day = 86_400_000_000_000;
    let file = &root.files()[0];
    let mut content = files_content(file);
    content.records.iter_mut().take(5).for_each(|record| record.t += day);
    write(file, &content);
    let events = root.reopen();
    (11..=12).for_each(|n| publish(&events, &format!("a{n}")));
    let later = Timestamp::from_unix_nanos(now().unix_nanos() + day / 2);
    assert_eq!(past(&events, From::Time(later)).await, actions(1..=5));
}

fn files_content(file: &Path) -> crate::journal::files::Content {
    crate::journal::files::read(file, &Blocking::alone()).unwrap()
}

/// Writes the head and the events of a file anew.
fn write(file: &Path, content: &crate::journal::files::Content) {
    use crate::journal::line::{Line, encode};
    let mut bytes = Vec::new();
    encode(&Line::Journal(content.head.unwrap()), &mut bytes);
    encode(&Line::Session(content.session.clone().unwrap()), &mut bytes);
    content.records.iter().for_each(|record| encode(&Line::Event(record.clone()), &mut bytes));
    fs::write(file, bytes).unwrap();
}

/// What the power takes is told of; what rode in a commit is there all the same, and nothing is told twice.
#[tokio::test]
async fn events_of_a_commit_outlive_the_power() {
    let root = Root::new(JOURNAL_BYTES);
    let store = root.store();
    let events = root.open(&store);
    publish(&events, "before");
    events.close().await;
    let synced = fs::read(&root.files()[0]).unwrap();
    for action in ["create", "start"] {
        let ride = events.ride(vec![draft(action), draft(&format!("{action}2"))]);
        let rows = ride.rows();
        store.write(move |tx| rows.put(tx)).await.unwrap();
        ride.publish();
        publish(&events, "between");
    }
    let all = ["before", "create", "create2", "between", "start", "start2", "between"];
    assert_eq!(past(&events, ALL).await, all);
    drop(events);
    // A process that dies loses none.
    let events = root.open(&store);
    assert_eq!(past(&events, ALL).await, all);
    drop(events);
    // The disk forgets what was not synced.
    fs::write(
        &root.files()[0],
        synced.strip_suffix(synced.split_inclusive(|b| *b == b'\n').next_back().unwrap()).unwrap(),
    )
    .unwrap();
    root.reboot();
    for _ in 0..2 {
        let events = root.open(&store);
        let seen = past(&events, ALL).await;
        assert_eq!(seen[0], "before");
        assert_eq!(seen[1], format!("2-{}", 1 + (1 << 20)));
        assert_eq!(seen[2..], ["create", "create2", "start", "start2"]);
        assert_eq!(events.warnings(), [""; 0]);
    }
}

/// Rows go when the journal is on the disk; what was never published is not told of.
#[tokio::test]
async fn the_store_holds_events_until_they_are_synced() {
    let root = Root::new(JOURNAL_BYTES);
    let store = root.store();
    let events = root.open(&store);
    for n in 0..3 {
        let ride = events.ride(vec![draft(&format!("a{n}"))]);
        let rows = ride.rows();
        store.write(move |tx| rows.put(tx)).await.unwrap();
        ride.publish();
    }
    drop(events.ride(vec![draft("never")]));
    let kept = |store: &Store| outbox::load(store).unwrap().keys.len();
    assert_eq!(kept(&store), 3);
    events.close().await;
    let ride = events.ride(vec![draft("a3")]);
    let rows = ride.rows();
    store.write(move |tx| rows.put(tx)).await.unwrap();
    ride.publish();
    assert_eq!(kept(&store), 1);
    // A commit that fails takes no row along.
    events.close().await;
    let ride = events.ride(vec![draft("a4")]);
    ride.publish_unrecorded();
    let ride = events.ride(vec![draft("a5")]);
    assert_eq!(ride.rows().delete().len(), 1);
    ride.publish();
    assert_eq!(past(&events, ALL).await, ["a0", "a1", "a2", "a3", "a4", "a5"]);
}

/// Damage of any kind costs what it hits, is told of by name and in the stream, and stops nothing.
#[tokio::test]
async fn a_damaged_journal_keeps_what_is_whole() {
    type Damage = fn(&mut Vec<u8>);
    let kinds: [(&str, Damage); 5] = [
        ("a byte in the middle", |bytes| bytes[3000] ^= 1),
        ("cut short in a line", |bytes| bytes.truncate(3000)),
        ("another program's text", |bytes| bytes.splice(3000..3010, *b"\n\ngarbage\n").for_each(drop)),
        ("empty", Vec::clear),
        ("no beginning", |bytes| bytes.drain(..10).for_each(drop)),
    ];
    for (kind, damage) in kinds {
        for is_old in [false, true] {
            let root = Root::new(64 * 1024);
            let events = root.reopen();
            let count = if is_old { 400 } else { 100 };
            (1..=count).for_each(|n| publish(&events, &format!("a{n}")));
            drop(events);
            let file = &root.files()[0];
            let mut bytes = fs::read(file).unwrap();
            damage(&mut bytes);
            fs::write(file, bytes).unwrap();
            let events = root.reopen();
            events.keep();
            while events.warnings().is_empty() {
                tokio::task::yield_now().await;
            }
            assert!(events.warnings()[0].contains(file.to_str().unwrap()), "{kind}: {:?}", events.warnings());
            assert!(fs::read_dir(root.at("quarantine/events")).unwrap().count() == 1, "{kind}");
            publish(&events, "new");
            let seen = past(&events, ALL).await;
            assert_eq!(seen.last().unwrap(), "new", "{kind}");
            // Whatever is missing is missing in a gap.
            let (mut next, mut number) = (1, 0);
            for told in &seen {
                match told.split_once('-') {
                    Some((first, last)) => {
                        assert_eq!(first.parse::<u64>().unwrap(), next, "{kind}: {seen:?}");
                        next = last.parse::<u64>().unwrap() + 1;
                    }
                    None if told == "new" => number = next,
                    None => {
                        assert_eq!(told, &format!("a{next}"), "{kind}");
                        next += 1;
                    }
                }
            }
            assert_eq!(number, events.newest(), "{kind}");
            assert!(seen.iter().any(|told| told.contains('-')), "{kind}: {seen:?}");
            drop(events);
            assert_eq!(root.reopen().warnings(), [""; 0], "{kind}: it is mended");
        }
    }
}

#[test]
fn a_journal_of_a_newer_version_is_refused() {
    let root = Root::new(JOURNAL_BYTES);
    drop(root.reopen());
    let file = &root.files()[0];
    let mut content = files_content(file);
    content.head.as_mut().unwrap().version = 2;
    write(file, &content);
    let error = Events::open(&root.place(), &root.store(), &Blocking::alone()).err().unwrap();
    assert!(error.message().contains("written by a newer version (format 2 > 1)"), "{error}");
}

/// A disk that takes nothing costs those who come late something, and says so.
#[tokio::test]
async fn what_cannot_be_written_is_a_gap_for_those_who_come_late() {
    let root = Root::new(JOURNAL_BYTES);
    let events = root.reopen();
    publish(&events, "a1");
    events.0.state().journal.as_mut().unwrap().refuse_writes();
    let mut reader = events.read(From::Now).unwrap();
    (2..=4).for_each(|n| publish(&events, &format!("a{n}")));
    assert_eq!(shown(&reader.next().await.unwrap()), "a2");
    drop((events, reader));
    let events = root.reopen();
    publish(&events, "later");
    assert_eq!(past(&events, From::After(0)).await, ["a1", "later"]);
}
