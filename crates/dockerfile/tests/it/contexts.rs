//! Where files come from: the main context and those that have names.

use bollard_buildkit_proto::pb;
use pb::op::Op;

use crate::client::{BUSYBOX, World, ops, titles};

fn definition(world: &mut World) -> pb::Definition {
    world.build().results.remove(0).conversion.definition
}

fn sources(definition: &pb::Definition) -> Vec<pb::SourceOp> {
    let source = |op: pb::Op| match op.op {
        Some(Op::Source(source)) => Some(source),
        _ => None,
    };
    ops(definition).into_iter().filter_map(source).collect()
}

fn names(definition: &pb::Definition) -> Vec<String> {
    sources(definition).into_iter().map(|source| source.identifier).collect()
}

/// The encoding of a definition with one source.
fn given(identifier: &str) -> pb::Definition {
    use prost::Message as _;
    let source = pb::SourceOp { identifier: identifier.into(), attrs: Default::default() };
    let op = pb::Op { op: Some(Op::Source(source)), ..pb::Op::default() }.encode_to_vec();
    let input = pb::Input { digest: dockerfile::llb::name(&op).to_string(), index: 0 };
    let head = pb::Op { inputs: vec![input], ..pb::Op::default() }.encode_to_vec();
    pb::Definition { def: vec![op, head], ..pb::Definition::default() }
}

#[test]
fn named_contexts_replace_images_and_stages() {
    let mut world = World::new(
        "FROM alpine:ghost AS a\nFROM nowhere AS lib\nRUN false\nFROM a\nCOPY --from=lib f /f\nCOPY --from=other /g /g",
    )
    .with("context:alpine:ghost", "docker-image://busybox")
    .with("context:lib", "local:lib")
    .with("context:other", "docker-image://scratch")
    .file("lib/.dockerignore", "x\n");
    let definition = definition(&mut world);
    assert_eq!(names(&definition), ["docker-image://docker.io/library/busybox:latest", "local://lib"]);
    let lib = &sources(&definition)[1];
    assert_eq!(lib.attrs["local.followpaths"], r#"["f"]"#);
    assert_eq!(lib.attrs["local.excludepatterns"], r#"["x"]"#);
    assert_eq!(lib.attrs["local.sharedkeyhint"], "context:lib-");
    let titles = titles(&definition);
    assert!(titles.contains(&"[context alpine:ghost] busybox".to_owned()), "{titles:?}");
    assert!(titles.contains(&"[context lib] load from client".to_owned()), "{titles:?}");
}

#[test]
fn a_context_may_be_one_for_a_platform() {
    let mut world = World::new("FROM dep\nCOPY --from=dep /a /a")
        .with("context:dep::linux/amd64", "docker-image://busybox")
        .with("context:dep", "docker-image://nothere");
    assert_eq!(names(&definition(&mut world)), ["docker-image://docker.io/library/busybox:latest"]);
}

#[test]
fn a_whole_context_is_asked_for_where_all_of_it_is_needed() {
    for dockerfile in ["FROM dep", "FROM dep AS d\nRUN x", "FROM scratch\nCOPY --from=dep / /"] {
        let mut world = World::new(dockerfile).with("context:dep", "local:dep");
        let found = sources(&definition(&mut world));
        assert_eq!(found[0].attrs.get("local.followpaths"), None, "{dockerfile}");
    }
}

#[test]
fn contexts_come_from_layouts_inputs_repositories_and_servers() {
    let digest = format!("sha256:{}", "b".repeat(64));
    let mut world = World::new(
        "FROM base\nCOPY --from=in /a /a\nCOPY --from=git /b /b\nCOPY --from=web /c /c\nCOPY --from=local /d /d",
    )
    .with("context:base", &format!("oci-layout://store@{digest}"))
    .with("context:in", "input:in")
    .with("context:git", "https://a.b/c.git#main:d")
    .with("context:web", "https://a.b/c.tar")
    .with("context:local", "local:other")
    .with("local-sessionid:other", "s2");
    world.images.insert(format!("docker.io/library/base@{digest}"), BUSYBOX.into());
    world.request.inputs.insert("in".into(), given("local://made"));
    let definition = definition(&mut world);
    let found = names(&definition);
    for name in [
        format!("oci-layout://docker.io/library/base@{digest}"),
        "local://made".into(),
        "git://a.b/c.git#main:d".into(),
        "https://a.b/c.tar".into(),
        "local://other".into(),
    ] {
        assert!(found.contains(&name), "{name} is not in {found:?}");
    }
    let layout = sources(&definition).into_iter().find(|source| source.identifier.starts_with("oci")).unwrap();
    assert_eq!((layout.attrs["oci.store"].as_str(), layout.attrs["oci.session"].as_str()), ("store", "session"));
    let local = sources(&definition).into_iter().find(|source| source.identifier == "local://other").unwrap();
    assert_eq!(local.attrs["local.session"], "s2");
}

#[test]
fn contexts_are_refused() {
    for (source, why) in [
        ("nothing", "invalid context specifier nothing for dep"),
        ("ftp://x", "unsupported context source ftp for dep"),
        ("input:x", "invalid input x for dep"),
        ("oci-layout://x", "oci-layout reference \"x\" has no digest"),
        ("docker-image://nothere", "failed to resolve source metadata for docker.io/library/nothere:latest: not found"),
        ("https://a/b.git?x=1", "unexpected query \"x\""),
    ] {
        let failure = World::new("FROM dep").with("context:dep", source).refused();
        assert_eq!(failure.error.message(), why);
        assert_eq!(failure.file.unwrap().filename, "Dockerfile");
    }
}

#[test]
fn nothing_takes_the_place_of_scratch() {
    let mut world = World::new("FROM scratch\nCOPY a /a").with("context:scratch", "docker-image://busybox");
    assert_eq!(names(&definition(&mut world)), ["local://context"]);
}

#[test]
fn the_main_context_may_be_a_repository() {
    let mut world = World::new("nothing")
        .with("context", "https://a.b/c.git#v1")
        .with("build-arg:SOURCE_DATE_EPOCH", "1")
        .with("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR", "1")
        .file("git://a.b/c.git#v1/Dockerfile", "FROM scratch\nCOPY a /a");
    let definition = definition(&mut world);
    let git = &sources(&definition)[0];
    assert_eq!((git.identifier.as_str(), git.attrs["git.mtime"].as_str()), ("git://a.b/c.git#v1", "commit"));
    assert_eq!(git.attrs["git.keepgitdir"], "true");
    assert_eq!(git.attrs.get("local.followpaths"), None);
    assert!(titles(&definition).contains(&"[internal] load git source https://a.b/c.git#v1".to_owned()));
    // The client's Dockerfile, if that is what it wants.
    let mut local =
        World::new("FROM scratch\nCOPY b /b").with("context", "git@a.b:c").with("dockerfilekey", "dockerfile");
    assert_eq!(names(&self::definition(&mut local)), ["git://a.b/c"]);
}

#[test]
fn the_main_context_may_be_a_file_of_a_server() {
    let url = "https://a.b/c";
    let mut file =
        World::new("nothing").with("context", url).file(&format!("{url}/context"), "FROM scratch\nCOPY context /x");
    assert_eq!(file.build().file.filename, "context");
    assert_eq!(names(&definition(&mut file)), [url]);
    let mut archive = World::new("nothing").with("context", url).with("contextsubdir", "d");
    archive = archive
        .file(&format!("{url}/context"), "BZh91AY")
        .file(&format!("{url}/Dockerfile"), "FROM scratch\nCOPY a /a");
    let definition = definition(&mut archive);
    let copies: Vec<(String, String, bool)> = ops(&definition)
        .into_iter()
        .filter_map(|op| match op.op {
            Some(Op::File(file)) => file.actions.into_iter().next(),
            _ => None,
        })
        .filter_map(|action| match action.action {
            Some(pb::file_action::Action::Copy(copy)) => {
                Some((copy.src, copy.dest, copy.attempt_unpack_docker_compatibility))
            }
            _ => None,
        })
        .collect();
    let step = |src: &str, dest: &str, unpacked| (src.to_owned(), dest.to_owned(), unpacked);
    assert_eq!(copies, [step("/context", "/", true), step("/d", "/", false), step("/a", "/a", false)]);
}

#[test]
fn the_main_context_may_be_what_the_client_made() {
    let mut world = World::new("FROM scratch\nCOPY a /a");
    world.request.inputs.insert("context".into(), given("local://made"));
    assert_eq!(names(&definition(&mut world)), ["local://made"]);
    // Without vertices there is nothing in it.
    world.request.inputs.insert("context".into(), pb::Definition::default());
    assert_eq!(names(&definition(&mut world)), [""; 0]);
    let mut broken = given("local://made");
    broken.def.remove(0);
    world.request.inputs.insert("context".into(), broken);
    assert_eq!(world.refused().error.message(), "invalid definition of an input: the result is not there");
}

#[test]
fn the_dockerfile_may_be_written_in_lower_case() {
    let mut world =
        World::new("").file("dockerfile/d/dockerfile", "FROM scratch\nLABEL a=b").with("filename", "d/Dockerfile");
    assert_eq!(world.build().file.filename, "d/Dockerfile");
}

#[test]
fn images_of_platforms_are_asked_for_at_once() {
    let mut world =
        World::new("FROM busybox AS a\nFROM alpine AS b\nFROM a\nCOPY --from=b /x /x\nCOPY --from=debian /y /y");
    for name in ["alpine", "debian"] {
        world.images.insert(format!("docker.io/library/{name}:latest"), BUSYBOX.into());
    }
    world = world.with("platform", "linux/amd64,linux/arm64");
    world.build();
    let images = world.asked.iter().filter(|question| matches!(question, dockerfile::Question::Image(_)));
    assert_eq!(images.count(), 6);
}

#[test]
fn triggers_of_an_image_may_need_other_images() {
    let mut world = World::new("FROM onbuild\nRUN true");
    let config = BUSYBOX.replace("\"Cmd\"", "\"OnBuild\":[\"COPY --from=alpine /x /x\",\"RUN first\"],\"Cmd\"");
    world.images.insert("docker.io/library/onbuild:latest".into(), config);
    world.images.insert("docker.io/library/alpine:latest".into(), BUSYBOX.into());
    let build = world.build();
    let conversion = &build.results[0].conversion;
    assert_eq!(conversion.image.config.on_build, [""; 0]);
    let titles = titles(&conversion.definition);
    for title in [
        // The file has one stage, and steps are counted before its image is known.
        "[1/2] FROM docker.io/library/onbuild:latest",
        "[2/4] ONBUILD COPY --from=alpine /x /x",
        "[3/4] ONBUILD RUN first",
        "[4/4] RUN true",
    ] {
        assert!(titles.contains(&title.to_owned()), "{title:?} is not in {titles:?}");
    }
}

#[test]
fn an_image_is_named_by_its_digest_once_it_is_known() {
    let mut world = World::new("FROM --platform=linux/arm64 busybox:1 AS b\nFROM b");
    let digest = format!("sha256:{}", "c".repeat(64));
    let config = BUSYBOX.replace("amd64", "arm64");
    world.images.insert("docker.io/library/busybox:1".into(), config);
    world.digest = digest.clone();
    let definition = definition(&mut world);
    assert_eq!(names(&definition), [format!("docker-image://docker.io/library/busybox:1@{digest}")]);
    assert_eq!(ops(&definition)[0].platform.as_ref().unwrap().architecture, "arm64");
}
