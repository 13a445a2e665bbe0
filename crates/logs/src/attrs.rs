//! Extra attributes of every log line: labels, environment and a tag, chosen by `--log-opt`.
//!
//! Read once of the options, when the container is created or loaded; the monitor gets the finished JSON at each start.

use std::collections::BTreeMap;

use model::{Context, Error};
use regex_lite::Regex;

use crate::encode;

/// Characters of a shortened id.
const SHORT_ID: usize = 12;

/// The container, as the log options see it.
#[derive(Clone, Debug, Default)]
pub struct Subject<'a> {
    pub id: &'a str,
    /// Without the leading slash.
    pub name: &'a str,
    /// The program and its arguments.
    pub command: &'a [String],
    /// With its algorithm.
    pub image_id: &'a str,
    pub image_name: &'a str,
    pub env: &'a [String],
    pub labels: &'a [(String, String)],
}

/// The attributes that log options choose: all but the host's name, which a tag may have and which is looked up at each
/// start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Labels and variables of the environment.
    chosen: BTreeMap<String, String>,
    tag: Vec<Piece>,
}

/// A part of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Hostname,
}

impl Attributes {
    /// Reads `labels`, `labels-regex`, `env`, `env-regex` and `tag`.
    ///
    /// Errors: `Invalid` for a pattern that is none, and for a tag that is no template of known fields.
    pub fn parse(options: &BTreeMap<String, String>, subject: &Subject<'_>) -> model::Result<Attributes> {
        let option = |name: &str| options.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let labels: BTreeMap<&str, &str> = subject.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let env: BTreeMap<&str, &str> = subject.env.iter().filter_map(|e| e.split_once('=')).collect();
        let mut chosen: BTreeMap<&str, &str> = BTreeMap::new();
        for (source, list, pattern) in [(&labels, "labels", "labels-regex"), (&env, "env", "env-regex")] {
            for key in option(list).into_iter().flat_map(|keys| keys.split(',')) {
                chosen.extend(source.get_key_value(key));
            }
            if let Some(pattern) = option(pattern) {
                let pattern = Regex::new(pattern).map_err(|e| Error::invalid(format!("error parsing regexp: {e}")))?;
                chosen.extend(source.iter().filter(|(key, _)| pattern.is_match(key)));
            }
        }
        let chosen = chosen.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let tag = option("tag").map(|template| expand(template, subject)).transpose()?.unwrap_or_default();
        Ok(Attributes { chosen, tag })
    }

    /// The JSON object of them; empty when there is none.
    ///
    /// Errors: `System` when the tag has the host's name and that cannot be read.
    pub fn json(&self) -> model::Result<String> {
        let mut tag = String::new();
        for piece in &self.tag {
            match piece {
                Piece::Text(text) => tag.push_str(text),
                Piece::Hostname => tag.push_str(&hostname()?),
            }
        }
        let mut attrs: BTreeMap<&str, &str> = self.chosen.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        if !tag.is_empty() {
            attrs.insert("tag", &tag);
        }
        Ok(if attrs.is_empty() { String::new() } else { object(&attrs) })
    }
}

fn object(attrs: &BTreeMap<&str, &str>) -> String {
    let mut out = Vec::new();
    let mut separator = b'{';
    for (key, value) in attrs {
        out.push(separator);
        separator = b',';
        out.push(b'"');
        encode::escape(key.as_bytes(), &mut out);
        out.extend_from_slice(b"\":\"");
        encode::escape(value.as_bytes(), &mut out);
        out.push(b'"');
    }
    out.push(b'}');
    String::from_utf8(out).expect("escaping keeps UTF-8")
}

/// A Go template of plain text and fields; functions and pipelines are refused.
fn expand(template: &str, subject: &Subject<'_>) -> model::Result<Vec<Piece>> {
    let mut out = Vec::new();
    let mut rest = template;
    while let Some((text, field)) = rest.split_once("{{") {
        let unclosed = || Error::invalid(format!("template: log-tag:1: unclosed action in \"{template}\""));
        let (field, after) = field.split_once("}}").ok_or_else(unclosed)?;
        out.push(Piece::Text(text.to_owned()));
        out.push(match field.trim() {
            ".Hostname" => Piece::Hostname,
            field => Piece::Text(value(field, subject)?),
        });
        rest = after;
    }
    out.push(Piece::Text(rest.to_owned()));
    Ok(out)
}

fn value(field: &str, subject: &Subject<'_>) -> model::Result<String> {
    let short = |id: &str| {
        let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
        digits.get(..SHORT_ID).unwrap_or(digits).to_owned()
    };
    Ok(match field {
        ".ID" => short(subject.id),
        ".FullID" | ".ContainerID" => subject.id.to_owned(),
        ".Name" => subject.name.to_owned(),
        ".ContainerName" => format!("/{}", subject.name),
        ".Command" => subject.command.join(" "),
        ".ImageID" => short(subject.image_id),
        ".ImageFullID" | ".ContainerImageID" => subject.image_id.to_owned(),
        ".ImageName" | ".ContainerImageName" => subject.image_name.to_owned(),
        ".DaemonName" => "docker".to_owned(),
        _ => return Err(Error::invalid(format!("template: log-tag:1: can't evaluate \"{field}\" in a log tag"))),
    })
}

fn hostname() -> model::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").context("logger: can not resolve hostname")?;
    Ok(name.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(pairs: &[(&str, &str)]) -> String {
        let config = pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        let labels = [("a.b".to_owned(), "<1>".to_owned()), ("a.c".to_owned(), "2".to_owned())];
        let subject = Subject {
            id: "0123456789abcdef",
            name: "web",
            command: &["sh".to_owned(), "-c".to_owned()],
            image_id: "sha256:fedcba9876543210",
            env: &["PATH=/bin".to_owned(), "HOME=/".to_owned()],
            labels: &labels,
            ..Subject::default()
        };
        Attributes::parse(&config, &subject).unwrap().json().unwrap()
    }

    #[test]
    fn chosen_attributes_sorted() {
        assert_eq!(built(&[]), "");
        assert_eq!(built(&[("labels", "a.b,none"), ("env", "PATH")]), r#"{"PATH":"/bin","a.b":"\u003c1\u003e"}"#);
        assert_eq!(built(&[("labels-regex", "^a\\.c$"), ("env-regex", "^H")]), r#"{"HOME":"/","a.c":"2"}"#);
    }

    #[test]
    fn tags() {
        assert_eq!(built(&[("tag", "{{.Name}}/{{.ID}}")]), r#"{"tag":"web/0123456789ab"}"#);
        assert_eq!(built(&[("tag", "{{ .Command }} {{.ImageID}}!")]), r#"{"tag":"sh -c fedcba987654!"}"#);
        let host = hostname().unwrap();
        assert_eq!(built(&[("tag", "{{.Hostname}}.")]), format!(r#"{{"tag":"{host}."}}"#));
        assert!(expand("{{.Nope}}", &Subject::default()).is_err());
        assert!(expand("{{.Name", &Subject::default()).is_err());
    }
}
