//! What goes into a conversion and what comes out of it.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use model::platform::Platform;

use crate::context::{Main, Named};
use crate::image::Image;
use crate::lines::Lines;
use crate::options::Options;

/// What is converted.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The Dockerfile.
    pub text: &'a str,
    /// How it is shown to the client.
    pub file: &'a pb::SourceInfo,
    /// What the request says.
    pub options: &'a Options,
    /// Where the result is to run; `None`: where it is built, or where its base image does.
    pub target: Option<&'a Platform>,
    /// What the builder runs, its own platform first.
    pub builders: &'a [Platform],
    /// The main context.
    pub main: &'a Main,
    /// A directory of it; empty: all.
    pub directory: &'a str,
    /// Other contexts.
    pub named: &'a Named,
    /// What is looked at.
    pub extent: Extent,
}

/// What of a Dockerfile is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What the target needs.
    Target,
    /// Every stage.
    All,
}

/// What a Dockerfile became.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// The files of the target.
    pub definition: pb::Definition,
    /// Its configuration; the layers of this build are not in it yet.
    pub image: Image,
    /// That of the image it is based on.
    pub origin: Option<Image>,
    /// The time that was chosen for the build, in seconds since 1970.
    pub epoch: Option<i64>,
    /// Other files whose packages are to be listed, by name: `context`, stages.
    pub extras: BTreeMap<String, pb::Definition>,
    /// Whether a stage of it does not use the cache.
    pub ignores_cache: bool,
    /// What it can be built with.
    pub outline: Outline,
}

/// What a target can be built with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Of the stage; empty if it has none.
    pub name: String,
    /// The comment above it.
    pub description: String,
    /// Build arguments.
    pub arguments: Vec<Entry>,
    /// Secrets.
    pub secrets: Vec<Entry>,
    /// Agents.
    pub agents: Vec<Entry>,
}

/// Something that a client may give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// How it is named.
    pub name: String,
    /// What it is without the client.
    pub value: String,
    /// The comment above it.
    pub description: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// Where it is asked for.
    pub lines: Lines,
}
