/*
 * The first process of a container, and the wrapper around every process that
 * is exec'd into one.
 *
 * The keeper's binary is run as
 *
 *     /proc/self/fd/EXE wherry-init MODE:ERR:RECORD:FILTER:FLAGS:INPUT PROGRAM [ARG...]
 *
 * by libcontainer, inside the finished container. A constructor that runs
 * before libcontainer's own takes over and never returns, so that the Go
 * runtime does not start: an idle container costs a few pages, not a megabyte.
 * For the same reason there is no stdio and no malloc here.
 *
 * MODE is "i", or "l" for a filter that the init itself cannot live under (stay as init: reap, forward signals, record how the program
 * ended, see its output into the log) or "x" (become the program). ERR is a pipe on which we say that we
 * run, and then a failure; it closes by itself when the program's exec succeeds. Without it a failure is
 * told on stderr. RECORD is
 * where init writes the raw wait status, FILTER a compiled seccomp program,
 * FLAGS its flags for seccomp(2), INPUT the other end of the pipe that is our stdin. -1 stands for none.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "init.h"

#define TRIGGER "wherry-init"
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct job {
	const char *program;
	int exe; /* our own binary */
	int init;
	int late; /* the filter is the program's only: it does not allow what we need */
	int err;
	int record;
	struct wherry_record *page; /* the record, mapped: no filter can forbid writing to it */
	int filter;
	unsigned long flags;
	int input;
};

/* say tells on stderr why the program does not run. */
static void say(const struct job *j, int err)
{
	const char *words[] = {"exec ", j->program, ": ", strerror(err), "\n"};
	ssize_t n = 0;
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(*words); i++)
		n = write(2, words[i], strlen(words[i]));
	(void)n;
}

/* fail tells the keeper, or whoever reads stderr, which part went wrong and ends. */
static void __attribute__((noreturn)) fail(const struct job *j, int part, int err)
{
	struct wherry_failure f = {.part = part, .error = err};
	ssize_t n = 0;

	if (j->err >= 0)
		n = write(j->err, &f, sizeof(f));
	else
		say(j, err);
	(void)n;
	_exit(err == ENOENT ? 127 : 126);
}

/* greet tells the keeper that the init has got as far as this: an end of the pipe without it is no success. */
static void greet(const struct job *j)
{
	ssize_t n = 0;

	if (j->err < 0)
		return;
	fcntl(j->err, F_SETFD, FD_CLOEXEC);
	n = write(j->err, WHERRY_GREETING, 1);
	(void)n;
}

/* number reads one number of the job and steps over the colon behind it. */
static long number(const char **s)
{
	long n = 0;
	int negative = **s == '-';

	if (negative)
		(*s)++;
	for (; **s >= '0' && **s <= '9'; (*s)++)
		n = n * 10 + (**s - '0');
	if (**s == ':')
		(*s)++;
	return negative ? -n : n;
}

static struct job parse(char **argv)
{
	struct job j;
	const char *s = argv[2], *exe = strrchr(argv[0], '/');

	j.program = argv[3];
	j.exe = -1;
	if (exe) {
		exe++;
		j.exe = number(&exe);
	}
	j.init = s[0] == 'i' || s[0] == 'l';
	j.late = s[0] == 'l';
	s += s[0] && s[1] == ':' ? 2 : 0;
	j.err = number(&s);
	j.record = number(&s);
	j.filter = number(&s);
	j.flags = number(&s);
	j.input = number(&s);
	return j;
}

/*
 * load_filter loads the compiled seccomp program. It works without privileges
 * because libcontainer has set no_new_privs. The program is mapped, not read:
 * nothing of it stays in memory.
 */
static void load_filter(const struct job *j)
{
	struct stat st;
	struct sock_fprog prog;
	void *p;

	if (j->filter < 0)
		return;
	if (fstat(j->filter, &st) < 0)
		fail(j, WHERRY_FILTER, errno);
	if (st.st_size == 0 || st.st_size % sizeof(struct sock_filter) != 0)
		fail(j, WHERRY_FILTER, EINVAL);
	p = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, j->filter, 0);
	if (p == MAP_FAILED)
		fail(j, WHERRY_FILTER, errno);
	prog.len = st.st_size / sizeof(struct sock_filter);
	prog.filter = p;
	close(j->filter);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, j->flags, &prog) != 0)
		fail(j, WHERRY_FILTER, errno);
	munmap(p, st.st_size);
}

static void map_record(struct job *j)
{
	void *p;

	j->page = NULL;
	if (j->record < 0)
		return;
	p = mmap(NULL, sizeof(struct wherry_record), PROT_READ | PROT_WRITE, MAP_SHARED, j->record, 0);
	if (p == MAP_FAILED)
		fail(j, WHERRY_RECORD, errno);
	j->page = p;
	close(j->record);
}

static const char *search_path(char **envp)
{
	for (; *envp; envp++)
		if (strncmp(*envp, "PATH=", 5) == 0)
			return *envp + 5;
	return DEFAULT_PATH;
}

/*
 * run becomes the program, found as a shell finds it, but never hands a file
 * without a known format to a shell. It does not return.
 */
static void __attribute__((noreturn)) run(const struct job *j, char **argv, char **envp)
{
	char path[4096];
	const char *dir, *end;
	size_t name = strlen(argv[0]);
	int err = ENOENT, e;
	struct stat st;

	if (name == 0)
		fail(j, WHERRY_EXEC, ENOENT);
	if (strchr(argv[0], '/')) {
		execve(argv[0], argv, envp);
		e = errno;
		/* A script whose interpreter is missing, or a binary whose loader is, gives ENOENT too: not the same as no such file. */
		if (e == ENOENT && stat(argv[0], &st) == 0)
			fail(j, WHERRY_INTERPRETER, e);
		fail(j, WHERRY_EXEC, e);
	}
	for (dir = search_path(envp);; dir = end + 1) {
		end = strchrnul(dir, ':');
		size_t len = end - dir;
		if (len + name + 2 <= sizeof(path)) {
			memcpy(path, len ? dir : ".", len ? len : 1);
			len = len ? len : 1;
			path[len] = '/';
			memcpy(path + len + 1, argv[0], name + 1);
			execve(path, argv, envp);
			e = errno;
			if (e == ENOENT && stat(path, &st) == 0)
				fail(j, WHERRY_INTERPRETER, e);
			if (e == EACCES)
				err = EACCES; /* go on looking, but do not forget */
			else if (e != ENOENT && e != ENOTDIR && e != ENAMETOOLONG && e != ELOOP)
				fail(j, WHERRY_EXEC, e);
		}
		if (*end == 0)
			break;
	}
	fail(j, WHERRY_EXEC, err);
}

/* fresh_signals gives the program the dispositions every program expects. */
static void fresh_signals(void)
{
	sigset_t none;
	int sig;

	for (sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* unread is how many bytes of output nobody has copied yet. */
static int unread(int fd)
{
	struct stat st;
	int n = 0;

	if (fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode) || ioctl(fd, FIONREAD, &n) < 0)
		return 0;
	return n;
}

/*
 * linger waits until the output is in the log: a pipe that nobody holds open
 * loses what is in it, and while no keeper lives only we hold it. With a keeper
 * this takes some microseconds.
 */
static void linger(const sigset_t *all)
{
	struct timespec pause = {.tv_nsec = 100 * 1000};

	while (unread(1) > 0 || unread(2) > 0) {
		sigtimedwait(all, NULL, &pause);
		if (pause.tv_nsec < 100 * 1000 * 1000)
			pause.tv_nsec *= 2;
	}
}

/* end_others ends and reaps all that is left of the container. */
static void end_others(const sigset_t *all)
{
	struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
	pid_t pid;

	if (getpid() != 1)
		return; /* not our namespace: the keeper knows by the control group who is left */
	kill(-1, SIGKILL);
	while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0)
		if (pid == 0)
			sigtimedwait(all, NULL, &pause);
}

/*
 * finish writes how the program ended where it outlives the keeper, and ends
 * as the program did, as far as an exit code can say so.
 */
static void __attribute__((noreturn)) finish(const struct job *j, int status, const sigset_t *all)
{
	struct timespec now = {0};

	clock_gettime(CLOCK_REALTIME, &now);
	if (j->page) {
		j->page->status = status;
		j->page->seconds = now.tv_sec;
		j->page->nanoseconds = now.tv_nsec;
		__atomic_store_n(&j->page->magic, WHERRY_RECORD_MAGIC, __ATOMIC_RELEASE); /* last: it makes the rest valid */
	}
	end_others(all);
	linger(all);
	/* The end of a session's leader hangs its terminal up, and what is still on its way to the other side is dropped. */
	ioctl(0, TIOCNOTTY);
	_exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

/*
 * rename_args makes the process look like "wherry-init PROGRAM ARG..." in
 * process lists, in the place where the kernel reads the arguments from.
 */
static void rename_args(char **argv)
{
	char *from = argv[3], *to = argv[0] + sizeof(TRIGGER), *end = from;
	int i;

	for (i = 3; argv[i]; i++)
		end = argv[i] + strlen(argv[i]) + 1;
	if (from < to)
		return;
	memcpy(argv[0], TRIGGER, sizeof(TRIGGER));
	memmove(to, from, end - from);
	memset(to + (end - from), 0, end - (to + (end - from)));
}

/*
 * drop_input lets the program read the end of its input, if the keeper has said so. Until then we hold
 * the pipe open, whoever else comes and goes: a keeper's end must not be taken for it.
 */
static void drop_input(struct job *j)
{
	if (j->input < 0 || !j->page || !__atomic_load_n(&j->page->input_closed, __ATOMIC_ACQUIRE))
		return;
	close(j->input);
	j->input = -1;
}

/* supervise is the life of init beside its child. */
static void __attribute__((noreturn)) supervise(struct job *j, pid_t child, const sigset_t *all)
{
	siginfo_t info;
	pid_t pid;
	int sig, status;

	for (;;) {
		sig = sigwaitinfo(all, &info);
		if (sig < 0)
			continue; /* EINTR after a stop and continue */
		drop_input(j);
		if (sig != SIGCHLD) {
			kill(child, sig);
			continue;
		}
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			if (pid == child)
				finish(j, status, all);
	}
}

static void __attribute__((noreturn)) init(struct job *j, char **argv, char **envp)
{
	sigset_t all;
	pid_t child, group;

	/* Blocked signals wait for sigwaitinfo, also those that the kernel would never deliver to a PID 1 without a handler. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	if (j->input >= 0)
		fcntl(j->input, F_SETFD, FD_CLOEXEC);
	child = fork();
	if (child < 0)
		fail(j, WHERRY_FORK, errno);
	if (child == 0) {
		if (j->late)
			load_filter(j);
		/* A group of its own, in the foreground of the terminal if there is one. */
		setpgid(0, 0);
		group = getpid();
		ioctl(0, TIOCSPGRP, &group);
		fresh_signals();
		run(j, argv + 3, envp);
	}
	if (j->input >= 0)
		close(0); /* we do not read it: a writer shall see if the program does not either */
	rename_args(argv);
	if (j->late && wherry_confine() != 0)
		kill(child, SIGKILL); /* its end is seen and told as any other */
	if (j->err >= 0)
		close(j->err); /* last: the start is over with it, and then all this holds */
	supervise(j, child, &all);
}

static void __attribute__((constructor(101))) wherry_init(int argc, char **argv, char **envp)
{
	struct job j;

	if (argc < 4 || strcmp(argv[1], TRIGGER) != 0)
		return;
	j = parse(argv);
	prctl(PR_SET_NAME, TRIGGER, 0, 0, 0);
	/* Nobody in the container shall look into our descriptors or at our binary, root included (CVE-2019-5736 and its relatives). */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	close(j.exe);
	greet(&j);
	map_record(&j);
	if (!j.late)
		load_filter(&j);
	if (j.init)
		init(&j, argv, envp);
	fresh_signals();
	run(&j, argv + 3, envp);
}
