//! Builds with exact results: the tables of `data/`, each row a Dockerfile, the words of its build, and what comes out.
//!
//! A case is `case NAME what is shown`, then a line for each wish, then the Dockerfile behind `| `:
//! - `classic`: the classic API instead of BuildKit's; `nameless`: there is no Dockerfile;
//! - `file PATH JSON`, `program PATH JSON`, `link PATH TARGET`, `archive PATH NAME`: what lies in the context;
//! - `args WORDS`: more words of `docker build`; `again`: what follows is of one more build, which uses what was done;
//! - before such a build `touch PATH` (other times), `chmod PATH` (another mode), `write PATH JSON`;
//! - `exit CODE`; `shows TEXT`, `lacks TEXT`: of the client's output; `matches RE`, `lacks-match RE`: the same by expression;
//! - `history TEXT`: of the newest rows, from the top; `equals PATH JSON`, `contains PATH JSON`: of the image's inspection;
//! - `run COMMAND`, then `gives TEXT`: what a shell in a container of the image prints; `makes PATH`: a file of the client.
//!
//! `<hash>` in a history stands for any digest; `@R@` is a text that is new in each run; `\n` and `\t` stand for themselves in texts that have lines.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use model::lock::Mutex;
use regex_lite::Regex;
use serde_json::Value;
use testkit::{Daemon, command, images};

use crate::buildx::{client, with_buildx};

/// Builds beside each other.
const THREADS: usize = 3;

#[derive(Default)]
struct Case {
    name: &'static str,
    title: &'static str,
    is_classic: bool,
    has_no_file: bool,
    files: Vec<Line>,
    dockerfile: String,
    builds: Vec<Build>,
}

#[derive(Default)]
struct Build {
    args: &'static str,
    changes: Vec<Line>,
    wishes: Vec<Line>,
}

/// A word and what follows it.
type Line = (&'static str, &'static str);

fn parse(table: &'static str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "case" {
            let (name, title) = rest.split_once(' ').unwrap();
            cases.push(Case { name, title, builds: vec![Build::default()], ..Case::default() });
            continue;
        }
        let case = cases.last_mut().expect("a case begins the table");
        let build = case.builds.last_mut().unwrap();
        match word {
            "|" => writeln!(case.dockerfile, "{rest}").unwrap(),
            "classic" => case.is_classic = true,
            "nameless" => case.has_no_file = true,
            "file" | "program" | "link" | "archive" => case.files.push((word, rest)),
            "args" => build.args = rest,
            "again" => {
                let args = build.args;
                case.builds.push(Build { args, ..Build::default() });
            }
            "touch" | "chmod" | "write" => build.changes.push((word, rest)),
            "exit" | "shows" | "lacks" | "matches" | "lacks-match" | "history" | "equals" | "contains" | "run"
            | "gives" | "makes" => build.wishes.push((word, rest)),
            _ => panic!("{}: {word}", case.name),
        }
    }
    cases
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t")
}

/// A case that runs.
struct Run<'a> {
    d: &'a Daemon,
    case: &'a Case,
    dir: PathBuf,
    image: String,
    fresh: String,
    failures: Vec<String>,
}

impl Run<'_> {
    fn text(&self, text: &str) -> String {
        text.replace("@R@", &self.fresh)
    }

    fn content(&self, json: &str) -> String {
        self.text(&serde_json::from_str::<String>(json).unwrap())
    }

    fn prepare(&self) {
        fs::create_dir_all(&self.dir).unwrap();
        for (kind, rest) in &self.case.files {
            let (path, value) = rest.split_once(' ').unwrap();
            let path = self.dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match *kind {
                "link" => symlink(value, path).unwrap(),
                "archive" => fs::write(path, images::Tar::new().file(value, 0o644, b"1").bytes()).unwrap(),
                kind => {
                    fs::write(&path, self.content(value)).unwrap();
                    let mode = if kind == "program" { 0o755 } else { 0o644 };
                    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
                }
            }
        }
        let words: Vec<&str> = self.case.builds[0].args.split(' ').collect();
        let name = words.iter().position(|word| *word == "-f").map_or("Dockerfile", |at| words[at + 1]);
        if !self.case.has_no_file {
            fs::write(self.dir.join(name), &self.case.dockerfile).unwrap();
        }
    }

    fn change(&self, (word, rest): Line) {
        let (path, value) = rest.split_once(' ').unwrap_or((rest, ""));
        let path = self.dir.join(path);
        match word {
            "touch" => {
                let file = fs::File::options().write(true).open(path).unwrap();
                file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
            }
            "chmod" => fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap(),
            _ => fs::write(path, self.content(value)).unwrap(),
        }
    }

    /// One build; what the client said, and whether all is as it should be.
    fn build(&mut self, number: usize) {
        let build = &self.case.builds[number];
        for change in &build.changes {
            self.change(*change);
        }
        let given = self.text(build.args);
        let mut words = if self.case.is_classic { vec!["build"] } else { vec!["build", "--progress=plain"] };
        if number == 0 {
            words.push("--no-cache");
        }
        words.extend(["-t", &self.image]);
        words.extend(given.split(' ').filter(|word| !word.is_empty()));
        words.push(".");
        let mut command = client(self.d, &words);
        command.env("DOCKER_BUILDKIT", if self.case.is_classic { "0" } else { "1" }).env("BUILDX_EXPERIMENTAL", "1");
        let output = command::run(command.current_dir(&self.dir), b"");
        let text = format!("{}{}", output.stdout, output.stderr);
        let before = self.failures.len();
        for (word, rest) in &build.wishes {
            let wanted = self.text(rest);
            let holds = match *word {
                "exit" => wanted == output.code.to_string(),
                "shows" => text.contains(&wanted) || text.contains(&unescape(&wanted)),
                "lacks" => !text.contains(&wanted),
                "matches" => Regex::new(&wanted).unwrap().is_match(&text),
                "lacks-match" => !Regex::new(&wanted).unwrap().is_match(&text),
                "makes" => self.dir.join(&wanted).exists(),
                _ => true,
            };
            if !holds {
                self.failures.push(format!("{word} {wanted}"));
            }
        }
        self.look_at_image(&build.wishes);
        if self.failures.len() > before {
            self.failures.push(format!("build {number} ended with {}:\n{text}", output.code));
        }
    }

    fn look_at_image(&mut self, wishes: &[Line]) {
        let of = |word: &str| wishes.iter().filter(|line| line.0 == word).map(|line| line.1).collect::<Vec<_>>();
        let get = |what: &str| self.d.http("GET", &format!("/v1.44/images/{}/{what}", self.image), "").json();
        let wanted: Vec<String> = of("history").iter().map(|text| unescape(&self.text(text))).collect();
        let mut wrong = Vec::new();
        if !wanted.is_empty() {
            let rows = get("history");
            let rows = rows.as_array().into_iter().flatten().map(|row| row["CreatedBy"].as_str().unwrap_or_default());
            let hash = Regex::new("[0-9a-f]{64}").unwrap();
            let rows: Vec<_> = rows.take(wanted.len()).map(|row| hash.replace_all(row, "<hash>")).collect();
            if rows != wanted {
                wrong.push(format!("history {wanted:#?} is {rows:#?}"));
            }
        }
        let values = wishes.iter().filter(|line| matches!(line.0, "equals" | "contains"));
        for (word, rest) in values {
            let (path, wanted) = rest.split_once(' ').unwrap();
            let wanted: Value = serde_json::from_str(wanted).unwrap();
            let document = get("json");
            let found = path.split('.').fold(&document, |value, key| &value[key]);
            let holds = match *word {
                "equals" => *found == wanted,
                _ => found.as_array().is_some_and(|list| list.contains(&wanted)),
            };
            if !holds {
                wrong.push(format!("{word} {rest} is {found}"));
            }
        }
        for (shell, wanted) in of("run").into_iter().zip(of("gives")) {
            let command = ["run", "--rm", "--network=none", "--entrypoint=sh", &self.image, "-c", &self.text(shell)];
            let output = self.d.docker(&command);
            if output.stdout.trim() != unescape(&self.text(wanted)).trim() {
                wrong.push(format!("run {shell} gives {wanted}: {output:?}"));
            }
        }
        self.failures.append(&mut wrong);
    }
}

/// Runs the cases of a table, some at a time; says of all that failed what differs.
fn run_all(table: &'static str) {
    let d = with_buildx();
    let cases = parse(table);
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let run = |case: &Case| {
        let fresh = format!("{}-{}", case.name, std::process::id());
        let (dir, image) = (d.path("cases").join(case.name), format!("case-{}", case.name));
        let mut run = Run { d: &d, case, dir, image, fresh, failures: Vec::new() };
        run.prepare();
        (0..case.builds.len()).for_each(|number| run.build(number));
        if !run.failures.is_empty() {
            let text = format!("{} {}\n{}", case.name, case.title, run.failures.join("\n"));
            failures.lock().push(text);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run(case);
                }
            });
        }
    });
    let failures = failures.into_inner();
    assert!(failures.is_empty(), "{} of {}:\n\n{}", failures.len(), cases.len(), failures.join("\n\n"));
    d.finish();
}

#[test]
fn builds_have_the_references_results() {
    run_all(include_str!("../data/builds.txt"));
}

#[test]
fn instructions_have_the_references_results() {
    run_all(include_str!("../data/builds_instructions.txt"));
}

#[test]
fn steps_have_the_references_results() {
    run_all(include_str!("../data/builds_steps.txt"));
}

#[test]
fn classic_builds_have_the_references_results() {
    run_all(include_str!("../data/builds_classic.txt"));
}

#[test]
fn checks_of_files_have_the_references_texts() {
    run_all(include_str!("../data/builds_checks.txt"));
}

#[test]
fn projects_are_built() {
    run_all(include_str!("../data/builds_projects.txt"));
}
