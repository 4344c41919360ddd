/* SPDX-License-Identifier: Apache-2.0
 * Starts the verifier beside a host program that must not notice: no SIGCHLD, no child it could
 * wait for, no changed signal, descriptor, umask or environment. */
#define _GNU_SOURCE
#include "channel.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the invoking user of a setuid program set must not reach the verifier; the rest of the
 * user's surroundings it leaves itself: see verifier/surroundings.py. */
static void become_verifier(const char *root, int fd, unsigned seconds)
{
	char *arguments[] = { "pam-mfad", "--once", "3", "--root", (char *)root, NULL };
	char *environment[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", NULL };
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	int moved = fcntl(fd, F_DUPFD, 10), null = open("/dev/null", O_RDWR);
	sigset_t none;
	if (moved < 0 || null < 0 || chdir("/") != 0)
		return;
	for (int standard = 0; standard < 3; standard++)
		dup2(null, standard);
	dup2(moved, 3);
	if (syscall(SYS_close_range, 4U, ~0U, 0U) != 0)
		for (int open = 4; open < 65536; open++)	/* kernels before 5.9 */
			close(open);
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setrlimit(RLIMIT_AS, &unlimited);
	setrlimit(RLIMIT_DATA, &unlimited);
	syscall(SYS_ioprio_set, 1, 0, 0);
	setsid();
	alarm(seconds);		/* kept across exec: the kernel ends a verifier that hangs */
	execve(PAM_MFAD, arguments, environment);
}

/* A first child that sends no signal when it ends (a clone without one) starts the verifier as
 * its own child and ends: the host's SIGCHLD handler and its wait(-1) see neither of them.
 * _Fork: the fork handlers of a host that may have threads do not run. */
static bool start_detached(const char *root, int fd, unsigned seconds)
{
	sigset_t all, before;
	int status = 1;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid_t verifier, child = (pid_t)syscall(SYS_clone, 0UL, 0UL, 0UL, 0UL, 0UL);
	if (child == 0) {
		if ((verifier = _Fork()) == 0)
			become_verifier(root, fd, seconds);
		_exit(verifier <= 0);
	}
	while (child > 0 && waitpid(child, &status, (int)__WCLONE) < 0 && errno == EINTR)
		;
	sigprocmask(SIG_SETMASK, &before, NULL);
	return child > 0 && status == 0;
}

int verifier_start(const char *root, long long deadline, const char **why)
{
	long long left = deadline - now_ms();
	int pair[2];
	*why = "no verifier listens, and only root can start one";
	if (geteuid() != 0)
		return -1;
	*why = "no verifier listens, and " PAM_MFAD " could not be started";
	if (left <= 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
		return -1;
	int fd = above_standard(pair[0]);
	bool started = fd >= 0 && start_detached(root, pair[1], (unsigned)left / 1000 + 5);
	close(pair[1]);
	if (!started)
		close(fd);
	return started ? fd : -1;
}
