//! The properties over the seeds of the fuzz targets, as they are and spoilt, and over what proptest makes.
//! Those of layers need root.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

/// Runs a property over the target's seeds, over `cases` spoilt ones, and over as many texts of this form.
fn hold(target: &str, property: fn(&[u8]), cases: u32, form: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let seeds: Vec<Vec<u8>> = entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(!seeds.is_empty(), "no seeds in {}", dir.display());
    seeds.iter().for_each(|seed| property(seed));
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
    let texts = prop::string::string_regex(form).unwrap();
    let mut random = seed();
    let begun = Instant::now();
    // At least once, and then as long as there is time: what is found does not depend on the machine's speed.
    loop {
        run(random, cases, &spoilt, |seed| property(&seed));
        run(random, cases, &texts, |text| property(text.as_bytes()));
        if begun.elapsed() >= TIME {
            return;
        }
        random = random.wrapping_add(1);
    }
}

/// How long a property is tried with random inputs.
const TIME: Duration = Duration::from_secs(2);
/// The variable with the number that the random inputs come from.
const SEED: &str = "GANTRY_TEST_SEED";

/// The given seed, or a new one.
fn seed() -> u64 {
    let given = std::env::var(SEED).ok();
    let given = given.map(|text| text.parse().unwrap_or_else(|error| panic!("{SEED}={text}: {error}")));
    given.unwrap_or_else(|| RandomState::new().hash_one(0))
}

/// Tries a property with `cases` inputs of the seed, which is named when it fails.
fn run<S: Strategy>(seed: u64, cases: u32, strategy: &S, property: impl Fn(S::Value)) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let run = TestRunner::new_with_rng(config, random).run(strategy, |value| {
        property(value);
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{SEED}={seed} repeats this: {error}"));
}

#[test]
fn dockerfiles() {
    let form = "(# (check|escape|syntax)=[a-z`=;]{0,9}\n)?(ARG [A-C]=[a-c$]{0,3}\n)?(FROM (busybox|scratch|named|a|\\$A)( AS [a-c])?\n\
        (RUN( --(mount|network|security)=[a-z=,/.$]{0,20})? [a-c$ <\\\\\n]{0,9}\n|(COPY|ADD)( --(from|link|chmod|chown|parents)(=[a-c0-9:]{0,4})?)? \
        [a-c*./<]{1,9} [a-c./]{1,5}\n|(ENV|LABEL|ARG) [A-C=\"'$ {}:+-]{1,12}\n|(EXPOSE|USER|VOLUME|WORKDIR|ONBUILD|CMD|SHELL|HEALTHCHECK) \
        [A-Za-c0-9\\[\\]\",$/ -]{0,12}\n){0,6}){1,4}";
    hold("dockerfile", properties::dockerfile, 1000, form);
}

#[test]
fn words() {
    hold("words", properties::words, 2000, "[A-Da-c$ {}:+?#%/*\\\\'\"<.-]{0,24}");
}

#[test]
fn ignore_files() {
    let form = "[a-c.]{1,3}(/[a-c.]{1,3}){0,4}\n(!?/?[a-c*?\\[\\]^.\\\\-]{1,4}(/[a-c*?.]{1,3}){0,3}\n){0,5}";
    hold("ignore_file", properties::ignore_file, 3000, form);
}

#[test]
fn descriptions_of_caches() {
    hold("cache_description", properties::cache_description, 2000, "[\\x00-\\x7f]{0,32}");
}

#[test]
fn definitions() {
    hold("definition", properties::definition, 1000, "[\\x00-\\x7f]{0,32}");
}

#[test]
fn source_policies() {
    hold("source_policy", properties::source_policy, 2000, "[\\x00-\\x7f]{0,40}");
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
fn messages_of_a_bus() {
    hold("bus_messages", properties::bus_messages, 4000, "l[\\x01-\\x04]\\x00\\x01[\\x00-\\x20]{0,80}");
}

#[test]
fn archives() {
    hold("archive", properties::archive, 2000, "\\PC{0,200}");
}

#[test]
fn http_connections() {
    let form = "(GET|POST|PUT|OPTIONS|\\*) (/v1\\.[0-9]{1,2})?/[a-z%/.]{0,12}(\\?[a-z=&%+]{0,8})? HTTP/1\\.[01]\r\n((Host|Content-Length|Transfer-Encoding|Connection|Upgrade|Expect): [a-z0-9-]{0,12}\r\n){0,4}\r\n\\PC{0,40}";
    hold("http", properties::http, 100, form);
}

#[test]
fn json_bodies() {
    let form = "\\{(\"(Image|Cmd|Env|Labels|HostConfig|Memory|Name|Tty|[a-z]{1,4})\":(null|true|-?[0-9]{1,20}|\"\\PC{0,4}\"|\\[\\]|\\[\"a\"\\]|\\{\\}),?){0,6}\\}";
    hold("json", properties::json, 1000, form);
}

#[test]
fn logs() {
    let form = "(\\{\"log\":\"[a-z]{0,4}(\\\\n)?\",\"stream\":\"(stdout|stderr|x)\",\"time\":\"2026-1[0-9]-[0-9]{2}T00:00:[0-9]{2}(\\.[0-9]{1,10})?Z\"\\}?\n?){0,6}";
    hold("log", properties::log, 100, form);
}

#[test]
fn monitor_packets() {
    hold("monitor_packets", properties::monitor_packets, 2000, "[\\x00-\\x7f]{0,40}");
}

#[test]
fn dns_messages() {
    hold("dns_messages", properties::dns_messages, 2000, "[\\x00-\\x20]{0,120}");
}

#[test]
fn netlink_messages() {
    hold("netlink", properties::netlink, 2000, "[\\x00-\\x20]{0,120}");
}

#[test]
fn websockets() {
    hold("websocket", properties::websocket, 100, "([\\x01\\x02][\\x00-\\x7f]{0,20}){0,4}");
}
