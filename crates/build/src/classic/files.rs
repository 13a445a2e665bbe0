//! `COPY` and `ADD` of a classic build.

use std::io;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use dockerfile::instruction::Transfer;
use model::digest::Digest;
use model::{Context as _, Error, Result};
use rustix::fs::{Mode, OFlags};
use sys::rooted::Rooted;
use sys::tree;

use super::build::{Build, Failed, needs_buildkit};
use super::run::vertex;
use super::stage::Stage;
use crate::content;
use crate::key::{self, Key};
use crate::pattern;
use crate::record::keys;
use crate::result::{Solved, Unmade};
use crate::root::{Roots, Tree};

/// One thing that is copied.
struct Source {
    /// Below the root.
    path: String,
    /// `file:` or `dir:` and a digest.
    hash: String,
    /// Which input of the operation has it.
    input: usize,
}

/// Where files come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Context,
    Image,
}

impl Build {
    pub(super) async fn copy(&mut self, stage: &mut Stage, copy: &Transfer, word: &'static str) -> Result<(), Failed> {
        refuse_flags(copy)?;
        let (files, origin) = match copy.from.as_str() {
            "" => (self.context.files.clone(), Origin::Context),
            from => {
                let found = self.origin(from).await;
                (found.map_err(|error| error.prefix(format!("invalid from flag value {from}")))?, Origin::Image)
            }
        };
        let (roots, chain, wanted) = (self.job.builder.roots.clone(), files.chain(0), copy.sources.clone());
        let (urls, wanted): (Vec<String>, Vec<String>) = wanted.into_iter().partition(|text| is_url(text));
        if word == "COPY" && !urls.is_empty() {
            return Err(Error::system("source can't be a URL for COPY").into());
        }
        let needs_files = urls.is_empty();
        let find = move |_: &_| sources(&roots, &keys(&chain), &wanted, origin);
        let found = match needs_files || copy.sources.len() > urls.len() {
            true => self.job.builder.threads.run(find).await,
            false => Ok(Vec::new()),
        };
        let mut found = found.map_err(|error| error.prefix(format!("{word} failed")))?;
        let mut inputs = vec![stage.files.clone(), files];
        for url in urls {
            let (solved, name) = self.remote(&url, &copy.destination).await?;
            let hash = format!("file:{}", solved.key.hex());
            found.push(Source { path: name, hash, input: inputs.len() });
            inputs.push(solved);
        }
        if found.len() > 1 && !copy.destination.ends_with('/') {
            return Err(Error::system(format!(
                "When using {word} with more than one source file, the destination must be a directory and end with a /"
            ))
            .into());
        }
        let owner = match (copy.chown.as_str(), origin) {
            ("", Origin::Context) => Some((0, 0)),
            ("", Origin::Image) => None,
            (text, _) => Some(self.owner(stage, text).await?),
        };
        let chown = if copy.chown.is_empty() { String::new() } else { format!("--chown={} ", copy.chown) };
        let comment = format!("#(nop) {word} {chown}{} in {} ", together(&found), copy.destination);
        let created_by = [stage.shell(), vec![comment]].concat().join(" ");
        if self.adopt(stage, &created_by).await? {
            return Ok(());
        }
        let target = match copy.destination.starts_with('/') {
            true => copy.destination.clone(),
            false => format!("{}/{}", stage.config.working_dir, copy.destination),
        };
        let op = operation(&found, (&target, inputs.len()), owner, word == "ADD");
        let vertex = vertex(op, inputs.len(), &created_by, self.options.no_cache);
        let content = key::of(&vertex, &[stage.files.key.clone(), digest(&found)]);
        let solved = self.solve(&vertex, &inputs, Some(content)).await;
        let solved = solved.map_err(|unmade| Failed::from(unmade.error))?;
        self.done(stage, created_by, solved).await
    }

    /// A file of a server, and its name.
    async fn remote(&mut self, url: &str, destination: &str) -> Result<(Arc<Solved>, String), Failed> {
        let path = url.split("://").nth(1).and_then(|rest| rest.split_once('/')).map_or("", |(_, path)| path);
        let last = path.split(['?', '#']).next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let name = match last {
            "" | "." | ".." if destination.ends_with('/') => {
                return Err(Error::system(format!("cannot determine filename from url: {url}")).into());
            }
            "" | "." | ".." => "file",
            last => last,
        };
        let (vertex, about) = dockerfile::llb::http(url, [name, ""], dockerfile::llb::About::named(url));
        let mut graph = dockerfile::llb::Graph::default();
        let output = graph.add(vertex, about);
        let definition = graph.definition(Some(output), None);
        let job = self.job.clone();
        let solve = async { job.solve_definition(&definition).await.map_err(|failure| Unmade::from(failure.error)) };
        let files = self.watch(solve).await.map_err(|unmade| unmade.error.prefix("ADD failed"))?;
        let files = files.ok_or_else(|| Error::system("a source without files"))?;
        Ok((files.solved, name.to_owned()))
    }

    /// The files of a stage or an image.
    async fn origin(&mut self, from: &str) -> Result<Arc<Solved>> {
        let named = from.to_lowercase();
        if let Some(stage) = self.stages.iter().find(|stage| !stage.name.is_empty() && stage.name == named) {
            return Ok(stage.files.clone());
        }
        if let Ok(number) = from.parse::<i64>() {
            let at = usize::try_from(number).ok();
            return match at.and_then(|at| self.stages.get(at)) {
                Some(stage) => Ok(stage.files.clone()),
                None if at == Some(self.stages.len()) => Err(Error::system("refers to current build stage")),
                None => Err(Error::system("index out of bounds")),
            };
        }
        let platform = self.options.platform.clone();
        Ok(self.image(from, platform.as_ref()).await?.1)
    }

    /// Numbers of `user[:group]`, by the files of the stage.
    async fn owner(&self, stage: &Stage, text: &str) -> Result<(u32, u32)> {
        let (roots, chain, text) = (self.job.builder.roots.clone(), stage.files.chain(0), text.to_owned());
        let find = move |_: &_| {
            let tree = Tree::open(&roots, &keys(&chain))?;
            let (user, group) = text.split_once(':').unwrap_or((&text, &text));
            let found = |spec: &str| runtime::user::resolve(tree.root(), spec, &[]).ok();
            let prefix = "unable to convert uid/gid chown string to host mapping";
            let uid = number(user).or_else(|| Some(found(user)?.uid)).ok_or_else(|| {
                Error::system(format!("{prefix}: can't find uid for user {user}: no such user: {user}"))
            })?;
            let gid = number(group).or_else(|| Some(found(&format!("0:{group}"))?.gid)).ok_or_else(|| {
                Error::system(format!("{prefix}: can't find gid for group {group}: no such group: {group}"))
            })?;
            Ok((uid, gid))
        };
        self.job.builder.threads.run(find).await
    }
}

fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// What only BuildKit can do.
fn refuse_flags(copy: &Transfer) -> Result<()> {
    let given = [
        ("--chmod option", !copy.chmod.is_empty()),
        ("--link option", copy.link),
        ("--parents option", copy.parents),
        ("--exclude option", !copy.excludes.is_empty()),
        ("--checksum option", !copy.checksum.is_empty()),
        ("--keep-git-dir option", copy.keep_git_dir.is_some()),
        ("--unpack option", copy.unpack.is_some()),
        ("use of inline documents", !copy.documents.is_empty()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((name, _)) => Err(needs_buildkit(name)),
        None => Ok(()),
    }
}

/// Finds what is to be copied. Blocks.
fn sources(roots: &Roots, layers: &[snapshot::LayerKey], wanted: &[String], origin: Origin) -> Result<Vec<Source>> {
    let tree = Tree::open(roots, layers)?;
    let mut found = Vec::new();
    for text in wanted {
        if pattern::is_pattern(text) {
            let paths = content::expand(tree.root(), text).with_context(|| format!("looking for {text}"))?;
            for path in paths {
                found.push(source(tree.root(), &path, origin)?);
            }
        } else {
            found.push(source(tree.root(), text, origin)?);
        }
    }
    if found.is_empty() {
        return Err(Error::system("no source files were specified"));
    }
    Ok(found)
}

/// Whether a path climbs out of where it begins. An absolute one begins at the root, above which there is nothing.
fn climbs(path: &str) -> bool {
    let mut depth = 0_i64;
    let step = |part: &str| match part {
        "" | "." => 0,
        ".." => -1,
        _ => 1,
    };
    !path.starts_with('/')
        && path.split('/').any(|part| {
            depth += step(part);
            depth < 0
        })
}

fn source(root: &Rooted, text: &str, origin: Origin) -> Result<Source> {
    if origin == Origin::Context && climbs(text) {
        return Err(Error::system(format!("forbidden path outside the build context: {text} ()")));
    }
    let path = pattern::components(text).join("/");
    let node =
        root.open(format!("/{path}"), OFlags::PATH, Mode::empty()).map_err(|error| match (error.kind(), origin) {
            (io::ErrorKind::NotFound, Origin::Context) => Error::system(format!(
                "file not found in build context or excluded by .dockerignore: stat {path}: file does not exist"
            )),
            (io::ErrorKind::NotFound, Origin::Image) => Error::system(format!("stat {path}: file does not exist")),
            _ => Error::from(error).prefix(format!("stat {path}")),
        })?;
    let stat = rustix::fs::fstat(&node).map_err(io::Error::from)?;
    let hash = content::digest(&node, &|_| true).with_context(|| format!("reading {path}"))?;
    let kind = if tree::file_type(&stat).is_dir() { "dir" } else { "file" };
    Ok(Source { path, hash: format!("{kind}:{}", hash.hex()), input: 1 })
}

/// What the history says of what is copied.
fn together(sources: &[Source]) -> String {
    match sources {
        [one] => one.hash.clone(),
        _ => format!("multi:{}", digest(sources).hex()),
    }
}

fn digest(sources: &[Source]) -> Digest {
    let mut key = Key::new("sources");
    sources.iter().for_each(|source| _ = key.part(source.hash.as_bytes()));
    key.finish()
}

fn operation(
    sources: &[Source],
    (target, inputs): (&str, usize),
    owner: Option<(u32, u32)>,
    unpack: bool,
) -> pb::op::Op {
    let id = |id: u32| Some(pb::UserOpt { user: Some(pb::user_opt::User::ById(id)) });
    let owner = owner.map(|(user, group)| pb::ChownOpt { user: id(user), group: id(group) });
    let action = |(at, source): (usize, &Source)| {
        let copy = pb::FileActionCopy {
            src: format!("/{}", source.path),
            dest: target.to_owned(),
            owner: owner.clone(),
            mode: -1,
            follow_symlink: true,
            dir_copy_contents: true,
            attempt_unpack_docker_compatibility: unpack && source.input == 1,
            create_dest_path: true,
            timestamp: -1,
            ..pb::FileActionCopy::default()
        };
        pb::FileAction {
            // What the one before it has left.
            input: if at == 0 { 0 } else { (inputs + at - 1) as i64 },
            secondary_input: source.input as i64,
            output: if at + 1 == sources.len() { 0 } else { -1 },
            action: Some(pb::file_action::Action::Copy(copy)),
        }
    };
    pb::op::Op::File(pb::FileOp { actions: sources.iter().enumerate().map(action).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_climbs_out_when_it_ever_is_above_its_beginning() {
        for (path, out) in [
            ("../a", true),
            ("a/../../b", true),
            ("./..", true),
            ("a/..", false),
            ("a/../b", false),
            ("/../a", false),
            ("..a/b..", false),
        ] {
            assert_eq!(climbs(path), out, "{path}");
        }
    }
}
