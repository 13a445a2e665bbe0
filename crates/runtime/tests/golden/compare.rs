//! Golden files: what a value looked like when somebody last looked at it.
//!
//! `GANTRY_BLESS=1` writes the files instead of comparing; the reviewer then reads the difference in version control.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;

/// Width of a line.
const LINE: usize = 110;

/// Compares `actual` with the file `spec/<name>`; returns what differs.
pub fn check(name: &str, actual: &str) -> Result<(), String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/spec").join(name);
    if std::env::var_os("GANTRY_BLESS").is_some() {
        return std::fs::write(&path, actual).map_err(|e| format!("{}: {e}", path.display()));
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if expected == actual {
        return Ok(());
    }
    let path = path.display();
    Err(format!("{path} (GANTRY_BLESS=1 accepts what is new):\n{}", difference(&expected, actual)))
}

/// JSON with plain values in filled lines.
pub fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, 0);
    out.push('\n');
    out
}

fn write_value(out: &mut String, value: &Value, depth: usize) {
    let text = value.to_string();
    let plain = |v: &Value| !v.is_object() && !v.is_array();
    let (open, close, items): (_, _, Vec<(String, &Value)>) = match value {
        Value::Object(map) => ('{', '}', map.iter().map(|(k, v)| (format!("\"{k}\": "), v)).collect()),
        Value::Array(list) => ('[', ']', list.iter().map(|v| (String::new(), v)).collect()),
        _ => ('\0', '\0', Vec::new()),
    };
    let flat = items.iter().all(|(_, v)| plain(v));
    if items.is_empty() || flat && text.len() <= LINE {
        out.push_str(&text);
        return;
    }
    let pad = format!("\n{}", "  ".repeat(depth + 1));
    out.push(open);
    for (at, (key, item)) in items.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let width = out.len() - out.rfind('\n').map_or(0, |n| n + 1) + item.to_string().len();
        let same_line = flat && value.is_array() && at > 0 && width < LINE;
        let _ = write!(out, "{comma}{}{key}", if same_line { " " } else { &pad });
        write_value(out, item, depth + 1);
    }
    let _ = write!(out, "\n{}{close}", "  ".repeat(depth));
}

/// The lines by which `new` differs from `old`, each group under the line before it.
pub fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    // common[i][j]: length of the longest common subsequence of old[i..] and new[j..].
    let mut common = vec![vec![0u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut context, mut out) = (0, 0, None, String::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            context = Some(old[i]);
            (i, j) = (i + 1, j + 1);
            continue;
        }
        if let Some(line) = context.take() {
            let _ = writeln!(out, "  {line}");
        }
        if j >= new.len() || i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            let _ = writeln!(out, "- {}", old[i]);
            i += 1;
        } else {
            let _ = writeln!(out, "+ {}", new[j]);
            j += 1;
        }
    }
    out
}
