/*
 * request.h
 *		What a request is for: its path and query.
 */
#ifndef MBUS_REQUEST_TARGET_H
#define MBUS_REQUEST_TARGET_H

#include "postgres.h"

typedef enum MbusTargetKind
{
	MBUS_TARGET_BAD,			/* 400 */
	MBUS_TARGET_NONE,			/* 404 */
	MBUS_TARGET_MESSAGE,
	MBUS_TARGET_TRANSACTION
} MbusTargetKind;

/* Texts lie in what was read; NULL where there is no such parameter. */
typedef struct MbusTarget
{
	MbusTargetKind kind;
	int64		id;				/* of a message */
	const char *cap;
	const char *channel;
	const char *transaction_id;
} MbusTarget;

extern void mbus_target_read(char *path, char *query, MbusTarget *target);

#endif							/* MBUS_REQUEST_TARGET_H */
