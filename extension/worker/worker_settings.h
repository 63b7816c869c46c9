/*
 * worker_settings.h
 *		The worker's settings: none of the database's or of a role.
 */
#ifndef MBUS_WORKER_SETTINGS_H
#define MBUS_WORKER_SETTINGS_H

extern void mbus_worker_settings(void);
extern void mbus_worker_settle(void);

#endif							/* MBUS_WORKER_SETTINGS_H */
