//! `cachefrom`: the images that a client names, and the steps that are taken from them. What was built here is found without
//! naming an image.

use std::sync::Arc;

use image::oci::Document;
use model::Result;

use super::build::{Build, Failed};
use super::from::document;
use super::source::{Known, Source};
use super::stage::Stage;
use crate::result::Solved;

/// Images that one build may name.
const SOURCES: usize = 64;

impl Build {
    /// The images that the client names and that are here; others are left out, as with the reference.
    pub(super) async fn cache_sources(&self) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        if self.options.no_cache {
            return Ok(sources);
        }
        for name in self.options.cache_from.iter().take(SOURCES) {
            match self.cache_source(name).await {
                Ok(source) => sources.push(source),
                Err(error) => tracing::warn!(%error, image = name, "no steps of this image are used"),
            }
        }
        Ok(sources)
    }

    async fn cache_source(&self, name: &str) -> Result<Source> {
        let platform = self.options.platform.as_ref().map(ToString::to_string);
        let found = self.job.builder.images.resolve(name, platform.as_deref())?;
        let Document { history, .. } = document(self, &found)?;
        let (job, id) = (self.job.clone(), found.id.clone());
        let chain = self.job.builder.threads.run(move |_| crate::of_image(&job, &found)).await?;
        Ok(Source { id, history, chain })
    }

    /// Takes a step's result from an image that has it; whether there is one.
    pub(super) async fn adopt(&mut self, stage: &mut Stage, created_by: &str) -> Result<bool, Failed> {
        let layers = stage.files.chain(0);
        let known = self.sources.iter().find_map(|source| source.step(&stage.history, &layers, created_by));
        let Some(Known { history, chain, whole }) = known else { return Ok(false) };
        self.say(" ---> Using cache\n".into()).await?;
        let files = crate::key_of(&chain);
        stage.key = self.next_key(stage, created_by, Some(&files))?;
        stage.files = Arc::new(Solved { key: files, outputs: [(0, chain)].into(), cached: true });
        stage.adopt(history, whole);
        Ok(true)
    }
}
