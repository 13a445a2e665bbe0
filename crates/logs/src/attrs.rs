//! Extra attributes of every log line: labels, environment and a tag, chosen by `--log-opt`.
//!
//! Computed once per start in the daemon; the monitor gets the finished JSON.

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

/// The JSON object of `labels`, `labels-regex`, `env`, `env-regex` and `tag`; empty when there is nothing.
pub fn build(config: &BTreeMap<String, String>, subject: &Subject<'_>) -> model::Result<String> {
    let option = |name: &str| config.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let labels: BTreeMap<&str, &str> = subject.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let env: BTreeMap<&str, &str> = subject.env.iter().filter_map(|e| e.split_once('=')).collect();
    let mut attrs = BTreeMap::new();
    for (source, list, pattern) in [(&labels, "labels", "labels-regex"), (&env, "env", "env-regex")] {
        for key in option(list).into_iter().flat_map(|keys| keys.split(',')) {
            attrs.extend(source.get_key_value(key));
        }
        if let Some(pattern) = option(pattern) {
            let pattern = Regex::new(pattern).map_err(|e| Error::invalid(format!("error parsing regexp: {e}")))?;
            attrs.extend(source.iter().filter(|(key, _)| pattern.is_match(key)));
        }
    }
    let tag = option("tag").map(|template| expand(template, subject)).transpose()?;
    if let Some(tag) = tag.as_deref().filter(|tag| !tag.is_empty()) {
        attrs.insert("tag", tag);
    }
    Ok(if attrs.is_empty() { String::new() } else { object(&attrs) })
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
fn expand(template: &str, subject: &Subject<'_>) -> model::Result<String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((text, field)) = rest.split_once("{{") {
        let unclosed = || Error::invalid(format!("template: log-tag:1: unclosed action in \"{template}\""));
        let (field, after) = field.split_once("}}").ok_or_else(unclosed)?;
        out.push_str(text);
        out.push_str(&value(field.trim(), subject)?);
        rest = after;
    }
    out.push_str(rest);
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
        ".Hostname" => hostname()?,
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
        build(&config, &subject).unwrap()
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
        assert!(expand("{{.Nope}}", &Subject::default()).is_err());
        assert!(expand("{{.Name", &Subject::default()).is_err());
    }
}
