/* SPDX-License-Identifier: Apache-2.0
 * pam_mfa.so: relays one PAM call to the verifier and its prompts to the person. It holds no
 * secret, no policy and no cryptography. Every call starts from "unavailable"; only a whole,
 * version-matched verdict frame for this very request changes that. */
#define _GNU_SOURCE
#include "channel.h"
#include "frame.h"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <syslog.h>
#include <unistd.h>
#include <security/pam_modules.h>
#include <security/pam_ext.h>
#include <security/pam_modutil.h>

enum {
	TIMEOUT_DEFAULT = 110, TIMEOUT_MAX = 600,	/* seconds; sshd's LoginGraceTime is 120 */
	FRAMES_MAX = 64,	/* from the verifier in one call: a flood ends here */
	DIGITS_MIN = 6, DIGITS_MAX = 8,
};

struct call {
	pam_handle_t *pamh;
	enum phase phase;
	int flags, fd;
	const char *root;
	bool debug;
	unsigned timeout, forward_digits;	/* 0: no forward_pass */
	long long deadline;
	unsigned char nonce[NONCE_SIZE];
	struct frame frame;	/* the one room for what is sent, wiped then, and what is received */
};

/* An argument that is not understood is refused: half of what was asked for is a hole. */
static bool read_arguments(struct call *call, int argc, const char **argv)
{
	for (int i = 0; i < argc; i++) {
		char more, number[4] = "";
		if (strncmp(argv[i], "root=/", 6) == 0)
			call->root = argv[i] + 5;
		else if (strcmp(argv[i], "debug") == 0)
			call->debug = true;
		else if (strcmp(argv[i], "forward_pass") == 0)
			call->forward_digits = DIGITS_MIN;
		else if (sscanf(argv[i], "forward_pass=%1[6-8]%c", number, &more) == 1)
			call->forward_digits = (unsigned)atoi(number);
		else if (sscanf(argv[i], "timeout=%3[0-9]%c", number, &more) != 1 ||
			 (call->timeout = (unsigned)atoi(number)) < 1 || call->timeout > TIMEOUT_MAX) {
			pam_syslog(call->pamh, LOG_ERR, "argument '%s' is not one of root=/DIR, "
				   "timeout=1..%d, debug, forward_pass[=6..8]", argv[i], TIMEOUT_MAX);
			return false;
		}
	}
	return true;
}

static const void *get_item(pam_handle_t *pamh, int type)
{
	const void *value = NULL;
	return pam_get_item(pamh, type, &value) == PAM_SUCCESS ? value : NULL;
}

static bool send_frame(struct call *call, int beside)
{
	bool sent = !call->frame.overflow &&
		channel_send(call->fd, call->frame.data, call->frame.size, beside);
	explicit_bzero(call->frame.data, call->frame.size);
	return sent;
}

static void build_request(struct call *call, const char *user, bool has_agent)
{
	struct frame *frame = &call->frame;
	pam_handle_t *pamh = call->pamh;
	const struct passwd *account = pam_modutil_getpwnam(pamh, user);
	frame_begin(frame, REQUEST, call->nonce);
	frame_put_number(frame, TAG_PHASE, call->phase);
	frame_put_number(frame, TAG_FLAGS, (uint32_t)call->flags);
	frame_put_number(frame, TAG_TIMEOUT, call->timeout);
	frame_put_text(frame, TAG_USER, user);
	if (account != NULL)
		frame_put_number(frame, TAG_UID, account->pw_uid);
	frame_put_text(frame, TAG_SERVICE, get_item(pamh, PAM_SERVICE));
	frame_put_text(frame, TAG_TTY, get_item(pamh, PAM_TTY));
	frame_put_text(frame, TAG_RHOST, get_item(pamh, PAM_RHOST));
	frame_put_text(frame, TAG_RUSER, get_item(pamh, PAM_RUSER));
	/* The PAM environment, which sshd writes; never the process's, which a user writes. */
	if (call->forward_digits == 0)	/* else the password is asked for, too */
		frame_put_text(frame, TAG_SSH_AUTH_INFO, pam_getenv(pamh, "SSH_AUTH_INFO_0"));
	frame_put_text(frame, TAG_SSH_CONNECTION, pam_getenv(pamh, "SSH_CONNECTION"));
	frame_put_text(frame, TAG_DESCRIPTORS, has_agent ? AGENT : NULL);
}

static void wipe(char *text)
{
	if (text != NULL)
		explicit_bzero(text, strlen(text));
	free(text);
}

/* One message through the host's conversation; the answer is the caller's to wipe. */
static char *converse(struct call *call, int style, const char *text)
{
	const struct pam_conv *conversation = get_item(call->pamh, PAM_CONV);
	const struct pam_message message = { .msg_style = style, .msg = text };
	const struct pam_message *messages[] = { &message };
	struct pam_response *responses = NULL;
	/* After a failure the array is nobody's: hosts have freed it and left the pointer. */
	if (conversation == NULL || conversation->conv == NULL ||
	    conversation->conv(1, messages, &responses, conversation->appdata_ptr) != PAM_SUCCESS ||
	    responses == NULL)
		return NULL;
	char *answer = responses[0].resp;
	free(responses);
	return answer;
}

/* forward_pass: the answer is the password with the code behind it. The password goes on to the
 * next module as PAM_AUTHTOK, in this process only; the code is left, empty if it is not whole. */
static void split_password(struct call *call, char *answer)
{
	size_t length = strlen(answer), split = length, digits = call->forward_digits;
	char code[DIGITS_MAX + 1] = "";
	while (split > 0 && length - split < digits && isdigit((unsigned char)answer[split - 1]))
		split--;
	if (length - split < digits)
		split = length;
	memcpy(code, answer + split, length - split);
	answer[split] = '\0';
	pam_set_item(call->pamh, PAM_AUTHTOK, answer);
	explicit_bzero(answer, length);
	memcpy(answer, code, length - split);
	explicit_bzero(code, sizeof(code));
}

/* Show the verifier's prompt and send what was answered, or that nobody could be asked. */
static bool relay_question(struct call *call, int style, const char *text, bool is_code)
{
	char joined[PAM_MAX_MSG_SIZE + 16], *answer;
	bool forward = call->forward_digits != 0 && is_code;
	if (forward)
		snprintf(joined, sizeof(joined), "Password and %c%s",
			 tolower((unsigned char)text[0]), text + 1);
	answer = converse(call, style, forward ? joined : text);
	if (forward && answer != NULL)
		split_password(call, answer);
	frame_begin(&call->frame, answer != NULL ? ANSWER : ABORT, call->nonce);
	if (answer != NULL)	/* a cut answer is longer than any code, so never a right one */
		frame_put(&call->frame, TAG_TEXT, answer, strnlen(answer, ANSWER_MAX));
	wipe(answer);
	return send_frame(call, -1);
}

static bool relay_prompt(struct call *call, const struct fields *fields)
{
	size_t size = fields->by_tag[TAG_TEXT].size;
	char text[PAM_MAX_MSG_SIZE];
	if (fields->tags != (1U << TAG_STYLE | 1U << TAG_TEXT | 1U << TAG_IS_CODE) || size == 0 ||
	    size >= sizeof(text) || fields->by_tag[TAG_STYLE].size != 1 ||
	    fields->by_tag[TAG_IS_CODE].size != 1)
		return false;
	memcpy(text, fields->by_tag[TAG_TEXT].value, size);
	text[size] = '\0';
	int style = *fields->by_tag[TAG_STYLE].value;
	if (style == PAM_PROMPT_ECHO_OFF || style == PAM_PROMPT_ECHO_ON)
		return relay_question(call, style, text, *fields->by_tag[TAG_IS_CODE].value != 0);
	if (style != PAM_ERROR_MSG && style != PAM_TEXT_INFO)
		return false;
	/* PAM_SILENT, too: sudo always sets it, and a touch nobody knows of never comes. */
	wipe(converse(call, style, text));
	return true;
}

static int pam_result(enum phase phase, const struct fields *fields)
{
	const int denied[] = { [PHASE_AUTH] = PAM_AUTH_ERR, [PHASE_ACCOUNT] = PAM_PERM_DENIED,
			       [PHASE_SESSION] = PAM_SESSION_ERR };
	const struct field *result = &fields->by_tag[TAG_RESULT];
	if (fields->tags != 1U << TAG_RESULT || result->size != 1)
		return PAM_AUTHINFO_UNAVAIL;
	/* pam-u2f CVE-2025-23013: to PAM_IGNORE leads only the policy's own word */
	return *result->value == RESULT_SUCCESS ? PAM_SUCCESS :
		*result->value == RESULT_IGNORE ? PAM_IGNORE :
		*result->value == RESULT_DENIED ? denied[phase] : PAM_AUTHINFO_UNAVAIL;
}

static int relay(struct call *call, const char **why)
{
	struct fields fields;
	for (int frames = 0; frames < FRAMES_MAX; frames++) {
		ssize_t size = channel_receive(call->fd, call->frame.data, FRAME_MAX, call->deadline);
		*why = now_ms() >= call->deadline ? "the time ran out" : errno == EINTR ?
			"a signal ended it" : "the verifier closed the connection without a verdict";
		/* An answer typed after the deadline is late, whatever the verifier says of it. */
		if (size < 0 || now_ms() >= call->deadline)
			break;
		*why = "the verifier sent what is no frame of this version for this request";
		if (!frame_read(call->frame.data, (size_t)size, call->nonce, &fields))
			break;
		if (fields.type == VERDICT) {
			*why = "the verifier could not decide; its log says why";
			return pam_result(call->phase, &fields);
		}
		if (fields.type != PROMPT || !relay_prompt(call, &fields))
			break;
	}
	return PAM_AUTHINFO_UNAVAIL;
}

static int ask_verifier(struct call *call, const char **why)
{
	const char *user = NULL;
	int status = PAM_AUTHINFO_UNAVAIL;
	*why = "PAM names no user, or the kernel gave no random bytes";
	if (pam_get_user(call->pamh, &user, NULL) != PAM_SUCCESS || user == NULL || *user == '\0' ||
	    getrandom(call->nonce, sizeof(call->nonce), 0) != sizeof(call->nonce))
		return status;
	call->deadline = now_ms() + call->timeout * 1000LL;
	call->fd = channel_open(call->root, call->deadline, why);
	if (call->fd < 0)
		return status;
	*why = "the request could not be sent";
	int agent = call->phase == PHASE_SESSION || call->forward_digits != 0 ? -1 : agent_open();
	build_request(call, user, agent >= 0);	/* the verifier wakes meanwhile */
	bool sent = send_frame(call, agent);
	close(agent);
	if (sent)
		status = relay(call, why);
	close(call->fd);
	return status;
}

static int verify(pam_handle_t *pamh, enum phase phase, int flags, int argc, const char **argv)
{
	struct call call = { .pamh = pamh, .phase = phase, .flags = flags, .root = "",
			     .timeout = TIMEOUT_DEFAULT };
	const char *why = "of a wrong argument in the PAM file";
	int status = PAM_AUTHINFO_UNAVAIL;
	if (read_arguments(&call, argc, argv))
		status = ask_verifier(&call, &why);
	if (status == PAM_AUTHINFO_UNAVAIL)
		pam_syslog(pamh, LOG_ERR, "refused, for there is no verdict: %s", why);
	else if (call.debug)
		pam_syslog(pamh, LOG_DEBUG, "phase %d: %s", phase, pam_strerror(pamh, status));
	return status == PAM_AUTHINFO_UNAVAIL && phase == PHASE_SESSION ? PAM_SESSION_ERR : status;
}

#define ENTRY(name, result) \
	int name(pam_handle_t *pamh, int flags, int argc, const char **argv) \
	{ (void)pamh, (void)flags, (void)argc, (void)argv; return result; }

ENTRY(pam_sm_authenticate, verify(pamh, PHASE_AUTH, flags, argc, argv))
ENTRY(pam_sm_acct_mgmt, verify(pamh, PHASE_ACCOUNT, flags, argc, argv))
ENTRY(pam_sm_open_session, verify(pamh, PHASE_SESSION, flags, argc, argv))
/* Nothing is handed out at log-in, so there is nothing to set or to take back. */
ENTRY(pam_sm_setcred, PAM_SUCCESS)
ENTRY(pam_sm_close_session, PAM_SUCCESS)
