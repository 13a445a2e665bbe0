//! The built-in profile: which system calls a container may make.
//!
//! The rules are those of the reference's profile (facts; the arrangement is ours): everything is refused with EPERM unless
//! listed here. A rule may depend on what the container was granted (capabilities), on the machine, and on the kernel.

use super::profile::{ArchMap, Filter, Profile, Rule};
use crate::oci::SeccompArg;

/// Always allowed, by purpose.
const ALWAYS: &[&str] = &[
    // Reading and writing open files.
    "_llseek close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 fallocate fcntl fcntl64 \
     fdatasync flock fsync ftruncate ftruncate64 getdents getdents64 ioctl lseek pipe pipe2 pread64 preadv \
     preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64 splice sync sync_file_range \
     syncfs tee truncate truncate64 vmsplice write writev",
    // Extended attributes.
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat \
     llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat",
    // Paths.
    "access chdir chmod chown chown32 creat faccessat faccessat2 fchdir fchmod fchmodat fchmodat2 fchown \
     fchown32 fchownat futimesat getcwd lchown lchown32 link linkat mkdir mkdirat mknod mknodat \
     name_to_handle_at open openat openat2 readlink readlinkat rename renameat renameat2 rmdir symlink \
     symlinkat umask unlink unlinkat utime utimensat utimensat_time64 utimes",
    // File and mount information.
    "fstat fstat64 fstatat64 fstatfs fstatfs64 listmount lstat lstat64 newfstatat stat stat64 statfs statfs64 \
     statmount statx",
    // Watching files and waiting for descriptors.
    "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
     epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 \
     inotify_rm_watch poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4 \
     timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64",
    // Asynchronous and prioritised input and output.
    "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioprio_get \
     ioprio_set",
    // Sockets.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg \
     recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair",
    // Memory.
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap \
     mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect \
     remap_file_pages",
    // System V and POSIX message queues, semaphores, shared memory.
    "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
     mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop \
     semtimedop_time64 shmat shmctl shmdt shmget",
    // Processes and threads.
    "execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake \
     get_robust_list get_thread_area getpgid getpgrp getpid getppid getsid gettid pidfd_open \
     pidfd_send_signal prctl process_mrelease restart_syscall riscv_hwprobe rseq set_robust_list \
     set_thread_area set_tid_address setpgid setsid uretprobe vfork wait4 waitid waitpid",
    // Signals.
    "alarm kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
     rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn tgkill tkill",
    // Users and groups.
    "getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 \
     getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups \
     setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid \
     setuid32",
    // Capabilities and sandboxing, which only ever take rights away.
    "capget capset landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp",
    // Scheduling and limits.
    "getcpu getpriority getrlimit getrusage prlimit64 sched_get_priority_max sched_get_priority_min \
     sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
     sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler \
     sched_yield setpriority setrlimit times ugetrlimit",
    // Clocks and timers.
    "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
     clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create \
     timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64",
    // The system.
    "cachestat getrandom sysinfo uname",
];

/// Capability, and what it opens.
const WITH_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    // Namespaces and mounts, and whatever else the kernel puts behind this capability.
    ("CAP_SYS_ADMIN", "clone clone3 setns unshare"),
    ("CAP_SYS_ADMIN", "fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree umount umount2"),
    ("CAP_SYS_ADMIN", "bpf fanotify_init lookup_dcookie perf_event_open quotactl quotactl_fd syslog"),
    ("CAP_SYS_ADMIN", "lsm_get_self_attr lsm_list_modules lsm_set_self_attr setdomainname sethostname"),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYSLOG", "syslog"),
];

/// Machines, and calls that only they have.
const ON_MACHINE: &[(&[&str], &str)] = &[
    (&["amd64", "x32"], "arch_prctl"),
    (&["amd64", "x32", "x86"], "modify_ldt"),
    (&["arm", "arm64"], "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2"),
    (&["ppc64le"], "swapcontext sync_file_range2"),
    (&["riscv64"], "riscv_flush_icache"),
    (S390, "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
];

/// Machine, and the others whose programs it also runs.
const ARCHITECTURES: &[(&str, &[&str])] = &[
    ("X86_64", &["X86", "X32"]),
    ("AARCH64", &["ARM"]),
    ("MIPS64", &["MIPS", "MIPS64N32"]),
    ("MIPS64N32", &["MIPS", "MIPS64"]),
    ("MIPSEL64", &["MIPSEL", "MIPSEL64N32"]),
    ("MIPSEL64N32", &["MIPSEL", "MIPSEL64"]),
    ("S390X", &["S390"]),
    ("RISCV64", &[]),
    ("LOONGARCH64", &[]),
];

const S390: &[&str] = &["s390", "s390x"];
/// Since this kernel tracing cannot be used to get around the filter.
const SAFE_PTRACE: &str = "4.8";
/// `clone` flags that make namespaces: NEWNS, CGROUP, UTS, IPC, USER, PID, NET.
const CLONE_NEW: u64 = 0x7e02_0000;
/// `personality` values: Linux, short inodes, 32-bit names, both, and the query.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const AF_ALG: u64 = 38;
const AF_NFC: u64 = 39;
const AF_VSOCK: u64 = 40;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The built-in profile.
pub fn default_profile() -> Profile {
    let mut rules: Vec<Rule> = ALWAYS.iter().map(|names| allow(names)).collect();
    rules.push(Rule {
        includes: Some(Filter { min_kernel: Some(SAFE_PTRACE.into()), ..Filter::default() }),
        ..allow("process_vm_readv process_vm_writev ptrace")
    });
    rules.extend(WITH_CAPABILITY.iter().map(|(cap, names)| Rule { includes: Some(capability(cap)), ..allow(names) }));
    rules.extend(ON_MACHINE.iter().map(|(arches, names)| Rule { includes: Some(machines(arches)), ..allow(names) }));
    // Every address family but AF_ALG and AF_VSOCK.
    for (op, family) in [("LT", AF_ALG), ("EQ", AF_NFC), ("GT", AF_VSOCK)] {
        rules.push(Rule { args: vec![argument(0, op, family, 0)], ..allow("socket") });
    }
    for value in PERSONALITIES {
        rules.push(Rule { args: vec![argument(0, "EQ", value, 0)], ..allow("personality") });
    }
    rules.extend(unprivileged_clone());
    Profile {
        default_action: "SCMP_ACT_ERRNO".into(),
        default_errno_ret: Some(EPERM),
        arch_map: ARCHITECTURES.iter().map(arch_map).collect(),
        syscalls: rules,
        ..Profile::default()
    }
}

/// Without CAP_SYS_ADMIN: `clone` without new namespaces (its flags are the second argument on s390), and no `clone3`, whose
/// flags lie in memory; ENOSYS makes C libraries fall back to `clone`.
fn unprivileged_clone() -> [Rule; 3] {
    let admin = || capability("CAP_SYS_ADMIN");
    [
        Rule {
            args: vec![argument(0, "MASKED_EQ", CLONE_NEW, 0)],
            excludes: Some(Filter { arches: words(S390), ..admin() }),
            ..allow("clone")
        },
        Rule {
            args: vec![argument(1, "MASKED_EQ", CLONE_NEW, 0)],
            includes: Some(machines(S390)),
            excludes: Some(admin()),
            ..allow("clone")
        },
        Rule { action: "SCMP_ACT_ERRNO".into(), errno_ret: Some(ENOSYS), excludes: Some(admin()), ..allow("clone3") },
    ]
}

fn allow(names: &str) -> Rule {
    Rule {
        names: names.split_whitespace().map(str::to_owned).collect(),
        action: "SCMP_ACT_ALLOW".into(),
        ..Rule::default()
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

fn capability(name: &str) -> Filter {
    Filter { caps: words(&[name]), ..Filter::default() }
}

fn machines(arches: &[&str]) -> Filter {
    Filter { arches: words(arches), ..Filter::default() }
}

fn argument(index: u32, op: &str, value: u64, value_two: u64) -> SeccompArg {
    SeccompArg { index, value, value_two, op: format!("SCMP_CMP_{op}") }
}

fn arch_map((machine, others): &(&str, &[&str])) -> ArchMap {
    let name = |n: &str| format!("SCMP_ARCH_{n}");
    ArchMap { architecture: name(machine), sub_architectures: others.iter().map(|o| name(o)).collect() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_twice_and_the_expected_number() {
        let names: Vec<_> = ALWAYS.iter().flat_map(|g| g.split_whitespace()).collect();
        assert_eq!(names.len(), 361);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 361);
    }

    /// The classes of calls that have been ways out of containers.
    #[test]
    fn dangerous_calls_are_not_open_to_everyone() {
        let names: BTreeSet<_> = ALWAYS.iter().flat_map(|g| g.split_whitespace()).collect();
        for name in "keyctl add_key request_key userfaultfd kexec_load mount unshare setns bpf perf_event_open \
                     open_by_handle_at init_module io_uring_setup io_uring_enter io_uring_register swapon reboot \
                     socket personality clone clone3 ptrace quotactl nfsservctl chroot vm86 kcmp"
            .split_whitespace()
        {
            assert!(!names.contains(name), "{name}");
        }
    }

    #[test]
    fn json_round_trip() {
        let profile = default_profile();
        let text = serde_json::to_string(&profile).unwrap();
        assert_eq!(Profile::parse(text.as_bytes()).unwrap(), profile);
    }
}
