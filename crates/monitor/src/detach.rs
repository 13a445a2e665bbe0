//! Detach keys: a sequence in a terminal client's input that ends the attachment instead of reaching the container.
//!
//! As in the reference, keys of a partial match are held back until the next key decides, and a key that breaks a match is
//! not looked at again as the beginning of another.

/// ctrl-p, ctrl-q.
const DEFAULT: [u8; 2] = [16, 17];

/// Looks for the sequence in one client's input.
#[derive(Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

/// What the input contained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Detach,
}

impl DetachKeys {
    /// Empty = the default keys.
    pub fn new(keys: Vec<u8>) -> DetachKeys {
        DetachKeys { keys: if keys.is_empty() { DEFAULT.to_vec() } else { keys }, matched: 0 }
    }

    /// Appends to `out` what the container gets of `input`. After `Detach` the rest of the input is nobody's.
    pub fn filter(&mut self, input: &[u8], out: &mut Vec<u8>) -> Found {
        for &key in input {
            if key == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return Found::Detach;
                }
            } else {
                out.extend_from_slice(&self.keys[..std::mem::take(&mut self.matched)]);
                out.push(key);
            }
        }
        Found::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the container gets of the parts, `|` marking the detachment.
    fn filtered(keys: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut detach = DetachKeys::new(keys.to_vec());
        let mut out = Vec::new();
        for part in parts {
            if detach.filter(part, &mut out) == Found::Detach {
                out.push(b'|');
                break;
            }
        }
        out
    }

    #[test]
    fn found_in_one_piece_or_in_several() {
        assert_eq!(filtered(b"", &[b"ls\n\x10\x11more"]), b"ls\n|");
        assert_eq!(filtered(b"", &[b"a\x10", b"\x11"]), b"a|");
        assert_eq!(filtered(b"abc", &[b"xa", b"b", b"cz"]), b"x|");
        assert_eq!(filtered(b"q", &[b"xyq"]), b"xy|");
    }

    #[test]
    fn partial_matches_are_given_back() {
        assert_eq!(filtered(b"", &[b"\x10x"]), b"\x10x");
        assert_eq!(filtered(b"", &[b"\x10", b"\x10", b"\x11"]), b"\x10\x10\x11");
        assert_eq!(filtered(b"abc", &[b"ab", b"d"]), b"abd");
        assert_eq!(filtered(b"", &[b"x\x10"]), b"x");
    }
}
