//! Steering what is sent to one address and port of a network namespace to sockets that are bound to another port
//! (`BPF_PROG_TYPE_SK_LOOKUP`, Linux 5.9, Documentation/bpf/prog_sk_lookup.rst).
//!
//! Nothing is bound to the port itself, so whoever binds it on all addresses of the namespace may. There is no rule of a
//! packet filter, no tracked connection, and nothing that a flush of the rules takes away.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::bpf::{
    self, ADD, CALL, EXIT, Insn, JUMP, JUMP_EQUAL, JUMP_NOT_EQUAL, LOAD_WIDE, LOAD_WORD, MAP_LOOKUP, MOVE,
    MOVE_REGISTER, MapAttr, PSEUDO_MAP, STORE_WORD, insn,
};

const LINK_CREATE: i32 = 28;
const MAP_TYPE_SOCKMAP: u32 = 15;
const PROG_TYPE_SK_LOOKUP: u32 = 30;
const ATTACH_SK_LOOKUP: u32 = 36;

// Helpers (`enum bpf_func_id`).
const SK_RELEASE: i32 = 86;
const SK_ASSIGN: i32 = 124;

// Offsets in `struct bpf_sk_lookup`.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_PORT: i16 = 60;

/// The head of `union bpf_attr` for BPF_LINK_CREATE.
#[repr(C)]
struct LinkAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// Where packets and connections that are steered end.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// A bound socket.
    pub udp: BorrowedFd<'a>,
    /// A listening socket.
    pub tcp: BorrowedFd<'a>,
}

/// Steers what comes to this address and port of a network namespace, for as long as the result is open. Needs CAP_BPF and
/// CAP_NET_ADMIN in the first user namespace.
pub fn steer(namespace: BorrowedFd<'_>, address: (Ipv4Addr, u16), targets: Targets<'_>) -> io::Result<OwnedFd> {
    let attr = MapAttr { map_type: MAP_TYPE_SOCKMAP, key_size: 4, value_size: 8, max_entries: 2, map_flags: 0 };
    let map = bpf::create(&attr)?;
    for (key, socket) in [(0u32, targets.udp), (1, targets.tcp)] {
        bpf::update(&map, &key, &(socket.as_raw_fd() as u64))?;
    }
    let program = bpf::load(PROG_TYPE_SK_LOOKUP, ATTACH_SK_LOOKUP, &program(map.as_raw_fd(), address))?;
    let attr = LinkAttr {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: namespace.as_raw_fd() as u32,
        attach_type: ATTACH_SK_LOOKUP,
        flags: 0,
    };
    bpf::bpf_open(LINK_CREATE, &attr)
}

/// Passes everything on, and tells the socket for what is meant: key 0 of the map for UDP, 1 for TCP.
fn program(map: i32, (address, port): (Ipv4Addr, u16)) -> Vec<Insn> {
    let network_order = i32::from_ne_bytes(address.octets());
    // r6 context, r7 socket. Jumps to the last two instructions are filled in below.
    let mut program = vec![
        insn(MOVE_REGISTER, 0x16, 0, 0),
        insn(LOAD_WORD, 0x12, FAMILY, 0),
        insn(JUMP_NOT_EQUAL, 2, 0, libc::AF_INET),
        insn(LOAD_WORD, 0x12, LOCAL_PORT, 0),
        insn(JUMP_NOT_EQUAL, 2, 0, i32::from(port)),
        insn(LOAD_WORD, 0x12, LOCAL_IP4, 0),
        insn(JUMP_NOT_EQUAL, 2, 0, network_order),
        insn(LOAD_WORD, 0x12, PROTOCOL, 0),
        insn(JUMP_EQUAL, 2, 2, libc::IPPROTO_UDP),
        insn(STORE_WORD, 10, -4, 1),
        insn(JUMP, 0, 1, 0),
        insn(STORE_WORD, 10, -4, 0),
        insn(LOAD_WIDE, PSEUDO_MAP << 4 | 1, 0, map),
        insn(0, 0, 0, 0),
        insn(MOVE_REGISTER, 0xa2, 0, 0),
        insn(ADD, 2, 0, -4),
        insn(CALL, 0, 0, MAP_LOOKUP),
        insn(JUMP_EQUAL, 0, 0, 0),
        insn(MOVE_REGISTER, 0x07, 0, 0),
        insn(MOVE_REGISTER, 0x61, 0, 0),
        insn(MOVE_REGISTER, 0x72, 0, 0),
        insn(MOVE, 3, 0, 0),
        insn(CALL, 0, 0, SK_ASSIGN),
        insn(MOVE_REGISTER, 0x71, 0, 0),
        insn(CALL, 0, 0, SK_RELEASE),
        insn(MOVE, 0, 0, 1),
        insn(EXIT, 0, 0, 0),
    ];
    let end = program.len() - 2;
    for (at, insn) in program.iter_mut().enumerate() {
        if matches!(insn.code, JUMP_NOT_EQUAL | JUMP_EQUAL) && insn.offset == 0 {
            insn.offset = (end - at - 1) as i16;
        }
    }
    program
}
