//! How wide the kernel takes the arguments of system calls on 64-bit machines.
//!
//! `SYSCALL_DEFINE` casts each register to the type of its parameter: of an `int`, an `unsigned`, an id or a mode the high
//! half is dropped. A condition that compared it would hold for a value that the kernel does not see:
//! `socket(AF_VSOCK | 1 << 32, …)` is a `socket(AF_VSOCK, …)`. Source: `include/linux/syscalls.h` of Linux.

/// Name and arguments in order: `i` = 32 bits, `l` = 64 bits (a pointer, a `long`, a size, an offset). Sorted by name. What
/// has no row has no 32-bit argument.
#[rustfmt::skip]
const WIDTHS: &[(&str, &str)] = &[
    ("accept", "ill"), ("accept4", "illi"), ("access", "li"), ("add_key", "lllli"), ("alarm", "i"), ("arch_prctl", "il"),
    ("bind", "ili"), ("bpf", "ili"), ("cachestat", "illi"), ("chmod", "li"), ("chown", "lii"),
    ("clock_adjtime", "il"), ("clock_getres", "il"), ("clock_gettime", "il"), ("clock_nanosleep", "iill"),
    ("clock_settime", "il"), ("clone", "illll"), ("close", "i"), ("close_range", "iii"), ("connect", "ili"),
    ("copy_file_range", "ililli"), ("creat", "li"), ("delete_module", "li"), ("dup", "i"), ("dup2", "ii"), ("dup3", "iii"),
    ("epoll_create", "i"), ("epoll_create1", "i"), ("epoll_ctl", "iiil"), ("epoll_pwait", "iliill"),
    ("epoll_pwait2", "ilill"), ("epoll_wait", "ilii"), ("eventfd", "i"), ("eventfd2", "ii"), ("execveat", "illli"),
    ("exit", "i"), ("exit_group", "i"), ("faccessat", "ili"), ("faccessat2", "ilii"), ("fadvise64", "illi"),
    ("fallocate", "iill"), ("fanotify_init", "ii"), ("fanotify_mark", "iilil"), ("fchdir", "i"), ("fchmod", "ii"),
    ("fchmodat", "ili"), ("fchmodat2", "ilii"), ("fchown", "iii"), ("fchownat", "iliii"), ("fcntl", "iil"),
    ("fdatasync", "i"), ("fgetxattr", "illl"), ("finit_module", "ili"), ("flistxattr", "ill"), ("flock", "ii"),
    ("fremovexattr", "il"), ("fsconfig", "iilli"), ("fsetxattr", "illli"), ("fsmount", "iii"), ("fsopen", "li"),
    ("fspick", "ili"), ("fstat", "il"), ("fstatfs", "il"), ("fsync", "i"), ("ftruncate", "il"), ("futex", "liilli"),
    ("futex_requeue", "liii"), ("futex_wait", "lllili"), ("futex_waitv", "liili"), ("futex_wake", "llii"),
    ("futimesat", "ill"), ("getdents", "ili"), ("getdents64", "ili"), ("getgroups", "il"),
    ("getitimer", "il"), ("getpeername", "ill"), ("getpgid", "i"), ("getpriority", "ii"), ("getrandom", "lli"),
    ("getrlimit", "il"), ("getrusage", "il"), ("getsid", "i"), ("getsockname", "ill"), ("getsockopt", "iiill"),
    ("getxattrat", "ilill"), ("inotify_add_watch", "ili"), ("inotify_init1", "i"), ("inotify_rm_watch", "ii"),
    ("io_setup", "il"), ("io_uring_enter", "iiiill"), ("io_uring_register", "iili"),
    ("io_uring_setup", "il"), ("ioctl", "iil"), ("ioperm", "lli"), ("iopl", "i"), ("ioprio_get", "ii"),
    ("ioprio_set", "iii"), ("kcmp", "iiill"), ("kexec_file_load", "iilll"), ("keyctl", "illll"), ("kill", "ii"),
    ("landlock_add_rule", "iili"), ("landlock_create_ruleset", "lli"), ("landlock_restrict_self", "ii"), ("lchown", "lii"),
    ("linkat", "ilili"), ("listen", "ii"), ("listmount", "llli"), ("listxattrat", "ilill"), 
    ("lseek", "ili"), ("lsm_get_self_attr", "illi"), ("lsm_list_modules", "lli"), ("lsm_set_self_attr", "illi"),
    ("madvise", "lli"), ("map_shadow_stack", "lli"), ("mbind", "llllli"), ("membarrier", "iii"), ("memfd_create", "li"),
    ("memfd_secret", "i"), ("migrate_pages", "illl"), ("mkdir", "li"), ("mkdirat", "ili"),
    ("mknod", "lii"), ("mknodat", "ilii"), ("mlock2", "lli"), ("mlockall", "i"), ("modify_ldt", "ill"),
    ("mount_setattr", "ilill"), ("move_mount", "ilili"), ("move_pages", "illlli"), ("mq_getsetattr", "ill"),
    ("mq_notify", "il"), ("mq_open", "liil"), ("mq_timedreceive", "illll"), ("mq_timedsend", "illil"), 
    ("msgctl", "iil"), ("msgget", "ii"), ("msgrcv", "illli"), ("msgsnd", "illi"), ("msync", "lli"),
    ("name_to_handle_at", "illli"), ("newfstatat", "illi"), ("open", "lii"), ("open_by_handle_at", "ili"),
    ("open_tree", "ili"), ("open_tree_attr", "ilill"), ("openat", "ilii"), ("openat2", "illl"),
    ("perf_event_open", "liiil"), ("personality", "i"), ("pidfd_getfd", "iii"), ("pidfd_open", "ii"),
    ("pidfd_send_signal", "iili"), ("pipe2", "li"), ("pkey_free", "i"), ("pkey_mprotect", "llli"),
    ("poll", "lii"), ("ppoll", "lilll"), ("prctl", "illll"), ("pread64", "illl"), ("preadv", "illll"),
    ("preadv2", "illlli"), ("prlimit64", "iill"), ("process_madvise", "illii"), ("process_mrelease", "ii"),
    ("process_vm_readv", "illlll"), ("process_vm_writev", "illlll"), ("pselect6", "illlll"), ("ptrace", "lill"),
    ("pwrite64", "illl"), ("pwritev", "illll"), ("pwritev2", "illlli"), ("quotactl", "ilil"), ("quotactl_fd", "iiil"),
    ("read", "ill"), ("readahead", "ill"), ("readlink", "lli"), ("readlinkat", "illi"), ("readv", "ill"),
    ("reboot", "iiil"), ("recvfrom", "illill"), ("recvmmsg", "iliil"), ("recvmsg", "ili"), ("removexattrat", "ili"),
    ("renameat", "ilil"), ("renameat2", "ilili"), ("request_key", "llli"), ("rseq", "liii"), ("rt_sigaction", "illl"),
    ("rt_sigprocmask", "illl"), ("rt_sigqueueinfo", "iil"), ("rt_tgsigqueueinfo", "iiil"),
    ("sched_get_priority_max", "i"), ("sched_get_priority_min", "i"), ("sched_getaffinity", "iil"),
    ("sched_getattr", "ilii"), ("sched_getparam", "il"), ("sched_getscheduler", "i"), ("sched_rr_get_interval", "il"),
    ("sched_setaffinity", "iil"), ("sched_setattr", "ili"), ("sched_setparam", "il"), ("sched_setscheduler", "iil"),
    ("seccomp", "iil"), ("select", "illll"), ("semctl", "iiil"), ("semget", "iii"), ("semop", "ili"),
    ("semtimedop", "ilil"), ("sendfile", "iill"), ("sendmmsg", "ilii"), ("sendmsg", "ili"), ("sendto", "illili"),
    ("set_mempolicy", "ill"), ("setdomainname", "li"), ("setfsgid", "i"),
    ("setfsuid", "i"), ("setgid", "i"), ("setgroups", "il"), ("sethostname", "li"), ("setitimer", "ill"), ("setns", "ii"),
    ("setpgid", "ii"), ("setpriority", "iii"), ("setregid", "ii"), ("setresgid", "iii"), ("setresuid", "iii"),
    ("setreuid", "ii"), ("setrlimit", "il"), ("setsockopt", "iiili"), ("setuid", "i"), ("setxattr", "lllli"),
    ("setxattrat", "ililll"), ("shmat", "ili"), ("shmctl", "iil"), ("shmget", "ili"), ("shutdown", "ii"),
    ("signalfd", "ill"), ("signalfd4", "illi"), ("socket", "iii"), ("socketpair", "iiil"), ("splice", "ililli"),
    ("statmount", "llli"), ("statx", "iliil"), ("swapon", "li"), ("symlinkat", "lil"), ("sync_file_range", "illi"),
    ("syncfs", "i"), ("sysfs", "ill"), ("syslog", "ili"), ("tee", "iili"), ("tgkill", "iii"), ("timer_create", "ill"),
    ("timer_delete", "i"), ("timer_getoverrun", "i"), ("timer_gettime", "il"), ("timer_settime", "iill"),
    ("timerfd_create", "ii"), ("timerfd_gettime", "il"), ("timerfd_settime", "iill"), ("tkill", "ii"), ("umask", "i"),
    ("umount2", "li"), ("unlinkat", "ili"), ("userfaultfd", "i"), ("ustat", "il"), ("utimensat", "illi"),
    ("vmsplice", "illi"), ("wait4", "ilil"), ("waitid", "iilil"), ("write", "ill"), ("writev", "ill"),
];

/// Whether the kernel looks at the low half of that argument only.
pub(super) fn is_32bit(call: &str, argument: u32) -> bool {
    let row = WIDTHS.binary_search_by(|(name, _)| (*name).cmp(call)).ok().map(|row| WIDTHS[row].1);
    row.and_then(|widths| widths.as_bytes().get(argument as usize)) == Some(&b'i')
}

#[cfg(test)]
mod tests {
    use super::super::arch::Syscall;
    use super::*;

    #[test]
    fn rows_are_sorted_and_name_system_calls() {
        assert!(WIDTHS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (name, widths) in WIDTHS {
            assert!(Syscall::find(name).is_some(), "{name}");
            assert!((1..=6).contains(&widths.len()) && widths.bytes().all(|b| b"il".contains(&b)), "{name}");
        }
    }

    #[test]
    fn widths_of_what_profiles_compare() {
        for (call, argument) in
            [("socket", 0), ("personality", 0), ("clone", 0), ("ioctl", 1), ("prctl", 0), ("ptrace", 1), ("setns", 1)]
        {
            assert!(is_32bit(call, argument), "{call} {argument}");
        }
        for (call, argument) in [("ioctl", 2), ("ptrace", 0), ("mmap", 3), ("unshare", 0), ("read", 2), ("socket", 3)] {
            assert!(!is_32bit(call, argument), "{call} {argument}");
        }
    }
}
