//! Numbers of `linux/netfilter/nf_tables.h` and `nfnetlink.h` that the libc crate lacks.

/// Message types are `SUBSYSTEM << 8 | message`.
pub const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
/// `NFNL_MSG_BATCH_BEGIN`.
pub const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`.
pub const BATCH_END: u16 = 0x11;

/// `NFT_MSG_NEWTABLE`.
pub const NEW_TABLE: u16 = 0;
/// `NFT_MSG_GETTABLE`.
pub const GET_TABLE: u16 = 1;
/// `NFT_MSG_DELTABLE`.
pub const DELETE_TABLE: u16 = 2;
/// `NFT_MSG_NEWCHAIN`.
pub const NEW_CHAIN: u16 = 3;
/// `NFT_MSG_GETCHAIN`.
pub const GET_CHAIN: u16 = 4;
/// `NFT_MSG_DELCHAIN`.
pub const DELETE_CHAIN: u16 = 5;
/// `NFT_MSG_NEWRULE`.
pub const NEW_RULE: u16 = 6;
/// `NFT_MSG_GETRULE`.
pub const GET_RULE: u16 = 7;
/// `NFT_MSG_DELRULE`.
pub const DELETE_RULE: u16 = 8;
/// `NFT_MSG_NEWSET`.
pub const NEW_SET: u16 = 9;
/// `NFT_MSG_NEWSETELEM`.
pub const NEW_ELEMENT: u16 = 12;
/// `NFT_MSG_GETSETELEM`.
pub const GET_ELEMENT: u16 = 13;
/// `NFT_MSG_DELSETELEM`.
pub const DELETE_ELEMENT: u16 = 14;
/// `NFT_MSG_NEWGEN`.
pub const NEW_GENERATION: u16 = 15;

/// `NFTA_LIST_ELEM`.
pub const LIST_ELEMENT: u16 = 1;

/// Attributes of a table.
pub mod table {
    /// `NFTA_TABLE_NAME`.
    pub const NAME: u16 = 1;
    /// `NFTA_TABLE_FLAGS`.
    pub const FLAGS: u16 = 2;
    /// `NFTA_TABLE_USERDATA`.
    pub const USERDATA: u16 = 6;
    /// `NFTA_TABLE_OWNER`.
    pub const OWNER: u16 = 7;
}

/// Attributes of a chain and of its hook.
pub mod chain {
    /// `NFTA_CHAIN_TABLE`.
    pub const TABLE: u16 = 1;
    /// `NFTA_CHAIN_NAME`.
    pub const NAME: u16 = 3;
    /// `NFTA_CHAIN_HOOK`.
    pub const HOOK: u16 = 4;
    /// `NFTA_CHAIN_POLICY`.
    pub const POLICY: u16 = 5;
    /// `NFTA_CHAIN_TYPE`.
    pub const TYPE: u16 = 7;
    /// `NFTA_HOOK_HOOKNUM`.
    pub const HOOK_NUMBER: u16 = 1;
    /// `NFTA_HOOK_PRIORITY`.
    pub const HOOK_PRIORITY: u16 = 2;
}

/// Attributes of a rule.
pub mod rule {
    /// `NFTA_RULE_TABLE`.
    pub const TABLE: u16 = 1;
    /// `NFTA_RULE_CHAIN`.
    pub const CHAIN: u16 = 2;
    /// `NFTA_RULE_HANDLE`.
    pub const HANDLE: u16 = 3;
    /// `NFTA_RULE_EXPRESSIONS`.
    pub const EXPRESSIONS: u16 = 4;
    /// `NFTA_RULE_POSITION`.
    pub const POSITION: u16 = 6;
    /// `NFTA_RULE_USERDATA`.
    pub const USERDATA: u16 = 7;
    /// `NFTNL_UDATA_RULE_COMMENT`, the type of an entry in the user data.
    pub const COMMENT: u8 = 0;
}

/// Attributes of `match` and `target`, which the iptables program writes (`nf_tables_compat.h`).
pub mod compat {
    /// `NFTA_MATCH_NAME` and `NFTA_TARGET_NAME`.
    pub const NAME: u16 = 1;
}

/// Attributes and flags of a set.
pub mod set {
    /// `NFTA_SET_TABLE`.
    pub const TABLE: u16 = 1;
    /// `NFTA_SET_NAME`.
    pub const NAME: u16 = 2;
    /// `NFTA_SET_FLAGS`.
    pub const FLAGS: u16 = 3;
    /// `NFTA_SET_KEY_TYPE`.
    pub const KEY_TYPE: u16 = 4;
    /// `NFTA_SET_KEY_LEN` (bytes).
    pub const KEY_LENGTH: u16 = 5;
    /// `NFTA_SET_DATA_TYPE`.
    pub const DATA_TYPE: u16 = 6;
    /// `NFTA_SET_DATA_LEN` (bytes).
    pub const DATA_LENGTH: u16 = 7;
    /// `NFTA_SET_DESC`.
    pub const DESCRIPTION: u16 = 9;
    /// `NFTA_SET_ID`.
    pub const ID: u16 = 10;
    /// `NFTA_SET_USERDATA`.
    pub const USERDATA: u16 = 13;
    /// `NFT_SET_MAP`.
    pub const FLAG_MAP: u32 = 0x8;
    /// `NFT_SET_INTERVAL`.
    pub const FLAG_INTERVAL: u32 = 0x4;
    /// `NFT_SET_CONCAT`.
    pub const FLAG_CONCATENATION: u32 = 0x80;
    /// `NFTA_SET_DESC_CONCAT`.
    pub const PARTS: u16 = 2;
    /// `NFTA_SET_FIELD_LEN` (bytes).
    pub const PART_LENGTH: u16 = 1;
}

/// Attributes of elements.
pub mod element {
    /// `NFTA_SET_ELEM_LIST_TABLE`.
    pub const TABLE: u16 = 1;
    /// `NFTA_SET_ELEM_LIST_SET`.
    pub const SET: u16 = 2;
    /// `NFTA_SET_ELEM_LIST_ELEMENTS`.
    pub const ELEMENTS: u16 = 3;
    /// `NFTA_SET_ELEM_KEY`.
    pub const KEY: u16 = 1;
    /// `NFTA_SET_ELEM_DATA`.
    pub const DATA: u16 = 2;
    /// `NFTA_SET_ELEM_KEY_END`.
    pub const KEY_END: u16 = 10;
}

/// Attributes of data.
pub mod data {
    /// `NFTA_DATA_VALUE`.
    pub const VALUE: u16 = 1;
    /// `NFTA_DATA_VERDICT`.
    pub const VERDICT: u16 = 2;
    /// `NFTA_VERDICT_CODE`.
    pub const VERDICT_CODE: u16 = 1;
    /// `NFTA_VERDICT_CHAIN`.
    pub const VERDICT_CHAIN: u16 = 2;
}

/// Verdicts.
pub mod verdict {
    /// `NF_DROP`.
    pub const DROP: i32 = 0;
    /// `NF_ACCEPT`.
    pub const ACCEPT: i32 = 1;
    /// `NFT_JUMP`.
    pub const JUMP: i32 = -3;
    /// `NFT_GOTO`.
    pub const GOTO: i32 = -4;
    /// `NFT_RETURN`.
    pub const RETURN: i32 = -5;
}

/// Registers: 0 = verdict, 1–4 of 16 bytes, 8–23 the same memory in units of 4 bytes.
pub mod register {
    /// `NFT_REG_VERDICT`.
    pub const VERDICT: u32 = 0;
    /// `NFT_REG_1`.
    pub const FIRST: u32 = 1;
    /// The 4-byte register that starts `words` words after the start of `FIRST`.
    pub fn word(words: u32) -> u32 {
        if words == 0 { FIRST } else { 8 + words }
    }
}

/// Attributes of an expression.
pub mod expression {
    /// `NFTA_EXPR_NAME`.
    pub const NAME: u16 = 1;
    /// `NFTA_EXPR_DATA`.
    pub const DATA: u16 = 2;
}

/// Attributes and keys of `meta`.
pub mod meta {
    /// `NFTA_META_DREG`.
    pub const DESTINATION: u16 = 1;
    /// `NFTA_META_KEY`.
    pub const KEY: u16 = 2;
    /// `NFT_META_IIFNAME`.
    pub const INPUT_NAME: u32 = 6;
    /// `NFT_META_OIFNAME`.
    pub const OUTPUT_NAME: u32 = 7;
    /// `NFT_META_MARK`.
    pub const MARK: u32 = 3;
    /// `NFT_META_NFPROTO`.
    pub const NETWORK_PROTOCOL: u32 = 15;
    /// `NFT_META_L4PROTO`.
    pub const PROTOCOL: u32 = 16;
}

/// Attributes and bases of `payload`.
pub mod payload {
    /// `NFTA_PAYLOAD_DREG`.
    pub const DESTINATION: u16 = 1;
    /// `NFTA_PAYLOAD_BASE`.
    pub const BASE: u16 = 2;
    /// `NFTA_PAYLOAD_OFFSET` (bytes).
    pub const OFFSET: u16 = 3;
    /// `NFTA_PAYLOAD_LEN` (bytes).
    pub const LENGTH: u16 = 4;
    /// `NFT_PAYLOAD_NETWORK_HEADER`.
    pub const NETWORK: u32 = 1;
    /// `NFT_PAYLOAD_TRANSPORT_HEADER`.
    pub const TRANSPORT: u32 = 2;
}

/// Attributes and operations of `cmp`.
pub mod compare {
    /// `NFTA_CMP_SREG`.
    pub const SOURCE: u16 = 1;
    /// `NFTA_CMP_OP`.
    pub const OPERATION: u16 = 2;
    /// `NFTA_CMP_DATA`.
    pub const DATA: u16 = 3;
    /// `NFT_CMP_EQ`.
    pub const EQUAL: u32 = 0;
    /// `NFT_CMP_NEQ`.
    pub const NOT_EQUAL: u32 = 1;
}

/// Attributes of `bitwise`.
pub mod bitwise {
    /// `NFTA_BITWISE_SREG`.
    pub const SOURCE: u16 = 1;
    /// `NFTA_BITWISE_DREG`.
    pub const DESTINATION: u16 = 2;
    /// `NFTA_BITWISE_LEN` (bytes).
    pub const LENGTH: u16 = 3;
    /// `NFTA_BITWISE_MASK`.
    pub const MASK: u16 = 4;
    /// `NFTA_BITWISE_XOR`.
    pub const XOR: u16 = 5;
}

/// Attributes of `lookup`.
pub mod lookup {
    /// `NFTA_LOOKUP_SET`.
    pub const SET: u16 = 1;
    /// `NFTA_LOOKUP_SREG`.
    pub const SOURCE: u16 = 2;
    /// `NFTA_LOOKUP_DREG`.
    pub const DESTINATION: u16 = 3;
}

/// Attributes and types of `nat`.
pub mod nat {
    /// `NFTA_NAT_TYPE`.
    pub const TYPE: u16 = 1;
    /// `NFTA_NAT_FAMILY`.
    pub const FAMILY: u16 = 2;
    /// `NFTA_NAT_REG_ADDR_MIN`.
    pub const ADDRESS: u16 = 3;
    /// `NFTA_NAT_REG_PROTO_MIN`.
    pub const PORT: u16 = 5;
    /// `NFT_NAT_SNAT`.
    pub const SOURCE_NAT: u32 = 0;
    /// `NFT_NAT_DNAT`.
    pub const DESTINATION_NAT: u32 = 1;
}

/// Attributes, keys and values of `ct`.
pub mod conntrack {
    /// `NFTA_CT_DREG`.
    pub const DESTINATION: u16 = 1;
    /// `NFTA_CT_KEY`.
    pub const KEY: u16 = 2;
    /// `NFT_CT_STATE`.
    pub const STATE: u32 = 0;
    /// `NFT_CT_STATUS`.
    pub const STATUS: u32 = 2;
    /// `NF_CT_STATE_INVALID_BIT`.
    pub const STATE_INVALID: u32 = 1;
    /// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`.
    pub const STATE_ESTABLISHED: u32 = 2;
    /// `NF_CT_STATE_BIT(IP_CT_RELATED)`.
    pub const STATE_RELATED: u32 = 4;
    /// `IPS_DST_NAT`.
    pub const STATUS_DESTINATION_NAT: u32 = 1 << 5;
}

/// Attributes, results and flags of `fib`.
pub mod fib {
    /// `NFTA_FIB_DREG`.
    pub const DESTINATION: u16 = 1;
    /// `NFTA_FIB_RESULT`.
    pub const RESULT: u16 = 2;
    /// `NFTA_FIB_FLAGS`.
    pub const FLAGS: u16 = 3;
    /// `NFT_FIB_RESULT_ADDRTYPE`.
    pub const RESULT_ADDRESS_TYPE: u32 = 3;
    /// `NFTA_FIB_F_SADDR`.
    pub const FLAG_SOURCE: u32 = 1;
    /// `NFTA_FIB_F_DADDR`.
    pub const FLAG_DESTINATION: u32 = 2;
    /// `RTN_LOCAL`.
    pub const LOCAL: u32 = 2;
}

/// Attributes of `immediate`.
pub mod immediate {
    /// `NFTA_IMMEDIATE_DREG`.
    pub const DESTINATION: u16 = 1;
    /// `NFTA_IMMEDIATE_DATA`.
    pub const DATA: u16 = 2;
}
