//! Modes that a build asks for: numbers, and the symbolic form of chmod(1) (`u=rwX,go-w`).

use model::{Error, Result};

/// A change of modes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModeChange {
    /// These permissions.
    To(u32),
    /// By clauses, in order.
    By(Vec<Clause>),
}

/// One clause: whose, what happens, which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The bits of those that it speaks of (`u` 0o4700, `g` 0o2070, `o` 0o1007).
    who: u32,
    operator: u8,
    /// For all three.
    bits: u32,
    /// `X`: execution, for directories and what somebody may execute.
    execute_if: bool,
    /// `s`
    set_id: bool,
    /// `t`
    sticky: bool,
}

impl ModeChange {
    /// Reads an octal number or clauses.
    ///
    /// Errors: `InvalidParameter` for what is neither.
    pub fn parse(text: &str) -> Result<ModeChange> {
        let refused = || {
            Error::invalid(format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
            ))
        };
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = u32::from_str_radix(text, 8).ok().filter(|number| *number <= 0o7777);
            return number.map(ModeChange::To).ok_or_else(refused);
        }
        let clauses = text.split(',').map(|part| clauses(part).ok_or_else(refused)).collect::<Result<Vec<_>>>()?;
        Ok(ModeChange::By(clauses.into_iter().flatten().collect()))
    }

    /// The mode that it makes of another.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            ModeChange::To(mode) => *mode,
            ModeChange::By(clauses) => clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_dir)),
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let mut bits = self.bits;
        if self.execute_if && (is_dir || mode & 0o111 != 0) {
            bits |= 0o111;
        }
        let mut wanted = bits & self.who & 0o777;
        if self.set_id {
            wanted |= self.who & 0o6000;
        }
        if self.sticky {
            wanted |= 0o1000;
        }
        match self.operator {
            b'+' => mode | wanted,
            b'-' => mode & !wanted,
            _ => (mode & !(self.who & 0o777)) | wanted,
        }
    }
}

/// `ug+rw-x`: those it speaks of, then one or more changes.
fn clauses(text: &str) -> Option<Vec<Clause>> {
    let end = text.find(['+', '-', '='])?;
    let (whose, mut rest) = text.split_at(end);
    let mut who = 0;
    for letter in whose.bytes() {
        who |= match letter {
            b'u' => 0o4700,
            b'g' => 0o2070,
            b'o' => 0o1007,
            b'a' => 0o7777,
            _ => return None,
        };
    }
    if whose.is_empty() {
        who = 0o7777;
    }
    let mut found = Vec::new();
    while let Some(operator) = rest.bytes().next() {
        rest = &rest[1..];
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        let (letters, next) = rest.split_at(end);
        let mut clause = Clause { who, operator, bits: 0, execute_if: false, set_id: false, sticky: false };
        for letter in letters.bytes() {
            match letter {
                b'r' => clause.bits |= 0o444,
                b'w' => clause.bits |= 0o222,
                b'x' => clause.bits |= 0o111,
                b'X' => clause.execute_if = true,
                b's' => clause.set_id = true,
                b't' => clause.sticky = true,
                _ => return None,
            }
        }
        found.push(clause);
        rest = next;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_changed() {
        for (text, mode, is_dir, expected) in [
            ("755", 0o600, false, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("a+x", 0o644, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("go-rwx", 0o777, false, 0o700),
            ("u+s", 0o755, false, 0o4755),
            ("u+r-w", 0o200, false, 0o400),
        ] {
            assert_eq!(ModeChange::parse(text).unwrap().apply(mode, is_dir), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in ["", "abc", "99", "17777", "u+q", "z=r"] {
            assert!(ModeChange::parse(text).is_err(), "{text}");
        }
    }
}
