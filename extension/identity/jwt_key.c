/*
 * jwt_key.c
 *		The keys that tokens are verified with.
 *
 * set_jwt_keys() reads a JWK Set (RFC 7517; RFC 7518 and 8037 for the kinds
 * of keys) and puts it into message_bus.jwt_key, in place of the keys that
 * were there.  What is stored is what verifying needs: the secret of HS256, or
 * the public key as DER of X.509's SubjectPublicKeyInfo.  A key that could not
 * be used is refused, so that nobody finds out from refused tokens.
 *
 * A backend keeps the keys in a cache of its own, see base/catalog_cache.c: a
 * trigger on the table invalidates its relation cache entry.  The public keys
 * in it are OpenSSL's, freed when the cache's memory is reset.
 */
#include "postgres.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "action/action.h"
#include "base/argument.h"
#include "base/catalog_cache.h"
#include "base/columns.h"
#include "base/compat.h"
#include "base/json_slice.h"
#include "base/owner.h"
#include "base/payload.h"
#include "base/schema.h"
#include "identity/jwt_key.h"
#include "identity/token.h"
#include "state/fault.h"

#define KEYS_MAX		64
#define KID_MAX			255		/* bytes */
#define SECRET_MIN		32		/* bytes; RFC 7518, 3.2 */
#define SECRET_MAX		1024
#define RSA_BITS_MIN	2048	/* RFC 7518, 3.3 */
#define RSA_BITS_MAX	8192
#define P256_BYTES		32
#define ED25519_BYTES	32

/* A key of a JWK Set on its way into the table. */
typedef struct Jwk
{
	const MbusNode *node;
	int			number;			/* from 1, to name it in an error */
	char	   *kid;			/* NULL: none */
	const char *alg;
	bytea	   *key;
} Jwk;

/* SubjectPublicKeyInfo up to the point, which is uncompressed */
static const uint8 p256_prefix[] = {
	0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02,
	0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03,
	0x42, 0x00, 0x04
};
static const uint8 ed25519_prefix[] = {
	0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00
};

/* AlgorithmIdentifier rsaEncryption */
static const uint8 rsa_algorithm[] = {
	0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01,
	0x01, 0x05, 0x00
};

static MbusJwtKey *cache_keys = NULL;
static int	cache_n = 0;

static int	jwks_read(const MbusSlice *text, Jwk *keys);
static bool jwk_read(Jwk *jwk);
static void jwk_oct(Jwk *jwk);
static void jwk_rsa(Jwk *jwk);
static void jwk_curve(Jwk *jwk, const char *kty);
static bool jwk_is(const Jwk *jwk, const char *name, const char *value);
static char *jwk_string(const Jwk *jwk, const char *name, bool required);
static uint8 *jwk_bytes(const Jwk *jwk, const char *name, int *len);
static void jwk_use(Jwk *jwk, const char *alg, StringInfo key);
static void jwk_check_public(const Jwk *jwk);
static void jwks_compare(const Jwk *keys, int n);
static void jwks_store(Oid schema, const Jwk *keys, int n);
static void jwks_tell(Oid schema, const Jwk *keys, int n);
static void jwk_tell(MbusAction *action, const Jwk *jwk);
pg_noreturn static void bad_jwk(const Jwk *jwk, const char *what);
pg_noreturn static void bad_jwks(const char *detail);
static void der_append(StringInfo out, uint8 tag, const void *value, int len);
static void der_integer(StringInfo out, const uint8 *value, int len);
static EVP_PKEY *public_key_parse(const uint8 *der, int len);
static void keys_load(Oid schema);
static void key_read(HeapTuple tuple, TupleDesc desc);
static void public_key_free(void *arg);

static MbusCatalogCache cache = {
	"jwt_key", "message_bus token keys", keys_load
};

PG_FUNCTION_INFO_V1(mbus_jwt_key_changed);

/*
 * mbus_jwt_key_init registers the cache's invalidation; from _PG_init.
 */
void
mbus_jwt_key_init(void)
{
	mbus_catalog_cache_init(&cache);
}

/* ------------------------------------------------------------------------
 * Setting keys
 * ------------------------------------------------------------------------
 */

/*
 * set_jwt_keys(jwks json) replaces the keys by those of a JWK Set and returns
 * how many these are.
 */
MBUS_FUNCTION(set_jwt_keys)
{
	Oid			schema = mbus_schema();
	text	   *jwks;
	MbusSlice	json;
	Jwk		   *keys = palloc0(KEYS_MAX * sizeof(Jwk));
	int			n;

	mbus_write_check("message_bus.set_jwt_keys()");
	jwks = mbus_required_text(fcinfo, 0, "jwks");
	json.start = VARDATA_ANY(jwks);
	json.len = VARSIZE_ANY_EXHDR(jwks);
	n = jwks_read(&json, keys);
	jwks_compare(keys, n);
	jwks_store(schema, keys, n);
	jwks_tell(schema, keys, n);
	PG_RETURN_INT32(n);
}

/*
 * jwks_read fills in the keys and returns their number.
 */
static int
jwks_read(const MbusSlice *text, Jwk *keys)
{
	MbusNode	root;
	MbusNode	list;
	const MbusNode *member;
	int			n = 0;

	mbus_json_slice(text->start, text->len, 1, &root);
	if (root.value.type != JSON_TOKEN_OBJECT_START)
		bad_jwks("It is not an object.");
	if (mbus_json_duplicate(&root))
		bad_jwks("It has a member twice.");
	member = mbus_json_member(&root, "keys");
	if (member == NULL || member->value.type != JSON_TOKEN_ARRAY_START)
		bad_jwks("It has no member \"keys\" that is an array.");
	mbus_json_slice(member->value.start, member->value.len, KEYS_MAX, &list);
	if (list.total > list.nchildren)
		bad_jwks(psprintf("It has more than %d keys.", KEYS_MAX));
	for (int i = 0; i < list.nchildren; i++)
	{
		keys[n].node = &list.children[i];
		keys[n].number = i + 1;
		if (jwk_read(&keys[n]))
			n++;
	}
	return n;
}

/*
 * jwk_read reads one key; false if it is for encryption, which is passed over.
 */
static bool
jwk_read(Jwk *jwk)
{
	const MbusNode *node = jwk->node;
	char	   *kty;

	if (node->value.type != JSON_TOKEN_OBJECT_START)
		bad_jwk(jwk, "it is not an object");
	if (node->total > node->nchildren)
		bad_jwk(jwk, "it has too many members");
	if (mbus_json_duplicate(node))
		bad_jwk(jwk, "it has a member twice");
	if (mbus_json_member(node, "use") && !jwk_is(jwk, "use", "sig"))
	{
		ereport(NOTICE,
				(errmsg("key %d of the JWK Set is not for signatures, skipping",
						jwk->number)));
		return false;
	}
	jwk->kid = jwk_string(jwk, "kid", false);
	if (jwk->kid && (jwk->kid[0] == '\0' || strlen(jwk->kid) > KID_MAX))
		bad_jwk(jwk, "its \"kid\" is empty or longer than 255 bytes");

	kty = jwk_string(jwk, "kty", true);
	if (strcmp(kty, "oct") == 0)
		jwk_oct(jwk);
	else if (strcmp(kty, "RSA") == 0)
		jwk_rsa(jwk);
	else if (strcmp(kty, "EC") == 0 || strcmp(kty, "OKP") == 0)
		jwk_curve(jwk, kty);
	else
		bad_jwk(jwk, "its \"kty\" is not oct, RSA, EC or OKP");
	return true;
}

/* A secret, for HS256. */
static void
jwk_oct(Jwk *jwk)
{
	StringInfoData key;
	int			len;
	uint8	   *secret = jwk_bytes(jwk, "k", &len);

	if (len < SECRET_MIN || len > SECRET_MAX)
		bad_jwk(jwk, "its secret is not 32 to 1024 bytes long");
	initStringInfo(&key);
	appendBinaryStringInfo(&key, (char *) secret, len);
	jwk_use(jwk, "HS256", &key);
}

/*
 * jwk_rsa makes a SubjectPublicKeyInfo in DER of an RSA key's modulus and
 * exponent (RFC 5280, RFC 8017): a sequence of algorithm and bit string, which
 * holds a sequence of the two numbers.
 */
static void
jwk_rsa(Jwk *jwk)
{
	StringInfoData numbers;
	StringInfoData bits;
	StringInfoData parts;
	StringInfoData key;
	int			n_len;
	int			e_len;
	uint8	   *n = jwk_bytes(jwk, "n", &n_len);
	uint8	   *e = jwk_bytes(jwk, "e", &e_len);

	if (n_len > RSA_BITS_MAX / 8 + 1)
		bad_jwk(jwk, "its modulus has more than 8192 bits");
	if (e_len > 8 || e[e_len - 1] % 2 == 0 || (e_len == 1 && e[0] < 3))
		bad_jwk(jwk, "its exponent is not an odd number above 2 of up to 8 bytes");

	initStringInfo(&numbers);
	der_integer(&numbers, n, n_len);
	der_integer(&numbers, e, e_len);
	initStringInfo(&bits);
	appendStringInfoChar(&bits, '\0');	/* no unused bits */
	der_append(&bits, 0x30, numbers.data, numbers.len);
	initStringInfo(&parts);
	appendBinaryStringInfo(&parts, (const char *) rsa_algorithm,
						   sizeof(rsa_algorithm));
	der_append(&parts, 0x03, bits.data, bits.len);
	initStringInfo(&key);
	der_append(&key, 0x30, parts.data, parts.len);
	jwk_use(jwk, "RS256", &key);
	jwk_check_public(jwk);
}

/* P-256 and Ed25519 */
static void
jwk_curve(Jwk *jwk, const char *kty)
{
	bool		p256 = strcmp(kty, "EC") == 0;
	StringInfoData key;
	int			len;
	uint8	   *x;

	if (!jwk_is(jwk, "crv", p256 ? "P-256" : "Ed25519"))
		bad_jwk(jwk, p256 ? "its \"crv\" is not P-256" :
				"its \"crv\" is not Ed25519");
	x = jwk_bytes(jwk, "x", &len);
	initStringInfo(&key);
	if (!p256)
	{
		if (len != ED25519_BYTES)
			bad_jwk(jwk, "its \"x\" is not 32 bytes long");
		appendBinaryStringInfo(&key, (const char *) ed25519_prefix,
							   sizeof(ed25519_prefix));
		appendBinaryStringInfo(&key, (char *) x, len);
		jwk_use(jwk, "EdDSA", &key);
	}
	else
	{
		int			y_len;
		uint8	   *y = jwk_bytes(jwk, "y", &y_len);

		if (len != P256_BYTES || y_len != P256_BYTES)
			bad_jwk(jwk, "its \"x\" and \"y\" are not 32 bytes long");
		appendBinaryStringInfo(&key, (const char *) p256_prefix,
							   sizeof(p256_prefix));
		appendBinaryStringInfo(&key, (char *) x, len);
		appendBinaryStringInfo(&key, (char *) y, y_len);
		jwk_use(jwk, "ES256", &key);
	}
	jwk_check_public(jwk);
}

/* Tells whether a member is there and is this string. */
static bool
jwk_is(const Jwk *jwk, const char *name, const char *value)
{
	char	   *string = jwk_string(jwk, name, false);

	return string && strcmp(string, value) == 0;
}

/* Decoded; NULL if there is no such member and it is not required. */
static char *
jwk_string(const Jwk *jwk, const char *name, bool required)
{
	const MbusNode *member = mbus_json_member(jwk->node, name);
	char	   *value = NULL;

	if (member == NULL && !required)
		return NULL;
	if (member && member->value.type == JSON_TOKEN_STRING)
		value = mbus_json_string(&member->value, true);
	if (value == NULL)
		bad_jwk(jwk, psprintf("it has no \"%s\" that is a string of text",
							  name));
	return value;
}

/* The bytes of a member that is base64url. */
static uint8 *
jwk_bytes(const Jwk *jwk, const char *name, int *len)
{
	char	   *string = jwk_string(jwk, name, true);
	uint8	   *bytes = palloc(strlen(string) + 1);

	*len = mbus_base64url_decode(string, strlen(string), bytes);
	if (*len <= 0)
		bad_jwk(jwk, psprintf("its \"%s\" is not base64url without padding",
							  name));
	return bytes;
}

/*
 * jwk_use keeps a key for one algorithm, if the key does not say another.
 */
static void
jwk_use(Jwk *jwk, const char *alg, StringInfo key)
{
	if (mbus_json_member(jwk->node, "alg") && !jwk_is(jwk, "alg", alg))
		bad_jwk(jwk, psprintf("its \"alg\" is not %s", alg));
	/* a private part has no business here, and would lie in the statement */
	if (strcmp(alg, "HS256") != 0 && mbus_json_member(jwk->node, "d"))
		bad_jwk(jwk, "it is a private key; give the public one");
	jwk->alg = alg;
	jwk->key = (bytea *) palloc(key->len + VARHDRSZ);
	SET_VARSIZE(jwk->key, key->len + VARHDRSZ);
	memcpy(VARDATA(jwk->key), key->data, key->len);
}

/* Errors unless OpenSSL takes a public key, and it is a strong one. */
static void
jwk_check_public(const Jwk *jwk)
{
	EVP_PKEY   *key = public_key_parse((uint8 *) VARDATA(jwk->key),
									   VARSIZE(jwk->key) - VARHDRSZ);
	int			bits = key ? EVP_PKEY_bits(key) : 0;

	EVP_PKEY_free(key);
	if (bits == 0)
		bad_jwk(jwk, "its numbers are no public key");
	if (strcmp(jwk->alg, "RS256") == 0 &&
		(bits < RSA_BITS_MIN || bits > RSA_BITS_MAX))
		bad_jwk(jwk, "its modulus does not have 2048 to 8192 bits");
}

/*
 * jwks_compare errors if two keys have one kid, or if one algorithm has more
 * than are tried.
 */
static void
jwks_compare(const Jwk *keys, int n)
{
	for (int i = 0; i < n; i++)
	{
		int			same_alg = 1;

		for (int k = 0; k < i; k++)
		{
			if (keys[i].kid && keys[k].kid &&
				strcmp(keys[i].kid, keys[k].kid) == 0)
				bad_jwk(&keys[i], "its \"kid\" is another key's too");
			if (strcmp(keys[i].alg, keys[k].alg) == 0)
				same_alg++;
		}
		if (same_alg > MBUS_KEYS_PER_ALG)
			bad_jwks(psprintf("It has more than %d keys for %s.",
							  MBUS_KEYS_PER_ALG, keys[i].alg));
	}
}

/*
 * jwks_store replaces the rows.  Whoever else does waits for the end of this
 * transaction; those who read do not.
 */
static void
jwks_store(Oid schema, const Jwk *keys, int n)
{
	static const Oid types[] = {INT4OID, TEXTOID, TEXTOID, BYTEAOID};

	LockRelationOid(mbus_relation(schema, "jwt_key"), ShareRowExclusiveLock);
	mbus_run_as_owner(schema, "DELETE FROM message_bus.jwt_key", 0, NULL,
					  NULL, NULL);
	for (int i = 0; i < n; i++)
	{
		Datum		values[4];
		char		nulls[] = "    ";

		values[0] = Int32GetDatum(i + 1);
		values[1] = keys[i].kid ? CStringGetTextDatum(keys[i].kid) : (Datum) 0;
		if (keys[i].kid == NULL)
			nulls[1] = 'n';
		values[2] = CStringGetTextDatum(keys[i].alg);
		values[3] = PointerGetDatum(keys[i].key);
		mbus_run_as_owner(schema,
						  "INSERT INTO message_bus.jwt_key (position, kid, alg, key)"
						  " VALUES ($1, $2, $3, $4)",
						  lengthof(types), types, values, nulls);
	}
}

/* Records which keys there are now. */
static void
jwks_tell(Oid schema, const Jwk *keys, int n)
{
	MbusAction	action;

	mbus_action_begin(&action, "keys", 0, "keys set");
	appendStringInfoString(&action.details, ",\"keys\":[");
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			appendStringInfoChar(&action.details, ',');
		jwk_tell(&action, &keys[i]);
	}
	appendStringInfoChar(&action.details, ']');
	mbus_action_end(&action, schema);
}

/*
 * Tells of a key kid, alg and SHA-256; that of a secret behind the action's own
 * random bytes, which no view shows: a weak secret could be guessed from it.
 */
static void
jwk_tell(MbusAction *action, const Jwk *jwk)
{
	bool		secret = strcmp(jwk->alg, "HS256") == 0;
	uint8		digest[MBUS_ACTION_KEY_BYTES];
	char		hex[2 * MBUS_ACTION_KEY_BYTES + 1];

	mbus_sha256_pair(action->key, secret ? sizeof(action->key) : 0,
					 VARDATA(jwk->key), VARSIZE(jwk->key) - VARHDRSZ, digest);
	hex[hex_encode((const char *) digest, sizeof(digest), hex)] = '\0';
	appendStringInfo(&action->details, "{\"alg\":\"%s\"", jwk->alg);
	mbus_action_text(action, "kid", jwk->kid);
	mbus_action_text(action, "sha256", hex);
	appendStringInfoChar(&action->details, '}');
}

static void
bad_jwk(const Jwk *jwk, const char *what)
{
	bad_jwks(psprintf("Key %d: %s.", jwk->number, what));
}

/* The statement is not logged: it may hold secrets. */
static void
bad_jwks(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("JWK Set cannot be used"),
			 errdetail_internal("%s", detail),
			 errhidestmt(true)));
}

/* ------------------------------------------------------------------------
 * Public keys
 * ------------------------------------------------------------------------
 */

/* Appends a DER value of up to 64 kB. */
static void
der_append(StringInfo out, uint8 tag, const void *value, int len)
{
	appendStringInfoChar(out, (char) tag);
	if (len >= 0x100)
	{
		appendStringInfoChar(out, (char) 0x82);
		appendStringInfoChar(out, (char) (len >> 8));
	}
	else if (len >= 0x80)
		appendStringInfoChar(out, (char) 0x81);
	appendStringInfoChar(out, (char) len);
	appendBinaryStringInfo(out, (const char *) value, len);
}

/* Appends a number that is not negative, given with its highest byte first. */
static void
der_integer(StringInfo out, const uint8 *value, int len)
{
	StringInfoData number;

	while (len > 1 && value[0] == 0)
	{
		value++;
		len--;
	}
	initStringInfo(&number);
	if (value[0] >= 0x80)
		appendStringInfoChar(&number, '\0');
	appendBinaryStringInfo(&number, (const char *) value, len);
	der_append(out, 0x02, number.data, number.len);
	pfree(number.data);
}

/* NULL if it is no key. */
static EVP_PKEY *
public_key_parse(const uint8 *der, int len)
{
	const uint8 *at = der;
	EVP_PKEY   *key = d2i_PUBKEY(NULL, &at, len);

	ERR_clear_error();
	return key;
}

/* ------------------------------------------------------------------------
 * The cache
 * ------------------------------------------------------------------------
 */

/*
 * mbus_jwt_keys returns the keys, which are good until the next call.
 */
const MbusJwtKey *
mbus_jwt_keys(int *n)
{
	mbus_catalog_cache_look(&cache, mbus_schema());
	*n = cache_n;
	return cache_keys;
}

/* mbus_jwt_key_known tells whether the key of a mark is one of the keys. */
bool
mbus_jwt_key_known(uint64 mark)
{
	int			n;
	const MbusJwtKey *keys = mbus_jwt_keys(&n);

	for (int i = 0; i < n; i++)
	{
		if (keys[i].mark == mark)
			return true;
	}
	return false;
}

/*
 * mbus_jwt_key_changed (trigger) tells all backends that keys have
 * changed, at commit.
 */
Datum
mbus_jwt_key_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "mbus_jwt_key_changed: not called as a trigger");
	CacheInvalidateRelcacheByRelid(mbus_relation(mbus_schema(), "jwt_key"));
	return PointerGetDatum(NULL);
}

/* Reads all keys. */
static void
keys_load(Oid schema)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	cache_n = 0;
	cache_keys = MemoryContextAllocZero(cache.context,
										KEYS_MAX * sizeof(MbusJwtKey));
	rel = table_open(cache.relid, AccessShareLock);
	scan = systable_beginscan(rel, mbus_relation(schema, "jwt_key_pkey"), true,
							  NULL, 0, NULL);
	while (cache_n < KEYS_MAX &&
		   HeapTupleIsValid(tuple = systable_getnext(scan)))
		key_read(tuple, RelationGetDescr(rel));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Adds a row to the cache; one that has no key in it is passed over. */
static void
key_read(HeapTuple tuple, TupleDesc desc)
{
	MbusJwtKey *key = &cache_keys[cache_n];
	bytea	   *bytes;
	uint8	   *data;
	int			len;
	Datum		value;
	bool		isnull;

	memset(key, 0, sizeof(*key));
	value = heap_getattr(tuple, MBUS_JWT_KEY_ALG, desc, &isnull);
	key->alg = mbus_jwt_alg(TextDatumGetCString(value));
	value = heap_getattr(tuple, MBUS_JWT_KEY_KID, desc, &isnull);
	if (!isnull)
		key->kid = MemoryContextStrdup(cache.context,
									   TextDatumGetCString(value));
	value = heap_getattr(tuple, MBUS_JWT_KEY_KEY, desc, &isnull);
	bytes = DatumGetByteaPP(value);
	data = (uint8 *) VARDATA_ANY(bytes);
	len = VARSIZE_ANY_EXHDR(bytes);
	key->mark = hash_bytes_extended(data, len, key->alg) | 1;

	if (key->alg == MBUS_ALG_HS256)
	{
		key->secret = MemoryContextAlloc(cache.context, len);
		memcpy(key->secret, data, len);
		key->secret_len = len;
	}
	else
	{
		MemoryContextCallback *callback;

		callback = MemoryContextAlloc(cache.context, sizeof(*callback));
		key->public_key = public_key_parse(data, len);
		if (key->public_key == NULL)
			return;
		callback->func = public_key_free;
		callback->arg = key->public_key;
		MemoryContextRegisterResetCallback(cache.context, callback);
	}
	cache_n++;
}

static void
public_key_free(void *arg)
{
	EVP_PKEY_free(arg);
}
