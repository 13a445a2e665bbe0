//! Keys of results: what a step's result depends on, hashed.
//!
//! Two keys a step. The *definition key* is made of the operation and of the keys of its inputs and needs no file to be read. The
//! *content key* has, instead of the keys of inputs of which only some files are used, the digest of those files; a step whose
//! files are the same as before has the same content key, whatever else changed.

use bollard_buildkit_proto::pb;
use model::digest::{Algorithm, Digest, Hasher};
use prost::Message;

use crate::graph::Vertex;

/// Hashes parts, each with its length before it.
pub struct Key(Hasher);

impl Key {
    /// A key of this kind.
    pub fn new(kind: &str) -> Key {
        let mut key = Key(Hasher::new(Algorithm::Sha256));
        key.part(kind.as_bytes());
        key
    }

    /// Adds a part.
    pub fn part(&mut self, bytes: &[u8]) -> &mut Key {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// The key.
    pub fn finish(self) -> Digest {
        self.0.finish()
    }
}

/// A step's key; `inputs` is what each of its inputs counts as.
pub(crate) fn of(vertex: &Vertex, inputs: &[Digest]) -> Digest {
    let mut key = Key::new("step");
    key.part(&identity(&vertex.op)).part(&vertex.platform_bytes);
    for (input, given) in vertex.inputs.iter().zip(inputs) {
        key.part(given.as_str().as_bytes()).part(&input.index.to_le_bytes());
    }
    key.finish()
}

/// An operation without what its result does not depend on: proxies, addresses of added hosts, where a cache mount is kept.
fn identity(op: &pb::op::Op) -> Vec<u8> {
    let mut op = op.clone();
    if let pb::op::Op::Exec(exec) = &mut op {
        if let Some(meta) = &mut exec.meta {
            meta.proxy_env = None;
            meta.extra_hosts.iter_mut().for_each(|host| host.ip.clear());
        }
        for mount in &mut exec.mounts {
            mount.cache_opt = None;
            mount.result_id.clear();
        }
    }
    pb::Op { op: Some(op), ..pb::Op::default() }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        let key = |parts: &[&str]| {
            let mut key = Key::new("k");
            parts.iter().for_each(|part| _ = key.part(part.as_bytes()));
            key.finish()
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
    }

    #[test]
    fn a_proxy_does_not_count_and_a_variable_does() {
        let exec = |env: &str, proxy: &str| {
            let proxy_env = pb::ProxyEnv { http_proxy: proxy.into(), ..pb::ProxyEnv::default() };
            let meta = pb::Meta { env: vec![env.into()], proxy_env: Some(proxy_env), ..pb::Meta::default() };
            identity(&pb::op::Op::Exec(pb::ExecOp { meta: Some(meta), ..pb::ExecOp::default() }))
        };
        assert_eq!(exec("A=1", "x"), exec("A=1", "y"));
        assert_ne!(exec("A=1", "x"), exec("A=2", "x"));
    }
}
