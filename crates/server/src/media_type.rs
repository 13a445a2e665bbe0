//! The `Content-Type` of a body, read as Go's `mime.ParseMediaType` reads it, with its texts.

/// The media type in lower case, without its parameters; or why it is none.
pub fn parse(value: &str) -> Result<String, &'static str> {
    let base = value.split(';').next().unwrap_or_default();
    let media_type = base.trim().to_lowercase();
    check(&media_type)?;
    let mut rest = &value[base.len()..];
    let mut names: Vec<String> = Vec::new();
    while !rest.trim_start().is_empty() {
        let Some((name, tail)) = parameter(rest) else {
            return if rest.trim() == ";" { Ok(media_type) } else { Err("mime: invalid media parameter") };
        };
        if names.contains(&name) {
            return Err("mime: duplicate parameter name");
        }
        names.push(name);
        rest = tail;
    }
    Ok(media_type)
}

fn check(media_type: &str) -> Result<(), &'static str> {
    let (kind, rest) = token(media_type);
    if kind.is_empty() {
        return Err("mime: no media type");
    }
    if rest.is_empty() {
        return Ok(());
    }
    let Some(rest) = rest.strip_prefix('/') else { return Err("mime: expected slash after first token") };
    match token(rest) {
        ("", _) => Err("mime: expected token after slash"),
        (_, "") => Ok(()),
        _ => Err("mime: unexpected content after media subtype"),
    }
}

/// The characters of a token at the beginning, and what follows.
fn token(text: &str) -> (&str, &str) {
    let is_part = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c);
    text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()))
}

/// `; name=value` at the beginning: the name, and what follows.
fn parameter(text: &str) -> Option<(String, &str)> {
    let (name, rest) = token(text.trim_start().strip_prefix(';')?.trim_start());
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    let rest = match rest.strip_prefix('"') {
        Some(quoted) => after_quote(quoted)?,
        None => Some(token(rest)).filter(|(value, _)| !value.is_empty())?.1,
    };
    (!name.is_empty()).then(|| (name.to_lowercase(), rest))
}

fn after_quote(text: &str) -> Option<&str> {
    let mut escaped = false;
    let end = text.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    Some(&text[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_their_parameters() {
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json;",
            "application/json; a=\"x\\\";y\"; b=c ",
        ] {
            assert_eq!(parse(good), Ok("application/json".to_owned()), "{good}");
        }
        for (bad, why) in [
            ("", "mime: no media type"),
            (";a=b", "mime: no media type"),
            ("a b", "mime: expected slash after first token"),
            ("a/", "mime: expected token after slash"),
            ("a/b c", "mime: unexpected content after media subtype"),
            ("a/b;;", "mime: invalid media parameter"),
            ("a/b; c", "mime: invalid media parameter"),
            ("a/b; c=\"x", "mime: invalid media parameter"),
            ("a/b; c=1; C=2", "mime: duplicate parameter name"),
        ] {
            assert_eq!(parse(bad), Err(why), "{bad}");
        }
    }
}
