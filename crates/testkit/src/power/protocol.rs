//! The part of the FUSE protocol (7.31, linux/fuse.h) that one file of fixed size needs.
//!
//! Numbers are in the machine's order. Requests that are not known are answered `ENOSYS`, as the kernel expects.

use std::fs::File;
use std::io::{Read, Write};

use model::lock::Mutex;
use rustix::io::Errno;

use super::State;

/// The name of the file.
pub const NAME: &str = "disk";

const ROOT: u64 = 1;
const FILE: u64 = 2;
/// Bytes of one write at most.
const MAX_WRITE: u32 = 1 << 20;
/// A request's header (`fuse_in_header`), and the fixed part of a read or write.
const HEADER: usize = 40;
const IO: usize = 40;
/// `FUSE_BIG_WRITES | FUSE_MAX_PAGES`
const FLAGS: u32 = 1 << 5 | 1 << 22;
/// `FOPEN_DIRECT_IO`: nothing of it is kept in the page cache.
const DIRECT: u32 = 1;

/// Operations (`fuse_opcode`).
mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
}

/// Serves until the file system is unmounted.
pub fn serve(fuse: &File, state: &Mutex<State>) {
    let mut buffer = vec![0; HEADER + IO + MAX_WRITE as usize + 4096];
    loop {
        let length = match (&mut &*fuse).read(&mut buffer) {
            Ok(length) => length,
            // Interrupted, or withdrawn; not mounted yet.
            Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::INTR | Errno::NOENT | Errno::AGAIN)) => continue,
            Err(e) if Errno::from_io_error(&e) == Some(Errno::PERM) => {
                std::thread::sleep(std::time::Duration::from_millis(1));
                continue;
            }
            Err(_) => return,
        };
        let request = &buffer[..length];
        if length < HEADER {
            return;
        }
        let unique = number64(request, 8);
        let answer = match answer(request, state) {
            Some(answer) => answer,
            None => continue,
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(errno) => (-errno.raw_os_error(), Vec::new()),
        };
        let length = u32::try_from(16 + body.len()).unwrap_or(16);
        let head = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes()].concat();
        // Refused when the request was withdrawn meanwhile.
        let _ = (&mut &*fuse).write(&[head, body].concat());
    }
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes(b.try_into().expect("four bytes")))
}

fn number64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |b| u64::from_ne_bytes(b.try_into().expect("eight bytes")))
}

/// The body of an answer; `None`: none is expected.
fn answer(request: &[u8], state: &Mutex<State>) -> Option<Result<Vec<u8>, Errno>> {
    let mut state = state.lock();
    let (operation, node, body) = (number32(request, 4), number64(request, 16), &request[HEADER..]);
    let failed = |_| Errno::IO;
    Some(match operation {
        op::INIT => Ok(init(body)),
        op::LOOKUP if node == ROOT && body.strip_suffix(b"\0") == Some(NAME.as_bytes()) => Ok(entry(&state)),
        op::LOOKUP => Err(Errno::NOENT),
        op::GETATTR | op::SETATTR => Ok([&[0; 16][..], &attributes(node, &state)].concat()),
        op::OPEN => Ok([&[0; 8][..], &DIRECT.to_ne_bytes(), &[0; 4]].concat()),
        op::READ => state.read(number64(body, 8), number32(body, 16) as usize).map_err(failed),
        op::WRITE => {
            let size = number32(body, 16);
            let bytes = body.get(IO..IO + size as usize).unwrap_or_default();
            state.write(number64(body, 8), bytes).map(|()| [size.to_ne_bytes(), [0; 4]].concat()).map_err(failed)
        }
        op::FSYNC => state.flush().map(|()| Vec::new()).map_err(failed),
        op::RELEASE | op::FLUSH | op::DESTROY => Ok(Vec::new()),
        op::FORGET | op::BATCH_FORGET | op::INTERRUPT => return None,
        _ => Err(Errno::NOSYS),
    })
}

/// `fuse_init_out`
fn init(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    for word in [7, 31, number32(body, 8), FLAGS & number32(body, 12)] {
        out.extend(u32::to_ne_bytes(word));
    }
    // Requests in the background, and when there are too many.
    out.extend([64_u16, 48].iter().flat_map(|n| n.to_ne_bytes()));
    out.extend([MAX_WRITE, 1].iter().flat_map(|n| n.to_ne_bytes()));
    let pages = u16::try_from(MAX_WRITE / 4096).unwrap_or(256);
    out.extend([pages, 0].iter().flat_map(|n| n.to_ne_bytes()));
    out.resize(64, 0);
    out
}

/// `fuse_entry_out` of the file.
fn entry(state: &State) -> Vec<u8> {
    let mut out = FILE.to_ne_bytes().to_vec();
    out.resize(40, 0);
    out.extend(attributes(FILE, state));
    out
}

/// `fuse_attr`
fn attributes(node: u64, state: &State) -> Vec<u8> {
    let (mode, size) = if node == ROOT { (0o040_700_u32, 0) } else { (0o100_600, state.size) };
    let mut out = Vec::with_capacity(88);
    for word in [node, size, size / 512, 0, 0, 0] {
        out.extend(u64::to_ne_bytes(word));
    }
    for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
        out.extend(u32::to_ne_bytes(word));
    }
    out
}
