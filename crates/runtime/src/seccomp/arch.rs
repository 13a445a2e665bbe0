//! The instruction set architectures that Gantry knows system call numbers of.

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

impl Default for Arch {
    /// The one this program was built for.
    fn default() -> Arch {
        if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 }
    }
}
