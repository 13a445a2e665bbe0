//! Commits of git repositories, fetched by the host's `git` in a sandbox ([`super::sandbox`]).
//!
//! First the server is asked which commit is meant; one that was checked out before, with the same wishes, is taken from the
//! cache. Otherwise the commit alone is fetched, checked out by a `git` without hooks, system configuration and other
//! protocols than `https`, `ssh` and `git`, and copied into a layer as root's.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use dockerfile::ignore::Matcher;
use events::now;
use model::digest::Digest;
use model::{Context as _, Error, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use sys::rooted::Rooted;

use super::image::attribute;
use super::sandbox::{self, Done, NOBODY, PLACE};
use crate::copy::{self, How, Target};
use crate::job::{Attributes, Job};
use crate::key::Key;
use crate::record::{Kind, Layer, Record};
use crate::result::Solved;
use crate::root::Work;

/// Protocols that `git` may speak.
const PROTOCOLS: &str = "https:ssh:git";
/// Bytes of a checkout.
const SIZE: u64 = 16 << 30;
/// Digits of the name of a commit: SHA-1 and SHA-256.
const COMMIT: [usize; 2] = [40, 64];
/// Within the sandbox: the checkout, the socket of an agent, known hosts.
const TREE: &str = "tree";
const AGENT: &str = "agent.sock";
const HOSTS: &str = "known_hosts";
/// What is fetched, by this name.
const FETCHED: &str = "refs/gantry/fetched";

/// Configuration of `git`.
const CONFIG: [(&str, &str); 11] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.askPass", ""),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("init.defaultBranch", "main"),
    ("advice.detachedHead", "false"),
    ("protocol.version", "2"),
    ("safe.directory", "*"),
    ("submodule.fetchJobs", "1"),
];

/// Variables of `git`.
const ENVIRONMENT: [(&str, &str); 9] = [
    ("HOME", PLACE),
    ("LC_ALL", "C"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ALLOW_PROTOCOL", PROTOCOLS),
    ("GIT_PROTOCOL_FROM_USER", "0"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_CEILING_DIRECTORIES", "/"),
];

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// What is wanted.
struct Wanted {
    remote: String,
    /// Branch, tag or commit; empty: the default branch.
    reference: String,
    /// A directory; empty: all.
    directory: String,
    /// The beginning of the commit's name; empty: any.
    checksum: String,
    keeps_git: bool,
    skips_submodules: bool,
    /// Files get the time of the commit.
    commit_time: bool,
    by_commit: bool,
}

impl Wanted {
    fn read(place: &str, attributes: &Attributes) -> Result<Wanted> {
        let (repository, fragment) = place.split_once('#').unwrap_or((place, ""));
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let text = |key: &str| attribute(attributes, key);
        let remote = match text("git.fullurl") {
            "" => format!("https://{repository}"),
            full => full.to_owned(),
        };
        let scheme = match remote.split_once("://") {
            Some((scheme, _)) => scheme.to_lowercase(),
            // `user@host:path`
            None if !remote.contains("::") => "ssh".to_owned(),
            None => remote.split("::").next().unwrap_or_default().to_owned(),
        };
        if !PROTOCOLS.split(':').any(|known| known == scheme) {
            return Err(Error::invalid(format!("repositories are not fetched by {scheme}: {}", shown(&remote))));
        }
        let odd = |text: &str| text.starts_with('-') || text.chars().any(|c| c.is_control() || c.is_whitespace());
        if remote.contains(['\0', '\n']) || remote.starts_with('-') || odd(reference) {
            return Err(Error::invalid(format!("invalid git reference {:?} of {}", reference, shown(&remote))));
        }
        let flag = |key: &str| text(key) == "true";
        Ok(Wanted {
            remote,
            reference: reference.to_owned(),
            directory: model::mount::clean(&format!("/{directory}")).trim_start_matches('/').to_owned(),
            checksum: text("git.checksum").to_owned(),
            keeps_git: flag("git.keepgitdir"),
            skips_submodules: flag("git.skipsubmodules"),
            commit_time: text("git.mtime") == "commit",
            by_commit: flag("git.fetchbycommit"),
        })
    }

    fn key(&self, commit: &str) -> Digest {
        let mut key = Key::new("git");
        key.part(commit.as_bytes()).part(self.directory.as_bytes());
        key.part(&[u8::from(self.keeps_git), u8::from(self.skips_submodules), u8::from(self.commit_time)]);
        if self.keeps_git || !self.skips_submodules {
            // Submodules may be named relative to it, and `.git` names it.
            key.part(self.remote.as_bytes());
        }
        key.finish()
    }
}

/// An address without a password.
fn shown(remote: &str) -> String {
    let Some((scheme, rest)) = remote.split_once("://") else { return remote.to_owned() };
    match rest.split_once('@').filter(|(user, _)| user.contains(':') && !user.contains('/')) {
        Some((_, rest)) => format!("{scheme}://xxxxx@{rest}"),
        None => remote.to_owned(),
    }
}

fn is_commit(text: &str) -> bool {
    COMMIT.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A directory that is removed when it is dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "what was fetched of a repository stays until the next start");
        }
    }
}

/// A repository that is being fetched.
struct Fetch<'f> {
    job: &'f Arc<Job>,
    program: PathBuf,
    dir: &'f Path,
    env: Vec<(String, String)>,
    /// As the definition has it.
    identifier: String,
}

/// The files of a commit.
pub(super) async fn solve(job: &Arc<Job>, place: &str, attributes: &Attributes) -> Result<Solved> {
    let wanted = Wanted::read(place, attributes)?;
    let base = job.builder.dir.clone();
    let made = move |_: &_| {
        let program = sandbox::find("git")?;
        let dir = base.join("git").join(model::id::ContainerId::from_bytes(sys::random::bytes32()).as_str());
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        std::os::unix::fs::chown(&dir, Some(NOBODY), Some(NOBODY))?;
        Ok((program, Scratch(dir)))
    };
    let (program, scratch) = job.builder.threads.run(made).await?;
    let (env, serving) = environment(job, &wanted, attributes, &scratch.0).await?;
    let fetch = Fetch { job, program, dir: &scratch.0, env, identifier: format!("git://{place}") };
    let solved = fetch.solve(&wanted).await;
    drop(serving);
    let removed = move |_: &_| {
        drop(scratch);
        Ok(())
    };
    job.builder.threads.run(removed).await?;
    solved
}

/// Variables of `git`, and what serves its agent.
async fn environment(
    job: &Arc<Job>,
    wanted: &Wanted,
    attributes: &Attributes,
    dir: &Path,
) -> Result<(Vec<(String, String)>, Option<tokio::task::JoinSet<()>>)> {
    let mut config = owned(&CONFIG);
    if let Some(header) = header(job, wanted, attributes).await? {
        let origin: String = wanted.remote.split('/').take(3).collect::<Vec<_>>().join("/");
        config.push((format!("http.{origin}/.extraheader"), header));
    }
    let mut env = owned(&ENVIRONMENT);
    let mut ssh = "ssh -F /dev/null".to_owned();
    let hosts = attribute(attributes, "git.knownsshhosts").to_owned();
    ssh.push_str(&match hosts.is_empty() {
        true => " -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null".to_owned(),
        false => format!(" -o UserKnownHostsFile={PLACE}/{HOSTS}"),
    });
    env.push(("GIT_SSH_COMMAND".into(), ssh));
    let agent = attribute(attributes, "git.mountsshsock").to_owned();
    let mut serving = None;
    if !agent.is_empty() {
        env.push(("SSH_AUTH_SOCK".into(), format!("{PLACE}/{AGENT}")));
        job.inputs.has_agent(&agent).await?;
    }
    let (socket, known) = (dir.join(AGENT), dir.join(HOSTS));
    let name = agent.clone();
    let listener = job.builder.threads.run(move |_| {
        if !hosts.is_empty() {
            std::fs::write(&known, hosts).context("writing known hosts")?;
        }
        if name.is_empty() {
            return Ok(None);
        }
        let listener = std::os::unix::net::UnixListener::bind(&socket).context("listening for git")?;
        std::os::unix::fs::chown(&socket, Some(NOBODY), Some(NOBODY))?;
        Ok(Some(listener))
    });
    if let Some(listener) = listener.await? {
        serving = Some(crate::op::serve_agent(job, listener, &agent)?);
    }
    for (at, (key, value)) in config.iter().enumerate() {
        env.push((format!("GIT_CONFIG_KEY_{at}"), key.clone()));
        env.push((format!("GIT_CONFIG_VALUE_{at}"), value.clone()));
    }
    env.push(("GIT_CONFIG_COUNT".into(), config.len().to_string()));
    Ok((env, serving))
}

/// The header that a server over HTTP is shown, by the client's secrets for its host or for all.
async fn header(job: &Job, wanted: &Wanted, attributes: &Attributes) -> Result<Option<String>> {
    let Some(rest) = wanted.remote.strip_prefix("https://") else { return Ok(None) };
    let host = rest.split('/').next().unwrap_or_default();
    for (key, is_token) in [("git.authheadersecret", false), ("git.authtokensecret", true)] {
        let name = attribute(attributes, key);
        if name.is_empty() {
            continue;
        }
        for id in [format!("{name}.{host}"), name.to_owned()] {
            let Some(value) = job.inputs.secret(&id).await? else { continue };
            let value = String::from_utf8_lossy(&value).trim().to_owned();
            if value.contains(['\n', '\r', '\0']) {
                return Err(Error::invalid(format!("the secret {id} is no header")));
            }
            return Ok(Some(match is_token {
                true => {
                    let basic = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{value}"));
                    format!("Authorization: basic {basic}")
                }
                false => format!("Authorization: {value}"),
            }));
        }
    }
    Ok(None)
}

impl Fetch<'_> {
    async fn solve(&self, wanted: &Wanted) -> Result<Solved> {
        let (name, commit) = self.commit(wanted).await?;
        if !commit.starts_with(&wanted.checksum) {
            return Err(Error::invalid(format!("expected checksum to match {}, got {commit}", wanted.checksum)));
        }
        self.job.note_pin(self.identifier.clone(), commit.clone());
        let key = wanted.key(&commit);
        if let Some(found) = self.job.look_up(&key) {
            return Ok(found);
        }
        self.check_out(wanted, &name, &commit).await?;
        let time = match wanted.commit_time {
            true => self.git_in(&["show", "-s", "--format=%ct", &commit]).await?.trim().parse().ok(),
            false => None,
        };
        let (roots, lease, tree) = (self.job.builder.roots.clone(), self.job.lease.clone(), self.dir.join(TREE));
        let (directory, keeps_git) = (wanted.directory.clone(), wanted.keeps_git);
        let keep = move |_: &_| {
            let work = Work::prepare(&roots, &[])?;
            copy_tree(&tree, &directory, keeps_git, (time, &work))?;
            work.commit(&lease)
        };
        let (layer, size) = self.job.builder.threads.run(keep).await?;
        let (now, layers) = (now(), vec![Layer { key: layer, blob: None }]);
        let record = Record {
            outputs: [(0, layers.clone())].into(),
            kind: Kind::GitCheckout,
            description: format!("git snapshot for {}#{}", shown(&wanted.remote), wanted.reference),
            created: now,
            used: now,
            uses: 1,
            size,
            parents: Vec::new(),
        };
        self.job.keep(&key, Arc::new(record), None);
        Ok(Solved { key, outputs: [(0, Arc::new(layers))].into(), cached: false })
    }

    /// The name of what is wanted and the commit that it means.
    async fn commit(&self, wanted: &Wanted) -> Result<(String, String)> {
        let reference = wanted.reference.as_str();
        if is_commit(reference) {
            return Ok((reference.to_owned(), reference.to_lowercase()));
        }
        let names = match reference {
            "" => vec!["HEAD".to_owned()],
            full if full.starts_with("refs/") => vec![full.to_owned()],
            short => vec![format!("refs/heads/{short}"), format!("refs/tags/{short}")],
        };
        let peeled: Vec<String> = names.iter().map(|name| format!("{name}^{{}}")).collect();
        let mut words = vec!["ls-remote", "--", wanted.remote.as_str()];
        words.extend(names.iter().chain(&peeled).map(String::as_str));
        let listed = self.git(PLACE, &words).await?;
        let find = |name: &str| {
            let line = |line: &str| Some(line.split_once('\t').filter(|(_, named)| *named == name)?.0.to_owned());
            listed.lines().find_map(line).filter(|commit| is_commit(commit))
        };
        for name in &names {
            // An annotated tag means the commit that it is of.
            if let Some(commit) = find(&format!("{name}^{{}}")).or_else(|| find(name)) {
                return Ok((name.clone(), commit));
            }
        }
        let shown = if reference.is_empty() { "HEAD" } else { reference };
        Err(Error::not_found(format!("repository does not contain ref {shown}, output: {listed:?}")))
    }

    async fn check_out(&self, wanted: &Wanted, name: &str, commit: &str) -> Result<()> {
        let format = if commit.len() == COMMIT[1] { "sha256" } else { "sha1" };
        self.git(PLACE, &["init", "--quiet", &format!("--object-format={format}"), TREE]).await?;
        self.git_in(&["remote", "add", "origin", "--", &wanted.remote]).await?;
        let source = if wanted.by_commit { commit } else { name };
        let alone = format!("+{source}:{FETCHED}");
        let fetched = self.git_in(&["fetch", "--quiet", "--no-tags", "--depth=1", "--force", "origin", &alone]).await;
        if let Err(error) = fetched {
            if !is_commit(source) {
                return Err(error);
            }
            // A server that gives no commits by their names gives branches and tags.
            let all = [
                "fetch",
                "--quiet",
                "--force",
                "origin",
                "+refs/heads/*:refs/remotes/origin/*",
                "+refs/tags/*:refs/tags/*",
            ];
            self.git_in(&all).await?;
        }
        self.git_in(&["checkout", "--quiet", "--detach", "--force", commit]).await?;
        if !wanted.skips_submodules {
            let words = ["submodule", "update", "--quiet", "--init", "--recursive", "--depth=1", "--checkout"];
            self.git_in(&words).await?;
        }
        if !wanted.keeps_git {
            return Ok(());
        }
        self.git_in(&["update-ref", "-d", FETCHED]).await.map(drop)
    }

    async fn git_in(&self, words: &[&str]) -> Result<String> {
        self.git(&format!("{PLACE}/{TREE}"), words).await
    }

    /// Runs `git`; answers what it printed.
    async fn git(&self, dir: &str, words: &[&str]) -> Result<String> {
        let mut all: Vec<OsString> = vec![self.program.clone().into(), "-C".into(), dir.into()];
        all.extend(words.iter().map(OsString::from));
        let done: Done = sandbox::run(self.job, self.dir, &all, &self.env).await?;
        match done.code {
            Some(0) => Ok(String::from_utf8_lossy(&done.output).into_owned()),
            code => {
                let code = code.map_or("killed".to_owned(), |code| format!("exit status {code}"));
                Err(Error::system(format!("git {} stderr:\n{}\n: {code}", words[0], done.told())))
            }
        }
    }
}

/// Copies a checkout, or a directory of it, as root's. No link leads to it, nor out of it. Blocks.
fn copy_tree(tree: &Path, directory: &str, keeps_git: bool, (time, work): (Option<i64>, &Work)) -> Result<()> {
    let root = Rooted::open_dir(tree).context("opening a checkout")?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let place = if directory.is_empty() { "." } else { directory };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let node = sys::rooted::openat2(root.as_fd(), Path::new(place), flags, Mode::empty(), resolve);
    let node = node.map_err(|error| Error::not_found(format!("subdir {directory}: {error}")))?;
    if size(tree)? > SIZE {
        return Err(Error::invalid(format!("a repository of more than {SIZE} bytes")));
    }
    let exclude = match keeps_git {
        true => None,
        // Git lets nobody else have this name.
        false => Some(Matcher::new(&["**/.git".to_owned()]).map_err(|error| Error::system(error.message()))?),
    };
    let how = How {
        owner: Some((0, 0)),
        contents: true,
        time: time.map(|seconds| seconds.saturating_mul(1_000_000_000)),
        exclude,
        ..How::default()
    };
    let view = work.open()?;
    copy::copy(&node, "", &Target { root: view.root(), path: "/" }, &how)
}

/// Bytes of the files of a tree, which nobody changes any more. Blocks.
fn size(dir: &Path) -> Result<u64> {
    let (mut total, mut open) = (0_u64, vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() { open.push(entry.path()) } else { total += metadata.len() }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(place: &str, full: &str) -> Result<Wanted> {
        Wanted::read(place, &[("git.fullurl".to_owned(), full.to_owned())].into())
    }

    #[test]
    fn places_are_read_and_odd_ones_refused() {
        let wanted = read("a/b.git#v1:x/../y", "git://a/b.git").unwrap();
        assert_eq!((wanted.reference.as_str(), wanted.directory.as_str()), ("v1", "y"));
        assert_eq!(read("a/b#:../../etc", "https://a/b.git").unwrap().directory, "etc");
        for (place, full) in [
            ("a/b#--upload-pack=x", "https://a/b.git"),
            ("a/b#a b", "https://a/b.git"),
            ("a/b#a\nb", "https://a/b.git"),
            ("a/b", "file:///etc"),
            ("a/b", "ext::sh"),
            ("a/b", "http://a/b.git"),
            ("a/b", "--upload-pack=x"),
        ] {
            assert!(read(place, full).is_err(), "{place} {full}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(shown("https://u:p@h/x.git"), "https://xxxxx@h/x.git");
        assert_eq!(shown("https://h/x@y:z.git"), "https://h/x@y:z.git");
        assert_eq!(shown("git@h:x"), "git@h:x");
    }
}
