//! JSON as the reference writes it: no HTML escaping, a newline at the end of each value.

use serde::Serialize;

/// One value and its newline.
///
/// Wire types are plain data with text keys, so encoding cannot fail.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("wire types are plain data");
    bytes.push(b'\n');
    bytes
}

/// A line of a progress stream, which ends with carriage return and newline. Go's stream formatter escapes `<`, `>`
/// and `&` here (and only here); old golden outputs show it.
pub fn progress_line<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let text = serde_json::to_string(value).expect("wire types are plain data");
    let mut line = Vec::with_capacity(text.len() + 2);
    for byte in text.bytes() {
        match byte {
            b'<' => line.extend_from_slice(b"\\u003c"),
            b'>' => line.extend_from_slice(b"\\u003e"),
            b'&' => line.extend_from_slice(b"\\u0026"),
            other => line.push(other),
        }
    }
    line.extend_from_slice(b"\r\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProgressMessage;

    #[test]
    fn plain_answers_are_not_escaped() {
        assert_eq!(to_vec("a<b>&c"), b"\"a<b>&c\"\n");
    }

    #[test]
    fn progress_lines_are() {
        assert_eq!(progress_line(&ProgressMessage::stream(" ---> 1\n")), b"{\"stream\":\" ---\\u003e 1\\n\"}\r\n");
    }
}
