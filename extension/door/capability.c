/*
 * capability.c
 *		A permission to read one message, carried in its URL.
 *
 *	1.<key>.<expiry>.<role oid>.<64 hex>
 *
 * The last part is HMAC-SHA-256 of all that is in front of it, as it is
 * spelt, and of the message's id, bus and database: so there is one spelling
 * of it.  It also covers whether it was made for a message of one's own or by
 * who sees all of the channel, which is tried.  It is looked at before anything
 * is looked up; what it says counts only if the MAC does.  The clock is this
 * server's.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "door/capability.h"
#include "door/key.h"

#define LABEL			"mbus-cap/1"
#define CAPABILITY_MAX	160		/* bytes */

static char *said_of(const MbusCapability *capability, const char *text,
					 int len);
static bool take_number(const char **at, uint64 most, uint64 *n);

/*
 * mbus_capability_append appends one that the current key makes; 55000 if
 * there is none.
 */
void
mbus_capability_append(StringInfo out, const MbusCapability *capability)
{
	char		hex[MBUS_MAC_HEX + 1];
	char	   *text = psprintf("1." INT64_FORMAT "." INT64_FORMAT ".%u",
								mbus_body_key_number(), capability->expiry,
								capability->role);

	mbus_body_mac(LABEL, said_of(capability, text, (int) strlen(text)), hex);
	appendStringInfo(out, "%s.%s", text, hex);
}

/*
 * mbus_capability_read reads one; false if it is none of the current key's for
 * that message, or has expired.
 */
bool
mbus_capability_read(const char *text, int64 id, MbusCapability *capability)
{
	const char *at = text;
	uint64		key;
	uint64		expiry;
	uint64		role;

	if (strlen(text) > CAPABILITY_MAX || strncmp(at, "1.", 2) != 0)
		return false;
	at += 2;
	if (!take_number(&at, PG_INT64_MAX, &key) ||
		!take_number(&at, PG_INT64_MAX, &expiry) ||
		!take_number(&at, PG_UINT32_MAX, &role) ||
		key != (uint64) mbus_body_key_number())
		return false;
	capability->id = id;
	capability->expiry = (int64) expiry;
	capability->role = (Oid) role;
	for (int own = 0; own <= 1; own++)
	{
		capability->own = own != 0;
		if (mbus_body_mac_is(LABEL,
							 said_of(capability, text, (int) (at - 1 - text)),
							 at))
			return capability->expiry >
				timestamptz_to_time_t(GetCurrentTimestamp());
	}
	return false;
}

/* What the MAC is of. */
static char *
said_of(const MbusCapability *capability, const char *text, int len)
{
	return psprintf(INT64_FORMAT "\n%s\n%.*s", capability->id,
					capability->own ? "own" : "all", len, text);
}

/* Reads a number and the point behind it. */
static bool
take_number(const char **at, uint64 most, uint64 *n)
{
	const char *start = *at;

	*n = 0;
	for (; **at >= '0' && **at <= '9'; (*at)++)
	{
		uint64		digit = (uint64) (**at - '0');

		if (*n > (most - digit) / 10)
			return false;
		*n = *n * 10 + digit;
	}
	return *at > start && *(*at)++ == '.';
}
