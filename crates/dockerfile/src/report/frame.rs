//! The lines of a file around a place, as errors and findings show them.

use crate::lines::Lines;

/// A line between a frame and the rest.
const RULE: &str = "--------------------";
/// Lines around a single one, and around several.
const AROUND_ONE: usize = 4;
const AROUND_MORE: usize = 2;

/// The frame; empty where there is no place.
pub fn frame(file: &str, text: &str, place: Lines) -> String {
    let lines: Vec<&str> = text.split('\n').collect();
    let (first, last) = (place.first as usize, (place.last as usize).min(lines.len()));
    if first < 1 || first > lines.len() {
        return String::new();
    }
    let (mut start, mut end) = (first, last);
    let around = if place.first == place.last { AROUND_ONE } else { AROUND_MORE };
    let mut added = 0;
    while added < around {
        if start > 1 {
            start -= 1;
            added += 1;
        }
        if end != lines.len() {
            end += 1;
            added += 1;
        }
        added += 1;
    }
    let mut out = format!("{file}:{first}\n{RULE}\n");
    for (number, line) in (start..=end).zip(&lines[start - 1..end]) {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        out += &format!(" {number:3} | {mark} {line}\n");
    }
    out + RULE + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_shows_what_is_around() {
        let text = "FROM a\nRUN b\nRUN c\nRUN d\nRUN e\nRUN f\nRUN g";
        let shown = "F:4\n--------------------\n   2 |     RUN b\n   3 |     RUN c\n   4 | >>> RUN d\n   5 |     RUN e\n   6 |     RUN f\n--------------------\n";
        assert_eq!(frame("F", text, Lines::new(4, 4)), shown);
        let shown =
            "F:1\n--------------------\n   1 | >>> FROM a\n   2 | >>> RUN b\n   3 |     RUN c\n--------------------\n";
        assert_eq!(frame("F", text, Lines::new(1, 2)), shown);
        assert_eq!(frame("F", text, Lines::new(0, 0)), "");
        assert_eq!(frame("F", text, Lines::new(9, 9)), "");
    }
}
