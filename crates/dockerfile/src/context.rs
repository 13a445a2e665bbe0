//! Where the files of a build come from: its main context, and contexts that have names.

use bollard_buildkit_proto::pb;
use model::platform::Platform;
use model::reference::ImageRef;

use crate::error::{Error, Result};
use crate::git::GitSource;
use crate::ignore::ignore_patterns;
use crate::image::Image;
use crate::llb::{self, About, Action, CopyAction, Graph, Output, State, Vertex};
use crate::options::Attributes;
use crate::platform;
use crate::question::{ImageQuestion, Inquiry};

/// The name of the file that says what is left out.
pub const IGNORE_FILE: &str = ".dockerignore";
/// Bytes of it.
pub const MAX_IGNORE_FILE: u64 = 16 << 20;
/// The name of a file that came from a server.
pub const REMOTE_FILE: &str = "context";

/// The main context.
#[derive(Clone, Debug)]
pub enum Main {
    /// A directory of the client, without what these patterns leave out.
    Local(LocalDirectory, Vec<String>),
    /// A repository.
    Git(Box<GitSource>, String),
    /// A single file of a server, which is the Dockerfile.
    File(String),
    /// An archive of a server.
    Archive(String),
    /// What the client made.
    Input(Box<pb::Definition>),
}

/// A directory of the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalDirectory {
    /// As the client names it.
    pub name: String,
    /// Whose it is.
    pub session: String,
}

impl LocalDirectory {
    /// A source of it.
    pub fn source(&self, attributes: &[(&str, &str)], title: &str) -> (Vertex, About) {
        let attributes = [&[("local.session", self.session.as_str())], attributes].concat();
        llb::local(&self.name, &attributes, About::named(title))
    }
}

/// As attributes list them.
pub fn json_list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        words => serde_json::to_string(words).unwrap_or_default(),
    }
}

impl Main {
    /// Adds it to a graph, or a directory of it.
    pub fn add(&self, directory: &str, graph: &mut Graph) -> Result<Option<Output>> {
        let output = match self {
            Main::Local(local, excludes) => {
                let attributes =
                    [("local.excludepatterns", json_list(excludes)), ("local.sharedkeyhint", local.name.clone())];
                let attributes = attributes.each_ref().map(|(key, value)| (*key, value.as_str()));
                let (vertex, about) = local.source(&attributes, "[internal] load build context");
                return Ok(Some(graph.add(vertex, about)));
            }
            Main::Git(source, written) => {
                let (vertex, about) = llb::git(source, About::named(format!("[internal] load git source {written}")));
                Some(graph.add(vertex, about))
            }
            Main::File(url) => Some(remote(url, graph)),
            Main::Archive(url) => {
                let archive = remote(url, graph);
                let form = pb::FileActionCopy {
                    src: format!("/{REMOTE_FILE}"),
                    dest: "/".into(),
                    attempt_unpack_docker_compatibility: true,
                    ..plain_copy()
                };
                Some(copied(archive, form, graph))
            }
            Main::Input(definition) => graph.import(definition)?,
        };
        match output {
            Some(output) if !directory.is_empty() => {
                let src = model::mount::clean(&format!("/{directory}"));
                let form = pb::FileActionCopy { src, dest: "/".into(), dir_copy_contents: true, ..plain_copy() };
                Ok(Some(copied(output, form, graph)))
            }
            output => Ok(output),
        }
    }

    /// Whether it is a directory of the client: others have no ignore files, and are taken whole.
    pub fn is_local(&self) -> bool {
        matches!(self, Main::Local(..))
    }
}

/// A file of a server, as the context of a build.
fn remote(url: &str, graph: &mut Graph) -> Output {
    let (vertex, about) = llb::http(url, [REMOTE_FILE, ""], About::named("[internal] load remote build context"));
    graph.add(vertex, about)
}

/// The definition of that file alone.
pub fn remote_definition(url: &str) -> pb::Definition {
    let mut graph = Graph::default();
    let output = remote(url, &mut graph);
    graph.definition(Some(output), None)
}

/// Without any wish: modes as they are, no time.
pub fn plain_copy() -> pb::FileActionCopy {
    pb::FileActionCopy { mode: -1, timestamp: -1, ..pb::FileActionCopy::default() }
}

fn copied(input: Output, form: pb::FileActionCopy, graph: &mut Graph) -> Output {
    let mut about = About::default();
    about.needs("file.base");
    let copy = CopyAction { input: Some(input), form, owner: None };
    graph.add(Vertex::File(None, vec![Action::Copy(Box::new(copy))]), about)
}

/// Contexts that have names, and what they are looked up with.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// The attributes of the request.
    pub attributes: Attributes,
    /// What the client made.
    pub inputs: std::collections::BTreeMap<String, pb::Definition>,
    /// Of the client.
    pub session: String,
}

/// A named context that a request has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    name: String,
    /// As it is shown.
    shown: String,
    source: String,
}

/// The files of a named context, and the configuration of the image that they are of.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Its files.
    pub state: State,
    /// Whether its paths may be named before it is sent.
    pub partial: bool,
    /// What it says of itself.
    pub image: Option<Image>,
}

impl Named {
    /// The context of a name, for a platform or for all.
    pub fn find(&self, name: &str, on: &Platform) -> Result<Option<Found>> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return Ok(None);
        }
        let invalid = |error: model::Error| Error::from(error).prefix(format!("invalid context name {name}"));
        let familiar = ImageRef::parse_normalized(name).map_err(invalid)?.familiar();
        let name = familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned();
        let names = [format!("{name}::{}", platform::normalized(on)), name.clone()];
        let found = names.into_iter().find_map(|shown| {
            let source = self.attributes.get(&format!("context:{shown}"))?.clone();
            Some(Found { name: name.clone(), shown, source })
        });
        Ok(found)
    }

    /// The session with a directory.
    pub fn session_of(&self, directory: &str) -> String {
        self.attributes.get(&format!("local-sessionid:{directory}")).unwrap_or(&self.session).clone()
    }
}

/// What a named context is loaded with.
pub struct Loader<'a, 'b> {
    /// Where it is described.
    pub named: &'a Named,
    /// `pull`, `local` or empty.
    pub resolve: &'a str,
    /// What it joins.
    pub graph: &'a mut Graph,
    /// Who is asked.
    pub inquiry: &'a mut Inquiry<'b>,
}

impl Loader<'_, '_> {
    /// Loads a context; `None`: something has to be asked first.
    pub fn load(&mut self, found: &Found, on: &Platform) -> Result<Option<Loaded>> {
        let Some((kind, rest)) = found.source.split_once(':') else {
            return Err(Error::new(format!("invalid context specifier {} for {}", found.source, found.shown)));
        };
        match kind {
            "docker-image" => self.image(found, rest, on),
            "oci-layout" => self.layout(found, rest, on),
            "local" => self.local(found, rest),
            "input" => self.input(found, rest),
            "http" | "https" | "git" => self.remote(found, kind),
            kind if kind.starts_with("git@") => self.remote(found, "git"),
            kind => Err(Error::new(format!("unsupported context source {kind} for {}", found.shown))),
        }
    }

    fn image(&mut self, found: &Found, rest: &str, on: &Platform) -> Result<Option<Loaded>> {
        let written = rest.trim_start_matches("//");
        if written == "scratch" {
            return Ok(Some(Loaded { state: State::of(None), ..Loaded::default() }));
        }
        let reference = ImageRef::parse_normalized(written)?.with_default_tag().canonical();
        let question = ImageQuestion {
            reference,
            platform: on.clone(),
            resolve: self.resolve.to_owned(),
            title: format!("[context {}] load metadata for {written}", found.shown),
            layout: None,
        };
        let Some(answer) = self.inquiry.image(question) else { return Ok(None) };
        let answer = answer.map_err(Error::new)?;
        let about = About::named(format!("[context {}] {written}", found.shown));
        let (vertex, about) = llb::image(&answer.reference, "", &platform::normalized(on), about);
        let output = self.graph.add(vertex, about);
        described(output, &answer.config).map(Some)
    }

    fn layout(&mut self, found: &Found, rest: &str, on: &Platform) -> Result<Option<Loaded>> {
        let written = rest.trim_start_matches("//");
        let Some((store, digest)) = written.split_once('@') else {
            return Err(Error::new(format!("oci-layout reference \"{written}\" has no digest")));
        };
        let store = store.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(store, |(name, _)| name);
        let reference = ImageRef::parse_normalized(&found.name)?;
        let reference = format!("{}@{digest}", reference.canonical());
        let layout = [self.named.session.clone(), store.to_owned()];
        let question = ImageQuestion {
            reference: reference.clone(),
            platform: on.clone(),
            resolve: String::new(),
            title: format!("[context {}] load metadata for {reference}", found.shown),
            layout: Some(layout.clone()),
        };
        let Some(answer) = self.inquiry.image(question) else { return Ok(None) };
        let answer = answer.map_err(Error::new)?;
        let about = About::named(format!("[context {}] OCI load from client", found.shown));
        let layout = layout.each_ref().map(String::as_str);
        let (vertex, about) = llb::layout(&reference, layout, &platform::normalized(on), about);
        let output = self.graph.add(vertex, about);
        described(output, &answer.config).map(Some)
    }

    fn local(&mut self, found: &Found, name: &str) -> Result<Option<Loaded>> {
        let shown = &found.shown;
        let directory = LocalDirectory { name: name.to_owned(), session: self.named.session_of(name) };
        let hint = format!("context:{shown}-{IGNORE_FILE}");
        let attributes = [
            ("local.followpaths", "[\".dockerignore\"]"),
            ("local.sharedkeyhint", hint.as_str()),
            ("local.differ", "none"),
        ];
        let mut alone = Graph::default();
        let (vertex, about) = directory.source(&attributes, &format!("[context {shown}] load {IGNORE_FILE}"));
        let output = alone.add(vertex, about);
        let definition = alone.definition(Some(output), None);
        let Some(file) = self.inquiry.file(definition, IGNORE_FILE, MAX_IGNORE_FILE) else { return Ok(None) };
        let excludes = match file.map_err(Error::new)? {
            None => Vec::new(),
            Some(content) => {
                ignore_patterns(content).map_err(|error| error.prefix(format!("failed parsing {IGNORE_FILE}")))?
            }
        };
        let key = self.named.attributes.get(&format!("sharedkey:localdir:{shown}")).cloned().unwrap_or_default();
        let hint = format!("context:{shown}-{key}");
        let excludes = json_list(&excludes);
        let attributes = [("local.sharedkeyhint", hint.as_str()), ("local.excludepatterns", excludes.as_str())];
        let (vertex, about) = directory.source(&attributes, &format!("[context {shown}] load from client"));
        let output = self.graph.add(vertex, about);
        Ok(Some(Loaded { state: State::of(Some(output)), partial: true, image: None }))
    }

    fn input(&mut self, found: &Found, name: &str) -> Result<Option<Loaded>> {
        let Some(definition) = self.named.inputs.get(name) else {
            return Err(Error::new(format!("invalid input {name} for {}", found.shown)));
        };
        let state = State::of(self.graph.import(definition)?);
        let mut loaded = Loaded { state, partial: false, image: None };
        if let Some(metadata) = self.named.attributes.get(&format!("input-metadata:{name}")) {
            let invalid = || Error::new(format!("failed to parse input metadata {metadata}"));
            let values: std::collections::BTreeMap<String, String> =
                serde_json::from_str(metadata).map_err(|_| invalid())?;
            if let Some(encoded) = values.get("containerimage.config") {
                let config = base64_bytes(encoded).ok_or_else(invalid)?;
                loaded = with_config(loaded, &config)?;
            }
        }
        Ok(Some(loaded))
    }

    fn remote(&mut self, found: &Found, kind: &str) -> Result<Option<Loaded>> {
        let source = &found.source;
        let (vertex, about) = match GitSource::parse(source)? {
            Some(git) => llb::git(&git, About::named(format!("[internal] load git source {source}"))),
            None if kind == "git" => return Err(Error::new(format!("invalid git context {source}"))),
            None => llb::http(source, [REMOTE_FILE, ""], About::named(format!("[context {}] {source}", found.shown))),
        };
        let output = self.graph.add(vertex, about);
        Ok(Some(Loaded { state: State::of(Some(output)), partial: false, image: None }))
    }
}

fn described(output: Output, config: &[u8]) -> Result<Loaded> {
    with_config(Loaded { state: State::of(Some(output)), partial: false, image: None }, config)
}

/// Environment, directory and platform are those of the image.
fn with_config(mut loaded: Loaded, config: &[u8]) -> Result<Loaded> {
    let mut image = Image::read(config)?;
    image.created = None;
    for line in &image.config.env {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        loaded.state.env.set(name, value);
    }
    loaded.state.directory.clone_from(&image.config.working_dir);
    if !image.os.is_empty() && !image.architecture.is_empty() {
        loaded.state.platform = Some(platform::normalized(&image.platform()));
    }
    loaded.image = Some(image);
    Ok(loaded)
}

/// Bytes in JSON, as Go writes them.
fn base64_bytes(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}
