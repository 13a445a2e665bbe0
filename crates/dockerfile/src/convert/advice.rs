//! What is found while a file is converted.

use std::collections::BTreeSet;

use model::platform::Platform;
use model::reference::ImageRef;

use super::arguments::{self, NOT_IN_ENV};
use super::stage::StageState;
use crate::context::Main;
use crate::error::{Error, Result};
use crate::ignore::Matcher;
use crate::instruction::{Command, Program, Stage};
use crate::lines::Lines;
use crate::lint::{Linter, Place, rule};
use crate::platform::{self, normalized};
use crate::shell::{Env, Expansion, Lexer, Variables as _};
use crate::suggest::{Case, nearest};
use crate::text::quote;

const RESERVED: [&str; 2] = ["context", "scratch"];
/// Words of names that hold secrets.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
/// Words of names that do not, whatever the others say.
const NO_SECRET: [&str; 3] = ["public", "file", "version"];

/// Names of stages that many have, or that mean something else.
pub(super) fn stage_names(stages: &[Stage], linter: &mut Linter) {
    let mut seen = BTreeSet::new();
    for stage in stages.iter().filter(|stage| !stage.name.is_empty()) {
        let name = quote(&stage.name);
        if RESERVED.contains(&stage.name.as_str()) {
            let message = format!("Stage name should not use the same name as reserved stage {name}");
            linter.report(&rule::RESERVED_STAGE_NAME, stage.place(), message);
        }
        if !seen.insert(&stage.name) {
            let message = format!("Duplicate stage name {name}, stage names should be unique");
            linter.report(&rule::DUPLICATE_STAGE_NAME, stage.place(), message);
        }
    }
}

/// Keywords that are not written like most of them.
pub(super) fn keyword_casing(stages: &[Stage], linter: &mut Linter) {
    let of_commands = |stage: &'_ Stage| -> Vec<(String, Lines, Vec<String>)> {
        let own = [(stage.keyword.clone(), stage.lines, stage.comments.clone())];
        let commands = stage.commands.iter();
        own.into_iter().chain(commands.map(|c| (c.keyword.clone(), c.lines, c.comments.clone()))).collect()
    };
    let keywords: Vec<(String, Lines, Vec<String>)> = stages.iter().flat_map(of_commands).collect();
    let lower = keywords.iter().filter(|(word, ..)| *word == word.to_lowercase()).count();
    let upper = keywords.iter().filter(|(word, ..)| *word == word.to_uppercase()).count();
    for (word, lines, _) in keywords {
        let (wanted, right) = match lower > upper {
            true => ("lowercase", word.to_lowercase()),
            false => ("uppercase", word.to_uppercase()),
        };
        if word != right {
            let message = format!("Command '{word}' should match the case of the command majority ({wanted})");
            let place = Place { lines, comments: &[] };
            linter.report(&rule::CONSISTENT_INSTRUCTION_CASING, place, message);
        }
    }
}

/// Images that are none if no argument is given.
pub(super) fn default_images(program: &Program, lexer: &Lexer, defaults: &Env, linter: &mut Linter) {
    let none = std::collections::BTreeMap::new();
    let Ok((env, _)) = arguments::global(defaults.clone(), lexer, &program.arguments, &none) else { return };
    for stage in &program.stages {
        let Ok(name) = lexer.word(&stage.source, &env) else { return };
        if ImageRef::parse_normalized(&name).is_err() {
            let source = &stage.source;
            let message = format!("Default value for ARG {source} results in empty or invalid base image name");
            let place = Place { lines: stage.lines, comments: &[] };
            linter.report(&rule::INVALID_DEFAULT_ARG_IN_FROM, place, message);
        }
    }
}

/// Variables of `FROM` that nothing sets.
pub(super) fn unknown_in_from(
    known: &BTreeSet<&str>,
    missing: &BTreeSet<String>,
    place: Place<'_>,
    linter: &mut Linter,
) {
    for name in missing.iter().filter(|name| !known.contains(name.as_str())) {
        let near = nearest(name, known.iter().copied(), Case::Sensitive);
        let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        linter.report(&rule::UNDEFINED_ARG_IN_FROM, place, format!("FROM argument '{name}' is not declared{near}"));
    }
}

/// The target's platform is what every stage has.
pub(super) fn target_platform(stage: &Stage, found: &Expansion, global: &Env, linter: &mut Linter) {
    const NAME: &str = "TARGETPLATFORM";
    let alone = found.used.len() == 1 && found.used.contains(NAME) && found.missing.is_empty();
    if alone && global.value(NAME) == Some(&found.text) {
        let written = &stage.platform;
        let message =
            format!("Setting platform to predefined {written} in FROM is redundant as this is the default behavior");
        linter.report(&rule::REDUNDANT_TARGET_PLATFORM, stage.place(), message);
    }
}

/// A platform that nobody can choose, unless the stage is named after it.
pub(super) fn constant_platform(stage: &Stage, found: &Expansion, linter: &mut Linter) {
    if !found.used.is_empty() || !found.missing.is_empty() {
        return;
    }
    let Ok(platform) = platform::parse(&found.text, &Platform::new("linux", "amd64", "")) else { return };
    if !stage.name.contains(&platform.os) && !stage.name.contains(&platform.architecture) {
        let message = format!("FROM --platform flag should not use constant value {}", quote(&found.text));
        linter.report(&rule::FROM_PLATFORM_FLAG_CONST_DISALLOWED, stage.place(), message);
    }
}

/// An image for another platform than the one wanted.
pub(super) fn image_platform(written: &str, [wanted, found]: [&Platform; 2], place: Place<'_>, linter: &mut Linter) {
    if wanted.os != found.os || wanted.architecture != found.architecture {
        let [wanted, found] = [wanted, found].map(|platform| quote(&normalized(platform).to_string()));
        let message =
            format!("Base image {written} was pulled with platform {found}, expected {wanted} for current build");
        let place = Place { comments: &[], ..place };
        linter.report(&rule::INVALID_BASE_IMAGE_PLATFORM, place, message);
    }
}

/// Variables that nothing sets and no `ARG` of the stage declares.
pub(super) fn undefined(state: &StageState, missing: &BTreeSet<String>, place: Place<'_>, linter: &mut Linter) {
    let declared = |name: &str| state.arguments.iter().any(|(known, _)| known == name) || NOT_IN_ENV.contains(&name);
    for name in missing.iter().filter(|name| !declared(name)) {
        let near = nearest(name, state.state.env.names(), Case::Sensitive);
        let near = near.map(|near| format!(" (did you mean ${near}?)")).unwrap_or_default();
        linter.report(&rule::UNDEFINED_VAR, place, format!("Usage of undefined variable '${name}'{near}"));
    }
}

/// Only the last one counts; the one before it is named.
pub(super) fn once(command: &Command, last: &mut Option<Lines>, linter: &mut Linter) {
    if let Some(lines) = last.replace(command.lines) {
        let message = format!(
            "Multiple {} instructions should not be used in the same stage because only the last one will be used",
            command.keyword
        );
        let place = Place { lines, comments: &command.comments };
        linter.report(&rule::MULTIPLE_INSTRUCTIONS_DISALLOWED, place, message);
    }
}

/// Names of variables that hold secrets.
pub(super) fn secret_name(keyword: &str, name: &str, place: Place<'_>, linter: &mut Linter) {
    let lower = name.to_lowercase();
    let mut words = lower.split('_');
    if words.clone().any(|word| SECRET.contains(&word)) && !words.any(|word| NO_SECRET.contains(&word)) {
        let message = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {})", quote(name));
        linter.report(&rule::SECRETS_USED_IN_ARG_OR_ENV, place, message);
    }
}

/// What is left out of a context; `None`: nothing.
pub(super) fn ignored(main: &Main) -> Result<Option<Matcher>> {
    match main {
        Main::Local(_, patterns) if !patterns.is_empty() => Ok(Some(Matcher::new(patterns)?)),
        _ => Ok(None),
    }
}

/// Stages that wait for each other.
pub(super) fn circles(stages: &[StageState]) -> Result<()> {
    let mut seen = vec![false; stages.len()];
    for begin in 0..stages.len() {
        // Stages on the way, the next of their needs, and where the one on the way is needed.
        let mut way: Vec<(usize, usize, Lines)> = Vec::new();
        if !seen[begin] {
            seen[begin] = true;
            way.push((begin, 0, Lines::default()));
        }
        while let Some((at, next, _)) = way.last_mut() {
            let Some((need, lines)) = stages[*at].needs.get(*next).copied() else {
                way.pop();
                continue;
            };
            *next += 1;
            if way.iter().any(|(at, ..)| *at == need) {
                let name = &stages[begin].name;
                let error = Error::new(format!("circular dependency detected on stage: {name}"));
                let places = way.iter().skip(1).map(|(.., lines)| *lines).chain([lines]);
                return Err(places.fold(error, Error::at));
            }
            if !std::mem::replace(&mut seen[need], true) {
                way.push((need, 0, lines));
            }
        }
    }
    Ok(())
}
