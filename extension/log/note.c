/*
 * note.c
 *		Checkpoints as signed notes, and the log's key.
 *
 * A checkpoint (c2sp.org/tlog-checkpoint) is a signed note
 * (c2sp.org/signed-note): origin, size and root in base64, a line each; an
 * empty line; and lines of signatures, "U+2014 name base64(id || signature)".
 * The log signs with Ed25519, under its origin as the key's name; the id is the
 * first four bytes of SHA-256(name || LF || 0x01 || public key).
 *
 * OpenSSL's objects live between two errors: what allocates them calls nothing
 * of the server's before they are freed.  Results are palloc'd.
 */
#include "postgres.h"

#include <openssl/evp.h>

#include "common/base64.h"
#include "lib/stringinfo.h"

#include "base/compat.h"
#include "base/sha256.h"
#include "log/note.h"

#define ED25519			0x01	/* of signed notes */
#define ID_BYTES		4
#define PUBLIC_BYTES	32
#define SIGNATURE_BYTES 64
#define EM_DASH			"\342\200\224"	/* U+2014 in UTF-8 */

/* What a verifier knows of a key: its name apart. */
typedef struct NoteKey
{
	uint8		id[ID_BYTES];
	uint8		key[1 + PUBLIC_BYTES];	/* the algorithm first */
} NoteKey;

static void key_make(const char *name, const uint8 *seed, NoteKey *key);
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
	uint8		digest[MBUS_HASH_BYTES];
	EVP_PKEY   *key;
	bool		done;
	char	   *named = psprintf("%s\n", name);

	key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed,
									   MBUS_SEED_BYTES);
	done = key != NULL &&
		EVP_PKEY_get_raw_public_key(key, public->key + 1, &len) == 1 &&
		len == PUBLIC_BYTES;
	EVP_PKEY_free(key);
	if (!done)
		key_error();
	public->key[0] = ED25519;
	mbus_sha256_pair(named, strlen(named), public->key, sizeof(public->key),
					 digest);
	memcpy(public->id, digest, ID_BYTES);
	pfree(named);
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
