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
#include "base/payload.h"
#include "log/entry.h"

#define HMAC_BLOCK		64
#define TEXT_MAX		4096	/* bytes of a text, escaped */

static void hmac(const uint8 *key, const char *value, int len, uint8 *mac);
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
}

/*
 * mbus_entry_begin begins an entry about what has a number in a segment, of
 * which the secret is given.
 */
void
mbus_entry_begin(MbusEntry *entry, const char *kind, const uint8 *secret,
				 int64 number)
{
	char		label[64];
	uint8		key[MBUS_HASH_BYTES];

	snprintf(label, sizeof(label), "%s " INT64_FORMAT, kind, number);
	hmac(secret, label, (int) strlen(label), key);
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
	appendStringInfo(&entry->text, "mbus/1 %s\n", kind);
}

/*
 * mbus_entry_number writes a line with a number.
 */
void
mbus_entry_number(MbusEntry *entry, const char *name, int64 value)
{
	char		digits[MAXINT8LEN + 1];

	pg_lltoa(value, digits);
	mbus_entry_words(entry, name, digits);
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
	appendStringInfoString(&entry->text, name);
	appendStringInfoChar(&entry->text, ' ');
	appendStringInfoString(&entry->text, words);
	appendStringInfoChar(&entry->text, '\n');
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
	appendStringInfoString(&entry->text, name);
	appendStringInfoChar(&entry->text, ' ');
	append_hex(&entry->text, commitment, sizeof(commitment));
	appendStringInfoChar(&entry->text, '\n');
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
	appendStringInfoString(&entry->text, "nonce ");
	append_hex(&entry->text, salt, sizeof(salt));
	appendStringInfoChar(&entry->text, '\n');
}

/*
 * mbus_entry_hash computes the hash that the tree has of it.
 */
void
mbus_entry_hash(const MbusEntry *entry, MbusHash *hash)
{
	mbus_hash_leaf(entry->text.data, entry->text.len, hash);
}

/* HMAC-SHA-256 with a secret (RFC 2104). */
static void
hmac(const uint8 *secret, const char *value, int len, uint8 *mac)
{
	uint8		block[HMAC_BLOCK];
	uint8		inner[MBUS_HASH_BYTES];

	memset(block, 0x36, sizeof(block));
	for (int i = 0; i < MBUS_SECRET_BYTES; i++)
		block[i] ^= secret[i];
	mbus_sha256_pair(block, sizeof(block), value, len, inner);
	for (int i = 0; i < HMAC_BLOCK; i++)
		block[i] ^= 0x36 ^ 0x5c;
	mbus_sha256_pair(block, sizeof(block), inner, sizeof(inner), mac);
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
