//! A disk that forgets: what was written and not flushed when the power goes is there in part or not at all.
//!
//! A loop device over the one file of a FUSE file system that the kit serves itself. A flush of the device (also one that
//! a write forces, FUA) arrives as fsync and makes durable what was written before. [`Disk::cut`] ends all that; of
//! what was not flushed it keeps nothing, all, what came first, or pieces at random. [`Disk::restore`] brings the
//! power back.

mod protocol;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use model::lock::{Mutex, MutexGuard};

use crate::command::{PATIENCE, eventually};
use crate::namespaces::Namespaces;
use crate::places;

/// What a disk writes as a whole or not at all.
const PIECE: usize = 4096;

/// A file system on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileSystem {
    /// With a journal.
    #[default]
    Ext4,
    /// Without one: what the check of the file system cannot connect is lost.
    Ext4WithoutJournal,
    /// XFS.
    Xfs,
}

impl FileSystem {
    /// Bytes of the disk.
    fn size(self) -> u64 {
        match self {
            // The least that mkfs.xfs takes.
            FileSystem::Xfs => 320 << 20,
            _ => 128 << 20,
        }
    }

    fn make(self) -> &'static [&'static str] {
        match self {
            FileSystem::Ext4 => &["mkfs.ext4", "-q", "-E", "nodiscard"],
            FileSystem::Ext4WithoutJournal => &["mkfs.ext4", "-q", "-E", "nodiscard", "-O", "^has_journal"],
            FileSystem::Xfs => &["mkfs.xfs", "-q", "-K"],
        }
    }
}

/// What becomes of writes that were not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// They are lost.
    Nothing,
    /// The disk was quick.
    All,
    /// So many of a thousand, the first.
    First(u64),
    /// Each piece or not; the seed.
    Random(u64),
}

/// A small generator for choices that a seed repeats (xorshift).
#[derive(Clone, Copy, Debug)]
pub struct Choices(u64);

impl Choices {
    /// The same seed makes the same choices.
    #[must_use]
    pub fn new(seed: u64) -> Choices {
        Choices(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }
}

/// What the device has, and what it would have without power.
struct State {
    size: u64,
    current: File,
    durable: File,
    /// Where, and what, in the order of their coming.
    pending: Vec<(u64, Vec<u8>)>,
    is_cut: bool,
}

impl State {
    fn new(size: u64) -> State {
        let memory = Path::new("/dev/shm");
        let memory = if memory.is_dir() { memory } else { Path::new("/tmp") };
        let file = || {
            let file = tempfile::tempfile_in(memory).expect("a file in memory");
            file.set_len(size).expect("a file in memory can be sparse");
            file
        };
        State { size, current: file(), durable: file(), pending: Vec::new(), is_cut: false }
    }

    fn powered(&self) -> io::Result<()> {
        if self.is_cut { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.powered()?;
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left)];
        self.current.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.powered()?;
        if offset + bytes.len() as u64 > self.size {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.current.write_all_at(bytes, offset)?;
        self.pending.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.powered()?;
        let pending = std::mem::take(&mut self.pending);
        pending.iter().try_for_each(|(offset, bytes)| self.durable.write_all_at(bytes, *offset))
    }

    /// Nothing where the power is gone already.
    fn cut(&mut self, keep: Keep) -> io::Result<()> {
        if std::mem::replace(&mut self.is_cut, true) {
            return Ok(());
        }
        let first = match keep {
            Keep::Nothing => 0,
            Keep::All | Keep::Random(_) => self.pending.len(),
            Keep::First(part) => usize::try_from(self.pending.len() as u64 * part.min(1000) / 1000).unwrap_or(0),
        };
        let mut choices = if let Keep::Random(seed) = keep { Some(Choices::new(seed)) } else { None };
        for (offset, bytes) in &self.pending[..first] {
            for (n, piece) in bytes.chunks(PIECE).enumerate() {
                if choices.as_mut().is_none_or(|choices| choices.below(2) == 0) {
                    self.durable.write_all_at(piece, offset + (n * PIECE) as u64)?;
                }
            }
        }
        Ok(())
    }

    fn restore(&mut self) -> io::Result<()> {
        for (offset, bytes) in std::mem::take(&mut self.pending) {
            let mut kept = vec![0; bytes.len()];
            self.durable.read_exact_at(&mut kept, offset)?;
            self.current.write_all_at(&kept, offset)?;
        }
        self.is_cut = false;
        Ok(())
    }
}

/// The disk, and the file system on it.
pub struct Disk {
    kind: FileSystem,
    state: Arc<Mutex<State>>,
    /// Where the FUSE file system is mounted, in the namespace.
    place: PathBuf,
    /// `/dev/loop<n>` while the device is there.
    device: Option<String>,
}

impl Disk {
    /// Makes the disk with its file system; `place` is an empty directory that all namespaces see.
    #[track_caller]
    #[must_use]
    pub fn make(namespaces: &Namespaces, place: &Path, kind: FileSystem) -> Disk {
        let state = Arc::new(Mutex::new(State::new(kind.size())));
        let fuse = File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse can be opened");
        // The kernel takes the connection from the descriptor that mount(8) has as its input.
        let copy = fuse.try_clone().expect("a descriptor can be copied");
        let mut mount = namespaces.command("mount");
        mount.args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0", "disk"]).arg(place);
        let served = state.clone();
        std::thread::Builder::new()
            .name("disk".into())
            .spawn(move || protocol::serve(&fuse, &served))
            .expect("a thread can be started");
        let status = mount.stdin(Stdio::from(copy)).status().expect("mount starts");
        assert!(status.success(), "the disk's file cannot be mounted: {status}");
        let mut disk = Disk { kind, state, place: place.to_owned(), device: None };
        let device = disk.plug_in(namespaces);
        let _ = namespaces.run(&[kind.make(), &[device.as_str()]].concat()).ok();
        disk
    }

    /// Mounts its file system, after a check where the kernel makes none.
    #[track_caller]
    pub fn mount(&mut self, namespaces: &Namespaces, target: &Path) {
        let device = self.device.clone().unwrap_or_else(|| self.plug_in(namespaces));
        if self.kind == FileSystem::Ext4WithoutJournal {
            let checked = namespaces.run(&["e2fsck", "-fy", &device]);
            assert!(checked.code < 4, "the file system cannot be put right: {checked:?}");
        }
        let _ = namespaces.run(&["mount", &device, &target.display().to_string()]).ok();
    }

    /// The power is gone: nothing is read or written any more.
    pub fn cut(&self, keep: Keep) {
        self.state().cut(keep).expect("memory can be written");
    }

    /// What lies on it.
    #[must_use]
    pub fn kind(&self) -> FileSystem {
        self.kind
    }

    /// Whether it has power.
    #[must_use]
    pub fn is_powered(&self) -> bool {
        !self.state().is_cut
    }

    /// Takes the file system of a dead disk away, once nobody uses it.
    #[track_caller]
    pub fn unplug(&mut self, namespaces: &Namespaces, target: &Path) {
        let target = target.display().to_string();
        let unmounted = eventually(PATIENCE, || namespaces.run(&["umount", &target]).code == 0);
        assert!(unmounted, "somebody uses the file system of a dead disk:\n{:#?}", namespaces.processes());
        if let Some(device) = self.device.take() {
            let _ = namespaces.run(&["losetup", "-d", &device]).ok();
            let backing = device.replace("/dev/", "/sys/block/") + "/loop/backing_file";
            let is_free = || !Path::new(&backing).exists();
            assert!(eventually(PATIENCE, is_free), "{device} stays in use");
        }
    }

    /// The power is back.
    pub fn restore(&self) {
        self.state().restore().expect("memory can be written");
    }

    fn plug_in(&mut self, namespaces: &Namespaces) -> String {
        let file = self.place.join(protocol::NAME).display().to_string();
        let device = namespaces.run(&["losetup", "-f", "--show", &file]).text();
        self.device = Some(device.clone());
        device
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Drop for Disk {
    /// The device goes when its last user does; the connection with the namespace.
    fn drop(&mut self) {
        if let Some(device) = self.device.take() {
            let _ = std::process::Command::new(places::find("losetup")).args(["-d", &device]).status();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; 3 * PIECE];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn what_was_flushed_stays_and_of_the_rest_what_is_chosen() {
        let written = [(0, 1), (PIECE, 2), (2 * PIECE, 3)].map(|(at, byte)| (at as u64, vec![byte; PIECE]));
        let after = |keep| {
            let mut state = State::new(3 * PIECE as u64);
            state.write(0, &[9; PIECE]).unwrap();
            state.flush().unwrap();
            written.iter().for_each(|(at, bytes)| state.write(*at, bytes).unwrap());
            assert_eq!(state.read(0, 1).unwrap(), [1]);
            state.cut(keep).unwrap();
            assert!(state.read(0, 1).is_err() && state.write(0, b"x").is_err() && state.flush().is_err());
            state.restore().unwrap();
            assert_eq!(content(&state.current), content(&state.durable));
            [0, PIECE, 2 * PIECE].map(|at| content(&state.current)[at])
        };
        assert_eq!(after(Keep::Nothing), [9, 0, 0]);
        assert_eq!(after(Keep::All), [1, 2, 3]);
        assert_eq!(after(Keep::First(700)), [1, 2, 0]);
        let chosen: std::collections::BTreeSet<_> = (0..64).map(|seed| after(Keep::Random(seed))).collect();
        assert_eq!(chosen.len(), 8, "{chosen:?}");
    }

    /// The device loses what was not flushed, and only that.
    #[test]
    fn a_file_system_on_it_forgets_what_was_not_synced() {
        let namespaces = Namespaces::new();
        for kind in [FileSystem::Ext4, FileSystem::Ext4WithoutJournal, FileSystem::Xfs] {
            let dir = tempfile::tempdir().unwrap();
            let (place, target) = (dir.path().join("fuse"), dir.path().join("mnt"));
            [&place, &target].iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
            let mut disk = Disk::make(&namespaces, &place, kind);
            disk.mount(&namespaces, &target);
            let shell = |script: &str| namespaces.run(&["sh", "-c", &format!("cd {} && {script}", target.display())]);
            let _ = shell("echo kept | dd of=synced conv=fsync 2>/dev/null && echo lost > unsynced").ok();
            disk.cut(Keep::Nothing);
            assert!(shell("echo dead | dd of=dead conv=fsync").code != 0);
            disk.unplug(&namespaces, &target);
            disk.restore();
            disk.mount(&namespaces, &target);
            assert_eq!(shell("cat synced; cat unsynced 2>/dev/null || true").text(), "kept", "{kind:?}");
            let _ = shell("cd / && umount $OLDPWD").ok();
        }
    }
}
