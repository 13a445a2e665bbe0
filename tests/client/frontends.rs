//! Front ends in images: `# syntax=` names one, which runs as a container and calls the builder over its standard streams.

use std::time::Duration;

use testkit::command::Output;
use testkit::{Daemon, Options, command, images};

use crate::build_context::Context;
use crate::buildx::{client, new_context, with_buildx};
use crate::eventually;

/// A daemon with a front end, and a CLI with the plugin.
fn with_front_end() -> Daemon {
    let d = with_buildx();
    d.load(images::frontend_archive());
    d
}

/// A context whose front end is told this.
fn told(d: &Daemon, name: &str, words: &str) -> Context {
    new_context(d, name, &format!("# syntax=front {words}\nFROM busybox\nRUN echo built > /x\nCMD [\"cat\", \"/x\"]\n"))
}

fn refused(d: &Daemon, name: &str, words: &str) -> Output {
    let output = told(d, name, words).build(d, &[]);
    assert_ne!(output.code, 0, "{}", output.stderr);
    output
}

#[test]
fn a_front_end_in_an_image_makes_the_result() {
    let d = with_front_end();
    let built = told(&d, "plain", "plain").build(&d, &["-t", "app"]).ok();
    let seen = d.docker(&["run", "--rm", "app"]).text();
    let wanted = "solve=true inputs=0 cmd=sh text=made names=f size=Some(5) lines=4 missing=Some(NotFound) platforms=1";
    assert_eq!(seen, wanted, "{}", built.stderr);
    assert!(built.stderr.contains("front end docker.io/library/front"), "{}", built.stderr);
    // What it has asked for is kept as steps of any build are.
    let again = told(&d, "again", "plain").build(&d, &["-t", "app"]).ok();
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
    // The argument of the client comes before the file.
    let context = new_context(&d, "argument", "FROM busybox\nRUN x\n\n\n");
    let _ = context.build(&d, &["-t", "arg", "--build-arg", "BUILDKIT_SYNTAX=front plain"]).ok();
    assert!(d.docker(&["run", "--rm", "arg"]).text().starts_with("solve=true"));
    d.finish();
}

#[test]
fn a_front_end_has_the_one_that_is_built_in_work_for_it() {
    let d = with_front_end();
    let _ = told(&d, "relay", "relay").build(&d, &["-t", "app"]).ok();
    assert_eq!(d.docker(&["run", "--rm", "app"]).text(), "built");
    // Its name in a Dockerfile means the one that is built in, too: no image of this name is here.
    let usual =
        new_context(&d, "usual", "# syntax=docker/dockerfile:1.7-labs\nFROM busybox\nCMD [\"echo\", \"usual\"]\n");
    let _ = usual.build(&d, &["-t", "usual"]).ok();
    assert_eq!(d.docker(&["run", "--rm", "usual"]).text(), "usual");
    d.finish();
}

#[test]
fn a_front_end_runs_programs_beside_the_build() {
    let d = with_front_end();
    let built = told(&d, "process", "process").build(&d, &["-t", "app"]).ok();
    let seen = d.docker(&["run", "--rm", "app"]).text();
    let wanted = "out=told base err=wrong code=Some(3) second=Some(Unimplemented) taken=Some(AlreadyExists) \
        gone=Some(NotFound) fresh: out=base err= code=Some(0)";
    assert_eq!(seen, wanted, "{}", built.stderr);
    d.finish();
}

/// What front ends must not do, and how each of them ends.
#[test]
fn front_ends_that_misbehave_end_with_an_error() {
    let d = with_front_end();
    for (word, text) in [
        ("panic", "did not complete successfully: exit code: 101"),
        ("exit", "did not complete successfully: exit code: 3"),
        ("nothing", "no result for incomplete build"),
        ("garbage", "no result for incomplete build"),
        ("unknown", "no such word: unknown"),
        ("foreign 0123456789abcdef", "no such ref: 0123456789abcdef"),
        ("cycle", "sha256:"),
        ("endless", "bytes of definitions, of one front end"),
        ("huge", "did not complete successfully: exit code: 4"),
        ("again", "front ends that ask for one another"),
    ] {
        let output = refused(&d, word.split(' ').next().unwrap(), word);
        assert!(output.stderr.contains(text), "{word}: {text}\n{}", output.stderr);
    }
    // What it says is shown, and where the file asks for it.
    let output = refused(&d, "shown", "panic");
    assert!(output.stderr.contains("on purpose"), "{}", output.stderr);
    assert!(output.stderr.contains("1 | >>> # syntax=front panic"), "{}", output.stderr);
    let missing = new_context(&d, "missing", "# syntax=127.0.0.1:1/none:1\nFROM busybox\n").build(&d, &[]);
    assert!(missing.stderr.contains("1 | >>> # syntax=127.0.0.1:1/none:1"), "{}", missing.stderr);
    let _ = told(&d, "after", "relay").build(&d, &["-t", "app"]).ok();
    d.finish();
}

/// One that says nothing, and one that waits for a step, end with their client.
#[test]
fn a_front_end_ends_with_its_client() {
    let d = with_front_end();
    for word in ["silent", "waits"] {
        let context = told(&d, word, word);
        let words = ["build", "--progress=plain", context.dir.to_str().unwrap()];
        let mut going = command::Running::start(&mut client(&d, &words));
        let runs = || std::fs::read_dir(d.exec_root()).unwrap().flatten().any(|entry| entry.file_name().len() == 64);
        assert!(eventually(runs), "{word}");
        let pid = rustix::process::Pid::from_raw(going.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ended = going.wait(Duration::from_secs(60)).expect("the client ends");
        assert!(ended.stderr.contains("context canceled"), "{word}: {}", ended.stderr);
        assert!(eventually(|| !runs()), "{word}");
    }
    d.finish();
}

/// `dockerfile-frontend`: the usual name means an image, too.
#[test]
fn the_usual_front_end_is_run_where_the_configuration_says_so() {
    let d = Options::new().config(r#"{"builder": {"dockerfile-frontend": "image"}}"#).start();
    d.busybox();
    testkit::buildx::install(&d);
    d.load(images::frontend_archive());
    let _ = d.docker(&["tag", "front", "docker/dockerfile:1"]);
    let dockerfile = "# syntax=docker/dockerfile:1 plain\nFROM busybox\n\n\n";
    let _ = new_context(&d, "image", dockerfile).build(&d, &["-t", "app"]).ok();
    assert!(d.docker(&["run", "--rm", "app"]).text().starts_with("solve=true"));
    d.finish();
}

/// `--print` of the client: what a Dockerfile asks for, its targets, and what is wrong with it, without a build.
#[test]
fn a_dockerfile_is_described_and_checked() {
    let d = with_buildx();
    let dockerfile = "# syntax=docker/dockerfile:1\nARG WORD=one\nFROM busybox AS base\n# USER is who\nARG USER=me\n\
        RUN --mount=type=secret,id=key,required true\nFROM base as app\nARG WORD\nMAINTAINER nobody\n";
    let context = new_context(&d, "described", dockerfile);
    let print = |what: &str, args: &[&str]| {
        let words = [&["buildx", "build", "--progress=plain", "--print", what], args, &[context.dir.to_str().unwrap()]];
        command::run(client(&d, &words.concat()).env("BUILDX_EXPERIMENTAL", "1"), b"")
    };
    let outline = print("outline", &["--target", "app", "--build-arg", "USER=you"]).ok().stdout;
    for part in ["TARGET: app", "BUILD ARG", "WORD", "one", "USER", "you", "is who", "SECRET REQUIRED", "key true"] {
        let spaced = outline.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(spaced.contains(part), "{part}: {outline}");
    }
    let targets = print("targets", &[]).ok().stdout;
    assert!(targets.contains("base") && targets.contains("app (default)"), "{targets}");
    let lint = print("lint", &[]);
    for rule in ["FromAsCasing", "MaintainerDeprecated"] {
        assert!(lint.stdout.contains(rule), "{rule}: {} {}", lint.stdout, lint.stderr);
    }
    let ran = d.http("GET", "/v1.50/system/df?type=build-cache", "").expect(200).json();
    assert!(!ran.to_string().contains("RUN"), "{ran}");
    // Rules that a file names are errors where it says so.
    let strict = new_context(&d, "strict", "# check=error=true\nFROM busybox as base\n").build(&d, &[]);
    assert!(
        strict.code != 0 && strict.stderr.contains("lint violation found for rules: FromAsCasing"),
        "{}",
        strict.stderr
    );
    d.finish();
}
