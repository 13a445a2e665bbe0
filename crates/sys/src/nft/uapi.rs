//! Numbers of `linux/netfilter/nf_tables.h` and `nfnetlink.h` that the libc crate lacks.

/// Message types are `SUBSYSTEM << 8 | message`.
pub const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
pub const BATCH_BEGIN: u16 = 0x10;
pub const BATCH_END: u16 = 0x11;

pub const NEW_TABLE: u16 = 0;
pub const GET_TABLE: u16 = 1;
pub const DELETE_TABLE: u16 = 2;
pub const NEW_CHAIN: u16 = 3;
pub const NEW_RULE: u16 = 6;
pub const GET_RULE: u16 = 7;
pub const NEW_SET: u16 = 9;
pub const NEW_ELEMENT: u16 = 12;
pub const GET_ELEMENT: u16 = 13;
pub const DELETE_ELEMENT: u16 = 14;
pub const NEW_GENERATION: u16 = 15;

pub const LIST_ELEMENT: u16 = 1;

pub mod table {
    pub const NAME: u16 = 1;
    pub const FLAGS: u16 = 2;
    pub const USERDATA: u16 = 6;
}

pub mod chain {
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 3;
    pub const HOOK: u16 = 4;
    pub const POLICY: u16 = 5;
    pub const TYPE: u16 = 7;
    pub const HOOK_NUMBER: u16 = 1;
    pub const HOOK_PRIORITY: u16 = 2;
}

pub mod rule {
    pub const TABLE: u16 = 1;
    pub const CHAIN: u16 = 2;
    pub const EXPRESSIONS: u16 = 4;
}

pub mod set {
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const KEY_TYPE: u16 = 4;
    pub const KEY_LENGTH: u16 = 5;
    pub const DATA_TYPE: u16 = 6;
    pub const DATA_LENGTH: u16 = 7;
    pub const ID: u16 = 10;
    pub const FLAG_MAP: u32 = 0x8;
}

pub mod element {
    pub const TABLE: u16 = 1;
    pub const SET: u16 = 2;
    pub const ELEMENTS: u16 = 3;
    pub const KEY: u16 = 1;
    pub const DATA: u16 = 2;
}

pub mod data {
    pub const VALUE: u16 = 1;
    pub const VERDICT: u16 = 2;
    pub const VERDICT_CODE: u16 = 1;
    pub const VERDICT_CHAIN: u16 = 2;
}

pub mod verdict {
    pub const DROP: i32 = 0;
    pub const ACCEPT: i32 = 1;
    pub const JUMP: i32 = -3;
    pub const RETURN: i32 = -5;
}

/// Registers: 0 = verdict, 1–4 of 16 bytes, 8–23 the same memory in units of 4 bytes.
pub mod register {
    pub const VERDICT: u32 = 0;
    pub const FIRST: u32 = 1;
    /// The 4-byte register that starts `words` words after the start of `FIRST`.
    pub fn word(words: u32) -> u32 {
        if words == 0 { FIRST } else { 8 + words }
    }
}

pub mod expression {
    pub const NAME: u16 = 1;
    pub const DATA: u16 = 2;
}

pub mod meta {
    pub const DESTINATION: u16 = 1;
    pub const KEY: u16 = 2;
    pub const INPUT_NAME: u32 = 6;
    pub const OUTPUT_NAME: u32 = 7;
    pub const PROTOCOL: u32 = 16;
}

pub mod payload {
    pub const DESTINATION: u16 = 1;
    pub const BASE: u16 = 2;
    pub const OFFSET: u16 = 3;
    pub const LENGTH: u16 = 4;
    pub const NETWORK: u32 = 1;
    pub const TRANSPORT: u32 = 2;
}

pub mod compare {
    pub const SOURCE: u16 = 1;
    pub const OPERATION: u16 = 2;
    pub const DATA: u16 = 3;
    pub const EQUAL: u32 = 0;
    pub const NOT_EQUAL: u32 = 1;
}

pub mod bitwise {
    pub const SOURCE: u16 = 1;
    pub const DESTINATION: u16 = 2;
    pub const LENGTH: u16 = 3;
    pub const MASK: u16 = 4;
    pub const XOR: u16 = 5;
}

pub mod lookup {
    pub const SET: u16 = 1;
    pub const SOURCE: u16 = 2;
    pub const DESTINATION: u16 = 3;
}

pub mod nat {
    pub const TYPE: u16 = 1;
    pub const FAMILY: u16 = 2;
    pub const ADDRESS: u16 = 3;
    pub const PORT: u16 = 5;
    pub const DESTINATION_NAT: u32 = 1;
}

pub mod conntrack {
    pub const DESTINATION: u16 = 1;
    pub const KEY: u16 = 2;
    pub const STATE: u32 = 0;
    pub const STATUS: u32 = 2;
    pub const STATE_INVALID: u32 = 1;
    pub const STATE_ESTABLISHED: u32 = 2;
    pub const STATE_RELATED: u32 = 4;
    pub const STATUS_DESTINATION_NAT: u32 = 1 << 5;
}

pub mod fib {
    pub const DESTINATION: u16 = 1;
    pub const RESULT: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const RESULT_ADDRESS_TYPE: u32 = 3;
    pub const FLAG_SOURCE: u32 = 1;
    pub const FLAG_DESTINATION: u32 = 2;
    /// `RTN_LOCAL`.
    pub const LOCAL: u32 = 2;
}

pub mod immediate {
    pub const DESTINATION: u16 = 1;
    pub const DATA: u16 = 2;
}
