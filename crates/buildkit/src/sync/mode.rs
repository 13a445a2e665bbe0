//! Modes on the wire are those of Go's `io/fs`: permissions as in unix, the type and the other bits elsewhere.

use rustix::fs::FileType;

const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const FIFO: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SET_UID: u32 = 1 << 23;
const SET_GID: u32 = 1 << 22;
const CHARACTER: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;
const IRREGULAR: u32 = 1 << 19;

/// The bits that stand elsewhere in unix.
const SPECIAL: [(u32, u32); 3] = [(SET_UID, 0o4000), (SET_GID, 0o2000), (STICKY, 0o1000)];

/// The type and the permissions; the type is `Unknown` for what no file of Linux is.
pub(crate) fn from_wire(mode: u32) -> (FileType, u32) {
    let kind = match mode & (DIRECTORY | SYMLINK | DEVICE | FIFO | SOCKET | CHARACTER | IRREGULAR) {
        0 => FileType::RegularFile,
        DIRECTORY => FileType::Directory,
        SYMLINK => FileType::Symlink,
        DEVICE => FileType::BlockDevice,
        FIFO => FileType::Fifo,
        SOCKET => FileType::Socket,
        bits if bits == DEVICE | CHARACTER => FileType::CharacterDevice,
        _ => FileType::Unknown,
    };
    let special = SPECIAL.iter().filter(|(wire, _)| mode & wire != 0).map(|(_, unix)| unix).sum::<u32>();
    (kind, mode & 0o777 | special)
}

/// The mode of a file of this host.
pub(crate) fn to_wire(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => DIRECTORY,
        FileType::Symlink => SYMLINK,
        FileType::BlockDevice => DEVICE,
        FileType::CharacterDevice => DEVICE | CHARACTER,
        FileType::Fifo => FIFO,
        FileType::Socket => SOCKET,
        _ => 0,
    };
    let special = SPECIAL.iter().filter(|(_, unix)| mode & unix != 0).map(|(wire, _)| wire).sum::<u32>();
    mode & 0o777 | kind | special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for mode in [0o100_644, 0o104_755, 0o041_777, 0o120_777, 0o020_600, 0o060_600, 0o010_600, 0o140_600] {
            let (kind, permissions) = from_wire(to_wire(mode));
            assert_eq!(kind.as_raw_mode() | permissions, mode, "{mode:o}");
        }
        assert_eq!(from_wire(IRREGULAR).0, FileType::Unknown);
        assert_eq!(from_wire(DIRECTORY | SYMLINK).0, FileType::Unknown);
    }
}
