//! The front end `dockerfile.v0`: from a request to definitions, one for each platform, or to what is told about a file.
//!
//! It is asked again with more answers until it asks nothing. It keeps nothing between.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use model::platform::Platform;
use model::reference::ImageRef;

use crate::context::{self, IGNORE_FILE, LocalDirectory, MAX_IGNORE_FILE, Main, Named, REMOTE_FILE, json_list};
use crate::convert::{self, Conversion, Converted, Extent, Job};
use crate::error::Error;
use crate::git::GitSource;
use crate::ignore::ignore_patterns;
use crate::lines::Lines;
use crate::lint::Warning;
use crate::llb::{self, Graph};
use crate::options::{Attributes, Options};
use crate::parse::{self, Syntax};
use crate::platform::normalized;
use crate::question::{Answers, Inquiry, Question};
use crate::report;
use crate::text::{boolean, last_element};

/// The usual name of a Dockerfile.
const DOCKERFILE: &str = "Dockerfile";
/// Bytes of a Dockerfile.
const MAX_DOCKERFILE: u64 = 4 << 20;
/// Bytes of a file of a server that show whether it is an archive.
const ARCHIVE_HEAD: u64 = 1024;
/// What clients may ask a front end to be able to do.
const CAPABILITIES: [&str; 4] = [
    "moby.buildkit.frontend.inputs",
    "moby.buildkit.frontend.subrequests",
    "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.gitquerystring",
];

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// What it says.
    pub attributes: Attributes,
    /// Definitions that the client made.
    pub inputs: BTreeMap<String, pb::Definition>,
    /// Of the client.
    pub session: String,
    /// What the builder runs, its own platform first.
    pub platforms: Vec<Platform>,
    /// Who serves `# syntax=docker/dockerfile:…`.
    pub syntax: OwnSyntax,
}

/// Who serves the directive `syntax` where it names the usual front end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnSyntax {
    /// This one.
    #[default]
    Served,
    /// The image that it names.
    Forwarded,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// This has to be known first.
    Asks(Vec<Question>),
    /// To be built.
    Build(Box<Build>),
    /// The answer to a request that builds nothing, by name: `result.json`, `result.txt` and so on.
    Answer(BTreeMap<String, Vec<u8>>),
    /// Another front end is asked for. Its image errors are about these lines of the file.
    Forward(Syntax, pb::SourceInfo),
}

/// What is to be built.
#[derive(Debug)]
pub struct Build {
    /// One for each platform.
    pub results: Vec<Target>,
    /// Whether the results are told apart, even if there is one.
    pub multiple: bool,
    /// Findings, about the file.
    pub warnings: Vec<Warning>,
    /// The Dockerfile.
    pub file: pb::SourceInfo,
    /// The name of the vertex that loads it, to which the findings belong.
    pub loaded_by: String,
    /// The options of the request.
    pub options: Options,
}

/// A result for a platform.
#[derive(Debug)]
pub struct Target {
    /// How it is named among the results.
    pub id: String,
    /// On what it runs.
    pub platform: Platform,
    /// How it is made.
    pub conversion: Conversion,
}

/// Why a request failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The text, and lines of the file.
    pub error: Error,
    /// The file, where it was read already.
    pub file: Option<Box<pb::SourceInfo>>,
    /// Whether the request asks for what a front end of this kind cannot do.
    pub unsupported: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, file: None, unsupported: false }
    }
}

fn unsupported(why: String) -> Failure {
    Failure { error: Error::new(why), file: None, unsupported: true }
}

/// Answers a request, or asks.
pub fn answer(request: &Request, answers: &Answers) -> Result<Outcome, Failure> {
    let host = request.platforms.first().cloned().unwrap_or_else(|| Platform::new("linux", "amd64", ""));
    let options = Options::read(&request.attributes, &host)?;
    let lacking = capabilities(request)?;
    let mut inquiry = Inquiry::new(answers);
    let Some(source) = Source::find(request, &mut inquiry)? else { return Ok(Outcome::Asks(inquiry.into_open())) };
    let Some(read) = source.read(request, &mut inquiry)? else { return Ok(Outcome::Asks(inquiry.into_open())) };
    let located = |mut failure: Failure| {
        failure.file.get_or_insert_with(|| Box::new(read.file.clone()));
        failure
    };
    if let Some(syntax) = other(request, &read.text)? {
        return Ok(Outcome::Forward(syntax, read.file));
    }
    if let Some(capability) = lacking {
        return Err(unsupported(format!("unsupported frontend capability {capability}")));
    }
    match request.attributes.get("requestid") {
        None => build(request, (&options, &read), answers).map_err(located),
        Some(wanted) => tell(request, (&options, &read), wanted, answers).map_err(located),
    }
}

/// What the client wants that this cannot do, if another front end may be able to.
fn capabilities(request: &Request) -> Result<Option<String>, Failure> {
    let mut lacking = None;
    let wanted = request.attributes.get("frontend.caps").map(String::as_str).unwrap_or_default();
    for wanted in wanted.split(',').filter(|wanted| !wanted.is_empty()) {
        let name = wanted.split('+').next().unwrap_or_default();
        if CAPABILITIES.contains(&name) {
            continue;
        }
        if !wanted.contains("+forward") {
            return Err(unsupported(format!("unsupported frontend capability {name}")));
        }
        lacking = Some(name.to_owned());
    }
    Ok(lacking)
}

/// The front end that the request or the file asks for, if it is another one.
fn other(request: &Request, text: &str) -> Result<Option<Syntax>, Failure> {
    if request.attributes.contains_key("cmdline") {
        return Ok(None);
    }
    let syntax = match request.attributes.get("build-arg:BUILDKIT_SYNTAX") {
        None => parse::syntax(text),
        Some(command) => {
            let command = command.trim();
            if command.is_empty() {
                return Err(Error::new("empty BUILDKIT_SYNTAX build-arg is invalid").into());
            }
            let image = command.split(' ').next().unwrap_or_default().to_owned();
            Some(Syntax { image, command: command.to_owned(), lines: Lines::default() })
        }
    };
    Ok(syntax.filter(|syntax| {
        syntax.image != "dockerfile.v0" && !(request.syntax == OwnSyntax::Served && is_usual(&syntax.image))
    }))
}

/// Whether an image is the front end that this one is, whatever its version.
pub fn is_usual(image: &str) -> bool {
    let name = ImageRef::parse_normalized(image).map(|reference| reference.name()).unwrap_or_default();
    matches!(name.as_str(), "docker.io/docker/dockerfile" | "docker.io/docker/dockerfile-upstream")
}

/// Where the Dockerfile and the main context are.
struct Source {
    main: Option<Main>,
    directory: String,
    /// The name of the Dockerfile.
    name: String,
    definition: pb::Definition,
}

/// What was read.
struct Read {
    text: String,
    file: pb::SourceInfo,
    loaded_by: String,
    main: Main,
    directory: String,
}

impl Source {
    /// `None`: it has to be asked whether what a server has is an archive.
    fn find(request: &Request, inquiry: &mut Inquiry<'_>) -> Result<Option<Source>, Failure> {
        let text = |key: &str| request.attributes.get(key).map(String::as_str).unwrap_or_default();
        let key = request.attributes.get("contextkey").map_or("context", String::as_str);
        let mut name = request.attributes.get("filename").map_or(DOCKERFILE, String::as_str);
        let address = text(key);
        let mut main = None;
        if let Some(git) = GitSource::parse(address)? {
            main = Some(Main::Git(Box::new(with_wishes(git, request)), address.to_owned()));
        } else if address.starts_with("http://") || address.starts_with("https://") {
            let head = inquiry.file(context::remote_definition(address), REMOTE_FILE, ARCHIVE_HEAD);
            let Some(head) = head else { return Ok(None) };
            let head = head.map_err(|why| Error::new(why).prefix("failed to read downloaded context"))?;
            main = Some(match head.is_some_and(is_archive) {
                true => Main::Archive(address.to_owned()),
                false => Main::File(address.to_owned()),
            });
            if matches!(main, Some(Main::File(_))) {
                name = REMOTE_FILE;
            }
        }
        let local = request.attributes.get("dockerfilekey");
        let given = local.map_or("dockerfile", String::as_str);
        let mut definition = None;
        if main.is_none() {
            let input = request.inputs.get(given).filter(|_| local.is_none());
            definition = input.cloned();
            main = request.inputs.get("context").map(|input| Main::Input(Box::new(input.clone())));
        } else if let (Some(main), None) = (&main, local) {
            let mut graph = Graph::default();
            let output = main.add(text("contextsubdir"), &mut graph)?;
            definition = Some(graph.definition(output, None));
        }
        let definition = definition.unwrap_or_else(|| from_client(request, given, name));
        let directory = text("contextsubdir").to_owned();
        Ok(Some(Source { main, directory, name: name.to_owned(), definition }))
    }

    /// `None`: a file has to be read first.
    fn read(self, request: &Request, inquiry: &mut Inquiry<'_>) -> Result<Option<Read>, Failure> {
        let mut file = |name: &str, limit: u64| inquiry.file(self.definition.clone(), name, limit);
        let ignore_name = format!("{}{IGNORE_FILE}", self.name);
        let (first, ignore) = (file(&self.name, MAX_DOCKERFILE), file(&ignore_name, MAX_IGNORE_FILE));
        let usual = last_element(&self.name) == DOCKERFILE;
        let lower = format!("{}{}", &self.name[..self.name.len() - last_element(&self.name).len()], "dockerfile");
        let failed = |why: String| Error::new(why).prefix("failed to read dockerfile");
        let Some(first) = first else { return Ok(None) };
        let content = match first.map_err(failed)? {
            None if usual => match file(&lower, MAX_DOCKERFILE) {
                None => return Ok(None),
                Some(content) => content.map_err(failed)?,
            },
            content => content,
        };
        let missing = || failed(format!("open {}: no such file or directory", self.name));
        let content = content.ok_or_else(missing)?;
        let (text, head) = (String::from_utf8_lossy(content).into_owned(), self.definition.def.clone());
        let Some(ignore) = ignore else { return Ok(None) };
        let own = ignore.ok().flatten().map(|content| (content, ignore_name));
        let info = pb::SourceInfo {
            filename: self.name.clone(),
            data: content.to_vec(),
            definition: Some(self.definition),
            language: DOCKERFILE.into(),
        };
        let loaded_by = match head.as_slice() {
            [.., vertex, _] => llb::name(vertex).to_string(),
            _ => String::new(),
        };
        let main = match self.main {
            Some(main) => main,
            None => match context_of_client(request, own, inquiry)? {
                None => return Ok(None),
                Some(main) => main,
            },
        };
        Ok(Some(Read { text, file: info, loaded_by, main, directory: self.directory }))
    }
}

/// What the request wants of the repository that is the context.
fn with_wishes(mut git: GitSource, request: &Request) -> GitSource {
    let text = |key: &str| request.attributes.get(key).map(String::as_str).unwrap_or_default();
    if boolean(text("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR")) == Some(true) {
        git.keep_git_dir = Some(true);
    }
    if !text("build-arg:SOURCE_DATE_EPOCH").is_empty() && git.mtime.is_empty() {
        git.mtime = "commit".into();
    }
    git
}

/// bzip2, gzip, xz or a tar without either.
fn is_archive(head: &[u8]) -> bool {
    let magic: [&[u8]; 3] = [b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\0"];
    // The sum of a header's bytes is written in it, its own place taken for blanks (tar(5)).
    let is_tar = head.get(..512).is_some_and(|header| {
        let written = header[148..156].iter().copied().filter(u8::is_ascii_digit);
        let written = written.fold(0_u32, |sum, digit| sum.wrapping_mul(8).wrapping_add(u32::from(digit - b'0')));
        let sum: u32 = header
            .iter()
            .enumerate()
            .map(|(at, byte)| match at {
                148..156 => 32,
                _ => u32::from(*byte),
            })
            .sum();
        written == sum
    });
    is_tar || magic.iter().any(|magic| head.starts_with(magic))
}

/// The directory of the client with the Dockerfile: this file and its ignore file of it.
fn from_client(request: &Request, local: &str, name: &str) -> pb::Definition {
    let mut paths = vec![name.to_owned(), format!("{name}{IGNORE_FILE}")];
    if last_element(name) == DOCKERFILE {
        paths.push(format!("{}dockerfile", &name[..name.len() - DOCKERFILE.len()]));
    }
    let paths = json_list(&paths);
    let attributes = [("local.followpaths", paths.as_str()), ("local.sharedkeyhint", local), ("local.differ", "none")];
    only(request, local, &attributes, &format!("[internal] load build definition from {name}"))
}

/// The definition of a directory of the client.
fn only(request: &Request, local: &str, attributes: &[(&str, &str)], title: &str) -> pb::Definition {
    let mut graph = Graph::default();
    let (vertex, about) = directory(request, local).source(attributes, title);
    let output = graph.add(vertex, about);
    graph.definition(Some(output), None)
}

fn directory(request: &Request, local: &str) -> LocalDirectory {
    let session = request.attributes.get(&format!("local-sessionid:{local}")).unwrap_or(&request.session);
    LocalDirectory { name: local.to_owned(), session: session.clone() }
}

/// The client's context. An ignore file of the Dockerfile's own counts alone, if it is not empty.
fn context_of_client(
    request: &Request,
    own: Option<(&[u8], String)>,
    inquiry: &mut Inquiry<'_>,
) -> Result<Option<Main>, Failure> {
    const LOCAL: &str = "context";
    let (content, name) = match own {
        Some((content, name)) => (Some(content), name),
        None => {
            let hint = format!("{LOCAL}-{IGNORE_FILE}");
            let paths = json_list(&[IGNORE_FILE.to_owned()]);
            let attributes = [
                ("local.followpaths", paths.as_str()),
                ("local.sharedkeyhint", hint.as_str()),
                ("local.differ", "none"),
            ];
            let definition = only(request, LOCAL, &attributes, &format!("[internal] load {IGNORE_FILE}"));
            let Some(content) = inquiry.file(definition, IGNORE_FILE, MAX_IGNORE_FILE) else { return Ok(None) };
            (content.map_err(Error::new)?, IGNORE_FILE.to_owned())
        }
    };
    let patterns = ignore_patterns(content.unwrap_or_default())
        .map_err(|error| Error::from(error).prefix(format!("failed parsing {name}")))?;
    Ok(Some(Main::Local(directory(request, LOCAL), patterns)))
}

/// What a conversion is made from, but the platform.
type Prepared<'a> = (&'a Options, &'a Read);

fn named(request: &Request) -> Named {
    Named { attributes: request.attributes.clone(), inputs: request.inputs.clone(), session: request.session.clone() }
}

fn job<'a>((options, read): Prepared<'a>, named: &'a Named, builders: &'a [Platform]) -> Job<'a> {
    Job {
        text: &read.text,
        file: &read.file,
        options,
        target: None,
        builders,
        main: &read.main,
        directory: &read.directory,
        named,
        extent: Extent::Target,
    }
}

fn build(request: &Request, prepared: Prepared<'_>, answers: &Answers) -> Result<Outcome, Failure> {
    let (options, read) = prepared;
    let host = request.platforms.first().cloned().unwrap_or_else(|| Platform::new("linux", "amd64", ""));
    let wanted: Vec<Option<&Platform>> = match options.platforms.as_slice() {
        [] => vec![None],
        platforms => platforms.iter().map(Some).collect(),
    };
    let named = named(request);
    let (mut open, mut results, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    for (at, target) in wanted.into_iter().enumerate() {
        let job = Job { target, ..job(prepared, &named, &request.platforms) };
        let (converted, found) = convert::convert(&job, answers);
        // What is found on one platform is found on all.
        if at == 0 {
            warnings = found;
        }
        match converted? {
            Converted::Asks(questions) => open.extend(questions),
            Converted::Done(conversion) => {
                let platform = normalized(target.unwrap_or(&host));
                results.push(Target { id: platform.to_string(), platform, conversion: *conversion });
            }
        }
    }
    if !open.is_empty() {
        return Ok(Outcome::Asks(open));
    }
    Ok(Outcome::Build(Box::new(Build {
        results,
        multiple: options.multiple,
        warnings,
        file: read.file.clone(),
        loaded_by: read.loaded_by.clone(),
        options: options.clone(),
    })))
}

/// Requests that build nothing.
fn tell(request: &Request, prepared: Prepared<'_>, wanted: &str, answers: &Answers) -> Result<Outcome, Failure> {
    let (options, read) = prepared;
    let named = named(request);
    let target = options.platforms.first();
    let job = Job { target, ..job(prepared, &named, &request.platforms) };
    match wanted {
        report::DESCRIBE => Ok(Outcome::Answer(report::describe())),
        report::TARGETS => Ok(Outcome::Answer(report::targets(&read.text)?)),
        report::OUTLINE => match convert::convert(&job, answers).0? {
            Converted::Asks(questions) => Ok(Outcome::Asks(questions)),
            Converted::Done(conversion) => Ok(Outcome::Answer(report::outline(&conversion.outline, &read.text))),
        },
        report::LINT => {
            // Without a target all of them are looked at.
            let extent = if options.target.is_empty() { Extent::All } else { Extent::Target };
            let (converted, warnings) = convert::convert(&Job { extent, ..job }, answers);
            let error = match converted {
                Ok(Converted::Asks(questions)) => return Ok(Outcome::Asks(questions)),
                Ok(Converted::Done(_)) => None,
                Err(error) => Some(error),
            };
            Ok(Outcome::Answer(report::lint(&warnings, error.as_ref(), &read.file)))
        }
        other => Err(unsupported(format!("unsupported request {other}"))),
    }
}
