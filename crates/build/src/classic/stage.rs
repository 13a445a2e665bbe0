//! A stage of a classic build, as far as it has come.

use std::sync::Arc;

use image::oci::{Document, History, Rootfs};
use model::digest::Digest;
use model::time::Timestamp;

use crate::result::Solved;

/// See the module.
#[derive(Clone)]
pub(super) struct Stage {
    /// In lower case; empty if it has none.
    pub name: String,
    /// What a container of it does.
    pub config: api::ImageConfig,
    /// Its files.
    pub files: Arc<Solved>,
    /// What it depends on.
    pub key: Digest,
    /// The image that it is built on; `None`: nothing.
    pub base: Option<Digest>,
    /// Where it runs.
    pub platform: api::Platform,
    /// Of `MAINTAINER`, or the base image's.
    pub author: String,
    /// How it came about.
    pub history: Vec<History>,
    /// When its last step was done.
    pub created: String,
    /// It has a command of its own, which an entrypoint leaves.
    pub has_command: bool,
    /// Steps that were done to the base.
    pub steps: usize,
    /// The image that it became.
    pub exported: Option<Digest>,
}

impl Stage {
    /// Whether nothing was done to what it is built on.
    pub fn is_untouched(&self) -> bool {
        self.steps == 0
    }

    /// What it is known by; `None`: there is nothing yet.
    pub fn id(&self) -> Option<&Digest> {
        match &self.exported {
            Some(id) => Some(id),
            None if self.is_untouched() => self.base.as_ref(),
            None => Some(&self.key),
        }
    }

    /// The beginning of its id.
    pub fn shown(&self) -> &str {
        self.id().map_or("", Digest::short)
    }

    /// Notes a step that was done at a time.
    pub fn note(&mut self, created_by: String, created: Timestamp, empty_layer: bool) {
        self.created = created.rfc3339_nano();
        self.steps += 1;
        self.history.push(History {
            created: self.created.clone(),
            created_by,
            author: self.author.clone(),
            comment: String::new(),
            empty_layer,
        });
    }

    /// Notes a step as an image tells of it; `whole`: the image, when the stage is all of it now.
    pub fn adopt(&mut self, step: History, whole: Option<Digest>) {
        self.created.clone_from(&step.created);
        self.history.push(step);
        self.steps += 1;
        if whole.is_some() {
            self.base = whole;
            self.steps = 0;
        }
    }

    /// As it is written down.
    pub fn document(&self) -> Document {
        Document {
            created: self.created.clone(),
            author: self.author.clone(),
            platform: self.platform.clone(),
            config: self.config.clone(),
            rootfs: Rootfs::default(),
            history: self.history.clone(),
        }
    }

    /// The words by which a shell is started.
    pub fn shell(&self) -> Vec<String> {
        if self.config.shell.is_empty() { vec!["/bin/sh".into(), "-c".into()] } else { self.config.shell.clone() }
    }
}
