//! `WWW-Authenticate`: what a registry wants to be shown (RFC 9110, 11.6.1). Pure.

/// How a client may show who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token, to be had at `realm`.
    Bearer {
        /// The token server.
        realm: String,
        /// Whose tokens.
        service: String,
        /// For what; empty: the client knows.
        scope: String,
        /// Why the shown token is not enough, such as `insufficient_scope`.
        error: String,
    },
}

/// Fields of one answer that are looked at, and parameters of one challenge.
const FIELDS: usize = 8;
const PARAMETERS: usize = 16;

/// The challenges in the values of all such fields, in order; unknown ones are left out.
pub fn parse<'v>(values: impl Iterator<Item = &'v str>) -> Vec<Challenge> {
    values.take(FIELDS).flat_map(one_field).collect()
}

fn one_field(value: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = value.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(rest.len());
        let (scheme, tail) = rest.split_at(end);
        let (parameters, tail) = parameters(tail);
        let get = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer") && !get("realm").is_empty() {
            let (realm, service) = (get("realm"), get("service"));
            found.push(Challenge::Bearer { realm, service, scope: get("scope"), error: get("error") });
        }
        rest = tail.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
    }
    found
}

/// `name="value"` pairs up to the next scheme.
fn parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    let mut rest = text;
    while found.len() < PARAMETERS {
        let next = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
        let token = next.find(|c: char| c == '=' || c == ',' || c.is_whitespace()).unwrap_or(next.len());
        let (name, tail) = next.split_at(token);
        let Some(tail) = tail.trim_start().strip_prefix('=') else { break };
        let (value, tail) = parameter_value(tail.trim_start());
        found.push((name.to_owned(), value));
        rest = tail;
    }
    (found, rest)
}

fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.into(), scope: scope.into(), error: String::new() }
    }

    #[test]
    fn challenges_are_read() {
        for (value, expected) in [
            (
                r#"Bearer realm="https://a.test/token",service="r.test",scope="repository:x:pull,push""#,
                vec![bearer("https://a.test/token", "r.test", "repository:x:pull,push")],
            ),
            (r#"Basic realm="x""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Negotiate, Basic realm="a, b=c", bearer realm=https://t , service = "q\"s""#,
                vec![Challenge::Basic, bearer("https://t", "q\"s", "")],
            ),
            ("Bearer", vec![]),
            ("Digest realm=\"x\", nonce=\"y\"", vec![]),
            ("", vec![]),
            ("Bearer realm=\"open", vec![bearer("open", "", "")]),
        ] {
            assert_eq!(parse(std::iter::once(value)), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "[A-Ba-b=,\" \\\\é]{0,40}") {
            drop(parse(std::iter::once(text.as_str())));
        }
    }
}
