/*
 * notify.h
 *		What the service manager is told. See notify.c.
 */
#ifndef GW_NOTIFY_H
#define GW_NOTIFY_H

extern void gw_notify_open(void);
extern void gw_notify_reloading(void);
extern void gw_notify(const char *state);

#endif							/* GW_NOTIFY_H */
