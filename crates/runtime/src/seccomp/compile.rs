//! From resolved rules to one BPF program.
//!
//! What a program decides, in this order:
//! 1. An architecture that the filter does not list: the process's thread is killed.
//! 2. A system call newer than every one the rules name on that architecture: ENOSYS, so that C libraries fall back
//!    (unless the default action lets calls pass anyway).
//! 3. The first unconditional rule of that call; else the first rule whose conditions hold; else the default action.
//!
//! Rules with the default action are left out beforehand, names that an architecture does not have are ignored, and several
//! conditions on one argument are alternatives: all three as runc and libseccomp do it.

use std::collections::{BTreeMap, BTreeSet};

use super::MAX_INSTRUCTIONS;
use super::arch::{Arch, Syscall};
use super::bpf::{self, Block, Condition, Instruction, JEQ, JGE, JGT, Op, Seen};
use super::width;
use crate::oci::{Seccomp, SeccompArg, SeccompSyscall};

const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

/// `SECCOMP_RET_DATA`: what an action carries.
const MAX_DATA: u32 = 0xffff;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// Arguments of a system call.
const MAX_ARGS: u32 = 6;

/// What happens to one system call number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Decision {
    unconditional: Option<u32>,
    /// Tried in order when there is no unconditional action.
    conditional: Vec<(Vec<Condition>, u32)>,
}

/// The rules of one architecture by system call number.
#[derive(Debug)]
struct Section {
    arch: Arch,
    decisions: BTreeMap<u32, Decision>,
    /// The largest number that a rule names.
    last: Option<u32>,
}

pub(super) fn program(filter: &Seccomp, native: Arch) -> model::Result<Vec<Instruction>> {
    let default = action(&filter.default_action, filter.default_errno_ret)?;
    let mut sections = sections(&filter.architectures, native)?;
    for rule in &filter.syscalls {
        add_rule(&mut sections, rule, default)?;
    }
    let mut program = vec![bpf::load(bpf::ARCH)];
    program.extend(by_architecture(&sections, default));
    if program.len() > MAX_INSTRUCTIONS {
        return Err(model::Error::invalid(format!(
            "seccomp profile too large: {} instructions, the kernel accepts {MAX_INSTRUCTIONS}",
            program.len()
        )));
    }
    Ok(program)
}

/// The machine's own architecture is always part of a filter.
fn sections(names: &[String], native: Arch) -> model::Result<Vec<Section>> {
    let mut archs = vec![native];
    for name in names {
        let known = Arch::parse(name)
            .ok_or_else(|| model::Error::invalid(format!("string {name} is not a valid arch for seccomp")))?;
        archs.extend(known.filter(|a| !archs.contains(a)));
    }
    Ok(archs.into_iter().map(|arch| Section { arch, decisions: BTreeMap::new(), last: None }).collect())
}

fn add_rule(sections: &mut [Section], rule: &SeccompSyscall, default: u32) -> model::Result<()> {
    let action = action(&rule.action, rule.errno_ret)?;
    let alternatives = alternatives(&rule.args)?;
    for name in &rule.names {
        if name.is_empty() {
            return Err(model::Error::invalid("empty string is not a valid syscall"));
        }
        let Some(call) = Syscall::find(name) else { continue };
        for section in sections.iter_mut() {
            if let Some(number) = call.number(section.arch) {
                section.last = section.last.max(Some(number));
                if action != default {
                    section.add(number, &seen_by_kernel(name, section.arch, &alternatives), action);
                }
            }
            if let Some((number, code)) = call.multiplexed(section.arch).filter(|_| action != default) {
                let first = Condition { index: 0, op: Op::Eq, value: code, low_half: true };
                section.add(number, &Some(vec![vec![first]]), action);
            }
        }
    }
    Ok(())
}

/// The alternatives as the kernel takes the call's arguments on that architecture. One that can never hold is left out; an
/// empty conjunction always holds.
fn seen_by_kernel(call: &str, arch: Arch, alternatives: &[Vec<Condition>]) -> Option<Vec<Vec<Condition>>> {
    if alternatives.is_empty() {
        return None;
    }
    let narrow = |condition: &Condition| match (arch.is_32bit(), width::is_32bit(call, condition.index)) {
        (true, _) => Seen::Asks(Condition { low_half: true, ..*condition }),
        (false, true) => condition.of_low_half(),
        (false, false) => Seen::Asks(*condition),
    };
    let conjunction = |conditions: &Vec<Condition>| {
        let mut asked = Vec::with_capacity(conditions.len());
        for condition in conditions {
            match narrow(condition) {
                Seen::Asks(condition) => asked.push(condition),
                Seen::Always => {}
                Seen::Never => return None,
            }
        }
        Some(asked)
    };
    Some(alternatives.iter().filter_map(conjunction).collect())
}

impl Section {
    /// `alternatives` absent = unconditional.
    fn add(&mut self, number: u32, alternatives: &Option<Vec<Vec<Condition>>>, action: u32) {
        let decision = self.decisions.entry(number).or_default();
        match alternatives {
            None => {
                decision.unconditional.get_or_insert(action);
            }
            Some(all) => decision.conditional.extend(all.iter().map(|conditions| (conditions.clone(), action))),
        }
    }
}

/// One program for all architectures; the accumulator holds the architecture.
fn by_architecture(sections: &[Section], default: u32) -> Block {
    let audits: Vec<u32> = {
        let mut seen = BTreeSet::new();
        sections.iter().map(|s| s.arch.audit()).filter(|a| seen.insert(*a)).collect()
    };
    let mut rest = vec![bpf::ret(KILL_THREAD)];
    for audit in audits.into_iter().rev() {
        let mut machine = vec![bpf::load(bpf::NR)];
        machine.extend(by_mode(sections, audit, default));
        let mut block = Block::new();
        // The frequent architecture comes last in the program and first in the comparisons.
        bpf::branch(&mut block, JEQ, audit, &machine, &rest);
        rest = block;
    }
    rest
}

/// One kernel architecture; x86-64 splits by the x32 bit. The accumulator holds the system call number.
fn by_mode(sections: &[Section], audit: u32, default: u32) -> Block {
    let find = |arch: Arch| sections.iter().find(|s| s.arch == arch);
    if audit != Arch::X86_64.audit() {
        let section = sections.iter().find(|s| s.arch.audit() == audit).expect("audit comes from a section");
        return section.block(default);
    }
    // Number -1 is not an x32 call: tracers use it to skip a call.
    let mut foreign = Block::new();
    bpf::branch(&mut foreign, JEQ, u32::MAX, &[bpf::ret(default)], &[bpf::ret(KILL_THREAD)]);
    let x86_64 = find(Arch::X86_64).map_or_else(|| vec![bpf::ret(KILL_THREAD)], |s| s.block(default));
    let x32 = find(Arch::X32).map_or(foreign, |s| s.block(default));
    let mut block = Block::new();
    bpf::branch(&mut block, JGE, Arch::X32_BIT, &x32, &x86_64);
    block
}

impl Section {
    fn block(&self, default: u32) -> Block {
        let mut block = Block::new();
        let search = self.search(default);
        match self.last.filter(|_| !passes(default)) {
            Some(last) => bpf::branch(&mut block, JGT, last, &[bpf::ret(ERRNO | ENOSYS)], &search),
            None => block = search,
        }
        block
    }

    /// A balanced binary search over runs of numbers with the same decision.
    fn search(&self, default: u32) -> Block {
        let otherwise = Decision { unconditional: Some(default), conditional: Vec::new() };
        let mut runs: Vec<(u32, &Decision)> = vec![(0, &otherwise)];
        let mut next = 0;
        for (&number, decision) in &self.decisions {
            if number != next {
                push_run(&mut runs, next, &otherwise);
            }
            push_run(&mut runs, number, decision);
            next = number.wrapping_add(1);
        }
        push_run(&mut runs, next, &otherwise);
        search_runs(&runs, default)
    }
}

/// Starts a run at `start` unless the one before decides alike.
fn push_run<'a>(runs: &mut Vec<(u32, &'a Decision)>, start: u32, decision: &'a Decision) {
    let last = runs.last_mut().expect("there is a first run");
    if last.0 == start {
        *last = (start, decision);
        let count = runs.len();
        if count > 1 && runs[count - 2].1.same(decision) {
            runs.pop();
        }
    } else if !last.1.same(decision) {
        runs.push((start, decision));
    }
}

fn search_runs(runs: &[(u32, &Decision)], default: u32) -> Block {
    if let [(_, decision)] = runs {
        return decision.block(default);
    }
    let (low, high) = runs.split_at(runs.len() / 2);
    let mut block = Block::new();
    bpf::branch(&mut block, JGE, high[0].0, &search_runs(high, default), &search_runs(low, default));
    block
}

impl Decision {
    fn same(&self, other: &Decision) -> bool {
        match (self.unconditional, other.unconditional) {
            (Some(a), Some(b)) => a == b,
            (None, None) => self.conditional == other.conditional,
            _ => false,
        }
    }

    fn block(&self, default: u32) -> Block {
        let mut block = Block::new();
        if self.unconditional.is_none() {
            for (conditions, action) in &self.conditional {
                bpf::guarded(&mut block, conditions, *action);
            }
        }
        block.push(bpf::ret(self.unconditional.unwrap_or(default)));
        block
    }
}

/// Default actions under which an unknown call must keep reaching the kernel (or its tracer).
fn passes(default: u32) -> bool {
    matches!(default & 0xffff_0000, ALLOW | LOG | TRACE)
}

fn action(name: &str, data: Option<u32>) -> model::Result<u32> {
    let data = data.unwrap_or(EPERM);
    if data > MAX_DATA {
        return Err(model::Error::invalid(format!("seccomp: {data} is no errno, the kernel takes 0 to {MAX_DATA}")));
    }
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => TRAP,
        "SCMP_ACT_ERRNO" => ERRNO | data,
        "SCMP_ACT_TRACE" => TRACE | data,
        "SCMP_ACT_LOG" => LOG,
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_NOTIFY" => {
            return Err(model::Error::not_implemented("SCMP_ACT_NOTIFY needs an external runtime"));
        }
        other => return Err(model::Error::invalid(format!("string {other} is not a valid action for seccomp"))),
    })
}

/// The rule's conditions; each element is one conjunction. Several conditions on one argument turn all into alternatives.
fn alternatives(args: &[SeccompArg]) -> model::Result<Vec<Vec<Condition>>> {
    let conditions = args.iter().map(condition).collect::<model::Result<Vec<_>>>()?;
    let distinct = conditions.iter().map(|c| c.index).collect::<BTreeSet<_>>().len();
    Ok(match conditions.len() {
        0 => Vec::new(),
        n if n == distinct => vec![conditions],
        _ => conditions.into_iter().map(|c| vec![c]).collect(),
    })
}

fn condition(arg: &SeccompArg) -> model::Result<Condition> {
    if arg.index >= MAX_ARGS {
        return Err(model::Error::invalid(format!("seccomp: a syscall has no argument {}", arg.index)));
    }
    let (op, value) = match arg.op.as_str() {
        "SCMP_CMP_EQ" => (Op::Eq, arg.value),
        "SCMP_CMP_NE" => (Op::Ne, arg.value),
        "SCMP_CMP_LT" => (Op::Lt, arg.value),
        "SCMP_CMP_LE" => (Op::Le, arg.value),
        "SCMP_CMP_GT" => (Op::Gt, arg.value),
        "SCMP_CMP_GE" => (Op::Ge, arg.value),
        "SCMP_CMP_MASKED_EQ" => (Op::Masked(arg.value), arg.value_two),
        other => return Err(model::Error::invalid(format!("string {other} is not a valid operator for seccomp"))),
    };
    Ok(Condition { index: arg.index, op, value, low_half: false })
}
