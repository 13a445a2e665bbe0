//! Small serde rules of Go's encoder: what counts as empty, how a zero time looks.
//!
//! Used by `skip_serializing_if` and `serialize_with` of the wire types; nothing here knows a noun.

use serde::{Deserialize, Serialize, Serializer};

/// The text of Go's zero `time.Time`.
pub(crate) const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Go's `omitempty` of numbers, booleans and strings: the value equals its type's zero.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Writes a time kept as text; one that was never set is Go's zero time, not an empty string.
pub(crate) fn time<S: Serializer>(value: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if value.is_empty() { ZERO_TIME } else { value })
}

/// Go's `struct{}`: written `{}`, read from anything that is an object or null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A list of texts that older clients write as one text (`Cmd`, `Entrypoint`).
pub(crate) fn text_or_list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    struct TextOrList;
    impl<'de> serde::de::Visitor<'de> for TextOrList {
        type Value = Option<Vec<String>>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("[]string")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_any(self)
        }
        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(vec![text.to_owned()]))
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(text) = seq.next_element()? {
                list.push(text);
            }
            Ok(Some(list))
        }
    }
    deserializer.deserialize_option(TextOrList)
}
