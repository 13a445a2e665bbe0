//! What a stage begins with: nothing, an image, a context.

use model::digest::Digest;
use model::platform::Platform;
use model::reference::ImageRef;

use super::at::{Error, Result};
use super::plan::{Plan, SCRATCH};
use super::{advice, title};
use crate::image::Image;
use crate::lint::Linter;
use crate::llb::{self, About, State};
use crate::platform::normalized;
use crate::question::{ImageAnswer, ImageQuestion, Inquiry};
use crate::suggest::{Case, with_suggestion};

/// Images that many begin with: what was meant may be one of them.
const WELL_KNOWN: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

/// Finds out what a stage begins with. Of one that is not needed only whether its name is one.
pub(super) fn resolve(
    plan: &mut Plan<'_>,
    at: usize,
    needed: bool,
    linter: &mut Linter,
    inquiry: &mut Inquiry<'_>,
) -> Result<()> {
    let state = &mut plan.stages[at];
    if state.stage.source == SCRATCH && state.context.is_none() {
        state.state = State::of(None);
        state.image = Image::empty(&plan.platform);
        state.platform = Some(plan.platform.clone());
        state.progress.done = state.unnamed;
        return Ok(());
    }
    let lines = state.lines();
    let done = begin(plan, at, needed, linter, inquiry).map_err(|error| error.at(lines));
    let state = &mut plan.stages[at];
    state.progress.done |= state.unnamed;
    done
}

fn begin(plan: &mut Plan<'_>, at: usize, needed: bool, linter: &mut Linter, inquiry: &mut Inquiry<'_>) -> Result<()> {
    let written = plan.stages[at].stage.source.clone();
    let invalid = |error: model::Error| {
        Error::from(error).prefix(format!("failed to parse stage name {}", crate::text::quote(&written)))
    };
    let reference = ImageRef::parse_normalized(&written).map_err(invalid)?;
    let platform = plan.stages[at].platform.clone().unwrap_or_else(|| plan.platform.clone());
    let full = reference.clone().with_default_tag().canonical();
    if !needed {
        plan.stages[at].platform = Some(platform);
        return Ok(());
    }
    if let Some(found) = plan.stages[at].context.clone() {
        return in_its_place(plan, at, &found, inquiry);
    }
    if let Some(found) = plan.context_for(&full, &platform)? {
        let Some(loaded) = plan.load(&found, &platform, inquiry)? else { return Ok(()) };
        let mut image = loaded.image.unwrap_or_else(|| Image::empty(&platform));
        let state = &mut plan.stages[at];
        state.origin = Some(image.clone());
        image.created = None;
        state.image = image;
        state.partial = loaded.state.output.filter(|_| loaded.partial);
        state.state = loaded.state;
        state.state.platform = Some(normalized(&platform));
        state.platform = Some(platform);
        return Ok(());
    }
    let question = ImageQuestion {
        reference: full.clone(),
        platform: platform.clone(),
        resolve: plan.job.options.resolve.clone(),
        title: metadata_title(plan, &platform, &full),
        layout: None,
    };
    let Some(answer) = inquiry.image(question) else { return Ok(()) };
    let answer = answer.map_err(|why| unknown(plan, &written, why))?;
    from_image(plan, at, answer, linter)
}

fn metadata_title(plan: &Plan<'_>, platform: &Platform, reference: &str) -> String {
    let platform = match plan.job.options.multiple {
        true => format!("{} ", normalized(platform)),
        false => String::new(),
    };
    format!("[{platform}internal] load metadata for {reference}")
}

fn unknown(plan: &Plan<'_>, written: &str, why: String) -> Error {
    let error = Error::new(why).prefix(written);
    let names: Vec<String> =
        WELL_KNOWN.iter().flat_map(|name| [(*name).to_owned(), format!("{name}:latest")]).collect();
    let stages = plan.stages.iter().map(|state| state.name.as_str()).filter(|name| !name.is_empty());
    with_suggestion(error, written, stages.chain(names.iter().map(String::as_str)), Case::Sensitive)
}

/// A context that takes the place of a whole stage.
fn in_its_place(
    plan: &mut Plan<'_>,
    at: usize,
    found: &crate::context::Found,
    inquiry: &mut Inquiry<'_>,
) -> Result<()> {
    let on = plan.stages[at].platform.clone().unwrap_or_else(|| plan.platform.clone());
    let Some(loaded) = plan.load(found, &on, inquiry)? else { return Ok(()) };
    let state = &mut plan.stages[at];
    state.progress.done = true;
    state.partial = loaded.state.output.filter(|_| loaded.partial);
    state.state = loaded.state;
    if let Some(image) = loaded.image {
        if !image.os.is_empty() && !image.architecture.is_empty() {
            state.platform = Some(image.platform());
        }
        state.image = image;
    }
    Ok(())
}

fn from_image(plan: &mut Plan<'_>, at: usize, answer: &ImageAnswer, linter: &mut Linter) -> Result<()> {
    let mut image = Image::read(&answer.config)?;
    let written = plan.stages[at].stage.source.clone();
    let platform = own_platform(plan, at, &image);
    let mut reference = ImageRef::parse_normalized(&answer.reference)?.with_default_tag();
    if !answer.digest.is_empty() {
        reference.digest = Some(Digest::parse(&answer.digest)?);
    }
    let full = reference.canonical();
    let layers = image.rootfs.diff_ids.as_ref().is_some_and(|layers| !layers.is_empty())
        || image.history.iter().any(|row| !row.empty_layer);
    let state = &mut plan.stages[at];
    state.origin = Some(image.clone());
    image.created = None;
    state.stage.source.clone_from(&full);
    let found = image.platform();
    state.image = image;
    if !layers {
        state.state = State::of(None);
        state.platform = Some(platform);
        return Ok(());
    }
    let shown = title::Shown { multiple: plan.job.options.multiple, platform: Some(&platform), variables: &() };
    let mut about = About::named(title::next(state, &format!("FROM {full}"), &shown));
    about.describe("com.docker.dockerfile.v1.command", state.stage.text.clone());
    about.lines = if state.lines().first == 0 { Vec::new() } else { vec![state.lines()] };
    let (vertex, about) = llb::image(&full, &plan.job.options.resolve, &normalized(&platform), about);
    state.state = State::of(Some(plan.graph.add(vertex, about)));
    state.state.platform = Some(normalized(&platform));
    advice::image_platform(&written, [&platform, &found], state.stage.place(), linter);
    state.platform = Some(platform);
    Ok(())
}

/// The platform of an image where nobody asked for one: one that the builder runs.
fn own_platform(plan: &Plan<'_>, at: usize, image: &Image) -> Platform {
    if let Some(platform) = &plan.stages[at].platform {
        return platform.clone();
    }
    let same = |platform: &&Platform| platform.os == image.os && platform.architecture == image.architecture;
    let wanted = &plan.platform;
    if plan.job.target.is_some() || same(&wanted) {
        return wanted.clone();
    }
    plan.job.builders.iter().find(same).unwrap_or(wanted).clone()
}
