/*
 * batch.h
 *		Messages in a JSON array.
 */
#ifndef MBUS_BATCH_H
#define MBUS_BATCH_H

#include "postgres.h"

#include "message/draft.h"

extern MbusDraft *mbus_batch_parse(text *messages, int *ndrafts);

#endif							/* MBUS_BATCH_H */
