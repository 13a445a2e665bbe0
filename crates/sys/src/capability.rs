//! Capability sets of the calling process.

use std::io;

use model::capability::ALL;

/// A set of capabilities, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(pub u64);

impl Set {
    /// Names are `CAP_…`; those that this version does not know are left out, as the reference does (with a warning).
    pub fn from_names<S: AsRef<str>>(names: &[S]) -> Set {
        let number = |name: &S| ALL.iter().position(|n| *n == name.as_ref());
        Set(names.iter().filter_map(number).fold(0, |bits, n| bits | 1 << n))
    }

    /// Whether the capability of this number (linux/capability.h) is in the set.
    pub fn has(self, capability: u32) -> bool {
        self.0 >> capability & 1 == 1
    }

    /// Names in the order of their numbers.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        ALL.iter().enumerate().filter(move |(n, _)| self.has(*n as u32)).map(|(_, name)| *name)
    }
}

/// The three sets of capset(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    pub effective: Set,
    pub permitted: Set,
    pub inheritable: Set,
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`, low and high half.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// The calling thread's sets.
pub fn get() -> io::Result<Sets> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 stores two elements.
    let r = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    if r != 0 {
        return Err(io::Error::last_os_error());
    }
    let join = |low: u32, high: u32| Set(u64::from(low) | u64::from(high) << 32);
    Ok(Sets {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// Replaces the calling thread's sets.
pub fn set(sets: Sets) -> io::Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    let half = |shift: u32| Data {
        effective: (sets.effective.0 >> shift) as u32,
        permitted: (sets.permitted.0 >> shift) as u32,
        inheritable: (sets.inheritable.0 >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads two elements.
    let r = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Drops every capability that is not in `keep` from the bounding set.
pub fn limit_bounding(keep: Set) -> io::Result<()> {
    for capability in (0..64).filter(|c| !keep.has(*c)) {
        // SAFETY: no memory is passed.
        let r = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
        if r != 0 {
            let error = io::Error::last_os_error();
            // Beyond the last capability of this kernel.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// Replaces the ambient set; each must be permitted and inheritable.
pub fn set_ambient(set: Set) -> io::Result<()> {
    ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    (0..64).filter(|c| set.has(*c)).try_for_each(|c| ambient(libc::PR_CAP_AMBIENT_RAISE, c))
}

fn ambient(verb: libc::c_int, capability: u32) -> io::Result<()> {
    let (verb, capability) = (verb as libc::c_ulong, libc::c_ulong::from(capability));
    // SAFETY: no memory is passed.
    let r = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, verb, capability, 0, 0) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let set = Set::from_names(&["CAP_CHOWN", "CAP_SETFCAP", "CAP_NO_SUCH"]);
        assert_eq!(set.0, 1 | 1 << 31);
        assert_eq!(set.names().collect::<Vec<_>>(), ["CAP_CHOWN", "CAP_SETFCAP"]);
    }

    #[test]
    fn own_sets_read() {
        let sets = get().unwrap();
        assert_eq!(sets.effective.0 & !sets.permitted.0, 0);
    }
}
