//! `COPY` and `ADD`.

use bollard_buildkit_proto::pb;
use model::digest::Digest;
use model::mount::clean;
use url::Url;

use super::at::{At, Error, Result, refuse};
use super::configure::{next_title, note};
use super::plan::Plan;
use super::{run, title};
use crate::context::plain_copy;
use crate::git::GitSource;
use crate::image::Layer;
use crate::instruction::Transfer;
use crate::lint::{Linter, rule};
use crate::llb::{self, About, Action, CopyAction, Output, Owner, Vertex};
use crate::text::{join, last_element, quote};

/// Permission bits.
const MAX_MODE: u32 = 0o7777;
/// The name of a file whose address has none.
const UNNAMED: &str = "__unnamed__";

/// Which instruction copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Add,
    Copy,
}

/// What is the same for all sources of an instruction.
struct Wishes {
    by: By,
    destination: String,
    /// Permission bits; -1: as they are.
    mode: i32,
    /// The same in the words of chmod(1).
    mode_text: String,
    /// The instruction as titles have it.
    text: String,
    /// The title.
    title: String,
}

/// `ADD`
pub(super) fn add(plan: &mut Plan<'_>, at: &At<'_>, add: &Transfer, linter: &mut Linter) -> Result<()> {
    for source in &add.sources {
        ignored_source(plan, at, "Add", source, linter);
    }
    transfer(plan, at, add, (By::Add, plan.context))?;
    for source in add.sources.iter().filter(|source| !source.starts_with("http://") && !source.starts_with("https://"))
    {
        plan.stages[at.stage].context_paths.insert(join("/", source));
    }
    Ok(())
}

/// `COPY`
pub(super) fn copy(plan: &mut Plan<'_>, at: &At<'_>, copy: &Transfer, linter: &mut Linter) -> Result<()> {
    let Some(source) = at.step.sources.first().copied() else {
        for source in &copy.sources {
            ignored_source(plan, at, "Copy", source, linter);
        }
        transfer(plan, at, copy, (By::Copy, plan.context))?;
        plan.stages[at.stage].context_paths.extend(copy.sources.iter().map(|source| join("/", source)));
        return Ok(());
    };
    if !plan.stages[source].progress.done {
        let (from, own) = (quote(&copy.from), quote(&plan.stages[at.stage].name));
        return refuse(format!("cannot copy from stage {from}, it needs to be defined before current stage {own}"));
    }
    transfer(plan, at, copy, (By::Copy, plan.stages[source].state.output))?;
    for path in &copy.sources {
        plan.uses(source, &join("/", path));
    }
    Ok(())
}

fn transfer(plan: &mut Plan<'_>, at: &At<'_>, from: &Transfer, (by, input): (By, Option<Output>)) -> Result<()> {
    let (mode, mode_text) = mode(&from.chmod)?;
    checksum(from, by)?;
    let keyword = if by == By::Add { "ADD" } else { "COPY" };
    let mut row = String::from(keyword);
    for (flag, value) in [("--chown=", &from.chown), ("--chmod=", &from.chmod)] {
        if flag == "--chown=" && from.parents {
            row += " --parents";
        }
        if !value.is_empty() {
            row += &format!(" {flag}{value}");
        }
    }
    let env = plan.stages[at.stage].state.env.clone();
    let text = title::of_command(&at.step.command.text, &plan.lexer, &env);
    let title = next_title(plan, at, &text);
    let destination = destination(&from.destination, &plan.stages[at.stage].state.directory);
    let wishes = Wishes { by, destination, mode, mode_text, text, title };
    let mut actions = Vec::new();
    for source in &from.sources {
        row += &format!(" {source}");
        let (input, form) = one(plan, from, source, input, &wishes)?;
        actions.push(action(from, input, form, &wishes));
    }
    for document in &from.documents {
        row += &format!(" <<{}", document.name);
        let input = run::inline_file(plan, &document.name, (document.content.clone(), 0o644));
        let form = pb::FileActionCopy { src: clean(&format!("/{}", document.name)), ..plain_copy() };
        actions.push(action(from, Some(input), form, &wishes));
    }
    row += &format!(" {} # buildkit", from.destination);
    let output = place(plan, at, from, actions, &wishes);
    let state = &mut plan.stages[at.stage];
    state.state = state.state.with(output);
    note(plan, at, row, Layer::Changed);
    Ok(())
}

fn action(from: &Transfer, input: Option<Output>, form: pb::FileActionCopy, wishes: &Wishes) -> Action {
    let form = pb::FileActionCopy {
        dest: wishes.destination.clone(),
        mode: if wishes.mode_text.is_empty() { wishes.mode } else { 0 },
        mode_str: wishes.mode_text.clone(),
        create_dest_path: true,
        exclude_patterns: from.excludes.clone(),
        ..form
    };
    Action::Copy(Box::new(CopyAction { input, form, owner: Owner::parse(&from.chown) }))
}

/// Onto the files of the stage, or as a layer of its own over them.
fn place(plan: &mut Plan<'_>, at: &At<'_>, from: &Transfer, actions: Vec<Action>, wishes: &Wishes) -> Output {
    let mut about = About::named(&wishes.title);
    about.lines = vec![at.step.command.lines];
    about.metadata.ignore_cache = plan.stages[at.stage].ignore_cache;
    about.needs("file.base");
    if actions.iter().any(|action| matches!(action, Action::Copy(copy) if has_patterns(&copy.form))) {
        about.needs("file.copy.includeexcludepatterns");
    }
    let below = plan.stages[at.stage].state.output;
    // A mode is one of the whole layer's files, and those of the layers below may be among them.
    if !from.link || !from.chmod.is_empty() {
        return plan.graph.add(Vertex::File(below, actions), about);
    }
    let group = |weak: bool| pb::ProgressGroup {
        id: format!("{}-{}", at.stage, plan.stages[at.stage].count.done),
        name: wishes.title.clone(),
        weak,
    };
    let (of_copy, of_merge) = (group(true), group(false));
    let mut merged = about.clone();
    about.metadata.progress_group = Some(of_copy);
    let copied = plan.graph.add(Vertex::File(None, actions), about);
    let Some(below) = below else { return copied };
    let multiple = plan.job.options.multiple;
    let state = &plan.stages[at.stage];
    let shown = title::Shown { multiple, platform: state.platform.as_ref(), variables: &state.state.env };
    merged.describe("llb.customname", title::same(state, &format!("LINK {}", wishes.text), &shown));
    merged.metadata.progress_group = Some(of_merge);
    merged.metadata.caps.clear();
    merged.needs("mergeop");
    plan.graph.add(Vertex::Merge(vec![below, copied]), merged)
}

fn has_patterns(form: &pb::FileActionCopy) -> bool {
    !form.include_patterns.is_empty() || !form.exclude_patterns.is_empty()
}

/// One source: where its files come from and which they are.
fn one(
    plan: &mut Plan<'_>,
    from: &Transfer,
    source: &str,
    input: Option<Output>,
    wishes: &Wishes,
) -> Result<(Option<Output>, pb::FileActionCopy)> {
    match GitSource::parse(source)? {
        Some(git) if !git.like_path => {
            if wishes.by == By::Copy {
                return refuse("source can't be a git ref for COPY");
            }
            let git = asked(git, from)?;
            let (vertex, about) = llb::git(&git, About::named(&wishes.title));
            Ok((Some(plan.graph.add(vertex, about)), pb::FileActionCopy { src: "/".into(), ..plain_copy() }))
        }
        _ if is_http(source) => {
            if wishes.by == By::Copy {
                return refuse("source can't be a URL for COPY");
            }
            let name = file_name(source);
            if !from.checksum.is_empty() {
                Digest::parse(&from.checksum)?;
            }
            let mut about = About::named(&wishes.title);
            about.describe("com.docker.dockerfile.v1.command", String::new());
            let (vertex, about) = llb::http(source, [&name, &from.checksum], about);
            let form = pb::FileActionCopy {
                src: clean(&format!("/{name}")),
                attempt_unpack_docker_compatibility: from.unpack.unwrap_or(false),
                ..plain_copy()
            };
            Ok((Some(plan.graph.add(vertex, about)), form))
        }
        _ => Ok((input, local(from, source, wishes.by))),
    }
}

/// Files of the context or of a stage.
fn local(from: &Transfer, source: &str, by: By) -> pb::FileActionCopy {
    let mut form = pb::FileActionCopy {
        follow_symlink: true,
        dir_copy_contents: true,
        attempt_unpack_docker_compatibility: from.unpack.unwrap_or(by == By::Add),
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..plain_copy()
    };
    let mut source = source;
    if from.parents {
        // What is in front of `/./` is not kept.
        let (above, kept) = source.split_once("/./").unwrap_or(("/", source));
        let pattern = if kept.starts_with('/') { kept.to_owned() } else { join("/", kept) };
        if !has_wildcards(above) && !has_wildcards(&pattern) {
            form.required_paths = vec![clean(&format!("/{above}/{pattern}"))];
        }
        form.include_patterns = vec![pattern.trim_start_matches('/').to_owned()];
        source = above;
    }
    form.src = clean(&format!("/{source}"));
    form
}

/// What the instruction wants of a repository beside what its address says.
fn asked(mut git: GitSource, from: &Transfer) -> Result<GitSource> {
    match (from.keep_git_dir, git.keep_git_dir) {
        (Some(own), Some(other)) if own != other => return refuse("inconsistent keep-git-dir configuration"),
        (own, None) => git.keep_git_dir = own,
        _ => {}
    }
    if !from.checksum.is_empty() && !git.checksum.is_empty() && from.checksum != git.checksum {
        let (a, b) = (quote(&from.checksum), quote(&git.checksum));
        return refuse(format!("checksum mismatch {a} != {b}"));
    }
    if git.checksum.is_empty() {
        git.checksum.clone_from(&from.checksum);
    }
    // Times are a matter of contexts.
    git.mtime = String::new();
    Ok(git)
}

/// A source that is left out of the context. With exceptions among the patterns nobody can say.
fn ignored_source(plan: &Plan<'_>, at: &At<'_>, verb: &str, source: &str, linter: &mut Linter) {
    let Some(ignored) = plan.ignored.as_ref().filter(|ignored| !ignored.has_exceptions()) else { return };
    let remote = source.contains("://") || source.starts_with("git@");
    let path = clean(source);
    let top = matches!(path.as_str(), "." | "/");
    if !remote && (!top || ignored.leaves_out_all()) && ignored.matches(&path) {
        let message = format!("Attempting to {verb} file {} that is excluded by .dockerignore", quote(&path));
        linter.report(&rule::COPY_IGNORED_FILE, at.step.command.place(), message);
    }
}

fn is_git(source: &str) -> bool {
    GitSource::parse(source).is_ok_and(|source| source.is_some())
}

fn is_http(source: &str) -> bool {
    (source.starts_with("http://") || source.starts_with("https://")) && !is_git(source)
}

/// The last part of an address's path.
fn file_name(address: &str) -> String {
    let path = Url::parse(address).map(|url| url.path().to_owned()).unwrap_or_default();
    match last_element(&path) {
        "." | "/" => UNNAMED.into(),
        name => percent_decoded(name),
    }
}

fn percent_decoded(name: &str) -> String {
    let escaped = name.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(escaped.as_bytes()).map(|(key, _)| key.into_owned()).next().unwrap_or_default()
}

fn checksum(from: &Transfer, by: By) -> Result<()> {
    if from.checksum.is_empty() {
        return Ok(());
    }
    if by == By::Copy {
        return refuse("checksum can't be specified for COPY");
    }
    match from.sources.as_slice() {
        [source] if is_http(source) || is_git(source) => Ok(()),
        [_] => refuse("checksum requires HTTP(S) or Git sources"),
        _ => refuse("checksum can't be specified for multiple sources"),
    }
}

/// Permission bits in octal, or in the words of chmod(1).
fn mode(text: &str) -> Result<(i32, String)> {
    if text.is_empty() {
        return Ok((-1, String::new()));
    }
    let digit = text.starts_with(|c: char| c.is_ascii_digit());
    match u32::from_str_radix(text, 8) {
        Ok(mode) if digit && mode <= MAX_MODE => Ok((i32::try_from(mode).unwrap_or(-1), String::new())),
        _ if !digit && is_symbolic(text) => Ok((0, text.to_owned())),
        _ if !digit => refuse("invalid syntax"),
        _ => Err(Error::new(format!(
            "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
        ))),
    }
}

/// `[augo]*([+-=][rwxXstugo]*)+`, separated by commas.
fn is_symbolic(text: &str) -> bool {
    text.split(',').all(|clause| {
        let changes = clause.trim_start_matches(['a', 'u', 'g', 'o']);
        changes.starts_with(['+', '-', '='])
            && changes.chars().all(|c| matches!(c, '+' | '-' | '=') || "rwxXstugo".contains(c))
    })
}

fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

/// Where copies go: below the working directory, a slash or dot at the end kept.
fn destination(path: &str, directory: &str) -> String {
    let path = if path.is_empty() || path == "." { "./" } else { path };
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("/{directory}/{path}") };
    let cleaned = clean(&whole);
    match cleaned.as_str() {
        "/" if path.ends_with("/.") => "/.".into(),
        _ if path.ends_with("/.") => format!("{cleaned}/."),
        root @ "/" => root.to_owned(),
        _ if path.ends_with('/') => format!("{cleaned}/"),
        _ => cleaned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_keep_what_is_at_their_end() {
        for (path, directory, whole) in [
            ("", "/a", "/a/"),
            (".", "/a", "/a/"),
            ("./", "/", "/"),
            ("b", "/a", "/a/b"),
            ("b/", "/a", "/a/b/"),
            ("b/.", "/a", "/a/b/."),
            ("/b//c/../", "/a", "/b/"),
            ("../../x", "/a", "/x"),
            ("/.", "/a", "/."),
        ] {
            assert_eq!(destination(path, directory), whole, "{path}");
        }
    }

    #[test]
    fn modes_are_octal_or_symbolic() {
        for (text, read) in [
            ("", Some((-1, ""))),
            ("0755", Some((0o755, ""))),
            ("7777", Some((0o7777, ""))),
            ("u=rwX,go=rX", Some((0, "u=rwX,go=rX"))),
            ("+x", Some((0, "+x"))),
            ("0888", None),
            ("10000", None),
            ("u", None),
            ("+x,", None),
            ("x", None),
        ] {
            let found = mode(text).ok();
            assert_eq!(found, read.map(|(mode, text)| (mode, text.to_owned())), "{text}");
        }
        let why = "invalid chmod parameter: '0888'. it should be octal string and between 0 and 07777";
        assert_eq!(mode("0888").unwrap_err().message(), why);
    }

    #[test]
    fn files_are_named_by_their_address() {
        for (address, name) in [
            ("https://a.b/c/d.tar?x=1", "d.tar"),
            ("https://a.b", UNNAMED),
            ("https://a.b/", UNNAMED),
            ("https://a.b/c%20d+e", "c d+e"),
        ] {
            assert_eq!(file_name(address), name);
        }
    }
}
