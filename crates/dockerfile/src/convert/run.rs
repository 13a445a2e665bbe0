//! `RUN`.

use bollard_buildkit_proto::pb;

use super::at::{self, At, Result, refuse};
use super::configure::{in_shell, next_title, note};
use super::mounts::{self, Mounted};
use super::plan::Plan;
use super::title;
use crate::image::Layer;
use crate::instruction::{CommandLine, Mount, MountKind, Network, Run, Security};
use crate::lint::Linter;
use crate::llb::{About, Action, Exec, ExecMount, Holder, Vertex};
use crate::parse::Heredoc;
use crate::platform;
use crate::shell::{Env, Lexer, Quotes, Unset, Variables as _};
use crate::text::plain_list;

/// Where a script lies that is run as a file.
const SCRIPTS: &str = "/dev/pipes/";
/// What stands in titles in the place of secrets.
const MASK: &str = "****";

/// `RUN`
pub(super) fn run(plan: &mut Plan<'_>, at: &At<'_>, command: &Run, linter: &mut Linter) -> Result<()> {
    let mut mounts = Vec::new();
    for text in &command.mounts {
        let mut expand = |word: &str| at::word(plan, at, word, linter);
        mounts.push(Mount::parse(text, Some(&mut expand))?);
    }
    plan.uses(at.stage, "/");
    let (words, summary, script) = words(plan, &command.command)?;
    let words = match command.command.shell {
        true => in_shell(&plan.stages[at.stage].image, &words),
        false => words,
    };
    if words.is_empty() {
        return refuse("failed to marshal LLB definition: arguments are required");
    }
    // Every command has all variables.
    let of_words: usize = words.iter().map(String::len).sum();
    plan.spend(plan.stages[at.stage].state.env.size() + of_words)?;
    let mut mounted = mounts::all(plan, at, &mounts)?;
    mounted.files.extend(script);
    let title = shown(plan, at, &mounts, &summary);
    let about = about(plan, at, title);
    let exec = exec(plan, at, command, (words.clone(), mounted));
    let about = capable(about, &exec);
    let state = &plan.stages[at.stage];
    let history = history(plan, at, &words);
    let on = platform::encoded(state.state.platform.as_ref().unwrap_or(&plan.platform));
    let output = plan.graph.add(Vertex::Exec(Box::new(exec), on), about);
    let state = &mut plan.stages[at.stage];
    state.state = state.state.with(output);
    note(plan, at, history, Layer::Changed);
    Ok(())
}

/// The words of a command, what its title says of an inline document, and a document that is run as a file.
fn words(plan: &mut Plan<'_>, line: &CommandLine) -> Result<(Vec<String>, String, Option<ExecMount>)> {
    let Some(first) = line.documents.first() else { return Ok((line.words.clone(), String::new(), None)) };
    let [word] = line.words.as_slice() else {
        return refuse(format!("parsing produced an invalid run command: {}", plain_list(&line.words)));
    };
    if Heredoc::in_word(word).ok().flatten().is_none() {
        // Documents of the shell: they are put back behind the line.
        let mut text = word.clone();
        for document in &line.documents {
            text += &format!("\n{}{}", document.content, document.name);
        }
        return Ok((vec![text], String::new(), None));
    }
    let summary = format!(" ({})", first_line(&first.content));
    let text = first.lines();
    if !text.starts_with("#!") {
        return Ok((vec![text], summary, None));
    }
    let input = inline_file(plan, &first.name, (text, 0o755));
    let script = ExecMount {
        input: Some(input),
        selector: "/".into(),
        target: SCRIPTS.into(),
        readonly: true,
        ..ExecMount::default()
    };
    Ok((vec![format!("{SCRIPTS}{}", first.name)], summary, Some(script)))
}

/// A file system with a file whose content and mode are these.
pub(super) fn inline_file(plan: &mut Plan<'_>, name: &str, (text, mode): (String, i32)) -> crate::llb::Output {
    let mut about = About::named("[internal] preparing inline document");
    about.needs("file.base");
    let file = pb::FileActionMkFile {
        path: model::mount::clean(&format!("/{name}")),
        mode,
        data: text.into_bytes(),
        owner: None,
        timestamp: -1,
    };
    plan.graph.add(Vertex::File(None, vec![Action::File(file)]), about)
}

fn first_line(text: &str) -> String {
    let text = text.trim().replace("\r\n", "\n");
    match text.split_once('\n') {
        None => text,
        Some((first, _)) => format!("{first}..."),
    }
}

/// The title: variables that are not set stay, and secrets are not shown.
fn shown(plan: &mut Plan<'_>, at: &At<'_>, mounts: &[Mount], summary: &str) -> String {
    let lexer = Lexer { quotes: Quotes::Kept, unset: Unset::Kept, ..plan.lexer };
    let mut env = plan.stages[at.stage].state.env.clone();
    for name in mounts.iter().filter(|mount| mount.kind == MountKind::Secret).filter_map(|mount| mount.env.as_ref()) {
        env.set(name, MASK);
    }
    let text = title::of_command(&format!("{}{summary}", at.step.command.text), &lexer, &env);
    // A step over nothing has no platform of its own.
    match plan.stages[at.stage].state.platform {
        Some(_) => next_title(plan, at, &text),
        None => {
            let multiple = plan.job.options.multiple;
            let shown = title::Shown { multiple, platform: None, variables: &() };
            title::next(&mut plan.stages[at.stage], &text, &shown)
        }
    }
}

fn about(plan: &Plan<'_>, at: &At<'_>, title: String) -> About {
    let mut about = About::named(title);
    about.describe("com.docker.dockerfile.v1.command", at.step.command.text.clone());
    about.lines = vec![at.step.command.lines];
    about.metadata.ignore_cache = plan.stages[at.stage].ignore_cache;
    about
}

fn exec(plan: &Plan<'_>, at: &At<'_>, command: &Run, (args, mounted): (Vec<String>, Mounted)) -> Exec {
    let state = &plan.stages[at.stage].state;
    let options = &plan.job.options.run;
    let mut env: Env = state.env.clone();
    if let Some(socket) = mounted.sockets.first()
        && env.value("SSH_AUTH_SOCK").is_none()
    {
        env.set("SSH_AUTH_SOCK", socket);
    }
    let meta = pb::Meta {
        args,
        env: env.lines(),
        cwd: state.directory.clone(),
        user: state.user.clone(),
        proxy_env: plan.proxy.clone(),
        extra_hosts: options.hosts.clone(),
        hostname: options.hostname.clone(),
        ulimit: options.ulimits.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
        remove_mount_stubs_recursive: true,
        valid_exit_codes: Vec::new(),
    };
    let root = ExecMount { input: state.output, target: "/".into(), kept: true, ..ExecMount::default() };
    let memory = (options.shm_size > 0).then(|| ExecMount {
        target: "/dev/shm".into(),
        holder: Holder::Memory(options.shm_size),
        ..ExecMount::default()
    });
    let network = match command.network {
        Network::Default => options.network,
        Network::None => pb::NetMode::None.into(),
        Network::Host => pb::NetMode::Host.into(),
    };
    let security = match command.security {
        Security::Sandbox => pb::SecurityMode::Sandbox,
        Security::Insecure => pb::SecurityMode::Insecure,
    };
    let device =
        |device: &crate::instruction::Device| pb::CdiDevice { name: device.name.clone(), optional: !device.required };
    Exec {
        meta,
        network,
        security: security.into(),
        secrets: mounted.secrets,
        devices: command.devices.iter().map(device).collect(),
        mounts: [root].into_iter().chain(mounted.files).chain(memory).collect(),
    }
}

/// What a solver has to be able to do for a command.
fn capable(mut about: About, exec: &Exec) -> About {
    let mounted = |holds: fn(&Holder) -> bool| exec.mounts.iter().any(|mount| holds(&mount.holder));
    let needed = [
        ("exec.meta.base", true),
        ("exec.meta.setsdefaultpath", true),
        ("exec.meta.ulimit", !exec.meta.ulimit.is_empty()),
        ("exec.meta.network", exec.network != 0),
        ("exec.meta.security", exec.security != 0),
        ("exec.meta.proxyenv", exec.meta.proxy_env.is_some()),
        ("exec.meta.cdi", !exec.devices.is_empty()),
        ("exec.mount.bind", true),
        ("exec.mount.selector", exec.mounts.iter().any(|mount| !mount.selector.is_empty())),
        ("exec.mount.cache", mounted(|holder| matches!(holder, Holder::Cache(_)))),
        ("exec.mount.cache.sharing", mounted(|holder| matches!(holder, Holder::Cache(_)))),
        ("exec.mount.tmpfs", mounted(|holder| matches!(holder, Holder::Memory(_)))),
        ("exec.mount.tmpfs.size", mounted(|holder| matches!(holder, Holder::Memory(1..)))),
        ("exec.mount.secret", !exec.secrets.is_empty() || mounted(|holder| matches!(holder, Holder::Secret(_)))),
        ("exec.secretenv", !exec.secrets.is_empty()),
        ("exec.mount.ssh", mounted(|holder| matches!(holder, Holder::Ssh(_)))),
    ];
    for (capability, _) in needed.into_iter().filter(|(_, needed)| *needed) {
        about.needs(capability);
    }
    about
}

/// The row of the history: arguments of the build in front, in the order in which they were declared first.
fn history(plan: &Plan<'_>, at: &At<'_>, words: &[String]) -> String {
    let state = &plan.stages[at.stage];
    let mut arguments: Vec<(&str, String)> = Vec::new();
    for (name, value) in &state.arguments {
        let value = state.state.env.value(name).or(value.as_deref()).unwrap_or_default();
        match arguments.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value.to_owned(),
            None => arguments.push((name, value.to_owned())),
        }
    }
    let count = (!arguments.is_empty()).then(|| format!("|{}", arguments.len()));
    let arguments = arguments.iter().map(|(name, value)| format!("{name}={value}"));
    let all: Vec<String> = count.into_iter().chain(arguments).chain(words.iter().cloned()).collect();
    format!("RUN {} # buildkit", all.join(" "))
}
