//! The instruction set architectures that Gantry knows system call numbers of.
//!
//! A profile may name others; no process of theirs can run here, so they are accepted and left out.

use super::table::SYSCALLS;

/// An architecture of a process, in the sense of libseccomp: x32 is one, although the kernel tells it from x86-64 only by a
/// bit of the system call number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    X86_64,
    X32,
    X86,
    Aarch64,
    Arm,
}

/// `SCMP_ARCH_…` names without a table here.
const FOREIGN: &str = "MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X PARISC PARISC64 \
                       RISCV64 LOONGARCH64 M68K SH SHEB";

/// `socketcall(2)` of i386 and the numbers it carries in its first argument.
const SOCKETCALL: (u32, &[(&str, u64)]) = (
    102,
    &[
        ("socket", 1),
        ("bind", 2),
        ("connect", 3),
        ("listen", 4),
        ("accept", 5),
        ("getsockname", 6),
        ("getpeername", 7),
        ("socketpair", 8),
        ("send", 9),
        ("recv", 10),
        ("sendto", 11),
        ("recvfrom", 12),
        ("shutdown", 13),
        ("setsockopt", 14),
        ("getsockopt", 15),
        ("sendmsg", 16),
        ("recvmsg", 17),
        ("accept4", 18),
        ("recvmmsg", 19),
        ("sendmmsg", 20),
    ],
);

/// `ipc(2)` of i386, likewise.
const IPC: (u32, &[(&str, u64)]) = (
    117,
    &[
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ],
);

impl Default for Arch {
    /// The one this program was built for.
    fn default() -> Arch {
        if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 }
    }
}

impl Arch {
    /// The bit of x32 system call numbers.
    pub(super) const X32_BIT: u32 = 0x4000_0000;

    pub(super) const ALL: [Arch; 5] = [Arch::X86_64, Arch::X32, Arch::X86, Arch::Aarch64, Arch::Arm];

    /// libseccomp's name.
    pub fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "SCMP_ARCH_X86_64",
            Arch::X32 => "SCMP_ARCH_X32",
            Arch::X86 => "SCMP_ARCH_X86",
            Arch::Aarch64 => "SCMP_ARCH_AARCH64",
            Arch::Arm => "SCMP_ARCH_ARM",
        }
    }

    /// The word of profiles' `arches` conditions.
    pub(super) fn profile_word(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::X32 => "x32",
            Arch::X86 => "x86",
            Arch::Aarch64 => "arm64",
            Arch::Arm => "arm",
        }
    }

    /// `Some(None)` for an architecture that exists but has no table here, `None` for a name that is none.
    pub(super) fn parse(name: &str) -> Option<Option<Arch>> {
        if let Some(arch) = Arch::ALL.into_iter().find(|a| a.name() == name) {
            return Some(Some(arch));
        }
        let rest = name.strip_prefix("SCMP_ARCH_")?;
        FOREIGN.split_whitespace().any(|f| f == rest).then_some(None)
    }

    /// `AUDIT_ARCH_…`, what the kernel calls it in `seccomp_data.arch`.
    pub(super) fn audit(self) -> u32 {
        match self {
            Arch::X86_64 | Arch::X32 => 0xc000_003e,
            Arch::X86 => 0x4000_0003,
            Arch::Aarch64 => 0xc000_00b7,
            Arch::Arm => 0x4000_0028,
        }
    }

    /// Only the low halves of system call arguments mean something.
    pub(super) fn is_32bit(self) -> bool {
        matches!(self, Arch::X32 | Arch::X86 | Arch::Arm)
    }

    /// The column of [`SYSCALLS`].
    fn column(self) -> usize {
        match self {
            Arch::X86_64 => 0,
            Arch::X32 => 1,
            Arch::X86 => 2,
            Arch::Aarch64 => 3,
            Arch::Arm => 4,
        }
    }
}

/// One system call name on every architecture.
#[derive(Clone, Copy)]
pub(super) struct Syscall {
    name: &'static str,
    numbers: &'static [i32; 5],
}

impl Syscall {
    pub(super) fn find(name: &str) -> Option<Syscall> {
        let row = SYSCALLS.binary_search_by(|(n, _)| (*n).cmp(name)).ok()?;
        let (name, numbers) = &SYSCALLS[row];
        Some(Syscall { name, numbers })
    }

    /// The number in `seccomp_data.nr`.
    pub(super) fn number(self, arch: Arch) -> Option<u32> {
        let number = u32::try_from(self.numbers[arch.column()]).ok()?;
        Some(if arch == Arch::X32 { number | Arch::X32_BIT } else { number })
    }

    /// The older way to make the call: number, and what the first argument must be. Its further arguments lie in memory
    /// where no filter can see them.
    pub(super) fn multiplexed(self, arch: Arch) -> Option<(u32, u64)> {
        if arch != Arch::X86 {
            return None;
        }
        [SOCKETCALL, IPC].into_iter().find_map(|(number, calls)| {
            calls.iter().find(|(name, _)| *name == self.name).map(|(_, code)| (number, *code))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_numbers_are_unique() {
        assert!(SYSCALLS.windows(2).all(|w| w[0].0 < w[1].0));
        for arch in Arch::ALL {
            let mut numbers: Vec<_> =
                SYSCALLS.iter().filter_map(|(n, _)| Syscall::find(n).unwrap().number(arch)).collect();
            let all = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            // ARM calls one number both sync_file_range2 and arm_sync_file_range.
            let aliases = usize::from(arch == Arch::Arm);
            assert_eq!((numbers.len() + aliases, all > 300), (all, true), "{arch:?}");
        }
    }

    /// The build's own kernel headers know each of their calls under the same number.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn table_agrees_with_the_kernel_headers() {
        for (arch, file) in [(Arch::X86_64, "unistd_64.h"), (Arch::X32, "unistd_x32.h"), (Arch::X86, "unistd_32.h")] {
            let dirs = ["/usr/include/x86_64-linux-gnu/asm", "/usr/include/asm"];
            let text = dirs.iter().find_map(|d| std::fs::read_to_string(format!("{d}/{file}")).ok());
            let text = text.unwrap_or_else(|| panic!("needs the kernel's headers ({file})"));
            let mut compared = 0;
            for line in text.lines() {
                let Some(rest) = line.strip_prefix("#define __NR_") else { continue };
                let (name, value) = rest.split_once(' ').unwrap();
                let value: u32 = value.trim_end_matches(')').rsplit(' ').next().unwrap().parse().unwrap();
                let known = Syscall::find(name).and_then(|s| s.number(arch)).map(|n| n & !Arch::X32_BIT);
                // A newer kernel's headers may have calls that the table does not know yet.
                assert!(known == Some(value) || known.is_none() && value > 469, "{arch:?} {name} {value} {known:?}");
                compared += 1;
            }
            assert!(compared > 300);
        }
    }

    #[test]
    fn names() {
        assert_eq!(Arch::parse("SCMP_ARCH_X32"), Some(Some(Arch::X32)));
        assert_eq!(Arch::parse("SCMP_ARCH_S390X"), Some(None));
        assert_eq!(Arch::parse("amd64"), None);
        let socket = Syscall::find("socket").unwrap();
        assert_eq!(socket.number(Arch::X32), Some(0x4000_0029));
        assert_eq!(socket.multiplexed(Arch::X86), Some((102, 1)));
        assert_eq!(socket.multiplexed(Arch::X86_64), None);
        assert!(Syscall::find("swapcontext").is_none());
    }
}
