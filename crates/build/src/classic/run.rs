//! `RUN` and `WORKDIR` of a classic build.

use std::sync::Arc;

use bollard_buildkit_proto::pb;
use dockerfile::instruction::{Network, Run, Security};
use model::digest::Digest;
use model::{Error, Result};
use rustix::fs::FileType;

use super::build::{Build, Failed, needs_buildkit};
use super::metadata::command_line;
use super::stage::Stage;
use crate::graph::{Output, Vertex};
use crate::key::{self, Key};
use crate::record::keys;
use crate::result::{Solved, Unmade};

impl Build {
    pub(super) async fn run(&mut self, stage: &mut Stage, run: &Run) -> Result<(), Failed> {
        refuse_flags(run)?;
        let args = command_line(stage, &run.command)?;
        let free = self.free_arguments(stage);
        let mut told: Vec<String> = free
            .iter()
            .filter(|(name, _)| self.arguments.is_told(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        told.sort();
        let mut words = args.clone();
        if !free.is_empty() {
            let count = format!("|{}", told.len());
            words = [vec![count], told, args.clone()].concat();
        }
        let created_by = words.join(" ");
        if self.adopt(stage, &created_by).await? {
            return Ok(());
        }
        let exec = self.exec(stage, &args, &free).await?;
        // A proxy that no line names is no part of what the step is known by.
        let mut known = exec.clone();
        let untold = free.iter().filter(|(name, _)| !self.arguments.is_told(name));
        let untold: Vec<String> = untold.map(|(name, value)| format!("{name}={value}")).collect();
        known.meta.iter_mut().for_each(|meta| meta.env.retain(|line| !untold.contains(line)));
        let known = vertex(pb::op::Op::Exec(known), 1, &created_by, false);
        let content = key::of(&known, std::slice::from_ref(&stage.files.key));
        let vertex = vertex(pb::op::Op::Exec(exec), 1, &created_by, self.options.no_cache);
        let solved = self.solve(&vertex, std::slice::from_ref(&stage.files), Some(content)).await;
        let solved = solved.map_err(|Unmade { error, exit_code }| match exit_code {
            Some(code) => {
                let text = format!("The command '{}' returned a non-zero code: {code}", args.join(" "));
                Failed { error: Error::system(text), code }
            }
            None => error.into(),
        })?;
        self.done(stage, created_by, solved).await
    }

    /// What is run, on the stage's files. Volumes of the image are empty places to which what is written is lost.
    async fn exec(&self, stage: &Stage, args: &[String], free: &[(String, String)]) -> Result<pb::ExecOp> {
        let config = &stage.config;
        let arguments = free.iter().map(|(name, value)| format!("{name}={value}"));
        let host = |(host, ip): &(String, String)| pb::HostIp { host: host.clone(), ip: ip.clone() };
        let meta = pb::Meta {
            args: args.to_vec(),
            env: config.env.iter().cloned().chain(arguments).collect(),
            cwd: if config.working_dir.is_empty() { "/".into() } else { config.working_dir.clone() },
            user: config.user.clone(),
            extra_hosts: self.options.extra_hosts.iter().map(host).collect(),
            ..pb::Meta::default()
        };
        let mut mounts = vec![pb::Mount { input: 0, dest: "/".into(), output: 0, ..pb::Mount::default() }];
        for path in config.volumes.keys() {
            let is_there = self.file_type(stage, path).await? == Some(FileType::Directory);
            mounts.push(pb::Mount {
                input: if is_there { 0 } else { -1 },
                selector: if is_there { path.clone() } else { String::new() },
                dest: path.clone(),
                output: -1,
                ..pb::Mount::default()
            });
        }
        Ok(pb::ExecOp { meta: Some(meta), mounts, ..pb::ExecOp::default() })
    }

    /// What a path of the stage's files is.
    async fn file_type(&self, stage: &Stage, path: &str) -> Result<Option<FileType>> {
        let (chain, path) = (stage.files.chain(0), path.to_owned());
        let layers = self.job.builder.roots.snapshots.layers.clone();
        self.job.builder.threads.run(move |_| layers.file_type(&keys(&chain), &path)).await
    }

    pub(super) async fn workdir(&mut self, stage: &mut Stage, path: &str) -> Result<(), Failed> {
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => model::mount::clean(&format!("/{}/{path}", stage.config.working_dir)),
        };
        stage.config.working_dir.clone_from(&path);
        let created_by = [stage.shell(), vec![format!("#(nop) WORKDIR {path}")]].concat().join(" ");
        if self.adopt(stage, &created_by).await? {
            return Ok(());
        }
        let make =
            pb::FileActionMkDir { path: path.clone(), mode: 0o755, make_parents: true, owner: None, timestamp: -1 };
        let action = pb::FileAction {
            input: 0,
            secondary_input: -1,
            output: 0,
            action: Some(pb::file_action::Action::Mkdir(make)),
        };
        let op = pb::op::Op::File(pb::FileOp { actions: vec![action] });
        let vertex = vertex(op, 1, &created_by, self.options.no_cache);
        let solved = self.solve(&vertex, std::slice::from_ref(&stage.files), None).await;
        let solved = solved.map_err(|unmade| Failed::from(unmade.error))?;
        if !solved.cached {
            self.tell_running().await?;
        }
        self.done(stage, created_by, solved).await
    }

    /// A step that runs nothing is told of as one that does.
    async fn tell_running(&mut self) -> Result<()> {
        let id = model::id::ContainerId::from_bytes(sys::random::bytes32());
        self.running = Some(id.short().to_owned());
        self.say(format!(" ---> Running in {}\n", id.short())).await
    }

    /// The result of a step; `content`: what its inputs count as is known.
    pub(super) async fn solve(
        &mut self,
        vertex: &Arc<Vertex>,
        inputs: &[Arc<Solved>],
        content: Option<Digest>,
    ) -> Result<Solved, Unmade> {
        let job = self.job.clone();
        self.watch(job.result(vertex, inputs, content)).await
    }

    /// Ends an instruction that has changed files.
    pub(super) async fn done(&mut self, stage: &mut Stage, created_by: String, solved: Solved) -> Result<(), Failed> {
        if solved.cached {
            self.say(" ---> Using cache\n".into()).await?;
        }
        self.tell_removed().await?;
        let created = self.created(&solved.key);
        stage.key = self.next_key(stage, &created_by, Some(&solved.key))?;
        stage.files = Arc::new(solved);
        stage.note(created_by, created, false);
        Ok(())
    }
}

/// The classic builder knows none of them.
fn refuse_flags(run: &Run) -> Result<()> {
    let given = [
        ("mount", !run.mounts.is_empty()),
        ("network", run.network != Network::Default),
        ("security", run.security != Security::Sandbox),
        ("device", !run.devices.is_empty()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((name, _)) => Err(needs_buildkit(&format!("--{name} option"))),
        None => Ok(()),
    }
}

/// A vertex that is no part of a graph.
pub(super) fn vertex(op: pb::op::Op, inputs: usize, name: &str, ignore_cache: bool) -> Arc<Vertex> {
    let digest = Key::new("classic step").finish();
    Arc::new(Vertex {
        inputs: vec![Output { vertex: digest.clone(), index: 0 }; inputs],
        digest,
        op,
        platform: None,
        name: name.to_owned(),
        ignore_cache,
        platform_bytes: Vec::new(),
    })
}
