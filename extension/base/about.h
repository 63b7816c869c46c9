/*
 * about.h
 *		What the call that runs is about: for the view errors, if it fails.
 */
#ifndef MBUS_ABOUT_H
#define MBUS_ABOUT_H

#include "postgres.h"

#include "base/limits.h"

/* Empty strings where nothing is known; no half of a character. */
typedef struct MbusAbout
{
	char		channel[MBUS_CHANNEL_NAME_MAX + 1];
	char		transaction_id[MBUS_TRANSACTION_ID_MAX + 1];
} MbusAbout;

extern MbusAbout mbus_about;

extern void mbus_about_nothing(void);
extern void mbus_about_channel(const char *name, int len);
extern void mbus_about_channel_text(const text *name);
extern void mbus_about_transaction(const text *transaction_id);
extern void mbus_about_copy(char *to, size_t size, const char *from, int len);

#endif							/* MBUS_ABOUT_H */
