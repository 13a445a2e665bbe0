//! The stages of a file, what each is based on and what it takes from others.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use bollard_buildkit_proto::pb;
use model::platform::Platform;

use super::capture::Capture;
use super::job::{Extent, Job};
use super::stage::{Count, StageState, Step};
use super::{advice, arguments};
use crate::context::Found;
use crate::error::{Error, Result};
use crate::ignore::Matcher;
use crate::instruction::{self, Command, Instruction, Mount, Stage};
use crate::lines::Lines;
use crate::lint::{Linter, Place, rule};
use crate::llb::{Graph, Output};
use crate::parse;
use crate::platform;
use crate::question::Inquiry;
use crate::shell::{Env, Expansion, Lexer, Variables as _};
use crate::suggest::{Case, with_suggestion};
use crate::text::quote;

/// Stages, and images that instructions name.
const MAX_STAGES: usize = 10_000;
/// Bytes that instructions add up to once their variables are filled in, and what they inherit is theirs.
const MAX_BYTES: usize = 256 << 20;
/// Variables of a stage.
const MAX_VARIABLES: usize = 4096;
/// The name of nothing.
pub(super) const SCRATCH: &str = "scratch";

/// The conversion of one file.
pub(super) struct Plan<'a> {
    pub job: &'a Job<'a>,
    pub graph: Graph,
    pub stages: Vec<StageState>,
    names: BTreeMap<String, usize>,
    pub lexer: Lexer,
    /// Variables of `FROM`.
    pub global: Env,
    /// Build arguments of the request.
    pub given: BTreeMap<String, String>,
    pub platform: Platform,
    /// The main context; `None`: empty.
    pub context: Option<Output>,
    /// What is left out of it.
    pub ignored: Option<Matcher>,
    /// Seconds since 1970.
    pub epoch: Option<i64>,
    pub proxy: Option<pb::ProxyEnv>,
    /// Of [`MAX_BYTES`].
    spent: Cell<usize>,
}

impl<'a> Plan<'a> {
    /// Reads a file up to its stages.
    pub fn read(job: &'a Job<'a>, linter: &mut Linter) -> Result<Plan<'a>> {
        let document = parse::parse(job.text)?;
        for line in &document.empty_continuations {
            let place = Place { lines: Lines::new(*line, *line), comments: &[] };
            linter.report(&rule::NO_EMPTY_CONTINUATION, place, "Empty continuation line");
        }
        let program = instruction::program(&document, linter)?;
        let Some(last) = program.stages.last() else {
            return Err(Error::new("dockerfile contains no stages to build"));
        };
        if program.stages.len() > MAX_STAGES {
            return Err(Error::new(format!("dockerfile contains more than {MAX_STAGES} stages")));
        }
        advice::stage_names(&program.stages, linter);
        advice::keyword_casing(&program.stages, linter);
        let host = job.builders.first().cloned().unwrap_or_else(|| Platform::new("linux", "amd64", ""));
        let target = job.target.unwrap_or(&host).clone();
        let name = if job.options.target.is_empty() { &last.name } else { &job.options.target };
        let lexer = Lexer::new(document.escape);
        let mut given = job.options.arguments.clone();
        let defaults = arguments::defaults([&host, &target], &given, name);
        advice::default_images(&program, &lexer, &defaults, linter);
        let (global, captured) = arguments::global(defaults, &lexer, &program.arguments, &given)?;
        let (epoch, global) = arguments::epoch(global, &mut given)?;
        let mut graph = Graph::default();
        let mut plan = Plan {
            job,
            context: job.main.add(job.directory, &mut graph)?,
            graph,
            stages: Vec::new(),
            names: BTreeMap::new(),
            lexer,
            global,
            proxy: arguments::proxy(&given),
            given,
            platform: target,
            ignored: advice::ignored(job.main)?,
            epoch,
            spent: Cell::new(0),
        };
        for (at, stage) in program.stages.into_iter().enumerate() {
            plan.add_stage(at, stage, &captured, linter)?;
        }
        Ok(plan)
    }

    /// Counts what a conversion makes: short files may become long.
    pub fn spend(&self, bytes: usize) -> Result<()> {
        let spent = self.spent.get().saturating_add(bytes);
        self.spent.set(spent);
        match spent > MAX_BYTES {
            true => Err(Error::new(format!("the Dockerfile becomes more than {MAX_BYTES} bytes"))),
            false => Ok(()),
        }
    }

    /// Refuses a stage with too many variables, and counts those it has.
    pub fn count_variables(&self, stage: usize) -> Result<()> {
        let env = &self.stages[stage].state.env;
        match env.count() > MAX_VARIABLES {
            true => Err(Error::new(format!("more than {MAX_VARIABLES} variables"))),
            false => self.spend(env.size()),
        }
    }

    fn add_stage(&mut self, at: usize, mut stage: Stage, captured: &Capture, linter: &mut Linter) -> Result<()> {
        let lines = stage.lines;
        let found = self.of_from(&stage.source, &stage, captured, linter).map_err(|error| error.at(lines))?;
        if found.text.is_empty() {
            return Err(Error::new(format!("base name ({}) should not be blank", stage.source)).at(lines));
        }
        stage.source = found.text;
        let mut used = found.used;
        let mut state = StageState { outline: captured.clone(), ..StageState::default() };
        if !stage.platform.is_empty() {
            let (platform, names) = self.platform_of(&stage, captured, linter)?;
            state.platform = Some(platform);
            used.extend(names);
        }
        state.name = if stage.name.is_empty() { format!("stage-{at}") } else { stage.name.clone() };
        if !stage.name.is_empty() {
            let on = state.platform.as_ref().unwrap_or(&self.platform);
            state.context = self.job.named.find(&stage.name, on)?;
        }
        state.stage = stage;
        if state.context.is_some() {
            let added = self.add(state)?;
            self.stages[added].on = None;
            return Ok(());
        }
        let added = self.add(state)?;
        let state = &mut self.stages[added];
        state.outline.used.extend(used);
        let counted = |command: &&Command| {
            let instruction = &command.instruction;
            matches!(
                instruction,
                Instruction::Add(_) | Instruction::Copy(_) | Instruction::Run(_) | Instruction::Workdir(_)
            )
        };
        let own = usize::from(state.stage.source != SCRATCH && state.on.is_none());
        let total = own + state.stage.commands.iter().filter(counted).count();
        state.count = Count { total, ..Count::default() };
        state.ignore_cache = self.job.options.ignores_cache(&state.stage.name);
        Ok(())
    }

    /// A word of `FROM` with its variables filled in.
    fn of_from(&self, word: &str, stage: &Stage, captured: &Capture, linter: &mut Linter) -> Result<Expansion> {
        let found = self.lexer.expand(word, &self.global)?;
        let known: BTreeSet<&str> = captured.all.keys().map(String::as_str).chain(self.global.names()).collect();
        advice::unknown_in_from(&known, &found.missing, stage.place(), linter);
        Ok(found)
    }

    fn platform_of(
        &self,
        stage: &Stage,
        captured: &Capture,
        linter: &mut Linter,
    ) -> Result<(Platform, BTreeSet<String>)> {
        let written = &stage.platform;
        let found = self.of_from(written, stage, captured, linter).map_err(|error| {
            error.prefix(format!("failed to process arguments for platform {written}")).at(stage.lines)
        })?;
        advice::target_platform(stage, &found, &self.global, linter);
        advice::constant_platform(stage, &found, linter);
        let guess = |error: Error| {
            let missing = found.missing.first().map(String::as_str).unwrap_or_default();
            with_suggestion(error, missing, self.global.names(), Case::Sensitive)
        };
        if found.text.is_empty() {
            let error = Error::new(format!("empty platform value from expression {written}"));
            return Err(guess(error.at(stage.lines)));
        }
        let host = self.job.builders.first().unwrap_or(&self.platform);
        let platform = platform::parse(&found.text, host)
            .map_err(|error| guess(error.at(stage.lines)).prefix(format!("failed to parse platform {written}")))?;
        Ok((platform, found.used))
    }

    /// Adds a stage; one of this name before is what it is based on.
    pub fn add(&mut self, mut state: StageState) -> Result<usize> {
        if self.stages.len() >= MAX_STAGES {
            return Err(Error::new(format!("dockerfile needs more than {MAX_STAGES} stages and images")));
        }
        if let Some(on) = self.names.get(&state.stage.source) {
            state.on = Some(*on);
            state.outline = self.stages[*on].outline.clone();
        }
        let at = self.stages.len();
        if !state.stage.name.is_empty() {
            self.names.insert(state.stage.name.clone(), at);
        }
        self.stages.push(state);
        Ok(at)
    }

    /// The stage to build.
    pub fn target(&self) -> Result<usize> {
        let wanted = &self.job.options.target;
        if wanted.is_empty() {
            return Ok(self.stages.len() - 1);
        }
        self.named(wanted).ok_or_else(|| {
            let error = Error::new(format!("target stage {} could not be found", quote(wanted)));
            let names = self.stages.iter().map(|state| state.name.as_str());
            with_suggestion(error, wanted, names, Case::Sensitive)
        })
    }

    fn named(&self, name: &str) -> Option<usize> {
        self.names.get(&name.to_lowercase()).copied()
    }

    /// Finds out what instructions take from other stages.
    pub fn connect(&mut self) -> Result<()> {
        for at in 0..self.stages.len() {
            for command in self.stages[at].stage.commands.clone() {
                let step = self.step(command, at)?;
                self.stages[at].steps.push(step);
            }
        }
        advice::circles(&self.stages)?;
        if let [only] = self.stages.as_mut_slice() {
            only.name = String::new();
        }
        Ok(())
    }

    /// An instruction of a stage with what it takes files from.
    pub fn step(&mut self, command: Command, of: usize) -> Result<Step> {
        let names: Vec<String> = match &command.instruction {
            Instruction::Copy(copy) if !copy.from.is_empty() => {
                let source = self.copy_source(&copy.from, command.lines)?;
                return self.needing(command, of, vec![source]);
            }
            Instruction::Run(run) => {
                let mounts = run.mounts.iter().map(|text| Mount::parse(text, None));
                mounts.map(|mount| mount.map(|mount| mount.from)).collect::<Result<_>>()?
            }
            _ => Vec::new(),
        };
        let mut sources = Vec::new();
        for name in names {
            let name = if name.is_empty() { SCRATCH } else { &name };
            sources.push(match self.named(name) {
                Some(stage) => stage,
                None => self.unnamed(name, Lines::default())?,
            });
        }
        self.needing(command, of, sources)
    }

    fn needing(&mut self, command: Command, of: usize, sources: Vec<usize>) -> Result<Step> {
        let needs = &mut self.stages[of].needs;
        for source in &sources {
            match needs.iter_mut().find(|(known, _)| known == source) {
                Some(known) => known.1 = command.lines,
                None => needs.push((*source, command.lines)),
            }
        }
        Ok(Step { command, sources, trigger: false })
    }

    fn copy_source(&mut self, from: &str, lines: Lines) -> Result<usize> {
        if self.lexer.word(from, &())? != from {
            return Err(Error::new(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global \
                 scope as a workaround",
            ));
        }
        if let Ok(number) = from.parse::<i64>() {
            let known = usize::try_from(number).ok().filter(|at| *at < self.stages.len());
            return known.ok_or_else(|| Error::new(format!("invalid stage index {number}")));
        }
        match self.named(from) {
            Some(stage) => Ok(stage),
            None => self.unnamed(from, lines),
        }
    }

    /// An image or context that only an instruction names.
    fn unnamed(&mut self, name: &str, lines: Lines) -> Result<usize> {
        let stage = Stage { source: name.to_owned(), lines, ..Stage::default() };
        self.add(StageState { stage, unnamed: true, ..StageState::default() })
    }

    /// What a stage needs, itself among it.
    pub fn reachable(&self, target: usize) -> BTreeSet<usize> {
        let mut reachable = BTreeSet::new();
        let mut open = vec![target];
        while let Some(at) = open.pop() {
            if reachable.insert(at) {
                let state = &self.stages[at];
                open.extend(state.on);
                open.extend(state.needs.iter().map(|(source, _)| *source));
            }
        }
        reachable
    }

    /// Whether every stage is looked at.
    pub fn wants_all(&self) -> bool {
        self.job.extent == Extent::All
    }

    /// Notes that paths of a stage are used: they are those of what it is based on, too.
    pub fn uses(&mut self, stage: usize, path: &str) {
        let mut at = stage;
        while let Some(on) = self.stages[at].on {
            at = on;
        }
        self.stages[at].paths.insert(path.to_owned());
    }

    /// A context in the place of an image.
    pub fn context_for(&self, name: &str, on: &Platform) -> Result<Option<Found>> {
        self.job.named.find(name, on)
    }

    /// Loads a context.
    pub fn load(
        &mut self,
        found: &Found,
        on: &Platform,
        inquiry: &mut Inquiry<'_>,
    ) -> Result<Option<crate::context::Loaded>> {
        let (named, resolve) = (self.job.named, self.job.options.resolve.as_str());
        crate::context::Loader { named, resolve, graph: &mut self.graph, inquiry }.load(found, on)
    }
}
