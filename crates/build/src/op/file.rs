//! Operations on files: copy, make, remove, link. Each action works on the root that one before it has left, or on that of
//! an input.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use bollard_buildkit_proto::pb::file_action::Action;
use dockerfile::ignore::Matcher;
use model::digest::Digest;
use model::{Context as _, Error, Result};
use runtime::view::View;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use snapshot::Extraction;
use store::Lease;
use sys::rooted::Rooted;
use sys::tree;

use super::input::{input, not_calculated};
use crate::cancel::Cancel;
use crate::content;
use crate::copy::{self, How, Target};
use crate::graph::Vertex;
use crate::key::Key;
use crate::mode::ModeChange;
use crate::pattern;
use crate::record::{Chain, Layer, keys};
use crate::result::{Made, Solved};
use crate::root::{Roots, Tree, Work};

/// Bytes of a file that an operation brings with it.
const DATA: usize = 16 << 20;

/// What actions use.
pub(crate) struct Context<'c> {
    pub roots: &'c Roots,
    pub lease: &'c Lease,
    pub cancel: &'c Cancel,
}

/// What the inputs count as of which actions use some files only, by their index.
pub(crate) fn contents(
    roots: &Roots,
    vertex: &Vertex,
    file: &pb::FileOp,
    inputs: &[Arc<Solved>],
) -> Result<HashMap<usize, Digest>> {
    let mut sources: BTreeMap<usize, Vec<&pb::FileActionCopy>> = BTreeMap::new();
    for action in &file.actions {
        let at = usize::try_from(action.secondary_input).ok().filter(|at| *at < inputs.len());
        if let (Some(Action::Copy(copy)), Some(at)) = (&action.action, at) {
            sources.entry(at).or_default().push(copy);
        }
    }
    // What a target is, is used as a whole.
    sources.retain(|at, _| file.actions.iter().all(|action| usize::try_from(action.input).ok() != Some(*at)));
    let mut found = HashMap::new();
    for (at, copies) in sources {
        let chain = input(vertex, inputs, at as i64)?;
        let tree = Tree::open(roots, &keys(&chain))?;
        let mut key = Key::new("files");
        for copy in copies {
            let how = how(copy, None)?;
            let files = selected(tree.root(), copy)?;
            if let Some(path) = missing(tree.root(), copy, &files) {
                return Err(not_calculated(&inputs[at].key, &path));
            }
            for (name, node) in files {
                if copy.allow_wildcard && pattern::is_pattern(&copy.src) {
                    key.part(name.as_bytes());
                }
                let digest = content::digest(&node, &|path| how.takes(path)).context("reading what is to be copied")?;
                key.part(digest.as_str().as_bytes());
            }
        }
        found.insert(at, key.finish());
    }
    Ok(found)
}

/// The path of something that a copy demands and that is not there.
fn missing(root: &Rooted, copy: &pb::FileActionCopy, found: &[(String, OwnedFd)]) -> Option<String> {
    let may_be_none = copy.allow_wildcard && copy.allow_empty_wildcard && pattern::is_pattern(&copy.src);
    if found.is_empty() && !may_be_none {
        return Some(absolute(&copy.src));
    }
    let is_here = |path: &str| root.open(path, OFlags::PATH, Mode::empty()).is_ok();
    copy.required_paths.iter().map(|path| absolute(path)).find(|path| !is_here(path))
}

/// The files that a copy names, with their paths; none when there are none.
fn selected(root: &Rooted, copy: &pb::FileActionCopy) -> Result<Vec<(String, OwnedFd)>> {
    let context = || format!("looking for {}", copy.src);
    let paths = if copy.allow_wildcard && pattern::is_pattern(&copy.src) {
        content::expand(root, &copy.src).with_context(context)?
    } else {
        vec![pattern::components(&copy.src).join("/")]
    };
    let mut found = Vec::new();
    for path in paths {
        let flags = if copy.follow_symlink { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        match root.open(format!("/{path}"), flags, Mode::empty()) {
            Ok(node) => found.push((path, node)),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err(e).with_context(context),
        }
    }
    Ok(found)
}

/// A root that actions work on.
enum State {
    /// It may still be changed.
    Open(Work, Chain),
    /// It is a layer.
    Done(Chain),
    /// A later action goes on with it.
    Taken,
}

/// Does all actions. Blocks.
pub(crate) fn run(context: &Context<'_>, vertex: &Vertex, file: &pb::FileOp, inputs: &[Arc<Solved>]) -> Result<Made> {
    let mut actions = Actions { context, vertex, inputs, states: Vec::new(), size: 0 };
    let mut outputs = BTreeMap::new();
    for action in &file.actions {
        context.cancel.check()?;
        let state = actions.begin(action.input)?;
        let State::Open(work, below) = state else { return Err(Error::system("a root is not open")) };
        let view = work.open()?;
        actions.act(action, view)?;
        actions.states.push(State::Open(work, below));
        if action.output >= 0 {
            let at = actions.states.len() - 1;
            outputs.insert(action.output, actions.commit(at)?);
        }
    }
    Ok(Made { outputs, size: actions.size })
}

struct Actions<'c> {
    context: &'c Context<'c>,
    vertex: &'c Vertex,
    inputs: &'c [Arc<Solved>],
    /// By action.
    states: Vec<State>,
    /// Bytes of new layers.
    size: u64,
}

impl Actions<'_> {
    /// The action whose result an index stands for; `None`: an input.
    fn action(&self, index: i64) -> Option<usize> {
        usize::try_from(index).ok()?.checked_sub(self.inputs.len())
    }

    /// The root that an action begins with.
    fn begin(&mut self, index: i64) -> Result<State> {
        let chain = match self.action(index) {
            None => input(self.vertex, self.inputs, index)?,
            Some(at) => match self.states.get_mut(at).map(|state| std::mem::replace(state, State::Taken)) {
                Some(State::Open(work, below)) => return Ok(State::Open(work, below)),
                Some(State::Done(chain)) => {
                    self.states[at] = State::Done(chain.clone());
                    chain
                }
                _ => return Err(Error::not_implemented("two actions that go on with one result are not supported")),
            },
        };
        Ok(State::Open(Work::prepare(self.context.roots, &keys(&chain))?, chain))
    }

    /// The layers of what an action has made.
    fn commit(&mut self, at: usize) -> Result<Chain> {
        match std::mem::replace(&mut self.states[at], State::Taken) {
            State::Open(work, below) => {
                let (key, size) = work.commit(self.context.lease)?;
                self.size += size;
                let layer = Layer { key, blob: None };
                let chain: Chain = Arc::new(below.iter().cloned().chain([layer]).collect());
                self.states[at] = State::Done(chain.clone());
                Ok(chain)
            }
            State::Done(chain) => {
                self.states[at] = State::Done(chain.clone());
                Ok(chain)
            }
            State::Taken => Err(Error::not_implemented("two actions that go on with one result are not supported")),
        }
    }

    fn source(&mut self, index: i64) -> Result<Tree> {
        let chain = match self.action(index) {
            None => input(self.vertex, self.inputs, index)?,
            Some(at) if at < self.states.len() => self.commit(at)?,
            Some(_) => return Err(Error::invalid(format!("operation {} has no input {index}", self.vertex.digest))),
        };
        Tree::open(self.context.roots, &keys(&chain))
    }

    /// Does one action on a root, which is not mounted any more afterwards.
    fn act(&mut self, action: &pb::FileAction, view: View) -> Result<()> {
        let root = view.root();
        match &action.action {
            Some(Action::Copy(copy)) => {
                let source = self.source(action.secondary_input)?;
                let how = how(copy, self.owner(copy.owner.as_ref(), root)?)?;
                copy_files(source.root(), root, copy, &how)
            }
            Some(Action::Mkdir(dir)) => make_directory(root, dir, self.owner(dir.owner.as_ref(), root)?),
            Some(Action::Mkfile(file)) => make_file(root, file, self.owner(file.owner.as_ref(), root)?),
            Some(Action::Rm(rm)) => remove(root, rm),
            Some(Action::Symlink(link)) => make_link(root, link, self.owner(link.owner.as_ref(), root)?),
            None => Err(Error::invalid("an action that does nothing")),
        }
    }

    /// Owner and group that are asked for. Names are looked up in the root that the action names, those that nobody has
    /// are 0.
    fn owner(&mut self, owner: Option<&pb::ChownOpt>, target: &Rooted) -> Result<Option<(u32, u32)>> {
        let Some(owner) = owner else { return Ok(None) };
        let mut found = (0, 0);
        for (part, is_group) in [(&owner.user, false), (&owner.group, true)] {
            let Some(user) = part.as_ref().and_then(|part| part.user.as_ref()) else { continue };
            match (user, is_group) {
                (pb::user_opt::User::ById(id), false) => found = (*id, *id),
                (pb::user_opt::User::ById(id), true) => found.1 = *id,
                (pb::user_opt::User::ByName(named), _) => {
                    let other = match self.action(named.input) {
                        None if named.input >= 0 => Some(self.source(named.input)?),
                        _ => None,
                    };
                    let root = other.as_ref().map_or(target, Tree::root);
                    let spec = if is_group { format!("0:{}", named.name) } else { named.name.clone() };
                    let ids = runtime::user::resolve(root, &spec, &[]).unwrap_or_default();
                    if is_group { found.1 = ids.gid } else { found = (ids.uid, ids.gid) }
                }
            }
        }
        Ok(Some(found))
    }
}

fn how(copy: &pb::FileActionCopy, owner: Option<(u32, u32)>) -> Result<How> {
    let mode = match (copy.mode_str.as_str(), copy.mode) {
        ("", mode) if mode < 0 => None,
        ("", mode) => Some(ModeChange::To(mode.unsigned_abs() & 0o7777)),
        (text, _) => Some(ModeChange::parse(text)?),
    };
    Ok(How {
        owner,
        mode,
        contents: copy.dir_copy_contents,
        time: Some(copy.timestamp).filter(|time| *time >= 0),
        include: matcher(&copy.include_patterns)?,
        exclude: matcher(&copy.exclude_patterns)?,
        replace: copy.always_replace_existing_dest_paths,
    })
}

/// Patterns of a copy; `None`: there are none.
pub(crate) fn matcher(patterns: &[String]) -> Result<Option<Matcher>> {
    if patterns.is_empty() {
        return Ok(None);
    }
    Matcher::new(patterns).map(Some).map_err(|error| Error::invalid(error.message()))
}

/// The path of a target, absolute; a slash at its end stays.
fn absolute(path: &str) -> String {
    let clean = format!("/{}", pattern::components(path).join("/"));
    let is_dir = path.ends_with('/') || path.ends_with("/.") || path == ".";
    if is_dir && clean != "/" { clean + "/" } else { clean }
}

fn copy_files(source: &Rooted, target: &Rooted, copy: &pb::FileActionCopy, how: &How) -> Result<()> {
    let found = selected(source, copy)?;
    if let Some(path) = missing(source, copy, &found) {
        return Err(Error::not_found(format!("{path:?}: not found")));
    }
    if found.is_empty() {
        return Ok(());
    }
    let path = absolute(&copy.dest);
    if !copy.create_dest_path {
        let (parent, _) = copy::split(&path);
        target.stat(parent).with_context(|| format!("lstat {parent}"))?;
    }
    for (name, node) in found {
        let place = Target { root: target, path: &path };
        if copy.attempt_unpack_docker_compatibility && unpack(&node, &place, how)? {
            continue;
        }
        let name = name.rsplit('/').next().unwrap_or_default().to_owned();
        copy::copy(&node, &name, &place, how)?;
    }
    Ok(())
}

/// Unpacks a file that is an archive, compressed or not, into the target; `false`: it is none.
fn unpack(node: &OwnedFd, target: &Target<'_>, how: &How) -> Result<bool> {
    let stat = rustix::fs::fstat(node).context("reading what is to be copied")?;
    if !tree::file_type(&stat).is_file() || !is_archive(content::open_file(node)?) {
        return Ok(false);
    }
    copy::make_directories(target.root, target.path, how)?;
    let how = Extraction { owner: how.owner, ..Extraction::default() };
    let archive = snapshot::decompress(snapshot::to_layer(content::open_file(node)?)?)?;
    snapshot::extract(target.root, std::path::Path::new(target.path), archive, how).context("unpacking an archive")?;
    Ok(true)
}

/// Whether a file is an archive, compressed or not.
pub(crate) fn is_archive(file: File) -> bool {
    let Ok(plain) = snapshot::to_layer(file).and_then(snapshot::decompress) else { return false };
    matches!(snapshot::archive::Archive::new(plain).next_entry(), Ok(Some(_)))
}

/// Gives something new its owner, mode and time.
fn dress(node: &OwnedFd, owner: Option<(u32, u32)>, mode: Option<u32>, time: i64) -> io::Result<()> {
    let (uid, gid) = owner.unwrap_or_default();
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chownat(node, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    if let Some(mode) = mode {
        rustix::fs::chmod(copy::place(node), Mode::from_raw_mode(mode))?;
    }
    if time >= 0 {
        copy::touch(node, copy::at(time))?;
    }
    Ok(())
}

fn make_directory(root: &Rooted, dir: &pb::FileActionMkDir, owner: Option<(u32, u32)>) -> Result<()> {
    let path = absolute(&dir.path);
    let mode = dir.mode.unsigned_abs() & 0o7777;
    let make = || -> io::Result<()> {
        let parts = pattern::components(&path);
        let first = if dir.make_parents { 1 } else { parts.len() };
        for count in first..=parts.len() {
            let here = format!("/{}", parts[..count].join("/"));
            if count == 0 || root.stat(&here).is_ok() {
                continue;
            }
            let made = match dir.make_parents {
                // A link that leads nowhere is followed.
                true => root.make_dir_all(&here, Mode::from_raw_mode(mode))?,
                false => make_one(root, &here, mode)?,
            };
            dress(&made, owner, Some(mode), dir.timestamp)?;
        }
        Ok(())
    };
    make().with_context(|| format!("mkdir {path}"))
}

fn make_one(root: &Rooted, path: &str, mode: u32) -> io::Result<OwnedFd> {
    let (parent, name) = copy::split(path);
    let parent = root.open(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    root.open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
}

fn make_file(root: &Rooted, file: &pb::FileActionMkFile, owner: Option<(u32, u32)>) -> Result<()> {
    if file.data.len() > DATA {
        return Err(Error::invalid(format!("a file of more than {DATA} bytes in an operation")));
    }
    let path = absolute(&file.path);
    let write = || -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut made = File::from(root.open(path.trim_end_matches('/'), flags, Mode::from_raw_mode(0o600))?);
        made.write_all(&file.data)?;
        dress(&made.into(), owner, Some(file.mode.unsigned_abs() & 0o7777), file.timestamp)
    };
    write().with_context(|| format!("writing {path}"))
}

fn make_link(root: &Rooted, link: &pb::FileActionSymlink, owner: Option<(u32, u32)>) -> Result<()> {
    let path = absolute(&link.newpath);
    let (parent, name) = copy::split(&path);
    let make = || -> io::Result<()> {
        let parent = root.open(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        rustix::fs::symlinkat(link.oldpath.as_str(), &parent, name)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
        dress(&made, owner, None, -1)
    };
    make().with_context(|| format!("symlink {path}"))
}

fn remove(root: &Rooted, rm: &pb::FileActionRm) -> Result<()> {
    let paths = if rm.allow_wildcard && pattern::is_pattern(&rm.path) {
        content::expand(root, &rm.path).with_context(|| format!("looking for {}", rm.path))?
    } else {
        vec![pattern::components(&rm.path).join("/")]
    };
    for path in paths {
        let place = format!("/{path}");
        let (parent, name) = copy::split(&place);
        let remove = || -> io::Result<()> {
            if name.is_empty() {
                return Err(Errno::BUSY.into());
            }
            let parent = root.open(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
            let name = std::ffi::CString::new(name)?;
            match tree::stat(&parent, &name)? {
                Some(_) => tree::remove(&parent, &name),
                None => Err(Errno::NOENT.into()),
            }
        };
        match remove() {
            Err(e) if rm.allow_not_found && e.kind() == io::ErrorKind::NotFound => {}
            other => other.with_context(|| format!("remove {place}"))?,
        }
    }
    Ok(())
}
