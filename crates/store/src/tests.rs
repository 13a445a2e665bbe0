//! The store's promises, one test each.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use model::Error;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
struct Thing {
    n: u32,
}
impl Row for Thing {
    const VERSION: u32 = 1;
}
const THINGS: Table<Thing> = Table::new("things");
const OTHERS: Table<Thing> = Table::new("things2");

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("gantry.redb")).unwrap();
    (dir, store)
}

#[test]
fn rows_live_in_their_table_and_survive_reopening() {
    let (dir, store) = store();
    store.write_blocking(|tx| tx.put(&THINGS, "a", &Thing { n: 1 })).unwrap();
    store.write_blocking(|tx| tx.put(&OTHERS, "b", &Thing { n: 2 })).unwrap();
    drop(store);
    let store = Store::open(&dir.path().join("gantry.redb")).unwrap();
    let (things, others) = store.read(|tx| Ok((tx.scan(&THINGS)?, tx.keys(&OTHERS)?))).unwrap();
    assert_eq!(things, [("a".to_owned(), Thing { n: 1 })]);
    assert_eq!(others, ["b"]);
    assert!(store.write_blocking(|tx| tx.delete(&THINGS, "a")).unwrap());
    assert!(!store.write_blocking(|tx| tx.delete(&THINGS, "a")).unwrap());
    assert_eq!(store.read(|tx| tx.get(&THINGS, "a")).unwrap(), None);
}

#[test]
fn a_survey_tells_what_cannot_be_read_and_reads_the_rest() {
    let (_dir, store) = store();
    store
        .write_blocking(|tx| {
            tx.put(&THINGS, "a", &Thing { n: 1 })?;
            tx.put_raw(&THINGS, "b", b"{\"v\":1,\"row\":{}}")?;
            tx.put_raw(&THINGS, "c", b"{\"v\":2,\"row\":{\"n\":1}}")?;
            tx.put(&THINGS, "d", &Thing { n: 4 })
        })
        .unwrap();
    assert!(store.read(|tx| tx.scan(&THINGS)).is_err());
    let survey = store.read(|tx| tx.survey(&THINGS)).unwrap();
    assert_eq!(survey.rows, [("a".to_owned(), Thing { n: 1 }), ("d".to_owned(), Thing { n: 4 })]);
    let damaged: Vec<_> = survey.damaged.iter().map(|row| (row.key.as_str(), row.newer)).collect();
    assert_eq!(damaged, [("b", false), ("c", true)]);
    assert!(survey.damaged[0].why.starts_with("row \"b\" of table things: "), "{}", survey.damaged[0].why);
}

#[test]
fn a_closure_sees_its_own_changes_and_an_error_undoes_them() {
    let (_dir, store) = store();
    store.write_blocking(|tx| tx.put(&THINGS, "kept", &Thing { n: 1 })).unwrap();
    let result: Result<()> = store.write_blocking(|tx| {
        tx.put(&THINGS, "new", &Thing { n: 2 })?;
        assert!(tx.delete(&THINGS, "kept")?);
        assert_eq!(tx.get(&THINGS, "kept")?, None);
        assert_eq!(tx.scan(&THINGS)?, [("new".to_owned(), Thing { n: 2 })]);
        Err(Error::conflict("no"))
    });
    assert_eq!(result.unwrap_err().kind(), model::Kind::Conflict);
    assert_eq!(store.read(|tx| tx.keys(&THINGS)).unwrap(), ["kept"]);
}

#[tokio::test]
async fn writers_that_wait_share_a_round_and_errors_stay_their_own() {
    let (_dir, store) = store();
    let mut tasks = Vec::new();
    for n in 0..100_u32 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            store
                .write(move |tx| {
                    tx.put(&THINGS, &format!("{n:03}"), &Thing { n })?;
                    if n % 3 == 0 { Err(Error::invalid("third")) } else { Ok(n) }
                })
                .await
        }));
    }
    let answered = AtomicUsize::new(0);
    for task in tasks {
        answered.fetch_add(usize::from(task.await.unwrap().is_ok()), Ordering::Relaxed);
    }
    assert_eq!(answered.into_inner(), 66);
    assert_eq!(store.read(|tx| tx.keys(&THINGS)).unwrap().len(), 66);
}

#[test]
fn readers_do_not_wait_for_a_writer() {
    let (_dir, store) = store();
    let (started, wait_started) = std::sync::mpsc::channel();
    let (release, wait_release) = std::sync::mpsc::channel::<()>();
    let writer = {
        let store = store.clone();
        std::thread::spawn(move || {
            store.write_blocking(move |tx| {
                tx.put(&THINGS, "a", &Thing { n: 1 })?;
                started.send(()).unwrap();
                wait_release.recv().unwrap();
                Ok(())
            })
        })
    };
    wait_started.recv().unwrap();
    assert_eq!(store.read(|tx| tx.get(&THINGS, "a")).unwrap(), None);
    release.send(()).unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(store.read(|tx| tx.get(&THINGS, "a")).unwrap(), Some(Thing { n: 1 }));
}

#[test]
fn the_file_is_private_and_opens_once() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, _store) = store();
    let path = dir.path().join("gantry.redb");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let Err(error) = Store::open(&path) else { panic!("opened twice") };
    assert_eq!(error.kind(), model::Kind::Unavailable);
    assert!(error.message().ends_with("is in use by another process"), "{}", error.message());
}

/// Whoever makes the file may be killed over it.
#[test]
fn a_file_that_was_never_finished_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (path, unfinished) = (dir.path().join("gantry.redb"), dir.path().join("gantry.redb.new"));
    std::fs::write(&unfinished, vec![0; 8192]).unwrap();
    drop(Store::open(&path).unwrap());
    assert!(path.exists() && !unfinished.exists());
}

#[test]
fn a_file_that_is_no_store_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gantry.redb");
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    let Err(error) = Store::open(&path) else { panic!("opened rubbish") };
    assert!(error.message().starts_with(&format!("opening the store {}", path.display())), "{}", error.message());
}

/// Alone, a write needs no other thread; it neither overtakes what waits nor meets another round.
#[test]
fn a_write_of_a_thread_waits_for_those_before_it() {
    let (_dir, store) = store();
    let on = store.write_blocking(|_| Ok(std::thread::current().id())).unwrap();
    assert_eq!(on, std::thread::current().id());
    let (started, wait_started) = std::sync::mpsc::channel();
    let (release, wait_release) = std::sync::mpsc::channel::<()>();
    let spawn = |f: Box<dyn FnOnce(&Store) + Send>| {
        let store = store.clone();
        std::thread::spawn(move || f(&store))
    };
    let slow = spawn(Box::new(move |store| {
        let wait = move |tx: &mut WriteTx<'_, '_>| {
            started.send(()).unwrap();
            wait_release.recv().unwrap();
            tx.put(&THINGS, "a", &Thing { n: 1 })
        };
        store.write_blocking(wait).unwrap();
    }));
    wait_started.recv().unwrap();
    let late = spawn(Box::new(|store| {
        let seen =
            store.write_blocking(|tx| Ok((tx.get(&THINGS, "a")?, std::thread::current().name().map(str::to_owned))));
        assert_eq!(seen.unwrap(), (Some(Thing { n: 1 }), Some("store".to_owned())));
    }));
    while store.inner.writer.waiting() == 0 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(!late.is_finished());
    release.send(()).unwrap();
    slow.join().unwrap();
    late.join().unwrap();
}

/// What a store that was put here from elsewhere does not name may be in use all the same.
#[test]
fn a_store_from_elsewhere_and_an_older_copy_are_told_from_the_one_that_belongs_here() {
    let (dir, store) = store();
    let path = dir.path().join("gantry.redb");
    let (copy, mark) = (dir.path().join("copy"), dir.path().join("gantry.redb.mark"));
    assert_eq!(store.doubt().unwrap(), None);
    store.write_blocking(|tx| tx.put(&THINGS, "a", &Thing { n: 1 })).unwrap();
    drop(store);
    std::fs::copy(&path, &copy).unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.doubt().unwrap(), None);
    store.approve().unwrap();
    for n in 0..3 {
        store.write_blocking(move |tx| tx.put(&THINGS, "a", &Thing { n })).unwrap();
    }
    // A write that changes nothing is no commit.
    store.write_blocking(|tx| tx.get(&THINGS, "a").map(drop)).unwrap();
    assert_eq!(store.doubt().unwrap(), None);
    drop(store);
    std::fs::rename(&path, dir.path().join("newest")).unwrap();
    std::fs::copy(&copy, &path).unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.doubt().unwrap(), Some(Doubt::Older { commits: 1, newest: 4 }));
    // Not approved of, it leaves the mark alone.
    store.write_blocking(|tx| tx.put(&THINGS, "b", &Thing { n: 9 })).unwrap();
    store.note_end();
    assert_eq!(store.doubt().unwrap(), Some(Doubt::Older { commits: 2, newest: 4 }));
    store.approve().unwrap();
    assert_eq!(store.doubt().unwrap(), None);
    drop(store);

    let other = tempfile::tempdir().unwrap();
    let foreign = Store::open(&other.path().join("gantry.redb")).unwrap();
    drop(foreign);
    std::fs::copy(other.path().join("gantry.redb"), &path).unwrap();
    assert_eq!(Store::open(&path).unwrap().doubt().unwrap(), Some(Doubt::Foreign));
    std::fs::remove_file(&mark).unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.doubt().unwrap(), Some(Doubt::Unmarked));
    store.approve().unwrap();
    assert_eq!(store.doubt().unwrap(), None);
}

/// Whatever is left of a store, it is opened with all its rows or refused by name; never made anew, never a panic.
#[test]
fn a_store_cut_short_is_refused_by_name() {
    let (dir, store) = store();
    let path = dir.path().join("gantry.redb");
    let row = Thing { n: 1 };
    for n in 0..400 {
        let row = row.clone();
        store.write_blocking(move |tx| tx.put(&THINGS, &format!("{n}-{}", "x".repeat(900)), &row)).unwrap();
    }
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let lengths = (0..64).map(|n| whole.len() * n / 64).chain([1, 8, 9, 64, 320, 4095, 4096, 4097, whole.len() - 1]);
    for length in lengths {
        std::fs::write(&path, &whole[..length]).unwrap();
        let opened = Store::open(&path).and_then(|store| store.read(|tx| tx.scan(&THINGS)));
        match opened {
            Ok(rows) => assert_eq!(rows.len(), 400, "{length} of {} bytes", whole.len()),
            Err(error) => {
                assert_eq!(error.kind(), model::Kind::DataLoss, "{length} bytes: {error}");
                assert!(error.message().starts_with("opening the store /"), "{length} bytes: {error}");
            }
        }
    }
    std::fs::write(&path, vec![0; whole.len()]).unwrap();
    assert_eq!(Store::open(&path).err().unwrap().kind(), model::Kind::DataLoss);
    for n in [0, whole.len() / 2] {
        let mut damaged = whole.clone();
        damaged[n..n + 4096].fill(0xa5);
        std::fs::write(&path, &damaged).unwrap();
        let opened = Store::open(&path).and_then(|store| store.read(|tx| tx.scan(&THINGS)));
        assert!(opened.is_err() || opened.is_ok_and(|rows| rows.len() == 400));
    }
}

/// The disk refuses a write, and the file is gone when it is opened again: an empty one in its place would name nothing.
#[test]
fn a_store_that_vanishes_is_not_made_anew() {
    let (dir, store) = store();
    std::fs::remove_file(dir.path().join("gantry.redb")).unwrap();
    store.inner.db.reopen();
    assert!(store.read(|tx| tx.keys(&THINGS)).is_err());
    assert!(store.write_blocking(|tx| tx.put(&THINGS, "a", &Thing { n: 1 })).is_err());
    assert!(!dir.path().join("gantry.redb").exists());
}

/// While the file is being opened again readers are refused, not kept waiting; afterwards everything is there.
#[test]
fn readers_do_not_wait_for_a_store_that_is_opened_again() {
    let (_dir, store) = store();
    store.write_blocking(|tx| tx.put(&THINGS, "a", &Thing { n: 1 })).unwrap();
    let held = store.inner.db.get().unwrap();
    let opening = std::thread::spawn({
        let db = store.inner.db.clone();
        move || db.reopen()
    });
    let refused = loop {
        match store.read(|tx| tx.get(&THINGS, "a")) {
            Err(error) => break error,
            Ok(_) => std::thread::yield_now(),
        }
    };
    assert_eq!(refused.kind(), model::Kind::Unavailable);
    assert_eq!(refused.message(), "the store is being opened again after a failed write");
    drop(held);
    opening.join().unwrap();
    assert_eq!(store.read(|tx| tx.get(&THINGS, "a")).unwrap(), Some(Thing { n: 1 }));
}

/// Bytes anywhere in the file changed: it opens, in the end, with what can be read and what cannot, or is refused as
/// damaged. A panic of the library over a page is one that the reader may catch.
#[test]
fn a_file_with_changed_bytes_is_read_or_refused() {
    let (dir, store) = store();
    let path = dir.path().join("gantry.redb");
    for n in 0..200 {
        store.write_blocking(move |tx| tx.put(&THINGS, &format!("{n:03}-{}", "x".repeat(60)), &Thing { n })).unwrap();
    }
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let (mut damaged, mut refused) = (0, 0);
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..=next(8) {
            let (at, bit) = (next(bytes.len()), next(8));
            bytes[at] ^= 1 << bit;
        }
        std::fs::write(&path, &bytes).unwrap();
        let look = || Store::open(&path).and_then(|store| store.read(|tx| tx.survey(&THINGS)));
        match std::panic::catch_unwind(look) {
            Ok(Ok(survey)) => {
                assert!(survey.rows.len() + survey.damaged.len() <= 200);
                damaged += survey.damaged.len();
            }
            Ok(Err(error)) => {
                assert!(matches!(error.kind(), model::Kind::DataLoss | model::Kind::System), "{error}");
                refused += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(damaged + refused > 0, "nothing was hit");
}

#[test]
fn what_can_be_read_is_given_without_the_rest() {
    let (_dir, store) = store();
    let rows = |tx: &mut WriteTx<'_, '_>| {
        tx.put(&THINGS, "a", &Thing { n: 1 })?;
        tx.put_raw(&THINGS, "b", b"{\"v\":1,\"row\":{\"n")?;
        tx.put(&THINGS, "c", &Thing { n: 3 })
    };
    store.write_blocking(rows).unwrap();
    let keys = |rows: Vec<(String, Thing)>| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(store.read(|tx| tx.readable(&THINGS)).unwrap()), ["a", "c"]);
    assert!(!store.read(|tx| tx.is_whole(&THINGS)).unwrap() && store.read(|tx| tx.is_whole(&OTHERS)).unwrap());
    assert!(store.read(|tx| tx.scan(&THINGS)).is_err());
    let table: &'static dyn AnyTable = &THINGS;
    let damaged = store.read(|tx| table.damaged(tx)).unwrap();
    assert!(damaged.len() == 1 && damaged[0].key == "b" && !damaged[0].newer);
    let inside = |tx: &mut WriteTx<'_, '_>| Ok((tx.keys(&THINGS)?, tx.keys_prefix(&THINGS, "b")?));
    assert_eq!(
        store.write_blocking(inside).unwrap(),
        (["a", "b", "c"].map(String::from).to_vec(), vec!["b".to_owned()])
    );
    assert!(store.write_blocking(move |tx| table.delete(tx, "b")).unwrap());
    assert!(store.read(|tx| tx.is_whole(&THINGS)).unwrap());
    // A newer row is not damaged: nobody goes on without it.
    store.write_blocking(|tx| tx.put_raw(&THINGS, "d", b"{\"v\":9,\"row\":{}}")).unwrap();
    assert_eq!(store.read(|tx| tx.readable(&THINGS)).unwrap_err().kind(), model::Kind::DataLoss);
}
