//! Compiled programs, run by a BPF interpreter, against a model that applies the rules without compiling them.

use proptest::prelude::*;

use super::arch::Syscall;
use super::bpf::Instruction;
use super::table::SYSCALLS;
use super::*;
use crate::oci::{Seccomp, SeccompArg, SeccompSyscall};

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const DENY: u32 = ERRNO | 1;
const NO_CALL: u32 = ERRNO | 38;
const KILL: u32 = 0;

/// `struct seccomp_data`, without the instruction pointer.
#[derive(Clone, Copy, Debug)]
struct Call {
    nr: u32,
    arch: u32,
    args: [u64; 6],
}

fn call(arch: u32, nr: u32, args: &[u64]) -> Call {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    Call { nr, arch, args: all }
}

fn run(program: &[Instruction], call: &Call) -> u32 {
    let word = |offset: u32| match offset {
        0 => call.nr,
        4 => call.arch,
        o => {
            let arg = call.args[(o as usize - 16) / 8];
            if o % 8 == 0 { arg as u32 } else { (arg >> 32) as u32 }
        }
    };
    let (mut pc, mut a) = (0, 0);
    loop {
        let i = program[pc];
        pc += 1;
        let taken = match i.code {
            0x20 => {
                a = word(i.k);
                continue;
            }
            0x54 => {
                a &= i.k;
                continue;
            }
            0x05 => {
                pc += i.k as usize;
                continue;
            }
            0x06 => return i.k,
            0x15 => a == i.k,
            0x25 => a > i.k,
            0x35 => a >= i.k,
            other => panic!("instruction {other:#x}"),
        };
        pc += usize::from(if taken { i.jt } else { i.jf });
    }
}

/// What the kernel's own check demands.
fn verify(program: &[Instruction]) {
    assert!(program.len() <= MAX_INSTRUCTIONS);
    for (at, i) in program.iter().enumerate() {
        let next = at + 1;
        match i.code {
            0x05 => assert!(next + (i.k as usize) < program.len()),
            0x15 | 0x25 | 0x35 => assert!(next + usize::from(i.jt.max(i.jf)) < program.len()),
            0x20 => assert!(i.k % 4 == 0 && i.k < 64),
            _ => {}
        }
    }
    assert_eq!(program.last().unwrap().code, 0x06);
}

fn action_bits(name: &str, errno: Option<u32>) -> u32 {
    match name {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_ERRNO" => ERRNO | errno.unwrap_or(1),
        "SCMP_ACT_KILL" => KILL,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | errno.unwrap_or(1),
        "SCMP_ACT_TRAP" => 0x0003_0000,
        other => panic!("{other}"),
    }
}

fn holds(arg: &SeccompArg, args: &[u64; 6], arch: Arch, call: &str) -> bool {
    let wide = matches!(arch, Arch::X86_64 | Arch::Aarch64);
    if wide && super::width::is_32bit(call, arg.index) {
        return holds_for_int(arg, args[arg.index as usize] as u32);
    }
    let low = |v: u64| if wide { v } else { v & 0xffff_ffff };
    let (a, v) = (low(args[arg.index as usize]), low(arg.value));
    match arg.op.as_str() {
        "SCMP_CMP_EQ" => a == v,
        "SCMP_CMP_NE" => a != v,
        "SCMP_CMP_LT" => a < v,
        "SCMP_CMP_LE" => a <= v,
        "SCMP_CMP_GT" => a > v,
        "SCMP_CMP_GE" => a >= v,
        "SCMP_CMP_MASKED_EQ" => a & v == low(arg.value_two) & v,
        other => panic!("{other}"),
    }
}

/// What the kernel takes, against values that may be negative numbers of 32 or of 64 bits.
fn holds_for_int(arg: &SeccompArg, seen: u32) -> bool {
    let value = |v: u64| if (v as i64) < 0 && v as i64 >= i64::from(i32::MIN) { v & 0xffff_ffff } else { v };
    let (a, v) = (u64::from(seen), value(arg.value));
    match arg.op.as_str() {
        "SCMP_CMP_EQ" => a == v,
        "SCMP_CMP_NE" => a != v,
        "SCMP_CMP_LT" => a < v,
        "SCMP_CMP_LE" => a <= v,
        "SCMP_CMP_GT" => a > v,
        "SCMP_CMP_GE" => a >= v,
        "SCMP_CMP_MASKED_EQ" => {
            let fits = arg.value & arg.value_two <= 0xffff_ffff || value(arg.value_two) != arg.value_two;
            fits && (a ^ arg.value_two) & arg.value & 0xffff_ffff == 0
        }
        other => panic!("{other}"),
    }
}

/// The reference's semantics, rule by rule.
fn model(filter: &Seccomp, call: &Call) -> u32 {
    let default = action_bits(&filter.default_action, filter.default_errno_ret);
    let listed = |a: Arch| a == Arch::X86_64 || filter.architectures.iter().any(|n| n == a.name());
    let arch = match call.arch {
        X86_64 if call.nr & 0x4000_0000 == 0 && call.nr < 0x8000_0000 => Arch::X86_64,
        X86_64 if listed(Arch::X32) => Arch::X32,
        X86_64 if call.nr == u32::MAX => return default,
        I386 if listed(Arch::X86) => Arch::X86,
        _ => return KILL,
    };
    let mut last = None;
    let (mut unconditional, mut conditional) = (None, None);
    for rule in &filter.syscalls {
        let action = action_bits(&rule.action, rule.errno_ret);
        for name in &rule.names {
            let Some(syscall) = Syscall::find(name) else { continue };
            let number = syscall.number(arch);
            last = last.max(number);
            if action == default {
                continue;
            }
            if number == Some(call.nr) {
                let distinct = (0..6).all(|i| rule.args.iter().filter(|a| a.index == i).count() < 2);
                let mut each = rule.args.iter().map(|a| holds(a, &call.args, arch, name));
                let matches = if distinct { each.all(|m| m) } else { each.any(|m| m) };
                if rule.args.is_empty() {
                    unconditional.get_or_insert(action);
                } else if matches {
                    conditional.get_or_insert(action);
                }
            }
            if let Some((mux, code)) = syscall.multiplexed(arch)
                && mux == call.nr
                && call.args[0] as u32 == code as u32
            {
                conditional.get_or_insert(action);
            }
        }
    }
    let passes = matches!(default & 0xffff_0000, ALLOW | 0x7ffc_0000 | 0x7ff0_0000);
    if !passes && last.is_some_and(|l| call.nr > l) {
        return NO_CALL;
    }
    unconditional.or(conditional).unwrap_or(default)
}

/// Every number in every mode; for those that conditional rules name also arguments at every boundary that rules mention.
fn compare(filter: &Seccomp, program: &[Instruction]) {
    let mut values = vec![0, 1, u64::MAX, 0xffff_ffff, 1 << 32, 0xffff_ffff_8000_0000];
    // socketcall and ipc look at their first argument.
    let mut conditional = vec![102, 117];
    for rule in filter.syscalls.iter().filter(|r| !r.args.is_empty()) {
        let calls = rule.names.iter().filter_map(|n| Syscall::find(n));
        conditional.extend(calls.flat_map(|c| [Arch::X86_64, Arch::X32, Arch::X86].map(|a| c.number(a))).flatten());
        for arg in &rule.args {
            let of = [arg.value, arg.value_two, arg.value << 32, arg.value | 1 << 40, arg.value | 1 << 32];
            values.extend(of.iter().flat_map(|v| [v.wrapping_sub(1), *v, v.wrapping_add(1)]));
        }
    }
    values.sort_unstable();
    values.dedup();
    let numbers = (0..500).chain(0x4000_0000..0x4000_0258).chain([0x3fff_ffff, 0x8000_0000, 0xffff_fffe, u32::MAX]);
    for nr in numbers {
        let tried = if conditional.contains(&nr) { values.len() } else { 1 };
        for arch in [X86_64, I386] {
            for (at, value) in values.iter().enumerate().take(tried) {
                let mut args = [*value; 6];
                // Not all arguments alike.
                args[at % 6] = values[(at * 7 + 3) % values.len()];
                let call = Call { nr, arch, args };
                assert_eq!(run(program, &call), model(filter, &call), "{call:x?}");
            }
        }
    }
    assert_eq!(run(program, &call(0xc000_00b7, 0, &[])), KILL);
}

fn container(capabilities: &[&str]) -> Seccomp {
    let capabilities: Vec<_> = capabilities.iter().map(|c| (*c).to_owned()).collect();
    resolve(&default_profile(), &capabilities, Arch::X86_64, (6, 1)).unwrap()
}

fn compiled(filter: &Seccomp) -> Vec<Instruction> {
    let program = compile::program(filter, Arch::X86_64).unwrap();
    verify(&program);
    program
}

#[test]
fn default_profile_decides_as_the_model() {
    for capabilities in [&[][..], &["CAP_SYS_ADMIN"], &["CAP_SYS_CHROOT", "CAP_SYSLOG", "CAP_SYS_PTRACE"]] {
        let filter = container(capabilities);
        compare(&filter, &compiled(&filter));
    }
}

#[test]
fn default_profile_in_a_container() {
    let program = compiled(&container(&["CAP_CHOWN", "CAP_SYS_CHROOT"]));
    let decide = |nr, args: &[u64]| run(&program, &call(X86_64, nr, args));
    let (read, socket, clone, ptrace, personality, mount, chroot, clone3, keyctl) =
        (0, 41, 56, 101, 135, 165, 161, 435, 250);
    assert_eq!(decide(read, &[]), ALLOW);
    assert_eq!(decide(ptrace, &[]), ALLOW);
    assert_eq!(decide(chroot, &[]), ALLOW);
    assert_eq!(decide(mount, &[]), DENY);
    assert_eq!(decide(keyctl, &[]), DENY);
    assert_eq!(decide(clone3, &[]), NO_CALL);
    assert_eq!(decide(clone, &[0x11]), ALLOW);
    assert_eq!(decide(clone, &[0x1000_0011]), DENY);
    assert_eq!([2, 38, 39, 40, 44].map(|family| decide(socket, &[family])), [ALLOW, DENY, ALLOW, DENY, ALLOW]);
    assert_eq!([0, 1, 8, 0xffff_ffff].map(|p| decide(personality, &[p])), [ALLOW, DENY, ALLOW, ALLOW]);
    // Newer than the profile.
    assert_eq!(decide(700, &[]), NO_CALL);
    assert_eq!(run(&program, &call(0xc000_00b7, 0, &[])), KILL);
    // i386: read is 3; socketcall is open, whatever it carries.
    assert_eq!(run(&program, &call(I386, 3, &[])), ALLOW);
    assert_eq!(run(&program, &call(I386, 102, &[1])), ALLOW);
}

#[test]
fn admin_may_make_namespaces_and_old_kernels_no_ptrace() {
    let program = compiled(&container(&["CAP_SYS_ADMIN"]));
    for nr in [56, 165, 272, 308, 435] {
        assert_eq!(run(&program, &call(X86_64, nr, &[0x1000_0011])), ALLOW, "{nr}");
    }
    let old = resolve(&default_profile(), &[], Arch::X86_64, (4, 4)).unwrap();
    assert_eq!(run(&compiled(&old), &call(X86_64, 101, &[])), DENY);
}

#[test]
fn aarch64_and_arm() {
    let filter = resolve(&default_profile(), &[], Arch::Aarch64, (6, 1)).unwrap();
    assert_eq!(filter.architectures, ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]);
    let program = compile::program(&filter, Arch::Aarch64).unwrap();
    verify(&program);
    // read: 63 and 3; mount: 40 and 21; set_tls.
    assert_eq!(run(&program, &call(0xc000_00b7, 63, &[])), ALLOW);
    assert_eq!(run(&program, &call(0xc000_00b7, 40, &[])), DENY);
    assert_eq!(run(&program, &call(0x4000_0028, 3, &[])), ALLOW);
    assert_eq!(run(&program, &call(0x4000_0028, 21, &[])), DENY);
    assert_eq!(run(&program, &call(0x4000_0028, 983_045, &[])), ALLOW);
    assert_eq!(run(&program, &call(X86_64, 0, &[])), KILL);
}

/// Any rule that depends on a call's arguments keeps the kernel from remembering its decision for that number; all others
/// must be decided by number and architecture alone. Few comparisons keep the rest cheap.
#[test]
fn default_program_is_small_and_shallow() {
    let program = compiled(&container(&[]));
    assert!(program.len() < 700, "{}", program.len());
    assert!(compile(&container(&[]), Arch::X86_64).unwrap().instructions.len() == program.len() * 8);
}

#[test]
fn rules_that_are_no_rules() {
    let bad = |change: &dyn Fn(&mut Seccomp)| {
        let mut filter = container(&[]);
        change(&mut filter);
        compile(&filter, Arch::X86_64).unwrap_err().to_string()
    };
    assert_eq!(bad(&|f| f.default_action = "X".into()), "string X is not a valid action for seccomp");
    assert_eq!(bad(&|f| f.architectures = vec!["X".into()]), "string X is not a valid arch for seccomp");
    assert_eq!(
        bad(&|f| f.syscalls[0].args = vec![SeccompArg { op: "X".into(), ..Default::default() }]),
        "string X is not a valid operator for seccomp"
    );
    let op = || "SCMP_CMP_EQ".to_owned();
    assert!(bad(&|f| f.syscalls[0].args = vec![SeccompArg { index: 6, op: op(), ..Default::default() }]).contains('6'));
    assert!(bad(&|f| f.syscalls[0].action = "SCMP_ACT_NOTIFY".into()).contains("SCMP_ACT_NOTIFY"));
}

#[test]
fn too_many_rules() {
    let rule = |value| SeccompSyscall {
        names: vec!["mprotect".into()],
        action: "SCMP_ACT_ALLOW".into(),
        args: vec![SeccompArg { value, op: "SCMP_CMP_EQ".into(), ..Default::default() }],
        ..Default::default()
    };
    let filter = Seccomp {
        default_action: "SCMP_ACT_ERRNO".into(),
        syscalls: (0..1000).map(rule).collect(),
        ..Default::default()
    };
    assert!(compile(&filter, Arch::X86_64).unwrap_err().to_string().contains("too large"));
}

/// A decision may be hundreds of instructions long; jumps over it must not wrap.
#[test]
fn long_blocks_are_jumped_over() {
    let mut filter = container(&[]);
    for value in 0..80 {
        for name in ["keyctl", "add_key", "mount"] {
            filter.syscalls.push(SeccompSyscall {
                names: vec![name.into()],
                action: "SCMP_ACT_ALLOW".into(),
                args: vec![SeccompArg { value: value << 30, op: "SCMP_CMP_EQ".into(), ..Default::default() }],
                ..Default::default()
            });
        }
    }
    let program = compiled(&filter);
    for nr in 0..600 {
        for value in [0, 1, 79 << 30, 80 << 30] {
            for arch in [X86_64, I386] {
                let call = call(arch, nr, &[value]);
                assert_eq!(run(&program, &call), model(&filter, &call), "{call:x?}");
            }
        }
    }
}

#[test]
fn profile_texts() {
    let parse = |text: &str| resolve(&Profile::parse(text.as_bytes()).unwrap(), &[], Arch::X86_64, (6, 1));
    assert_eq!(
        parse(r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":null}],"syscalls":null}"#)
            .unwrap_err()
            .to_string(),
        "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'"
    );
    assert_eq!(
        parse(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ERRNO"}]}"#
        )
        .unwrap_err()
        .to_string(),
        "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
    );
    let old = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO","args":null,
        "comment":"x","includes":{"minKernel":"4.8"},"excludes":{}}]}"#;
    let filter = parse(old).unwrap();
    let program = compile::program(&filter, Arch::X86_64).unwrap();
    assert_eq!([82, 83, 84, 900].map(|nr| run(&program, &call(X86_64, nr, &[]))), [ALLOW, DENY, ALLOW, ALLOW]);
    for bad in ["4", "4.8.1", "a.b", "0.0", "300.1", "+4.8", "4.", "-1.0"] {
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_LOG",
                "syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{{"minKernel":"{bad}"}}}}]}}"#
        );
        assert_eq!(
            Profile::parse(text.as_bytes()).unwrap_err().to_string(),
            format!(
                "Decoding seccomp profile failed: invalid kernel version: \"{bad}\", expected \"<kernel>.<major>\""
            )
        );
    }
    assert!(Profile::parse(b"{").unwrap_err().to_string().starts_with("Decoding seccomp profile failed: "));
}

#[test]
fn conditions_on_rules() {
    let rule = |includes: Option<Filter>, excludes: Option<Filter>| Profile {
        default_action: "SCMP_ACT_ERRNO".into(),
        syscalls: vec![Rule { includes, excludes, names: vec!["read".into()], ..Default::default() }],
        ..Default::default()
    };
    let caps = |c: &[&str]| Some(Filter { caps: c.iter().map(|c| (*c).into()).collect(), ..Default::default() });
    let arch = |a: &str| Some(Filter { arches: vec![a.into()], ..Default::default() });
    let kernel = |k: &str| Some(Filter { min_kernel: Some(k.into()), ..Default::default() });
    let kept = |p: Profile| {
        let granted = ["CAP_A".to_owned(), "CAP_B".to_owned()];
        !resolve(&p, &granted, Arch::X86_64, (5, 10)).unwrap().syscalls.is_empty()
    };
    assert!(kept(rule(caps(&["CAP_A", "CAP_B"]), None)));
    assert!(!kept(rule(caps(&["CAP_A", "CAP_C"]), None)));
    assert!(!kept(rule(None, caps(&["CAP_C", "CAP_B"]))));
    assert!(kept(rule(arch("amd64"), arch("arm64"))));
    assert!(!kept(rule(arch("arm64"), None)));
    assert!(kept(rule(kernel("5.10"), kernel("5.11"))));
    assert!(!kept(rule(kernel("6.0"), None)));
    assert!(!kept(rule(None, kernel("4.8"))));
    // Every kernel is at least the one that is not named.
    assert!(kept(rule(kernel(""), None)));
    assert!(!kept(rule(None, kernel(""))));
}

/// Whatever stands in the half of an argument that the kernel drops, a call that the default profile denies stays denied,
/// and one that it allows stays allowed.
#[test]
fn high_halves_of_32_bit_arguments_decide_nothing() {
    let highs = [1u64 << 32, 1 << 63, 0xffff_ffff << 32, 0x8000_0001 << 32];
    let mut probed = 0;
    for capabilities in [&[][..], &["CAP_SYS_ADMIN"], &["CAP_SYS_PTRACE", "CAP_SYS_CHROOT"]] {
        let filter = container(capabilities);
        let program = compiled(&filter);
        for rule in filter.syscalls.iter().filter(|rule| !rule.args.is_empty()) {
            for (name, arg) in rule.names.iter().flat_map(|name| rule.args.iter().map(move |arg| (name, arg))) {
                let Some(nr) = Syscall::find(name).and_then(|call| call.number(Arch::X86_64)) else { continue };
                if !super::width::is_32bit(name, arg.index) {
                    continue;
                }
                for low in [arg.value, arg.value_two, 0, 1, 38, 39, 40, 41, 0xffff_ffff].map(|v| v & 0xffff_ffff) {
                    let with = |value| {
                        let mut args = [0; 6];
                        args[arg.index as usize] = value;
                        run(&program, &Call { nr, arch: X86_64, args })
                    };
                    assert!(highs.iter().all(|high| with(high | low) == with(low)), "{name} {arg:?} {low:#x}");
                    probed += 1;
                }
            }
        }
    }
    assert!(probed > 50, "{probed}");
    let program = compiled(&container(&[]));
    for (nr, value) in [(41, 40), (41, 38), (135, 0x0040_0000)] {
        for high in [0, 1 << 32, 0xffff_ffff << 32] {
            assert_eq!(run(&program, &call(X86_64, nr, &[value | high])), DENY, "{nr} {value:#x}");
        }
    }
}

fn any_argument() -> impl Strategy<Value = SeccompArg> {
    let ops = ["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"];
    let value = prop_oneof![0..4u64, any::<u64>(), any::<u32>().prop_map(u64::from), Just(u64::MAX), Just(1 << 32)];
    (0..6u32, 0..ops.len(), value.clone(), value).prop_map(move |(index, op, value, value_two)| SeccompArg {
        index,
        value,
        value_two,
        op: format!("SCMP_CMP_{}", ops[op]),
    })
}

fn any_action() -> impl Strategy<Value = (String, Option<u32>)> {
    let names = ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "LOG", "TRACE", "TRAP"];
    (0..names.len(), prop::option::of(1..200u32)).prop_map(move |(i, e)| (format!("SCMP_ACT_{}", names[i]), e))
}

fn any_rule() -> impl Strategy<Value = SeccompSyscall> {
    let name = (0..SYSCALLS.len()).prop_map(|i| SYSCALLS[i].0.to_owned());
    let names = prop::collection::vec(prop_oneof![4 => name, 1 => Just("no_such_call".to_owned())], 1..6);
    (names, any_action(), prop::collection::vec(any_argument(), 0..4))
        .prop_map(|(names, (action, errno_ret), args)| SeccompSyscall { names, action, errno_ret, args })
}

fn any_filter() -> impl Strategy<Value = Seccomp> {
    let arches =
        prop::sample::subsequence(vec!["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_PPC"], 0..=4);
    (any_action(), arches, prop::collection::vec(any_rule(), 0..20)).prop_map(|(default, arches, syscalls)| Seccomp {
        default_action: default.0,
        default_errno_ret: default.1,
        architectures: arches.into_iter().map(str::to_owned).collect(),
        syscalls,
        ..Default::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_profiles_decide_as_the_model(filter in any_filter()) {
        compare(&filter, &compiled(&filter));
    }
}
