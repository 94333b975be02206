/*
 * The holder: PID 1 of a PID namespace that the containers of a run share. The
 * kernel ends such a namespace with its first process, so that must be one that
 * nothing in a container can end.
 *
 * The keeper's binary is run, in the new namespaces, as
 *
 *     wherry-holder wherry-holder
 *
 * with two pipes: standard input, whose end before its first byte means that the
 * keeper is gone and nobody will ever know of us, and standard output, for one
 * byte as soon as nothing of the host can be reached through us. As in init.c, a
 * constructor takes over and never returns, and there is no stdio and no malloc.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOLDER "wherry-holder"
#define NOBODY 65534

static void __attribute__((noreturn)) give_up(void)
{
	_exit(errno ? errno : 1);
}

/*
 * leave_host gets us an empty root: whoever may look at us in the container
 * would otherwise find the host's by /proc/1/root. The folder that is mounted
 * over is of no account, it has only to be there.
 */
static void leave_host(void)
{
	if (mount("", "/", "", MS_REC | MS_PRIVATE, "") < 0 ||
	    mount("tmpfs", "/proc", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0,nr_inodes=2,mode=555") < 0 ||
	    chdir("/proc") < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
	    umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		give_up();
}

/* drop_powers leaves us without any capability. Without a user namespace of our own we are root of the host until here. */
static void drop_powers(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2];
	int cap;

	memset(none, 0, sizeof(none));
	for (cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
		;
	if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, NOBODY, NOBODY, NOBODY) < 0 ||
	    syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY) < 0 || syscall(SYS_capset, &header, none) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		give_up();
}

static void __attribute__((constructor(101))) wherry_holder(int argc, char **argv)
{
	sigset_t all;
	char c = 'h';

	if (argc != 2 || strcmp(argv[1], HOLDER) != 0)
		return;
	prctl(PR_SET_NAME, HOLDER, 0, 0, 0);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	leave_host();
	drop_powers();
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (write(1, &c, 1) != 1 || read(0, &c, 1) != 1)
		give_up();
	close(0);
	close(1);
	memset(argv[1], 0, strlen(argv[1])); /* once is enough in process lists */
	for (;;) {
		sigwaitinfo(&all, NULL);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}
