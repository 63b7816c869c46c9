/*
 * address.h
 *		What each client's address holds and may still do. See address.c.
 */
#ifndef GW_ADDRESS_H
#define GW_ADDRESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

typedef struct GwAddress GwAddress;

typedef enum GwAdmission
{
	GW_ADMITTED,
	GW_ADDRESS_FULL,			/* it has its number of connections */
	GW_ADDRESS_FAST,			/* it connects too often */
	GW_ADDRESS_NO_MEMORY
} GwAdmission;

extern GwAdmission gw_address_admit(const struct sockaddr *peer,
									long max_connections, long rate,
									int64_t now_ms, GwAddress **address);
extern void gw_address_release(GwAddress *address);
extern void gw_address_text(const GwAddress *address, char *to, size_t size);
extern size_t gw_addresses_known(void);

#endif							/* GW_ADDRESS_H */
