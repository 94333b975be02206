/*
 * The cargo process: it owns the control group that systemd has delegated, and
 * below which all containers stand, by doing nothing in it.
 *
 *     wherry-keeper cargo
 *
 * It moves to a group below its own, because a v2 group with processes cannot
 * share out controllers (systemd 254 has DelegateSubgroup= for this, 252 has
 * not), says that it is ready (sd_notify(3)), and sleeps until SIGTERM. As in
 * init.c a constructor takes over, so that it takes a few pages of memory only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CARGO "cargo"
#define TREE "/sys/fs/cgroup"
#define LEAF "/cargo" /* DelegateSubgroup= of the service */

static void __attribute__((noreturn)) fail(const char *what)
{
	const char *words[] = {"wherry-cargo: ", what, ": ", strerror(errno), "\n"};
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (write(2, words[i], strlen(words[i])) < 0)
			break;
	_exit(1);
}

/* own_group is the path of our group of v2 below the mounted tree; NULL where v2 is not alone. */
static char *own_group(char *buf, size_t size)
{
	int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);
	char *end;

	if (n < 0)
		fail("read /proc/self/cgroup");
	close(fd);
	buf[n] = 0;
	if (strncmp(buf, "0::/", 4) != 0) /* v1 puts its hierarchies before */
		return NULL;
	end = strchr(buf, '\n');
	if (end)
		*end = 0;
	return buf + 3;
}

static void move_down(void)
{
	static char buf[4096], path[4096 + 64];
	char *group = own_group(buf, sizeof(buf));
	size_t len = group ? strlen(group) : 0;
	int fd;

	if (!group || (len >= strlen(LEAF) && strcmp(group + len - strlen(LEAF), LEAF) == 0))
		return;
	strcat(strcat(strcpy(path, TREE), group), LEAF);
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		fail(path);
	strcat(path, "/cgroup.procs");
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		fail(path);
	close(fd);
}

static void notify(const char *text)
{
	const char *to = getenv("NOTIFY_SOCKET");
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	socklen_t len;
	int fd;

	if (!to || (*to != '/' && *to != '@') || strlen(to) >= sizeof(a.sun_path))
		return;
	strcpy(a.sun_path, to);
	len = offsetof(struct sockaddr_un, sun_path) + strlen(to);
	if (*to == '@')
		a.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&a, len) < 0)
		fail("notify");
	close(fd);
}

static void __attribute__((constructor(101))) wherry_cargo(int argc, char **argv)
{
	sigset_t all;
	int signal;

	if (argc != 2 || strcmp(argv[1], CARGO) != 0)
		return;
	prctl(PR_SET_NAME, "wherry-cargo", 0, 0, 0);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	move_down();
	notify("READY=1");
	do
		signal = sigwaitinfo(&all, NULL);
	while (signal != SIGTERM);
	_exit(0);
}
