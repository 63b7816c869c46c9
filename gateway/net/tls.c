/*
 * tls.c
 *		The listener's certificate; the only file that sees OpenSSL.
 *
 * The loop's library makes the SSL_CTX and gives it to gw_tls_prepare, which
 * sets what it must be like. Certificate, chain and key are kept in another
 * SSL_CTX, "current", from where each connection takes them in its handshake
 * (use_current): so a renewal is one assignment, one half of a pair never
 * comes into use without the other, nothing of the old one is left behind
 * when the kind of key changes, and open connections do not notice. What
 * comes into use is what was checked: the files are read once.
 */
#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <stdio.h>
#include <string.h>

static SSL_CTX *checked;
static SSL_CTX *current;

static const char *load_pair(SSL_CTX *pair, const char *cert,
							 const char *key);
static void tell_error(const char *file, char *why, size_t size);
static int	use_current(SSL *connection, void *owner);
static int	no_passphrase(char *to, int size, int writing, void *owner);

/*
 * gw_tls_check tells whether two files are a certificate and its key: NULL,
 * or which of the two is not, and why.
 */
const char *
gw_tls_check(const char *cert, const char *key, char *why, size_t size)
{
	const char *fault;

	SSL_CTX_free(checked);
	checked = SSL_CTX_new(TLS_server_method());
	fault = load_pair(checked, cert, key);
	if (fault == NULL)
		return NULL;
	tell_error(fault, why, size);
	SSL_CTX_free(checked);
	checked = NULL;
	return fault;
}

/*
 * gw_tls_renew gives connections that are made from now on the pair that was
 * checked, if there is one; without `use` it is forgotten.
 */
void
gw_tls_renew(bool use)
{
	SSL_CTX    *old = use && checked != NULL ? current : checked;

	if (use && checked != NULL)
		current = checked;
	checked = NULL;
	SSL_CTX_free(old);
}

/* gw_tls_prepare makes an SSL_CTX, the loop's, what a listener needs. */
void
gw_tls_prepare(void *context)
{
	SSL_CTX    *listener = context;

	(void) SSL_CTX_set_min_proto_version(listener, TLS1_2_VERSION);
	/* A connection that is idle holds no buffers. */
	(void) SSL_CTX_set_mode(listener, SSL_MODE_RELEASE_BUFFERS);
	(void) SSL_CTX_set_options(listener, SSL_OP_NO_RENEGOTIATION);
	(void) SSL_CTX_set_session_cache_mode(listener, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_cert_cb(listener, use_current, NULL);
}

/*
 * load_pair reads a certificate, its chain and its key, and returns NULL, or
 * the file that could not be used.
 */
static const char *
load_pair(SSL_CTX *pair, const char *cert, const char *key)
{
	ERR_clear_error();
	if (pair == NULL)
		return cert;
	SSL_CTX_set_default_passwd_cb(pair, no_passphrase);
	if (SSL_CTX_use_certificate_chain_file(pair, cert) != 1)
		return cert;
	return SSL_CTX_use_PrivateKey_file(pair, key, SSL_FILETYPE_PEM) == 1 &&
		SSL_CTX_check_private_key(pair) == 1 ? NULL : key;
}

/* tell_error tells OpenSSL's first error: the others only follow from it. */
static void
tell_error(const char *file, char *why, size_t size)
{
	unsigned long error = ERR_peek_error();
	const char *reason = ERR_SYSTEM_ERROR(error) ?
	strerror(ERR_GET_REASON(error)) : ERR_reason_error_string(error);

	(void) snprintf(why, size, "\"%s\" could not be used: %s", file,
					reason != NULL ? reason : "for an unknown reason");
	ERR_clear_error();
}

/* use_current gives a connection in its handshake the current pair. */
static int
use_current(SSL *connection, void *owner)
{
	STACK_OF(X509) * chain = NULL;

	(void) owner;
	SSL_certs_clear(connection);
	return SSL_CTX_get0_chain_certs(current, &chain) == 1 &&
		SSL_use_certificate(connection,
							SSL_CTX_get0_certificate(current)) == 1 &&
		SSL_use_PrivateKey(connection,
						   SSL_CTX_get0_privatekey(current)) == 1 &&
		SSL_set1_chain(connection, chain) == 1;
}

/* no_passphrase keeps OpenSSL from asking for one on the terminal. */
static int
no_passphrase(char *to, int size, int writing, void *owner)
{
	(void) to;
	(void) size;
	(void) writing;
	(void) owner;
	return -1;
}
