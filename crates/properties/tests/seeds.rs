//! The properties over the seeds of the fuzz targets, as they are and spoilt, and over what proptest makes.
//! Those of layers need root.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Runs a property over the target's seeds, over `cases` spoilt ones, and over as many texts of this form.
fn hold(target: &str, property: fn(&[u8]), cases: u32, form: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let seeds: Vec<Vec<u8>> = entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(!seeds.is_empty(), "no seeds in {}", dir.display());
    seeds.iter().for_each(|seed| property(seed));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let spoil = (prop::sample::select(seeds), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8));
    let spoilt = spoil.prop_map(|(mut seed, changes)| {
        for (at, byte) in changes {
            match byte {
                // Now and then the rest is cut off instead.
                0..16 if seed.len() > 1 => seed.truncate(at.index(seed.len())),
                _ if !seed.is_empty() => *at.get_mut(&mut seed) = byte,
                _ => {}
            }
        }
        seed
    });
    run(config.clone(), &spoilt, |seed| property(&seed));
    run(config, &prop::string::string_regex(form).unwrap(), |text| property(text.as_bytes()));
}

fn run<S: Strategy>(config: ProptestConfig, strategy: &S, property: impl Fn(S::Value)) {
    let run = TestRunner::new(config).run(strategy, |value| {
        property(value);
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn references() {
    hold("reference", properties::reference, 2000, "[a-cA-B0-1._:/@\\[\\] -]{0,32}(@sha256:[0-9a-f]{62,66})?");
}

#[test]
fn documents() {
    hold("documents", properties::documents, 500, "[\\[\\]{}:,\"a-z0-9 ]{0,200}");
}

#[test]
fn hosts_toml() {
    hold(
        "hosts_toml",
        properties::hosts_toml,
        1000,
        "(server|capabilities|ca|\\[host|=|\"|\\[|\\]|\\.|//|:|[a-z0-9\n ]){0,40}",
    );
}

#[test]
fn seccomp_profiles() {
    let form = "\\{(\"defaultAction\":\"SCMP_ACT_(ALLOW|ERRNO|KILL)\"|\"syscalls\":\\[\\{\"names\":\\[\"(read|x)\"\\]\\}\\]|,|[a-z\":]){0,8}\\}";
    hold("seccomp", properties::seccomp_profile, 1000, form);
}

#[test]
fn signatures() {
    hold("signatures", properties::signatures, 500, "\\PC{0,200}");
}

#[test]
fn ps_outputs() {
    hold("ps_output", properties::ps_output, 2000, "[\\x01-\\x7f]{2}(PID|CMD|[ \n\t]|-|42|\\PC){0,80}");
}

#[test]
fn extractions() {
    hold("layer", properties::extraction, 300, "\\PC{0,600}");
}

#[test]
fn layers() {
    hold("layer", properties::layer, 300, "\\PC{0,600}");
}

#[test]
fn archives() {
    hold("archive", properties::archive, 2000, "\\PC{0,200}");
}
