//! bpf(2): the little of it that Gantry uses, programs of a few instructions.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// One eBPF instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Insn {
    pub code: u8,
    /// Destination in the low, source in the high four bits.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

pub(crate) const LOAD_WORD: u8 = 0x61;
pub(crate) const STORE_WORD: u8 = 0x62;
pub(crate) const LOAD_WIDE: u8 = 0x18;
pub(crate) const ADD: u8 = 0x07;
pub(crate) const MOVE_REGISTER: u8 = 0xbf;
pub(crate) const MOVE: u8 = 0xb7;
pub(crate) const AND_32: u8 = 0x54;
pub(crate) const SHIFT_RIGHT_32: u8 = 0x74;
pub(crate) const JUMP: u8 = 0x05;
pub(crate) const JUMP_EQUAL: u8 = 0x15;
pub(crate) const JUMP_NOT_EQUAL: u8 = 0x55;
pub(crate) const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
pub(crate) const CALL: u8 = 0x85;
pub(crate) const EXIT: u8 = 0x95;

pub(crate) fn insn(code: u8, registers: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers, offset, immediate }
}

const PROG_LOAD: i32 = 5;

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u32; 4],
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// Calls bpf(2) with a prefix of `union bpf_attr`.
pub(crate) fn bpf<T>(command: i32, attr: &T) -> io::Result<libc::c_long> {
    // SAFETY: attr is a prefix of union bpf_attr of the given size; its pointers outlive the call.
    let r = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if r >= 0 { Ok(r) } else { Err(io::Error::last_os_error()) }
}

/// As [`bpf`], of commands that make a descriptor.
pub(crate) fn bpf_open<T>(command: i32, attr: &T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: a new descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Loads a program: its type (`BPF_PROG_TYPE_*`) and where it will be attached (`BPF_*` of `enum bpf_attach_type`).
pub(crate) fn load(prog_type: u32, expected_attach_type: u32, program: &[Insn]) -> io::Result<OwnedFd> {
    let attr = LoadAttr {
        prog_type,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
        log: [0; 4],
        kern_version: 0,
        prog_flags: 0,
        prog_name: [0; 16],
        prog_ifindex: 0,
        expected_attach_type,
    };
    bpf_open(PROG_LOAD, &attr)
}
