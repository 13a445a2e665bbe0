//! From the words of an instruction to what it says.

use super::command_line::CommandLine;
use super::copy::Transfer;
use super::flags::{Flags, Takes};
use super::run::Run;
use super::types::{Argument, Command, Health, Instruction, Setting, Stage};
use crate::error::{Error, Result};
use crate::lines::Lines;
use crate::lint::{Linter, Place, rule};
use crate::parse::{self, Arguments, Document, Node, Pair};
use crate::suggest::{Case, with_suggestion};
use crate::text::quote;

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];
/// The shortest interval of health checks, but none.
const MIN_INTERVAL: i64 = 1_000_000;

/// A Dockerfile by its meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// `ARG` before the first `FROM`.
    pub arguments: Vec<Command>,
    /// In the order of the file.
    pub stages: Vec<Stage>,
}

enum Read {
    Stage(Stage),
    Command(Command),
}

/// Reads the instructions of a file; findings go to the linter.
pub fn program(document: &Document, linter: &mut Linter) -> Result<Program> {
    let mut program = Program::default();
    for node in &document.nodes {
        let line = node.lines.first;
        let read = instruction(node, linter)
            .map_err(|error| error.at(node.lines).prefix(format!("dockerfile parse error on line {line}")))?;
        match read {
            Read::Stage(stage) => program.stages.push(stage),
            Read::Command(command) => match program.stages.last_mut() {
                Some(stage) => stage.commands.push(command),
                None if matches!(command.instruction, Instruction::Arg(_)) => program.arguments.push(command),
                None => return Err(Error::new("no build stage in current context").at(node.lines)),
            },
        }
    }
    Ok(program)
}

/// Reads an instruction that waited for this stage (`ONBUILD`). It stands where the stage's `FROM` does.
pub fn trigger(text: &str, lines: Lines) -> Result<Command> {
    let document = parse::parse(text)?;
    let [mut node] = <[Node; 1]>::try_from(document.nodes)
        .map_err(|_| Error::new("onbuild trigger should be a single expression"))?;
    node.lines = lines;
    match instruction(&node, &mut Linter::default())? {
        Read::Command(command) => Ok(command),
        Read::Stage(_) => Err(Error::new("FROM isn't allowed as an ONBUILD trigger")),
    }
}

fn instruction(node: &Node, linter: &mut Linter) -> Result<Read> {
    let keyword = node.keyword.to_uppercase();
    let place = Place { lines: node.lines, comments: &node.comments };
    let instruction = match keyword.as_str() {
        "FROM" => return from(node, linter).map(Read::Stage),
        "ADD" => Instruction::Add(Transfer::add(node, words(node))?),
        "ARG" => {
            let arguments = arguments(node)?;
            let names: Vec<&str> = arguments.iter().map(|argument| argument.name.as_str()).collect();
            description("ARG", &names, place, linter);
            Instruction::Arg(arguments)
        }
        "CMD" => plain(node).map(|()| Instruction::Cmd(command_line(node)))?,
        "COPY" => Instruction::Copy(Transfer::copy(node, words(node))?),
        "ENTRYPOINT" => plain(node).map(|()| Instruction::Entrypoint(command_line(node)))?,
        "ENV" => Instruction::Env(settings(node, "ENV")?),
        "EXPOSE" => {
            let mut ports = at_least_one(node, "EXPOSE")?;
            ports.sort();
            Instruction::Expose(ports)
        }
        "HEALTHCHECK" => Instruction::HealthCheck(health(node)?),
        "LABEL" => Instruction::Label(settings(node, "LABEL")?),
        "MAINTAINER" => {
            linter.report(
                &rule::MAINTAINER_DEPRECATED,
                place,
                "Maintainer instruction is deprecated in favor of using label",
            );
            Instruction::Maintainer(exactly_one(node, "MAINTAINER")?)
        }
        "ONBUILD" => Instruction::OnBuild(later(node)?),
        "RUN" => Instruction::Run(Box::new(Run::read(node, command_line(node))?)),
        "SHELL" => Instruction::Shell(shell(node)?),
        // Flags of it are not looked at.
        "STOPSIGNAL" => match words(node).as_slice() {
            [signal] => Instruction::StopSignal(signal.clone()),
            _ => return Err(Error::new("STOPSIGNAL requires exactly one argument")),
        },
        "USER" => Instruction::User(exactly_one(node, "USER")?),
        "VOLUME" => Instruction::Volume(volumes(node)?),
        "WORKDIR" => Instruction::Workdir(exactly_one(node, "WORKDIR")?),
        _ => {
            let error = Error::new(format!("unknown instruction: {}", node.keyword));
            return Err(with_suggestion(error, &node.keyword, KEYWORDS, Case::Insensitive));
        }
    };
    Ok(Read::Command(Command {
        keyword: node.keyword.clone(),
        text: node.text.trim().to_owned(),
        lines: node.lines,
        comments: node.comments.clone(),
        instruction,
    }))
}

/// The words of an instruction, those of JSON and of a rest of the line alike.
fn words(node: &Node) -> Vec<String> {
    match &node.arguments {
        Arguments::Words(words) | Arguments::Json(words) => words.clone(),
        _ => Vec::new(),
    }
}

/// No flag is known.
fn plain(node: &Node) -> Result<()> {
    Flags::read(&node.flags, &[]).map(drop)
}

fn at_least_one(node: &Node, keyword: &str) -> Result<Vec<String>> {
    let words = words(node);
    if words.is_empty() {
        return Err(Error::new(format!("{keyword} requires at least one argument")));
    }
    plain(node)?;
    Ok(words)
}

fn exactly_one(node: &Node, keyword: &str) -> Result<String> {
    let [word] = <[String; 1]>::try_from(words(node))
        .map_err(|_| Error::new(format!("{keyword} requires exactly one argument")))?;
    plain(node)?;
    Ok(word)
}

fn command_line(node: &Node) -> CommandLine {
    CommandLine {
        words: words(node),
        shell: !matches!(node.arguments, Arguments::Json(_)),
        documents: node.heredocs.clone(),
    }
}

fn settings(node: &Node, keyword: &str) -> Result<Vec<Setting>> {
    plain(node)?;
    let Arguments::Pairs(pairs) = &node.arguments else {
        return Err(Error::new(format!("{keyword} requires at least one argument")));
    };
    let read = |pair: &Pair| match pair.name.is_empty() {
        true => Err(Error::new(format!("{keyword} names can not be blank"))),
        false => Ok(Setting { name: pair.name.clone(), value: pair.value.clone(), legacy: pair.legacy }),
    };
    pairs.iter().map(read).collect()
}

fn arguments(node: &Node) -> Result<Vec<Argument>> {
    let words = words(node);
    if words.is_empty() {
        return Err(Error::new("ARG requires at least one argument"));
    }
    let read = |word: &String| {
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        if name.is_empty() && value.is_some() {
            return Err(Error::new("ARG names can not be blank"));
        }
        let description = described(&node.comments, name);
        Ok(Argument { name: name.to_owned(), value: value.map(str::to_owned), description })
    };
    words.iter().map(read).collect()
}

fn volumes(node: &Node) -> Result<Vec<String>> {
    let volumes: Vec<String> = at_least_one(node, "VOLUME")?.iter().map(|volume| volume.trim().to_owned()).collect();
    match volumes.iter().any(String::is_empty) {
        true => Err(Error::new("VOLUME specified can not be an empty string")),
        false => Ok(volumes),
    }
}

fn shell(node: &Node) -> Result<Vec<String>> {
    plain(node)?;
    match &node.arguments {
        Arguments::Json(words) if !words.is_empty() => Ok(words.clone()),
        Arguments::Words(_) => Err(Error::new("SHELL requires the arguments to be in JSON form")),
        _ => Err(Error::new("SHELL requires at least one argument")),
    }
}

/// The instruction behind `ONBUILD`, as it was written, its inline documents behind it.
fn later(node: &Node) -> Result<String> {
    let keyword = match &node.arguments {
        Arguments::Instruction(inner) => inner.keyword.trim().to_uppercase(),
        // Deeper ones are not read.
        Arguments::Words(_) => "ONBUILD".into(),
        _ => return Err(Error::new("ONBUILD requires at least one argument")),
    };
    plain(node)?;
    match keyword.as_str() {
        "ONBUILD" => return Err(Error::new("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        "MAINTAINER" | "FROM" => return Err(Error::new(format!("{keyword} isn't allowed as an ONBUILD trigger"))),
        _ => {}
    }
    let text = node.text.trim_start();
    let mut text = text.get("ONBUILD".len()..).unwrap_or_default().trim_start().to_owned();
    for heredoc in &node.heredocs {
        text += &format!("\n{}{}", heredoc.content, heredoc.name);
    }
    Ok(text)
}

fn health(node: &Node) -> Result<Health> {
    let Arguments::Typed(kind, command) = &node.arguments else {
        return Err(Error::new("HEALTHCHECK requires at least one argument"));
    };
    let kind = kind.to_uppercase();
    if kind == "NONE" {
        return match **command {
            Arguments::None => Ok(Health { test: vec![kind], ..Health::default() }),
            _ => Err(Error::new("HEALTHCHECK NONE takes no arguments")),
        };
    }
    let names = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let flags = Flags::read(&node.flags, &names.map(|name| (name, Takes::Value)))?;
    let (form, words) = match &**command {
        _ if kind != "CMD" => {
            return Err(Error::new(format!("Unknown type {} in HEALTHCHECK (try CMD)", quote(&kind))));
        }
        Arguments::Json(words) => ("CMD", words.clone()),
        Arguments::Words(words) => ("CMD-SHELL", words.clone()),
        _ => ("", Vec::new()),
    };
    if words.is_empty() {
        return Err(Error::new("Missing command after HEALTHCHECK CMD"));
    }
    let interval = |name: &str| interval(name, &flags.text(name));
    Ok(Health {
        test: [vec![form.to_owned()], words].concat(),
        interval: interval("interval")?,
        timeout: interval("timeout")?,
        start_period: interval("start-period")?,
        start_interval: interval("start-interval")?,
        retries: retries(&flags.text("retries"))?,
    })
}

fn interval(name: &str, text: &str) -> Result<i64> {
    if text.is_empty() {
        return Ok(0);
    }
    match model::duration::parse(text)? {
        0 => Ok(0),
        short if short < MIN_INTERVAL => Err(Error::new(format!("Interval {} cannot be less than 1ms", quote(name)))),
        interval => Ok(interval),
    }
}

fn retries(text: &str) -> Result<i64> {
    if text.is_empty() {
        return Ok(0);
    }
    let invalid = |why: &str| Error::new(format!("strconv.ParseInt: parsing {}: {why}", quote(text)));
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty();
    let retries: i32 =
        text.parse().map_err(|_| invalid(if number { "value out of range" } else { "invalid syntax" }))?;
    match retries < 0 {
        true => Err(Error::new(format!("--retries cannot be negative ({retries})"))),
        false => Ok(retries.into()),
    }
}

fn from(node: &Node, linter: &mut Linter) -> Result<Stage> {
    let words = words(node);
    let place = Place { lines: node.lines, comments: &node.comments };
    if let [_, keyword, name] = words.as_slice() {
        casing(node, [keyword, name], linter);
    }
    let name = match words.as_slice() {
        [_] => String::new(),
        [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => stage_name(name)?,
        _ => return Err(Error::new("FROM requires either one or three arguments")),
    };
    let flags = Flags::read(&node.flags, &[("platform", Takes::Value)])?;
    let stage = Stage {
        description: described(&node.comments, &name),
        name,
        source: words[0].clone(),
        platform: flags.text("platform"),
        keyword: node.keyword.clone(),
        text: node.text.trim().to_owned(),
        lines: node.lines,
        comments: node.comments.clone(),
        commands: Vec::new(),
    };
    if !stage.name.is_empty() {
        description("FROM", &[&stage.name], place, linter);
    }
    Ok(stage)
}

fn casing(node: &Node, [keyword, name]: [&String; 2], linter: &mut Linter) {
    let place = Place { lines: node.lines, comments: &node.comments };
    if *name != name.to_lowercase() {
        let message = format!("Stage name '{name}' should be lowercase");
        linter.report(&rule::STAGE_NAME_CASING, place, message);
    }
    let from = &node.keyword;
    let fits = match (*from == from.to_lowercase(), *from == from.to_uppercase()) {
        (true, _) => *keyword == keyword.to_lowercase(),
        (_, true) => *keyword == keyword.to_uppercase(),
        _ => true,
    };
    if !fits {
        let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
        linter.report(&rule::FROM_AS_CASING, place, message);
    }
}

fn stage_name(written: &str) -> Result<String> {
    let name = written.to_lowercase();
    let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    match fits {
        true => Ok(name),
        false => Err(Error::new(format!(
            "invalid name for build stage: {}, name can't start with a number or contain symbols",
            quote(written)
        ))),
    }
}

/// What a comment says of this name: it begins with it.
fn described(comments: &[String], name: &str) -> String {
    let after = |comment: &String| comment.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    comments.iter().find_map(after).filter(|_| !name.is_empty()).unwrap_or_default()
}

/// The comment right above a definition is to begin with its name.
fn description(keyword: &str, names: &[&str], place: Place<'_>, linter: &mut Linter) {
    let Some(comment) = place.comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    if names.is_empty() || names.contains(&first) {
        return;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { names[0] };
    let message = format!("Comment for {keyword} should follow the format: `# {example} <description>`");
    linter.report(&rule::INVALID_DEFINITION_DESCRIPTION, place, message);
}
