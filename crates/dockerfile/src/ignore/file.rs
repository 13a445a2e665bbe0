//! The lines of `.dockerignore`.

use model::mount::clean;

use model::{Error, Result};

/// Bytes of a line.
const MAX_LINE: usize = 65535;

/// The patterns of a file: lines that are neither empty nor comments, as paths without dots and a slash in front.
pub fn ignore_patterns(bytes: &[u8]) -> Result<Vec<String>> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut patterns = Vec::new();
    for line in text.lines() {
        if line.len() > MAX_LINE {
            return Err(Error::invalid("bufio.Scanner: token too long"));
        }
        let pattern = line.trim();
        // A blank in front makes a pattern of a comment.
        if line.starts_with('#') || pattern.is_empty() {
            continue;
        }
        let (mark, path) = match pattern.strip_prefix('!') {
            Some(rest) => ("!", rest.trim()),
            None => ("", pattern),
        };
        let path = if path.is_empty() { String::new() } else { clean(path) };
        let path = path.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&path);
        patterns.push(format!("{mark}{path}"));
    }
    Ok(patterns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_patterns() {
        let file = b"\xef\xbb\xbf# no\n a \n\n #yes\n!/b/../c/\n! d\n/\n./e//f\n!\n";
        let patterns = ["a", "#yes", "!c", "!d", "/", "e/f", "!"];
        assert_eq!(ignore_patterns(file).unwrap(), patterns);
    }
}
