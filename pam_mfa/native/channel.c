/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "channel.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

long long now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Bound the next connect or send; false when the time is up. */
static bool set_timeout(int fd, long long deadline)
{
	long long left = deadline - now_ms();
	struct timeval wait = { left / 1000, left % 1000 * 1000 };
	return left > 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) == 0;
}

static int connect_until(int fd, const struct sockaddr_un *address, long long deadline)
{
	errno = ETIMEDOUT;
	while (set_timeout(fd, deadline) &&
	       connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0)
		if (errno != EINTR)
			return errno;
	return deadline > now_ms() ? 0 : ETIMEDOUT;
}

int channel_open(const char *root, long long deadline, const char **why)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t size = sizeof(address.sun_path);
	*why = "root= is too long for a socket's path";
	/* Root's callers and the others are served by two processes: see verifier/companion.py. */
	if ((size_t)snprintf(address.sun_path, size, "%s/run/pam_mfa/verify%s.sock", root,
			     geteuid() == 0 ? "" : "-self") >= size)
		return -1;
	*why = "no descriptor for a socket";
	/* Above 2: a host that closed its standard descriptors may still talk through them. */
	int low = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), fd = fcntl(low, F_DUPFD_CLOEXEC, 3);
	close(low);
	if (fd < 0)
		return -1;
	int error = connect_until(fd, &address, deadline);
	if (error == 0)
		return fd;
	close(fd);
	/* Only "nobody listens" starts a verifier; a full queue or a refusal does not. */
	if (error == ENOENT || error == ECONNREFUSED)
		return verifier_start(PAM_MFAD, root, deadline, why);
	*why = "the verifier's socket did not take the connection";
	return -1;
}

bool channel_send(int fd, const void *data, size_t size, long long deadline)
{
	while (set_timeout(fd, deadline)) {
		ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
		if (sent >= 0 || errno != EINTR)
			return sent == (ssize_t)size;
	}
	return false;
}

/* False when the time is up, or, with errno EINTR, when the host gets a signal that ends programs.
 * sudo blocks Ctrl-C or only notes it, and would wait on for the touch of a key. Blocked here and
 * left pending, the signal does afterwards what the host has it do. */
static bool await_packet(int fd, long long deadline)
{
	const int endings[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, 0 };
	long long left;
	sigset_t watched, before;
	struct sigaction action;
	sigemptyset(&watched);
	for (const int *number = endings; *number != 0; number++)
		if (sigaction(*number, NULL, &action) == 0 && action.sa_handler != SIG_IGN)
			sigaddset(&watched, *number);
	sigprocmask(SIG_BLOCK, &watched, &before);
	struct pollfd waits[] = { { fd, POLLIN, 0 },
				  { signalfd(-1, &watched, SFD_CLOEXEC), POLLIN, 0 } };
	while ((left = deadline - now_ms()) > 0 && poll(waits, 2, (int)left) < 0 && errno == EINTR)
		;	/* stopped and continued, or what a handler does */
	close(waits[1].fd);
	sigprocmask(SIG_SETMASK, &before, NULL);
	errno = waits[1].revents != 0 ? EINTR : 0;
	return waits[0].revents != 0;
}

ssize_t channel_receive(int fd, void *data, size_t capacity, long long deadline)
{
	struct iovec part = { data, capacity };
	/* No room for control data: descriptors that a liar sends the kernel closes. */
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	if (!await_packet(fd, deadline))
		return -1;
	ssize_t size = recvmsg(fd, &message, MSG_DONTWAIT);
	return size > 0 && (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 ? size : -1;
}
