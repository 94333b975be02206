/*
 * What the container's init itself may do once its program runs, if the program's
 * seccomp filter is not for it: a custom profile need not allow what an init needs.
 * Nobody can take the init over (it is not dumpable) but who has CAP_SYS_PTRACE; such a
 * tracer shall find no way around the filter here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init.h"

#if defined(__x86_64__)
#define NATIVE AUDIT_ARCH_X86_64
#elif defined(__i386__)
#define NATIVE AUDIT_ARCH_I386
#elif defined(__aarch64__)
#define NATIVE AUDIT_ARCH_AARCH64
#elif defined(__arm__)
#define NATIVE AUDIT_ARCH_ARM
#elif defined(__riscv) && __riscv_xlen == 64
#define NATIVE AUDIT_ARCH_RISCV64
#elif defined(__s390x__)
#define NATIVE AUDIT_ARCH_S390X
#elif defined(__powerpc64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NATIVE AUDIT_ARCH_PPC64LE
#elif defined(__loongarch64)
#define NATIVE AUDIT_ARCH_LOONGARCH64
#endif

#define ALLOW(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* wherry_confine leaves the init the few calls of its life; it returns an errno. */
int wherry_confine(void)
{
#ifdef NATIVE
	struct sock_filter rules[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ALLOW(__NR_rt_sigtimedwait),
#ifdef __NR_rt_sigtimedwait_time64
		ALLOW(__NR_rt_sigtimedwait_time64),
#endif
#ifdef __NR_wait4
		ALLOW(__NR_wait4),
#endif
		ALLOW(__NR_waitid),
		ALLOW(__NR_kill),
		ALLOW(__NR_close),
		ALLOW(__NR_ioctl),
#ifdef __NR_fstat
		ALLOW(__NR_fstat),
#endif
#ifdef __NR_fstat64
		ALLOW(__NR_fstat64),
#endif
#ifdef __NR_newfstatat
		ALLOW(__NR_newfstatat),
#endif
#ifdef __NR_statx
		ALLOW(__NR_statx),
#endif
#ifdef __NR_clock_gettime
		ALLOW(__NR_clock_gettime),
#endif
#ifdef __NR_clock_gettime64
		ALLOW(__NR_clock_gettime64),
#endif
		ALLOW(__NR_getpid),
		ALLOW(__NR_rt_sigreturn),
		ALLOW(__NR_restart_syscall),
		ALLOW(__NR_exit),
		ALLOW(__NR_exit_group),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
	};
	struct sock_fprog prog = {.len = sizeof(rules) / sizeof(rules[0]), .filter = rules};

	/* With the speculation mitigations that a filter turns on the init would be as slow as it is idle. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &prog) != 0)
		return errno;
#endif
	return 0;
}
