/*
 * The keep of a scope. systemd makes a scope around a process and takes it away
 * with the last one, so each scope that containers of a run stand under has a
 * sleeping process of its own: whatever the containers do, their groups, and
 * what the kernel counts in them, are there until the keeper has read it.
 *
 *     wherry-keeper wherry-scope
 *
 * Standard input is a pipe, whose end before its first byte means that the
 * keeper is gone and that nobody will ever know of us. As in holder.c, a
 * constructor takes over and never returns. SIGTERM ends it: it is what systemd
 * sends when the scope, or the host, is stopped.
 */
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define SCOPE "wherry-scope"

static void __attribute__((constructor(101))) wherry_scope(int argc, char **argv)
{
	sigset_t all;
	char c;

	if (argc != 2 || strcmp(argv[1], SCOPE) != 0)
		return;
	prctl(PR_SET_NAME, SCOPE, 0, 0, 0);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	if (chdir("/") < 0 || read(0, &c, 1) != 1)
		_exit(1);
	close(0);
	memset(argv[1], 0, strlen(argv[1])); /* once is enough in process lists */
	while (sigwaitinfo(&all, NULL) != SIGTERM)
		;
	_exit(0);
}
