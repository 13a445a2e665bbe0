//! What differs from run to run gets a name: ids, times, the data root.
//!
//! Ids are numbered as they appear, so that the same id has the same name throughout a file and another one has not.

/// Characters of an id, and of its short form.
const ID: usize = 64;
const SHORT: usize = 12;

/// The ids seen so far.
pub struct Names {
    ids: Vec<String>,
    root: String,
}

impl Names {
    /// Nothing seen; `root` is the daemon's data root.
    pub fn new(root: &str) -> Names {
        Names { ids: Vec::new(), root: root.to_string() }
    }

    /// Replaces what differs by its name: `<id1>`, `<id1:12>`, `<time>` (RFC3339 with a fraction), `<seconds>` (without),
    /// `<time9>` (nine digits and a blank behind it: the time of a log line), `<root>`.
    pub fn apply(&mut self, text: &str) -> String {
        let mut text = self.name_ids(text);
        for (n, id) in self.ids.iter().enumerate() {
            text = text.replace(&id[..SHORT], &format!("<id{}:12>", n + 1));
        }
        name_times(&text.replace(&self.root, "<root>"))
    }

    /// Puts ids for `{id1}` and `{short1}`.
    pub fn fill(&self, text: &str) -> String {
        let mut text = text.to_string();
        for (n, id) in self.ids.iter().enumerate() {
            text = text.replace(&format!("{{id{}}}", n + 1), id);
            text = text.replace(&format!("{{short{}}}", n + 1), &id[..SHORT]);
        }
        text
    }

    fn name_ids(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let hex = rest.find(|c: char| !is_hex(c)).unwrap_or(rest.len());
            if hex == ID {
                let number = self.number(&rest[..ID]);
                out.push_str(&format!("<id{number}>"));
            } else {
                out.push_str(&rest[..hex]);
            }
            rest = &rest[hex..];
            let other = rest.find(is_hex).unwrap_or(rest.len());
            out.push_str(&rest[..other]);
            rest = &rest[other..];
        }
        out
    }

    fn number(&mut self, id: &str) -> usize {
        let known = self.ids.iter().position(|known| known == id);
        let at = known.unwrap_or_else(|| {
            self.ids.push(id.to_string());
            self.ids.len() - 1
        });
        at + 1
    }
}

fn is_hex(c: char) -> bool {
    c.is_ascii_digit() || ('a'..='f').contains(&c)
}

fn name_times(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.chars().next() {
        match time_at(rest) {
            // The time of what never happened is a fact of its own.
            Some((length, name)) if !rest.starts_with("0001-") && !rest.starts_with("1970-") => {
                out.push_str(name);
                rest = &rest[length..];
            }
            _ => {
                out.push(start);
                rest = &rest[start.len_utf8()..];
            }
        }
    }
    out
}

/// The length of the time at the beginning, and its name.
fn time_at(text: &str) -> Option<(usize, &'static str)> {
    const PATTERN: &str = "dddd-dd-ddTdd:dd:dd";
    let fits = |(c, p): (char, char)| if p == 'd' { c.is_ascii_digit() } else { c == p };
    let whole = text.len() > PATTERN.len() && text.chars().zip(PATTERN.chars()).all(fits);
    let tail = whole.then(|| &text[PATTERN.len()..])?;
    if tail.starts_with('Z') {
        return Some((PATTERN.len() + 1, "<seconds>"));
    }
    let digits = tail.strip_prefix('.')?.chars().take_while(char::is_ascii_digit).count();
    let end = tail[1 + digits..].strip_prefix('Z')?;
    let of_a_line = digits == 9 && end.starts_with(' ');
    Some((PATTERN.len() + digits + 2, if of_a_line { "<time9>" } else { "<time>" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let mut names = Names::new("/data");
        let (one, two) = ("a".repeat(ID), "0b".repeat(ID / 2));
        assert_eq!(names.apply(&format!("{two} {one} /data/x {}!", &two[..SHORT])), "<id1> <id2> <root>/x <id1:12>!");
        assert_eq!(names.fill("/x/{id2}/{short1}"), format!("/x/{one}/{}", &two[..SHORT]));
        assert_eq!(
            names.apply(
                "2026-11-23T17:37:58Z,2026-11-23T17:37:58.1Z,2026-11-23T17:37:58.123456789Z x,0001-01-01T00:00:00Z"
            ),
            "<seconds>,<time>,<time9> x,0001-01-01T00:00:00Z"
        );
    }
}
