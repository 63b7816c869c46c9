/*
 * entry.c
 *		Entries of the log: lines, commitments, openings.
 *
 * README.md says what an entry is, byte for byte.  Here its lines are written
 * one after the other, by who knows the row (row.c).
 *
 * What is personal, or could be guessed, is not in an entry, but a commitment
 * to it: SHA-256(salt || value).  The salts of an entry are made of a key, and
 * that of the segment's secret; when the secret has gone nobody can tell any
 * more whether a value was the one.  "nonce" is such a salt: without it an
 * entry that has no commitment could be guessed from its hash.
 *
 * An entry is below 64 kB: a text that would be long stands as its checksum.
 */
#include "postgres.h"

#include "common/base64.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/sha256.h"
#include "log/entry.h"

#define TEXT_MAX		4096	/* bytes of a text, escaped */

static char *line_begin(MbusEntry *entry, const char *name, int room);
static void line_end(MbusEntry *entry, char *end);
static void line_hex(MbusEntry *entry, const char *name, const uint8 *bytes,
					 int len);
static void salt_make(const MbusEntry *entry, const char *name, uint8 *salt);
static void append_hex(StringInfo to, const uint8 *bytes, int len);
static void append_escaped(StringInfo to, const char *value, int len);

/*
 * mbus_entry_init makes room for entries, in the current memory context;
 * "open": with their openings.
 */
void
mbus_entry_init(MbusEntry *entry, bool open)
{
	initStringInfo(&entry->text);
	initStringInfo(&entry->openings);
	entry->open = open;
	entry->keyed = false;
}

/*
 * mbus_entry_begin begins an entry about what has a number in a segment, of
 * which the secret is given.
 */
void
mbus_entry_begin(MbusEntry *entry, const char *kind, const uint8 *secret,
				 int64 number)
{
	char		label[64];		/* a kind is a short word */
	char	   *end;
	uint8		key[MBUS_HASH_BYTES];

	if (!entry->keyed ||
		memcmp(entry->secret, secret, MBUS_SECRET_BYTES) != 0)
	{
		memcpy(entry->secret, secret, MBUS_SECRET_BYTES);
		mbus_hmac_key(&entry->hmac, secret, MBUS_SECRET_BYTES);
		entry->keyed = true;
	}
	end = stpcpy(stpcpy(label, kind), " ");
	end += pg_lltoa(number, end);
	mbus_hmac(&entry->hmac, label, end - label, key);
	mbus_entry_begin_with(entry, kind, key);
}

/*
 * mbus_entry_begin_with begins one that has a key of its own.
 */
void
mbus_entry_begin_with(MbusEntry *entry, const char *kind, const uint8 *key)
{
	memcpy(entry->key, key, MBUS_HASH_BYTES);
	resetStringInfo(&entry->text);
	resetStringInfo(&entry->openings);
	line_end(entry, stpcpy(line_begin(entry, "mbus/1", (int) strlen(kind)),
						   kind));
}

/*
 * mbus_entry_number writes a line with a number.
 */
void
mbus_entry_number(MbusEntry *entry, const char *name, int64 value)
{
	char	   *value_at = line_begin(entry, name, MAXINT8LEN);

	line_end(entry, value_at + pg_lltoa(value, value_at));
}

/*
 * mbus_entry_time writes a line with a time, in microseconds since 1970.
 */
void
mbus_entry_time(MbusEntry *entry, const char *name, TimestampTz value)
{
	mbus_entry_number(entry, name, value + MBUS_UNIX_EPOCH_US);
}

/*
 * mbus_entry_words writes a line whose value needs no escapes but may have
 * spaces.
 */
void
mbus_entry_words(MbusEntry *entry, const char *name, const char *words)
{
	char	   *value_at = line_begin(entry, name, (int) strlen(words));

	line_end(entry, stpcpy(value_at, words));
}

/*
 * mbus_entry_text writes a line with a text, escaped.
 */
void
mbus_entry_text(MbusEntry *entry, const char *name, const char *value, int len)
{
	StringInfo text = &entry->text;
	int			begin;

	appendStringInfoString(text, name);
	appendStringInfoChar(text, ' ');
	begin = text->len;

	if (len <= TEXT_MAX)
		append_escaped(text, value, len);
	if (len > TEXT_MAX || text->len - begin > TEXT_MAX)
	{
		uint8		digest[MBUS_HASH_BYTES];

		text	  ->len = begin;

		mbus_sha256(value, len, digest);
		appendStringInfoString(text, "sha256:");
		append_hex(text, digest, sizeof(digest));
	}
	appendStringInfoChar(text, '\n');
}

/*
 * mbus_entry_hidden writes a line with a commitment to a value.
 */
void
mbus_entry_hidden(MbusEntry *entry, const char *name, const char *value,
				  int len)
{
	uint8		salt[MBUS_SALT_BYTES];
	uint8		commitment[MBUS_HASH_BYTES];
	int			room;

	salt_make(entry, name, salt);
	mbus_sha256_pair(salt, sizeof(salt), value, len, commitment);
	line_hex(entry, name, commitment, sizeof(commitment));
	if (!entry->open)
		return;
	appendStringInfoString(&entry->openings, name);
	appendStringInfoChar(&entry->openings, ' ');
	append_hex(&entry->openings, salt, sizeof(salt));
	appendStringInfoChar(&entry->openings, ' ');
	room = pg_b64_enc_len(len) + 1;
	enlargeStringInfo(&entry->openings, room);
	entry->openings.len +=
		MbusBase64Encode(value, len,
						 entry->openings.data + entry->openings.len, room);
	appendStringInfoChar(&entry->openings, '\n');
}

/*
 * mbus_entry_end writes the last line.
 */
void
mbus_entry_end(MbusEntry *entry)
{
	uint8		salt[MBUS_SALT_BYTES];

	salt_make(entry, "nonce", salt);
	line_hex(entry, "nonce", salt, sizeof(salt));
}

/*
 * mbus_entry_hash computes the hash that the tree has of it.
 */
void
mbus_entry_hash(const MbusEntry *entry, MbusHash *hash)
{
	mbus_hash_leaf(entry->text.data, entry->text.len, hash);
}

/* Begins a line, with room for a value, and returns where that goes. */
static char *
line_begin(MbusEntry *entry, const char *name, int room)
{
	StringInfo	lines = &entry->text;

	enlargeStringInfo(lines, (int) strlen(name) + room + 3);
	return stpcpy(stpcpy(lines->data + lines->len, name), " ");
}

/* Ends a line behind its value. */
static void
line_end(MbusEntry *entry, char *end)
{
	*end++ = '\n';
	*end = '\0';
	entry->text.len = (int) (end - entry->text.data);
}

/* A line with bytes in hex. */
static void
line_hex(MbusEntry *entry, const char *name, const uint8 *bytes, int len)
{
	char	   *at = line_begin(entry, name, 2 * len);

	line_end(entry, at + hex_encode((const char *) bytes, len, at));
}

/* The salt of a line. */
static void
salt_make(const MbusEntry *entry, const char *name, uint8 *salt)
{
	uint8		digest[MBUS_HASH_BYTES];

	mbus_sha256_pair(entry->key, sizeof(entry->key), name, strlen(name),
					 digest);
	memcpy(salt, digest, MBUS_SALT_BYTES);
}

static void
append_hex(StringInfo to, const uint8 *bytes, int len)
{
	enlargeStringInfo(to, 2 * len + 1);
	to->len += (int) hex_encode((const char *) bytes, len, to->data + to->len);
	to->data[to->len] = '\0';
}

/* Bytes outside 0x21 to 0x7E, and %, as %XX. */
static void
append_escaped(StringInfo to, const char *value, int len)
{
	static const char digits[] = "0123456789ABCDEF";

	enlargeStringInfo(to, 3 * len + 1);
	for (int i = 0; i < len; i++)
	{
		uint8		byte = (uint8) value[i];

		if (byte >= 0x21 && byte <= 0x7E && byte != '%')
		{
			to->data[to->len++] = (char) byte;
			continue;
		}
		to->data[to->len++] = '%';
		to->data[to->len++] = digits[byte >> 4];
		to->data[to->len++] = digits[byte & 15];
	}
	to->data[to->len] = '\0';
}
