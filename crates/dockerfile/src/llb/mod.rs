//! The low-level build graph (LLB): vertices that are named by the digest of their protobuf form.

use bollard_buildkit_proto::pb;
use model::digest::{Algorithm, Digest};
use prost::Message as _;

/// The name of a vertex: the digest of its encoded operation.
pub fn name(op: &pb::Op) -> Digest {
    Digest::of(Algorithm::Sha256, &op.encode_to_vec())
}
