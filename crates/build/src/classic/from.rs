//! `FROM`: how a stage begins.

use std::sync::Arc;

use dockerfile::instruction as df;
use image::oci::Document;
use image::{PullArgs, ResolvedImage};
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Context as _, Error, Kind, Result};
use tokio::sync::mpsc;

use super::build::{Build, Failed, environment};
use super::stage::Stage;
use crate::key::Key;
use crate::result::Solved;

/// Where commands are looked for if nothing else is said.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// No image below.
const SCRATCH: &str = "scratch";
/// Lines of a pull that wait for nobody.
const UNHEARD: usize = 16;

impl Build {
    /// `FROM`
    pub(super) async fn begin(&mut self, stage: &df::Stage) -> Result<Stage, Failed> {
        let known = environment(self.arguments.global());
        let expand = |text: &str| self.lexer.word(text, &known).map_err(|error| Error::invalid(error.message()));
        let platform = match stage.platform.as_str() {
            "" => None,
            text => {
                let text = expand(text)?;
                let host = image::oci::host();
                Some(Platform::parse(&text, &host).with_context(|| format!("failed to parse platform {text}"))?)
            }
        };
        let source = expand(&stage.source)?;
        if source.is_empty() {
            return Err(Error::system(format!("base name ({}) should not be blank", stage.source)).into());
        }
        let mut state = self.on(&source, platform).await?;
        state.name.clone_from(&stage.name);
        if !state.config.env.iter().any(|line| line.starts_with("PATH=")) {
            state.config.env.push(PATH.into());
        }
        let triggers = std::mem::take(&mut state.config.on_build);
        if !triggers.is_empty() {
            let plural = if triggers.len() > 1 { "s" } else { "" };
            self.say(format!("# Executing {} build trigger{plural}\n", triggers.len())).await?;
        }
        for trigger in triggers {
            let command = df::trigger(&trigger, stage.lines).map_err(|error| Error::invalid(error.message()))?;
            self.dispatch(&mut state, &command, false).await?;
        }
        Ok(state)
    }

    /// A stage on an earlier stage, an image, or nothing.
    async fn on(&mut self, source: &str, platform: Option<Platform>) -> Result<Stage, Failed> {
        let named = source.to_lowercase();
        if let Some(done) = self.stages.iter().find(|done| !done.name.is_empty() && done.name == named) {
            return Ok(Stage { name: String::new(), has_command: false, exported: None, ..done.clone() });
        }
        let host = image::oci::host();
        let wanted = platform.or_else(|| self.options.platform.clone());
        if source == SCRATCH {
            let on = wanted.unwrap_or(host);
            let nothing = Solved { key: Key::new("scratch").finish(), outputs: Default::default(), cached: true };
            return Ok(Stage {
                name: String::new(),
                config: api::ImageConfig::default(),
                key: nothing.key.clone(),
                files: Arc::new(nothing),
                base: None,
                platform: api::Platform {
                    os: on.os,
                    architecture: on.architecture,
                    variant: on.variant,
                    ..api::Platform::default()
                },
                author: String::new(),
                history: Vec::new(),
                created: String::new(),
                has_command: false,
                steps: 0,
                exported: None,
            });
        }
        let (found, files) = self.image(source, wanted.as_ref()).await?;
        let document = document(self, &found)?;
        Ok(Stage {
            name: String::new(),
            config: found.config,
            key: found.id.clone(),
            files,
            base: Some(found.id),
            platform: document.platform,
            author: document.author,
            history: document.history,
            created: document.created,
            has_command: false,
            steps: 0,
            exported: None,
        })
    }

    /// An image and its files; it is pulled when it is not here, or when the client wants that.
    pub(super) async fn image(
        &mut self,
        source: &str,
        platform: Option<&Platform>,
    ) -> Result<(ResolvedImage, Arc<Solved>)> {
        let text = platform.map(Platform::to_string);
        let here = self.job.builder.images.resolve(source, text.as_deref());
        let found = match here {
            Ok(found) if !self.options.pull => found,
            Err(error) if error.kind() != Kind::NotFound => return Err(error),
            _ => {
                self.pull(source, platform).await?;
                self.job.builder.images.resolve(source, text.as_deref())?
            }
        };
        let (job, own) = (self.job.clone(), found.clone());
        let chain = self.job.builder.threads.run(move |_| crate::of_image(&job, &own)).await?;
        let files = Solved { key: crate::key_of(&chain), outputs: [(0, chain)].into(), cached: true };
        Ok((found, Arc::new(files)))
    }

    async fn pull(&mut self, source: &str, platform: Option<&Platform>) -> Result<()> {
        let reference = ImageRef::parse_normalized(source)?.with_default_tag();
        let names = [reference.domain.as_str(), "https://index.docker.io/v1/"];
        let is_hub = reference.domain == "docker.io";
        let credentials = names.into_iter().take(if is_hub { 2 } else { 1 });
        let credentials = credentials.filter_map(|name| self.options.credentials.get(name)).next();
        let args =
            PullArgs { reference, platform: platform.cloned(), credentials: credentials.cloned().unwrap_or_default() };
        let images = &self.job.builder.images;
        let (bus, transfers) = (&self.client.bus, self.client.transfers);
        if !self.options.quiet {
            // On the heap: what is awaited here is large, and is part of all that awaits it.
            return Box::pin(image::pull(images, bus, transfers, args, &self.client.lines)).await;
        }
        let (lines, mut unheard) = mpsc::channel(UNHEARD);
        let drain = async { while unheard.recv().await.is_some() {} };
        let pull = async {
            let pulled = Box::pin(image::pull(images, bus, transfers, args, &lines)).await;
            drop(lines);
            pulled
        };
        tokio::join!(pull, drain).0
    }
}

/// The configuration of the manifest that was chosen.
pub(super) fn document(build: &Build, found: &ResolvedImage) -> Result<Document> {
    let catalog = build.job.builder.images.catalog();
    let row = catalog.images.get(&found.id);
    let manifest = found.manifest.as_ref().map(|(_, digest, _)| digest);
    let row = row.and_then(|row| row.manifests.iter().find(|row| Some(&row.content.digest) == manifest));
    let document = row.and_then(|row| row.document.clone());
    document.ok_or_else(|| Error::not_found(format!("No such image: {}", found.id)))
}
