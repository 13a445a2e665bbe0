//! bpf(2): the little of it that Gantry uses, programs of a few instructions.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

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
pub(crate) const LOAD_HALF: u8 = 0x69;
pub(crate) const LOAD_BYTE: u8 = 0x71;
pub(crate) const LOAD_DOUBLE: u8 = 0x79;
pub(crate) const STORE_REGISTER_WORD: u8 = 0x63;
pub(crate) const STORE_REGISTER_HALF: u8 = 0x6b;
pub(crate) const STORE_REGISTER_BYTE: u8 = 0x73;
pub(crate) const STORE_REGISTER_DOUBLE: u8 = 0x7b;
pub(crate) const STORE_HALF: u8 = 0x6a;
pub(crate) const STORE_BYTE: u8 = 0x72;
pub(crate) const STORE_DOUBLE: u8 = 0x7a;
pub(crate) const STORE_WORD: u8 = 0x62;
pub(crate) const LOAD_WIDE: u8 = 0x18;
pub(crate) const ADD: u8 = 0x07;
pub(crate) const SUBTRACT_REGISTER: u8 = 0x1f;
pub(crate) const SHIFT_RIGHT: u8 = 0x77;
pub(crate) const MOVE_REGISTER: u8 = 0xbf;
pub(crate) const MOVE: u8 = 0xb7;
pub(crate) const AND_32: u8 = 0x54;
pub(crate) const SHIFT_RIGHT_32: u8 = 0x74;
pub(crate) const JUMP: u8 = 0x05;
pub(crate) const JUMP_EQUAL: u8 = 0x15;
pub(crate) const JUMP_NOT_EQUAL: u8 = 0x55;
pub(crate) const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
pub(crate) const JUMP_EQUAL_32: u8 = 0x16;
pub(crate) const JUMP_NOT_EQUAL_32: u8 = 0x56;
pub(crate) const JUMP_GREATER: u8 = 0x25;
pub(crate) const JUMP_GREATER_REGISTER: u8 = 0x2d;
pub(crate) const JUMP_LESS: u8 = 0xa5;
pub(crate) const CALL: u8 = 0x85;
pub(crate) const EXIT: u8 = 0x95;

pub(crate) fn insn(code: u8, registers: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers, offset, immediate }
}

/// A map by its descriptor, in the source register of a wide load.
pub(crate) const PSEUDO_MAP: u8 = 1;

// Helpers (`enum bpf_func_id`).
pub(crate) const MAP_LOOKUP: i32 = 1;

const MAP_CREATE: i32 = 0;
const MAP_UPDATE: i32 = 2;
const MAP_DELETE: i32 = 3;
const PROG_LOAD: i32 = 5;
const PROG_BY_ID: i32 = 13;
const MAP_BY_ID: i32 = 14;
const OBJECT_INFO: i32 = 15;

/// The head of `union bpf_attr` for BPF_MAP_CREATE.
#[repr(C)]
pub(crate) struct MapAttr {
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
}

/// The head of `union bpf_attr` for BPF_MAP_UPDATE_ELEM and BPF_MAP_DELETE_ELEM.
#[repr(C)]
struct ElementAttr {
    map_fd: u64,
    key: u64,
    value: u64,
    flags: u64,
}

/// The head of `union bpf_attr` for BPF_*_GET_FD_BY_ID.
#[repr(C)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The head of `union bpf_attr` for BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
}

/// The head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
}

/// Makes a map.
pub(crate) fn create(attr: &MapAttr) -> io::Result<OwnedFd> {
    bpf_open(MAP_CREATE, attr)
}

/// Puts an element into a map, in the place of one with the same key. The map's sizes are those of the types.
pub(crate) fn update<K, V>(map: &OwnedFd, key: &K, value: &V) -> io::Result<()> {
    let (key, value) = (std::ptr::from_ref(key) as u64, std::ptr::from_ref(value) as u64);
    bpf(MAP_UPDATE, &ElementAttr { map_fd: map.as_raw_fd() as u64, key, value, flags: 0 }).map(drop)
}

/// Takes an element out of a map, whose keys are of this type.
pub(crate) fn delete<K>(map: &OwnedFd, key: &K) -> io::Result<()> {
    let key = std::ptr::from_ref(key) as u64;
    bpf(MAP_DELETE, &ElementAttr { map_fd: map.as_raw_fd() as u64, key, value: 0, flags: 0 }).map(drop)
}

/// The maps of a loaded program, at most `N`, each with its type (`BPF_MAP_TYPE_*`). Needs CAP_SYS_ADMIN.
pub(crate) fn maps_of<const N: usize>(program: u32) -> io::Result<Vec<(u32, OwnedFd)>> {
    let by_id = |command, id| bpf_open(command, &IdAttr { id, next_id: 0, open_flags: 0 });
    let program = by_id(PROG_BY_ID, program)?;
    let mut ids = [0u32; N];
    let mut info = ProgramInfo { nr_map_ids: N as u32, map_ids: ids.as_mut_ptr() as u64, ..ProgramInfo::default() };
    inform(&program, &mut info)?;
    let known = (info.nr_map_ids as usize).min(N);
    let open = |id: &u32| {
        let map = by_id(MAP_BY_ID, *id)?;
        let mut info = MapInfo::default();
        inform(&map, &mut info).map(|()| (info.kind, map))
    };
    ids[..known].iter().map(open).collect()
}

/// Fills in the head of what the kernel tells of a program or map.
fn inform<T>(object: &OwnedFd, info: &mut T) -> io::Result<()> {
    let (bpf_fd, info_len) = (object.as_raw_fd() as u32, size_of::<T>() as u32);
    bpf(OBJECT_INFO, &InfoAttr { bpf_fd, info_len, info: std::ptr::from_mut(info) as u64 }).map(drop)
}

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
