//! The promises of the blob store.

use std::collections::HashSet;
use std::io::Write;

use super::*;
use store::Pins;

const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn blobs() -> (tempfile::TempDir, Blobs, Pins) {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    (dir, blobs, Pins::default())
}

fn files(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_blob_is_found_under_its_digest() {
    let (_dir, blobs, pins) = blobs();
    let lease = pins.lease();
    let (digest, size) = blobs.put(b"hello", &lease).unwrap();
    assert_eq!((digest.to_string().as_str(), size), (HELLO, 5));
    assert_eq!(blobs.put(b"hello", &lease).unwrap().0, digest);
    assert_eq!(blobs.read_small(&digest, 5).unwrap(), b"hello");
    assert!(blobs.read_small(&digest, 4).is_err());
    assert_eq!(blobs.list().unwrap(), [(digest, 5)]);
    blobs.barrier().unwrap();
}

#[test]
fn what_does_not_verify_or_is_dropped_leaves_nothing() {
    let (dir, blobs, pins) = blobs();
    let lease = pins.lease();
    let digest = Digest::parse(HELLO).unwrap();
    let begin = |bytes: &[u8]| {
        let mut ingest = blobs.ingest().unwrap();
        ingest.write_all(bytes).unwrap();
        ingest
    };
    assert!(begin(b"hellO").finish(Some(&digest), None, &lease).is_err());
    assert!(begin(b"hello").finish(Some(&digest), Some(4), &lease).is_err());
    drop(begin(b"hel"));
    assert_eq!((files(&dir.path().join("ingest")), files(&dir.path().join("blobs/sha256"))), (0, 0));
    assert_eq!(blobs.open_blob(&digest).unwrap_err().kind(), model::Kind::NotFound);
    assert!(begin(b"hello").finish(Some(&digest), Some(5), &lease).is_ok());
}

#[test]
fn reopening_empties_the_ingest_and_a_sweep_takes_what_nothing_names() {
    let (dir, blobs, pins) = blobs();
    let lease = pins.lease();
    let (live, _) = blobs.put(b"live", &lease).unwrap();
    blobs.put(b"dead", &lease).unwrap();
    drop(lease);
    let lease = pins.lease();
    let (pinned, _) = blobs.put(b"pinned", &lease).unwrap();
    let unfinished = blobs.ingest().unwrap();
    std::mem::forget(unfinished);
    let blobs = Blobs::open(dir.path()).unwrap();
    assert_eq!(files(&dir.path().join("ingest")), 0);
    let freed = blobs.sweep(&HashSet::from([live.clone()]), &pins.begin_sweep()).unwrap();
    assert_eq!(freed, 4);
    let mut left: Vec<_> = blobs.list().unwrap().into_iter().map(|(d, _)| d).collect();
    left.sort();
    let mut expected = [live, pinned];
    expected.sort();
    assert_eq!(left, expected);
}

#[test]
fn a_part_goes_on_after_a_restart_and_becomes_a_blob_when_it_was_read() {
    use std::io::Read;
    let (dir, blobs, pins) = blobs();
    let lease = pins.lease();
    let digest = Digest::parse(HELLO).unwrap();
    let mut part = blobs.part(&digest).unwrap();
    part.append(b"hel").unwrap();
    assert_eq!(blobs.part(&digest).err().unwrap().kind(), model::Kind::Conflict);
    drop(part);
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut part = blobs.part(&digest).unwrap();
    assert_eq!((part.length(), blobs.parts().unwrap()), (3, vec![(digest.clone(), 3)]));
    part.append(b"lo").unwrap();
    let unread = part.reader().unwrap();
    let mut reader = part.reader().unwrap();
    reader.read_to_end(&mut Vec::new()).unwrap();
    part.verify(reader, 5).unwrap().publish(&lease).unwrap();
    assert_eq!((blobs.read_small(&digest, 9).unwrap(), blobs.parts().unwrap()), (b"hello".to_vec(), vec![]));
    let mut part = blobs.part(&digest).unwrap();
    part.append(b"hello").unwrap();
    assert_eq!(part.verify(unread, 5).err().unwrap().kind(), model::Kind::DataLoss);
    assert!(blobs.parts().unwrap().is_empty());
}

#[test]
fn parts_expire_unless_they_are_being_written() {
    let (_dir, blobs, _pins) = blobs();
    let digest = Digest::parse(HELLO).unwrap();
    let mut part = blobs.part(&digest).unwrap();
    part.append(b"hel").unwrap();
    assert_eq!(blobs.expire_parts(std::time::Duration::ZERO).unwrap(), 0);
    drop(part);
    assert_eq!(blobs.expire_parts(std::time::Duration::from_secs(60)).unwrap(), 0);
    assert_eq!(blobs.expire_parts(std::time::Duration::ZERO).unwrap(), 3);
    drop(blobs.part(&digest).unwrap());
    assert!(blobs.parts().unwrap().is_empty());
}

#[test]
fn what_lies_beside_the_blobs_is_named_and_a_blob_says_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let lease = store::Pins::default().lease();
    let (digest, size) = blobs.put(b"content", &lease).unwrap();
    assert_eq!(blobs.rehash(&digest).unwrap(), (digest.clone(), size));
    fs::write(blobs.file(&digest), b"CONTENT").unwrap();
    assert_ne!(blobs.rehash(&digest).unwrap().0, digest);
    blobs.remove(&digest).unwrap();
    assert_eq!(blobs.rehash(&digest).unwrap_err().kind(), model::Kind::NotFound);

    let life = std::time::Duration::from_secs(3600);
    let (writing, part) = (blobs.ingest().unwrap(), Digest::from_sha256(&[1; 32]));
    blobs.part(&part).unwrap().append(b"some").unwrap();
    assert_eq!(blobs.strays(life).unwrap(), []);
    // For somebody else the same files are nobody's.
    let other = Blobs::attach(dir.path()).unwrap();
    for (place, kind) in [
        ("ingest/1", StrayKind::Leftover),
        ("ingest/left", StrayKind::Leftover),
        ("blobs/sha256/short", StrayKind::Unknown),
        ("parts/short", StrayKind::Unknown),
    ] {
        if place != "ingest/1" {
            fs::write(dir.path().join(place), "").unwrap();
        }
        let path = dir.path().join(place);
        assert!(other.strays(life).unwrap().contains(&Stray { path, kind }), "{place}");
    }
    let expired = other.strays(std::time::Duration::ZERO).unwrap();
    assert!(expired.iter().any(|stray| stray.kind == StrayKind::Expired), "{expired:?}");
    drop(writing);
    assert!(Blobs::attach(&dir.path().join("nowhere")).is_err());
}

#[test]
fn a_part_whose_blob_is_here_goes_with_the_next_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let lease = store::Pins::default().lease();
    let (digest, _) = blobs.put(b"content", &lease).unwrap();
    let mut part = blobs.part(&digest).unwrap();
    part.append(b"cont").unwrap();
    let life = std::time::Duration::from_secs(3600);
    assert_eq!(blobs.expire_parts(life).unwrap(), 0);
    drop(part);
    assert_eq!(blobs.expire_parts(life).unwrap(), 4);
}
