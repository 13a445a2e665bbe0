//! Seccomp profiles, as users write them.

use std::collections::HashSet;

use runtime::seccomp::{self, Arch, Profile};
use serde_json::Value;

/// Instructions that the kernel takes at most (`BPF_MAXINSNS`), 8 bytes each.
const MAX_PROGRAM: usize = 4096 * 8;

/// A profile is refused, or it means the same when it is written and read again, and with keys in capitals; what is made of it
/// for a container is a program that the kernel takes, the same each time, or an error.
pub fn seccomp_profile(bytes: &[u8]) {
    let Ok(profile) = Profile::parse(bytes) else { return };
    assert!(!profile.default_action.is_empty(), "no default action");
    assert!(profile.syscalls.iter().all(|rule| !rule.name.is_empty() || !rule.names.is_empty()), "a rule of nothing");
    let written = serde_json::to_vec(&profile).expect("a profile can be written");
    assert_eq!(Profile::parse(&written).expect("what was written can be read"), profile);
    in_capitals(bytes);
    let capabilities = ["CAP_CHOWN".to_owned(), "CAP_SYS_ADMIN".to_owned()];
    for capabilities in [&capabilities[..], &[]] {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let made = || {
                let filter = seccomp::resolve(&profile, capabilities, arch, (6, 1))?;
                seccomp::compile(&filter, arch)
            };
            let (Ok(program), again) = (made(), made()) else { continue };
            assert_eq!(Some(&program), again.as_ref().ok());
            let length = program.instructions.len();
            assert!(length > 0 && length % 8 == 0 && length <= MAX_PROGRAM, "{length} bytes");
        }
    }
}

/// Go's decoder reads keys whatever their capitals.
fn in_capitals(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let Some(capitals) = capitals(&value) else { return };
    let read = |value: &Value| Profile::parse(value.to_string().as_bytes());
    let (plain, capitals) = (read(&value), read(&capitals));
    assert_eq!(plain.ok(), capitals.ok());
}

/// The same with all keys in capitals; `None` where two keys of an object differ in these only.
fn capitals(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Object(map) => {
            let names: HashSet<String> = map.keys().map(|key| key.to_ascii_uppercase()).collect();
            if names.len() < map.len() {
                return None;
            }
            let pairs = map.iter().map(|(key, value)| Some((key.to_ascii_uppercase(), capitals(value)?)));
            Value::Object(pairs.collect::<Option<_>>()?)
        }
        Value::Array(list) => Value::Array(list.iter().map(capitals).collect::<Option<_>>()?),
        other => other.clone(),
    })
}
