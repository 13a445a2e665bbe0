//! The device list: lines for v1's `devices` controller, a BPF program for v2.
//!
//! Rules apply in order, a later one overrides an earlier one. On v2 the program tests them last to first and the first
//! that matches decides; what no rule mentions is refused, as after v1's `deny a`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::Cgroup;
use crate::bpf::{
    self, AND_32, EXIT, Insn, JUMP_NOT_EQUAL, JUMP_NOT_EQUAL_REGISTER, LOAD_WORD, MOVE, MOVE_REGISTER, SHIFT_RIGHT_32,
    insn,
};

/// Which devices a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    All,
    Block,
    Char,
}

/// Allows or denies access to devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    pub allow: bool,
    pub kind: DeviceKind,
    /// `None` = every number.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Letters of `rwm`; empty = all three.
    pub access: String,
}

impl DeviceRule {
    /// `c 1:3 rwm`, as `devices.allow` and `devices.deny` take it.
    fn line(&self) -> String {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let access = if self.access.is_empty() { "rwm" } else { &self.access };
        match self.kind {
            DeviceKind::All => "a".to_owned(),
            DeviceKind::Block => format!("b {}:{} {access}", number(self.major), number(self.minor)),
            DeviceKind::Char => format!("c {}:{} {access}", number(self.major), number(self.minor)),
        }
    }
}

impl Cgroup {
    /// Restricts devices to `rules`; no rules = no restriction.
    pub fn set_devices(&self, rules: &[DeviceRule]) -> io::Result<()> {
        if rules.is_empty() {
            return Ok(());
        }
        if let Some(dir) = self.controller("devices") {
            use std::io::Write;
            let open = |name| std::fs::File::options().write(true).open(dir.path.join(name));
            let (mut allow, mut deny) = (open("devices.allow")?, open("devices.deny")?);
            for rule in rules {
                let file = if rule.allow { &mut allow } else { &mut deny };
                file.write_all(rule.line().as_bytes())
                    .map_err(|e| io::Error::new(e.kind(), format!("device rule {:?}: {e}", rule.line())))?;
            }
            return Ok(());
        }
        let Some(fd) = self.birthplace()? else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the devices cgroup controller is not available"));
        };
        bpf_attach(&fd, &bpf::load(PROG_TYPE_CGROUP_DEVICE, ATTACH_CGROUP_DEVICE, &program(rules))?)
    }
}

// Registers: r1 context, r2 device kind, r3 access wanted, r4 major, r5 minor, r6 scratch.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

/// `struct bpf_cgroup_dev_ctx { access_type = access << 16 | kind, major, minor }` → 1 allowed, 0 refused.
fn program(rules: &[DeviceRule]) -> Vec<Insn> {
    let mut out = vec![
        insn(LOAD_WORD, 0x12, 0, 0),
        insn(AND_32, 0x02, 0, 0xffff),
        insn(LOAD_WORD, 0x13, 0, 0),
        insn(SHIFT_RIGHT_32, 0x03, 0, 16),
        insn(LOAD_WORD, 0x14, 4, 0),
        insn(LOAD_WORD, 0x15, 8, 0),
    ];
    for rule in rules.iter().rev() {
        block(rule, &mut out);
        if rule.kind == DeviceKind::All {
            return out;
        }
    }
    out.extend([insn(MOVE, 0, 0, 0), insn(EXIT, 0, 0, 0)]);
    out
}

/// Tests one rule; falls through to the next if it does not match.
fn block(rule: &DeviceRule, out: &mut Vec<Insn>) {
    let verdict = [insn(MOVE, 0, 0, i32::from(rule.allow)), insn(EXIT, 0, 0, 0)];
    if rule.kind == DeviceKind::All {
        out.extend(verdict);
        return;
    }
    let mut tests = vec![insn(JUMP_NOT_EQUAL, 2, 0, if rule.kind == DeviceKind::Block { BLOCK } else { CHAR })];
    let mask = access_mask(&rule.access);
    if mask != 7 {
        tests.extend([insn(MOVE_REGISTER, 0x36, 0, 0), insn(AND_32, 6, 0, mask)]);
        // An allow rule must cover all that is wanted; a deny rule hits if it covers the whole request, too, as in v1.
        tests.push(insn(JUMP_NOT_EQUAL_REGISTER, 0x36, 0, 0));
    }
    let number = |register, n: u32| insn(JUMP_NOT_EQUAL, register, 0, n as i32);
    tests.extend(rule.major.map(|n| number(4, n)));
    tests.extend(rule.minor.map(|n| number(5, n)));
    let length = tests.len() + verdict.len();
    for (at, test) in tests.iter_mut().enumerate() {
        if matches!(test.code, JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER) {
            test.offset = (length - at - 1) as i16;
        }
    }
    out.extend(tests);
    out.extend(verdict);
}

/// `BPF_DEVCG_ACC_*`.
fn access_mask(letters: &str) -> i32 {
    let bit = |letter, bit| if letters.contains(letter) { bit } else { 0 };
    if letters.is_empty() { 7 } else { bit('m', 1) | bit('r', 2) | bit('w', 4) }
}

const PROG_ATTACH: i32 = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// The head of `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

fn bpf_attach(cgroup: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    let attr = AttachAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
    };
    bpf::bpf(PROG_ATTACH, &attr).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: &str) -> DeviceRule {
        DeviceRule { allow, kind, major, minor, access: access.into() }
    }

    #[test]
    fn lines() {
        assert_eq!(rule(false, DeviceKind::All, None, None, "rwm").line(), "a");
        assert_eq!(rule(true, DeviceKind::Char, Some(136), None, "rw").line(), "c 136:* rw");
        assert_eq!(rule(true, DeviceKind::Block, None, None, "m").line(), "b *:* m");
    }

    /// Interprets the few instructions that are used.
    fn run(program: &[Insn], kind: i32, access: i32, major: i64, minor: i64) -> i64 {
        let mut r = [0_i64; 8];
        let mut at = 0;
        loop {
            let i = program[at];
            let (dst, src) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            at += 1;
            match i.code {
                LOAD_WORD => r[dst] = [i64::from(access << 16 | kind), major, minor][i.offset as usize / 4],
                MOVE_REGISTER => r[dst] = r[src],
                MOVE => r[dst] = i64::from(i.immediate),
                AND_32 => r[dst] &= i64::from(i.immediate),
                SHIFT_RIGHT_32 => r[dst] >>= i.immediate,
                JUMP_NOT_EQUAL if r[dst] != i64::from(i.immediate) => at += i.offset as usize,
                JUMP_NOT_EQUAL_REGISTER if r[dst] != r[src] => at += i.offset as usize,
                JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER => {}
                EXIT => return r[0],
                code => panic!("{code:#x}"),
            }
        }
    }

    #[test]
    fn the_last_matching_rule_decides() {
        let rules = [
            rule(false, DeviceKind::All, None, None, "rwm"),
            rule(true, DeviceKind::Char, None, None, "m"),
            rule(true, DeviceKind::Char, Some(1), Some(3), "rwm"),
            rule(true, DeviceKind::Block, Some(8), None, "r"),
            rule(false, DeviceKind::Char, Some(10), Some(229), "rwm"),
        ];
        let p = program(&rules);
        let (m, r, w) = (1, 2, 4);
        assert_eq!(run(&p, CHAR, r | w, 1, 3), 1);
        assert_eq!(run(&p, CHAR, m, 77, 7), 1);
        assert_eq!(run(&p, CHAR, r, 77, 7), 0);
        assert_eq!(run(&p, BLOCK, r, 8, 1), 1);
        assert_eq!(run(&p, BLOCK, r | w, 8, 1), 0);
        assert_eq!(run(&p, CHAR, m, 10, 229), 0);
        assert_eq!(run(&program(&rules[1..2]), CHAR, r, 1, 1), 0);
    }
}
