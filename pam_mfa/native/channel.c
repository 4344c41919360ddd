/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "channel.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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

int above_standard(int fd)
{
	int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	close(fd);
	return moved;
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
	int fd = above_standard(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
	if (fd < 0)
		return -1;
	int error = EINTR;
	for (long long left; error == EINTR && (left = deadline - now_ms()) > 0;) {
		struct timeval wait = { left / 1000, left % 1000 * 1000 };
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
		error = connect(fd, (struct sockaddr *)&address, sizeof(address)) ? errno : 0;
	}
	if (error == 0)
		return fd;
	close(fd);
	/* Only "nobody listens" starts a verifier; a full queue or a refusal does not. */
	if (error == ENOENT || error == ECONNREFUSED)
		return verifier_start(root, deadline, why);
	*why = "the verifier's socket did not take the connection";
	return -1;
}

int agent_open(void)
{
	static const char name[] = "SSH_AUTH_SOCK=";
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct ucred peer = { .uid = 0 };
	struct stat found;
	const char *path = "";
	uid_t user = getuid();
	/* Not getenv, which sudo answers from what it keeps for its command. */
	for (char **entry = environ; entry != NULL && *entry != NULL; entry++)
		if (strncmp(*entry, name, sizeof(name) - 1) == 0)
			path = *entry + sizeof(name) - 1;
	/* Setuid programs alone: what root starts may have an administrator's variable by chance. */
	if (user == 0 || geteuid() != 0 || *path != '/' || strlen(path) >= sizeof(address.sun_path))
		return -1;
	strcpy(address.sun_path, path);
	int fd = above_standard(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	/* The way is walked with the user's rights, in this thread alone: glibc would change all. */
	long gid = syscall(SYS_setfsgid, getgid()), uid = syscall(SYS_setfsuid, user);
	bool connected = (uid_t)syscall(SYS_setfsuid, -1) == user && lstat(path, &found) == 0 &&
		S_ISSOCK(found.st_mode) && found.st_uid == user &&
		connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
	syscall(SYS_setfsuid, uid), syscall(SYS_setfsgid, gid);
	/* What was looked at may have been replaced since: whoever listens must be the user. */
	if (connected && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer,
				    &(socklen_t){ sizeof(peer) }) == 0 && peer.uid == user)
		return fd;
	close(fd);
	return -1;
}

/* Never waits: a socket holds more than the frames of any honest conversation. */
bool channel_send(int fd, const void *data, size_t size, int beside)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = "";
	struct cmsghdr *header = (struct cmsghdr *)control;
	struct iovec part = { (void *)data, size };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = beside < 0 ? 0 : sizeof(control) };
	header->cmsg_len = CMSG_LEN(sizeof(int));
	header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS;
	memcpy(CMSG_DATA(header), &beside, sizeof(int));
	return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

/* -1, too, with errno EINTR, when the host gets a signal that ends programs. sudo blocks Ctrl-C or
 * only notes it, and would wait on for the touch of a key. Blocked here and left pending, the
 * signal does afterwards what the host has it do. */
ssize_t channel_receive(int fd, void *data, size_t capacity, long long deadline)
{
	const int endings[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, 0 };
	struct iovec part = { data, capacity };
	/* No room for control data: descriptors that a liar sends the kernel closes. */
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
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
	ssize_t size = waits[0].revents != 0 ? recvmsg(fd, &message, MSG_DONTWAIT) : -1;
	return size > 0 && (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 ? size : -1;
}
