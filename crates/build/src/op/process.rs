//! Programs that front ends run beside the build: what one writes to its files is nobody's result and goes with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use model::Result;
use model::digest::{Algorithm, Digest};

use super::agent;
use super::exec::{self, Prepared};
use crate::cancel::Cancel;
use crate::graph::{self, Vertex};
use crate::job::{Connection, Job, Output};
use crate::record::Chain;
use crate::result::Solved;

/// A program, and what it is spoken with.
pub struct Process {
    /// What runs, and on what: inputs of its mounts are places in `files`.
    pub exec: pb::ExecOp,
    /// Files that are mounted.
    pub files: Vec<Chain>,
    /// What it reads, and what it writes to its standard output.
    pub dialogue: Box<dyn Connection>,
    /// Where its standard error goes.
    pub output: Output,
    /// Ends it.
    pub cancel: Cancel,
}

/// Runs a program to its end; its exit code.
///
/// Errors: what it cannot be given; `context canceled`.
pub async fn run(job: &Arc<Job>, process: Process) -> Result<i32> {
    let Process { mut exec, files, dialogue, output, cancel } = process;
    // Nothing becomes an output.
    exec.mounts.iter_mut().for_each(|mount| mount.output = -1);
    let meta = exec.meta.clone().unwrap_or_default();
    let digest = Digest::of(Algorithm::Sha256, &sys::random::bytes32());
    let solved = |(at, chain): (usize, Chain)| Solved {
        key: Digest::of(Algorithm::Sha256, at.to_string().as_bytes()),
        outputs: BTreeMap::from([(0, chain)]),
        cached: true,
    };
    let inputs: Vec<Arc<Solved>> = files.into_iter().enumerate().map(|file| Arc::new(solved(file))).collect();
    let vertex = Arc::new(Vertex {
        op: pb::op::Op::Exec(exec.clone()),
        inputs: vec![graph::Output { vertex: digest.clone(), index: 0 }; inputs.len()],
        digest,
        platform: None,
        name: String::new(),
        ignore_cache: true,
        platform_bytes: Vec::new(),
    });
    let mut prepared = exec::prepare(job, &vertex, &exec, &inputs).await?;
    let step = exec::step(job, &exec, &meta, &mut prepared);
    let Prepared { written, sockets, taken, .. } = prepared;
    let serving = agent::serve(job, sockets)?;
    let ended = job.runner.converse(step, output, dialogue, cancel).await;
    drop((serving, taken));
    let removed = move |_: &_| {
        drop(written);
        Ok(())
    };
    job.builder.threads.run(removed).await?;
    ended
}
