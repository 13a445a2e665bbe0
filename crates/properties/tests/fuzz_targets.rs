//! Every fuzz target (`fuzz/fuzz_targets`) compiles, has its section in `fuzz/Cargo.toml` and its row in `fuzz/README.md`, and
//! takes its seeds. In place of the fuzzer, which needs an instrumented build, a macro makes a function of each target.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]
#![allow(unused_attributes, reason = "`no_main` is an attribute of the targets' own crates")]

extern crate self as libfuzzer_sys;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// As that of the crate `libfuzzer_sys`.
#[macro_export]
macro_rules! fuzz_target {
    (|$bytes:ident: &[u8]| $body:expr) => {
        /// Runs the target once.
        pub fn run($bytes: &[u8]) {
            $body;
        }
    };
}

#[path = "../../../fuzz/fuzz_targets/archive.rs"]
mod archive;
#[path = "../../../fuzz/fuzz_targets/bus_messages.rs"]
mod bus_messages;
#[path = "../../../fuzz/fuzz_targets/cache_description.rs"]
mod cache_description;
#[path = "../../../fuzz/fuzz_targets/definition.rs"]
mod definition;
#[path = "../../../fuzz/fuzz_targets/dns_messages.rs"]
mod dns_messages;
#[path = "../../../fuzz/fuzz_targets/dockerfile.rs"]
mod dockerfile;
#[path = "../../../fuzz/fuzz_targets/documents.rs"]
mod documents;
#[path = "../../../fuzz/fuzz_targets/extraction.rs"]
mod extraction;
#[path = "../../../fuzz/fuzz_targets/hosts_toml.rs"]
mod hosts_toml;
#[path = "../../../fuzz/fuzz_targets/http.rs"]
mod http;
#[path = "../../../fuzz/fuzz_targets/ignore_file.rs"]
mod ignore_file;
#[path = "../../../fuzz/fuzz_targets/json.rs"]
mod json;
#[path = "../../../fuzz/fuzz_targets/layer.rs"]
mod layer;
#[path = "../../../fuzz/fuzz_targets/log.rs"]
mod log;
#[path = "../../../fuzz/fuzz_targets/monitor_packets.rs"]
mod monitor_packets;
#[path = "../../../fuzz/fuzz_targets/netlink.rs"]
mod netlink;
#[path = "../../../fuzz/fuzz_targets/ps_output.rs"]
mod ps_output;
#[path = "../../../fuzz/fuzz_targets/reference.rs"]
mod reference;
#[path = "../../../fuzz/fuzz_targets/seccomp.rs"]
mod seccomp;
#[path = "../../../fuzz/fuzz_targets/signatures.rs"]
mod signatures;
#[path = "../../../fuzz/fuzz_targets/source_policy.rs"]
mod source_policy;
#[path = "../../../fuzz/fuzz_targets/websocket.rs"]
mod websocket;
#[path = "../../../fuzz/fuzz_targets/words.rs"]
mod words;

/// A target by its name.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 23] = [
    ("archive", archive::run),
    ("bus_messages", bus_messages::run),
    ("cache_description", cache_description::run),
    ("definition", definition::run),
    ("dns_messages", dns_messages::run),
    ("dockerfile", dockerfile::run),
    ("documents", documents::run),
    ("extraction", extraction::run),
    ("hosts_toml", hosts_toml::run),
    ("http", http::run),
    ("ignore_file", ignore_file::run),
    ("json", json::run),
    ("layer", layer::run),
    ("log", log::run),
    ("monitor_packets", monitor_packets::run),
    ("netlink", netlink::run),
    ("ps_output", ps_output::run),
    ("reference", reference::run),
    ("seccomp", seccomp::run),
    ("signatures", signatures::run),
    ("source_policy", source_policy::run),
    ("websocket", websocket::run),
    ("words", words::run),
];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

#[test]
fn every_target_is_compiled_and_listed() {
    let files = fs::read_dir(fuzz().join("fuzz_targets")).unwrap().flatten();
    let files: BTreeSet<String> =
        files.map(|file| file.path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(files, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let readme = fs::read_to_string(fuzz().join("README.md")).unwrap();
    for name in files {
        let section = format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n");
        assert!(manifest.contains(&section), "{name} has no section");
        assert!(readme.contains(&format!("| `{name}` |")), "{name} has no row");
    }
}

#[test]
fn every_target_takes_its_seeds() {
    for (name, run) in TARGETS {
        // What is unpacked into a container is a layer's archive, too.
        let seeds = if name == "extraction" { "layer" } else { name };
        // A target may have none yet.
        for seed in fs::read_dir(fuzz().join("seeds").join(seeds)).into_iter().flatten().flatten() {
            run(&fs::read(seed.path()).unwrap());
        }
        run(b"");
    }
}
