//! Reading JSON as Go's `encoding/json` does: names in any case, the later of two equal names counts, `null` as the zero
//! value, unknown fields ignored, a second document refused, and errors in Go's words.
//!
//! Every document that users write for the reference is read by this crate: what the reference's decoder understands,
//! Gantry understands, too, or a profile, a policy or a list of limits would silently be an empty one.
//!
//! Two steps: [`scan`] makes a tree of the text (or a syntax error), [`fit`] lays a type over it (or a type error).
//! Invariant: no input makes this panic, and nesting is bounded by [`MAX_DEPTH`], memory by [`MAX_VALUES`].
#![forbid(unsafe_code)]

mod fit;
pub mod netip;
mod scan;

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};

pub use fit::{GoStruct, field_names, is_spelling_of};
pub use scan::{MAX_DEPTH, MAX_VALUES};

/// Why a text could not be read. `Display` is the text of Go's decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// There is nothing but blanks.
    Empty,
    /// Something follows the first value.
    Trailing,
    /// A syntax or a type error.
    Invalid(String),
}

impl DecodeError {
    /// The text of Go's `json.Decoder`, to which a text of blanks is an end and no value.
    pub fn stream_message(&self) -> String {
        match self {
            DecodeError::Empty => "EOF".to_owned(),
            DecodeError::Trailing => "multiple JSON documents not allowed".to_owned(),
            DecodeError::Invalid(text) => text.clone(),
        }
    }

    /// The text with which the reference refuses the body of a request to create a container, which it decodes by itself.
    pub fn create_message(&self) -> String {
        match self {
            DecodeError::Empty => "invalid JSON: EOF".to_owned(),
            other => other.body_message(),
        }
    }

    /// The text with which the reference refuses a request body.
    pub fn body_message(&self) -> String {
        match self {
            DecodeError::Empty => "invalid JSON: got EOF while reading request body".to_owned(),
            DecodeError::Trailing => self.to_string(),
            DecodeError::Invalid(text) => format!("invalid JSON: {text}"),
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Empty => f.write_str("unexpected end of JSON input"),
            DecodeError::Trailing => f.write_str("unexpected content after JSON"),
            DecodeError::Invalid(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for DecodeError {}

/// A value of a document. Members of an object stand in the text's order, equal names included.
#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// A text that was read and can be laid under several types.
#[derive(Clone, Debug, PartialEq)]
pub struct Document(Tree);

impl Document {
    /// Reads exactly one value. A stray `}` or `]` behind it goes unnoticed, as it does in the reference.
    pub fn parse(bytes: &[u8]) -> Result<Document, DecodeError> {
        scan::document(bytes).map(Document)
    }

    /// Reads the first value of a text, as `json.Decoder` does: answers of servers are read that way.
    pub fn parse_first(bytes: &[u8]) -> Result<Document, DecodeError> {
        scan::first(bytes).map(Document)
    }

    /// Reads a text that holds one value and nothing else, as `json.Unmarshal` does: files are read that way.
    pub fn parse_whole(bytes: &[u8]) -> Result<Document, DecodeError> {
        scan::whole(bytes).map(Document)
    }

    /// The document as a type.
    pub fn fit<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        self.fit_named(&[])
    }

    /// The document as a type whose errors name fields and types as Go does.
    pub fn fit_named<T: DeserializeOwned>(&self, structs: &'static [GoStruct]) -> Result<T, DecodeError> {
        fit::fit(&self.0, structs)
    }

    /// Whether it is an object with at least one of a struct's fields.
    pub fn names_a_field<T: DeserializeOwned>(&self) -> bool {
        fit::names_a_field::<T>(&self.0)
    }

    /// The names of an object that are none of a struct's fields, as they are spelled; none of what is no object.
    pub fn unknown_names<T: DeserializeOwned>(&self) -> Vec<&str> {
        fit::unknown_names::<T>(&self.0)
    }

    /// The document without a type, unknown names and all.
    pub fn into_value(self) -> Value {
        self.0.into_value()
    }
}

/// Reads one value of a type.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    Document::parse(bytes)?.fit()
}

/// Lays a type over a value that was read before, by the same rules.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, DecodeError> {
    fit::fit(&Tree::from_value(value), &[])
}

/// Reads a text into a value, unknown fields and all.
pub fn value(bytes: &[u8]) -> Result<Value, DecodeError> {
    Document::parse(bytes).map(Document::into_value)
}

impl Tree {
    /// Of equal names the last one counts.
    fn into_value(self) -> Value {
        match self {
            Tree::Null => Value::Null,
            Tree::Bool(value) => Value::Bool(value),
            Tree::Number(number) => Value::Number(number),
            Tree::String(text) => Value::String(text),
            Tree::Array(list) => Value::Array(list.into_iter().map(Tree::into_value).collect()),
            Tree::Object(members) => Value::Object(
                members.into_iter().map(|(name, value)| (name, value.into_value())).collect::<Map<_, _>>(),
            ),
        }
    }

    fn from_value(value: &Value) -> Tree {
        match value {
            Value::Null => Tree::Null,
            Value::Bool(value) => Tree::Bool(*value),
            Value::Number(number) => Tree::Number(number.clone()),
            Value::String(text) => Tree::String(text.clone()),
            Value::Array(list) => Tree::Array(list.iter().map(Tree::from_value).collect()),
            Value::Object(map) => {
                Tree::Object(map.iter().map(|(name, value)| (name.clone(), Tree::from_value(value))).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests;
