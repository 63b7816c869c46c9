/*
 * jwt.c
 *		JSON Web Tokens: the compact form of RFC 7515, and its signature.
 *
 * A token is believed if one of the keys of message_bus.jwt_key has signed
 * it.  What the token says of itself never widens that: a key has one
 * algorithm, which the header's "alg" must be exactly; of the header only
 * alg, kid and typ are read; keys in it or addresses of keys (jwk, jku, x5c,
 * x5u) are passed over like any other member, and "crit" is refused, because
 * nothing that it could name is understood.
 *
 *	HS256	HMAC with SHA-256, compared in constant time
 *	RS256	RSASSA-PKCS1-v1_5 with SHA-256
 *	ES256	ECDSA on P-256; the signature is r and s, 32 bytes each
 *	EdDSA	Ed25519
 *
 * Nothing is parsed but three strict base64url parts before the header names
 * a key, and the claims are not looked at before the signature fits.
 *
 * Every fault of a token is the same error, 28000, with a detail that quotes
 * nothing of it.  OpenSSL's objects live between two errors: what allocates
 * them calls nothing of the server's before they are freed.
 */
#include "postgres.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/json_slice.h"
#include "identity/jwt.h"
#include "identity/jwt_key.h"
#include "identity/token.h"

#define HEADER_MAX		4096	/* bytes of the header's JSON */
#define SHA256_BYTES	32
#define ES256_BYTES		64		/* r and s */

/* A token taken apart; input is borrowed. */
typedef struct Jws
{
	const char *input;			/* what is signed: header "." payload */
	int			input_len;
	uint8	   *header;
	int			header_len;
	uint8	   *payload;
	int			payload_len;
	uint8	   *signature;
	int			signature_len;
} Jws;

typedef struct JwsHeader
{
	MbusJwtAlg	alg;
	char	   *kid;			/* NULL: none */
} JwsHeader;

static void jws_split(const char *token, int len, Jws *jws);
static uint8 *jws_part(const char *part, int len, int *decoded_len);
static void header_read(const Jws *jws, JwsHeader *header);
static char *header_string(const MbusNode *root, const char *name);
static uint64 signature_check(const Jws *jws, const JwsHeader *header);
static bool signature_fits(const MbusJwtKey *key, const Jws *jws);
static bool hmac_fits(const MbusJwtKey *key, const Jws *jws);
static uint8 *es256_der(const Jws *jws, int *der_len);
static bool public_key_fits(const MbusJwtKey *key, const Jws *jws,
							const uint8 *signature, int len);

/*
 * mbus_jwt_verify returns the payload of a token that one of the keys has
 * signed, palloc'd and with a zero byte behind it, and the mark of that key.
 * 28000 for any fault.
 */
char *
mbus_jwt_verify(const char *token, int len, int *payload_len, uint64 *key)
{
	Jws			jws = {0};
	JwsHeader	header = {0};

	if (len > MBUS_TOKEN_MAX)
		mbus_token_fault("It is longer than 16 KiB.");
	jws_split(token, len, &jws);
	header_read(&jws, &header);
	*key = signature_check(&jws, &header);
	*payload_len = jws.payload_len;
	return (char *) jws.payload;
}

/* Three parts, none of them empty. */
static void
jws_split(const char *token, int len, Jws *jws)
{
	const char *end = token + len;
	const char *payload = memchr(token, '.', len);
	const char *signature = NULL;

	if (payload)
		signature = memchr(payload + 1, '.', end - payload - 1);
	if (signature == NULL || memchr(signature + 1, '.', end - signature - 1))
		mbus_token_fault("It does not have three parts.");

	jws->input = token;
	jws->input_len = signature - token;
	jws->header = jws_part(token, payload - token, &jws->header_len);
	jws->payload = jws_part(payload + 1, signature - payload - 1,
							&jws->payload_len);
	jws->signature = jws_part(signature + 1, end - signature - 1,
							  &jws->signature_len);
}

/* Decodes a part; a zero byte is put behind it. */
static uint8 *
jws_part(const char *part, int len, int *decoded_len)
{
	uint8	   *decoded = palloc(len + 1);

	if (len == 0)
		mbus_token_fault("It has an empty part.");
	*decoded_len = mbus_base64url_decode(part, len, decoded);
	if (*decoded_len < 0)
		mbus_token_fault("It has a part that is not base64url without padding.");
	decoded[*decoded_len] = '\0';
	return decoded;
}

/*
 * header_read reads what a token's header says of its signature, and refuses
 * what it must not say.
 */
static void
header_read(const Jws *jws, JwsHeader *header)
{
	MbusNode	root;
	char	   *alg;
	char	   *typ;

	/* how deep it may nest is bounded with its length: nobody signed it yet */
	if (jws->header_len > HEADER_MAX)
		mbus_token_fault("Its header is longer than 4 KiB.");
	mbus_jwt_object((const char *) jws->header, jws->header_len, "header",
					&root);
	if (mbus_json_member(&root, "crit"))
		mbus_token_fault("Its header has a member \"crit\", which is not understood.");

	typ = header_string(&root, "typ");
	if (typ && pg_strncasecmp(typ, "application/", 12) == 0)
		typ += 12;
	if (typ && pg_strcasecmp(typ, "JWT") != 0 &&
		pg_strcasecmp(typ, "at+jwt") != 0)
		mbus_token_fault("Its header names a type that is not JWT.");

	alg = header_string(&root, "alg");
	if (alg == NULL)
		mbus_token_fault("Its header names no algorithm.");
	header->alg = mbus_jwt_alg(alg);
	if (header->alg == MBUS_ALG_NONE)
		mbus_token_fault("Its header names an algorithm that is not HS256, RS256, ES256 or EdDSA.");
	header->kid = header_string(&root, "kid");
}

/* Decoded, or NULL if there is no such member. */
static char *
header_string(const MbusNode *root, const char *name)
{
	const MbusNode *member = mbus_json_member(root, name);
	char	   *value = NULL;

	if (member == NULL)
		return NULL;
	if (member->value.type == JSON_TOKEN_STRING)
		value = mbus_json_string(&member->value, true);
	if (value == NULL)
		mbus_token_fault(psprintf("Member \"%s\" of its header is not a string of text.",
								  name));
	return value;
}

/*
 * signature_check errors unless the key that the header names has signed the
 * token, or, if it names none, one of its algorithm has.  It returns the key's
 * mark.
 */
static uint64
signature_check(const Jws *jws, const JwsHeader *header)
{
	int			nkeys;
	const MbusJwtKey *keys = mbus_jwt_keys(&nkeys);
	int			tried = 0;

	for (int i = 0; i < nkeys && tried < MBUS_KEYS_PER_ALG; i++)
	{
		const MbusJwtKey *key = &keys[i];

		if (header->kid)
		{
			if (key->kid == NULL || strcmp(key->kid, header->kid) != 0)
				continue;
			if (key->alg != header->alg)
				mbus_token_fault("Its algorithm is not that of its key.");
		}
		else if (key->alg != header->alg)
			continue;
		tried++;
		if (signature_fits(key, jws))
			return key->mark;
	}
	if (tried == 0)
		mbus_token_fault(header->kid ? "Its key is not known." :
						 "There is no key of its algorithm.");
	mbus_token_fault("Its signature does not fit.");
	return 0;
}

/* Whether a key made the token's signature. */
static bool
signature_fits(const MbusJwtKey *key, const Jws *jws)
{
	const uint8 *signature = jws->signature;
	int			len = jws->signature_len;
	uint8	   *der = NULL;
	bool		fits;

	if (key->alg == MBUS_ALG_HS256)
		return hmac_fits(key, jws);
	if (key->alg == MBUS_ALG_ES256)
	{
		der = es256_der(jws, &len);
		if (der == NULL)
			return false;
		signature = der;
	}
	fits = public_key_fits(key, jws, signature, len);
	OPENSSL_free(der);
	return fits;
}

/* Compares in constant time. */
static bool
hmac_fits(const MbusJwtKey *key, const Jws *jws)
{
	uint8		mac[EVP_MAX_MD_SIZE];
	unsigned int len = 0;

	if (HMAC(EVP_sha256(), key->secret, key->secret_len,
			 (const uint8 *) jws->input, jws->input_len, mac, &len) == NULL)
	{
		ERR_clear_error();
		return false;
	}
	return len == SHA256_BYTES && jws->signature_len == SHA256_BYTES &&
		CRYPTO_memcmp(mac, jws->signature, SHA256_BYTES) == 0;
}

/*
 * es256_der returns the signature as OpenSSL takes it, allocated by OpenSSL;
 * NULL if it is not r and s, both above 0.
 */
static uint8 *
es256_der(const Jws *jws, int *der_len)
{
	ECDSA_SIG  *pair;
	BIGNUM	   *r;
	BIGNUM	   *s;
	uint8	   *der = NULL;

	if (jws->signature_len != ES256_BYTES)
		return NULL;
	pair = ECDSA_SIG_new();
	r = BN_bin2bn(jws->signature, ES256_BYTES / 2, NULL);
	s = BN_bin2bn(jws->signature + ES256_BYTES / 2, ES256_BYTES / 2, NULL);
	if (pair && r && s && !BN_is_zero(r) && !BN_is_zero(s) &&
		ECDSA_SIG_set0(pair, r, s) == 1)
	{
		r = s = NULL;			/* they are the pair's now */
		*der_len = i2d_ECDSA_SIG(pair, &der);
		if (*der_len <= 0)
			der = NULL;
	}
	BN_free(r);
	BN_free(s);
	ECDSA_SIG_free(pair);
	ERR_clear_error();
	return der;
}

static bool
public_key_fits(const MbusJwtKey *key, const Jws *jws, const uint8 *signature,
				int len)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool		fits;

	fits = context &&
		EVP_DigestVerifyInit(context, NULL,
							 key->alg == MBUS_ALG_EDDSA ? NULL : EVP_sha256(),
							 NULL, key->public_key) == 1 &&
		EVP_DigestVerify(context, signature, len,
						 (const uint8 *) jws->input, jws->input_len) == 1;
	EVP_MD_CTX_free(context);
	/* others of this process look into the queue */
	ERR_clear_error();
	return fits;
}
