//! Which images must be signed, and whether they are: cosign's signatures by public keys, verified offline.
//!
//! Invariants:
//! - pure: no file, no network, no clock; keys and signatures come in as bytes, a verdict goes out;
//! - a signature counts for one digest in one repository; what it says is read only after its bytes were verified;
//! - nothing is trusted because it was trusted before: signatures are kept, not verdicts, and each use verifies again;
//! - certificates, transparency logs and timestamps are not looked at.
#![forbid(unsafe_code)]

mod key;
mod payload;
mod policy;

pub use key::PublicKey;
pub use payload::{PAYLOAD_BYTES, SIGNATURE_BYTES, Signature};
pub use policy::{Policy, Rule};
