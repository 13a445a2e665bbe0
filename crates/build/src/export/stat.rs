//! Files as they are described to clients (fsutil's `Stat`): modes are those of Go's `os.FileMode`.

use std::io;
use std::os::fd::OwnedFd;

use bollard_buildkit_proto::fsutil::types::Stat;
use rustix::fs::FileType;
use sys::tree;

use crate::content;

/// Bits of Go's `os.FileMode` above the permissions.
const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const PIPE: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHARACTER: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;

/// The mode of stat(2) as Go has it.
pub fn mode(raw: u32) -> u32 {
    let kind = match FileType::from_raw_mode(raw) {
        FileType::Directory => DIRECTORY,
        FileType::Symlink => SYMLINK,
        FileType::BlockDevice => DEVICE,
        FileType::CharacterDevice => DEVICE | CHARACTER,
        FileType::Fifo => PIPE,
        FileType::Socket => SOCKET,
        _ => 0,
    };
    let special = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];
    let special = special.into_iter().filter(|(bit, _)| raw & bit != 0).map(|(_, own)| own);
    special.fold(kind | (raw & 0o777), |mode, bit| mode | bit)
}

/// Describes what `node` (open by `O_PATH`) is, under a path.
pub(super) fn describe(path: String, node: &OwnedFd, stat: &rustix::fs::Stat) -> io::Result<Stat> {
    let kind = tree::file_type(stat);
    let is_device = matches!(kind, FileType::BlockDevice | FileType::CharacterDevice);
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok(Stat {
        path,
        mode: mode(stat.st_mode),
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: if kind.is_file() { stat.st_size } else { 0 },
        mod_time: stat
            .st_mtime
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        linkname: match kind {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(node, c"", Vec::new())?;
                String::from_utf8_lossy(target.as_bytes()).into_owned()
            }
            _ => String::new(),
        },
        devmajor: if is_device { major.into() } else { 0 },
        devminor: if is_device { minor.into() } else { 0 },
        xattrs: match kind {
            FileType::RegularFile | FileType::Directory => xattrs(node)?,
            _ => Default::default(),
        },
    })
}

/// The extended attributes that mean the same elsewhere.
fn xattrs(node: &OwnedFd) -> io::Result<std::collections::HashMap<String, Vec<u8>>> {
    let keep =
        |name: &str| name == "security.capability" || (name.starts_with("user.") && !name.starts_with("user.overlay."));
    let all = content::xattrs(node)?.into_iter();
    let named = all.filter_map(|(name, value)| Some((String::from_utf8(name).ok()?, value)));
    Ok(named.filter(|(name, _)| keep(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        for (raw, go) in [
            (0o100_644, 0o644),
            (0o104_755, SETUID | 0o755),
            (0o041_777, DIRECTORY | STICKY | 0o777),
            (0o042_755, DIRECTORY | SETGID | 0o755),
            (0o120_777, SYMLINK | 0o777),
            (0o020_666, DEVICE | CHARACTER | 0o666),
            (0o060_660, DEVICE | 0o660),
            (0o010_600, PIPE | 0o600),
            (0o140_600, SOCKET | 0o600),
        ] {
            assert_eq!(mode(raw), go, "{raw:o}");
        }
    }
}
