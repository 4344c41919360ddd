/* SPDX-License-Identifier: Apache-2.0
 * Frames of the verification protocol, described in pam_mfa/wire.py. Pure: no I/O, no PAM. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PROTOCOL_VERSION = 1, NONCE_SIZE = 16, HEADER_SIZE = 2 + NONCE_SIZE,
	FRAME_MAX = 32768, FIELD_MAX = 16384, ANSWER_MAX = 1024,	/* bytes */
};
enum { REQUEST = 0x01, ANSWER = 0x02, ABORT = 0x03, PROMPT = 0x81, VERDICT = 0x82 };
enum {	/* fields of a request */
	TAG_PHASE = 1, TAG_FLAGS, TAG_SERVICE, TAG_USER, TAG_UID, TAG_TTY, TAG_RHOST, TAG_RUSER,
	TAG_SSH_AUTH_INFO, TAG_SSH_CONNECTION, TAG_TIMEOUT, TAG_DESCRIPTORS, TAG_LAST = TAG_DESCRIPTORS,
};
#define AGENT "\1"	/* kind of a descriptor: a connection to the user's ssh-agent */
enum { TAG_STYLE = 1, TAG_TEXT, TAG_IS_CODE };	/* of a prompt; an answer has TAG_TEXT alone */
enum { TAG_RESULT = 1 };	/* of a verdict */
enum phase { PHASE_AUTH = 1, PHASE_ACCOUNT, PHASE_SESSION };
enum { RESULT_SUCCESS = 1, RESULT_DENIED, RESULT_UNAVAILABLE, RESULT_IGNORE };

struct frame {
	unsigned char data[FRAME_MAX];
	size_t size;
	bool overflow;			/* a value did not fit: the frame must not be sent */
};
struct fields {
	int type;
	unsigned tags;			/* the bit 1 << tag for each that is there */
	struct field { const unsigned char *value; size_t size; } by_tag[TAG_LAST + 1];
};

void frame_begin(struct frame *frame, int type, const unsigned char *nonce);
void frame_put(struct frame *frame, int tag, const void *value, size_t size);
void frame_put_text(struct frame *frame, int tag, const char *text);	/* NULL: no field */
void frame_put_number(struct frame *frame, int tag, uint32_t number);

/* True only for a whole frame of this version and nonce, its fields known, single and whole. */
bool frame_read(const unsigned char *data, size_t size, const unsigned char *nonce,
		struct fields *fields);
