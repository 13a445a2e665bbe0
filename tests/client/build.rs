//! `docker build` by the classic API (`DOCKER_BUILDKIT=0`): what the CLI prints, what comes out, and what is left of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use testkit::command::Output;
use testkit::{Daemon, command};

use crate::build_context::Context;
use crate::{eventually, with_busybox};

fn new_context(d: &Daemon, name: &str, dockerfile: &str) -> Context {
    let classic = |d: &Daemon, args: &[&str]| {
        let mut command = d.cli(&[&["build"], args].concat());
        command.env("DOCKER_BUILDKIT", "0");
        command
    };
    Context::new(d, name, dockerfile, classic)
}

/// Builds a Dockerfile that needs no files.
fn build(d: &Daemon, dockerfile: &str, args: &[&str]) -> Output {
    new_context(d, "plain", dockerfile).build(d, args)
}

/// What was built, without the ids.
fn lines(output: &Output) -> Vec<String> {
    let hex = |word: &str| word.len() == 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let line =
        |line: &str| line.split(' ').map(|word| if hex(word) { "<id>" } else { word }).collect::<Vec<_>>().join(" ");
    output.stdout.lines().filter(|line| !line.starts_with("Sending build context")).map(line).collect()
}

/// `finish` checks the store.
#[test]
fn a_step_that_writes_again_what_is_there_is_no_fault() {
    let d = with_busybox();
    let context = new_context(&d, "again", "FROM busybox\nCOPY x y /dir/\nCOPY x /dir/\nCOPY x z /dir/\n");
    let context = context.file("x", "x\n").file("y", "y\n").file("z", "z\n");
    let _ = context.build(&d, &["-t", "again"]).ok();
    assert_eq!(d.docker(&["run", "--rm", "again", "sh", "-c", "cat /dir/*"]).text(), "x\ny\nz");
    let _ = d.docker(&["save", "-o", d.path("again.tar").to_str().unwrap(), "again"]).ok();
    d.finish();
}

#[test]
fn a_build_tells_its_steps_and_the_next_one_uses_them() {
    let d = with_busybox();
    let context = new_context(
        &d,
        "steps",
        "FROM busybox\nENV A=1\nRUN echo hello > /f; echo out\nCOPY x /dir/\nCMD [\"cat\", \"/f\", \"/dir/x\"]\n",
    )
    .file("x", "x\n");
    let first = context.build(&d, &["-t", "one", "-t", "two:2"]).ok();
    assert_eq!(
        lines(&first),
        [
            "Step 1/5 : FROM busybox",
            " ---> <id>",
            "Step 2/5 : ENV A=1",
            " ---> Running in <id>",
            " ---> Removed intermediate container <id>",
            " ---> <id>",
            "Step 3/5 : RUN echo hello > /f; echo out",
            " ---> Running in <id>",
            "out",
            " ---> Removed intermediate container <id>",
            " ---> <id>",
            "Step 4/5 : COPY x /dir/",
            " ---> <id>",
            "Step 5/5 : CMD [\"cat\", \"/f\", \"/dir/x\"]",
            " ---> Running in <id>",
            " ---> Removed intermediate container <id>",
            " ---> <id>",
            "Successfully built <id>",
            "Successfully tagged one:latest",
            "Successfully tagged two:2",
        ]
    );
    assert_eq!(d.docker(&["run", "--rm", "one"]).text(), "hello\nx");
    assert_eq!(d.docker(&["run", "--rm", "two:2", "env"]).text().lines().filter(|l| *l == "A=1").count(), 1);
    let second = context.build(&d, &["-t", "one"]).ok();
    assert_eq!(lines(&second).iter().filter(|line| *line == " ---> Using cache").count(), 4);
    let id = d.inspect("one", "{{.Id}}");
    assert!(second.stdout.contains(&format!("Successfully built {}", &id["sha256:".len()..][..12])));
    let quiet = context.build(&d, &["-q"]).ok();
    assert_eq!(quiet.text(), id);
    let history = d.docker(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "one"]).text();
    let told: Vec<&str> = history.lines().collect();
    assert_eq!(told[0], "/bin/sh -c #(nop)  CMD [\"cat\" \"/f\" \"/dir/x\"]");
    assert!(told[1].starts_with("/bin/sh -c #(nop) COPY file:") && told[1].ends_with(" in /dir/ "));
    assert_eq!(told[2..4], ["/bin/sh -c echo hello > /f; echo out", "/bin/sh -c #(nop)  ENV A=1"]);
    d.finish();
}

#[test]
fn the_cache_takes_the_content_of_the_files_and_no_times() {
    let d = with_busybox();
    let context =
        new_context(&d, "cache", "FROM busybox\nCOPY a /a\nRUN cat /a > /b\n").file("a", "1").file("other", "1");
    let cached = |context: &Context, args: &[&str]| {
        let built = context.build(&d, &[args, &["-t", "c"]].concat()).ok();
        lines(&built).iter().filter(|line| *line == " ---> Using cache").count()
    };
    assert_eq!(cached(&context, &[]), 0);
    let file = fs::File::options().write(true).open(context.dir.join("a")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::write(context.dir.join("other"), "2").unwrap();
    assert_eq!(cached(&context, &[]), 2);
    fs::set_permissions(context.dir.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(cached(&context, &[]), 0);
    fs::write(context.dir.join("a"), "2").unwrap();
    assert_eq!(cached(&context, &[]), 0);
    assert_eq!(d.docker(&["run", "--rm", "c", "cat", "/b"]).text(), "2");
    assert_eq!(cached(&context, &["--no-cache"]), 0);
    assert_eq!(cached(&context, &[]), 2);
    d.finish();
}

/// The texts of the reference, each with what the client makes of it.
#[test]
fn refusals_are_the_references() {
    let d = with_busybox();
    for (dockerfile, code, text) in [
        ("FROM busybox\nRUN exit 7\n", 7, "The command '/bin/sh -c exit 7' returned a non-zero code: 7"),
        (
            "FROM busybox\nCOPY nope /x\n",
            1,
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist",
        ),
        (
            "FROM busybox\nCOPY a b /t\n",
            1,
            "When using COPY with more than one source file, the destination must be a directory and end with a /",
        ),
        ("FROM busybox\nCOPY *.none /\n", 1, "COPY failed: no source files were specified"),
        (
            "FROM busybox\nFROM busybox\nCOPY --from=1 a /\n",
            1,
            "invalid from flag value 1: refers to current build stage",
        ),
        ("FROM busybox\nFOO x\n", 1, "dockerfile parse error on line 2: unknown instruction: FOO"),
        ("FROM busybox AS a\nFROM busybox AS a\n", 1, "a stage name already used"),
        ("FROM scratch\n", 1, "No image was generated. Is your Dockerfile empty?"),
        ("FROM busybox\nSTOPSIGNAL XX\n", 1, "invalid signal: XX"),
        ("FROM busybox\nRUN --mount=type=tmpfs,target=/x true\n", 1, "the --mount option requires BuildKit."),
        ("FROM busybox\nCOPY --chmod=1 a /\n", 1, "the --chmod option requires BuildKit."),
        (
            "FROM busybox\nCOPY --chown=who a /\n",
            1,
            "unable to convert uid/gid chown string to host mapping: can't find uid for user who: no such user: who",
        ),
        ("FROM busybox\nADD a /bin\n", 1, "cannot replace to directory"),
    ] {
        let context = new_context(&d, "refused", dockerfile).file("a", "1").file("b", "2");
        // Onto a directory of the name of the file.
        let dockerfile = if dockerfile.contains("/bin\n") {
            fs::write(context.dir.join("Dockerfile"), "FROM busybox\nRUN mkdir -p /t/a\nCOPY a /t/\n").unwrap();
            "onto a directory"
        } else {
            dockerfile
        };
        let refused = context.build(&d, &[]);
        assert!(refused.stderr.contains(text), "{dockerfile}: {refused:?}");
        assert_eq!(refused.code, code, "{dockerfile}: {refused:?}");
    }
    let missing =
        build(&d, "FROM busybox\n", &["-f", d.path("plain").join("Dockerfile").to_str().unwrap(), "--target", "x"]);
    assert!(missing.stderr.contains("target stage \"x\" could not be found"), "{missing:?}");
    for (query, status, text) in [
        ("version=3", 400, "invalid version \"3\""),
        ("squash=1", 400, "squash is only supported with experimental mode"),
        ("securityopt=x", 400, "security options are not supported on linux"),
        ("isolation=hyperv", 400, "unsupported isolation: \"hyperv\""),
        (
            "t=a@sha256:0000000000000000000000000000000000000000000000000000000000000000",
            400,
            "build tag cannot contain a digest",
        ),
        ("buildargs=x", 400, "error reading build args"),
    ] {
        let answer = d.http("POST", &format!("/build?{query}"), "").expect(status);
        assert!(answer.message().starts_with(text), "{query}: {}", answer.message());
    }
    assert_eq!(d.http("POST", "/build/cancel", "").expect(400).message(), "build ID not provided");
    let _ = d.http("POST", "/build/cancel?id=x", "").expect(200);
    d.finish();
}

#[test]
fn arguments_volumes_triggers_and_stages() {
    let d = with_busybox();
    let unused = build(&d, "FROM busybox\nENV A=1\n", &["--build-arg", "ZZ=1"]).ok();
    assert!(unused.stdout.contains("[Warning] One or more build-args [ZZ] were not consumed"));
    let _ = build(&d, "ARG B=busybox\nFROM $B\nARG V=1\nRUN echo $V > /v\n", &["-t", "arg", "--build-arg", "V=2"]).ok();
    assert_eq!(d.docker(&["run", "--rm", "arg", "cat", "/v"]).text(), "2");
    let history = d.docker(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "arg"]).text();
    assert!(history.starts_with("|1 V=2 /bin/sh -c echo $V > /v\n/bin/sh -c #(nop)  ARG V=1\n"), "{history}");
    let _ = build(&d, "FROM busybox\nVOLUME /d\nRUN echo 1 > /d/f\n", &["-t", "volume"]).ok();
    assert_eq!(d.docker(&["run", "--rm", "volume", "ls", "/d"]).text(), "");
    let trigger = build(&d, "FROM busybox AS p\nONBUILD RUN echo x > /x\nFROM p\n", &["-t", "trigger"]).ok();
    assert!(trigger.stdout.contains("# Executing 1 build trigger\n"));
    assert_eq!(d.docker(&["run", "--rm", "trigger", "cat", "/x"]).text(), "x");
    let stages = "FROM busybox AS a\nRUN mkdir /o; echo 1 > /o/f; chown 7:8 /o/f\nFROM busybox\nCOPY --from=a /o /p\nCOPY --from=0 --chown=www-data /o/f /q\nWORKDIR /w\nWORKDIR v\n";
    let _ = build(&d, stages, &["-t", "stages", "--label", "k=v"]).ok();
    let look = "stat -c %u:%g /p/f /q; pwd";
    assert_eq!(d.docker(&["run", "--rm", "stages", "sh", "-c", look]).text(), "7:8\n33:33\n/w/v");
    assert_eq!(d.inspect("stages", "{{index .Config.Labels \"k\"}}"), "v");
    d.finish();
}

#[test]
fn files_stay_what_they_are_and_within_the_context() {
    let d = with_busybox();
    let context = new_context(
        &d,
        "files",
        "FROM busybox\nRUN ln -s /real /link; mkdir /real\nCOPY . /c/\nCOPY f /link/\nADD a.tar /t/\n",
    )
    .file("f", "1")
    .file("d/e", "2");
    fs::set_permissions(context.dir.join("f"), fs::Permissions::from_mode(0o4750)).unwrap();
    symlink("/etc/passwd", context.dir.join("out")).unwrap();
    symlink("f", context.dir.join("in")).unwrap();
    fs::hard_link(context.dir.join("f"), context.dir.join("g")).unwrap();
    fs::write(context.dir.join("a.tar"), testkit::images::Tar::new().file("x/y", 0o640, b"3").bytes()).unwrap();
    let _ = context.build(&d, &["-t", "files"]).ok();
    let look = "stat -c %a /c/f; readlink /c/out; cat /c/in; [ /c/f -ef /c/g ] && echo same; cat /real/f /t/x/y; stat -c %u /c/f";
    assert_eq!(d.docker(&["run", "--rm", "files", "sh", "-c", look]).text(), "4750\n/etc/passwd\n1same\n130");
    d.finish();
}

#[test]
fn a_client_that_leaves_ends_its_build() {
    let d = with_busybox();
    let context = new_context(&d, "left", "FROM busybox\nRUN echo begun; sleep 1000\n");
    let words = ["build", context.dir.to_str().unwrap()];
    let mut client = command::Running::start(d.cli(&words).env("DOCKER_BUILDKIT", "0"));
    client.expect("begun");
    client.kill();
    let runs = || fs::read_dir(d.exec_root()).unwrap().flatten().any(|entry| entry.file_name().len() == 64);
    assert!(eventually(|| !runs()));
    d.finish();
}

#[test]
fn a_killed_daemon_leaves_nothing_of_a_build_and_keeps_what_was_done() {
    let mut d = with_busybox();
    let context = new_context(&d, "killed", "FROM busybox\nRUN echo 1 > /done\n");
    let _ = context.build(&d, &[]).ok();
    fs::write(context.dir.join("Dockerfile"), "FROM busybox\nRUN echo 1 > /done\nRUN echo begun; sleep 1000\n")
        .unwrap();
    let words = ["build", context.dir.to_str().unwrap()];
    let mut client = command::Running::start(d.cli(&words).env("DOCKER_BUILDKIT", "0"));
    client.expect("begun");
    d.crash();
    drop(client.end());
    fs::write(context.dir.join("Dockerfile"), "FROM busybox\nRUN echo 1 > /done\nRUN cat /done\n").unwrap();
    let built = context.build(&d, &["-t", "after"]).ok();
    assert_eq!(lines(&built).iter().filter(|line| *line == " ---> Using cache").count(), 1);
    d.finish();
}

/// `docker system df` and a prune tell the same bytes, and a prune leaves what images have.
#[test]
fn the_cache_is_measured_and_pruned() {
    let d = with_busybox();
    let size = || d.http("GET", "/v1.50/system/df?type=build-cache", "").expect(200).json()["BuildCache"].clone();
    assert_eq!(size().as_array().map_or(0, Vec::len), 0);
    let write = |name: &str| format!("FROM busybox\nRUN head -c 100000 /dev/zero > /{name}\nENV A=1\n");
    let _ = build(&d, &write("kept"), &["-t", "kept"]).ok();
    let _ = build(&d, &write("free"), &[]).ok();
    let image = d.docker(&["images", "-q", "--filter", "dangling=true"]).text();
    let _ = d.docker(&["rmi", &image]).ok();
    let records = size();
    let records = records.as_array().unwrap();
    assert_eq!(records.len(), 2, "{records:?}");
    assert!(records.iter().all(|record| record["Type"] == "regular" && record["Size"].as_i64() >= Some(100_000)));
    let shared: Vec<_> = records.iter().map(|record| record["Shared"].as_bool().unwrap()).collect();
    assert_eq!(shared, [true, false]);
    for (filter, text) in [
        (r#"{"until":["1h"],"unused-for":["1h"]}"#, "conflicting filters: \"until\" and \"unused-for\""),
        (r#"{"id":["a","b"]}"#, "filters expect only one value"),
    ] {
        let path = format!("/build/prune?filters={}", filter.replace('"', "%22").replace(' ', "%20"));
        let refused = d.http("POST", &path, "").expect(400);
        assert!(refused.message().contains(text), "{}", refused.message());
    }
    let old = d.http("POST", "/build/prune?filters=%7B%22until%22:%5B%221h%22%5D%7D", "").expect(200).json();
    assert_eq!(old["SpaceReclaimed"], 0);
    let pruned = d.http("POST", "/build/prune", "").expect(200).json();
    assert_eq!(pruned["SpaceReclaimed"], records[1]["Size"], "{pruned}");
    assert_eq!(pruned["CachesDeleted"].as_array().unwrap().len(), 1);
    let again = build(&d, &write("kept"), &["-t", "kept"]).ok();
    assert_eq!(lines(&again).iter().filter(|line| *line == " ---> Using cache").count(), 2);
    let all = d.http("POST", "/build/prune?all=1", "").expect(200).json();
    assert_eq!(all["CachesDeleted"].as_array().unwrap().len(), 1, "{all}");
    assert_eq!(size().as_array().map_or(0, Vec::len), 0);
    assert_eq!(d.docker(&["run", "--rm", "kept", "wc", "-c", "/kept"]).text(), "100000 /kept");
    d.finish();
}

/// Builds that run beside each other share their steps, and leave nothing.
#[test]
fn builds_beside_each_other_run_a_step_once() {
    let d = with_busybox();
    let dockerfile = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id; sleep 1\n";
    let contexts: Vec<Context> = (0..4).map(|n| new_context(&d, &format!("beside{n}"), dockerfile)).collect();
    std::thread::scope(|scope| {
        for (n, context) in contexts.iter().enumerate() {
            let d = &d;
            scope.spawn(move || drop(context.build(d, &["-t", &format!("beside:{n}")]).ok()));
        }
    });
    let ids: Vec<String> =
        (0..4).map(|n| d.docker(&["run", "--rm", &format!("beside:{n}"), "cat", "/id"]).text()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    d.finish();
}

/// `--cache-from`: an image that was made elsewhere has the steps, found by its history.
#[test]
fn steps_of_a_named_image_are_used() {
    let d = with_busybox();
    let dockerfile = "FROM busybox\nARG WORD=one\nENV A=1\nRUN cat /proc/sys/kernel/random/uuid > /id; echo $WORD\n\
        WORKDIR /w\nCOPY x dir/\nLABEL l=m\nCMD [\"cat\", \"/id\", \"/w/dir/x\"]\n";
    let context = new_context(&d, "from", dockerfile).file("x", "x\n");
    let _ = context.build(&d, &["-t", "app"]).ok();
    let first = d.docker(&["run", "--rm", "app"]).text();
    // As a client has it that pulled the image: nothing of the build is here.
    let archive = d.path("app.tar");
    let _ = d.docker(&["save", "-o", archive.to_str().unwrap(), "app"]).ok();
    let _ = d.docker(&["rmi", "app"]).ok();
    let _ = d.docker(&["builder", "prune", "-af"]).ok();
    let _ = d.docker(&["load", "-i", archive.to_str().unwrap()]).ok();
    let used = |output: &Output| lines(output).iter().filter(|line| *line == " ---> Using cache").count();
    let again = context.build(&d, &["--cache-from", "none:1", "--cache-from", "app", "-t", "again"]).ok();
    assert_eq!(used(&again), 7, "{}", again.stdout);
    assert_eq!(d.docker(&["run", "--rm", "again"]).text(), first);
    assert_eq!(d.inspect("again", "{{.Id}}"), d.inspect("app", "{{.Id}}"));
    // What differs is made anew, and what follows it.
    context.write("x", "y\n");
    let changed = context.build(&d, &["--cache-from", "app", "-t", "changed"]).ok();
    assert_eq!(used(&changed), 4, "{}", changed.stdout);
    assert_eq!(d.docker(&["run", "--rm", "changed"]).text(), first.replace("\nx", "\ny"));
    let argument = context.build(&d, &["--cache-from", "app", "--build-arg", "WORD=two", "-t", "argument"]).ok();
    assert_eq!(used(&argument), 2, "{}", argument.stdout);
    let not_wanted = context.build(&d, &["--no-cache", "--cache-from", "app"]).ok();
    assert_eq!(used(&not_wanted), 0, "{}", not_wanted.stdout);
    d.finish();
}

/// `--network container:…`
#[test]
fn steps_are_in_the_network_of_a_container() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "peer", "busybox", "sleep", "1000"]).ok();
    let dockerfile = "FROM busybox\nRUN readlink /proc/self/ns/net > /ns; cat /etc/hosts > /names\n";
    let context = new_context(&d, "joined", dockerfile);
    let _ = context.build(&d, &["--no-cache", "--network", "container:peer", "-t", "app"]).ok();
    let of_peer = d.docker(&["exec", "peer", "readlink", "/proc/self/ns/net"]).text();
    assert_eq!(d.docker(&["run", "--rm", "app", "cat", "/ns"]).text(), of_peer);
    let _ = d.docker(&["rm", "-f", "peer"]).ok();
    let gone = context.build(&d, &["--no-cache", "--network", "container:peer"]);
    assert!(gone.code != 0 && gone.stderr.contains("No such container: peer"), "{}", gone.stderr);
    d.finish();
}
