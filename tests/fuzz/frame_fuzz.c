/*
 * frame_fuzz.c
 *		libFuzzer target for what the gateway reads of a frame.
 *
 * The first byte chooses the opcode, the rest is the frame. Beside the
 * sanitizers it checks what the rest of the gateway relies on: spans lie
 * inside the frame, an answer by the stub equals the answer by the frame, and
 * every answer to valid UTF-8 is a frame that reads well itself.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "frame.h"

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
check_answers(GwSpan header)
{
	const GwError error = {-32010, "away", "08006", "d\"\n", NULL};
	GwBuffer	direct = {0};
	GwBuffer	stub = {0};
	GwBuffer	by_stub = {0};
	GwSpan		span;
	GwFrame		answer;

	gw_answer_frame(&direct, header, &error);
	gw_answer_stub(&stub, header);
	check(stub.length <= 2 * header.length + 2);
	span.data = stub.data;
	span.length = stub.length;
	gw_answer_frame(&by_stub, span, &error);
	check(direct.length == by_stub.length &&
		  memcmp(direct.data, by_stub.data, direct.length) == 0);
	check(gw_utf8_valid(direct.data, direct.length));
	check(memchr(direct.data, '\n', direct.length) == NULL);
	span.data = direct.data;
	span.length = direct.length;
	answer = gw_frame_read(span);
	check(answer.kind != GW_FRAME_MALFORMED);
	gw_buffer_free(&direct);
	gw_buffer_free(&stub);
	gw_buffer_free(&by_stub);
	gw_answer_prefix(&direct, header, &error);
	check(gw_utf8_valid(direct.data, direct.length));
	gw_buffer_free(&direct);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	GwSpan		header;
	int			opcode;

	if (size == 0)
		return 0;
	opcode = data[0] % 2 == 0 ? GW_OPCODE_BINARY : GW_OPCODE_TEXT;
	header = gw_frame_header(opcode, data + 1, size - 1);
	check(header.length <= size - 1);
	check_frame(gw_frame_read(header), header);
	(void) gw_utf8_valid(header.data, header.length);
	check_answers(header);
	return 0;
}
