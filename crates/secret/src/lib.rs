//! Secrets and configs of this host: small documents with a name, encrypted at rest, for containers that ask for them.
//!
//! Invariants:
//! - what is stored is sealed (ChaCha20-Poly1305, RFC 8439) under a key that lies in a file of its own and never in the store; a
//!   seal is bound to the object's kind and id, so that one cannot be put in the place of another;
//! - the key is made once, when the first object is; where objects are and the key is not, nothing is made in its place;
//! - plain content is in memory only while it is used, and wiped behind it ([`Plain`]).
#![forbid(unsafe_code)]

mod key;
mod row;
mod service;

pub use row::{Kind, SEALS, SECRETS, Secret};
pub use service::{Draft, Secrets, Update};

use zeroize::Zeroizing;

/// Content that is not encrypted; wiped when it is dropped.
pub type Plain = Zeroizing<Vec<u8>>;
