/*
 * note.c
 *		Checkpoints as signed notes, the log's key, and witnesses.
 *
 * A checkpoint (c2sp.org/tlog-checkpoint) is a signed note
 * (c2sp.org/signed-note): origin, size and root in base64, a line each; an
 * empty line; and lines of signatures, "U+2014 name base64(id || signature)".
 * The log signs with Ed25519, under its origin as the key's name; the id is the
 * first four bytes of SHA-256(name || LF || 0x01 || public key).
 *
 * A witness adds a line of his own (c2sp.org/tlog-cosignature): of a key of
 * algorithm 0x04, base64(id || seconds since 1970 || signature), which is over
 * "cosignature/v1", LF, "time SECONDS", LF and the text.
 *
 * OpenSSL's objects live between two errors: what allocates them calls nothing
 * of the server's before they are freed.  Results are palloc'd.
 */
#include "postgres.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#include "common/base64.h"
#include "lib/stringinfo.h"

#include "base/compat.h"
#include "base/sha256.h"
#include "log/note.h"

#define ED25519			0x01	/* of signed notes */
#define COSIGNATURE		0x04	/* of witnesses */
#define ID_BYTES		MBUS_KEY_ID_BYTES
#define PUBLIC_BYTES	MBUS_PUBLIC_BYTES
#define TIME_BYTES		8
#define NAME_MAX_BYTES	255
#define BASE64_CHARS \
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
#define SIGNATURE_BYTES 64
#define EM_DASH			"\342\200\224"	/* U+2014 in UTF-8 */

/* What a verifier knows of a key: its name apart. */
typedef struct NoteKey
{
	uint8		id[ID_BYTES];
	uint8		key[1 + PUBLIC_BYTES];	/* the algorithm first */
} NoteKey;

static void key_make(const char *name, const uint8 *seed, NoteKey *key);
static void key_id(const char *name, NoteKey *key);
static bool ed25519_verify(const uint8 *key, const uint8 *signature,
						   const char *text);
static int	base64_read(const char *text, int len, uint8 *bytes, int room);
pg_noreturn static void key_error(void);

/*
 * mbus_note_text returns the text of a checkpoint, that which is signed.
 */
char *
mbus_note_text(const char *origin, int64 size, const MbusHash *root)
{
	return psprintf("%s\n" INT64_FORMAT "\n%s\n", origin, size,
					mbus_base64(root->bytes, MBUS_HASH_BYTES));
}

/*
 * mbus_note_sign returns the line with the signature of a text.
 */
char *
mbus_note_sign(const char *origin, const char *text, const uint8 *seed)
{
	uint8		signature[ID_BYTES + SIGNATURE_BYTES];
	size_t		len = SIGNATURE_BYTES;
	EVP_PKEY   *key;
	EVP_MD_CTX *context;
	bool		done;
	NoteKey		public;

	key_make(origin, seed, &public);
	memcpy(signature, public.id, ID_BYTES);
	key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed,
									   MBUS_SEED_BYTES);
	context = EVP_MD_CTX_new();
	done = key != NULL && context != NULL &&
		EVP_DigestSignInit(context, NULL, NULL, NULL, key) == 1 &&
		EVP_DigestSign(context, signature + ID_BYTES, &len,
					   (const uint8 *) text, strlen(text)) == 1;
	EVP_MD_CTX_free(context);
	EVP_PKEY_free(key);
	if (!done)
		key_error();
	return psprintf(EM_DASH " %s %s\n", origin,
					mbus_base64(signature, sizeof(signature)));
}

/*
 * mbus_note_key returns what a verifier of the log's signatures is given,
 * name+id+key.
 */
char *
mbus_note_key(const char *origin, const uint8 *seed)
{
	NoteKey		public;

	key_make(origin, seed, &public);
	return psprintf("%s+%02x%02x%02x%02x+%s", origin, public.id[0],
					public.id[1], public.id[2], public.id[3],
					mbus_base64(public.key, sizeof(public.key)));
}

/* The public key of a private one, and its id. */
static void
key_make(const char *name, const uint8 *seed, NoteKey *public)
{
	size_t		len = PUBLIC_BYTES;
	EVP_PKEY   *key;
	bool		done;

	key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed,
									   MBUS_SEED_BYTES);
	done = key != NULL &&
		EVP_PKEY_get_raw_public_key(key, public->key + 1, &len) == 1 &&
		len == PUBLIC_BYTES;
	EVP_PKEY_free(key);
	if (!done)
		key_error();
	public->key[0] = ED25519;
	key_id(name, public);
}

/* Computes the id of a key. */
static void
key_id(const char *name, NoteKey *key)
{
	char	   *named = psprintf("%s\n", name);
	uint8		digest[MBUS_HASH_BYTES];

	mbus_sha256_pair(named, strlen(named), key->key, sizeof(key->key),
					 digest);
	memcpy(key->id, digest, ID_BYTES);
	pfree(named);
}

/*
 * mbus_note_key_is tells whether a line with a signature says that it is of
 * this key.
 */
bool
mbus_note_key_is(const char *origin, const char *signature,
				 const uint8 *seed)
{
	const char *base64 = strrchr(signature, ' ');
	uint8		bytes[ID_BYTES + SIGNATURE_BYTES];
	NoteKey		public;
	int			len;

	if (base64 == NULL)
		return false;
	base64++;
	len = base64_read(base64, (int) strcspn(base64, "\n"), bytes,
					  sizeof(bytes));
	key_make(origin, seed, &public);
	return len == sizeof(bytes) && memcmp(bytes, public.id, ID_BYTES) == 0;
}

/* ------------------------------------------------------------------------
 * Witnesses
 * ------------------------------------------------------------------------
 */

/*
 * mbus_witness_parse reads a witness' key, name+id+key; false if it is none.
 */
bool
mbus_witness_parse(const char *vkey, MbusWitness *witness)
{
	const char *id = strchr(vkey, '+');
	const char *base64 = id ? strchr(id + 1, '+') : NULL;
	NoteKey		key = {0};
	char		hex[2 * ID_BYTES + 1];

	if (base64 == NULL || id == vkey || id - vkey > NAME_MAX_BYTES ||
		base64 - id != 2 * ID_BYTES + 1 ||
		base64_read(base64 + 1, (int) strlen(base64 + 1), key.key,
					sizeof(key.key)) != sizeof(key.key) ||
		key.key[0] != COSIGNATURE)
		return false;
	for (const char *c = vkey; c < id; c++)
	{
		if ((uint8) *c <= ' ' || (uint8) *c >= 0x7F)
			return false;
	}
	witness->name = pnstrdup(vkey, id - vkey);
	key_id(witness->name, &key);
	snprintf(hex, sizeof(hex), "%02x%02x%02x%02x", key.id[0], key.id[1],
			 key.id[2], key.id[3]);
	if (strncmp(hex, id + 1, 2 * ID_BYTES) != 0)
		return false;
	memcpy(witness->id, key.id, ID_BYTES);
	memcpy(witness->key, key.key + 1, PUBLIC_BYTES);
	return true;
}

/*
 * mbus_witness_signed tells whether a line, with or without its end, is the
 * cosignature of a witness to a checkpoint's text, and of what time.
 */
bool
mbus_witness_signed(const MbusWitness *witness, const char *text,
					const char *line, int64 *time)
{
	char	   *start = psprintf(EM_DASH " %s ", witness->name);
	size_t		skip = strlen(start);
	bool		named = strncmp(line, start, skip) == 0;
	uint8		bytes[ID_BYTES + TIME_BYTES + SIGNATURE_BYTES];
	size_t		len;

	pfree(start);
	if (!named)
		return false;
	line += skip;
	len = strcspn(line, "\n");
	if (line[len] != '\0' && line[len + 1] != '\0')
		return false;
	if (len > 2 * sizeof(bytes) ||
		base64_read(line, (int) len, bytes, sizeof(bytes)) != sizeof(bytes) ||
		memcmp(bytes, witness->id, ID_BYTES) != 0)
		return false;
	*time = 0;
	for (int i = 0; i < TIME_BYTES; i++)
		*time = (int64) ((uint64) *time << 8 | bytes[ID_BYTES + i]);
	return *time >= 0 &&
		ed25519_verify(witness->key, bytes + ID_BYTES + TIME_BYTES,
					   psprintf("cosignature/v1\ntime " INT64_FORMAT "\n%s",
								*time, text));
}

/* Whether a signature of a text is a key's. */
static bool
ed25519_verify(const uint8 *key, const uint8 *signature, const char *text)
{
	EVP_PKEY   *public;
	EVP_MD_CTX *context;
	bool		right;

	public = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key,
										 PUBLIC_BYTES);
	context = EVP_MD_CTX_new();
	right = public != NULL && context != NULL &&
		EVP_DigestVerifyInit(context, NULL, NULL, NULL, public) == 1 &&
		EVP_DigestVerify(context, signature, SIGNATURE_BYTES,
						 (const uint8 *) text, strlen(text)) == 1;
	EVP_MD_CTX_free(context);
	EVP_PKEY_free(public);
	ERR_clear_error();
	return right;
}

/* Reads base64; how many bytes it was, -1 if it was none or has no room. */
static int
base64_read(const char *text, int len, uint8 *bytes, int room)
{
	/* the server's decoder takes white space, too */
	if (len <= 0 || (int) strspn(text, BASE64_CHARS) < len)
		return -1;
	return MbusBase64Decode(text, len, bytes, room);
}

static void
key_error(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("could not use the key of the log")));
}

/*
 * mbus_base64 returns bytes in base64, with its padding (RFC 4648).
 */
char *
mbus_base64(const void *bytes, int len)
{
	int			room = pg_b64_enc_len(len) + 1;
	char	   *text = palloc(room);

	text[		MbusBase64Encode(bytes, len, text, room - 1)] = '\0';
	return text;
}
