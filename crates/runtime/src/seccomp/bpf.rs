//! Classic BPF, as far as system call filters need it: building blocks whose jumps always land.
//!
//! Programs are put together from the end: a block is complete in itself and every path through it ends in a `ret`, or, for
//! conditions, leaves at its end. Jumps longer than 255 instructions go through an unconditional one.

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

pub(super) const LD_W_ABS: u16 = 0x20;
pub(super) const AND_K: u16 = 0x54;
pub(super) const JA: u16 = 0x05;
pub(super) const JEQ: u16 = 0x15;
pub(super) const JGT: u16 = 0x25;
pub(super) const JGE: u16 = 0x35;
pub(super) const RET_K: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
pub(super) const NR: u32 = 0;
pub(super) const ARCH: u32 = 4;
const ARGS: u32 = 16;

pub(super) type Block = Vec<Instruction>;

pub(super) fn load(offset: u32) -> Instruction {
    Instruction { code: LD_W_ABS, jt: 0, jf: 0, k: offset }
}

pub(super) fn ret(action: u32) -> Instruction {
    Instruction { code: RET_K, jt: 0, jf: 0, k: action }
}

/// `if A <test> k then yes else no`; both blocks must end in `ret` on every path. `no` comes first.
pub(super) fn branch(out: &mut Block, test: u16, k: u32, yes: &[Instruction], no: &[Instruction]) {
    match u8::try_from(no.len()) {
        Ok(jt) => out.push(Instruction { code: test, jt, jf: 0, k }),
        Err(_) => {
            out.push(Instruction { code: test, jt: 0, jf: 1, k });
            out.push(Instruction { code: JA, jt: 0, jf: 0, k: no.len() as u32 });
        }
    }
    out.extend_from_slice(no);
    out.extend_from_slice(yes);
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// `arg & mask == value`
    Masked(u64),
}

/// A comparison of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0..=5
    pub index: u32,
    pub op: Op,
    pub value: u64,
    /// Only the low half of the argument counts.
    pub low_half: bool,
}

/// What is left of a condition when the kernel sees the low half of the argument only.
pub(super) enum Seen {
    Asks(Condition),
    Always,
    Never,
}

impl Condition {
    /// The condition on a 32-bit argument. A value that is a negative 32-bit number stands for its low half; no argument
    /// equals or exceeds another one that does not fit.
    pub(super) fn of_low_half(&self) -> Seen {
        let wanted = match self.op {
            Op::Masked(mask) => self.value & (mask | u64::from(u32::MAX)),
            _ => self.value,
        };
        let is_negative = i64::from(wanted as u32 as i32) as u64 == self.value;
        match self.op {
            _ if wanted <= u64::from(u32::MAX) || is_negative => Seen::Asks(Condition { low_half: true, ..*self }),
            Op::Eq | Op::Gt | Op::Ge | Op::Masked(_) => Seen::Never,
            Op::Ne | Op::Lt | Op::Le => Seen::Always,
        }
    }
}

/// Where a comparison goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Next,
    /// The condition holds.
    Holds,
    /// It does not.
    Fails,
}

struct Step {
    code: u16,
    k: u32,
    yes: To,
    no: To,
}

impl Condition {
    /// Loads and jumps in order; the last step never says `Next`.
    fn steps(&self) -> Vec<Step> {
        let low_at = ARGS + 8 * self.index;
        let high_at = low_at + 4;
        let (high, low) = ((self.value >> 32) as u32, self.value as u32);
        let (high_mask, low_mask) = match self.op {
            Op::Masked(mask) => ((mask >> 32) as u32, mask as u32),
            _ => (u32::MAX, u32::MAX),
        };
        let mut steps = Vec::with_capacity(6);
        if !self.low_half {
            Self::load_masked(&mut steps, high_at, high_mask);
            self.high_tests(&mut steps, high & high_mask);
        }
        Self::load_masked(&mut steps, low_at, low_mask);
        let (code, inverted) = match self.op {
            Op::Eq | Op::Masked(_) => (JEQ, false),
            Op::Ne => (JEQ, true),
            Op::Gt => (JGT, false),
            Op::Le => (JGT, true),
            Op::Ge => (JGE, false),
            Op::Lt => (JGE, true),
        };
        let (yes, no) = if inverted { (To::Fails, To::Holds) } else { (To::Holds, To::Fails) };
        steps.push(Step { code, k: low & low_mask, yes, no });
        steps
    }

    fn load_masked(steps: &mut Vec<Step>, offset: u32, mask: u32) {
        steps.push(Step { code: LD_W_ABS, k: offset, yes: To::Next, no: To::Next });
        if mask != u32::MAX {
            steps.push(Step { code: AND_K, k: mask, yes: To::Next, no: To::Next });
        }
    }

    /// What the high half decides alone; `Next` = the low half decides.
    fn high_tests(&self, steps: &mut Vec<Step>, high: u32) {
        match self.op {
            Op::Eq | Op::Masked(_) => steps.push(Step { code: JEQ, k: high, yes: To::Next, no: To::Fails }),
            Op::Ne => steps.push(Step { code: JEQ, k: high, yes: To::Next, no: To::Holds }),
            Op::Gt | Op::Ge => {
                steps.push(Step { code: JGT, k: high, yes: To::Holds, no: To::Next });
                steps.push(Step { code: JEQ, k: high, yes: To::Next, no: To::Fails });
            }
            Op::Lt | Op::Le => {
                steps.push(Step { code: JGT, k: high, yes: To::Fails, no: To::Next });
                steps.push(Step { code: JEQ, k: high, yes: To::Next, no: To::Holds });
            }
        }
    }
}

/// `ret action` if all conditions hold; otherwise goes on behind the block. At most 6 × 6 + 1 instructions, so every jump is
/// a short one.
pub(super) fn guarded(out: &mut Block, conditions: &[Condition], action: u32) {
    let steps: Vec<Vec<Step>> = conditions.iter().map(Condition::steps).collect();
    let end = out.len() + steps.iter().map(Vec::len).sum::<usize>() + 1;
    for condition in &steps {
        let next = out.len() + condition.len();
        for step in condition {
            let at = out.len() + 1;
            let jump = |to: To| match to {
                To::Next => 0,
                To::Holds => (next - at) as u8,
                To::Fails => (end - at) as u8,
            };
            out.push(Instruction { code: step.code, jt: jump(step.yes), jf: jump(step.no), k: step.k });
        }
    }
    out.push(ret(action));
}

/// The bytes that the kernel takes.
pub(super) fn encode(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for i in program {
        bytes.extend_from_slice(&i.code.to_ne_bytes());
        bytes.extend_from_slice(&[i.jt, i.jf]);
        bytes.extend_from_slice(&i.k.to_ne_bytes());
    }
    bytes
}
