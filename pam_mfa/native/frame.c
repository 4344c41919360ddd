/* SPDX-License-Identifier: Apache-2.0 */
#include "frame.h"
#include <string.h>

void frame_begin(struct frame *frame, int type, const unsigned char *nonce)
{
	frame->size = HEADER_SIZE;
	frame->overflow = false;
	frame->data[0] = PROTOCOL_VERSION;
	frame->data[1] = (unsigned char)type;
	memcpy(frame->data + 2, nonce, NONCE_SIZE);
}

void frame_put(struct frame *frame, int tag, const void *value, size_t size)
{
	unsigned char *at = frame->data + frame->size;
	frame->overflow |= size > FIELD_MAX || FRAME_MAX - frame->size < size + 3;
	if (frame->overflow)
		return;
	at[0] = (unsigned char)tag;
	at[1] = (unsigned char)(size >> 8);
	at[2] = (unsigned char)size;
	memcpy(at + 3, value, size);
	frame->size += size + 3;
}

void frame_put_text(struct frame *frame, int tag, const char *text)
{
	if (text != NULL)
		frame_put(frame, tag, text, strlen(text));
}

void frame_put_number(struct frame *frame, int tag, uint32_t number)
{
	unsigned char value[] = { number >> 24, number >> 16 & 255, number >> 8 & 255, number & 255 };
	frame_put(frame, tag, value, sizeof(value));
}

bool frame_read(const unsigned char *data, size_t size, const unsigned char *nonce,
		struct fields *fields)
{
	memset(fields, 0, sizeof(*fields));
	/* The nonce: a verdict for another request, replayed or misdirected, is no verdict. */
	if (size < HEADER_SIZE || data[0] != PROTOCOL_VERSION ||
	    memcmp(data + 2, nonce, NONCE_SIZE) != 0)
		return false;
	fields->type = data[1];
	for (size_t at = HEADER_SIZE, length; at < size; at += length) {
		if (size - at < 3)
			return false;
		int tag = data[at];
		length = (size_t)data[at + 1] << 8 | data[at + 2];
		at += 3;
		if (length > FIELD_MAX || length > size - at || tag == 0 || tag > TAG_LAST ||
		    fields->tags & 1U << tag)
			return false;
		fields->tags |= 1U << tag;
		fields->by_tag[tag] = (struct field){ data + at, length };
	}
	return true;
}
