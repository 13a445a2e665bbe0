//! nf_tables without the `nft` program: tables as data, written in one transaction.
//!
//! - `Table` and what is in it are plain data with the text form of `nft list table`; they compare and print.
//! - `Transaction` collects changes and commits them: all or nothing, errors name the failing change.
//! - `foreign` looks at chains of others, into which a jump is put.
//! - `state` reads back what stands, as far as needed to compare, and tells what a notice is about.
//!
//! Only the statements that Gantry's rules use exist here. A rule is written with `Statement`s and encoded into the
//! kernel's register machine by `encode`.

mod encode;
pub mod foreign;
mod model;
mod state;
mod text;
mod transaction;
mod uapi;

pub use model::{
    Chain, Comparison, ConntrackState, Direction, Element, Family, Field, Hook, HookPoint, Policy, Prefix, Protocol,
    Rule, Set, Statement, Table,
};
pub use state::{State, elements, is_about, read};
pub use transaction::{At, InChain, Transaction, comment_data};

use rustix::io::Errno;

use crate::netlink::Error;

/// Whether an error means that this kernel has no nf_tables (module missing, or not allowed to load).
pub fn is_unsupported(error: &Error) -> bool {
    matches!(error.errno, Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT)
}
