//! Expected values are those of BuildKit 0.13, of `FROM image`, `WORKDIR /w`, `COPY x d/`, `RUN cat /w/d/x > /y`.

use std::os::unix::fs::PermissionsExt;

use super::*;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn vertex(op: Op, inputs: usize) -> Vertex {
    let input = || crate::graph::Output { vertex: sha256("input"), index: 0 };
    Vertex {
        digest: sha256("vertex"),
        op,
        inputs: (0..inputs).map(|_| input()).collect(),
        platform: Some(pb::Platform { os: "linux".into(), architecture: "amd64".into(), ..pb::Platform::default() }),
        name: String::new(),
        ignore_cache: false,
        platform_bytes: Vec::new(),
    }
}

fn file(actions: Vec<(Action, [i64; 3])>, inputs: usize) -> Vertex {
    let action = |(action, [input, secondary_input, output]): (Action, [i64; 3])| pb::FileAction {
        input,
        secondary_input,
        output,
        action: Some(action),
    };
    vertex(Op::File(pb::FileOp { actions: actions.into_iter().map(action).collect() }), inputs)
}

fn exec(command: &str, mounts: Vec<pb::Mount>) -> Vertex {
    let meta = pb::Meta {
        args: vec!["/bin/sh".into(), "-c".into(), command.into()],
        env: vec![PATH.into()],
        cwd: "/w".into(),
        remove_mount_stubs_recursive: true,
        ..pb::Meta::default()
    };
    let inputs = 1 + mounts.len();
    let root = pb::Mount { dest: "/".into(), ..pb::Mount::default() };
    let mounts = [vec![root], mounts].concat();
    vertex(Op::Exec(pb::ExecOp { meta: Some(meta), mounts, ..pb::ExecOp::default() }), inputs)
}

fn only(vertex: &Vertex) -> String {
    let keyed = of(vertex).unwrap();
    assert_eq!(keyed.digests.len(), 1);
    record(&keyed.digests[0], 0).to_string()
}

#[test]
fn steps_have_the_keys_of_buildkit() {
    let make = pb::FileActionMkDir { path: "/w".into(), mode: 0o755, make_parents: true, timestamp: -1, owner: None };
    let make = file(vec![(Action::Mkdir(make), [0, -1, 0])], 1);
    assert_eq!(only(&make), "sha256:f6515d8afd8f2d2ce6612a1d4492f88887feb327524d76cfd0f4c19c328711c2");
    let copy = pb::FileActionCopy {
        src: "/x".into(),
        dest: "/w/d/".into(),
        mode: -1,
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        timestamp: -1,
        ..pb::FileActionCopy::default()
    };
    let copy = file(vec![(Action::Copy(copy), [0, 1, 0])], 2);
    assert_eq!(only(&copy), "sha256:db57a82fd8a82f1c281c450c054a3f20a94dcb87b77c215fd4f593f78812c3bd");
    let used = of(&copy).unwrap().inputs;
    assert_eq!((used[0].selector.as_str(), &used[0].content), ("", &None));
    assert!(!used[1].selector.is_empty() && used[1].content.as_ref().is_some_and(|content| content.len() == 1));
    let run = exec("cat /w/d/x > /y", Vec::new());
    assert_eq!(only(&run), "sha256:9abca807848d44be6c758663fa64990e4e629437d1293d5bc300f4c96232c6cf");
    let used = &of(&run).unwrap().inputs[0];
    assert_eq!(used.selector, "sha256:8a5edab282632443219e051e4ade2d1d5bbc671c781051bf1437897cbdfea0f1");
    assert!(used.content.is_none());
}

#[test]
fn images_have_the_keys_of_buildkit() {
    let id = Digest::parse("sha256:4a7b1c21c116e7822beaea7157459a7944f91069a8861363ce37d040b1fbaf5b").unwrap();
    let layer = |key| Layer { key, blob: None };
    let one = image(&[layer(LayerKey::Diff(id.clone()))]).unwrap();
    assert_eq!(one.as_str(), "sha256:24126394ca325f500ac488a599b9f6607256ddb9c3df8ce827c679234a0c9f86");
    assert_eq!(image(&[layer(LayerKey::Local(id))]), None);
    assert_eq!(image(&[]), None);
}

#[test]
fn both_ways_of_writing_indexes_are_known() {
    let bind = pb::Mount {
        dest: "/m".into(),
        input: 1,
        output: -1,
        readonly: true,
        selector: "a".into(),
        ..pb::Mount::default()
    };
    let keyed = of(&exec("true", vec![bind])).unwrap();
    assert_eq!(keyed.digests.len(), 2);
    let paths: Vec<&str> = keyed.inputs[1].content.iter().flatten().map(|selector| selector.path.as_str()).collect();
    assert_eq!(paths, ["/a"]);
    assert_eq!(keyed.inputs[1].selector, sha256("/a").to_string());
    let mut wrong = exec("true", Vec::new());
    wrong.inputs.clear();
    assert!(of(&wrong).is_none());
}

#[test]
fn files_have_the_digests_of_buildkit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    std::fs::write(&path, "one\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (user, group) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    if rustix::fs::chown(&path, Some(user), Some(group)).is_err() {
        return;
    }
    let root = sys::rooted::Rooted::open_dir(dir.path()).unwrap();
    let select = |path: &str, wild: bool| Selector { path: path.into(), follow: true, wild, ..Selector::default() };
    let of = |selectors: &[Selector]| content(&digests(&root, selectors, true).unwrap()[0]).to_string();
    let expected = "sha256:448056abb0111bb7ec4ce0e8a28f0e9198ad77d381aba8a28b25da8e789b364c";
    assert_eq!(of(&[select("x", false)]), expected);
    std::os::unix::fs::symlink("x", dir.path().join("link")).unwrap();
    assert_eq!(of(&[select("/link", false)]), expected);
    assert_ne!(of(&[]), of(&[select("x*", true)]));
    assert!(digests(&root, &[select("none", false)], true).is_err());
    assert_eq!(digests(&root, &[select("none*", true)], true).unwrap(), [sha256(sha256("").as_str())]);
    // Names of what patterns take are written in two ways.
    assert_eq!(digests(&root, &[select("x*", true)], true).unwrap().len(), 2);
}

#[test]
fn texts_are_escaped_as_go_does() {
    assert_eq!(json::quoted("a<b>&\"\n\u{2028}"), "\"a\\u003cb\\u003e\\u0026\\\"\\n\\u2028\"");
}
