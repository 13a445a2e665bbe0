//! Options of a tmpfs: words of mount(8) and data of tmpfs(5).

use model::{Error, Result};

/// What every tmpfs of a container has, unless it is told otherwise.
const DEFAULTS: [&str; 4] = ["noexec", "nosuid", "nodev", "rprivate"];

/// The options of one tmpfs: known, within their range, of each subject one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TmpfsOptions(Vec<String>);

impl TmpfsOptions {
    /// Of a text such as `size=64m,mode=1770,exec`; the last of a subject counts.
    ///
    /// Errors: `Invalid` for an unknown option and for a number out of its range.
    pub fn parse(text: &str) -> Result<TmpfsOptions> {
        let given = text.split(',').filter(|_| !text.is_empty());
        merge_tmpfs_options(DEFAULTS.into_iter().chain(given)).map(TmpfsOptions)
    }

    /// The options, the defaults first.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

/// Words that turn the same mount flag on or off; the last one given counts.
const FLAGS: &[&[&str]] = &[
    &["ro", "rw"],
    &["nosuid", "suid"],
    &["nodev", "dev"],
    &["noexec", "exec"],
    &["sync", "async"],
    &["dirsync"],
    &["remount"],
    &["mand", "nomand"],
    &["noatime", "atime"],
    &["nodiratime", "diratime"],
    &["relatime", "norelatime"],
    &["strictatime", "nostrictatime"],
    &["bind", "rbind", "unbindable", "runbindable", "private", "rprivate", "shared", "rshared", "slave", "rslave"],
];

/// Keys of `key=value` options.
const DATA: [&str; 8] = ["", "size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];

/// Of options about the same thing the last one stays, in its place.
fn merge_tmpfs_options<'a>(options: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    let options: Vec<&str> = options.filter(|o| *o != "defaults").collect();
    let mut seen = Vec::new();
    let mut merged = Vec::new();
    for option in options.into_iter().rev() {
        let subject = match FLAGS.iter().find(|words| words.contains(&option)) {
            Some(words) => words[0],
            None => match option.split_once('=') {
                Some((key, value)) if DATA.contains(&key) => {
                    check_tmpfs_number(key, value)?;
                    key
                }
                _ => {
                    let key = option.split('=').next().unwrap_or_default();
                    return Err(Error::system(format!("invalid tmpfs option {key:?}")));
                }
            },
        };
        if !seen.contains(&subject) {
            seen.push(subject);
            merged.push(option.to_owned());
        }
    }
    merged.reverse();
    Ok(merged)
}

/// Numbers as tmpfs(5) has them, within their range: the kernel takes a size modulo 2^64, and 0 is no limit at all.
fn check_tmpfs_number(key: &str, value: &str) -> Result<()> {
    let fits = match key {
        "size" | "nr_blocks" | "nr_inodes" => tmpfs_size(value).is_some(),
        "uid" | "gid" => unsigned(value, 10).is_some_and(|id| id <= u64::from(model::user::MAX_ID)),
        "mode" => unsigned(value, 8).is_some_and(|mode| mode <= 0o7777),
        _ => true,
    };
    match fits {
        true => Ok(()),
        false => Err(Error::system(format!("invalid tmpfs option \"{key}={value}\": value out of range"))),
    }
}

/// Digits only: no sign.
fn unsigned(digits: &str, radix: u32) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_alphanumeric()).then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

/// A number (`0x…` and `0…`, too) with a binary unit or a percent sign; `None` where it exceeds a signed 64-bit number.
fn tmpfs_size(text: &str) -> Option<u64> {
    const UNITS: [&str; 7] = ["", "k", "m", "g", "t", "p", "e"];
    // Of the machine's memory, several times which is still less than 2^64 bytes.
    const MOST_PERCENT: u64 = 10_000;
    let number = |digits: &str| match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        (Some(digits), _) => unsigned(digits, 16),
        (None, Some(digits)) if !digits.is_empty() => unsigned(digits, 8),
        _ => unsigned(digits, 10),
    };
    if let Some(percent) = text.strip_suffix('%') {
        return number(percent).filter(|percent| *percent <= MOST_PERCENT);
    }
    let (digits, unit) = match text.char_indices().last() {
        // In a hexadecimal number it is a digit.
        Some((at, unit)) if unit.is_ascii_alphabetic() && !text.starts_with("0x") => text.split_at(at),
        _ => (text, ""),
    };
    let power = UNITS.iter().position(|name| unit.eq_ignore_ascii_case(name))?;
    let bytes = number(digits)?.checked_mul(1 << (10 * power))?;
    i64::try_from(bytes).ok().map(|_| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_tmpfs_have_their_range() {
        let merge = |option: &str| TmpfsOptions::parse(option).map(drop);
        for good in [
            "size=64m",
            "size=0",
            "size=50%",
            "size=0x1000",
            "size=010",
            "size=7E",
            "nr_inodes=1k",
            "nr_blocks=9",
            "size=9223372036854775807",
            "uid=0",
            "gid=2147483647",
            "mode=1777",
            "mode=0755",
            "mpol=interleave",
        ] {
            assert!(merge(good).is_ok(), "{good}");
        }
        for bad in [
            "size=18446744073709551616",
            "size=18446744073709551615",
            "size=9223372036854775808",
            "size=16777216t",
            "size=8e",
            "size=16E",
            "size=-1",
            "size=+1",
            "size=",
            "size=m",
            "size=1mm",
            "size=1z",
            "size=1.5g",
            "size=99999%",
            "nr_inodes=18446744073709551616",
            "nr_blocks=16777216t",
            "uid=4294967295",
            "uid=4294967296",
            "uid=2147483648",
            "gid=4294967295",
            "gid=-1",
            "uid=+1",
            "uid=",
            "mode=10000",
            "mode=8",
            "mode=-1",
            "mode=37777777777",
            "size=é",
        ] {
            let text = merge(bad).unwrap_err().to_string();
            assert_eq!(text, format!("invalid tmpfs option \"{bad}\": value out of range"));
        }
    }

    #[test]
    fn tmpfs_options() {
        let merge = |text: &str| TmpfsOptions::parse(text).map(|options| options.words().join(","));
        assert_eq!(merge("").unwrap(), "noexec,nosuid,nodev,rprivate");
        assert_eq!(merge("rw,exec,size=1g").unwrap(), "nosuid,nodev,rprivate,rw,exec,size=1g");
        assert_eq!(merge("size=1m,defaults,size=2m,shared").unwrap(), "noexec,nosuid,nodev,size=2m,shared");
        assert_eq!(merge("what").unwrap_err().message(), "invalid tmpfs option \"what\"");
        assert_eq!(merge("what=1").unwrap_err().message(), "invalid tmpfs option \"what\"");
    }
}
