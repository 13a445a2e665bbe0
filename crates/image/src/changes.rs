//! The few Dockerfile instructions that import and commit take as `changes`.
//!
//! One instruction a line of each change. Arguments are JSON lists or words with quotes and `$NAME` from the
//! configuration's own environment, as in a Dockerfile.

use api::ImageConfig;
use gojson::Document;
use model::{Error, Result, signal};

/// Applies the changes in order.
pub fn apply(mut config: ImageConfig, changes: &[String]) -> Result<ImageConfig> {
    let mut cmd_given = false;
    for line in joined_lines(&changes.join("\n")) {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        let rest = rest.trim();
        let upper = name.to_uppercase();
        if !INSTRUCTIONS.contains(&upper.as_str()) {
            return Err(Error::invalid(format!("{name} is not a valid change command")));
        }
        // What takes one argument refuses none itself.
        let refuses = matches!(upper.as_str(), "CMD" | "ENTRYPOINT" | "USER" | "WORKDIR" | "STOPSIGNAL");
        if rest.is_empty() && !refuses {
            return Err(Error::invalid(format!("{upper} requires at least one argument")));
        }
        match upper.as_str() {
            "CMD" => {
                config.cmd = command(rest, &config.shell)?;
                cmd_given = true;
            }
            "ENTRYPOINT" => {
                config.entrypoint = command(rest, &config.shell)?;
                if !cmd_given {
                    config.cmd.clear();
                }
            }
            _ => instruction(&mut config, &upper, rest)?,
        }
    }
    Ok(config)
}

const INSTRUCTIONS: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

fn instruction(config: &mut ImageConfig, name: &str, rest: &str) -> Result<()> {
    match name {
        "ENV" => {
            for (key, value) in pairs(name, rest, &config.env)? {
                let known = config.env.iter_mut().find(|entry| entry.split('=').next() == Some(&key));
                match known {
                    Some(entry) => *entry = format!("{key}={value}"),
                    None => config.env.push(format!("{key}={value}")),
                }
            }
        }
        "LABEL" => config.labels.extend(pairs(name, rest, &config.env)?),
        "EXPOSE" => {
            for word in words(rest, &config.env)? {
                expose(config, &word)?;
            }
        }
        "VOLUME" => {
            let list = match json_list(rest)? {
                Some(list) if list.is_empty() => return Err(Error::invalid("VOLUME requires at least one argument")),
                Some(list) => list,
                None => words(rest, &config.env)?,
            };
            for path in list {
                if path.trim().is_empty() {
                    return Err(Error::invalid("VOLUME specified can not be an empty string"));
                }
                config.volumes.insert(path, Default::default());
            }
        }
        "USER" => config.user = one(name, rest, &config.env)?,
        "STOPSIGNAL" => {
            let text = one(name, rest, &config.env)?;
            signal::parse(&text)?;
            config.stop_signal = text;
        }
        "WORKDIR" => {
            let path = one(name, rest, &config.env)?;
            config.working_dir = join(&config.working_dir, &path);
        }
        "ONBUILD" => onbuild(config, rest)?,
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        _ => {}
    }
    Ok(())
}

/// Joins lines that end in a backslash; leaves comments and blank lines out.
fn joined_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with('#') || (open.is_empty() && line.trim().is_empty()) {
            continue;
        }
        match line.trim_end().strip_suffix('\\') {
            Some(part) => open.push_str(part),
            None => lines.push(std::mem::take(&mut open) + line.trim_end()),
        }
    }
    if !open.is_empty() {
        lines.push(open);
    }
    lines.iter().map(|line| line.trim_start().to_owned()).collect()
}

/// The texts of a JSON list; `None`: it is no such list, and means something else.
fn json_list(text: &str) -> Result<Option<Vec<String>>> {
    let list = Some(text).filter(|text| text.starts_with('[')).map(|text| Document::parse_whole(text.as_bytes()));
    let Some(Ok(list)) = list else { return Ok(None) };
    let serde_json::Value::Array(items) = list.into_value() else { return Ok(None) };
    let texts = items.into_iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>();
    let refused = || Error::invalid("when using JSON array syntax, arrays must be comprised of strings only");
    texts.map(Some).ok_or_else(refused)
}

/// A JSON list as it is, anything else for a shell: the configuration's own if it has one.
fn command(text: &str, shell: &[String]) -> Result<Vec<String>> {
    Ok(match json_list(text)? {
        Some(list) => list,
        None if text.is_empty() => Vec::new(),
        None if shell.is_empty() => vec!["/bin/sh".into(), "-c".into(), text.to_owned()],
        None => shell.iter().cloned().chain([text.to_owned()]).collect(),
    })
}

fn one(name: &str, rest: &str, env: &[String]) -> Result<String> {
    let words = words(rest, env)?;
    match <[String; 1]>::try_from(words) {
        Ok([word]) => Ok(word),
        Err(_) => Err(Error::invalid(format!("{name} requires exactly one argument"))),
    }
}

/// `key=value …`, or the old form `key value with blanks`.
fn pairs(name: &str, rest: &str, env: &[String]) -> Result<Vec<(String, String)>> {
    let first = rest.split(char::is_whitespace).next().unwrap_or_default();
    if !first.contains('=') {
        let (key, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::invalid(format!("{name} must have two arguments")))?;
        return Ok(vec![(key.to_owned(), expand_quoted(value.trim(), env)?)]);
    }
    let parse = |word: String| match word.split_once('=') {
        Some(("", _)) => Err(Error::invalid(format!("{name} names can not be blank"))),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => {
            Err(Error::invalid(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")))
        }
    };
    words(rest, env)?.into_iter().map(parse).collect()
}

/// The old form's value: one word whatever blanks it has.
fn expand_quoted(text: &str, env: &[String]) -> Result<String> {
    Ok(split(text, env, false)?.pop().unwrap_or_default())
}

fn words(text: &str, env: &[String]) -> Result<Vec<String>> {
    split(text, env, true)
}

/// Splits at blanks outside of quotes (if asked), resolves quotes, backslashes and variables.
fn split(text: &str, env: &[String], at_blanks: bool) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => match chars.next() {
                Some(next) if quote.is_some() && !matches!(next, '"' | '\\' | '$') => {
                    word.get_or_insert_default().extend(['\\', next]);
                }
                Some(next) => word.get_or_insert_default().push(next),
                None => word.get_or_insert_default().push('\\'),
            },
            ('$', None | Some('"')) => {
                let value = variable(&mut chars, env)?;
                word.get_or_insert_default().push_str(&value);
            }
            (c, None) if at_blanks && c.is_whitespace() => found.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Error::invalid("unexpected end of statement while looking for matching quote"));
    }
    found.extend(word);
    Ok(found)
}

/// The value of `NAME`, `{NAME}`, `{NAME:-other}` or `{NAME:+other}` behind a dollar sign.
fn variable(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, env: &[String]) -> Result<String> {
    let value = |name: &str| {
        let found = env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default().to_owned()
    };
    if chars.next_if_eq(&'{').is_none() {
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        return Ok(if name.is_empty() { "$".to_owned() } else { value(&name) });
    }
    let body: String = chars.by_ref().take_while(|c| *c != '}').collect();
    match body.split_once(':') {
        None => Ok(value(&body)),
        Some((name, modifier)) => match (modifier.strip_prefix('-'), modifier.strip_prefix('+')) {
            (Some(other), _) if value(name).is_empty() => Ok(other.to_owned()),
            (Some(_), _) => Ok(value(name)),
            (_, Some(other)) => Ok(if value(name).is_empty() { String::new() } else { other.to_owned() }),
            _ => Err(Error::invalid(format!("unsupported modifier in substitution: ${{{body}}}"))),
        },
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn expose(config: &mut ImageConfig, text: &str) -> Result<()> {
    let invalid = || Error::invalid(format!("invalid containerPort: {text}"));
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::invalid(format!("invalid proto: {protocol}")));
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| invalid())?, last.parse().map_err(|_| invalid())?);
    if first > last {
        return Err(invalid());
    }
    config.exposed_ports.extend((first..=last).map(|port| (format!("{port}/{protocol}"), Default::default())));
    Ok(())
}

/// A path relative to the directory so far.
fn join(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("/{base}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn onbuild(config: &mut ImageConfig, rest: &str) -> Result<()> {
    let trigger = rest.split_whitespace().next().unwrap_or_default().to_uppercase();
    match trigger.as_str() {
        "ONBUILD" => Err(Error::invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        "MAINTAINER" | "FROM" => Err(Error::invalid(format!("{trigger} isn't allowed as an ONBUILD trigger"))),
        _ => {
            config.on_build.push(rest.to_owned());
            Ok(())
        }
    }
}

fn healthcheck(rest: &str) -> Result<api::HealthConfig> {
    let mut health = api::HealthConfig::default();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, behind) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (key, value) =
            flag.split_once('=').ok_or_else(|| Error::invalid(format!("Missing a value on flag: {flag}")))?;
        match key {
            "interval" => health.interval = model::duration::parse(value)?,
            "timeout" => health.timeout = model::duration::parse(value)?,
            "start-period" => health.start_period = model::duration::parse(value)?,
            "start-interval" => health.start_interval = model::duration::parse(value)?,
            "retries" => {
                health.retries = value.parse().map_err(|_| Error::invalid(format!("invalid retries: {value}")))?;
            }
            _ => return Err(Error::invalid(format!("Unknown flag: {key}"))),
        }
        rest = behind.trim_start();
    }
    let (kind, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let test = match kind.to_uppercase().as_str() {
        "NONE" if arguments.is_empty() => vec!["NONE".to_owned()],
        "NONE" => return Err(Error::invalid("HEALTHCHECK NONE takes no arguments")),
        "CMD" => match json_list(arguments.trim())? {
            Some(list) if !list.is_empty() => std::iter::once("CMD".to_owned()).chain(list).collect(),
            None if !arguments.trim().is_empty() => vec!["CMD-SHELL".to_owned(), arguments.trim().to_owned()],
            _ => return Err(Error::invalid("Missing command after HEALTHCHECK CMD")),
        },
        other => return Err(Error::invalid(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)"))),
    };
    health.test = test;
    Ok(health)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_go_reads_them() {
        let refused = "when using JSON array syntax, arrays must be comprised of strings only";
        for change in ["CMD [1]", "CMD [\"a\", null]", "VOLUME [1]", "HEALTHCHECK CMD [{}]", "ENTRYPOINT [[\"a\"]]"] {
            assert_eq!(config(&[change]).unwrap_err().message(), refused, "{change}");
        }
        assert_eq!(config(&["VOLUME []"]).unwrap_err().message(), "VOLUME requires at least one argument");
        let cmd = |change: &str| config(&[change]).unwrap().cmd;
        assert_eq!(cmd("CMD [\"\\ud800\"]"), ["\u{fffd}"]);
        assert_eq!(cmd("CMD []"), [""; 0]);
        assert_eq!((cmd("CMD [")[2].as_str(), cmd("CMD \"x\"")[2].as_str()), ("[", "\"x\""));
    }

    fn config(changes: &[&str]) -> Result<ImageConfig> {
        apply(ImageConfig::default(), &changes.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn instructions_change_the_configuration() {
        let changes = [
            "ENV A=1 B=\"two words\" C='$A'",
            "env D $A and ${X:-none}",
            "CMD [\"sh\", \"-c\", \"true\"]",
            "ENTRYPOINT exec top -b",
            "EXPOSE 80 53/udp 8000-8001",
            "VOLUME [\"/data\"]\nVOLUME /a /b",
            "WORKDIR /srv\nWORKDIR x/../y",
            "USER 1000:1000",
            "LABEL k=v \\\n  l=\"a b\"",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN true",
            "HEALTHCHECK --interval=5s --retries=2 CMD true",
        ];
        let config = config(&changes).unwrap();
        assert_eq!(config.env, ["A=1", "B=two words", "C=$A", "D=1 and none"]);
        assert_eq!(config.cmd, ["sh", "-c", "true"]);
        assert_eq!(config.entrypoint, ["/bin/sh", "-c", "exec top -b"]);
        let ports: Vec<_> = config.exposed_ports.keys().map(String::as_str).collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
        let volumes: Vec<_> = config.volumes.keys().map(String::as_str).collect();
        assert_eq!(volumes, ["/a", "/b", "/data"]);
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv/y", "1000:1000"));
        assert_eq!((config.labels["k"].as_str(), config.labels["l"].as_str()), ("v", "a b"));
        assert_eq!((config.stop_signal.as_str(), config.on_build[0].as_str()), ("SIGINT", "RUN true"));
        let health = config.healthcheck.unwrap();
        assert_eq!((health.interval, health.retries), (5_000_000_000, 2));
    }

    #[test]
    fn what_is_no_change_is_refused() {
        let message = |change: &str| config(&[change]).unwrap_err().message().to_owned();
        assert_eq!(message("RUN true"), "RUN is not a valid change command");
        for change in ["USER a b", "USER", "WORKDIR", "STOPSIGNAL "] {
            let name = change.split(' ').next().unwrap();
            assert_eq!(message(change), format!("{name} requires exactly one argument"));
        }
        assert!(config(&["ENV A=\"open"]).is_err() && config(&["EXPOSE x"]).is_err() && config(&["ENV"]).is_err());
        assert!(config(&["STOPSIGNAL SIGNONE"]).is_err() && config(&["HEALTHCHECK RUN x"]).is_err());
    }
}
