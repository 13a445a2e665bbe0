//! Definitions: what operations say.

use bollard_buildkit_proto::pb;
use pb::op::Op;

use crate::client::{World, ops, titles};

const NAMES: &str = include_str!("../data/names.txt");
const NAMED: &str = include_str!("../data/names.dockerfile");

/// Steps whose encoding is that of BuildKit, so that a cache of one is a cache of the other.
#[test]
fn vertices_have_the_names_that_buildkit_gives_them() {
    let mut world = World::new(NAMED);
    for (key, value) in [
        ("shm-size", "1000000"),
        ("add-hosts", "abc=1.2.3.4"),
        ("ulimit", "nofile=1:2"),
        ("build-arg:HTTP_PROXY", "http://p"),
        ("build-arg:Q", "q"),
        ("no-cache", ""),
    ] {
        world = world.with(key, value);
    }
    let definition = world.build().results.remove(0).conversion.definition;
    let found: Vec<String> = definition
        .def
        .iter()
        .map(|bytes| dockerfile::llb::name(bytes).to_string())
        .filter_map(|name| {
            let title = definition.metadata.get(&name)?.description.get("llb.customname")?;
            Some(format!("{} {title}", &name["sha256:".len()..][..12]))
        })
        .collect();
    for line in NAMES.lines().skip(1) {
        assert!(found.iter().any(|found| found == line), "{line} is not in {found:#?}");
    }
}

fn operations(dockerfile: &str, attributes: &[(&str, &str)]) -> Vec<pb::Op> {
    let mut world = World::new(dockerfile);
    for (key, value) in attributes {
        world = world.with(key, value);
    }
    ops(&world.build().results[0].conversion.definition)
}

fn source(op: &pb::Op) -> Option<&pb::SourceOp> {
    match &op.op {
        Some(Op::Source(source)) => Some(source),
        _ => None,
    }
}

fn copies(op: &pb::Op) -> Vec<&pb::FileActionCopy> {
    let Some(Op::File(file)) = &op.op else { return Vec::new() };
    let copies = file.actions.iter();
    copies
        .filter_map(|action| match &action.action {
            Some(pb::file_action::Action::Copy(copy)) => Some(copy),
            _ => None,
        })
        .collect()
}

fn exec(ops: &[pb::Op]) -> &pb::ExecOp {
    let found = ops.iter().find_map(|op| match &op.op {
        Some(Op::Exec(exec)) => Some(exec),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn only_the_paths_that_are_named_are_asked_of_the_client() {
    let ops = operations("FROM scratch\nCOPY a /x/\nADD b/c* /x/\nRUN --mount=source=./d,target=/d [\"x\"]", &[]);
    let context = ops.iter().filter_map(source).find(|source| source.identifier == "local://context").unwrap();
    assert_eq!(context.attrs["local.followpaths"], r#"["a","b/c*","d"]"#);
    assert_eq!(context.attrs["local.session"], "session");
    let ops = operations("FROM scratch\nCOPY a /x/\nCOPY . /", &[]);
    let context = ops.iter().filter_map(source).next().unwrap();
    assert_eq!(context.attrs.get("local.followpaths"), None);
}

#[test]
fn ignore_files_go_to_the_client() {
    for (file, patterns) in [(".dockerignore", r#"["*","!a"]"#), ("none", "")] {
        let mut world = World::new("FROM scratch\nCOPY . /").file(&format!("context/{file}"), "*\n!a\n# no\n");
        let ops = ops(&world.build().results[0].conversion.definition);
        let context = ops.iter().filter_map(source).next().unwrap();
        assert_eq!(context.attrs.get("local.excludepatterns").map_or("", String::as_str), patterns);
    }
    let mut own = World::new("FROM scratch\nCOPY . /")
        .file("context/.dockerignore", "*")
        .file("dockerfile/Dockerfile.dockerignore", "x");
    let ops = ops(&own.build().results[0].conversion.definition);
    assert_eq!(ops.iter().filter_map(source).next().unwrap().attrs["local.excludepatterns"], r#"["x"]"#);
    let mut bad = World::new("FROM scratch\nCOPY . /").file("context/.dockerignore", "a[\n");
    assert_eq!(bad.refused().error.message(), "syntax error in pattern");
}

#[test]
fn commands_get_what_the_request_says() {
    let attributes =
        [("hostname", "h"), ("cgroup-parent", "/p"), ("force-network-mode", "host"), ("build-arg:no_proxy", "x")];
    let ops = operations("FROM busybox\nENV A=1\nUSER 5\nWORKDIR /w\nRUN --security=insecure true", &attributes);
    let exec = exec(&ops);
    let meta = exec.meta.as_ref().unwrap();
    assert_eq!((meta.hostname.as_str(), meta.cgroup_parent.as_str()), ("h", "/p"));
    assert_eq!((meta.cwd.as_str(), meta.user.as_str()), ("/w", "5"));
    assert_eq!(meta.env[1], "A=1");
    assert_eq!(meta.proxy_env.as_ref().unwrap().no_proxy, "x");
    assert_eq!((exec.network, exec.security), (1, 1));
}

#[test]
fn mounts_are_in_the_order_of_their_places_and_secrets_behind_them() {
    let dockerfile = "FROM busybox\nRUN --mount=type=secret,id=s,env=TOKEN --mount=type=secret,id=f,required --mount=type=ssh \
        --mount=type=cache,target=/z,id=c,sharing=private --mount=type=tmpfs,target=a,size=1k \
        --mount=target=/ctx,rw --device=vendor/class=x,required echo $TOKEN";
    let ops = operations(dockerfile, &[("build-arg:BUILDKIT_CACHE_MOUNT_NS", "ns")]);
    let exec = exec(&ops);
    let places: Vec<&str> = exec.mounts.iter().map(|mount| mount.dest.as_str()).collect();
    assert_eq!(places, ["/", "/a", "/ctx", "/z", "/run/secrets/f", "/run/buildkit/ssh_agent.0"]);
    assert_eq!(exec.mounts.iter().map(|mount| mount.output).collect::<Vec<_>>(), [0, -1, -1, -1, 0, 0]);
    assert_eq!(exec.mounts[3].cache_opt.as_ref().unwrap().id, "ns/c");
    assert_eq!(exec.mounts[1].tmpfs_opt.unwrap().size, 1024);
    assert!(!exec.mounts[2].readonly);
    let secret = exec.mounts[4].secret_opt.as_ref().unwrap();
    assert_eq!((secret.id.as_str(), secret.mode, secret.optional), ("f", 0o400, false));
    assert_eq!((exec.secretenv[0].name.as_str(), exec.secretenv[0].optional), ("TOKEN", true));
    assert!(exec.meta.as_ref().unwrap().env.contains(&"SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0".to_owned()));
    assert_eq!((exec.cdi_devices[0].name.as_str(), exec.cdi_devices[0].optional), ("vendor/class=x", false));
    // The value of a secret is not known here, but its variable is not shown as empty either.
    let mut world = World::new(dockerfile);
    let titles = titles(&world.build().results[0].conversion.definition);
    assert!(titles.iter().any(|title| title.ends_with("echo ****")), "{titles:?}");
}

#[test]
fn copies_say_what_is_copied() {
    let ops = operations(
        "FROM scratch\nWORKDIR /w\nCOPY --parents --exclude=*.md --chmod=u=rwX a/./b/c* d ./\nADD --unpack=false e.tar f",
        &[],
    );
    let all: Vec<&pb::FileActionCopy> = ops.iter().flat_map(copies).collect();
    let [kept, whole, added] = all[..] else { panic!("{all:?}") };
    assert_eq!((kept.src.as_str(), kept.dest.as_str()), ("/a", "/w/"));
    assert_eq!((kept.include_patterns.clone(), kept.required_paths.clone()), (vec!["b/c*".to_owned()], vec![]));
    assert_eq!((whole.src.as_str(), whole.required_paths.clone()), ("/", vec!["/d".to_owned()]));
    assert_eq!((kept.mode, kept.mode_str.as_str()), (0, "u=rwX"));
    assert_eq!(kept.exclude_patterns, ["*.md"]);
    assert_eq!((added.src.as_str(), added.dest.as_str(), added.mode), ("/e.tar", "/w/f", -1));
    assert!(kept.allow_wildcard && kept.allow_empty_wildcard && kept.follow_symlink && kept.dir_copy_contents);
    assert!(!added.attempt_unpack_docker_compatibility && added.create_dest_path);
}

#[test]
fn layers_of_their_own_are_merged() {
    let ops = operations("FROM busybox\nCOPY --link a /a\nCOPY --link --chmod=1 b /b", &[]);
    let merges = ops.iter().filter(|op| matches!(op.op, Some(Op::Merge(_)))).count();
    assert_eq!(merges, 1);
    let alone = operations("FROM scratch\nCOPY --link a /a", &[]);
    assert!(!alone.iter().any(|op| matches!(op.op, Some(Op::Merge(_)))));
}

#[test]
fn files_of_servers_are_sources() {
    let sum = format!("sha256:{}", "a".repeat(64));
    let ops = operations(
        &format!("FROM scratch\nARG S={sum}\nADD --checksum=$S https://a.b/c/d.tgz?x /d/\nADD https://a.b/c.git?tag=v1&subdir=s --keep-git-dir\n")
            .replace(" --keep-git-dir", " /g"),
        &[],
    );
    let sources: Vec<&pb::SourceOp> = ops.iter().filter_map(source).collect();
    let http = sources.iter().find(|source| source.identifier.starts_with("https://")).unwrap();
    assert_eq!((http.attrs["http.filename"].as_str(), &http.attrs["http.checksum"]), ("d.tgz", &sum));
    let git = sources.iter().find(|source| source.identifier.starts_with("git://")).unwrap();
    assert_eq!(git.identifier, "git://a.b/c.git#refs/tags/v1:s");
    assert_eq!(git.attrs["git.fullurl"], "https://a.b/c.git");
    assert_eq!(git.attrs["git.authtokensecret"], "GIT_AUTH_TOKEN");
}

#[test]
fn stages_that_do_not_use_the_cache_say_so() {
    let dockerfile = "FROM busybox AS a\nRUN true a\nWORKDIR /x\nFROM a AS b\nRUN true b";
    for (attribute, marked) in
        [("", vec!["[a 2/3] RUN true a", "[b 1/1] RUN true b"]), ("B", vec!["[b 1/1] RUN true b"])]
    {
        let definition =
            World::new(dockerfile).with("no-cache", attribute).build().results.remove(0).conversion.definition;
        let mut found: Vec<&str> = definition
            .metadata
            .values()
            .filter(|metadata| metadata.ignore_cache)
            .map(|metadata| metadata.description["llb.customname"].as_str())
            .collect();
        found.sort_unstable();
        assert_eq!(found, marked);
    }
}

#[test]
fn steps_know_where_they_stand() {
    let definition = World::new("FROM busybox\n\nRUN a \\\n  b\n").build().results.remove(0).conversion.definition;
    let source = definition.source.unwrap();
    assert_eq!((source.infos[0].filename.as_str(), source.infos[0].language.as_str()), ("Dockerfile", "Dockerfile"));
    let mut lines: Vec<Vec<i32>> = source
        .locations
        .values()
        .map(|locations| locations.locations[0].ranges.iter().map(|range| range.start.unwrap().line).collect())
        .collect();
    lines.sort();
    assert_eq!(lines, [vec![1], vec![3, 4]]);
}

#[test]
fn platforms_have_their_own_results() {
    let mut world = World::new(
        "FROM --platform=$BUILDPLATFORM busybox AS a\nARG TARGETARCH\nRUN echo $TARGETARCH\nFROM busybox\nCOPY --from=a /x /x",
    )
    .with("platform", "linux/amd64,linux/arm64,linux/arm/v7");
    let build = world.build();
    assert!(build.multiple);
    let ids: Vec<&str> = build.results.iter().map(|target| target.id.as_str()).collect();
    assert_eq!(ids, ["linux/amd64", "linux/arm64", "linux/arm/v7"]);
    let titles = titles(&build.results[2].conversion.definition);
    assert!(titles.contains(&"[linux/amd64->arm/v7 a 2/2] RUN echo arm".to_owned()), "{titles:?}");
    assert!(titles.contains(&"[linux/arm/v7 stage-1 2/2] COPY --from=a /x /x".to_owned()), "{titles:?}");
    assert_eq!(build.results[2].conversion.image.variant, "v7");
}

#[test]
fn short_files_do_not_become_endless() {
    let doubled = "ENV A=$A$A\n".repeat(60);
    let many: String = (0..5000).map(|at| format!("ENV V{at}=x\n")).collect();
    for (dockerfile, why) in [
        (format!("FROM scratch\nENV A=0123456789abcdef\n{doubled}"), "too long with its variables filled in"),
        (format!("FROM scratch\nENV A=01\n{}", "ENV A=${A//?/$A}\n".repeat(9)), "bytes"),
        (format!("ARG A=0123456789abcdef\n{}FROM scratch", doubled.replace("ENV", "ARG")), "bytes"),
        (format!("FROM scratch\n{many}"), "more than 4096 variables"),
        (format!("FROM scratch\n{}", "EXPOSE 0-65535\n".repeat(2000)), "bytes"),
        (format!("FROM scratch AS s0\n{}{}", "LABEL a=b\n".repeat(9000), "FROM s0 AS s1\n".repeat(900)), "bytes"),
    ] {
        let mut world = World::new(&dockerfile).with("requestid", "frontend.lint");
        let failure = match world.solve() {
            Ok(dockerfile::Outcome::Answer(told)) => String::from_utf8(told["result.json"].clone()).unwrap(),
            other => panic!("{other:?}"),
        };
        let error: serde_json::Value = serde_json::from_str(&failure).unwrap();
        let message = error["buildError"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains(why), "{message:?} without {why:?}: {}", &dockerfile[..60.min(dockerfile.len())]);
    }
}
