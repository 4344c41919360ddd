/* SPDX-License-Identifier: Apache-2.0
 * Fuzzes frame.c: what is read lies inside the packet, and comes out the same when built again.
 * Links frame.c alone. */
#include "frame.h"
#include <stdlib.h>
#include <string.h>

static const unsigned char nonce[NONCE_SIZE] = "0123456789abcdef";

static void check_inside(const unsigned char *data, size_t size, const struct fields *fields)
{
	for (int tag = 0; tag <= TAG_LAST; tag++) {
		const struct field *field = &fields->by_tag[tag];
		if (((fields->tags >> tag & 1) != 0) != (field->value != NULL))
			abort();
		if (field->value != NULL && (field->value < data + HEADER_SIZE ||
					     field->size > (size_t)(data + size - field->value)))
			abort();
	}
}

static void check_again(size_t size, const struct fields *fields)
{
	static struct frame frame;
	struct fields again;
	frame_begin(&frame, fields->type, nonce);
	for (int tag = 1; tag <= TAG_LAST; tag++)
		if (fields->tags >> tag & 1)
			frame_put(&frame, tag, fields->by_tag[tag].value, fields->by_tag[tag].size);
	if (frame.overflow != (size > FRAME_MAX))
		abort();
	if (frame.overflow)
		return;
	if (frame.size != size || !frame_read(frame.data, frame.size, nonce, &again) ||
	    again.type != fields->type || again.tags != fields->tags)
		abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	struct fields fields;
	if (!frame_read(data, size, nonce, &fields))
		return 0;
	check_inside(data, size, &fields);
	check_again(size, &fields);
	return 0;
}
