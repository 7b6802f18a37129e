"""The default seccomp profile, and profiles from files, as OCI seccomp: pure.

The default allows what ordinary programs call and answers EPERM to the rest: kernel modules, keyrings, clocks,
mounts, tracing foreign processes and the like, some of which a capability brings back. A profile file may be in the
OCI's form or in Docker's (`archMap`, per-rule `includes`/`excludes`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

_EPERM, _ENOSYS = 1, 38

_ALLOWED = """
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64
close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat
faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs
fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer
getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit
get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid getuid32 getxattr
inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents
io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listxattr llistxattr _llseek lremovexattr lseek
lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod
mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync
munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2
prlimit64 process_mrelease pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink
readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr rename renameat renameat2
restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam
sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32
setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32
setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address
setuid setuid32 setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn
socketcall socketpair splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs sysinfo
tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64
ugetrlimit umask uname unlink unlinkat utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid
write writev
""".split()  # noqa: SIM905 — one name a line would be 400 lines

_BY_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": (
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount "
        "open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare"
    ),
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}

_BY_ARCHITECTURE = {
    "amd64": "arch_prctl modify_ldt",
    "386": "modify_ldt",
    "arm": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    "arm64": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    "riscv64": "riscv_flush_icache",
}

_ARCHITECTURES = {
    "amd64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "arm64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    "386": ["SCMP_ARCH_X86"],
    "arm": ["SCMP_ARCH_ARM"],
    "riscv64": ["SCMP_ARCH_RISCV64"],
}

# personality(2) values that change nothing that matters: Linux, uname 2.6, 32-bit, both, and "which is it?".
_PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
# Every CLONE_NEW* flag: making a namespace needs CAP_SYS_ADMIN.
_CLONE_NAMESPACES = 0x7E020000
_AF_VSOCK = 40


def _allow(names: Sequence[str], **args: Any) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": list(names), "action": "SCMP_ACT_ALLOW"}
    if args:
        rule["args"] = [args]
    return rule


def default_profile(capabilities: Sequence[str], architecture: str) -> dict[str, Any]:
    rules = [_allow(_ALLOWED)]
    rules += [_allow(["personality"], index=0, value=value, op="SCMP_CMP_EQ") for value in _PERSONALITIES]
    # A container must not reach the hypervisor's own sockets.
    rules.append(_allow(["socket"], index=0, value=_AF_VSOCK, op="SCMP_CMP_NE"))
    if architecture in _BY_ARCHITECTURE:
        rules.append(_allow(_BY_ARCHITECTURE[architecture].split()))
    rules += [_allow(text.split()) for name, text in _BY_CAPABILITY.items() if name in capabilities]
    if "CAP_SYS_ADMIN" not in capabilities:
        rules.append(_allow(["clone"], index=0, value=_CLONE_NAMESPACES, valueTwo=0, op="SCMP_CMP_MASKED_EQ"))
        # Its flags are behind a pointer, out of a filter's sight; ENOSYS makes libc fall back to clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": _ARCHITECTURES.get(architecture, []),
        "syscalls": rules,
    }


def from_document(document: Any, capabilities: Sequence[str], architecture: str) -> dict[str, Any]:
    """A profile file's content as OCI seccomp; raises ValueError for what is no profile."""
    if not isinstance(document, Mapping) or "defaultAction" not in document:
        raise ValueError("it has no defaultAction")
    result: dict[str, Any] = {"defaultAction": document["defaultAction"]}
    for key in ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if document.get(key) not in (None, "", []):
            result[key] = document[key]
    architectures = list(document.get("architectures") or [])
    native = _ARCHITECTURES.get(architecture, [""])[0]
    for entry in document.get("archMap") or []:
        if entry.get("architecture") == native:
            architectures += [native, *(entry.get("subArchitectures") or [])]
    if architectures:
        result["architectures"] = architectures
    result["syscalls"] = [
        _rule(entry) for entry in document.get("syscalls") or [] if _applies(entry, capabilities, architecture)
    ]
    return result


def _rule(entry: Mapping[str, Any]) -> dict[str, Any]:
    names = list(entry.get("names") or ([entry["name"]] if entry.get("name") else []))
    if not names or "action" not in entry:
        raise ValueError("a syscalls entry needs names and an action")
    rule: dict[str, Any] = {"names": names, "action": entry["action"]}
    if entry.get("errnoRet") is not None:
        rule["errnoRet"] = entry["errnoRet"]
    if entry.get("args"):
        rule["args"] = [{k: v for k, v in arg.items() if v is not None} for arg in entry["args"]]
    return rule


def _applies(entry: Mapping[str, Any], capabilities: Sequence[str], architecture: str) -> bool:
    """Docker's conditions: all that is included must be there, nothing that is excluded may."""
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    if includes.get("caps") and not set(includes["caps"]) <= set(capabilities):
        return False
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    if set(excludes.get("caps") or []) & set(capabilities):
        return False
    return architecture not in (excludes.get("arches") or [])
