//! The names of a network, in one file that the daemon replaces as a whole and any number of monitors read.
//!
//! A change costs one write however many containers there are: nobody is told. A reader holds the file open and sees that
//! it was replaced by its having no link any more (`st_nlink`, inode(7)); then it opens the path again. A name is found by
//! its hash in two reads, so no reader keeps the names in memory.
//!
//! Layout, all numbers little-endian: magic (8 bytes), count of slots, length of the file (4 bytes each), then for each
//! slot the offset of its first entry (4 bytes, 0 = none), then the entries. An entry: offset of the next one of its slot
//! (4), length of the key (2), length of the value (4), key, value. A key is `N` and a name in lower case, or `4` or `6`
//! and the bytes of an address. The value of a name: count of IPv4 addresses (2), these, and IPv6 addresses; that of an
//! address: its name.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const MAGIC: &[u8; 8] = b"gantry-1";
const HEAD: usize = 16;
const ENTRY: usize = 10;
/// Bytes that the first read of an entry takes: most have no more.
const FIRST_READ: usize = 256;
/// Bytes of the largest value; more addresses of one name are left out.
const MAX_VALUE: usize = 64 << 10;
/// Entries of one slot that are looked at.
const MAX_CHAIN: usize = 1024;

/// A container as its network knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The first one is the name of its addresses.
    pub names: Vec<String>,
    /// Of both families.
    pub addresses: Vec<IpAddr>,
}

/// The bytes of the file.
pub fn encode(members: &[Member]) -> Vec<u8> {
    let mut entries: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (name, addresses) in by_name(members) {
        entries.insert([b"N", name.as_bytes()].concat(), name_value(&addresses));
    }
    for member in members {
        let Some(name) = member.names.first() else { continue };
        for address in &member.addresses {
            entries.entry(address_key(*address)).or_insert_with(|| name.clone().into_bytes());
        }
    }
    entries.retain(|key, value| u16::try_from(key.len()).is_ok() && value.len() <= MAX_VALUE);
    let slots = entries.len().next_power_of_two();
    let mut file = vec![0; HEAD + 4 * slots];
    file[..8].copy_from_slice(MAGIC);
    file[8..12].copy_from_slice(&(slots as u32).to_le_bytes());
    for (key, value) in &entries {
        let slot = HEAD + 4 * (hash(key) as usize % slots);
        let at = file.len() as u32;
        let next = <[u8; 4]>::try_from(&file[slots_of(slot)]).unwrap_or_default();
        file.extend_from_slice(&next);
        file.extend_from_slice(&(key.len() as u16).to_le_bytes());
        file.extend_from_slice(&(value.len() as u32).to_le_bytes());
        file.extend_from_slice(key);
        file.extend_from_slice(value);
        file[slots_of(slot)].copy_from_slice(&at.to_le_bytes());
    }
    let length = file.len() as u32;
    file[12..16].copy_from_slice(&length.to_le_bytes());
    file
}

fn slots_of(at: usize) -> std::ops::Range<usize> {
    at..at + 4
}

fn by_name(members: &[Member]) -> BTreeMap<String, Vec<IpAddr>> {
    let mut names: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for member in members {
        for name in &member.names {
            let addresses = names.entry(name.to_ascii_lowercase()).or_default();
            addresses.extend(
                member.addresses.iter().filter(|address| !addresses.contains(address)).copied().collect::<Vec<_>>(),
            );
        }
    }
    names
}

fn name_value(addresses: &[IpAddr]) -> Vec<u8> {
    let v4: Vec<_> =
        addresses.iter().filter_map(|a| if let IpAddr::V4(a) = a { Some(a.octets()) } else { None }).collect();
    let v6: Vec<_> =
        addresses.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(a.octets()) } else { None }).collect();
    // Half of the room for each family.
    let v4 = &v4[..v4.len().min(MAX_VALUE / 2 / 4 - 1)];
    let v6 = &v6[..v6.len().min(MAX_VALUE / 2 / 16)];
    let mut value = (v4.len() as u16).to_le_bytes().to_vec();
    v4.iter().for_each(|octets| value.extend_from_slice(octets));
    v6.iter().for_each(|octets| value.extend_from_slice(octets));
    value
}

fn address_key(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => [&b"4"[..], &v4.octets()].concat(),
        IpAddr::V6(v6) => [&b"6"[..], &v6.octets()].concat(),
    }
}

/// FNV-1a.
fn hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Replaces the file at `path`: a reader sees the old names or the new ones.
pub fn replace(path: &Path, members: &[Member]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, encode(members))?;
    fs::rename(&new, path)
}

/// An open file of names.
#[derive(Debug)]
pub struct Names {
    file: File,
    slots: u32,
    length: u32,
}

impl Names {
    /// `InvalidData`: the file is none of ours.
    pub fn open(path: &Path) -> io::Result<Names> {
        let file = File::open(path)?;
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, 0)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (slots, length) = (number(8), number(12));
        if &head[..8] != MAGIC || slots == 0 || (length as usize) < HEAD + 4 * slots as usize {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Names { file, slots, length })
    }

    /// The path leads to another file by now, or to none.
    pub fn is_replaced(&self) -> bool {
        self.file.metadata().map_or(true, |found| found.nlink() == 0)
    }

    /// The addresses of a name in lower case; `None`: it is not there. Clears `addresses` first.
    pub fn addresses(&self, name: &[u8], addresses: &mut Vec<IpAddr>) -> Option<()> {
        addresses.clear();
        let mut key = [0; 256];
        let key_length = name.len() + 1;
        key.get_mut(1..key_length)?.copy_from_slice(name);
        key[0] = b'N';
        self.find(&key[..key_length], |value| {
            let count = usize::from(u16::from_le_bytes([*value.first()?, *value.get(1)?]));
            let (v4, v6) = value[2..].split_at_checked(4 * count)?;
            let v4 = v4.chunks_exact(4).map(|o| IpAddr::V4(Ipv4Addr::new(o[0], o[1], o[2], o[3])));
            let v6 =
                v6.chunks_exact(16).filter_map(|o| Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(o).ok()?))));
            addresses.extend(v4.chain(v6));
            Some(())
        })
    }

    /// The name of an address.
    pub fn name(&self, address: IpAddr) -> Option<String> {
        self.find(&address_key(address), |value| String::from_utf8(value.to_vec()).ok())
    }

    fn find<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let mut slot = [0; 4];
        let index = hash(key) % u64::from(self.slots);
        self.file.read_exact_at(&mut slot, HEAD as u64 + 4 * index).ok()?;
        let mut at = u32::from_le_bytes(slot);
        for _ in 0..MAX_CHAIN {
            if at == 0 || at >= self.length {
                return None;
            }
            let mut bytes = [0; FIRST_READ];
            let got = self.file.read_at(&mut bytes, u64::from(at)).ok()?;
            let entry = bytes.get(..got).filter(|entry| entry.len() >= ENTRY)?;
            let next = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
            let key_length = usize::from(u16::from_le_bytes([entry[4], entry[5]]));
            let value_length = u32::from_le_bytes([entry[6], entry[7], entry[8], entry[9]]) as usize;
            if key_length == key.len() && self.has_key(at, entry, key) {
                return match entry.get(ENTRY + key_length..ENTRY + key_length + value_length) {
                    Some(value) => read(value),
                    None => read(&self.long_value(at, key_length, value_length)?),
                };
            }
            at = next;
        }
        None
    }

    fn has_key(&self, at: u32, entry: &[u8], key: &[u8]) -> bool {
        if let Some(found) = entry.get(ENTRY..ENTRY + key.len()) {
            return found == key;
        }
        let mut found = vec![0; key.len()];
        self.file.read_exact_at(&mut found, u64::from(at) + ENTRY as u64).is_ok() && found == key
    }

    fn long_value(&self, at: u32, key_length: usize, length: usize) -> Option<Vec<u8>> {
        let mut value = vec![0; Some(length).filter(|length| *length <= MAX_VALUE)?];
        self.file.read_exact_at(&mut value, u64::from(at) + (ENTRY + key_length) as u64).ok()?;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(names: &[&str], addresses: &[&str]) -> Member {
        Member {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        }
    }

    fn ask(names: &Names, name: &str) -> Option<Vec<String>> {
        let mut found = Vec::new();
        names.addresses(name.as_bytes(), &mut found)?;
        Some(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_are_found_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        let members = [
            member(&["Web", "www"], &["10.0.0.2", "fd00::2"]),
            member(&["api", "www"], &["10.0.0.3"]),
            member(&[], &[]),
        ];
        replace(&path, &members).unwrap();
        let names = Names::open(&path).unwrap();
        assert_eq!(ask(&names, "web").unwrap(), ["10.0.0.2", "fd00::2"]);
        assert_eq!(ask(&names, "www").unwrap(), ["10.0.0.2", "10.0.0.3", "fd00::2"]);
        assert_eq!((ask(&names, "db"), ask(&names, ""), ask(&names, &"x".repeat(300))), (None, None, None));
        assert_eq!(names.name("fd00::2".parse().unwrap()).as_deref(), Some("Web"));
        assert_eq!(names.name("10.0.0.9".parse().unwrap()), None);
        assert!(!names.is_replaced());
        replace(&path, &[]).unwrap();
        assert!(names.is_replaced());
        assert_eq!(ask(&Names::open(&path).unwrap(), "web"), None);
    }

    #[test]
    fn a_name_of_thousands() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        let one = |i: u32| Member {
            names: vec![format!("c{i}"), "all".to_owned()],
            addresses: vec![Ipv4Addr::from(0x0a00_0000 + i).into()],
        };
        let members: Vec<_> = (0..10_000).map(one).collect();
        replace(&path, &members).unwrap();
        let names = Names::open(&path).unwrap();
        assert_eq!(ask(&names, "c9999").unwrap(), ["10.0.39.15"]);
        assert_eq!(ask(&names, "all").unwrap().len(), MAX_VALUE / 2 / 4 - 1);
    }

    proptest! {
        #[test]
        fn every_name_is_found(names in proptest::collection::btree_set("[a-z0-9_.-]{1,40}", 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("n");
            let members: Vec<_> = names.iter().enumerate().map(|(i, name)| Member {
                names: vec![name.clone()], addresses: vec![Ipv4Addr::from(i as u32 + 1).into()],
            }).collect();
            replace(&path, &members).unwrap();
            let file = Names::open(&path).unwrap();
            for member in &members {
                let mut found = Vec::new();
                prop_assert!(file.addresses(member.names[0].as_bytes(), &mut found).is_some());
                prop_assert_eq!(&found, &member.addresses);
                prop_assert_eq!(file.name(found[0]), Some(member.names[0].clone()));
            }
        }

        /// Whatever lies there, reading ends.
        #[test]
        fn damaged_files_are_read_without_harm(at in 0usize..400, value in any::<u8>(), cut in 0usize..400) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("n");
            let mut bytes = encode(&[member(&["web", "www"], &["10.0.0.2", "fd00::2"]), member(&["db"], &["10.0.0.3"])]);
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(bytes.len() - cut % bytes.len());
            fs::write(&path, bytes).unwrap();
            if let Ok(names) = Names::open(&path) {
                for name in ["web", "db", "no"] {
                    let _ = ask(&names, name);
                }
                let _ = names.name("10.0.0.2".parse().unwrap());
            }
        }
    }
}
