//! Laying a type over a tree by Go's rules.
//!
//! - A serde deserializer whose every node knows the path that led to it, so that a type error names the field as Go
//!   does: `json: cannot unmarshal string into Go struct field HostConfig.HostConfig.Resources.Memory of type int64`.
//!   What serde does not know of a Go type (its package, the struct that a field is embedded by, the declared type) stands
//!   in a table of [`GoStruct`]s.
//! - A node is everything that a text says of one place, in its order: Go decodes each of two equal names into the same
//!   variable. The later of two numbers, texts or lists counts, structs and maps grow, and `null` takes back what can be
//!   absent but says nothing of the rest.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Number;

use super::{DecodeError, Tree};

/// What Go calls the fields of a struct, where a type error shows more than serde knows.
#[derive(Clone, Copy, Debug)]
pub struct GoStruct {
    /// The struct, as its `serde(rename)` says: `container.HostConfig`.
    pub name: &'static str,
    /// The struct that Go decodes, when this one is embedded by it: `container.CreateRequest`. Empty: itself.
    pub outer: &'static str,
    /// Embedded structs with the names of their fields; no names: all fields.
    pub embedded: &'static [(&'static str, &'static [&'static str])],
    /// Fields whose declared types are not what the decoder would say: `("OomScoreAdj", "int")`.
    pub types: &'static [(&'static str, &'static str)],
}

/// Reads a tree as a type; `structs` has the names for type errors.
pub(super) fn fit<T: DeserializeOwned>(tree: &Tree, structs: &'static [GoStruct]) -> Result<T, DecodeError> {
    T::deserialize(Node { said: &[tree], path: &Path::Root(structs) })
        .map_err(|error| DecodeError::Invalid(error.to_string()))
}

/// Whether an object has at least one of a struct's fields.
pub(super) fn names_a_field<T: DeserializeOwned>(tree: &Tree) -> bool {
    let Tree::Object(members) = tree else { return false };
    let fields = field_names::<T>();
    members.iter().any(|(name, _)| field_named(fields, name).is_some())
}

/// The names of an object that are none of a struct's fields.
pub(super) fn unknown_names<T: DeserializeOwned>(tree: &Tree) -> Vec<&str> {
    let Tree::Object(members) = tree else { return Vec::new() };
    let fields = field_names::<T>();
    members.iter().map(|(name, _)| name.as_str()).filter(|name| field_named(fields, name).is_none()).collect()
}

/// The names of a struct's fields, as its derived implementation reads them; none of what is no struct.
pub fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // The probe always ends in an error; what it leaves behind is the list of names.
    let _ = T::deserialize(FieldProbe(&mut fields));
    fields
}

/// Exact match first, then by folded case.
fn field_named(fields: &'static [&'static str], key: &str) -> Option<&'static str> {
    let exact = fields.iter().find(|field| **field == key);
    exact.or_else(|| fields.iter().find(|field| is_spelling_of(key, field))).copied()
}

/// Whether a key names a field but for its capitals: Unicode's simple folding, as far as it leads to ASCII, since names of
/// fields are ASCII.
pub fn is_spelling_of(key: &str, field: &str) -> bool {
    let folded = key.chars().map(|c| match c {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        other => other.to_ascii_lowercase(),
    });
    folded.eq(field.chars().map(|c| c.to_ascii_lowercase()))
}

/// An error before (`Bare`) or after (`Placed`) the path is known.
#[derive(Debug)]
enum FitError {
    Bare { got: String, expected: String },
    Placed(String),
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FitError::Bare { got, expected } => {
                write!(f, "json: cannot unmarshal {got} into Go value of type {expected}")
            }
            FitError::Placed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for FitError {}

impl de::Error for FitError {
    fn custom<T: fmt::Display>(text: T) -> FitError {
        FitError::Placed(text.to_string())
    }

    fn invalid_type(got: Unexpected<'_>, expected: &dyn de::Expected) -> FitError {
        let got = match got {
            Unexpected::Bool(_) => "bool",
            Unexpected::Str(_) => "string",
            Unexpected::Seq => "array",
            Unexpected::Map => "object",
            _ => "number",
        };
        FitError::Bare { got: got.to_owned(), expected: expected.to_string() }
    }
}

/// How a node was reached.
enum Path<'p> {
    Root(&'static [GoStruct]),
    Field {
        parent: &'p Path<'p>,
        owner: &'static str,
        name: &'static str,
    },
    /// An element of a list or an entry of a map, which Go does not name.
    Inside {
        parent: &'p Path<'p>,
    },
}

impl Path<'_> {
    fn error(&self, got: &str, expected: &str) -> FitError {
        let Some(owner) = self.owner() else {
            let name = self.go_struct(expected).map(|known| known.outer).filter(|outer| !outer.is_empty());
            return FitError::Bare { got: got.to_owned(), expected: name.unwrap_or(expected).to_owned() };
        };
        let expected = self.declared().unwrap_or(expected);
        let (owner, full) = (owner.rsplit('.').next().unwrap_or_default(), self.dotted());
        FitError::Placed(format!("json: cannot unmarshal {got} into Go struct field {owner}.{full} of type {expected}"))
    }

    /// The struct whose field it is, under Go's name with its package.
    fn owner(&self) -> Option<&'static str> {
        match self {
            Path::Root(_) => None,
            Path::Inside { parent } => parent.owner(),
            Path::Field { owner, .. } => {
                let outer = self.go_struct(owner).map(|known| known.outer).filter(|outer| !outer.is_empty());
                Some(outer.unwrap_or(owner))
            }
        }
    }

    fn go_struct(&self, name: &str) -> Option<&'static GoStruct> {
        match self {
            Path::Root(structs) => structs.iter().find(|known| known.name == name),
            Path::Field { parent, .. } | Path::Inside { parent } => parent.go_struct(name),
        }
    }

    /// The declared type of the place, without its pointer.
    fn declared(&self) -> Option<&'static str> {
        let declared = match self {
            Path::Root(_) => None,
            Path::Field { owner, name, .. } => {
                let types = self.go_struct(owner)?.types;
                types.iter().find(|(field, _)| field == name).map(|(_, declared)| *declared)
            }
            Path::Inside { parent } => element(parent.declared()?),
        };
        declared.map(|declared| declared.trim_start_matches('*'))
    }

    /// The names from the root, with those of embedded structs.
    fn dotted(&self) -> String {
        let (parent, owner, name) = match self {
            Path::Root(_) => return String::new(),
            Path::Inside { parent } => return parent.dotted(),
            Path::Field { parent, owner, name } => (parent, owner, name),
        };
        let mut all = parent.dotted();
        let embedded = self.go_struct(owner).map_or(&[][..], |known| known.embedded);
        let embedded = embedded.iter().find(|(_, fields)| fields.is_empty() || fields.contains(name));
        for word in embedded.map(|(name, _)| *name).into_iter().chain([*name]) {
            if !all.is_empty() {
                all.push('.');
            }
            all.push_str(word);
        }
        all
    }
}

/// The type of what a list, an array or a map holds.
fn element(declared: &'static str) -> Option<&'static str> {
    let rest = declared.strip_prefix("map").unwrap_or(declared);
    rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(_, element)| element)
}

#[derive(Clone, Copy)]
struct Node<'a> {
    said: &'a [&'a Tree],
    path: &'a Path<'a>,
}

impl<'a> Node<'a> {
    fn mismatch(&self, got: &Tree, expected: &str) -> FitError {
        let got = match got {
            Tree::Null => "null",
            Tree::Bool(_) => "bool",
            Tree::Number(_) => "number",
            Tree::String(_) => "string",
            Tree::Array(_) => "array",
            Tree::Object(_) => "object",
        };
        self.path.error(got, expected)
    }

    /// A number that the wanted type cannot hold is shown with its digits.
    fn out_of_range(&self, number: &Number, expected: &str) -> FitError {
        self.path.error(&format!("number {number}"), expected)
    }

    /// The last one that is no `null`; all of them must be of the type.
    fn last<T>(&self, read: impl Fn(&'a Tree) -> Result<T, FitError>) -> Result<Option<T>, FitError> {
        let mut last = None;
        for tree in self.said {
            if !matches!(tree, Tree::Null) {
                last = Some(read(tree)?);
            }
        }
        Ok(last)
    }

    /// What stands behind the last `null`, which takes back what was said before.
    fn since_null(&self) -> &'a [&'a Tree] {
        let nulls = self.said.iter().rposition(|tree| matches!(tree, Tree::Null));
        &self.said[nulls.map_or(0, |at| at + 1)..]
    }

    fn list(&self) -> Result<&'a [Tree], FitError> {
        let read = |tree: &'a Tree| match tree {
            Tree::Array(list) => Ok(list.as_slice()),
            other => Err(self.mismatch(other, "[]string")),
        };
        Ok(Node { said: self.since_null(), ..*self }.last(read)?.unwrap_or_default())
    }

    fn text(&self) -> Result<&'a str, FitError> {
        let read = |tree: &'a Tree| match tree {
            Tree::String(text) => Ok(text.as_str()),
            other => Err(self.mismatch(other, "string")),
        };
        Ok(self.last(read)?.unwrap_or_default())
    }

    fn float(&self) -> Result<f64, FitError> {
        let read = |tree: &Tree| match tree {
            Tree::Number(number) => Ok(number.as_f64().unwrap_or_default()),
            other => Err(self.mismatch(other, "float64")),
        };
        Ok(self.last(read)?.unwrap_or_default())
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $kind:ty, $name:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
            let read = |tree: &Tree| {
                let Tree::Number(number) = tree else { return Err(self.mismatch(tree, $name)) };
                let wide = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
                wide.and_then(|wide| <$kind>::try_from(wide).ok()).ok_or_else(|| self.out_of_range(number, $name))
            };
            visitor.$visit(self.last(read)?.unwrap_or_default())
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = FitError;

    integers! {
        deserialize_i8 visit_i8 i8, "int8";
        deserialize_i16 visit_i16 i16, "int16";
        deserialize_i32 visit_i32 i32, "int32";
        deserialize_i64 visit_i64 i64, "int64";
        deserialize_u8 visit_u8 u8, "uint8";
        deserialize_u16 visit_u16 u16, "uint16";
        deserialize_u32 visit_u32 u32, "uint32";
        deserialize_u64 visit_u64 u64, "uint64";
    }

    /// What Go decodes into `any`: the last one alone.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        let result = match self.said.last().copied().unwrap_or(&Tree::Null) {
            Tree::Null => visitor.visit_unit(),
            Tree::Bool(value) => visitor.visit_bool(*value),
            Tree::String(text) => visitor.visit_str(text),
            Tree::Array(list) => visitor.visit_seq(Elements { rest: list.iter(), missing: 0, path: self.path }),
            Tree::Object(members) => {
                visitor.visit_map(Entries { objects: &[members], at: 0, value: None, path: self.path })
            }
            Tree::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), ..) => visitor.visit_u64(value),
                (_, Some(value), _) => visitor.visit_i64(value),
                (.., value) => visitor.visit_f64(value.unwrap_or_default()),
            },
        };
        result.map_err(|error| match error {
            FitError::Bare { got, expected } => self.path.error(&got, &expected),
            placed => placed,
        })
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        let read = |tree: &Tree| match tree {
            Tree::Bool(value) => Ok(*value),
            other => Err(self.mismatch(other, "bool")),
        };
        visitor.visit_bool(self.last(read)?.unwrap_or_default())
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        visitor.visit_f64(self.float()?)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        visitor.visit_f64(self.float()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        match self.since_null() {
            [] => visitor.visit_none(),
            said => visitor.visit_some(Node { said, ..self }),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        self.deserialize_tuple(0, visitor)
    }

    /// A Go array: what is missing is zero, what is too much is dropped by the visitor. Length 0 is a slice.
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, FitError> {
        let list = self.list()?;
        let missing = len.saturating_sub(list.len());
        visitor.visit_seq(Elements { rest: list.iter(), missing, path: self.path })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        let mut objects = Vec::with_capacity(1);
        for tree in self.since_null() {
            let Tree::Object(members) = tree else { return Err(self.mismatch(tree, "map[string]string")) };
            objects.push(members.as_slice());
        }
        visitor.visit_map(Entries { objects: &objects, at: 0, value: None, path: self.path })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FitError> {
        let mut found: Vec<Said<'_>> = Vec::with_capacity(fields.len());
        for tree in self.said {
            let members = match tree {
                Tree::Null => continue,
                Tree::Object(members) => members,
                other => return Err(self.mismatch(other, name)),
            };
            for (key, value) in members {
                let Some(field) = field_named(fields, key) else { continue };
                match found.iter_mut().find(|said| said.field == field) {
                    Some(said) => said.values.push(value),
                    None => found.push(Said { field, values: vec![value] }),
                }
            }
        }
        visitor.visit_map(Fields { rest: found.into_iter(), values: Vec::new(), owner: (self.path, name), field: "" })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, FitError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct tuple_struct enum identifier i128 u128
    }
}

struct Elements<'a> {
    rest: std::slice::Iter<'a, Tree>,
    missing: usize,
    path: &'a Path<'a>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = FitError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, FitError> {
        let value = match self.rest.next() {
            Some(value) => value,
            None if self.missing > 0 => {
                self.missing -= 1;
                &Tree::Null
            }
            None => return Ok(None),
        };
        seed.deserialize(Node { said: &[value], path: &Path::Inside { parent: self.path } }).map(Some)
    }
}

/// Entries of a map: every key is kept, and a later one of a key replaces the earlier one.
struct Entries<'a> {
    objects: &'a [&'a [(String, Tree)]],
    at: usize,
    value: Option<&'a Tree>,
    path: &'a Path<'a>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = FitError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, FitError> {
        while let Some((members, rest)) = self.objects.split_first() {
            if let Some((key, value)) = members.get(self.at) {
                self.at += 1;
                self.value = Some(value);
                return seed.deserialize(StrDeserializer::new(key)).map(Some);
            }
            (self.objects, self.at) = (rest, 0);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, FitError> {
        let value = self.value.take().unwrap_or(&Tree::Null);
        seed.deserialize(Node { said: &[value], path: &Path::Inside { parent: self.path } })
    }
}

/// Everything that an object says of one field.
struct Said<'a> {
    field: &'static str,
    values: Vec<&'a Tree>,
}

/// Fields of a struct that the object names.
struct Fields<'a> {
    rest: std::vec::IntoIter<Said<'a>>,
    values: Vec<&'a Tree>,
    /// The struct's place and name.
    owner: (&'a Path<'a>, &'static str),
    field: &'static str,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = FitError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, FitError> {
        let Some(said) = self.rest.next() else { return Ok(None) };
        (self.field, self.values) = (said.field, said.values);
        seed.deserialize(StrDeserializer::new(self.field)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, FitError> {
        let (parent, owner) = self.owner;
        let path = Path::Field { parent, owner, name: self.field };
        seed.deserialize(Node { said: &self.values, path: &path })
    }
}

/// Learns a struct's field names from its derived implementation.
struct FieldProbe<'f>(&'f mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldProbe<'_> {
    type Error = FitError;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, FitError> {
        Err(de::Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, FitError> {
        *self.0 = fields;
        Err(de::Error::custom("only the names were wanted"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
