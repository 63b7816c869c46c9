/*
 * frame_fuzz.c
 *		libFuzzer target for what the gateway reads of a frame.
 *
 * The first byte chooses the opcode, the rest is the frame. Beside the
 * sanitizers it checks what the rest of the gateway relies on: spans lie
 * inside the frame, and every answer to it is a frame that reads well itself.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "head_fuzz.h"
#include "http_fuzz.h"
#include "request/answer.h"
#include "request/batch.h"
#include "request/frame.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(int holds)
{
	if (!holds)
		abort();
}

static void
check_span(GwSpan inner, GwSpan outer)
{
	if (inner.length == 0)
		return;
	check(inner.data >= outer.data &&
		  inner.data + inner.length <= outer.data + outer.length);
}

static void
check_frame(GwFrame frame, GwSpan header)
{
	GwFrame		element;
	size_t		left;

	check_span(frame.id, header);
	check_span(frame.method, header);
	check_span(frame.elements, header);
	if (frame.kind != GW_FRAME_BATCH)
		return;
	left = frame.elements.length;
	while (gw_frame_next(&frame.elements, &element))
	{
		check(frame.elements.length < left);
		left = frame.elements.length;
		check_span(element.id, header);
		check_span(element.method, header);
	}
}

static void
check_answer(const uint8_t *data, size_t size, int opcode)
{
	const GwError error = {-32010, "away", "08006", "d\"\n", NULL};
	unsigned char first = (unsigned char) opcode;
	GwBuffer	message = {0};
	GwBuffer	out = {0};
	GwIdentity *identity = gw_identity_create(&message);
	GwRequest  *request;
	GwSpan		span;
	GwFrame		answer;

	gw_buffer_append(&message, &first, 1);
	gw_buffer_append(&message, data, size);
	request = gw_request_create(identity, &message, 0);
	check(request->ids.length <= 6 * size + 6);
	gw_answer_frame(&out, &request->ids, &error, SIZE_MAX);
	check(gw_utf8_valid(out.data, out.length));
	check(memchr(out.data, '\n', out.length) == NULL);
	span.data = out.data;
	span.length = out.length;
	answer = gw_frame_read(span);
	check(answer.kind != GW_FRAME_MALFORMED);
	check((answer.kind == GW_FRAME_BATCH) == (request->ids.data[0] == '['));
	gw_buffer_free(&out);
	gw_request_free(request);
	gw_identity_release(identity);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	GwSpan		header;
	int			opcode;

	fuzz_door(data, size);
	if (size == 0)
		return 0;
	opcode = data[0] % 2 == 0 ? GW_OPCODE_BINARY : GW_OPCODE_TEXT;
	header = gw_frame_header(opcode, data + 1, size - 1);
	check(header.length <= size - 1);
	check_frame(gw_frame_read(header), header);
	(void) gw_utf8_valid(header.data, header.length);
	check_answer(data + 1, size - 1, opcode);
	fuzz_http(data, size);
	return 0;
}
