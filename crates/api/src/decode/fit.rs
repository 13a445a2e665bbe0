//! Laying a type over a `Value` by Go's rules.
//!
//! A serde deserializer whose every node knows the path that led to it, so that a type error names the field as Go
//! does: `json: cannot unmarshal string into Go struct field HostConfig.HostConfig.Memory of type int64`.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Number, Value};

use super::DecodeError;

/// Reads a value as a type.
pub(super) fn fit<T: DeserializeOwned>(value: &Value) -> Result<T, DecodeError> {
    T::deserialize(Node { value, path: &Path::Root }).map_err(|error| DecodeError::Invalid(error.to_string()))
}

/// Whether an object has at least one of a struct's fields.
pub(super) fn names_a_field<T: DeserializeOwned>(value: &Value) -> bool {
    let Value::Object(map) = value else { return false };
    let mut fields: &'static [&'static str] = &[];
    // The probe always ends in an error; what it leaves behind is the list of names.
    let _ = T::deserialize(FieldProbe(&mut fields));
    map.keys().any(|key| field_named(fields, key).is_some())
}

/// Exact match first, then by folded case.
fn field_named(fields: &'static [&'static str], key: &str) -> Option<&'static str> {
    let exact = fields.iter().find(|field| **field == key);
    exact.or_else(|| fields.iter().find(|field| field.eq_ignore_ascii_case(key))).copied()
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

/// How a node was reached. Array elements and map entries are not named, as in Go.
enum Path<'p> {
    Root,
    Field { parent: &'p Path<'p>, owner: &'static str, name: &'static str },
}

impl Path<'_> {
    fn error(&self, got: &str, expected: &str) -> FitError {
        let Path::Field { owner, .. } = self else {
            return FitError::Bare { got: got.to_owned(), expected: expected.to_owned() };
        };
        let full = self.dotted();
        FitError::Placed(format!("json: cannot unmarshal {got} into Go struct field {owner}.{full} of type {expected}"))
    }

    fn dotted(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Field { parent: Path::Root, name, .. } => (*name).to_owned(),
            Path::Field { parent, name, .. } => format!("{}.{name}", parent.dotted()),
        }
    }
}

#[derive(Clone, Copy)]
struct Node<'a> {
    value: &'a Value,
    path: &'a Path<'a>,
}

impl Node<'_> {
    fn mismatch<T>(&self, expected: &str) -> Result<T, FitError> {
        let got = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        Err(self.path.error(got, expected))
    }

    /// A number that the wanted type cannot hold is shown with its digits.
    fn out_of_range<T>(&self, number: &Number, expected: &str) -> Result<T, FitError> {
        Err(self.path.error(&format!("number {number}"), expected))
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $kind:ty, $name:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
            let number = match self.value {
                Value::Null => return visitor.$visit(0),
                Value::Number(number) => number,
                _ => return self.mismatch($name),
            };
            let wide = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
            match wide.and_then(|wide| <$kind>::try_from(wide).ok()) {
                Some(fits) => visitor.$visit(fits),
                None => self.out_of_range(number, $name),
            }
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

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        let result = match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(value) => visitor.visit_str(value),
            Value::Array(list) => visitor.visit_seq(Elements { rest: list.iter(), missing: 0, path: self.path }),
            Value::Object(map) => visitor.visit_map(Entries { rest: map.iter(), value: None, path: self.path }),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
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
        match self.value {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => self.mismatch("bool"),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        match self.value {
            Value::Null => visitor.visit_f64(0.0),
            Value::Number(number) => visitor.visit_f64(number.as_f64().unwrap_or_default()),
            _ => self.mismatch("float64"),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        match self.value {
            Value::Null => visitor.visit_str(""),
            Value::String(value) => visitor.visit_str(value),
            _ => self.mismatch("string"),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        self.deserialize_tuple(0, visitor)
    }

    /// A Go array: what is missing is zero, what is too much is dropped by the visitor. Length 0 is a slice.
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, FitError> {
        match self.value {
            Value::Null => visitor.visit_seq(Elements { rest: [].iter(), missing: len, path: self.path }),
            Value::Array(list) => {
                let missing = len.saturating_sub(list.len());
                visitor.visit_seq(Elements { rest: list.iter(), missing, path: self.path })
            }
            _ => self.mismatch("[]string"),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        match self.value {
            Value::Null => visitor.visit_map(Fields { rest: Vec::new().into_iter(), value: None }),
            Value::Object(map) => visitor.visit_map(Entries { rest: map.iter(), value: None, path: self.path }),
            _ => self.mismatch("map[string]string"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FitError> {
        let map = match self.value {
            Value::Null => return visitor.visit_map(Fields { rest: Vec::new().into_iter(), value: None }),
            Value::Object(map) => map,
            _ => return self.mismatch(name),
        };
        let mut found: Vec<(Path<'_>, &Value)> = Vec::with_capacity(map.len());
        for (key, value) in map {
            let Some(field) = field_named(fields, key) else { continue };
            // Two spellings of one name: the later one counts.
            found.retain(|(path, _)| !matches!(path, Path::Field { name, .. } if *name == field));
            found.push((Path::Field { parent: self.path, owner: name, name: field }, value));
        }
        visitor.visit_map(Fields { rest: found.into_iter(), value: None })
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

static NULL: Value = Value::Null;

struct Elements<'a> {
    rest: std::slice::Iter<'a, Value>,
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
                &NULL
            }
            None => return Ok(None),
        };
        seed.deserialize(Node { value, path: self.path }).map(Some)
    }
}

/// Entries of a map: every key is kept.
struct Entries<'a> {
    rest: serde_json::map::Iter<'a>,
    value: Option<&'a Value>,
    path: &'a Path<'a>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = FitError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, FitError> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, FitError> {
        let value = self.value.take().unwrap_or(&NULL);
        seed.deserialize(Node { value, path: self.path })
    }
}

/// Fields of a struct that the object names.
struct Fields<'a> {
    rest: std::vec::IntoIter<(Path<'a>, &'a Value)>,
    value: Option<(Path<'a>, &'a Value)>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = FitError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, FitError> {
        self.value = self.rest.next();
        let Some((Path::Field { name, .. }, _)) = &self.value else { return Ok(None) };
        seed.deserialize(StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, FitError> {
        let (path, value) = self.value.take().unwrap_or((Path::Root, &NULL));
        seed.deserialize(Node { value, path: &path })
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
