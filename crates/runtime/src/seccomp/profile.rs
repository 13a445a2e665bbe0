//! Docker's profile format, as users write it in JSON files.
//!
//! A profile is read by the rules of the reference's decoder ([`gojson`]): `"Syscalls"` is `"syscalls"`. Beyond that, what
//! would leave the container without the filter that its author wrote is an error: a profile without a default action, a
//! rule without a name, and a profile that lets everything pass while parts of it were not understood.

use std::fs::File;
use std::io::Read;

use gojson::Document;
use model::{Context, Error, Result};
use serde::{Deserialize, Serialize};

use super::ALLOW;
use crate::oci::SeccompArg;

/// Bytes of a profile that are read; the reference's own has 20,000.
pub const MAX_PROFILE: u64 = 4 << 20;

/// A whole profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "Seccomp", default, rename_all = "camelCase")]
pub struct Profile {
    /// What happens to a system call that no rule names, `SCMP_ACT_…`.
    pub default_action: String,
    /// The errno of `SCMP_ACT_ERRNO` and the message of `SCMP_ACT_TRACE`; absent = EPERM.
    pub default_errno_ret: Option<u32>,
    /// Exclusive with `arch_map`: the architectures themselves.
    pub architectures: Vec<String>,
    pub arch_map: Vec<ArchMap>,
    /// `SECCOMP_FILTER_FLAG_…`
    pub flags: Vec<String>,
    pub listener_path: String,
    pub listener_metadata: String,
    pub syscalls: Vec<Rule>,
}

/// The further architectures that a machine of one architecture also runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Architecture", default, rename_all = "camelCase")]
pub struct ArchMap {
    /// `SCMP_ARCH_…`
    pub architecture: String,
    pub sub_architectures: Vec<String>,
}

/// One rule: what happens to the named system calls when all of `args` hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "Syscall", default, rename_all = "camelCase")]
pub struct Rule {
    pub names: Vec<String>,
    /// Of old profiles, exclusive with `names`.
    pub name: String,
    pub action: String,
    pub errno_ret: Option<u32>,
    pub args: Vec<SeccompArg>,
    /// The rule counts only if all of this holds.
    pub includes: Option<Filter>,
    /// The rule does not count if any of this holds.
    pub excludes: Option<Filter>,
}

/// Conditions on the container and the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Filter {
    /// `CAP_…`
    pub caps: Vec<String>,
    /// Go's architecture names: `amd64`, `arm64`.
    pub arches: Vec<String>,
    /// `4.8`: at least this kernel. Empty = any.
    pub min_kernel: Option<String>,
}

impl Profile {
    /// Reads a profile's text. Errors (500, as the reference answers a start): a text that is no profile, and one that
    /// cannot be what its author meant.
    pub fn parse(text: &[u8]) -> Result<Profile> {
        let failed = |why: String| Error::system(format!("Decoding seccomp profile failed: {why}"));
        if text.len() as u64 > MAX_PROFILE {
            return Err(failed(format!("it has more than {MAX_PROFILE} bytes")));
        }
        let document = Document::parse_whole(text).map_err(|e| failed(e.to_string()))?;
        let profile: Profile = document.fit().map_err(|e| failed(e.to_string()))?;
        profile.check(&document.unknown_names::<Profile>()).map_err(failed)?;
        Ok(profile)
    }

    /// Reads the daemon's profile from a file.
    pub fn read(path: &str) -> Result<Profile> {
        let file = File::open(path).with_context(|| format!("opening seccomp profile ({path}) failed"))?;
        let mut text = Vec::new();
        file.take(MAX_PROFILE + 1)
            .read_to_end(&mut text)
            .with_context(|| format!("reading seccomp profile ({path}) failed"))?;
        Profile::parse(&text)
    }

    /// `unknown` are the document's names that mean nothing.
    fn check(&self, unknown: &[&str]) -> std::result::Result<(), String> {
        if self.default_action.is_empty() {
            return Err("it names no default action".to_owned());
        }
        for (n, rule) in self.syscalls.iter().enumerate() {
            if rule.name.is_empty() && rule.names.is_empty() {
                return Err(format!("rule {n} names no system call"));
            }
            for filter in [&rule.includes, &rule.excludes].into_iter().flatten() {
                filter.min_kernel.as_deref().map_or(Ok(None), kernel_version)?;
            }
        }
        match unknown {
            [first, ..] if self.syscalls.is_empty() && self.default_action == ALLOW => {
                Err(format!("it has no rules, and {first:?} is nothing that a profile has"))
            }
            _ => Ok(()),
        }
    }
}

/// `4.8` as numbers; `None` for an empty text, which every kernel is at least.
pub(super) fn kernel_version(text: &str) -> std::result::Result<Option<(u32, u32)>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| part.parse::<u8>().ok().filter(|_| digits(part)).map(u32::from);
    let version = text.split_once('.').and_then(|(kernel, major)| Some((number(kernel)?, number(major)?)));
    let version = version.filter(|version| *version != (0, 0));
    version.map(Some).ok_or_else(|| format!("invalid kernel version: \"{text}\", expected \"<kernel>.<major>\""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::super::{Arch, compile, default_profile, resolve};
    use super::*;

    fn refusal(text: &str) -> String {
        Profile::parse(text.as_bytes()).expect_err(text).to_string()
    }

    #[test]
    fn capitals_do_not_turn_a_profile_into_an_empty_one() {
        let text = r#"{"DefaultAction": "SCMP_ACT_ALLOW", "DEFAULTERRNORET": 13, "Flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "ARCHMAP": [{"Architecture": "SCMP_ARCH_X86_64", "SUBARCHITECTURES": ["SCMP_ARCH_X86"]}],
            "\u017fY\u017fcallS": [{"NAMES": ["mkdir"], "Action": "SCMP_ACT_ERRNO", "ErrnoRet": 5,
                "Args": [{"INDEX": 1, "Value": 7, "valueTWO": 8, "OP": "SCMP_CMP_MASKED_EQ"}],
                "Includes": {"Caps": ["CAP_A"], "ARCHES": ["amd64"], "MIN\u212aERNEL": "4.8"},
                "excludes": {"CAPS": ["CAP_B"]}}]}"#;
        let plain = r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 13, "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
                "args": [{"index": 1, "value": 7, "valueTwo": 8, "op": "SCMP_CMP_MASKED_EQ"}],
                "includes": {"caps": ["CAP_A"], "arches": ["amd64"], "minKernel": "4.8"},
                "excludes": {"caps": ["CAP_B"]}}]}"#;
        assert_eq!(Profile::parse(text.as_bytes()).unwrap(), Profile::parse(plain.as_bytes()).unwrap());
    }

    #[test]
    fn the_last_of_two_equal_names_counts() {
        let text = r#"{"defaultAction": "SCMP_ACT_ERRNO", "DefaultAction": "SCMP_ACT_ALLOW", "defaultaction": null,
            "syscalls": [], "Syscalls": [{"name": "mkdir", "Name": "rmdir", "action": "SCMP_ACT_ERRNO"}]}"#;
        let profile = Profile::parse(text.as_bytes()).unwrap();
        assert_eq!((profile.default_action.as_str(), profile.syscalls[0].name.as_str()), ("SCMP_ACT_ALLOW", "rmdir"));
    }

    #[test]
    fn a_profile_that_was_not_understood_is_no_filter_of_nothing() {
        let failed = |why: &str| format!("Decoding seccomp profile failed: {why}");
        for nothing in ["{}", "null", r#"{"default_action": "SCMP_ACT_ERRNO"}"#, r#"{"syscalls": [{"names": ["a"]}]}"#]
        {
            assert_eq!(refusal(nothing), failed("it names no default action"), "{nothing}");
        }
        for (text, why) in [
            ("", "unexpected end of JSON input"),
            ("[]", "json: cannot unmarshal array into Go value of type Seccomp"),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": 5}"#,
                "json: cannot unmarshal number into Go struct field Seccomp.syscalls of type []string",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscall": [{"names": ["mkdir"]}]}"#,
                r#"it has no rules, and "syscall" is nothing that a profile has"#,
            ),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [null]}"#, "rule 0 names no system call"),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"syscall": ["mkdir"], "action": "SCMP_ACT_KILL"}]}"#,
                "rule 0 names no system call",
            ),
        ] {
            assert_eq!(refusal(text), failed(why), "{text}");
        }
        for whole in [r#"{"defaultAction": "SCMP_ACT_LOG"}"#, r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}"#]
        {
            assert!(Profile::parse(whole.as_bytes()).is_ok(), "{whole}");
        }
        assert!(refusal(&" ".repeat(MAX_PROFILE as usize + 1)).contains("more than"));
    }

    #[test]
    fn flags_are_honoured_or_refused_by_name() {
        let flags = |list: &str| {
            let text = format!(r#"{{"defaultAction": "SCMP_ACT_LOG", "flags": {list}}}"#);
            let filter = resolve(&Profile::parse(text.as_bytes()).unwrap(), &[], Arch::default(), (6, 1)).unwrap();
            compile(&filter, Arch::default()).map(|program| program.flags).map_err(|e| e.to_string())
        };
        let (log, speculation) = (sys::seccomp::FLAG_LOG, sys::seccomp::FLAG_SPEC_ALLOW);
        assert_eq!(flags("null"), Ok(speculation));
        assert_eq!(flags("[]"), Ok(speculation));
        assert_eq!(flags(r#"["SECCOMP_FILTER_FLAG_LOG"]"#), Ok(log));
        assert_eq!(flags(r#"["SECCOMP_FILTER_FLAG_TSYNC"]"#), Ok(0));
        assert_eq!(flags(r#"["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"]"#), Ok(log | speculation));
        for unknown in ["SECCOMP_FILTER_FLAG_FOO", "LOG", "seccomp_filter_flag_log", ""] {
            assert_eq!(flags(&format!(r#"["{unknown}"]"#)), Err(format!("seccomp flag {unknown} is not known")));
        }
        let killable = flags(r#"["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#).unwrap_err();
        assert!(
            killable.starts_with("seccomp flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a listener"),
            "{killable}"
        );
    }

    #[test]
    fn unknown_words_have_the_references_words() {
        let refused = |text: &str| {
            let profile = Profile::parse(text.as_bytes()).unwrap();
            resolve(&profile, &[], Arch::default(), (6, 1))
                .and_then(|filter| compile(&filter, Arch::default()))
                .unwrap_err()
                .to_string()
        };
        let rule = |rule: &str| {
            format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["mkdir"], {rule}}}]}}"#)
        };
        assert_eq!(
            refused(r#"{"defaultAction": "scmp_act_allow"}"#),
            "string scmp_act_allow is not a valid action for seccomp"
        );
        assert_eq!(
            refused(&rule(r#""action": "SCMP_ACT_FOO""#)),
            "string SCMP_ACT_FOO is not a valid action for seccomp"
        );
        assert_eq!(refused(&rule(r#""names": ["x"]"#)), "string  is not a valid action for seccomp");
        assert_eq!(
            refused(&rule(r#""action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "op": "SCMP_CMP_FOO"}]"#)),
            "string SCMP_CMP_FOO is not a valid operator for seccomp"
        );
        assert_eq!(
            refused(r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_FOO"]}"#),
            "string SCMP_ARCH_FOO is not a valid arch for seccomp"
        );
        assert!(refused(&rule(r#""action": "SCMP_ACT_ERRNO", "errnoRet": 65536"#)).contains("65536 is no errno"));
        assert!(refused(&rule(r#""action": "SCMP_ACT_NOTIFY""#)).contains("SCMP_ACT_NOTIFY needs an external runtime"));
    }

    /// Every name of an object in other capitals.
    fn respelled(value: &Value, spelling: &mut impl FnMut(char) -> char) -> Value {
        match value {
            Value::Array(list) => list.iter().map(|value| respelled(value, spelling)).collect(),
            Value::Object(map) => {
                let mut other = Map::new();
                for (name, value) in map {
                    let name = name.chars().map(&mut *spelling).collect();
                    other.insert(name, respelled(value, spelling));
                }
                Value::Object(other)
            }
            plain => plain.clone(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_spelling_of_the_default_profile_is_the_default_profile(dice in prop::collection::vec(0..3u8, 64)) {
            let profile = default_profile();
            let mut dice = dice.into_iter().cycle();
            let mut spelling = |c: char| match (dice.next(), c.to_ascii_lowercase()) {
                (Some(1), _) => c.to_ascii_uppercase(),
                (Some(2), 's') => '\u{17f}',
                (Some(2), 'k') => '\u{212a}',
                _ => c,
            };
            let text = respelled(&serde_json::to_value(&profile).unwrap(), &mut spelling).to_string();
            prop_assert_eq!(Profile::parse(text.as_bytes()).unwrap(), profile, "{}", text);
        }
    }
}
