/*
 * tls.h
 *		The listener's certificate. See tls.c.
 */
#ifndef GW_TLS_H
#define GW_TLS_H

#include <stdbool.h>
#include <stddef.h>

extern const char *gw_tls_check(const char *cert, const char *key, char *why,
								size_t size);
extern void gw_tls_prepare(void *context);
extern void gw_tls_renew(bool use);

#endif							/* GW_TLS_H */
