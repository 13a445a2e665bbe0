//! Network namespaces, entered only by threads that end before the call returns.
//!
//! A thread that called `setns` or `unshare` is never reused: it is made for one closure and joined.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// The closures run here are shallow.
const STACK: usize = 256 * 1024;
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// A new, empty namespace (`lo` is down).
pub fn create() -> io::Result<OwnedFd> {
    create_with(|_| Ok(())).map(|made| made.0)
}

/// A new namespace in which `inside` runs first; it gets the namespace's descriptor.
pub fn create_with<T: Send>(inside: impl FnOnce(BorrowedFd<'_>) -> io::Result<T> + Send) -> io::Result<(OwnedFd, T)> {
    on_own_thread(|| {
        unshare()?;
        let namespace = current()?;
        let result = inside(std::os::fd::AsFd::as_fd(&namespace))?;
        Ok((namespace, result))
    })
}

/// Runs `inside` in an existing namespace.
pub fn enter<T: Send>(namespace: BorrowedFd<'_>, inside: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_own_thread(|| {
        rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
        inside()
    })
}

/// Moves the calling thread, which should do nothing else, into a namespace.
pub fn move_into(namespace: BorrowedFd<'_>) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// The calling thread's namespace.
pub fn current() -> io::Result<OwnedFd> {
    open(Path::new(OWN_NAMESPACE))
}

/// A namespace by path (`/proc/PID/ns/net`, a bind mount).
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// `SO_NETNS_COOKIE` of `asm-generic/socket.h` (Linux 5.14), which the libc crate lacks.
const NAMESPACE_COOKIE: libc::c_int = 71;

/// A number of the calling thread's namespace that no other one gets until the next boot.
pub fn cookie() -> io::Result<u64> {
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, flags, None)?;
    let (mut cookie, mut size) = (0u64, size_of::<u64>() as libc::socklen_t);
    let (level, value) = (libc::SOL_SOCKET, (&raw mut cookie).cast());
    // SAFETY: `value` points to a live u64 and `size` is its size; the descriptor is open for the whole call.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, NAMESPACE_COOKIE, value, &raw mut size) };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Reads a setting of the calling thread's namespace.
pub fn sysctl(name: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(format!("/proc/sys/{name}"))?.trim_end().to_owned())
}

fn unshare() -> io::Result<()> {
    // SAFETY: only the network namespace of this thread changes; no descriptor or memory is affected.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

fn on_own_thread<T: Send>(run: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).stack_size(STACK).spawn_scoped(scope, run)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Writes a setting of the calling thread's namespace, such as `net/ipv4/ip_forward`. A setting that already has the
/// value is not written (it may lie on a read-only /proc).
pub fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    if sysctl(name)? == value { Ok(()) } else { std::fs::write(format!("/proc/sys/{name}"), value) }
}
