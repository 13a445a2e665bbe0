//! Findings, and what is told of a file without building it.

use std::collections::BTreeMap;

use dockerfile::Outcome;
use serde_json::Value;

use crate::client::World;

/// A Dockerfile with what is found in it: `Rule: text (line N)` each.
const FINDINGS: [(&str, &[&str]); 32] = [
    ("FROM busybox AS Big", &["StageNameCasing: Stage name 'Big' should be lowercase (line 1)"]),
    ("FROM busybox as b", &["FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"]),
    ("from busybox as b", &[]),
    ("FROM busybox\nRUN a \\\n\n  b", &["NoEmptyContinuation: Empty continuation line (line 4)"]),
    ("FROM busybox\nRUN a \\\n# c\n  b", &[]),
    (
        "from busybox\nRUN true\nRUN true 2",
        &[
            "ConsistentInstructionCasing: Command 'from' should match the case of the command majority (uppercase) (line 1)",
        ],
    ),
    (
        "from busybox\nrun true\nRuN true 2",
        &[
            "ConsistentInstructionCasing: Command 'RuN' should match the case of the command majority (lowercase) (line 3)",
        ],
    ),
    (
        "FROM busybox AS a\nFROM busybox AS a",
        &["DuplicateStageName: Duplicate stage name \"a\", stage names should be unique (line 2)"],
    ),
    (
        "FROM busybox AS context",
        &["ReservedStageName: Stage name should not use the same name as reserved stage \"context\" (line 1)"],
    ),
    (
        "FROM busybox\nCMD echo a",
        &[
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)",
        ],
    ),
    ("FROM busybox\nSHELL [\"/bin/sh\"]\nENTRYPOINT echo a", &[]),
    (
        "FROM busybox\nMAINTAINER me",
        &["MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"],
    ),
    ("FROM busybox${TAGG}", &["UndefinedArgInFrom: FROM argument 'TAGG' is not declared (line 1)"]),
    (
        "ARG TAG=:latest\nFROM busybox${TAGG}",
        &["UndefinedArgInFrom: FROM argument 'TAGG' is not declared (did you mean TAG?) (line 2)"],
    ),
    (
        "FROM busybox\nWORKDIR a\nWORKDIR b",
        &["WorkdirRelativePath: Relative workdir \"a\" can have unexpected results if the base image changes (line 2)"],
    ),
    ("FROM busybox\nWORKDIR /a\nWORKDIR b", &[]),
    ("FROM busybox AS a\nWORKDIR /a\nFROM a\nWORKDIR b", &[]),
    (
        "FROM busybox\nENV PASS=1\nUSER $PAS",
        &["UndefinedVar: Usage of undefined variable '$PAS' (did you mean $PASS?) (line 3)"],
    ),
    ("FROM busybox\nARG X\nUSER a$X\nRUN echo $Y", &[]),
    (
        "FROM busybox\nCMD [\"a\"]\nCMD [\"b\"]",
        &[
            "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)",
        ],
    ),
    (
        "FROM busybox\nENV a b\nlabel c d",
        &[
            "ConsistentInstructionCasing: Command 'label' should match the case of the command majority (uppercase) (line 3)",
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
            "LegacyKeyValueFormat: \"label key=value\" should be used instead of legacy \"label key value\" format (line 3)",
        ],
    ),
    (
        "FROM --platform=linux/arm64 busybox",
        &[
            "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/arm64\" (line 1)",
            "InvalidBaseImagePlatform: Base image busybox was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for current build (line 1)",
        ],
    ),
    ("FROM --platform=linux/amd64 busybox AS build_amd64", &[]),
    (
        "FROM --platform=$TARGETPLATFORM busybox",
        &[
            "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)",
        ],
    ),
    (
        "FROM busybox\nARG API_TOKEN\nENV db_password=x PUBLIC_KEY=y AUTHOR=z",
        &[
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"API_TOKEN\") (line 2)",
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \"db_password\") (line 3)",
        ],
    ),
    (
        "FROM busybox\nEXPOSE 80/TCP 1:2",
        &[
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '1:2' (line 2)",
            "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)",
        ],
    ),
    ("FROM busybox\n# check=skip=JSONArgsRecommended\nCMD echo a", &[]),
    ("# check=skip=all\nfrom busybox AS B\nCMD echo a", &[]),
    ("# check=skip=JSONArgsRecommended\nFROM busybox\nCMD echo a", &[]),
    (
        "# check=experimental=all\n# a stage\nFROM busybox AS b",
        &["InvalidDefinitionDescription: Comment for FROM should follow the format: `# b <description>` (line 3)"],
    ),
    (
        "# check=experimental=InvalidDefinitionDescription\n# some\nARG A B\nFROM busybox",
        &[
            "InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>` (line 3)",
        ],
    ),
    ("# a stage\nFROM busybox AS b", &[]),
];

#[test]
fn findings_are_those_of_the_reference() {
    for (dockerfile, expected) in FINDINGS {
        let build = World::new(dockerfile).build();
        let mut found: Vec<String> = build.warnings.iter().map(|warning| warning.short()).collect();
        found.sort_by_key(|text| text.to_lowercase());
        let mut expected: Vec<&str> = expected.to_vec();
        expected.sort_by_key(|text| text.to_lowercase());
        assert_eq!(found, expected, "{dockerfile}");
    }
}

#[test]
fn sources_that_are_ignored_are_found() {
    for (ignored, dockerfile, found) in [
        ("a", "COPY a b /x/", vec!["Attempting to Copy file \"a\" that is excluded by .dockerignore"]),
        ("a", "ADD ./a/b /x", vec!["Attempting to Add file \"a/b\" that is excluded by .dockerignore"]),
        ("a\n!a/b", "COPY a/b /x", vec![]),
        ("a", "COPY . /x", vec![]),
        ("*", "COPY . /x", vec!["Attempting to Copy file \".\" that is excluded by .dockerignore"]),
        ("a", "COPY --from=busybox a /x", vec![]),
    ] {
        let mut world = World::new(&format!("FROM busybox\n{dockerfile}")).file("context/.dockerignore", ignored);
        let build = world.build();
        let messages: Vec<&str> = build.warnings.iter().map(|warning| warning.message.as_str()).collect();
        assert_eq!(messages, found, "{dockerfile}");
    }
}

#[test]
fn images_that_are_none_by_default_are_found() {
    let mut world = World::new("ARG IMAGE\nFROM $IMAGE").with("build-arg:IMAGE", "busybox");
    let build = world.build();
    assert_eq!(
        build.warnings[0].short(),
        "InvalidDefaultArgInFrom: Default value for ARG $IMAGE results in empty or invalid base image name (line 2)"
    );
}

#[test]
fn findings_may_be_errors() {
    let text = "# check=error=true\nFROM busybox\nCMD a\nMAINTAINER b";
    let why = "lint violation found for rules: JSONArgsRecommended, MaintainerDeprecated";
    assert_eq!(World::new(text).refused().error.message(), why);
    // A request's wish takes the place of the file's.
    World::new(text).with("build-arg:BUILDKIT_DOCKERFILE_CHECK", "skip=all").build();
    let why = "failed to parse check options: invalid check option \"x\"";
    assert_eq!(World::new("# check=x\nFROM busybox").refused().error.message(), why);
}

fn told(world: &mut World) -> BTreeMap<String, Vec<u8>> {
    match world.solve() {
        Ok(Outcome::Answer(told)) => told,
        other => panic!("{other:?}"),
    }
}

fn text(told: &BTreeMap<String, Vec<u8>>, part: &str) -> String {
    String::from_utf8(told[part].clone()).unwrap()
}

fn call(dockerfile: &str, request: &str) -> World {
    World::new(dockerfile).with("requestid", request).with("frontend.caps", "moby.buildkit.frontend.subrequests")
}

#[test]
fn findings_are_told_as_text_and_json() {
    let told = told(&mut call("FROM busybox\nCMD echo a\n", "frontend.lint"));
    assert_eq!(text(&told, "result.statuscode"), "1");
    let shown = "\nWARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n\
        JSON arguments recommended for CMD to prevent unintended behavior related to OS signals\nDockerfile:2\n\
        --------------------\n   1 |     FROM busybox\n   2 | >>> CMD echo a\n   3 |     \n--------------------\n";
    assert_eq!(text(&told, "result.txt"), shown);
    let json: Value = serde_json::from_slice(&told["result.json"]).unwrap();
    let warning = &json["warnings"][0];
    assert_eq!(
        (&warning["ruleName"], &warning["location"]["ranges"][0]["start"]["line"]),
        (&"JSONArgsRecommended".into(), &2.into())
    );
    assert_eq!(json["sources"][0]["filename"], "Dockerfile");
    assert_eq!(json.get("buildError"), None);
}

#[test]
fn a_clean_file_has_no_findings() {
    let told = told(&mut call("FROM busybox\nCMD [\"a\"]", "frontend.lint"));
    assert_eq!((text(&told, "result.statuscode"), text(&told, "result.txt")), ("0".into(), String::new()));
    assert_eq!(text(&told, "version"), "1.0.0");
}

#[test]
fn a_file_that_is_wrong_is_told_with_its_findings() {
    let told = told(&mut call("FROM busybox AS A\nRUNN x", "frontend.lint"));
    let json: Value = serde_json::from_slice(&told["result.json"]).unwrap();
    assert_eq!(
        json["buildError"]["message"],
        "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)"
    );
    assert_eq!(json["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
    assert_eq!(json["warnings"][0]["ruleName"], "StageNameCasing");
    assert_eq!(text(&told, "result.statuscode"), "1");
}

#[test]
fn without_a_target_all_stages_are_looked_at() {
    let text = "FROM busybox AS a\nCMD a\nFROM busybox AS b";
    let count = |world: &mut World| {
        let json: Value = serde_json::from_slice(&told(world)["result.json"]).unwrap();
        json["warnings"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(count(&mut call(text, "frontend.lint")), 1);
    assert_eq!(count(&mut call(text, "frontend.lint").with("target", "b")), 0);
}

#[test]
fn targets_are_listed() {
    let told = told(&mut call("# a first stage\nFROM busybox AS a\n\nFROM a AS b\n", "frontend.targets"));
    assert_eq!(text(&told, "result.txt"), "TARGET      DESCRIPTION\na           first stage\nb (default) \n");
    let json: Value = serde_json::from_slice(&told["result.json"]).unwrap();
    assert_eq!(json["targets"][1]["default"], true);
    assert_eq!(json["targets"][1]["base"], "a");
    assert_eq!(json["targets"][0]["description"], "first stage");
}

#[test]
fn an_outline_has_what_a_target_asks_for() {
    let text = "# VERSION of the tool\nARG VERSION=1\nARG FULL=v$VERSION\nARG UNUSED=1\nFROM busybox AS dep\nARG DEP=d\n\
        RUN --mount=type=secret,id=tok,required true\nFROM busybox:$FULL AS main\nARG OWN\n\
        RUN --mount=type=ssh --mount=from=dep,target=/d true";
    let mut world = call(text, "frontend.outline");
    world.images.insert("docker.io/library/busybox:v1".into(), crate::client::BUSYBOX.into());
    let told = told(&mut world);
    let shown = "TARGET: main\n\nBUILD ARG   VALUE   DESCRIPTION\nVERSION     1       of the tool\nFULL        v1      \nDEP         d       \n\
        OWN                 \n\nSECRET   REQUIRED\ntok      true\n\nSSH       REQUIRED\ndefault   \n\n";
    assert_eq!(self::text(&told, "result.txt"), shown);
    let json: Value = serde_json::from_slice(&told["result.json"]).unwrap();
    assert_eq!(json["args"][0]["description"], "of the tool");
    assert_eq!(json["secrets"][0]["required"], true);
}

#[test]
fn what_can_be_asked_is_told_and_other_things_are_refused() {
    let told = told(&mut call("FROM busybox", "frontend.subrequests.describe"));
    let lines = text(&told, "result.txt");
    assert!(lines.starts_with("NAME                 VERSION DESCRIPTION\noutline "), "{lines}");
    let failure = call("FROM busybox", "frontend.x").refused();
    assert_eq!((failure.error.message(), failure.unsupported), ("unsupported request frontend.x", true));
    let failure = World::new("FROM busybox").with("frontend.caps", "moby.buildkit.frontend.x").refused();
    assert_eq!(failure.error.message(), "unsupported frontend capability moby.buildkit.frontend.x");
}

#[test]
fn other_front_ends_are_asked_for() {
    for (text, image) in [
        ("# syntax=127.0.0.1:5000/front:1 a\nFROM x", Some("127.0.0.1:5000/front:1")),
        ("# syntax=docker/dockerfile:1.7-labs\nFROM busybox", None),
        ("# syntax=docker/dockerfile-upstream:master\nFROM busybox", None),
        ("# syntax=dockerfile.v0\nFROM busybox", None),
    ] {
        let forwarded = match World::new(text).solve() {
            Ok(Outcome::Forward(syntax, _)) => Some(syntax.image),
            Ok(_) => None,
            Err(failure) => panic!("{failure:?}"),
        };
        assert_eq!(forwarded.as_deref(), image);
    }
    let mut world = World::new("# syntax=docker/dockerfile:1\nFROM busybox");
    world.request.syntax = dockerfile::OwnSyntax::Forwarded;
    assert!(matches!(world.solve(), Ok(Outcome::Forward(..))));
    assert!(matches!(world.clone().with("cmdline", "docker/dockerfile:1").solve(), Ok(Outcome::Build(_))));
    let mut wished = World::new("FROM busybox").with("build-arg:BUILDKIT_SYNTAX", "other b");
    assert!(matches!(wished.solve(), Ok(Outcome::Forward(syntax, _)) if syntax.command == "other b"));
}
