//! `docker build` with the plugin buildx: BuildKit's API over `/grpc` and `/session`, as the real client uses it.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use testkit::buildx;
pub use testkit::buildx::client;
use testkit::command::Output;
use testkit::{Daemon, command};

use crate::build_context::Context;
use crate::{eventually, with_busybox};

/// A daemon with an image, and a CLI with the plugin.
pub fn with_buildx() -> Daemon {
    let d = with_busybox();
    buildx::install(&d);
    d
}

pub fn new_context(d: &Daemon, name: &str, dockerfile: &str) -> Context {
    let plain = |d: &Daemon, args: &[&str]| client(d, &[&["build", "--progress=plain"], args].concat());
    Context::new(d, name, dockerfile, plain)
}

/// Steps that the client shows as `state`, by their names.
pub fn steps(output: &Output, state: &str) -> Vec<String> {
    let text = &output.stderr;
    let numbered = |line: &str| Some((line.strip_prefix('#')?.split_once(' ')?.0.to_owned(), line.to_owned()));
    let name = |number: &str| {
        let prefix = format!("#{number} [");
        text.lines().find_map(|line| line.starts_with(&prefix).then(|| line[number.len() + 2..].to_owned()))
    };
    let is_so = |line: &str| line.split_once(' ').is_some_and(|(_, rest)| rest.starts_with(state));
    text.lines().filter(|line| is_so(line)).filter_map(numbered).filter_map(|(number, _)| name(&number)).collect()
}

#[test]
fn a_build_is_shown_step_by_step_and_the_next_one_is_cached() {
    let d = with_buildx();
    let dockerfile = "FROM busybox\nENV A=1\nRUN echo hello > /f; echo told; echo wrong >&2\nWORKDIR /w\nCOPY x dir/\n\
        CMD [\"cat\", \"/f\", \"/w/dir/x\"]\n";
    let context = new_context(&d, "steps", dockerfile).file("x", "x\n").file("other", "not sent");
    // What is said of an image has the time of its build.
    let plain = "--provenance=false";
    let first = context.build(&d, &[plain, "-t", "app", "-t", "two:2"]).ok();
    for part in [
        "[internal] load build definition from Dockerfile",
        "[internal] load .dockerignore",
        "[internal] load build context",
        "[1/4] FROM docker.io/library/busybox",
        "[2/4] RUN echo hello > /f; echo told; echo wrong >&2",
        "[3/4] WORKDIR /w",
        "[4/4] COPY x dir/",
        " told\n",
        " wrong\n",
        "transferring context:",
        "exporting to image",
        "naming to docker.io/library/app:latest",
    ] {
        assert!(first.stderr.contains(part), "{part}\n{}", first.stderr);
    }
    assert_eq!(d.docker(&["run", "--rm", "app"]).text(), "hello\nx");
    assert_eq!(d.inspect("app", "{{.Id}}"), d.inspect("two:2", "{{.Id}}"));
    let id = d.inspect("app", "{{.Id}}");
    let again = context.build(&d, &[plain, "-t", "app"]).ok();
    let cached = steps(&again, "CACHED");
    let ran = |word: &str| cached.iter().any(|name| name.contains(word));
    assert!(ran("RUN echo hello") && ran("WORKDIR") && ran("COPY x"), "{cached:?}\n{}", again.stderr);
    assert_eq!(d.inspect("app", "{{.Id}}"), id);
    // A changed file that nobody uses changes nothing; one that is used does.
    context.write("other", "changed");
    let cached = steps(&context.build(&d, &["-t", "app"]).ok(), "CACHED");
    assert!(cached.iter().any(|name| name.contains("COPY x")), "{cached:?}");
    context.write("x", "changed\n");
    let changed = context.build(&d, &["-t", "app"]).ok();
    let cached = steps(&changed, "CACHED");
    assert!(cached.iter().any(|name| name.contains("WORKDIR")), "{cached:?}");
    assert!(!cached.iter().any(|name| name.contains("COPY x")), "{cached:?}");
    assert_eq!(d.docker(&["run", "--rm", "app"]).text(), "hello\nchanged");
    d.finish();
}

#[test]
fn a_step_that_fails_shows_its_output_and_its_line() {
    let d = with_buildx();
    let context = new_context(&d, "fails", "FROM busybox\n\nRUN echo before\nRUN echo seen; exit 7\n");
    let failed = context.build(&d, &[]);
    assert_eq!(failed.code, 1);
    let text = &failed.stderr;
    let error = "process \"/bin/sh -c echo seen; exit 7\" did not complete successfully: exit code: 7";
    for part in [" seen\n", "Dockerfile:4\n", "4 | >>> RUN echo seen; exit 7", error] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let missing = new_context(&d, "missing", "FROM busybox\nCOPY nothing /\n").build(&d, &[]);
    assert!(missing.stderr.contains("\"/nothing\": not found"), "{}", missing.stderr);
    assert!(missing.stderr.contains("2 | >>> COPY nothing /"), "{}", missing.stderr);
    let unknown = new_context(&d, "unknown", "FROM busybox\nRUNN x\n").build(&d, &[]);
    assert!(unknown.stderr.contains("unknown instruction: RUNN"), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("2 | >>> RUNN x"), "{}", unknown.stderr);
    let none = new_context(&d, "none", "FROM busybox\n");
    fs::remove_file(none.dir.join("Dockerfile")).unwrap();
    let none = none.build(&d, &[]);
    assert!(none.stderr.contains("failed to read dockerfile: open Dockerfile: no such file"), "{}", none.stderr);
    d.finish();
}

#[test]
fn only_what_is_used_is_sent_and_ignored_files_are_not() {
    let d = with_buildx();
    let dockerfile = "FROM busybox\nCOPY . /c/\nRUN find /c | sort\n";
    let context = new_context(&d, "ignored", dockerfile)
        .file(".dockerignore", "secret\n*.tmp\n!kept.tmp\n")
        .file("secret/key", "1")
        .file("a.tmp", "1")
        .file("kept.tmp", "1")
        .file("d/e", "1");
    symlink("/etc/passwd", context.dir.join("link")).unwrap();
    let built = context.build(&d, &["-t", "ignored"]).ok();
    let files = d.docker(&["run", "--rm", "ignored", "sh", "-c", "cd /c; find . | sort"]);
    assert_eq!(files.text(), ".\n./.dockerignore\n./Dockerfile\n./d\n./d/e\n./kept.tmp\n./link", "{}", built.stderr);
    let target = d.docker(&["run", "--rm", "ignored", "readlink", "/c/link"]);
    assert_eq!(target.text(), "/etc/passwd");
    d.finish();
}

#[test]
fn secrets_arguments_and_targets() {
    let d = with_buildx();
    let dockerfile = "FROM busybox AS one\nARG WORD=none\nRUN --mount=type=secret,id=s cat /run/secrets/s > /dev/null && \
        cat /run/secrets/s | wc -c > /size && echo $WORD > /word\nFROM one AS two\nRUN touch /two\n";
    let context = new_context(&d, "secret", dockerfile);
    let file = d.path("secret.txt");
    fs::write(&file, "12345").unwrap();
    let secret = format!("id=s,src={}", file.display());
    let _ = context.build(&d, &["-t", "s", "--secret", &secret, "--build-arg", "WORD=given", "--target", "one"]).ok();
    let seen = d.docker(&["run", "--rm", "s", "sh", "-c", "cat /size /word; ls /two /run/secrets/s 2>&1 | wc -l"]);
    assert_eq!(seen.text().split_whitespace().collect::<Vec<_>>(), ["5", "given", "2"]);
    let history = d.docker(&["history", "--no-trunc", "s"]);
    assert!(!history.text().contains("12345"));
    d.finish();
}

#[test]
fn results_are_sent_to_the_client() {
    let d = with_buildx();
    let context = new_context(&d, "out", "FROM scratch\nCOPY a d/ /\n").file("a", "1").file("d/b", "2");
    let tar = d.path("result.tar");
    let _ = context.build(&d, &["--output", &format!("type=tar,dest={}", tar.display())]).ok();
    let listed = command::run(std::process::Command::new("tar").arg("tf").arg(&tar), b"").ok();
    assert!(listed.stdout.lines().any(|line| line.trim_start_matches("./") == "a"), "{}", listed.stdout);
    // Twice: the second time all files are there already.
    let tree = d.path("result");
    for _ in 0..2 {
        let _ = context.build(&d, &["--output", &format!("type=local,dest={}", tree.display())]).ok();
        assert_eq!(fs::read_to_string(tree.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(tree.join("b")).unwrap(), "2");
        assert_eq!(fs::read_dir(&tree).unwrap().count(), 2);
    }
    d.finish();
}

/// A Dockerfile, and an archive of a whole context, over the standard input of the client.
#[test]
fn contexts_come_over_the_standard_input() {
    let d = with_buildx();
    let dockerfile = b"FROM busybox\nRUN echo one > /x\nCMD [\"cat\", \"/x\"]\n";
    let _ = command::run(&mut client(&d, &["build", "--progress=plain", "-t", "one", "-"]), dockerfile).ok();
    assert_eq!(d.docker(&["run", "--rm", "one"]).text(), "one");
    let context = new_context(&d, "in", "FROM busybox\nCOPY f /f\nCMD [\"cat\", \"/f\"]\n").file("f", "two");
    let tar = std::process::Command::new("tar").arg("cC").arg(&context.dir).arg(".").output().unwrap().stdout;
    let _ = command::run(&mut client(&d, &["build", "--progress=plain", "-t", "two", "-"]), &tar).ok();
    assert_eq!(d.docker(&["run", "--rm", "two"]).text(), "two");
    d.finish();
}

/// Several targets in one call share their steps.
#[test]
fn targets_of_a_file_are_baked_together() {
    let d = with_buildx();
    let bake = "group \"default\" {\n  targets = [\"x\", \"y\"]\n}\n\
                target \"x\" {\n  tags = [\"x:1\"]\n}\n\
                target \"y\" {\n  target = \"one\"\n  tags = [\"y:1\"]\n}\n";
    let dockerfile = "FROM busybox AS one\nRUN date +%s%N > /when\nFROM one\nRUN true\n";
    let context = new_context(&d, "bake", dockerfile).file("docker-bake.hcl", bake);
    let mut call = client(&d, &["buildx", "bake", "--progress=plain"]);
    let _ = command::run(call.current_dir(&context.dir), b"").ok();
    let when = |image: &str| d.docker(&["run", "--rm", image, "cat", "/when"]).text();
    assert_eq!(when("x:1"), when("y:1"));
    d.finish();
}

#[test]
fn the_cache_is_listed_and_pruned() {
    let d = with_buildx();
    let context = new_context(&d, "cache", "FROM busybox\nRUN echo 1 > /a\nCOPY x /\n").file("x", "1");
    let _ = context.build(&d, &[]).ok();
    let used = command::run(&mut client(&d, &["buildx", "du", "--verbose"]), b"").ok();
    assert!(used.stdout.contains("regular") && used.stdout.contains("source.local"), "{}", used.stdout);
    let pruned = command::run(&mut client(&d, &["buildx", "prune", "-af"]), b"").ok();
    assert!(pruned.stdout.contains("Total:"), "{}", pruned.stdout);
    let used = command::run(&mut client(&d, &["buildx", "du"]), b"").ok();
    assert!(!used.stdout.contains("regular"), "{}", used.stdout);
    d.finish();
}

#[test]
fn a_build_whose_client_leaves_is_cancelled() {
    let d = with_buildx();
    let context = new_context(&d, "leaves", "FROM busybox\nRUN echo begun; sleep 1000\n");
    let words = ["build", "--progress=plain", context.dir.to_str().unwrap()];
    let mut going = command::Running::start(&mut client(&d, &words));
    assert!(eventually(|| going.stderr().contains(" begun")), "{}", going.stderr());
    let pid = rustix::process::Pid::from_raw(going.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = going.wait(Duration::from_secs(60)).expect("the client ends");
    assert_ne!(ended.code, 0);
    assert!(ended.stderr.contains("context canceled"), "{}", ended.stderr);
    let runs = || fs::read_dir(d.exec_root()).unwrap().flatten().any(|entry| entry.file_name().len() == 64);
    assert!(eventually(|| !runs()));
    d.finish();
}
