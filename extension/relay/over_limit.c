/*
 * over_limit.c
 *		Frames that the gateway has refused because they are too large.
 *
 * The gateway answers them itself and hands on only how they begin, in a
 * control frame:
 *
 *		0 'L'		the limit (4 bytes, in network order), and the beginning of
 *					the refused frame, with its opcode
 *
 * That is an error like any other of a frame, so that it is counted, logged
 * and found in the view errors, under the session's role, by the channel and
 * the transaction id if these came before what was too large.  It has no
 * reply.  No privilege is looked at: nothing is done.
 */
#include "postgres.h"

#include "port/pg_bswap.h"

#include "base/about.h"
#include "base/caller.h"
#include "base/json_slice.h"
#include "relay/relay_internal.h"
#include "relay/rpc.h"

#define CONTROL_OVER_LIMIT	'L'
#define HEAD_BYTES	6			/* control opcode, letter, limit */
#define ANON_BIT	0x80000000u /* of the limit: of who has no token */

static void note_string(const MbusSlice *string, char *to, size_t size);

/*
 * mbus_is_over_limit tells whether a control frame tells of a refused frame.
 */
bool
mbus_is_over_limit(const char *bytes, int len)
{
	return len >= HEAD_BYTES && bytes[1] == CONTROL_OVER_LIMIT;
}

/*
 * mbus_over_limit raises the error that the refused frame is.
 */
void
mbus_over_limit(MbusRelayed *relayed)
{
	const char *begins = relayed->bytes + HEAD_BYTES;
	int			len = relayed->len - HEAD_BYTES;
	char		method[NAMEDATALEN] = "";
	MbusSalvaged found = {0};
	uint32		limit;

	memcpy(&limit, relayed->bytes + 2, sizeof(limit));
	limit = pg_ntoh32(limit);
	/* behind the opcode; a binary frame begins with its line of JSON */
	if (len > 1)
		mbus_salvage_about(begins + 1, len - 1, &found);
	note_string(&found.method, method, sizeof(method));
	note_string(&found.channel, mbus_about.channel,
				sizeof(mbus_about.channel));
	note_string(&found.transaction_id, mbus_about.transaction_id,
				sizeof(mbus_about.transaction_id));
	relayed->request.method = method[0] != '\0' ? pstrdup(method) : NULL;

	mbus_guard_whose(relayed);
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 mbus_rpc(MBUS_RPC_LIMIT),
			 errmsg("message too large"),
			 errdetail("The limit is %u bytes (%s).", limit & ~ANON_BIT,
					   limit & ANON_BIT ? "MESSAGE_BUS_ANON_MAX_BYTES" :
					   "WS_MAX_MSG_BYTES")));
}

/* Copies a string's text, if there is one that can be read. */
static void
note_string(const MbusSlice *string, char *to, size_t size)
{
	const char *decoded = NULL;

	if (string->len > 0)
		decoded = mbus_json_string(string, true);
	if (decoded)
		mbus_about_copy(to, size, decoded, (int) strlen(decoded));
}
