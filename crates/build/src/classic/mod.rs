//! The classic builder: `POST /build` without BuildKit. One instruction after the other, told step by step.
//!
//! Its steps are those of the solver, with the solver's cache; what it has of its own is its texts, the order, and how it writes
//! histories. An intermediate step has a digest of what it depends on for an id, and becomes no image.

mod args;
mod build;
mod cache;
pub mod context;
mod files;
mod from;
mod metadata;
mod run;
mod source;
mod stage;

use std::sync::Arc;

use api::ProgressMessage;
use dockerfile::instruction::{Argument, Command, Instruction, Program, Setting};
use dockerfile::lint::Linter;
use dockerfile::shell::Lexer;
use image::built::{BuiltImage, built};
use model::digest::Digest;
use model::reference::ImageRef;
use model::{Error, Result};
use serde_json::json;

use self::args::Arguments;
use self::build::{Build, environment};
pub use self::build::{Client, Failed, Options};
use self::context::Context;
use self::stage::Stage;
use crate::export::{self, Request};
use crate::job::Job;

/// A Dockerfile, read.
pub struct Recipe {
    program: Program,
    escape: char,
}

/// Reads a Dockerfile; refusals come before anything is told.
///
/// Errors: `InvalidParameter` in the reference's words.
pub fn read(text: &str, options: &Options) -> Result<Recipe> {
    let refused = |error: dockerfile::Error| {
        let name = if options.dockerfile.is_empty() { context::USUAL } else { &options.dockerfile };
        Error::invalid(error.message()).prefix(format!("failed to parse {name}"))
    };
    let document = dockerfile::parse::parse(text).map_err(refused)?;
    let program = dockerfile::instruction::program(&document, &mut Linter::default());
    let mut program = program.map_err(|error| Error::invalid(error.message()))?;
    if !options.target.is_empty() {
        let wanted = options.target.to_lowercase();
        let named = program.stages.iter().position(|stage| stage.name == wanted);
        let numbered = || options.target.parse().ok().filter(|number| *number < program.stages.len());
        let missing = || Error::invalid(format!("target stage {:?} could not be found", options.target));
        let last = named.or_else(numbered).ok_or_else(missing)?;
        program.stages.truncate(last + 1);
    }
    if let Some(stage) = program.stages.last_mut() {
        for (name, value) in &options.labels {
            let setting = Setting { name: name.clone(), value: value.clone(), legacy: false };
            stage.commands.push(Command {
                keyword: "LABEL".into(),
                text: format!("LABEL {name}={value}"),
                lines: stage.lines,
                comments: Vec::new(),
                instruction: Instruction::Label(vec![setting]),
            });
        }
    }
    Ok(Recipe { program, escape: document.escape })
}

/// Builds the image; answers its id. Events: create and tag of the image.
pub async fn build(
    job: Arc<Job>,
    recipe: Recipe,
    context: Context,
    options: Options,
    client: Client,
) -> Result<Digest, Failed> {
    let Recipe { program, escape } = recipe;
    let total = program.arguments.len()
        + program.stages.len()
        + program.stages.iter().map(|stage| stage.commands.len()).sum::<usize>();
    let labels = options.labels.len();
    let mut build = Build {
        arguments: Arguments::new(options.arguments.clone()),
        lexer: Lexer::new(escape),
        job,
        options,
        client,
        context,
        sources: Vec::new(),
        stages: Vec::new(),
        step: 0,
        total,
        running: None,
        held: Default::default(),
    };
    let built = Box::pin(build.stages(&program, labels)).await;
    if built.is_err() {
        build.tell_held().await?;
    }
    let id = built?;
    build.finish(&id).await?;
    Ok(id)
}

impl Build {
    /// Builds all stages; the id of the image that comes out.
    async fn stages(&mut self, program: &Program, labels: usize) -> Result<Digest, Failed> {
        for command in &program.arguments {
            self.tell_step(&command.text).await?;
            if let Instruction::Arg(arguments) = &command.instruction {
                self.global_arguments(arguments)?;
            }
        }
        self.sources = self.cache_sources().await?;
        let mut id = None;
        for (at, stage) in program.stages.iter().enumerate() {
            if self.stages.iter().any(|done| !stage.name.is_empty() && done.name == stage.name) {
                return Err(Error::system(format!("{} stage name already used", stage.name)).into());
            }
            self.tell_step(&stage.text).await?;
            self.arguments.begin_stage();
            let mut state = Box::pin(self.begin(stage)).await?;
            let is_last = at + 1 == program.stages.len();
            if is_last && stage.commands.is_empty() {
                id = Some(self.export(&mut state).await?);
            }
            self.say(format!(" ---> {}\n", state.shown())).await?;
            for (number, command) in stage.commands.iter().enumerate() {
                if self.job.cancel.is_cancelled() {
                    self.say("Build cancelled\n".into()).await?;
                    return Err(Error::system("Build cancelled").into());
                }
                self.tell_step(&command.text).await?;
                // Labels of the client are not expanded.
                let is_given = is_last && number + labels >= stage.commands.len();
                Box::pin(self.dispatch(&mut state, command, is_given)).await?;
                if is_last && number + 1 == stage.commands.len() {
                    id = Some(self.export(&mut state).await?);
                }
                self.say(format!(" ---> {}\n", state.shown())).await?;
            }
            if let Some(id) = state.id() {
                self.line(ProgressMessage::aux(json!({"ID": id}))).await?;
            }
            self.stages.push(state);
        }
        id.ok_or_else(|| Error::system("No image was generated. Is your Dockerfile empty?").into())
    }

    /// The last lines.
    async fn finish(&mut self, id: &Digest) -> Result<()> {
        let unused = self.arguments.unused().join(" ");
        if !unused.is_empty() {
            self.say(format!("[Warning] One or more build-args [{unused}] were not consumed\n")).await?;
        }
        if self.options.quiet {
            return image::pull::send(&self.client.lines, ProgressMessage::stream(format!("{id}\n"))).await;
        }
        self.say(format!("Successfully built {}\n", id.short())).await?;
        for name in self.options.tags.clone() {
            self.say(format!("Successfully tagged {}\n", name.with_default_tag().familiar())).await?;
        }
        Ok(())
    }

    fn global_arguments(&mut self, arguments: &[Argument]) -> Result<()> {
        for argument in arguments {
            let known = environment(self.arguments.of_stage());
            let value = argument.value.as_ref().map(|value| self.lexer.word(value, &known)).transpose();
            let value = value.map_err(|error| Error::invalid(error.message()))?;
            self.arguments.add_global(&argument.name, value);
        }
        Ok(())
    }

    /// Makes an image of a stage, with the names that are asked for; what nothing was done to stays the image it is.
    async fn export(&mut self, stage: &mut Stage) -> Result<Digest, Failed> {
        if stage.is_untouched() {
            let Some(id) = stage.base.clone() else {
                return Err(Error::system("No image was generated. Is your Dockerfile empty?").into());
            };
            let (job, bus, tags) = (self.job.clone(), self.client.bus.clone(), self.options.tags.clone());
            let named = id.clone();
            let tag = move |_: &_| {
                tags.iter().try_for_each(|name| {
                    let tag = name.tag.clone().unwrap_or_default();
                    image::tag(&job.builder.images, &bus, named.as_str(), &name.familiar_name(), &tag)
                })
            };
            self.job.builder.threads.run(tag).await?;
            return Ok(id);
        }
        let document = stage.document();
        let (job, bus, tags) = (self.job.clone(), self.client.bus.clone(), self.options.tags.clone());
        let (chain, parent) = (stage.files.chain(0), stage.base.clone());
        let make = move |_: &_| {
            let (builder, lease) = (&job.builder, &job.lease);
            let layers = export::pack(builder, &chain, &Request::default(), (lease, &job.cancel))?;
            let layers = layers.into_iter().map(|layer| (layer.blob, layer.diff_id)).collect();
            let names = tags.into_iter().map(ImageRef::with_default_tag).collect();
            let config = serde_json::to_value(&document)?;
            built(&builder.images, &bus, BuiltImage { layers, config, names, parent }, lease)
        };
        let id = self.job.builder.threads.run(make).await?;
        stage.exported = Some(id.clone());
        Ok(id)
    }
}
