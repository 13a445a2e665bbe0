//! The text format of Prometheus, version 0.0.4: a family is two comments and its values.

use std::fmt::Write;

/// The media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text that grows by families.
#[derive(Default)]
pub struct Text(String);

/// The values of one name.
pub struct Family<'t> {
    text: &'t mut String,
    name: &'static str,
}

impl Text {
    /// A figure that only grows.
    pub fn counter(&mut self, name: &'static str, about: &str) -> Family<'_> {
        self.family(name, about, "counter")
    }

    /// A figure that goes up and down.
    pub fn gauge(&mut self, name: &'static str, about: &str) -> Family<'_> {
        self.family(name, about, "gauge")
    }

    /// How often something took how long.
    pub fn histogram(&mut self, name: &'static str, about: &str) -> Family<'_> {
        self.family(name, about, "histogram")
    }

    /// How much it was altogether, and how often.
    pub fn summary(&mut self, name: &'static str, about: &str) -> Family<'_> {
        self.family(name, about, "summary")
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.0
    }

    fn family(&mut self, name: &'static str, about: &str, kind: &str) -> Family<'_> {
        // Writing to a string cannot fail.
        _ = write!(self.0, "# HELP {name} {about}\n# TYPE {name} {kind}\n");
        Family { text: &mut self.0, name }
    }
}

impl Family<'_> {
    /// The value with these labels.
    pub fn value(&mut self, labels: &[(&str, &str)], value: f64) {
        self.part("", labels, value);
    }

    /// The same of a part of a histogram or a summary: `_bucket`, `_sum`, `_count`.
    pub fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (n, (name, value)) in labels.iter().enumerate() {
            self.text.push(if n == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(self.text, value);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        _ = writeln!(self.text, " {value}");
    }
}

fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_and_their_values() {
        let mut text = Text::default();
        text.counter("a_total", "What it is").value(&[], 3.0);
        text.gauge("b", "Else").value(&[("x", "a\"\\\n"), ("y", "")], 0.25);
        let wanted = "# HELP a_total What it is\n# TYPE a_total counter\na_total 3\n\
                      # HELP b Else\n# TYPE b gauge\nb{x=\"a\\\"\\\\\\n\",y=\"\"} 0.25\n";
        assert_eq!(text.finish(), wanted);
    }
}
