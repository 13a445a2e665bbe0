//! What a Rust file names, read from its tokens: paths, imports, and how often each identifier occurs.
//!
//! Tokens and not the syntax tree, because the arguments of macros name things, too. Code for tests (`#[cfg(test)]`,
//! `#[test]`) is kept apart.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Segments of a path, from the left.
pub type Path = Vec<String>;

/// One leaf of a `use` declaration.
#[derive(Debug, PartialEq, Eq)]
pub struct Import {
    /// The inline modules around it, from the file's own module inwards.
    pub inside: Path,
    /// What is imported; of a glob the module.
    pub path: Path,
    /// The name it gets; `None` for a glob.
    pub name: Option<String>,
    /// It is passed on (`pub use`, `pub(super) use`).
    pub public: bool,
}

/// What one file names outside of its tests.
#[derive(Debug, Default)]
pub struct Named {
    /// Leaves of `use` declarations.
    pub imports: Vec<Import>,
    /// Paths of two segments or more elsewhere, with the inline modules around them.
    pub paths: Vec<(Path, Path)>,
    /// How often each identifier occurs outside of `use` declarations; a name that an import renames counts, too.
    pub identifiers: BTreeMap<String, usize>,
    /// The same of the file's tests.
    pub in_tests: BTreeMap<String, usize>,
}

/// Reads a file; `None` when it has no valid tokens.
pub fn read(text: &str) -> Option<Named> {
    let mut named = Named::default();
    walk(text.parse().ok()?, &mut Vec::new(), &mut named);
    Some(named)
}

fn walk(stream: TokenStream, inside: &mut Path, named: &mut Named) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        at += step(&tokens[at..], inside, named);
    }
}

/// Takes what stands at the front; the number of tokens taken, one at least.
fn step(tokens: &[TokenTree], inside: &mut Path, named: &mut Named) -> usize {
    if let Some(attribute) = attribute(tokens) {
        if is_test(&attribute) {
            let length = 2 + item_length(&tokens[2..]);
            tokens[2..length].iter().for_each(|token| count(token, &mut named.in_tests));
            return length;
        }
        attribute.into_iter().for_each(|token| count_with_texts(&token, &mut named.identifiers));
        return 2;
    }
    match &tokens[0] {
        // `use<'a>` of a type is no declaration.
        TokenTree::Ident(word) if word == "use" && tokens.get(1).is_some_and(|next| is_punct(next, '<')) => 1,
        TokenTree::Ident(word) if word == "use" || word == "pub" => declaration(tokens, inside, named),
        TokenTree::Ident(word) if word == "mod" => inline_module(tokens, inside, named),
        TokenTree::Ident(_) => path(tokens, inside, named),
        TokenTree::Group(group) => {
            walk(group.stream(), inside, named);
            1
        }
        TokenTree::Literal(literal) => {
            captured(&literal.to_string(), &mut named.identifiers);
            1
        }
        TokenTree::Punct(_) => 1,
    }
}

/// Names that a format takes from its surroundings: `"{name:?}"`.
fn captured(text: &str, into: &mut BTreeMap<String, usize>) {
    for part in text.split('{').skip(1) {
        let name: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let ends = part[name.len()..].starts_with(['}', ':']);
        if ends && name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            *into.entry(name).or_default() += 1;
        }
    }
}

/// The content of the outer attribute at the front.
fn attribute(tokens: &[TokenTree]) -> Option<TokenStream> {
    let [hash, TokenTree::Group(group), ..] = tokens else { return None };
    (is_punct(hash, '#') && group.delimiter() == Delimiter::Bracket).then(|| group.stream())
}

fn is_test(attribute: &TokenStream) -> bool {
    let text = attribute.to_string().replace(' ', "");
    text == "test" || text.starts_with("cfg(test)") || text.starts_with("cfg(all(test") || text == "tokio::test"
}

/// Tokens of an item, further attributes before it included: to its block or its semicolon.
fn item_length(tokens: &[TokenTree]) -> usize {
    let mut at = 0;
    while attribute(&tokens[at..]).is_some() {
        at += 2;
    }
    let end = |t: &TokenTree| {
        is_punct(t, ';') || matches!(t, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
    };
    let is_import = tokens[at..].iter().take(3).any(|t| matches!(t, TokenTree::Ident(word) if word == "use"));
    let last = tokens[at..].iter().position(|t| if is_import { is_punct(t, ';') } else { end(t) });
    last.map_or(tokens.len(), |last| at + last + 1)
}

/// A `use` declaration at the front, or the visibility of something else.
fn declaration(tokens: &[TokenTree], inside: &Path, named: &mut Named) -> usize {
    let scope = |t: &TokenTree| matches!(t, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis);
    let public = tokens[0].to_string() == "pub";
    let start = if public { 1 + usize::from(tokens.get(1).is_some_and(scope)) } else { 0 };
    if !matches!(tokens.get(start), Some(TokenTree::Ident(word)) if word == "use") {
        return start.max(1);
    }
    let length = tokens.iter().position(|t| is_punct(t, ';')).map_or(tokens.len(), |end| end + 1);
    let first = named.imports.len();
    import(&tokens[start + 1..length], Vec::new(), inside, named);
    named.imports[first..].iter_mut().for_each(|import| import.public = public);
    length
}

fn inline_module(tokens: &[TokenTree], inside: &mut Path, named: &mut Named) -> usize {
    let [_, TokenTree::Ident(name), TokenTree::Group(group), ..] = tokens else { return 1 };
    inside.push(name.to_string());
    walk(group.stream(), inside, named);
    inside.pop();
    3
}

/// A path of identifiers at the front; generic arguments end it.
fn path(tokens: &[TokenTree], inside: &Path, named: &mut Named) -> usize {
    let mut segments = Path::new();
    let mut length = 0;
    while let Some(TokenTree::Ident(word)) = tokens.get(length) {
        *named.identifiers.entry(word.to_string()).or_default() += 1;
        segments.push(word.to_string());
        length += 1;
        match tokens.get(length..length + 3) {
            Some([a, b, TokenTree::Ident(_)]) if is_punct(a, ':') && is_punct(b, ':') => length += 2,
            _ => break,
        }
    }
    if segments.len() > 1 {
        named.paths.push((inside.clone(), segments));
    }
    length
}

/// The leaves of a tree of imports.
fn import(tokens: &[TokenTree], mut prefix: Path, inside: &Path, named: &mut Named) {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Ident(word) if word == "as" => {
                let name = tokens.get(at + 1).map(TokenTree::to_string);
                if let Some(last) = prefix.last() {
                    *named.identifiers.entry(last.clone()).or_default() += 1;
                }
                named.imports.push(Import { inside: inside.clone(), path: prefix, name, public: false });
                return;
            }
            TokenTree::Ident(word) => prefix.push(word.to_string()),
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                inner.split(|t| is_punct(t, ',')).for_each(|part| import(part, prefix.clone(), inside, named));
                return;
            }
            TokenTree::Punct(p) if p.as_char() == '*' => {
                named.imports.push(Import { inside: inside.clone(), path: prefix, name: None, public: false });
                return;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        at += 1;
    }
    if prefix.last().is_some_and(|last| last == "self") && prefix.len() > 1 {
        prefix.pop();
    }
    if let Some(name) = prefix.last().cloned() {
        named.imports.push(Import { inside: inside.clone(), path: prefix, name: Some(name), public: false });
    }
}

fn is_punct(token: &TokenTree, c: char) -> bool {
    matches!(token, TokenTree::Punct(p) if p.as_char() == c)
}

fn count(token: &TokenTree, into: &mut BTreeMap<String, usize>) {
    match token {
        TokenTree::Ident(word) => *into.entry(word.to_string()).or_default() += 1,
        TokenTree::Group(group) => group.stream().into_iter().for_each(|inner| count(&inner, into)),
        TokenTree::Punct(_) | TokenTree::Literal(_) => {}
    }
}

/// Attributes name functions in texts, too: `#[serde(default = "ten")]`.
fn count_with_texts(token: &TokenTree, into: &mut BTreeMap<String, usize>) {
    match token {
        TokenTree::Literal(literal) => {
            let text = literal.to_string();
            let words = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
            words.for_each(|word| *into.entry(word.to_string()).or_default() += 1);
        }
        TokenTree::Group(group) => group.stream().into_iter().for_each(|inner| count_with_texts(&inner, into)),
        TokenTree::Ident(_) | TokenTree::Punct(_) => count(token, into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Path {
        text.split("::").map(String::from).collect()
    }

    #[test]
    fn imports_have_leaves() {
        let named = read("use a::{b::{self, C}, d as e, f::*};\nmod m { pub(crate) use super::x; }").expect("tokens");
        let leaves: Vec<(String, Option<&str>)> =
            named.imports.iter().map(|i| (i.path.join("::"), i.name.as_deref())).collect();
        let expected =
            [("a::b", Some("b")), ("a::b::C", Some("C")), ("a::d", Some("e")), ("a::f", None), ("super::x", Some("x"))];
        assert_eq!(leaves, expected.map(|(path, name)| (path.to_string(), name)));
        assert_eq!(named.imports[4].inside, ["m"]);
        assert_eq!(named.imports.iter().map(|i| i.public).collect::<Vec<_>>(), [false, false, false, false, true]);
        assert_eq!(named.identifiers.get("d"), Some(&1));
        assert_eq!(named.identifiers.get("C"), None);
    }

    #[test]
    fn paths_are_found_in_macros_and_not_in_tests() {
        let text = "fn a() { x!(crate::b::c(1), d); }\n#[cfg(test)]\n#[x]\nmod tests { fn t() { e::f(); } }\nfn z() {}";
        let named = read(text).expect("tokens");
        assert_eq!(named.paths, [(Path::new(), words("crate::b::c"))]);
        assert_eq!(named.identifiers.get("e"), None);
        assert_eq!(named.in_tests.get("f"), Some(&1));
        assert_eq!(named.identifiers.get("z"), Some(&1));
    }

    #[test]
    fn formats_name_what_they_take() {
        let named = read("fn a() -> impl X + use<'a> { f!(\"{b} {c:?} {} {0} {{d}}\"); e }").expect("tokens");
        let words: Vec<&str> = named.identifiers.keys().map(String::as_str).collect();
        assert_eq!(words, ["X", "a", "b", "c", "d", "e", "f", "fn", "impl"]);
    }

    #[test]
    fn attributes_name_functions_in_texts() {
        let named = read("#[serde(default = \"crate::ten\")] struct A;").expect("tokens");
        assert_eq!(named.identifiers.get("ten"), Some(&1));
    }
}
