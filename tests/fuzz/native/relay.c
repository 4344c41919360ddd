/* SPDX-License-Identifier: Apache-2.0
 * Fuzzes the whole module but for the start of a verifier: every call of libc and libpam that can
 * fail is one of these, led by the input. Whatever happens, success and "ignore" are told only
 * right after a whole verdict that says so; that is judged here, by nothing of the module's. */
#define _GNU_SOURCE
#include "channel.h"
#include "frame.h"
#include <errno.h>
#include <poll.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <security/pam_modules.h>

enum { SOCKET = 1000, SIGNALS = 1001, OPENED = 3, ARGUMENTS = 8 };
int pam_sm_authenticate(pam_handle_t *, int, int, const char **);
int pam_sm_acct_mgmt(pam_handle_t *, int, int, const char **);
int pam_sm_open_session(pam_handle_t *, int, int, const char **);
void *__real_calloc(size_t, size_t);

static struct {
	const unsigned char *at, *end;
	unsigned char nonce[NONCE_SIZE];
	unsigned char last[64];		/* the packet handed out last */
	ssize_t last_size;
	long long now;			/* milliseconds */
	int opened;			/* descriptors that the module has to close */
	char password[8192];
} it;

/* One choice of the input; 0, the ordinary course, where the input has ended. */
static unsigned choose(unsigned choices)
{
	return it.at < it.end ? *it.at++ % choices : 0;
}

static int fail(int error)
{
	errno = error;
	return -1;
}

void *__wrap_calloc(size_t count, size_t size) { return choose(16) == 15 ? NULL : __real_calloc(count, size); }
int __wrap_socket(int a, int b, int c) { (void)a, (void)b, (void)c; return choose(16) == 15 ? fail(EMFILE) : SOCKET + 10; }
int __wrap_connect(int fd, const void *a, socklen_t b)
{
	const int errors[] = { ENOENT, ECONNREFUSED, EAGAIN, EACCES, EINTR, ETIMEDOUT };
	(void)fd, (void)a, (void)b;
	unsigned choice = choose(32);
	return choice < 26 ? 0 : fail(errors[choice - 26]);
}
int __wrap_fcntl(int fd, int command, ...)
{
	(void)command;
	if (fd < 0 || choose(16) == 15)
		return fail(EMFILE);
	it.opened++;
	return SOCKET;
}
int __wrap_close(int fd) { it.opened -= fd == SOCKET; return 0; }
int __wrap_setsockopt(int a, int b, int c, const void *d, socklen_t e) { (void)a, (void)b, (void)c, (void)d, (void)e; return choose(32) == 31 ? fail(ENOMEM) : 0; }
int __wrap_signalfd(int a, const sigset_t *b, int c) { (void)a, (void)b, (void)c; return choose(16) == 15 ? fail(EMFILE) : SIGNALS; }
ssize_t __wrap_getrandom(void *data, size_t size, unsigned flags)
{
	(void)flags;
	unsigned choice = choose(16);
	memset(data, 'n', size);
	memcpy(it.nonce, data, NONCE_SIZE);
	return choice == 15 ? fail(ENOSYS) : choice == 14 ? (ssize_t)size - 1 : (ssize_t)size;
}
int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
	(void)clock;
	it.now += choose(32) == 31 ? 300000 : 1;
	*now = (struct timespec){ it.now / 1000, it.now % 1000 * 1000000 };
	return 0;
}
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
	size_t size = message->msg_iov->iov_len;
	(void)fd, (void)flags;
	unsigned choice = choose(32);
	it.now++;
	return choice == 31 ? fail(EPIPE) : choice == 30 ? fail(EINTR) : choice == 29 ? (ssize_t)size - 1 : (ssize_t)size;
}
int __wrap_poll(struct pollfd *waits, nfds_t count, int timeout)
{
	unsigned choice = choose(32);
	(void)timeout;
	it.now++;
	for (nfds_t i = 0; i < count; i++)
		waits[i].revents = 0;
	waits[0].revents = choice < 29 ? POLLIN : 0;
	waits[1].revents = choice == 29 || choice == 28 ? POLLIN : 0;
	return choice == 31 ? fail(EINTR) : choice == 30 ? fail(ENOMEM) : 1;
}

static size_t put_any(unsigned char *at, size_t size)
{
	size_t left = (size_t)(it.end - it.at), body = size < left ? size : left;
	memcpy(at, it.at, body);
	it.at += body;
	return body;
}

/* A verdict or a prompt as the verifier sends them: by chance alone one would seldom be met. */
static size_t put_good(unsigned char *at, int is_verdict)
{
	const unsigned char verdict[] = { TAG_RESULT, 0, 1, (unsigned char)choose(6) };
	const unsigned char prompt[] = { TAG_STYLE, 0, 1, (unsigned char)choose(6), TAG_IS_CODE, 0, 1,
					 (unsigned char)choose(2), TAG_TEXT, 0, 5, 'C', 'o', 'd', 'e', ':' };
	memcpy(at, is_verdict ? verdict : prompt, is_verdict ? sizeof(verdict) : sizeof(prompt));
	return is_verdict ? sizeof(verdict) : sizeof(prompt);
}

/* A packet: what the input has, behind a header that is right unless the input says otherwise. */
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags)
{
	unsigned kind = choose(16), is_odd = choose(8) == 7;
	size_t size = kind % 6 < 3 ? 0 : choose(256), room = message->msg_iov->iov_len;
	static unsigned char packet[2 * FRAME_MAX];
	(void)fd, (void)flags;
	it.last_size = -1;
	if (kind == 15)
		return fail(EAGAIN);
	if (kind == 14)
		return 0;
	packet[0] = is_odd ? (unsigned char)choose(256) : PROTOCOL_VERSION;
	packet[1] = kind == 13 || kind < 6 ? VERDICT : kind < 12 ? PROMPT : (unsigned char)choose(256);
	memcpy(packet + 2, it.nonce, NONCE_SIZE);
	if (is_odd)
		packet[2 + choose(NONCE_SIZE)] ^= (unsigned char)choose(256);
	size_t body = kind % 6 < 3 ? put_good(packet + HEADER_SIZE, kind < 6) : put_any(packet + HEADER_SIZE, size);
	size = HEADER_SIZE + body;
	if (kind == 13) {	/* longer than a frame */
		memset(packet + size, 0, sizeof(packet) - size);
		size = FRAME_MAX + choose(256);
	}
	message->msg_flags = size > room ? MSG_TRUNC : choose(32) == 31 ? MSG_CTRUNC : 0;
	size_t given = size < room ? size : room;
	memcpy(message->msg_iov->iov_base, packet, given);
	it.last_size = message->msg_flags == 0 ? (ssize_t)given : -1;
	memcpy(it.last, packet, sizeof(it.last));
	return (ssize_t)given;
}

int verifier_start(const char *root, long long deadline, const char **why)
{
	(void)root, (void)deadline;
	*why = "none here";
	if (choose(4) == 3)
		return -1;
	it.opened++;
	return SOCKET;
}

static int converse(int count, const struct pam_message **messages,
		    struct pam_response **responses, void *data)
{
	unsigned choice = choose(16);
	size_t size = choice == 12 ? 4096 : choose(40), left = (size_t)(it.end - it.at);
	(void)data;
	if (count != 1 || memchr(messages[0]->msg, '\0', PAM_MAX_MSG_SIZE + 16) == NULL)
		abort();
	if (choice == 15)
		return PAM_CONV_ERR;
	*responses = choice == 14 ? NULL : __real_calloc(1, sizeof(**responses));
	if (*responses == NULL || choice == 13)
		return PAM_SUCCESS;
	char *answer = __real_calloc(1, size + 1);
	memset(answer, '7', size);
	if (choice != 12)
		memcpy(answer, it.at, size < left ? size : left);
	responses[0]->resp = answer;
	return PAM_SUCCESS;
}

int pam_get_user(pam_handle_t *pamh, const char **user, const char *prompt)
{
	(void)pamh, (void)prompt;
	unsigned choice = choose(16);
	*user = choice == 14 ? NULL : choice == 13 ? "" : "alice";
	return choice == 15 ? PAM_CONV_ERR : PAM_SUCCESS;
}
int pam_get_item(const pam_handle_t *pamh, int type, const void **item)
{
	static const struct pam_conv conversation = { converse, NULL }, none = { NULL, NULL };
	static char large[20000];
	(void)pamh;
	memset(large, 'x', sizeof(large) - 1);
	unsigned choice = choose(32);
	if (choice == 31)
		return PAM_BAD_ITEM;
	if (type == PAM_CONV)
		*item = choice == 30 ? NULL : choice == 29 ? &none : &conversation;
	else
		*item = choice < 16 ? NULL : choice == 30 ? large : "text";
	return PAM_SUCCESS;
}
int pam_set_item(pam_handle_t *pamh, int type, const void *item)
{
	(void)pamh;
	if (type != PAM_AUTHTOK)
		abort();
	snprintf(it.password, sizeof(it.password), "%s", (const char *)item);
	return PAM_SUCCESS;
}
const char *pam_getenv(pam_handle_t *pamh, const char *name)
{
	(void)pamh, (void)name;
	return choose(4) == 3 ? "publickey sk-ssh-ed25519@openssh.com AAAA" : NULL;
}
struct passwd *pam_modutil_getpwnam(pam_handle_t *pamh, const char *name)
{
	static struct passwd account = { .pw_name = "alice", .pw_uid = 1000 };
	(void)pamh, (void)name;
	return choose(4) == 3 ? NULL : &account;
}
void pam_syslog(const pam_handle_t *pamh, int priority, const char *format, ...)
{
	char line[8192];
	va_list arguments;
	(void)pamh, (void)priority;
	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
}
const char *pam_strerror(pam_handle_t *pamh, int status) { (void)pamh, (void)status; return ""; }

static int has_said(int result)
{
	const unsigned char tail[] = { TAG_RESULT, 0, 1, (unsigned char)result };
	return it.last_size == HEADER_SIZE + 4 && it.last[0] == PROTOCOL_VERSION &&
		it.last[1] == VERDICT && memcmp(it.last + 2, it.nonce, NONCE_SIZE) == 0 &&
		memcmp(it.last + HEADER_SIZE, tail, sizeof(tail)) == 0;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	const char *arguments[ARGUMENTS] = { "debug", "forward_pass", "forward_pass=8", "timeout=600",
					     "root=/x", "timeout=0", "nullok", "timeout=1" };
	memset(&it, 0, sizeof(it));
	it.at = data, it.end = data + size, it.last_size = -1, it.now = 1000;
	unsigned phase = choose(3), first = choose(ARGUMENTS), count = choose(3);
	if (first + count > ARGUMENTS)
		count = ARGUMENTS - first;
	int status = (phase == 0 ? pam_sm_authenticate : phase == 1 ? pam_sm_acct_mgmt :
		      pam_sm_open_session)((pam_handle_t *)&it, 0, (int)count, arguments + first);
	if (status == PAM_SUCCESS && !has_said(RESULT_SUCCESS))
		abort();
	if (status == PAM_IGNORE && !has_said(RESULT_IGNORE))
		abort();
	if (it.opened != 0)	/* a descriptor is left open, or closed twice */
		abort();
	return 0;
}
